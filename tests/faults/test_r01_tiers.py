"""R01, F02: kill -9 of processes that write and flush, and of Redis, in each mode of durability: no acknowledged edit
is lost, and none has two effects.

A cycle is one process that opens the tiers, looks whether all that was ever acknowledged is there, and edits three
sessions until it, or its Redis, is killed at a named step; one session rests and one is archived on the way.
``hot``: only processes are killed. ``disk``: also Redis, which comes back with its file. ``warm``: also Redis, which
comes back empty. ``flush`` (F02): processes, at the steps of the flush alone. ``HOLDFAST_TEST_TIER_KILLS`` says how
many cycles a mode has (200 in CI, 60 elsewhere; of F02 half as many).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.testing.killing import Tally, run_parents
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import needed

pytestmark = pytest.mark.no_cover  # repeats what others measure once

CYCLES = int(os.environ.get("HOLDFAST_TEST_TIER_KILLS", "200" if os.environ.get("CI") else "60"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "20261121"))
WORKERS = 2


def kill(folder: Path, postgres: PostgresServer, mode: str, cycles: int, broken: str = "") -> Tally:
    """Share some cycles between parents that run at the same time, each with a Redis of its own."""
    needed("redis-server", "valkey-server")
    more = [(mode, postgres.fresh_url(), broken) for _ in range(WORKERS)]
    tally = run_parents(Path(__file__).with_name("kill_tiers.py"), folder, cycles=cycles, seed=SEED, more=more)
    print(f"R01 {mode} {broken} {tally.counts}")
    return tally


@pytest.mark.parametrize("mode", ["hot", "disk", "warm"])
def test_r01_no_acknowledged_edit_is_lost_by_kill_9(mode: str, tmp_path: Path, postgres: PostgresServer) -> None:
    tally = kill(tmp_path, postgres, mode, CYCLES)
    assert not tally.findings, tally.findings[0]
    assert tally.cycles >= CYCLES
    assert tally.reports > 3 * CYCLES
    assert len(tally.steps) > 12


def test_f02_a_flusher_that_is_killed_loses_nothing_and_copies_nothing_twice(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    tally = kill(tmp_path, postgres, "flush", CYCLES // 2)
    assert not tally.findings, tally.findings[0]
    assert len(tally.steps) == 5
    assert min(tally.steps.values()) > 1


def test_teeth_an_engine_that_acknowledges_too_early_is_caught(tmp_path: Path, postgres: PostgresServer) -> None:
    tally = kill(tmp_path, postgres, "hot", 100, "eager")
    assert any("lost" in finding for finding in tally.findings)


def test_teeth_a_promise_of_warm_that_hot_has_given_is_caught(tmp_path: Path, postgres: PostgresServer) -> None:
    tally = kill(tmp_path, postgres, "warm", 100, "unconfirmed")
    assert any("lost" in finding or "There is no session" in finding for finding in tally.findings)


def test_teeth_a_flusher_that_acknowledges_first_is_caught(tmp_path: Path, postgres: PostgresServer) -> None:
    tally = kill(tmp_path, postgres, "flush", 60, "early")
    assert any("never flushed" in finding for finding in tally.findings)
