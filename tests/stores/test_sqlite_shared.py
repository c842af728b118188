"""The two embedded stores on one file: what the hot one writes is warm already, and a stub is a stub to both."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import astuple, replace

from holdfast.errors import ConfigurationError
from holdfast.model.session import SealedHead, SealedItem, Write
from holdfast.ports.warm import Query, Snapshot
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.stores.sqlite_rows import SCHEMA, UPGRADES, open_tables
from holdfast.stores.warm.sqlite import SqliteWarmStore
from holdfast.testing.hot_handles import build
from holdfast.testing.revocation import revocation
from holdfast.testing.samples import NOW, content, entry_at, head_at, later, write_at
from holdfast.testing.warm_handles import log, snapshot_at, snapshot_of

Race = Callable[..., dict[str, Any]]
Both = tuple[SqliteHotStore, SqliteWarmStore]


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    file = open_tables(tmp_path / "both.db", name="both")
    yield SqliteHotStore(file), SqliteWarmStore(file)
    await file.close()


async def test_the_items_of_a_session_are_those_of_its_last_write(both: Both) -> None:
    hot, warm = both
    await build(hot, 3)
    assert await snapshot_of(warm) == snapshot_at(3, [b"i"])
    assert await hot.write(write_at("s", 4, items=[b"j"]), now=NOW)
    items = (SealedItem(b"i", 3, content(f"{b'i'!r} 3")), SealedItem(b"j", 4, content(f"{b'j'!r} 4")))
    assert await snapshot_of(warm) == Snapshot(4, items)
    assert await hot.write(write_at("s", 5, items={b"i": None, b"j": None}), now=NOW)
    assert await warm.items("s") == Snapshot(5, ())
    assert await hot.write(write_at("empty", 1), now=NOW)
    assert await warm.items("empty") == Snapshot(1, ())


async def test_a_snapshot_that_comes_late_does_not_undo_a_write(both: Both) -> None:
    hot, warm = both
    await build(hot, 3)
    await warm.snapshot("s", snapshot_at(2, [b"i", b"old"]))
    loaded = await hot.load("s")
    assert loaded == (head_at("s", 3), list(snapshot_at(3, [b"i"]).items))


async def test_a_stub_is_written_to_by_nobody_until_it_is_restored(both: Both) -> None:
    hot, warm = both
    await build(hot, 3)
    lease = await hot.acquire("s", "ana", seconds=30, now=NOW)
    assert lease is not None
    assert await warm.archive("s", step=3, key="k") is True
    stub = head_at("s", 3, archive="k")
    for fence in (None, lease.fence):
        for name in ("c3", "another"):
            assert await hot.write(write_at("s", 4, name, items=[b"i"], fence=fence), now=later(60)) is False
        assert await hot.write(write_at("s", 1, items=[b"i"]), now=NOW) is False
    assert await hot.head("s") == stub
    assert await hot.load("s") == (stub, [])
    assert await hot.entries("s", after=0, limit=9) == []
    assert await hot.recent("s", before=9, limit=9) == []
    assert await hot.change("s", "c2") is None
    await warm.restore("s", [entry_at("s", step) for step in (1, 2, 3)], snapshot_at(3, [b"i"]), key="k")
    assert await hot.load("s") == (head_at("s", 3), list(snapshot_at(3, [b"i"]).items))
    assert await hot.change("s", "c2") == entry_at("s", 2)
    assert await hot.write(write_at("s", 4, items=[b"i"], fence=lease.fence), now=later(1)) is True
    assert await warm.entries("s", after=0, limit=9) == log("s", 1, 4)
    assert await snapshot_of(warm) == snapshot_at(4, [b"i"])


class WritesToStubs(SqliteHotStore):
    """Does not look whether a session is a stub."""

    async def write(self, write: Write, *, now: Any) -> bool:
        await self._file.write(lambda connection: connection.execute("UPDATE session SET archive = NULL"))
        return await super().write(write, now=now)


async def test_a_store_that_writes_to_stubs_is_noticed(tmp_path: Path) -> None:
    file = open_tables(tmp_path / "both.db", name="both")
    with pytest.raises(AssertionError):
        await test_a_stub_is_written_to_by_nobody_until_it_is_restored((WritesToStubs(file), SqliteWarmStore(file)))
    await file.close()


async def test_no_move_is_left_out_because_a_session_became_a_stub(both: Both) -> None:
    hot, warm = both
    await build(hot, 2, session="t")
    for number in range(3):
        await build(hot, 3, session=f"s{number}")
        mark, _ = await hot.moved(None)
        assert await warm.archive(f"s{number}", step=3, key="k") is True
        assert await hot.moved(mark) == (mark, set())
        assert await hot.write(write_at("t", number + 3, items=[b"i"]), now=NOW)
        mark, named = await hot.moved(mark)
        assert named == {"t"}
    await warm.restore("s0", log("s0", 1, 3), snapshot_at(3), key="k")
    assert (await hot.moved(mark))[1] == {"s0"}
    assert await warm.entries("t", after=0, limit=9) == log("t", 1, 5)


async def test_a_log_whose_numbers_are_given_again_is_noticed(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(connection: apsw.Connection, number: int) -> None:
        connection.execute("DELETE FROM log WHERE session = ?", (number,))

    monkeypatch.setattr("holdfast.stores.warm.sqlite.drop_log", drop)
    with pytest.raises(AssertionError):
        await test_no_move_is_left_out_because_a_session_became_a_stub(both)


async def test_a_stub_counts_towards_its_owners_quota_and_is_in_the_catalogue(both: Both) -> None:
    hot, warm = both
    await build(hot, 3)
    assert await warm.archive("s", step=3, key="k") is True
    assert await warm.find(Query("acme"), after=None, limit=9) == [head_at("s", 3, archive="k")]
    assert await hot.due(now=later(10**9), limit=9) == []
    await hot.defer("s", step=3, due=later(5))
    assert await warm.due(now=later(5), limit=9) == ["s"]
    size = await warm.size()
    assert (size.sessions, size.archived) == (1, 1)


async def test_a_stub_that_the_hot_store_purges_is_none_any_more(both: Both) -> None:
    hot, warm = both
    await build(hot, 3)
    assert await warm.archive("s", step=3, key="k") is True
    await hot.purge("s")
    for head in (await hot.head("s"), await warm.head("s")):
        assert head == head_at("s", 3, key=None)
    assert await warm.items("s") is None
    await warm.restore("s", log("s", 1, 3), snapshot_at(3), key="k")
    assert await warm.entries("s", after=0, limit=9) == []
    assert await hot.load("s") == (head_at("s", 3, key=None), [])


async def test_what_is_written_after_a_purge_is_no_snapshot(both: Both) -> None:
    hot, warm = both
    await build(hot, 3)
    await hot.purge("s")
    assert await warm.items("s") is None
    assert await hot.write(write_at("s", 4, commit=False), now=NOW)
    assert await warm.items("s") is None


# -- files of an older Holdfast ----------------------------------------------------------------------------------------


def older(path: Path) -> SealedHead:
    """A file as the tables were before sessions could be archived; it has a session of three steps and an empty one."""
    schema = SCHEMA.replace(
        "    sealed    BLOB    NOT NULL,\n"
        "    archive   TEXT,                         -- key of the object in the cold tier that holds log and items\n"
        "    snapped   INTEGER                       -- the step its items stand at; NULL: none are kept\n",
        "    sealed    BLOB    NOT NULL\n",
    ).replace("CREATE INDEX IF NOT EXISTS session_archived ON session (no) WHERE archive IS NOT NULL;\n", "")
    assert "archived" not in schema.replace("archived.", "")
    assert "snapped" not in schema
    head = head_at("s", 3, due=5.0)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(schema)
        for number, one in enumerate((head, replace(head, id="empty"))):
            connection.execute(
                "INSERT INTO session (no, id, tenant, owner, kind, status, step, version, digest, created, due, sealed,"
                " key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (number, *astuple(one)[:-1]),
            )
        for entry in log("s", 1, 3):
            connection.execute(
                "INSERT INTO log VALUES (0, ?, ?, 1, ?, ?, ?, ?)",
                (entry.step, entry.version, entry.change, entry.header, entry.payload, entry.digest),
            )
        for item in snapshot_at(3).items:
            connection.execute("INSERT INTO item VALUES (0, ?, ?, ?)", (item.id, item.version, item.sealed))
        connection.execute("INSERT INTO revocation VALUES (7, 'acme', 't', '', 0.0, ?, 'ana')", (NOW.timestamp() + 60,))
    return head


async def test_a_file_of_an_older_holdfast_opens_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "both.db"
    head = older(path)
    for _ in range(2):
        file = open_tables(path, name="both")
        hot, warm = SqliteHotStore(file), SqliteWarmStore(file)
        assert await hot.load("s") == (head, list(snapshot_at(3).items))
        assert await warm.entries("s", after=0, limit=9) == log("s", 1, 3)
        assert await snapshot_of(warm) == snapshot_at(3)
        assert await warm.items("empty") is None  # whether it is one of no items is not known
        assert await warm.revoked(after=0, now=NOW) == ([revocation("t")], 7)
        assert file.read.pragma("user_version") == len(UPGRADES)
        await file.close()
    file = open_tables(path, name="both")
    hot, warm = SqliteHotStore(file), SqliteWarmStore(file)
    assert await warm.archive("s", step=3, key="k") is True
    await warm.restore("s", log("s", 1, 3), snapshot_at(3), key="k")
    assert await hot.write(write_at("s", 4, items=[b"i", b"j"]), now=NOW)
    assert await snapshot_of(warm) == snapshot_at(4)
    await file.close()


async def test_processes_that_open_an_older_file_at_once_upgrade_it_once(tmp_path: Path, race: Race) -> None:
    path = tmp_path / "both.db"
    head = older(path)
    race("openings", path, rounds=1)
    store = SqliteWarmStore.open(path)
    assert {found.id for found in await store.find(Query(), after=None, limit=9)} == {
        *("s", "empty"),
        *("p" * number for number in range(1, 5)),
    }
    assert await store.head("s") == head
    await store.close()


def test_a_file_of_a_newer_holdfast_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "both.db"
    older(path)
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.pragma("user_version", len(UPGRADES) + 1)
    with pytest.raises(ConfigurationError, match="upgrade it"):
        open_tables(path, name="both")
