"""The hot store in a SQLite file keeps the port's promises."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast.errors import TamperedError
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.testing.hot import HotStoreSuite
from holdfast.testing.hot_handles import Connect, build
from holdfast.testing.samples import NOW, write_at

Race = Callable[..., dict[str, Any]]

ROUNDS = 40


class TestSqliteHotStore(HotStoreSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return partial(SqliteHotStore.open, tmp_path / "hot.db")


async def test_of_racing_processes_exactly_one_makes_each_step(tmp_path: Path, race: Race) -> None:
    path = tmp_path / "hot.db"
    store = SqliteHotStore.open(path)
    assert await store.write(write_at("s", 1), now=NOW)
    told = race("steps", path, rounds=ROUNDS)
    log = await store.entries("s", after=1, limit=999)
    assert [entry.step for entry in log] == list(range(2, ROUNDS + 2))
    assert sorted(entry.change for entry in log) == sorted(change for made in told.values() for change in made)
    await store.close()


async def test_a_quota_is_exact_among_racing_processes(tmp_path: Path, race: Race) -> None:
    path = tmp_path / "hot.db"  # nobody has opened it yet: the processes race to make it, too
    told = race("creations", path, rounds=10)
    made = [session for sessions in told.values() for session in sessions]
    assert len(made) == 10
    store = SqliteHotStore.open(path)
    for session in made:
        assert await store.head(session) is not None
    await store.close()


async def test_no_two_processes_are_granted_the_same_fence(tmp_path: Path, race: Race) -> None:
    path = tmp_path / "hot.db"
    store = SqliteHotStore.open(path)
    await build(store, 1)
    told = race("fences", path, rounds=ROUNDS)
    assert all(granted == sorted(granted) for granted in told.values())
    assert sorted(fence for granted in told.values() for fence in granted) == list(range(1, 4 * ROUNDS + 1))
    last = await store.lease("s", now=NOW)
    assert last is not None
    assert last.fence == 4 * ROUNDS
    await store.close()


async def test_all_processes_are_told_the_same_epochs_which_never_fall(tmp_path: Path, race: Race) -> None:
    told = list(race("epochs", tmp_path / "hot.db", rounds=ROUNDS).values())
    assert all(answers == told[0] for answers in told)
    assert told[0] == sorted(told[0])


async def test_a_log_that_is_ahead_of_its_head_is_told_as_tampering_not_as_a_race(tmp_path: Path) -> None:
    path = tmp_path / "hot.db"
    store = SqliteHotStore.open(path)
    await build(store, 3)
    await store.close()
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("UPDATE session SET step = 2")
    store = SqliteHotStore.open(path)
    with pytest.raises(TamperedError, match="log of session s"):
        await store.write(write_at("s", 3, "another"), now=NOW)
    assert await store.write(write_at("s", 3, "c3"), now=NOW) is False  # its change id is in the log
    await store.close()
