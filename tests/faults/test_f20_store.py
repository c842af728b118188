"""F20, R16, S13, S17: rows of the store altered behind the engine's back. Whatever is answered is what was written.

Each case alters the rows of one session in a copy of a home, opens the copy, and asks everything that can be asked. An
answer that is not the one given before the alteration is a silent corruption; the only other answers are the two
refusals, which stand in the audit. Other sessions answer as ever, and ``verify`` finds the altered one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import apsw
import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher as Raw
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.engine.sealing import Cipher
from holdfast.engine.verification import Verified
from holdfast.errors import HoldfastError, IntegrityError, SessionNotFoundError
from holdfast.model.access import Principal
from holdfast.settings import Settings

pytestmark = pytest.mark.no_cover  # repeats what others measure once

FLIPS = int(os.environ.get("HOLDFAST_TEST_STORE_FLIPS", "150"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "20261120"))

ANA = Principal(id="ana")
EVE = Principal(id="eve", tenant="other")
ADMIN = Principal(id="root", roles=frozenset({"admin", "operator"}))
ANOTHER_KEY = base64.b64encode(hashlib.sha256(b"another key").digest()).decode()
OTHER_ADMIN = Principal(id="root", tenant="other", roles=frozenset({"admin", "operator"}))
KEYS = [f"chunks/{number}" for number in range(4)]

Alter = Callable[[apsw.Connection, "Home"], object]
Ask = Callable[[Engine, str, Principal], Coroutine[Any, Any, object]]


class Home(msgspec.Struct):
    """A home with sessions, what they answer, and their rows as they were at an earlier step."""

    folder: Path
    victim: str
    sibling: str  # of the same owner
    foreign: str  # of another tenant
    answers: dict[str, dict[str, bytes]]
    early: dict[str, list[tuple[Any, ...]]]

    @property
    def owners(self) -> dict[str, Principal]:
        return {self.victim: ANA, self.sibling: ANA, self.foreign: EVE}


async def labelled(engine: Engine, session: str, who: Principal) -> object:
    return await engine.labels(session, who)


async def everything(engine: Engine, session: str, who: Principal) -> object:
    return await engine.export(session, who)


async def now(engine: Engine, session: str, who: Principal) -> object:
    read = await engine.read(session, who)
    return [read.header, read.items]


async def then(engine: Engine, session: str, who: Principal) -> object:
    read = await engine.read(session, who, version=2)
    return read.items


ASKED: dict[str, Ask] = {
    "header": lambda engine, session, who: engine.header(session, who),
    "read": now,
    "read as of": then,
    "history": lambda engine, session, who: engine.history(session, who),
    "short history": lambda engine, session, who: engine.history(session, who, limit=2),
    "diff": lambda engine, session, who: engine.diff(session, who, 1, 4),
    "labels": labelled,
    "undo preview": lambda engine, session, who: engine.preview_undo(session, who),
    "feed": lambda engine, session, who: engine.feed(session, who),
    "export": everything,
}


async def answer(engine: Engine, session: str, who: Principal) -> dict[str, bytes]:
    """What a session answers to each question: bytes, or the code of a refusal behind a ``!``."""
    answers = {}
    for name, ask in ASKED.items():
        try:
            answers[name] = msgspec.json.encode(await ask(engine, session, who))
        except IntegrityError as error:
            answers[name] = b"!" + error.code.encode()
        except HoldfastError as error:
            answers[name] = b"?" + error.code.encode()
        except Exception as error:
            answers[name] = b"?" + repr(error).encode()
    return answers


def rows(home: Path) -> dict[str, list[tuple[Any, ...]]]:
    connection = apsw.Connection(str(database(home)))
    found = {table: list(connection.execute(f"SELECT * FROM {table}")) for table in ("session", "item", "log")}
    connection.close()
    return found


def database(home: Path) -> Path:
    return Path(urlsplit(Settings(home=home).hot_url).path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return asyncio.run(make_home(tmp_path_factory.mktemp("f20") / "home"))


async def make_home(folder: Path) -> Home:
    ids = {}
    early: dict[str, list[tuple[Any, ...]]] = {}
    async with open_engine(Settings(home=folder)) as engine:
        for name, who in (("victim", ANA), ("sibling", ANA), ("foreign", EVE)):
            items = [(key, {"text": f"{name} {key}, first"}) for key in KEYS]
            session = await engine.create(who, kind="knowledge", title=name, items=items)
            ids[name] = session.id
            await engine.label(session.id, who, "start")
            for version in range(1, 4):
                async with engine.edit(session.id, who, expected=version) as draft:
                    draft.put(KEYS[0], {"text": f"{name}, as edited from {version}"})
                    if version == 2:
                        draft.move(KEYS[3], before=KEYS[1])
                if version == 1 and name == "victim":
                    early = rows(folder)
    async with open_engine(Settings(home=folder)) as engine:
        answers = {ids[name]: await answer(engine, ids[name], EVE if name == "foreign" else ANA) for name in ids}
    assert not [code for one in answers.values() for code in one.values() if code[:1] in b"!?"]
    return Home(folder, ids["victim"], ids["sibling"], ids["foreign"], answers, early)


def copied(home: Home, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(home.folder, copy)


async def silent(home: Home, copy: Path, alter: Alter, *, admitted: bytes = b"") -> list[str]:
    """Alter a copy of a home and ask; everything that is wrong with the answers.

    Args:
        admitted: an answer that the case may give besides.
    """
    copied(home, copy)
    connection = apsw.Connection(str(database(copy)))
    alter(connection, home)
    connection.close()
    wrong = []
    async with open_engine(Settings(home=copy)) as engine:
        answers = await answer(engine, home.victim, ANA)
        refused = [name for name, said in answers.items() if said[:1] == b"!"]
        for name, said in answers.items():
            if said[:1] != b"!" and said not in (home.answers[home.victim][name], admitted):
                wrong.append(f"{name} silently gives {said[:80]!r}")
        for session in (home.sibling, home.foreign):
            if await answer(engine, session, home.owners[session]) != home.answers[session]:
                wrong.append("another session is affected")
        if refused:
            lines = await engine.audit(ADMIN, limit=1_000)
            told = {line.outcome for line in lines if line.session == home.victim}
            if not told & {"tampered", "unreadable"}:
                wrong.append(f"refused, and the audit says {told}")
        found: list[Verified] = []
        try:
            for admin in (ADMIN, OTHER_ADMIN):
                with contextlib.suppress(SessionNotFoundError):  # it is of one tenant, whichever that is now
                    found += [one async for one in engine.verify(admin, home.victim)]
        except Exception as error:
            wrong.append(f"verify itself fails: {error!r}")
        else:
            if all(verified.ok for verified in found):
                wrong.append("verify finds nothing")
    return wrong


# -- single bits and cuts --------------------------------------------------------------------------------------------

CELLS = {
    "session": ("sealed", "key", "digest"),
    "item": ("sealed", "id"),
    "log": ("header", "payload", "digest"),
}


def mine(table: str) -> str:
    """The rows of the victim."""
    return "id = :victim" if table == "session" else "session = (SELECT no FROM session WHERE id = :victim)"


def changed_cell(random: Random, cut: bool) -> tuple[str, Alter]:
    table = random.choice(list(CELLS))
    column = random.choice(CELLS[table])
    place = random.random()

    def alter(connection: apsw.Connection, home: Home) -> None:
        bound = {"victim": home.victim}
        query = f"SELECT rowid, {column} FROM {table} WHERE {mine(table)} ORDER BY rowid"
        cells = list(connection.execute(query, bound))
        rowid, value = cells[int(place * len(cells))]
        changed = bytearray(value)
        if cut:
            changed = changed[: int(place * 977 % 1 * len(changed))]
        else:
            bit = int(place * 7919 % 1 * len(changed) * 8)
            changed[bit // 8] ^= 1 << bit % 8
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (bytes(changed), rowid))

    return f"{'cut' if cut else 'flip'} in {table}.{column} at {place:.6f}", alter


@pytest.mark.parametrize("cut", [False, True], ids=["flips", "cuts"])
async def test_f20_r16_no_altered_byte_in_a_row_is_silent(home: Home, tmp_path: Path, cut: bool) -> None:
    random = Random(SEED)
    count = FLIPS // 5 if cut else FLIPS
    wrong = []
    for _ in range(count):
        name, alter = changed_cell(random, cut)
        wrong += [f"{name}: {what}" for what in await silent(home, tmp_path / "copy", alter)]
    print(f"F20 store {'cuts' if cut else 'flips'}={count} seed={SEED} wrong={len(wrong)}")
    assert not wrong, "\n".join(wrong[:12])


# -- rows in other places, old rows, missing rows --------------------------------------------------------------------


def sql(*statements: str) -> Alter:
    def alter(connection: apsw.Connection, home: Home) -> None:
        bound = {"victim": home.victim, "sibling": home.sibling, "foreign": home.foreign}
        for statement in statements:
            names = {name: value for name, value in bound.items() if f":{name}" in statement}
            connection.execute(statement, names)

    return alter


V, S, F = (f"(SELECT no FROM session WHERE id = :{name})" for name in ("victim", "sibling", "foreign"))


def one_of(session: str, at: int) -> str:
    return f"(SELECT rowid FROM item WHERE session = {session} ORDER BY rowid LIMIT 1 OFFSET {at})"


def swap(table: str, column: str, one: str, other: str) -> Alter:
    """Exchange a cell of two rows."""
    return sql(
        f"CREATE TEMP TABLE kept AS SELECT {column} AS cell FROM {table} WHERE rowid = {one}",
        f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} WHERE rowid = {other}) WHERE rowid = {one}",
        f"UPDATE {table} SET {column} = (SELECT cell FROM kept) WHERE rowid = {other}",
    )


def copy_cell(table: str, column: str, to: str, source: str) -> Alter:
    return sql(f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} WHERE {source}) WHERE {to}")


def old(*tables: str) -> Alter:
    """Put the victim's rows of some tables back as they were at an earlier version."""

    def alter(connection: apsw.Connection, home: Home) -> None:
        number = connection.execute("SELECT no FROM session WHERE id = ?", (home.victim,)).get
        for table in tables:
            of = "no" if table == "session" else "session"
            kept = [row for row in home.early[table] if row[0] == number]
            assert kept, table
            connection.execute(f"DELETE FROM {table} WHERE {of} = ?", (number,))
            for row in kept:
                connection.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)

    return alter


def old_item(connection: apsw.Connection, home: Home) -> None:
    """Put back one item as it was, with the version it had, or with its sealed bytes alone."""
    number = connection.execute("SELECT no FROM session WHERE id = ?", (home.victim,)).get
    for session, id_, version, sealed in home.early["item"]:
        if session == number:
            connection.execute(
                "UPDATE item SET version = ?, sealed = ? WHERE session = ? AND id = ?", (version, sealed, session, id_)
            )


def old_bytes(connection: apsw.Connection, home: Home) -> None:
    for session, id_, _, sealed in home.early["item"]:
        if session == connection.execute("SELECT no FROM session WHERE id = ?", (home.victim,)).get:
            connection.execute("UPDATE item SET sealed = ? WHERE session = ? AND id = ?", (sealed, session, id_))


def log_at(session: str, step: int) -> str:
    return f"(SELECT rowid FROM log WHERE session = {session} AND step = {step})"


MOVED: dict[str, Alter] = {
    "two items swapped": swap("item", "sealed", one_of(V, 0), one_of(V, 1)),
    "an item of another session": copy_cell("item", "sealed", f"rowid = {one_of(V, 0)}", f"rowid = {one_of(S, 0)}"),
    "an item of another tenant": copy_cell("item", "sealed", f"rowid = {one_of(V, 0)}", f"rowid = {one_of(F, 0)}"),
    "all items of another session": sql(
        f"DELETE FROM item WHERE session = {V}",
        f"INSERT INTO item SELECT {V}, id, version, sealed FROM item WHERE session = {S}",
    ),
    "an item missing": sql(f"DELETE FROM item WHERE rowid = {one_of(V, 1)}"),
    "every item missing": sql(f"DELETE FROM item WHERE session = {V}"),
    "items too many": sql(
        f"INSERT INTO item SELECT {V}, randomblob(16), version, sealed FROM item WHERE session = {S}"
    ),
    "an item's version raised": sql(f"UPDATE item SET version = version + 1 WHERE rowid = {one_of(V, 0)}"),
    "an old item": old_item,
    "an old item's bytes": old_bytes,
    "an old head": old("session"),
    "an old head and its items": old("session", "item"),
    "old items": old("item"),
    "an old log": old("log"),
    "the key of another session": copy_cell("session", "key", "id = :victim", "id = :sibling"),
    "the key of another tenant": copy_cell("session", "key", "id = :victim", "id = :foreign"),
    "the head of another session": copy_cell("session", "sealed", "id = :victim", "id = :sibling"),
    "head and key of another session": sql(
        "UPDATE session SET (sealed, key, step, version, digest) ="
        " (SELECT sealed, key, step, version, digest FROM session WHERE id = :sibling) WHERE id = :victim"
    ),
    "everything of another session": sql(
        "UPDATE session SET (sealed, key, step, version, digest) ="
        " (SELECT sealed, key, step, version, digest FROM session WHERE id = :sibling) WHERE id = :victim",
        f"DELETE FROM item WHERE session = {V}",
        f"INSERT INTO item SELECT {V}, id, version, sealed FROM item WHERE session = {S}",
    ),
    "two log payloads swapped": swap("log", "payload", log_at(V, 3), log_at(V, 4)),
    "a log entry of another session": copy_cell("log", "payload", f"rowid = {log_at(V, 3)}", f"rowid = {log_at(S, 3)}"),
    "a whole log entry of another session": sql(
        "UPDATE log SET (header, payload, digest) ="
        f" (SELECT header, payload, digest FROM log WHERE rowid = {log_at(S, 3)}) WHERE rowid = {log_at(V, 3)}"
    ),
    "a log entry at another step": sql(
        "UPDATE log SET (header, payload, digest) ="
        f" (SELECT header, payload, digest FROM log WHERE rowid = {log_at(V, 4)}) WHERE rowid = {log_at(V, 3)}"
    ),
    "a log entry missing": sql(f"DELETE FROM log WHERE rowid = {log_at(V, 3)}"),
    "the first log entry missing": sql(f"DELETE FROM log WHERE rowid = {log_at(V, 1)}"),
    "the last log entry missing": sql(f"DELETE FROM log WHERE session = {V} AND step = 5"),
    "the log empty": sql(f"DELETE FROM log WHERE session = {V}"),
    "a log entry said to be no commit": sql(f"UPDATE log SET made = 0 WHERE rowid = {log_at(V, 4)}"),
    "a log entry with another change id": sql(f"UPDATE log SET change = 'x' WHERE rowid = {log_at(V, 4)}"),
    "a log entry with another version": sql(f"UPDATE log SET version = version - 1 WHERE rowid = {log_at(V, 4)}"),
    "another owner": sql("UPDATE session SET owner = 'eve' WHERE id = :victim"),
    "another kind": sql("UPDATE session SET kind = 'document' WHERE id = :victim"),
    "another status": sql("UPDATE session SET status = 'published' WHERE id = :victim"),
    "said to be gone": sql("UPDATE session SET status = 'discarded' WHERE id = :victim"),
    "another version": sql("UPDATE session SET version = version + 1 WHERE id = :victim"),
    "another step": sql("UPDATE session SET step = step + 1 WHERE id = :victim"),
    "another tenant": sql("UPDATE session SET tenant = 'other' WHERE id = :victim"),
    "no key": sql("UPDATE session SET key = NULL WHERE id = :victim"),
    "no key, and said to be gone": sql("UPDATE session SET key = NULL, status = 'discarded' WHERE id = :victim"),
    "an empty head": sql("UPDATE session SET sealed = x'' WHERE id = :victim"),
}


ADMITTED = {
    "no key, and said to be gone": b"?session-gone",  # who destroys a key has destroyed the session, whoever it was
    "another owner": b"?session-not-found",  # whom a session is not for learns nothing of it, not even this
    "another tenant": b"?session-not-found",
}
"""What may be answered besides; ``verify`` knows better in each case."""


@pytest.mark.parametrize("name", list(MOVED))
async def test_f20_s13_no_row_put_elsewhere_or_taken_away_is_silent(home: Home, tmp_path: Path, name: str) -> None:
    wrong = await silent(home, tmp_path / "copy", MOVED[name], admitted=ADMITTED.get(name, b""))
    assert not wrong, "\n".join(wrong)


# -- keys ------------------------------------------------------------------------------------------------------------


def other_key(settings: Settings) -> None:
    """The same id, another key."""
    form = msgspec.json.decode(settings.key_path.read_bytes())
    form["keys"] = dict.fromkeys(form["keys"], ANOTHER_KEY)
    settings.key_path.write_bytes(msgspec.json.encode(form))


def other_id(settings: Settings) -> None:
    """The key is there no more, another one is."""
    form = {"active": "k9", "keys": {"k9": ANOTHER_KEY}}
    settings.key_path.write_bytes(msgspec.json.encode(form))


@pytest.mark.parametrize(("ring", "code"), [(other_key, b"!tampered"), (other_id, b"!unreadable")])
async def test_f20_s17_a_wrong_or_missing_key_opens_nothing_and_empties_nothing(
    home: Home, tmp_path: Path, ring: Callable[[Settings], None], code: bytes
) -> None:
    copied(home, tmp_path / "copy")
    settings = Settings(home=tmp_path / "copy")
    ring(settings)
    before = rows(settings.home)
    async with open_engine(settings) as engine:
        for session, who in home.owners.items():
            assert set((await answer(engine, session, who)).values()) == {code}
            with pytest.raises(IntegrityError):
                async with engine.edit(session, who, expected=4) as draft:
                    draft.put(KEYS[0], {"text": "over it"})
    assert rows(settings.home) == before
    shutil.copy(Settings(home=home.folder).key_path, settings.key_path)  # and with the right key it is all there
    async with open_engine(settings) as engine:
        for session, who in home.owners.items():
            assert await answer(engine, session, who) == home.answers[session]


@pytest.mark.parametrize(("ring", "code"), [(other_key, "tampered"), (other_id, "unreadable")])
async def test_f20_s17_what_a_wrong_or_missing_key_refused_is_in_the_audit(
    home: Home, tmp_path: Path, ring: Callable[[Settings], None], code: str
) -> None:
    copied(home, tmp_path / "copy")
    settings = Settings(home=tmp_path / "copy")
    ring(settings)
    async with open_engine(settings) as engine:
        with pytest.raises(IntegrityError):
            await engine.read(home.victim, ANA)
        lines = await engine.audit(ADMIN, limit=1_000)
    assert {line.session for line in lines if line.outcome == code} == {home.victim}


async def test_f20_s17_a_list_does_not_hide_what_cannot_be_read(home: Home, tmp_path: Path) -> None:
    copied(home, tmp_path / "copy")
    settings = Settings(home=tmp_path / "copy")
    other_key(settings)
    async with open_engine(settings) as engine:
        page = await engine.find(ANA)
    assert not page.headers
    assert set(page.unreadable) == {home.victim, home.sibling}


# -- blobs -----------------------------------------------------------------------------------------------------------


async def test_f20_r16_a_changed_or_cut_blob_is_found(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    async with open_engine(settings) as engine:
        session = await engine.ingest(ANA, b"# Title\n\nSome text of a source document.\n" * 40, "source.md")
    blobs = [path for path in Path(urlsplit(settings.cold_url).path).rglob("*") if path.is_file()]
    assert blobs
    random, silently, tried = Random(SEED), 0, 0
    for path in blobs:
        whole = path.read_bytes()
        for number in range(20):
            changed = bytearray(whole)
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
            path.write_bytes(bytes(changed) if number < 15 else whole[: random.randrange(len(whole))])
            async with open_engine(settings) as engine:
                found = [one async for one in engine.verify(ADMIN, session.id)]
            tried += 1
            silently += all(one.ok for one in found)
        path.write_bytes(whole)
    async with open_engine(settings) as engine:
        assert all([one.ok async for one in engine.verify(ADMIN, session.id)])
    print(f"F20 blobs={len(blobs)} changed or cut={tried} silent={silently}")
    assert silently == 0


# -- teeth -----------------------------------------------------------------------------------------------------------


class StreamCipher(Cipher):
    """Broken on purpose: it encrypts and does not authenticate."""

    def seal(self, data: bytes, aad: bytes) -> bytes:
        return self._crypt(data)

    def open(self, sealed: bytes, aad: bytes, what: str) -> bytes:
        return self._crypt(sealed)

    def _crypt(self, data: bytes) -> bytes:
        crypt = Raw(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
        return crypt.update(data) + crypt.finalize()


async def test_f20_teeth_a_store_sealed_without_authentication_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("journal", "unsealing"):
        monkeypatch.setattr(f"holdfast.engine.{module}.Cipher", StreamCipher)
    home = await make_home(tmp_path / "home")
    random = Random(SEED)
    wrong = 0
    for _ in range(20):
        _, alter = changed_cell(random, cut=False)
        wrong += bool(await silent(home, tmp_path / "copy", alter))
    print(f"F20 broken cipher: flips=20 silent={wrong}")
    assert wrong > 3
