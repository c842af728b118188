"""What a load comes to: how long answers took and what they were, what the processes used, how far the warm tier was
behind.

Times of answers are in milliseconds, memory in MiB, processor time as a share of one processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from holdfast.testing.doors import Door
from holdfast.testing.peers import Peer

SHARES = (50, 95, 99)
_TICK = os.sysconf("SC_CLK_TCK")
_SAMPLE = re.compile(rb"^([a-z_]+)(\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)
_WATCHED = {
    b"holdfast_flush_queue_entries": "queue",
    b"holdfast_flush_lag_seconds": "lag",
    b"holdfast_flush_dead_letters": "dead_letters",
}
_SCRAPE_SECONDS = 5.0


class Verb(msgspec.Struct, frozen=True):
    """How long the answers to one verb took, from the first sending to the answer that counts: p50, p95, p99, most."""

    verb: str
    count: int
    p50: float
    p95: float
    p99: float
    most: float


class Used(msgspec.Struct):
    """What a process used: memory at the start, at the end and at most; processor time over the whole run."""

    process: str
    first: float
    last: float
    most: float
    cpu: float


class Moment(msgspec.Struct, frozen=True):
    """How far the warm tier was behind, so many seconds into the run: writes that wait, and for how long."""

    at: float
    queue: int
    lag: float
    dead_letters: int


class Tally:
    """Counts what clients are told.

    Attributes:
        answers: by status, and by code where there is one; tries that got none under ``lost``, ``late`` (the client has
            given up) and ``unreachable`` (nothing was sent).
        late: by how many seconds requests went out after they were due: a client that is the bottleneck shows here.
    """

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.tries = 0
        self.took: dict[str, list[float]] = {}
        self.late: list[float] = []

    def verbs(self) -> list[Verb]:
        return [verb_of(name, took) for name, took in sorted(self.took.items())]

    @property
    def failed(self) -> int:
        """Tries that came to nothing through no fault of who asked."""
        return sum(count for what, count in self.answers.items() if not what[0].isdigit() or what[0] == "5")


def verb_of(name: str, took: list[float]) -> Verb:
    """The row of a verb, from its times in seconds."""
    cuts = statistics.quantiles(took, n=100, method="inclusive") if len(took) > 1 else took * 99
    p50, p95, p99 = (round(cuts[share - 1] * 1_000, 2) for share in SHARES)
    return Verb(name, len(took), p50, p95, p99, round(max(took) * 1_000, 2))


class Watch:
    """Looks at processes and at the figures of the replicas every so many seconds.

    Args:
        pids: the processes of each name, as they are now; asked each time: one that was killed has a successor.
    """

    def __init__(self, pids: Callable[[], Mapping[str, Sequence[int]]], doors: Sequence[Door], every: float) -> None:
        self._pids, self._doors, self._every = pids, doors, every
        self.used: dict[str, Used] = {}
        self.moments: list[Moment] = []
        self._ticks: dict[tuple[str, int], tuple[int, int]] = {}
        self._begun = time.monotonic()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """For the length of a block."""
        self._begun = time.monotonic()
        await self.look()
        task = asyncio.create_task(self._go_on(), name="watch")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.look()
            self._settle()

    async def look(self) -> None:
        """One look at everything."""
        for name, pids in self._pids().items():
            for pid in pids:
                with contextlib.suppress(OSError):
                    ticks = processor(pid)
                    self._ticks[(name, pid)] = self._ticks.get((name, pid), (ticks, 0))[0], ticks
            with contextlib.suppress(OSError):
                now = round(memory(pids[0]) if len(pids) == 1 else sum(map(share_of_memory, pids)), 1)
                known = self.used.setdefault(name, Used(name, now, now, now, 0.0))
                known.last, known.most = now, max(known.most, now)
        moment = await self._behind()
        if moment is not None:
            self.moments.append(moment)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    async def _behind(self) -> Moment | None:
        """From the first replica that says: the queue is one for all."""
        for door in self._doors:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_SCRAPE_SECONDS), Peer.to(door.address) as peer:
                    await peer.send(door.request("GET", "/metrics"))
                    answer = await peer.answer()
                found = {
                    _WATCHED[match[1]]: float(match[3])
                    for match in _SAMPLE.finditer(answer.body)
                    if match[1] in _WATCHED
                }
                if answer.status == 200:
                    at = round(time.monotonic() - self._begun, 1)
                    if "queue" not in found:
                        return None
                    return Moment(at, int(found["queue"]), found.get("lag", 0.0), int(found.get("dead_letters", 0)))
        return None

    def _settle(self) -> None:
        """Processor time by name, over all processes that had it."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        spent: Counter[str] = Counter()
        for (name, _), (first, last) in self._ticks.items():
            spent[name] += last - first
        for name, used in self.used.items():
            used.cpu = round(spent[name] / _TICK / seconds, 3)


def memory(pid: int) -> float:
    """What a process holds in memory (RSS), in MiB. ``OSError`` if it has ended."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def share_of_memory(pid: int) -> float:
    """The same of one of several processes that share much of it (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next((int(line.split()[1]) / 1_024 for line in lines if line.startswith("Pss:")), 0.0)


def processor(pid: int) -> int:
    """Clock ticks of processor time that a process has used, its children's apart. ``OSError`` if it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


__all__ = ["SHARES", "Moment", "Tally", "Used", "Verb", "Watch", "memory", "processor", "verb_of"]
