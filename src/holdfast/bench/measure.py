"""A run: every workload in turn, each in a home of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from holdfast.bench import http, servers, workloads
from holdfast.bench.report import Row, missing
from holdfast.bench.rounds import FULL, QUICK, Plan, Reached

Workload = Callable[[Path, Plan], Awaitable[list[Row]]]


async def measure(
    *, quick: bool = False, folder: Path | None = None, reached: Reached | None = None, plan: Plan | None = None
) -> list[Row]:
    """Every workload, below ``folder``, but for those whose servers are not on this machine."""
    plan = plan or (QUICK if quick else FULL)
    chosen = possible()
    rows = []
    for done, workload in enumerate(chosen):
        if reached is not None:
            reached(done, len(chosen), workload.__name__.replace("_", " "))
        home = Path(tempfile.mkdtemp(prefix=".holdfast-bench-", dir=folder or Path.cwd()))
        try:
            rows += await workload(home, plan)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    return rows


def possible() -> list[Workload]:
    """The workloads that this machine has what it takes for."""
    found: list[Workload] = [*workloads.WORKLOADS]
    if not servers.lacking("redis"):
        from holdfast.bench import redis

        found += redis.WORKLOADS
        if not servers.lacking("postgresql"):
            from holdfast.bench import tiers

            found.append(tiers.tiers_rehydrate)
            if not servers.lacking("s3"):
                found.append(tiers.tiers_restore)
    if not missing():
        found.append(http.over_http)
    return found
