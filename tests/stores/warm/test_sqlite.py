"""The warm store in a SQLite file keeps the port's promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.ports.warm import ChainEnd
from holdfast.stores.warm.sqlite import SqliteWarmStore
from holdfast.testing.samples import head_at
from holdfast.testing.warm import Connect, WarmStoreSuite, log

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
