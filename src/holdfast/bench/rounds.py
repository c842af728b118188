"""Rounds: ours and the floor by turns, so that whatever else the machine does hits both.

Every round gives one figure a side, a median latency or a rate; the row is the medians over the rounds. Rounds are
spans of time rather than counts, so that a slow disk makes the figures larger and not the run longer.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from holdfast.bench.report import Row, row

Side = Callable[[float], Awaitable[float]]
"""Works for so many seconds, and gives the round's figure."""

Sides = Callable[[float], Awaitable[Sequence[float]]]
"""The same, where a round gives several figures."""


class Reached(Protocol):
    """Told how far a run has come, in rounds."""

    def __call__(self, done: int, total: int | None = None, step: str | None = None) -> None: ...


class Plan(msgspec.Struct, frozen=True):
    """How often and how long.

    Attributes:
        rounds: of each workload. seconds: of each side of a round of writing; reading takes a third of it.
        warm: seconds at most for warming up a side.
        edits: how many edits the bytes are averaged over; seconds at most for them: ``patience``.
        sessions: how many are read for the first time in a round.
        clients: how many have a session open over HTTP, each with a connection of its own.
        restored: how many are brought back from the lower tiers in a round.
        pace: seconds from one request of a client to its next, where requests are spread out.
    """

    rounds: int
    seconds: float
    warm: float
    edits: int
    patience: float
    sessions: int
    clients: int = 1_000
    pace: float = 2.0
    restored: int = 3


QUICK = Plan(rounds=5, seconds=0.4, warm=1.5, edits=600, patience=3.0, sessions=60, restored=2)
FULL = Plan(rounds=15, seconds=1.0, warm=5.0, edits=2_000, patience=20.0, sessions=200)


async def compare(name: str, unit: str, ours: Side, floor: Side, rounds: int, seconds: float) -> Row:
    """Both sides by turns, each first in every other round."""
    (made,) = await beside({name: ours}, unit, floor, rounds, seconds)
    return made


async def beside(sides: Mapping[str, Side], unit: str, floor: Side, rounds: int, seconds: float) -> list[Row]:
    """Several sides and their one floor by turns, each first in as many rounds; a row for each side, by its name."""
    order = [*sides.values(), floor]
    figures: list[list[float]] = [[] for _ in order]
    for number in range(rounds):
        for at in range(len(order)):
            which = (at + number) % len(order)
            gc.collect()
            figures[which].append(await order[which](seconds))
    return [row(name, unit, mine, figures[-1]) for name, mine in zip(sides, figures, strict=False)]


async def compare_each(
    names: Sequence[str], unit: str, ours: Sides, floor: Sides, rounds: int, seconds: float
) -> list[Row]:
    """Both sides by turns, each first in every other round; a row for each of the figures."""
    figures: dict[Sides, list[Sequence[float]]] = {ours: [], floor: []}
    for number in range(rounds):
        for side in (ours, floor) if number % 2 == 0 else (floor, ours):
            gc.collect()
            figures[side].append(await side(seconds))
    columns = zip(names, zip(*figures[ours], strict=True), zip(*figures[floor], strict=True), strict=True)
    return [row(name, unit, mine, bare) for name, mine, bare in columns]


async def spanning(seconds: float) -> AsyncIterator[None]:
    """Go round until the time is over, at least three times."""
    stop, count = time.perf_counter() + seconds, 0
    while count < 3 or time.perf_counter() < stop:
        yield
        count += 1


async def rate(work: Sequence[Callable[[], Awaitable[object]]], seconds: float) -> float:
    """How much is done in a second, if each of these is done again and again."""
    start = time.perf_counter()
    until = start + seconds

    async def again(one: Callable[[], Awaitable[object]]) -> int:
        count = 0
        while time.perf_counter() < until:
            await one()
            count += 1
        return count

    counts = await asyncio.gather(*(again(one) for one in work))
    return sum(counts) / (time.perf_counter() - start)


def times(work: Callable[[], Awaitable[object]]) -> Side:
    """The median time of one caller who does this again and again, in microseconds."""

    async def side(seconds: float) -> float:
        took = []
        async for _ in spanning(seconds):
            start = time.perf_counter_ns()
            await work()
            took.append(time.perf_counter_ns() - start)
        return middle(took)

    return side


async def until_wrapped(file: Path, side: Side, patience: float) -> None:
    """Work until the write-ahead log has begun anew from its start: from then on it is overwritten and not extended,
    which is what a process that has run for a minute does.
    """
    log = file.with_name(file.name + "-wal")
    stop, before = time.perf_counter() + patience, _salt(log)
    while time.perf_counter() < stop and (_salt(log) == before or not before):
        await side(patience / 50)


def middle(took: Sequence[int]) -> float:
    """The median of nanoseconds, in microseconds."""
    return statistics.median(took) / 1_000


def _salt(log: Path) -> bytes:
    """What changes in the header of a write-ahead log each time it begins anew (SQLite file format, 4.1)."""
    try:
        with log.open("rb") as file:
            return file.read(24)[16:]
    except FileNotFoundError:
        return b""
