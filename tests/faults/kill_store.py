"""A parent of children that write to a hot store and are killed; started by ``test_f01_kill.py``, prints a tally."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path

import msgspec

from holdfast.drivers import sqlite
from holdfast.drivers.sqlite import SqliteFile
from holdfast.model.session import SealedHead, Write
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.testing.killing import DISK_STEPS, Killer, KillingDisk, Report, Stepping, Tally, run_cycles
from holdfast.testing.ledger import Findings, Ledger

SESSIONS = 3
WRITES = 12  # of each session in one life
CYCLES_A_FILE = 50

STEPS = [
    *((step, 40 if "xWrite" in step else 12) for step in DISK_STEPS),
    ("before hot.write", 20),
    ("after hot.write", 20),
]


class EagerHotStore(SqliteHotStore):
    """Broken on purpose: it acknowledges before the commit has returned. Nobody notices, unless it is killed."""

    def __init__(self, file: SqliteFile) -> None:
        super().__init__(file)
        self._late: dict[str, asyncio.Task[bool]] = {}

    async def head(self, session: str) -> SealedHead | None:
        if session in self._late:
            await self._late[session]
        return await super().head(session)

    async def write(self, write: Write, *, now: datetime) -> bool:
        self._late[write.head.id] = asyncio.create_task(super().write(write, now=now))
        return True


class Lives:
    """What is known of one file, inherited by each child."""

    def __init__(self, path: Path, store_class: type[SqliteHotStore]) -> None:
        self.path, self.store_class = path, store_class
        self.ledgers = [Ledger(f"s{number}", size=300) for number in range(SESSIONS)]

    def heard(self, line: list[str]) -> None:
        session, change, step = line
        self.ledgers[int(session)].acked[change] = int(step)

    async def live(self, killer: Killer, report: Report) -> None:
        disk = KillingDisk(killer)
        store = self.store_class.open(self.path, vfs=disk.name)
        found = Findings([], [])
        for ledger in self.ledgers:
            found += await ledger.check(store)
        if not found.clean:
            raise AssertionError(f"lost {found.lost} partial {found.partial}")
        if store._file.read.pragma("integrity_check") != "ok":
            raise AssertionError("integrity")
        stepping = Stepping(store, "hot", killer.at)

        async def write(number: int) -> None:
            ledger = self.ledgers[number]
            for change in range(len(ledger.acked), len(ledger.acked) + WRITES):
                await ledger.write(stepping, f"c{change}")
                report.line(str(number), f"c{change}", str(ledger.acked[f"c{change}"]))

        await asyncio.gather(*(write(number) for number in range(SESSIONS)))
        await store.close()


def main(folder: Path, cycles: int, seed: int, broken: bool) -> Tally:
    store_class = EagerHotStore if broken else SqliteHotStore
    sqlite._CHECKPOINT_PAGES = 12  # fold the log into the file often, so that kills fall into that too
    whole = Tally(seed)
    while whole.cycles < cycles and not whole.findings:
        lives = Lives(folder / f"{whole.cycles}" / "hot.db", store_class)
        count = min(CYCLES_A_FILE, cycles - whole.cycles)
        whole.add(run_cycles(lives.live, lives.heard, steps=STEPS, cycles=count, seed=seed + whole.cycles))
    return whole


if __name__ == "__main__":
    tally = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["broken"])
    print(msgspec.json.encode(tally).decode())
