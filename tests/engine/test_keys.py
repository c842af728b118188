"""S13, S14, S15: rows do not open in another place, nonces do not repeat, keys are rotated under load and destroyed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import pytest

from holdfast.engine.clock import SystemChance
from holdfast.engine.engine import Engine
from holdfast.errors import IntegrityError, UnreadableError
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.stores.keys.file import KeyFile
from holdfast.testing.clock import ManualClock, SeededChance

ANA = Principal("ana")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
ITEMS = [("chunks/1", {"text": "one"}), ("chunks/2", {"text": "two"})]
ROTATED = int(os.environ.get("HOLDFAST_TEST_ROTATED", "60"))
"""Sessions that there are at most while keys are rotated under load."""


@contextmanager
def database(settings: Settings) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(settings.home / "holdfast.sqlite"))
    connection.set_busy_timeout(5_000)
    try:
        yield connection
    finally:
        connection.close()


async def put(engine: Engine, session: str, expected: int, text: str) -> None:
    async with engine.edit(session, ANA, expected=expected, change_id=f"change {expected}") as draft:
        draft.put("chunks/1", {"text": text})


SWAPS = {
    "rows of a session": (
        "UPDATE item SET sealed = (SELECT b.sealed FROM item b"
        " WHERE b.session = item.session AND b.rowid <> item.rowid) WHERE session = 1"
    ),
    "names of rows": "UPDATE item SET id = CAST(substr(id, 2) || substr(id, 1, 1) AS BLOB) WHERE session = 1",
    "rows of two sessions": (
        "UPDATE item SET sealed = (SELECT b.sealed FROM item b WHERE b.session = 2 AND b.rowid % 2 = item.rowid % 2)"
        " WHERE session = 1"
    ),
    "sessions whole, keys and all": "UPDATE session SET id = CASE id WHEN :a THEN :b ELSE :a END WHERE no IN (1, 2)",
    "tenants": "UPDATE session SET tenant = 'other' WHERE no = 1",
}


@pytest.mark.parametrize("what", SWAPS)
async def test_s13_what_is_swapped_at_rest_is_refused(opens: Any, settings: Settings, what: str) -> None:
    engine = await opens()
    one = await engine.create(ANA, kind="knowledge", items=ITEMS)
    two = await engine.create(ANA, kind="knowledge", items=ITEMS)
    with database(settings) as connection:
        if what.startswith("sessions whole"):
            for step, (new, old) in enumerate((("-", one.id), (one.id, two.id), (two.id, "-"))):
                connection.execute("UPDATE session SET id = ? WHERE id = ?", (new, old))
                assert connection.total_changes() == step + 1
        else:
            connection.execute(SWAPS[what])
        assert connection.total_changes() > 0
    again = await opens()
    with pytest.raises(IntegrityError):
        await again.read(one.id, Principal("ana", tenant="other") if what == "tenants" else ANA)


async def test_s13_an_old_row_put_back_is_refused(opens: Any, settings: Settings) -> None:
    engine = await opens()
    session = (await engine.create(ANA, kind="knowledge", items=ITEMS)).id
    with database(settings) as connection:
        old = connection.execute("SELECT id, version, sealed FROM item").fetchall()
    await put(engine, session, 1, "newer")
    with database(settings) as connection:
        for name, version, sealed in old:
            connection.execute("UPDATE item SET version = ?, sealed = ? WHERE id = ?", (version, sealed, name))
    with pytest.raises(IntegrityError):
        await (await opens()).read(session, ANA)


def nonces(settings: Settings) -> list[bytes]:
    """The nonce of everything that is sealed in the database: a byte for the format, then twelve."""
    with database(settings) as connection:
        return [
            bytes(sealed)[1:13]
            for table, column in (("item", "sealed"), ("log", "payload"), ("session", "sealed"))
            for (sealed,) in connection.execute(f"SELECT {column} FROM {table}")
        ]


async def test_s14_nonces_do_not_repeat_when_the_chance_does(opens: Any, settings: Settings) -> None:
    """A machine snapshot that is started twice: the same random bytes come again, and another edit is made."""

    class Stuck(SeededChance):
        """The same bytes again and again."""

        def bytes(self, count: int) -> bytes:
            return b"\x07" * count

    await opens()  # makes the key file, with true chance
    engine = await opens(chance=Stuck(1))
    session = (await engine.create(ANA, kind="knowledge", items=ITEMS)).id
    seen: set[bytes] = set(nonces(settings))
    count = len(nonces(settings))
    assert len(seen) == count
    for version in range(1, 200):
        await put(engine, session, version, f"{version % 2}")
    found = nonces(settings)
    print(f"S14 sealed={len(found)} with one random number, repeats={len(found) - len(set(found))}")
    assert len(set(found)) == len(found)


async def test_s14_data_keys_wrapped_with_repeating_chance_do_not_share_a_nonce(opens: Any, settings: Settings) -> None:
    class Stuck(SeededChance):
        """Keys are random; the short runs that nonces are made of come again and again."""

        def bytes(self, count: int) -> bytes:
            return super().bytes(count) if count >= 32 else b"\x07" * count

    import msgspec

    engine = await opens(chance=Stuck(1))
    for _ in range(50):
        await engine.create(ANA, kind="knowledge", items=ITEMS)
    with database(settings) as connection:
        wrapped = [bytes(key) for (key,) in connection.execute("SELECT key FROM session")]
    found = {msgspec.msgpack.decode(key)[1] for key in wrapped}
    assert len(found) == 50


FORK = """
import asyncio, os, sys
from holdfast.engine.clock import SystemChance
from holdfast.engine.sealing import Cipher

cipher = Cipher(bytes(32), "t", "s", SystemChance())
cipher.seal(b"warmed up", b"")
count, seen = int(sys.argv[1]), set()
for _ in range(3):
    told, tell = os.pipe()
    if os.fork() == 0:
        os.write(tell, b"".join(cipher.seal(b"the same", b"")[1:13] + cipher.chance.token()[:20].encode()
                                for _ in range(count)))
        os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        data = pipe.read()
    for at in range(0, len(data), 32):
        seen |= {data[at : at + 32], data[at : at + 12]}
    os.wait()
seen |= {cipher.seal(b"the same", b"")[1:13] for _ in range(count)}
print(len(seen) - 3 * count * 2 - count)
"""


def test_s14_nonces_and_ids_do_not_repeat_after_a_fork() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK), "500"], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 0


# -- S15 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.no_cover
async def test_s15_keys_are_rotated_under_load_without_an_error(opens: Any) -> None:
    """Two engines edit, read and create while one of them rotates, and drops the older keys each time."""
    engines = [await opens(), await opens()]
    sessions = [str((await engines[0].create(ANA, kind="knowledge", items=ITEMS)).id) for _ in range(8)]
    done = asyncio.Event()
    edits = dict.fromkeys(sessions, 1)
    errors: list[str] = []

    async def work(engine: Engine, mine: list[str]) -> None:
        while not done.is_set():
            try:
                for session in mine:
                    await put(engine, session, edits[session], f"{edits[session]}")
                    edits[session] += 1
                    await engine.read(session, ANA, version=1)
                if len(sessions) < ROTATED:
                    sessions.append(str((await engine.create(ANA, kind="knowledge", items=ITEMS)).id))
            except Exception as error:
                errors.append(repr(error))
                return

    workers = [asyncio.create_task(work(engines[n % 2], sessions[n:8:4])) for n in range(4)]
    for round_ in range(6):
        await asyncio.sleep(0.02)
        rotated = await engines[round_ % 2].rotate_keys(ROOT, drop=True)
        assert rotated.failed == ()
    done.set()
    await asyncio.gather(*workers)
    print(f"S15 rotations=6 edits={sum(edits.values()) - 8} sessions={len(sessions)} errors={len(errors)}")
    assert errors == []
    assert sum(edits.values()) > 16
    await engines[0].rotate_keys(ROOT, drop=True)
    again = await opens()
    for session in sessions:
        assert (await again.read(session, ANA)).version == edits.get(session, 1)
    assert [one.problems async for one in again.verify(ROOT) if not one.ok] == []


async def test_s15_what_another_engine_makes_after_a_drop_is_readable_by_all(opens: Any) -> None:
    one, two = await opens(), await opens()
    await two.create(ANA, kind="knowledge", items=ITEMS)
    await one.rotate_keys(ROOT, drop=True)
    made = (await two.create(ANA, kind="knowledge", items=ITEMS)).id
    with pytest.raises(Exception, match="no session"):
        await two.read("a" * 32, ANA)  # a line for the audit chain, from the engine that did not rotate
    for each in (one, two, await opens()):
        assert (await each.read(made, ANA)).version == 1
        assert [verified.problems async for verified in each.verify(ROOT) if not verified.ok] == []


async def test_s15_a_drop_reaches_every_tenant_first(opens: Any) -> None:
    engine = await opens()
    other = Principal("ana", tenant="other")
    theirs = (await engine.create(other, kind="knowledge", items=ITEMS)).id
    with pytest.raises(Exception, match="no session"):
        await engine.read("a" * 32, other)
    rotated = await engine.rotate_keys(ROOT, drop=True)
    assert rotated.dropped
    again = await opens()
    assert (await again.read(theirs, other)).version == 1
    auditor = Principal("otto", tenant="other", roles=frozenset({"auditor"}))
    assert [one.problems async for one in again.verify(auditor) if not one.ok] == []


async def test_s15_one_key_that_was_damaged_does_not_keep_the_others_from_being_rotated(
    opens: Any, settings: Settings
) -> None:
    engine = await opens()
    sessions = [(await engine.create(ANA, kind="knowledge", items=ITEMS)).id for _ in range(3)]
    with database(settings) as connection:
        connection.execute("UPDATE session SET key = x'c1' WHERE id = ?", (sessions[1],))
    rotated = await engine.rotate_keys(ROOT, drop=True)
    assert (rotated.sessions, rotated.failed, rotated.dropped) == (2, (sessions[1],), ())
    for session in (sessions[0], sessions[2]):
        assert (await engine.read(session, ANA)).version == 1


async def test_s15_a_session_made_while_its_key_is_rotated_away_is_not_lost(opens: Any) -> None:
    """Between the wrapping of its data key and its landing another engine rotates, and drops the key it is under."""
    other = await opens()

    class Slow:
        def __init__(self, store: Any) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def write(self, write: Any, **more: Any) -> bool:
            if write.expected == 0:
                await other.rotate_keys(ROOT, drop=True)
            return bool(await self._store.write(write, **more))

    engine = await opens(wrap=Slow)
    made = [(await engine.create(ANA, kind="knowledge", items=ITEMS)).id for _ in range(3)]
    for each in (engine, other, await opens()):
        for session in made:
            assert (await each.read(session, ANA)).version == 1


async def test_s15_older_keys_only_unwrap(opens: Any, settings: Settings) -> None:
    import msgspec

    engine = await opens()
    old = (await engine.keys(ROOT)).active
    first = (await engine.create(ANA, kind="knowledge", items=ITEMS)).id
    rotated = await engine.rotate_keys(ROOT)
    keys = await engine.keys(ROOT)
    assert (keys.active, set(keys.ids)) == (rotated.key_id, {old, rotated.key_id})
    second = (await engine.create(ANA, kind="knowledge", items=ITEMS)).id
    with database(settings) as connection:
        names = {
            name: msgspec.msgpack.decode(bytes(key))[0]
            for name, key in connection.execute("SELECT id, key FROM session")
        }
    assert names == {first: rotated.key_id, second: rotated.key_id}
    assert (await engine.read(first, ANA)).version == 1


async def test_s15_a_session_whose_key_is_destroyed_is_unreadable_everywhere(
    opens: Any, settings: Settings, clock: ManualClock
) -> None:
    engine, other = await opens(), await opens()
    session = (await engine.ingest(ANA, b"# T\n\nsome text\n", "a.md", title="a title")).id
    kept = (await engine.create(ANA, kind="knowledge", items=ITEMS)).id
    await other.read(session, ANA)
    with database(settings) as connection:
        connection.execute("UPDATE session SET key = NULL WHERE id = ?", (session,))
    for each in (engine, other, await opens()):
        for read in (
            each.read(session, ANA),
            each.header(session, ANA),
            each.export(session, ANA),
            each.feed(session, ANA),
            each.undo(session, ANA, expected=1),
        ):
            with pytest.raises(UnreadableError):
                await read
        assert [header.id for header in (await each.find(ANA)).headers] == [kept]
        clock.advance(1)  # what a writer remembers of a session is good for half a second
        with pytest.raises(UnreadableError):
            await put(each, session, 1, "x")
        assert (await each.read(kept, ANA)).version == 1


async def test_s15_a_key_that_is_gone_from_the_ring_makes_its_sessions_unreadable(
    opens: Any, settings: Settings
) -> None:
    engine = await opens()
    session = (await engine.create(ANA, kind="knowledge", items=ITEMS)).id
    old = (await engine.keys(ROOT)).active
    key_file = settings.home / "keys.json"
    (settings.home / "keys.json").unlink()
    assert not key_file.exists()
    KeyFile.open(key_file, SystemChance())
    again = await opens()
    with pytest.raises(UnreadableError) as caught:
        await again.read(session, ANA)
    assert old in str(caught.value)
    rotated = await again.rotate_keys(ROOT, drop=True)
    assert session in rotated.failed
    assert rotated.dropped == ()  # nothing is forgotten while something cannot be unwrapped


async def test_s15_the_key_file_is_for_its_owner_alone(opens: Any, settings: Settings) -> None:
    await opens()
    assert (settings.home / "keys.json").stat().st_mode & 0o777 == 0o600


async def test_s15_every_sealed_record_names_its_algorithm(opens: Any, settings: Settings) -> None:
    engine = await opens()
    await engine.create(ANA, kind="knowledge", items=ITEMS)
    with database(settings) as connection:
        first = {
            bytes(sealed)[:1]
            for table, column in (("item", "sealed"), ("log", "payload"), ("session", "sealed"))
            for (sealed,) in connection.execute(f"SELECT {column} FROM {table}")
        }
        assert first == {b"\x01"}
        connection.execute("UPDATE item SET sealed = CAST(x'02' || substr(sealed, 2) AS BLOB)")
    with pytest.raises(IntegrityError):
        (await (await opens()).read((await engine.find(ANA)).headers[0].id, ANA))
