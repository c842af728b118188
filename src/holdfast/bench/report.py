"""What a run comes to: the rows, what each is to reach, the table and the files."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import apsw
import msgspec

from holdfast.bench import servers


class Row(msgspec.Struct, frozen=True):
    """One line of the results.

    Attributes:
        ours, floor: medians over the rounds, in ``unit``.
        ratio: ``ours / floor``.
        rounds: how many there were; in each, ours and the floor were measured one after the other.
        spread: interquartile range of the ratios of the rounds, over their median.
    """

    name: str
    ours: float
    floor: float
    ratio: float
    unit: str
    rounds: int
    spread: float


class Reach(msgspec.Struct, frozen=True):
    """What a ratio is to reach: at most, or at least. Where there is a ``unit``, ours is held against it instead."""

    bound: float
    least: bool = False
    unit: str = "x"

    def met(self, one: Row) -> bool:
        figure = one.ratio if self.unit == "x" else one.ours
        return figure >= self.bound if self.least else figure <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.least else '<='} {self.bound:g}{'' if self.unit == 'x' else ' '}{self.unit}"


REACH = {
    "embedded.commit.one": Reach(1.5),
    "embedded.commit.tasks32": Reach(0.4, least=True),
    "embedded.load20": Reach(2.0),
    "embedded.growth": Reach(1.2),
    "embedded.bytes_per_edit": Reach(2.0),
    "redis.commit.one": Reach(1.4),
    "redis.commit.tasks32": Reach(1.0, least=True),
    "redis.load20": Reach(2.0),
    "redis.growth": Reach(1.2),
    **dict.fromkeys((f"tiers.rehydrate{added}" for added in ("", ".1ms", ".10ms", ".50ms")), Reach(200.0, unit="ms")),
    **dict.fromkeys((f"tiers.restore{added}" for added in ("", ".1ms", ".10ms", ".50ms")), Reach(2_000.0, unit="ms")),
    "http.read": Reach(0.5, least=True),
    "http.edit": Reach(0.25, least=True),
}
"""The bounds of the design. A row that is not here is told for what it is worth."""

COLUMNS = ("workload", "ours", "floor", "unit", "ratio", "reach", "met", "spread", "rounds")
NUMBERS = ("ours", "floor", "ratio", "reach", "spread", "rounds")


SERVER = ("fastapi", "httptools", "joserfc", "prometheus_client", "structlog", "uvicorn")
"""What a server needs and the library does not: the [server] extra."""


def missing() -> list[str]:
    """What is not installed of that; where anything is not, there are no rows of HTTP."""
    return [name for name in SERVER if find_spec(name) is None]


def row(name: str, unit: str, ours: Sequence[float], floor: Sequence[float]) -> Row:
    """The row of the figures of each round."""
    ratios = [one / other for one, other in zip(ours, floor, strict=True)]
    middle, bottom = statistics.median(ours), statistics.median(floor)
    return Row(name, round(middle, 3), round(bottom, 3), round(middle / bottom, 3), unit, len(ours), _spread(ratios))


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows as text, under ``COLUMNS``."""
    return [_cells(one) for one in rows]


def write(rows: Sequence[Row], facts: dict[str, Any], path: Path) -> None:
    """Keep the rows in ``path``, and what they were measured on in ``machine.json`` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, value in ((path, rows), (path.with_name("machine.json"), facts)):
        file.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def machine(folder: Path, quick: bool) -> dict[str, Any]:
    """What the figures depend on besides the code. ``fdatasync`` is the p50 of overwriting 4 KiB and syncing them, in
    microseconds.
    """
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "sqlite": apsw.sqlite_lib_version(),
        "apsw": apsw.apsw_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "fdatasync": round(_sync_cost(folder), 1),
        "gc": "on; collected before each round",
        "http": _http(),
        **servers.described(),
        "quick": quick,
    }


def described(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What ``machine`` found, for people."""
    return [
        ("python", f"{facts['python']} ({facts['implementation']}), SQLite {facts['sqlite']}, apsw {facts['apsw']}"),
        ("machine", f"{facts['system']}, {facts['processors']} processors"),
        ("fdatasync", f"{facts['fdatasync']:,.0f} µs for 4 KiB overwritten"),
        ("garbage", f"collection {facts['gc']}"),
        *((name, facts[name]) for name in ("http", *servers.NAMES)),
        ("spread", "interquartile range of the ratios of the rounds, over their median"),
    ]


def _http() -> str:
    """What serves HTTP here, or why there are no rows of it."""
    if lacking := missing():
        return f"left out: {', '.join(lacking)} not installed; pip install 'holdfast[server]'"
    found = ["fastapi", "uvicorn", *(["uvloop"] if find_spec("uvloop") else [])]
    return ", ".join(f"{name} {version(name)}" for name in found)


def _sync_cost(folder: Path, times: int = 200) -> float:
    path = folder / f"sync-{os.getpid()}"
    sync = getattr(os, "fdatasync", os.fsync)
    block, took = os.urandom(4_096), []
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.pwrite(file, block * 16, 0)
        os.fsync(file)
        stop = time.perf_counter() + 2.0
        for at in range(times):
            start = time.perf_counter_ns()
            os.pwrite(file, block, at % 16 * 4_096)
            sync(file)
            took.append(time.perf_counter_ns() - start)
            if time.perf_counter() > stop:
                break
    finally:
        os.close(file)
        path.unlink()
    return statistics.median(took) / 1_000


def _cells(one: Row) -> tuple[str, ...]:
    reach = REACH.get(one.name)
    return (
        one.name,
        f"{one.ours:,.1f}",
        f"{one.floor:,.1f}",
        one.unit,
        f"{one.ratio:.2f}x",
        "" if reach is None else str(reach),
        "" if reach is None else ("yes" if reach.met(one) else "no"),
        f"{one.spread:.0%}",
        str(one.rounds),
    )


def _spread(ratios: Sequence[float]) -> float:
    if len(ratios) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return round((high - low) / middle, 4)
