"""F01: kill -9 at named steps. What was acknowledged is there, whole; a store that acknowledges too early is caught.

A killed process leaves its writes in the page cache, so that ``synchronous=OFF`` passes this too: see F05 for the disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from holdfast.testing.killing import Tally

pytestmark = pytest.mark.no_cover  # repeats what others measure once

CYCLES = int(os.environ.get("HOLDFAST_TEST_KILL_CYCLES", "200"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "20261120"))
WORKERS = 2


def kill(parent: str, folder: Path, cycles: int, *more: str) -> Tally:
    """Share some cycles between parents that run at the same time, each with its own store and seed."""
    share = -(-cycles // WORKERS)
    command = [sys.executable, str(Path(__file__).with_name(parent))]
    parents = [
        subprocess.Popen(
            [*command, str(folder / f"{number}"), str(share), str(SEED + 1_000_000 * number), *more],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(WORKERS)
    ]
    whole = Tally(SEED)
    for parent_ in parents:
        out, _ = parent_.communicate()
        assert parent_.returncode == 0
        whole.add(msgspec.json.decode(out.splitlines()[-1], type=Tally))
    steps = " ".join(f"[{step}]={count}" for step, count in sorted(whole.steps.items()))
    counts = f"cycles={whole.cycles} missed={whole.missed} acks={whole.reports} findings={len(whole.findings)}"
    print(f"F01 {parent} {more} seed={SEED} {counts} {steps}")
    return whole


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
