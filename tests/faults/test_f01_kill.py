"""F01: kill -9 at named steps. What was acknowledged is there, whole; a store that acknowledges too early is caught.

A killed process leaves its writes in the page cache, so that ``synchronous=OFF`` passes this too: see F05 for the disk.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.testing.killing import Tally, run_parents

pytestmark = pytest.mark.no_cover  # repeats what others measure once

CYCLES = int(os.environ.get("HOLDFAST_TEST_KILL_CYCLES", "200"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "20261120"))
WORKERS = 2


def kill(parent: str, folder: Path, cycles: int, *more: str) -> Tally:
    """Share some cycles between parents that run at the same time, each with its own store and seed."""
    tally = run_parents(Path(__file__).with_name(parent), folder, cycles=cycles, seed=SEED, more=[more] * WORKERS)
    print(f"F01 {parent} {more} {tally.counts}")
    return tally


def test_f01_r01_r03_no_acknowledged_write_is_lost_or_halved_by_kill_9(tmp_path: Path) -> None:
    tally = kill("kill_store.py", tmp_path, CYCLES)
    assert not tally.findings, tally.findings[0]
    assert tally.cycles >= CYCLES
    assert tally.reports > CYCLES
    assert len(tally.steps) == 10


def test_f01_r01_r03_no_acknowledged_edit_is_lost_or_halved_by_kill_9(tmp_path: Path) -> None:
    tally = kill("kill_engine.py", tmp_path, CYCLES)
    assert not tally.findings, tally.findings[0]
    assert tally.cycles >= CYCLES
    assert tally.reports > CYCLES
    assert len(tally.steps) == 11


def test_f01_teeth_an_engine_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    tally = kill("kill_engine.py", tmp_path, 60, "broken")
    assert any("lost" in finding for finding in tally.findings)


def test_f01_teeth_a_store_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    tally = kill("kill_store.py", tmp_path, 60, "broken")
    assert any("lost" in finding for finding in tally.findings)
