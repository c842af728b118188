"""R16, R20, S17: what was damaged is told, found by name, hurts nobody else, and is never taken for something new."""

# ruff: noqa: PT017 - some reads are refused and some are not

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from holdfast.engine.clock import SystemChance
from holdfast.engine.engine import Engine
from holdfast.errors import ConfigurationError, HoldfastError, IntegrityError, NotFoundError
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.stores.keys.file import KeyFile

ANA = Principal("ana")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
CANARY = "canary-77a0"


@contextmanager
def database(settings: Settings, name: str = "holdfast") -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(settings.home / f"{name}.sqlite"))
    connection.set_busy_timeout(5_000)
    try:
        yield connection
    finally:
        connection.close()


async def start(engine: Engine, text: str = CANARY) -> str:
    session = str((await engine.ingest(ANA, f"# T\n\n{text} one.\n\n## U\n\n{text} two.\n".encode(), "a.md")).id)
    async with engine.edit(session, ANA, expected=1) as draft:
        draft.put("chunks/x", {"text": f"{text} three"})
    await engine.label(session, ANA, "a label")
    return session


async def found(engine: Engine) -> dict[str, set[str]]:
    """The codes of the problems of each session that has any."""
    wrong: dict[str, set[str]] = {}
    async for verified in engine.verify(ROOT):
        if not verified.ok:
            wrong[verified.session] = {problem.code for problem in verified.problems}
            assert not any(CANARY in problem.what for problem in verified.problems)
    return wrong


def row_number(connection: apsw.Connection, session: str) -> int:
    return int(connection.execute("SELECT no FROM session WHERE id = ?", (session,)).get)


def flipped(data: bytes, random: Random) -> bytes:
    changed, bit = bytearray(data), random.randrange(len(data) * 8)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


Plant = Callable[[apsw.Connection, int, int], None]


def sql(statement: str) -> Plant:
    def plant(connection: apsw.Connection, number: int, other: int) -> None:
        connection.execute(statement, {"n": number, "o": other})
        assert connection.total_changes() > 0

    return plant


def flip(table: str, column: str, where: str) -> Plant:
    def plant(connection: apsw.Connection, number: int, other: int) -> None:
        rowid, data = connection.execute(
            f"SELECT rowid, {column} FROM {table} WHERE {where} LIMIT 1", {"n": number}
        ).get
        altered = flipped(bytes(data), Random(f"{table}{column}"))
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (altered, rowid))

    return plant


OLD_ITEM = "(SELECT sealed FROM item WHERE session = :o LIMIT 1)"
PLANTED: dict[str, tuple[Plant, set[str]]] = {
    "a bit of the head": (flip("session", "sealed", "no = :n"), {"tampered"}),
    "a bit of the key": (flip("session", "key", "no = :n"), {"tampered", "unreadable"}),
    "a bit of an item": (flip("item", "sealed", "session = :n"), {"tampered"}),
    "a bit of a payload": (flip("log", "payload", "session = :n AND step = 2"), {"log-chain", "tampered"}),
    "a bit of an entry's header": (flip("log", "header", "session = :n AND step = 2"), {"log-chain", "tampered"}),
    "an item cut short": (
        sql("UPDATE item SET sealed = substr(sealed, 1, length(sealed) - 1) WHERE session = :n"),
        {"tampered"},
    ),
    "a head cut short": (sql("UPDATE session SET sealed = substr(sealed, 1, 20) WHERE no = :n"), {"tampered"}),
    "an item lost": (sql("DELETE FROM item WHERE session = :n AND version = 2"), {"tampered"}),
    "an item of another session": (sql(f"UPDATE item SET sealed = {OLD_ITEM} WHERE session = :n"), {"tampered"}),
    "an item too many": (
        sql("INSERT INTO item SELECT :n, id, version, sealed FROM item WHERE session = :o LIMIT 1"),
        {"tampered"},
    ),
    "an item's version": (sql("UPDATE item SET version = version + 1 WHERE session = :n"), {"tampered"}),
    "the head's version": (sql("UPDATE session SET version = version + 1 WHERE no = :n"), {"tampered"}),
    "the head's owner": (sql("UPDATE session SET owner = 'eve' WHERE no = :n"), {"tampered"}),
    "the head's status": (sql("UPDATE session SET status = 'published' WHERE no = :n"), {"tampered"}),
    "the head's step": (sql("UPDATE session SET step = step - 1 WHERE no = :n"), {"tampered", "log-chain"}),
    "the key of another": (
        sql("UPDATE session SET key = (SELECT key FROM session WHERE no = :o) WHERE no = :n"),
        {"tampered"},
    ),
    "the head of another": (
        sql("UPDATE session SET sealed = (SELECT sealed FROM session WHERE no = :o) WHERE no = :n"),
        {"tampered"},
    ),
    "the key destroyed": (sql("UPDATE session SET key = NULL WHERE no = :n"), {"unreadable"}),
    "an entry lost": (sql("DELETE FROM log WHERE session = :n AND step = 2"), {"log-chain"}),
    "the last entry lost": (sql("DELETE FROM log WHERE session = :n AND step = 3"), {"log-chain"}),
    "an entry too many": (
        sql(
            "INSERT INTO log SELECT session, 4, version, made, 'x', header, payload, digest FROM log"
            " WHERE session = :n AND step = 3"
        ),
        {"log-chain"},
    ),
    "an entry of another session": (
        sql(
            "UPDATE log SET payload = (SELECT payload FROM log WHERE session = :o AND step = 2)"
            " WHERE session = :n AND step = 2"
        ),
        {"log-chain"},
    ),
    "an entry with a new digest": (
        sql("UPDATE log SET digest = zeroblob(32) WHERE session = :n AND step = 2"),
        {"log-chain"},
    ),
    "a commit that says it is none": (sql("UPDATE log SET made = 0 WHERE session = :n AND step = 2"), {"log-chain"}),
    "an entry's version": (
        sql("UPDATE log SET version = 9 WHERE session = :n AND step = 2"),
        {"log-chain", "tampered"},
    ),
    "an entry's change id": (sql("UPDATE log SET change = 'x' WHERE session = :n AND step = 2"), {"log-chain"}),
}


@pytest.mark.parametrize("what", PLANTED)
async def test_r20_verify_finds_each_planted_difference_and_blames_nobody_else(
    opens: Any, settings: Settings, what: str
) -> None:
    engine = await opens()
    session, other = await start(engine), await start(engine, "other")
    assert await found(engine) == {}
    plant, codes = PLANTED[what]
    with database(settings) as connection:
        plant(connection, row_number(connection, session), row_number(connection, other))
    for each in (await opens(), engine):
        wrong = await found(each)
        assert wrong.keys() == {session}, what
        assert wrong[session] & codes, wrong


async def test_r20_verify_finds_a_blob_that_is_lost_cut_altered_or_another_s(opens: Any, settings: Settings) -> None:
    engine = await opens()
    sessions = [await start(engine) for _ in range(5)]
    (whole, lost, cut, altered, swapped) = (
        next(path for path in (settings.home / "cold").rglob("*") if path.is_file() and session in str(path))
        for session in sessions
    )
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    altered.write_bytes(flipped(altered.read_bytes(), Random(1)))
    swapped.write_bytes(whole.read_bytes())
    assert await found(engine) == {
        sessions[1]: {"blob-not-found"},
        sessions[2]: {"tampered"},
        sessions[3]: {"tampered"},
        sessions[4]: {"tampered"},
    }


async def test_r20_verify_finds_a_publication_that_is_not_its_receipt_s(opens: Any, settings: Settings) -> None:
    engine = await opens()
    session = await start(engine)
    await engine.publish(session, ANA, seal=(await engine.preview(session, ANA)).seal)
    assert await found(engine) == {}
    with database(settings, "vectors") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        record = next(name for name in tables if "record" in name)
        connection.execute(f"DELETE FROM {record} WHERE rowid = (SELECT min(rowid) FROM {record})")
        assert connection.total_changes() > 0
    assert (await found(await opens())).keys() == {session}


async def test_r20_verify_of_one_session_looks_at_that_one_alone(engine: Engine) -> None:
    session, _ = await start(engine), await start(engine)
    verified = [one async for one in engine.verify(ROOT, session)]
    assert [(one.session, one.ok, one.entries, one.items, one.blobs) for one in verified] == [(session, True, 3, 2, 1)]


@pytest.mark.parametrize("what", PLANTED)
async def test_r16_s17_a_damaged_session_answers_with_an_error_and_never_as_an_empty_new_one(
    opens: Any, settings: Settings, what: str
) -> None:
    engine = await opens()
    session, other = await start(engine), await start(engine, "other")
    with database(settings) as connection:
        PLANTED[what][0](connection, row_number(connection, session), row_number(connection, other))
    again = await opens()
    refused = 0
    for read in (
        again.read(session, ANA),
        again.read(session, ANA, version=1),
        again.history(session, ANA),
        again.export(session, ANA),
        again.undo(session, ANA, expected=2),
        again.preview(session, ANA),
    ):
        try:
            answer = await read
        except HoldfastError as error:
            refused += 1
            assert isinstance(error, IntegrityError | NotFoundError), repr(error)
            assert CANARY not in repr(error)
            assert error.__cause__ is None
        else:
            assert answer  # what does not touch the damage may be told
    if not what.startswith(("the last entry", "an entry", "a commit that")):
        assert refused, what
    assert (await again.read(other, ANA)).version == 2
    async with again.edit(other, ANA, expected=2) as draft:
        draft.put("chunks/y", {"text": "the others go on"})
    swept = await again.sweep(ROOT)
    assert other not in swept.failed
    assert len((await again.find(ANA)).headers) >= 1


async def test_r16_damage_to_one_session_is_audited(opens: Any, settings: Settings) -> None:
    engine = await opens()
    session = await start(engine)
    with database(settings) as connection:
        flip("item", "sealed", "session = :n")(connection, row_number(connection, session), 0)
    again = await opens()
    with pytest.raises(IntegrityError):
        await again.read(session, ANA)
    lines = await again.audit(ROOT, limit=1000)
    assert [line.outcome for line in lines if line.session == session and line.verb == "read"] == ["tampered"]


async def test_r16_an_old_state_put_back_whole_is_found(opens: Any, settings: Settings) -> None:
    """The rows of an earlier version, every one of them authentic: the log beside them tells."""
    engine = await opens()
    session = await start(engine)
    with database(settings) as connection:
        number = row_number(connection, session)
        head = connection.execute(
            "SELECT status, step, version, digest, sealed FROM session WHERE no = ?", (number,)
        ).get
        items = connection.execute("SELECT id, version, sealed FROM item WHERE session = ?", (number,)).fetchall()
    async with engine.edit(session, ANA, expected=2) as draft:
        draft.put("chunks/x", {"text": "newer"})
    with database(settings) as connection:
        connection.execute(
            "UPDATE session SET status = ?, step = ?, version = ?, digest = ?, sealed = ? WHERE no = ?", (*head, number)
        )
        connection.execute("DELETE FROM item WHERE session = ?", (number,))
        connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?)", [(number, *item) for item in items])
    wrong = await found(await opens())
    assert wrong.keys() == {session}
    assert "log-chain" in wrong[session]


async def test_r16_a_file_that_is_no_database_is_told_and_left_as_it_is(opens: Any, settings: Settings) -> None:
    path = settings.home / "holdfast.sqlite"
    path.parent.mkdir(parents=True)
    KeyFile.open(settings.key_path, SystemChance())
    path.write_bytes(b"this is no database " * 1000)
    with pytest.raises(IntegrityError):
        await opens()
    assert path.read_bytes().startswith(b"this is no database")


async def test_s17_a_missing_key_file_makes_no_new_sessions_readable_and_no_old_ones_empty(
    opens: Any, settings: Settings
) -> None:
    engine = await opens()
    session = await start(engine)
    (settings.home / "keys.json").unlink()
    with pytest.raises(ConfigurationError, match="put it back"):
        await opens()
    KeyFile.open(settings.key_path, SystemChance())  # somebody makes a new one all the same
    again = await opens()
    with pytest.raises(IntegrityError) as caught:
        await again.read(session, ANA)
    assert caught.value.code == "unreadable"
    assert CANARY not in str(caught.value)
    new = await start(again)
    assert (await again.read(new, ANA)).version == 2


def test_the_home_is_where_the_damage_is_done(settings: Settings) -> None:
    assert isinstance(settings.home, Path)
