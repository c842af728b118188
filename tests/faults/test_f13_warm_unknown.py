"""F12, F13, R01 at ``warm``: a PostgreSQL warm tier that dies, hangs, drops replies, fills up or rots.

What it acknowledged is there afterwards, what it did not is unknown, and sent again it has one effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest
from msgspec.structs import replace

from holdfast.drivers.postgres import PostgresPool
from holdfast.errors import StoreFullError, StoreUnavailableError, TamperedError
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead
from holdfast.ports.warm import WarmStore
from holdfast.stores.warm.postgres import MIGRATIONS, PostgresWarmStore
from holdfast.testing.postgres import PostgresServer, postgres_server, server_user
from holdfast.testing.proxy import Proxy
from holdfast.testing.revocation import revocation
from holdfast.testing.samples import NOW, content, entry_at, head_at
from holdfast.testing.warm_handles import lines, log, mac, snapshot_at, snapshot_of

KILLS = int(os.environ.get("HOLDFAST_TEST_WARM_KILLS", "5"))
SESSIONS = 12


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that may be harmed."""
    with postgres_server() as server:
        yield server


class Acknowledged:
    """Appends to some sessions, one step after another, and remembers what was acknowledged."""

    def __init__(self, sessions: int = SESSIONS) -> None:
        self.steps = {f"s{number}": 0 for number in range(sessions)}
        self.unknown = 0

    async def append_until(self, store: WarmStore, over: asyncio.Event) -> None:
        """Every session by itself; a step whose outcome is unknown is sent again, for as long as it takes."""

        async def one(session: str) -> None:
            while not over.is_set():
                step = self.steps[session] + 1
                try:
                    await store.append(head_at(session, step), log(session, step, step), members=[f"at {step}"])
                    self.steps[session] = step
                except StoreUnavailableError:
                    self.unknown += 1
                    await asyncio.sleep(0.01)

        await asyncio.gather(*(one(session) for session in self.steps))

    async def lost(self, store: WarmStore) -> list[str]:
        """What was acknowledged and is not there, or is there and not as it was sent."""
        wrong = []
        for session, steps in self.steps.items():
            kept = await store.entries(session, after=0, limit=1_000_000)
            # The step after the last acknowledged may be there too: that it did not land is not known.
            if kept[:steps] != log(session, 1, steps) or len(kept) > steps + 1:
                wrong.append(f"{session}: {steps} acknowledged, {len(kept)} kept")
            head = await store.head(session)
            if (head.step if head else 0) != len(kept) or (kept and head != head_at(session, len(kept))):
                wrong.append(f"{session}: head and log differ")
        return wrong


async def killed_while_appending(server: PostgresServer, seed: int, kills: int) -> list[str]:
    """Kill the server, every process of it, again and again while it is appended to; what was lost in the end."""
    chance = Random(seed)
    acknowledged, over = Acknowledged(), asyncio.Event()
    store = await PostgresWarmStore.open(server.url)
    appending = asyncio.create_task(acknowledged.append_until(store, over))
    for _ in range(kills):
        before, unknown = dict(acknowledged.steps), acknowledged.unknown
        await asyncio.sleep(chance.uniform(0.1, 0.5))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        assert acknowledged.unknown > unknown, "the kill met no append on its way"
        assert acknowledged.steps != before
    over.set()
    await appending
    wrong = await acknowledged.lost(store)
    await store.close()
    return wrong


async def test_r01_what_was_acknowledged_outlives_kill_9_of_the_server(server: PostgresServer) -> None:
    assert await killed_while_appending(server, 1, KILLS) == []


async def test_r01_a_server_that_acknowledges_too_early_is_noticed(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``synchronous_commit`` off the log is still in the server's own memory when it answers."""
    monkeypatch.setattr("holdfast.drivers.postgres._FIT", "SELECT true, true, true, true")
    server.stop()
    server.start(synchronous_commit="off", wal_writer_delay="10s", wal_writer_flush_after="0", wal_buffers="16MB")
    acknowledged = Acknowledged()
    store = await PostgresWarmStore.open(server.url)
    server.run("CHECKPOINT")
    for step in range(1, 4):
        for session in acknowledged.steps:
            await store.append(head_at(session, step), log(session, step, step))
            acknowledged.steps[session] = step
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    assert await acknowledged.lost(store)
    await store.close()


async def test_each_acknowledged_append_has_been_flushed(server: PostgresServer) -> None:
    """Kill -9 leaves the page cache behind: that the log was synced is asked of the server itself."""
    store = await PostgresWarmStore.open(server.url)
    for step in range(1, 20):
        await store.append(head_at("s", step), log("s", step, step))
        flushed = await store._pool.fetch("SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()")
        assert flushed == [(True,)]
    assert server.run("SHOW fsync") == "on"
    await store.close()


# -- replies that are lost ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def proxied(
    server: PostgresServer, kind: type[PostgresWarmStore] = PostgresWarmStore
) -> AsyncIterator[tuple[PostgresWarmStore, Proxy]]:
    """A store on tables that nobody has used, and the proxy before its server."""
    async with Proxy("127.0.0.1", server.port).listening() as proxy:
        store = await kind.open(server.fresh_url().replace(f":{server.port}/", f":{proxy.port}/"))
        yield store, proxy
        await store.close()


def done(piece: bytes) -> bool:
    """Whether a piece of a reply says that a statement has been done: PostgreSQL's CommandComplete."""
    return b"SELECT 1\0" in piece


class AppendsAgain(PostgresWarmStore):
    """Takes each sending for another one: gives entries of a session the next free steps."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        stands = await self.head(head.id)
        first = 1 if stands is None else stands.step + 1
        moved = [entry_at(head.id, first + at, digest=entry.digest) for at, entry in enumerate(entries)]
        await super().append(head_at(head.id, first + len(entries) - 1), moved, members=members)


async def appended_with_lost_replies(store: WarmStore, proxy: Proxy, rounds: int) -> None:
    """Append, lose the reply, append again; and so with lines of the audit."""
    for step in range(1, rounds + 1):
        proxy.drop = done
        with pytest.raises(StoreUnavailableError):
            await store.append(head_at("s", step), log("s", step, step), members=["ben"])
        proxy.drop = lambda piece: False
        await store.append(head_at("s", step), log("s", step, step), members=["ben"])


async def test_f13_an_append_whose_reply_is_lost_is_unknown_and_sent_again_has_one_effect(
    postgres: PostgresServer,
) -> None:
    async with proxied(postgres) as (store, proxy):
        await appended_with_lost_replies(store, proxy, 30)
        assert proxy.lost == 30
        assert await store.entries("s", after=0, limit=99) == log("s", 1, 30)
        assert await store.head("s") == head_at("s", 30)


async def test_f13_a_store_that_appends_again_is_noticed(postgres: PostgresServer) -> None:
    async with proxied(postgres, AppendsAgain) as (store, proxy):
        await appended_with_lost_replies(store, proxy, 1)
        assert len(await store.entries("s", after=0, limit=99)) == 2


async def test_f13_other_writes_whose_reply_is_lost_have_one_effect_too(postgres: PostgresServer) -> None:
    async with proxied(postgres) as (store, proxy):
        await store.append(head_at("s", 2, key=b"old"), log("s", 1, 2))
        proxy.drop = lambda piece: b"UPDATE 1\0" in piece
        with pytest.raises(StoreUnavailableError):
            await store.rewrap("s", old=b"old", new=b"new")
        proxy.drop = lambda piece: b"INSERT 0 2\0" in piece
        with pytest.raises(StoreUnavailableError):
            await store.record(lines("acme", 1, 2), end=b"end")
        proxy.drop = lambda piece: False
        assert await store.rewrap("s", old=b"old", new=b"new") is False
        assert await store.head("s") == head_at("s", 2, key=b"new")
        assert await store.record(lines("acme", 1, 2), end=b"end") is False
        assert await store.audit(chain="acme") == lines("acme", 1, 2)
        assert (await store.chains())["acme"].mac == mac("acme", 2)
        proxy.drop = done
        with pytest.raises(StoreUnavailableError):
            await store.purge("s")
        proxy.drop = lambda piece: False
        await store.purge("s")
        assert (await store.head("s")) == head_at("s", 2, key=None)


class ForgetsItsStubs(PostgresWarmStore):
    """Says of a stub that it made itself that somebody else did: whoever asked would remove the object."""

    _migrations: ClassVar = [
        replace(MIGRATIONS[0], script=re.sub(r"RETURN EXISTS \(.*\);", "RETURN false;", MIGRATIONS[0].script)),
        *MIGRATIONS[1:],
    ]


async def moved_with_lost_replies(store: WarmStore, proxy: Proxy) -> None:
    """Take a session down to a stub and back, and revoke, and lose the reply to each, and ask again."""
    snapshot = snapshot_at(2)
    made = revocation("t")
    await store.append(head_at("s", 2), log("s", 1, 2))

    async def twice(ask: Callable[[], Awaitable[object]]) -> object:
        proxy.drop = done
        with pytest.raises(StoreUnavailableError):
            await ask()
        proxy.drop = lambda piece: False
        return await ask()

    await twice(lambda: store.snapshot("s", snapshot))
    assert await snapshot_of(store) == snapshot
    assert await twice(lambda: store.archive("s", step=2, key="k")) is True
    assert await store.head("s") == head_at("s", 2, archive="k")
    assert await store.entries("s", after=0, limit=9) == []
    await twice(lambda: store.restore("s", log("s", 1, 2), snapshot, key="k"))
    assert await store.head("s") == head_at("s", 2)
    assert await store.entries("s", after=0, limit=9) == log("s", 1, 2)
    assert await snapshot_of(store) == snapshot
    assert await twice(lambda: store.revoke(made, now=NOW)) == made
    assert (await store.revoked(after=0, now=NOW))[0] == [made]


@pytest.mark.parametrize("kind", [PostgresWarmStore, ForgetsItsStubs])
async def test_f13_a_session_that_is_moved_with_lost_replies_is_moved_once(
    postgres: PostgresServer, kind: type[PostgresWarmStore]
) -> None:
    async with proxied(postgres, kind) as (store, proxy):
        with contextlib.nullcontext() if kind is PostgresWarmStore else pytest.raises(AssertionError):
            await moved_with_lost_replies(store, proxy)


async def test_f12_a_connection_that_is_cut_again_and_again_loses_nothing(postgres: PostgresServer) -> None:
    async with proxied(postgres) as (store, proxy):
        acknowledged, over, chance = Acknowledged(), asyncio.Event(), Random(2)
        appending = asyncio.create_task(acknowledged.append_until(store, over))
        for _ in range(40):
            await asyncio.sleep(chance.uniform(0.005, 0.05))
            proxy.cut()
        over.set()
        await appending
        assert acknowledged.unknown
        assert await acknowledged.lost(store) == []


async def test_f13_a_batch_that_hangs_is_unknown_for_all_of_it_and_lands_once(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await PostgresWarmStore.open(server.url)
    await store.append(head_at("s0", 1), log("s0", 1, 1))
    monkeypatch.setattr("holdfast.stores.warm.postgres.ANSWER", 0.5)
    server.pause()
    sending = [store.append(head_at(f"s{n}", 2), log(f"s{n}", 1, 2)) for n in range(20)]
    outcomes = await asyncio.gather(*sending, return_exceptions=True)
    assert all(isinstance(outcome, StoreUnavailableError) for outcome in outcomes)
    server.resume()
    await asyncio.gather(*(store.append(head_at(f"s{n}", 2), log(f"s{n}", 1, 2)) for n in range(20)))
    for number in range(20):
        assert await store.entries(f"s{number}", after=0, limit=9) == log(f"s{number}", 1, 2)
    await store.close()


# -- a full disk, a rotten one -----------------------------------------------------------------------------------------


async def test_f15_a_full_disk_is_told_as_such_and_changes_nothing() -> None:
    """The tables on a file system of a few megabytes, the server's log beside it."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("nobody here may mount a file system")
    user, place = server_user(), Path("/mnt")
    assert user is not None
    script = f'mount -t tmpfs -o size=12m,uid={user.pw_uid},mode=700 tmpfs "$0" && exec "$@"'
    with postgres_server(within=("unshare", "-m", "sh", "-c", script, str(place))) as server:
        server.run(f"CREATE TABLESPACE small LOCATION '{place}'")
        server.run("ALTER ROLE holdfast SET default_tablespace = small")
        server.run("CREATE TABLE ballast AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 2500) AS n")
        store = await PostgresWarmStore.open(server.url)
        acknowledged, full = 0, None
        while full is None and acknowledged < 100:
            step = acknowledged + 1
            try:
                await store.append(head_at("s", step), [large(step)])
                acknowledged = step
            except StoreFullError as error:
                full = error
        assert full is not None
        assert acknowledged > 3
        assert await store.entries("s", after=0, limit=999) == [large(step) for step in range(1, acknowledged + 1)]
        assert await store.head("s") == head_at("s", acknowledged)
        server.run("DROP TABLE ballast")
        await store.append(head_at("s", acknowledged + 1), [large(acknowledged + 1)])
        assert await store.head("s") == head_at("s", acknowledged + 1)
        await store.close()


def large(step: int) -> SealedEntry:
    return entry_at("s", step, payload=content(f"large {step}", 400_000))


async def test_f15_tables_that_have_rotted_are_said_to_be_tampered_with(server: PostgresServer) -> None:
    store = await PostgresWarmStore.open(server.url)
    await store.append(head_at("s", 50), log("s", 1, 50))
    path = server.home / "data" / server.run("SELECT pg_relation_filepath('holdfast.log')")
    await store.close()
    server.stop()
    rotten = bytearray(path.read_bytes())
    rotten[5_000] ^= 0xFF
    path.write_bytes(rotten)
    server.start()
    store = await PostgresWarmStore.open(server.url)
    with pytest.raises(TamperedError, match="warm store's tables"):
        await store.entries("s", after=0, limit=99)
    assert await store.head("s") == head_at("s", 50)  # what is not rotten is there
    await store.close()


async def test_migrations_are_numbered_and_are_what_the_pool_applies(postgres: PostgresServer) -> None:
    assert [step.number for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    pool = await PostgresPool.open(postgres.fresh_url(), name="warm", steps=MIGRATIONS)
    await pool.close()
