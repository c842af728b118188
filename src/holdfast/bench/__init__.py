"""How fast Holdfast is here, beside the bare floor of the same run. ``bench/README.md`` says how to read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.bench.report import Row
    from holdfast.bench.rounds import Plan, Reached


async def run(
    *, quick: bool = False, folder: Path | None = None, reached: Reached | None = None, plan: Plan | None = None
) -> list[Row]:
    """Measure every workload.

    Args:
        quick: fewer and shorter rounds, two minutes in all; some ten otherwise.
        folder: where the temporary homes go, which is the disk that is measured; the current directory by default.
        reached: told how far it has come, in rounds.
        plan: how often and how long, in place of ``quick``.
    """
    from holdfast.bench.measure import measure  # brings the engine along, which a listing of commands does not need

    return await measure(quick=quick, folder=folder, reached=reached, plan=plan)


__all__ = ["run"]
