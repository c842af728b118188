"""Processes that race on one file, database or bucket."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest


@pytest.fixture
def race() -> Callable[..., dict[str, Any]]:
    """Let processes of ``racing.py`` go at once; what each was told, by its name."""

    def run(kind: str, place: Path | str, *, rounds: int, processes: int = 4, broken: str = "") -> dict[str, Any]:
        script = str(Path(__file__).with_name("racing.py"))
        names = ["p" * (number + 1) for number in range(processes)]
        with contextlib.ExitStack() as stack:
            running = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, script, kind, place, broken, name, str(rounds)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                )
                for name in names
            ]
            for process in running:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in running:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            told = {}
            for name, process in zip(names, running, strict=True):
                out, err = process.communicate(timeout=120)
                assert process.returncode == 0, err
                told[name] = msgspec.json.decode(out)
        return told

    return run
