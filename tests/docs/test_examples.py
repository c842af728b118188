"""The scripts in ``examples/`` run, and print what they promise."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

PRINTED = {
    "two_authors": [
        "chunks/when: version 1 was seen, 2 stands",
        "  base   High tide is at nine.",
        "  theirs High tide is at ten.",
        "  mine   High tide is at noon.",
        "rebased onto version 3",
        "chunks/when = High tide is at ten, or at noon in winter.",
        "chunks/where = At the old harbour.",
    ],
    "agents": [
        "agent-1 wrote version 2 with fence 1",
        "agent-2 waits: agent-1 holds the lease",
        "agent-2 wrote version 3 with fence 2",
        "agent-1 is refused: fence 1 is lost, 2 has been granted",
        "the last line is Draw the map.",
    ],
    "publish": [
        "Tides: 4 chunks",
        "publishing would add 4 and embed 4",
        "asked twice, one receipt: True",
        "found: chunks/0004",
        "publishing would change 1 and embed 1",
        "refused: seal-mismatch",
        "found: Ask the harbour master.",
        "live again is the first: True",
    ],
}


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_an_example_prints_what_it_promises(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == PRINTED[name]


def test_every_example_is_run_and_is_short() -> None:
    scripts = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert set(scripts) == set(PRINTED)
    for path in scripts.values():
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60, path.name
