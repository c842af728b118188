"""A run: every workload in turn, each in a home of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from holdfast.bench import http, workloads
from holdfast.bench.report import Row, missing
from holdfast.bench.rounds import FULL, QUICK, Plan, Reached

Workload = Callable[[Path, Plan], Awaitable[list[Row]]]


async def measure(
    *, quick: bool = False, folder: Path | None = None, reached: Reached | None = None, plan: Plan | None = None
) -> list[Row]:
    """Every workload, below ``folder``. Those over HTTP are left out where what a server needs is not installed."""
    plan = plan or (QUICK if quick else FULL)
    chosen: tuple[Workload, ...] = workloads.WORKLOADS if missing() else (*workloads.WORKLOADS, http.over_http)
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
