"""Kill -9 at named steps: children that write and report, a parent that remembers what they reported.

A step is a call of the file system, such as ``before xSync wal``, or of a port, such as ``after hot.write``. The
parent forks a child for each cycle and reads the acknowledgements it reports through a pipe; the child dies by
``SIGKILL`` at its step, and the next child first looks whether all that was ever acknowledged is there. Since a killed
process leaves its writes in the system's page cache, this says nothing about syncing: that is what ``power`` is for.

Fork from a process without threads: one that has imported what it needs and has opened nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from holdfast.testing.disk import Disk, role

DISK_STEPS = tuple(
    f"{when} {call} {file}"
    for file, calls in (("wal", ("xWrite", "xSync")), ("db", ("xWrite", "xSync")))
    for call in calls
    for when in ("before", "after")
)
"""Writing and syncing the log, writing and syncing the database at a checkpoint."""


class Killer:
    """Ends this process at the n-th passing of a step. ``passed`` counts the passings of every step."""

    def __init__(self, step: str, nth: int) -> None:
        self.step, self.nth = step, nth
        self.passed: Counter[str] = Counter()

    def at(self, step: str) -> None:
        """A step is passed; at the one chosen this does not return."""
        self.passed[step] += 1
        if step == self.step and self.passed[step] == self.nth:
            self.kill()

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @property
    def name(self) -> str:
        """What a tally counts it as."""
        return self.step

    def has_killed(self, status: int) -> bool:
        """Asked in the parent after the life that it was to end, of which it gets the exit status."""
        return status == -signal.SIGKILL


class KillingDisk(Disk):
    """A disk each call of which is two steps: ``before xWrite wal`` and ``after xWrite wal``."""

    def __init__(self, killer: Killer) -> None:
        super().__init__("killing", syncs=False)
        self._killer = killer

    def before(self, call: str, path: str) -> None:
        self._killer.at(f"before {call} {role(path)}")

    def after(self, call: str, path: str) -> None:
        self._killer.at(f"after {call} {role(path)}")


class Stepping:
    """Stands in for any port; each of its coroutines is two steps: ``before hot.write`` and ``after hot.write``."""

    def __init__(self, port: Any, name: str, passed: Callable[[str], None]) -> None:
        self._port, self._name, self._passed = port, name, passed

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def stepped(*args: Any, **kwargs: Any) -> Any:
            self._passed(f"before {self._name}.{name}")
            result = await method(*args, **kwargs)
            self._passed(f"after {self._name}.{name}")
            return result

        return stepped


NEVER = "never"
"""A step that no child comes to."""


class Report:
    """The child's end of the pipe. A line is out of the process when ``line`` returns."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def line(self, *parts: str) -> None:
        os.write(self._fd, ("\t".join(parts) + "\n").encode())


Life = Callable[[Killer, Report], Awaitable[None]]
"""What a child does until it is killed. What it raises is a finding."""


class Tally(msgspec.Struct):
    """What some cycles came to.

    Attributes:
        cycles: kills at a step; of ``missed`` the life ended before it came to its step.
        reports: lines that the children reported.
        steps: kills by step.
        findings: what was wrong.
    """

    seed: int
    cycles: int = 0
    missed: int = 0
    reports: int = 0
    steps: dict[str, int] = {}
    findings: list[str] = []

    @property
    def counts(self) -> str:
        """For the line a test prints."""
        steps = " ".join(f"[{step}]={count}" for step, count in sorted(self.steps.items()))
        counts = f"cycles={self.cycles} missed={self.missed} acks={self.reports} findings={len(self.findings)}"
        return f"seed={self.seed} {counts} {steps}"

    def add(self, other: Tally) -> None:
        """Count another tally in."""
        self.cycles += other.cycles
        self.missed += other.missed
        self.reports += other.reports
        self.findings += other.findings
        for step, count in other.steps.items():
            self.steps[step] = self.steps.get(step, 0) + count


def run_cycles(
    life: Life,
    heard: Callable[[list[str]], None],
    *,
    steps: Sequence[tuple[str, int]],
    cycles: int,
    seed: int,
    killer: Callable[[str, int, Random], Killer] = lambda step, nth, random: Killer(step, nth),
) -> Tally:
    """Fork, kill and fork again until so many kills were made.

    Args:
        life: what a child does; run in the child.
        heard: told of each line a child reported; run in the parent, so that the next child inherits what it keeps.
        steps: names of steps, each with the highest number of passings to wait for.
        killer: who kills at such a step, at its n-th passing.
    """
    random, tally = Random(seed), Tally(seed)  # noqa: S311 - to come out the same is the point
    while tally.cycles < cycles and len(tally.findings) < 10:
        step, most = random.choice(steps)
        ending = killer(step, random.randint(1, most), random)
        lines, status, error = one_life(life, ending)
        for line in lines:
            heard(line)
        tally.reports += len(lines)
        if ending.has_killed(status):
            tally.cycles += 1
            tally.steps[ending.name] = tally.steps.get(ending.name, 0) + 1
        elif status == 0:
            tally.missed += 1
            if tally.missed > 10 * cycles + 100:
                tally.findings.append("the steps are hardly ever come to")
        else:
            tally.findings.append(f"cycle {tally.cycles}, {ending.name}: {error or status}")
    lines, status, error = one_life(life, Killer(NEVER, 1))  # the last word: a life that nobody ends
    tally.reports += len(lines)
    if status != 0:
        tally.findings.append(f"after the last cycle: {error or status}")
    return tally


def run_parents(script: Path, folder: Path, *, cycles: int, seed: int, more: Sequence[Sequence[str]]) -> Tally:
    """Share some cycles out to parents that run at the same time; what they came to in all.

    Args:
        script: run as ``script folder cycles seed more…``, each time with a folder and a seed of its own. The last line
            it prints is its tally as JSON.
        more: the further words of each parent; there are as many parents.
    """
    share = -(-cycles // len(more))
    parents = [
        subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, script, folder / f"{number}", str(share), str(seed + 1_000_000 * number), *words],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, words in enumerate(more)
    ]
    whole = Tally(seed)
    for parent in parents:
        out, _ = parent.communicate()
        assert parent.returncode == 0
        whole.add(msgspec.json.decode(out.splitlines()[-1], type=Tally))
    return whole


def one_life(life: Life, killer: Killer) -> tuple[list[list[str]], int, str]:
    """One child: the lines it reported, its exit status (negative: the signal that ended it), and what it raised."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - what is measured dies with it
        status = 1
        try:
            os.close(heard)
            asyncio.run(_live(life, killer, Report(told)))
            status = 0
        except BaseException:
            os.write(told, b"!" + traceback.format_exc().encode().replace(b"\n", b" | ") + b"\n")
        finally:
            os._exit(status)
    os.close(told)
    with os.fdopen(heard, "rb") as pipe:
        lines = pipe.read().decode(errors="replace").splitlines()
    _, status = os.waitpid(child, 0)
    errors = [line[1:] for line in lines if line.startswith("!")]
    reports = [line.split("\t") for line in lines if not line.startswith("!")]
    return reports, os.waitstatus_to_exitcode(status), "".join(errors)


async def _live(life: Life, killer: Killer, report: Report) -> None:
    await life(killer, report)
