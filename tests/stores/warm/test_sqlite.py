"""The warm store in a SQLite file keeps the port's promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast.model.cursor import PageCursor
from holdfast.ports.warm import ChainEnd, Query
from holdfast.stores.warm.sqlite import SqliteWarmStore
from holdfast.testing.samples import NOW, head_at
from holdfast.testing.warm import WarmStoreSuite
from holdfast.testing.warm_handles import Connect, log, snapshot_at

Race = Callable[..., dict[str, Any]]

ROUNDS = 40


class TestSqliteWarmStore(WarmStoreSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return partial(SqliteWarmStore.open, tmp_path / "warm.db")


async def test_a_chain_that_racing_processes_extend_has_every_line_once(tmp_path: Path, race: Race) -> None:
    path = tmp_path / "warm.db"
    told = race("audit", path, rounds=ROUNDS)
    store = SqliteWarmStore.open(path)
    chain = await store.audit(chain="acme", limit=9_999)
    assert [row.seq for row in chain] == list(range(1, 4 * ROUNDS + 1))
    assert sorted(row.line.decode() for row in chain) == sorted(line for made in told.values() for line in made)
    assert (await store.chains())["acme"] == ChainEnd(4 * ROUNDS, chain[-1].mac, chain[-1].line)
    await store.close()


async def test_a_log_that_racing_processes_append_is_kept_once(tmp_path: Path, race: Race) -> None:
    path = tmp_path / "warm.db"
    race("appends", path, rounds=ROUNDS)
    store = SqliteWarmStore.open(path)
    assert await store.entries("s", after=0, limit=9_999) == log("s", 1, ROUNDS)
    assert await store.head("s") == head_at("s", ROUNDS)
    await store.close()


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda store: store.due(now=NOW, limit=9), "USING INDEX session_due (due<?)"),
        (lambda store: store.change("s", "c"), "sqlite_autoindex_log_2 (session=? AND change=?)"),
        (lambda store: store.changes("s", below=9), "sqlite_autoindex_log_1 (session=? AND step<?)"),
        (lambda store: store.items("s"), "sqlite_autoindex_item_1 (session=?)"),
        (lambda store: store.size(), "USING INDEX session_archived"),
    ],
)
async def test_what_is_asked_for_often_is_read_along_an_index(tmp_path: Path, ask: Any, index: str) -> None:
    asked: list[str] = []
    store = SqliteWarmStore.open(tmp_path / "warm.db")
    await store.append(head_at("s", 1), [])
    await store.snapshot("s", snapshot_at(1))
    file = store._file
    file.read.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: asked.append(event["sql"]))
    await ask(store)
    file.read.trace_v2(0, None)
    asked = [sql for sql in asked if "SELECT" in sql]
    plans = [row[3] for sql in asked for row in file.read.execute(f"EXPLAIN QUERY PLAN {sql}", (1,) * sql.count("?"))]
    assert any(index in plan for plan in plans), plans
    await store.close()


async def test_of_a_stub_no_row_is_left_but_its_head_s(tmp_path: Path) -> None:
    store = SqliteWarmStore.open(tmp_path / "warm.db")
    await store.append(head_at("s", 3), log("s", 1, 3))
    await store.snapshot("s", snapshot_at(3))
    assert await store.archive("s", step=3, key="k") is True
    counted = "SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM log), (SELECT count(*) FROM item)"
    assert store._file.read.execute(counted).get == (1, 1, 0)  # and the one of the log that keeps its last number
    assert store._file.read.execute("SELECT session, header, payload FROM log").get == (-1, b"", b"")
    await store.close()


@pytest.mark.parametrize("after", [None, PageCursor(9.0, "s")])
@pytest.mark.parametrize(
    ("query", "indexes"),
    [
        (Query("acme"), ["session_newest (tenant=?"]),
        (Query("acme", "ana"), ["session_owner (tenant=? AND owner=?"]),
        (
            Query("acme", member="ana"),
            ["session_owner (tenant=? AND owner=?", "PRIMARY KEY (tenant=? AND principal=?"],
        ),
    ],
)
async def test_what_a_principal_may_see_is_read_along_an_index(
    tmp_path: Path, query: Query, indexes: list[str], after: PageCursor | None
) -> None:
    asked: list[str] = []
    store = SqliteWarmStore.open(tmp_path / "warm.db")
    file = store._file
    file.read.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: asked.append(event["sql"]))
    assert await store.find(query, after=after, limit=9) == []
    file.read.trace_v2(0, None)
    assert len(asked) == len(indexes)
    for sql, index in zip(asked, indexes, strict=True):
        plan = [row[3] for row in file.read.execute(f"EXPLAIN QUERY PLAN {sql}", (1,) * sql.count("?"))]
        assert index in plan[0]
        if after is not None:
            assert "(created,id)<(?,?)" in plan[0]
        assert not any("SCAN" in line or "TEMP" in line for line in plan), plan
    await store.close()
