"""A parent of children that edit through the engine and are killed; started by ``test_f01_kill.py``, prints a tally."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from holdfast.compose import open_engine
from holdfast.drivers import sqlite
from holdfast.settings import Settings
from holdfast.testing import lives
from holdfast.testing.broken import Eager
from holdfast.testing.killing import DISK_STEPS, Killer, KillingDisk, Report, Stepping, Tally, run_cycles
from holdfast.testing.tiers import sound

CYCLES_A_HOME = 25

STEPS = [
    *((step, 30 if "xWrite" in step else 10) for step in DISK_STEPS),
    ("before hot.write", 16),
    ("after hot.write", 16),
    ("before report", 16),
]


class Lives(lives.Lives):
    def __init__(self, home: Path, broken: bool) -> None:
        super().__init__()
        self.home, self.broken = home, broken

    async def live(self, killer: Killer, report: Report) -> None:
        disk = KillingDisk(killer)

        def wrap(store: Any) -> Any:
            return Stepping(Eager(store) if self.broken else store, "hot", killer.at)

        with disk.everywhere():
            async with open_engine(Settings(home=self.home), wrap=wrap) as engine:
                for acked in self.acked:
                    await self.check(engine, acked)
                found = await sound(engine)
                assert not found, f"verify: {found}"
                await asyncio.gather(*(self.edit(engine, number, killer, report) for number in range(self.sessions)))


def main(folder: Path, cycles: int, seed: int, broken: bool) -> Tally:
    lives.preload("cold.objects", "hot.sqlite", "keys.file", "warm.sqlite")
    sqlite._CHECKPOINT_PAGES = 12  # fold the log into the file often, so that kills fall into that too
    whole = Tally(seed)
    while whole.cycles < cycles and not whole.findings:
        home = Lives(folder / f"{whole.cycles}", broken)
        count = min(CYCLES_A_HOME, cycles - whole.cycles)
        whole.add(run_cycles(home.live, home.heard, steps=STEPS, cycles=count, seed=seed + whole.cycles))
    return whole


if __name__ == "__main__":
    tally = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["broken"])
    print(msgspec.json.encode(tally).decode())
