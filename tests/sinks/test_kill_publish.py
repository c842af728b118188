"""Kill -9 at every step of publishing: readers see the old revision or the new one, and the next run finishes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from holdfast.testing.killing import Tally

pytestmark = pytest.mark.no_cover  # repeats what others measure once

CYCLES = int(os.environ.get("HOLDFAST_TEST_KILL_CYCLES", "120")) // 2
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "20261120"))


def run(parent: str, *arguments: str) -> str:
    """The last line that a parent of killed children prints."""
    out = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(parent)), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},  # it forks, so it must have no threads
    )
    return out.stdout.splitlines()[-1]


def kill(kind: str, folder: Path, cycles: int, *more: str) -> Tally:
    tally = msgspec.json.decode(run("kill_publish.py", str(folder), kind, str(cycles), str(SEED), *more), type=Tally)
    print(f"{kind} {more} seed={SEED} cycles={tally.cycles} missed={tally.missed} turns={tally.reports} {tally.steps}")
    return tally


@pytest.mark.parametrize("kind", ["vectors", "directory"])
def test_a_publisher_killed_anywhere_leaves_the_old_or_the_new_and_the_next_finishes(kind: str, tmp_path: Path) -> None:
    tally = kill(kind, tmp_path, CYCLES)
    assert not tally.findings, tally.findings[0]
    assert tally.cycles >= CYCLES
    assert tally.reports > CYCLES


@pytest.mark.parametrize("kind", ["vectors", "directory"])
def test_an_engine_killed_at_any_step_of_publishing_is_finished_by_the_next(kind: str, tmp_path: Path) -> None:
    outcomes = msgspec.json.decode(run("kill_engine_publish.py", str(tmp_path), kind), type=dict[str, str])
    print(kind, outcomes)
    assert {step: outcome for step, outcome in outcomes.items() if outcome not in ("", "missed")} == {}
    killed = {step for step, outcome in outcomes.items() if outcome == ""}
    calls = ("sink.begin", "sink.stage", "sink.verify", "sink.switch", "sink.clean", "hot.write")
    assert {f"{when} {call} 1" for call in calls for when in ("before", "after")} <= killed


def test_teeth_a_pointer_that_is_not_replaced_in_one_step_is_caught(tmp_path: Path) -> None:
    assert kill("directory", tmp_path, 40, "broken").findings
