"""A parent of children that edit through the engine and are killed; started by ``test_f01_kill.py``, prints a tally."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

import msgspec

from holdfast.compose import open_engine
from holdfast.drivers import sqlite
from holdfast.engine.engine import Engine
from holdfast.kinds import kinds
from holdfast.model.access import Principal
from holdfast.model.entry import Entry
from holdfast.model.session import Write
from holdfast.settings import Settings
from holdfast.testing.killing import DISK_STEPS, Killer, KillingDisk, Report, Stepping, Tally, run_cycles

SESSIONS = 3
EDITS = 8  # of each session in one life
CYCLES_A_HOME = 25
KEYS = ("chunks/a", "chunks/b", "chunks/c")
ANA = Principal(id="ana")
ADMIN = Principal(id="root", roles=frozenset({"admin", "operator"}))

STEPS = [
    *((step, 30 if "xWrite" in step else 10) for step in DISK_STEPS),
    ("before hot.write", 16),
    ("after hot.write", 16),
    ("before report", 16),
]


class EagerHot(Stepping):
    """Broken on purpose: it acknowledges before the commit has returned. Nobody notices, unless it is killed."""

    _late: asyncio.Task[bool] | None = None

    async def write(self, write: Write, **more: Any) -> bool:
        if self._late is not None:
            await self._late
        self._late = asyncio.create_task(self._port.write(write, **more))
        return True

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)

        async def later(*args: Any, **kwargs: Any) -> Any:
            if self._late is not None:
                await self._late
            return await method(*args, **kwargs)

        return later


class Acked(msgspec.Struct):
    """What was acknowledged of one session: its id, and the version each number was committed as."""

    session: str = ""
    versions: dict[int, int] = {}


class Lives:
    """What is known of one home, inherited by each child."""

    def __init__(self, home: Path, broken: bool) -> None:
        self.home, self.broken = home, broken
        self.acked = [Acked() for _ in range(SESSIONS)]

    def heard(self, line: list[str]) -> None:
        acked = self.acked[int(line[0])]
        acked.session = line[1]
        acked.versions[int(line[2])] = int(line[3])

    async def live(self, killer: Killer, report: Report) -> None:
        disk = KillingDisk(killer)

        def wrap(store: Any) -> Any:
            return Stepping(EagerHot(store, "late", lambda step: None) if self.broken else store, "hot", killer.at)

        with disk.everywhere():
            async with open_engine(Settings(home=self.home), wrap=wrap) as engine:
                for acked in self.acked:
                    await check(engine, acked)
                async for verified in engine.verify(ADMIN):
                    assert verified.ok, f"verify: {verified.problems}"
                await asyncio.gather(
                    *(self.edit(engine, number, killer, report) for number in range(SESSIONS)), return_exceptions=False
                )

    async def edit(self, engine: Engine, number: int, killer: Killer, report: Report) -> None:
        acked = self.acked[number]

        def told(n: int, version: int) -> None:
            killer.at("before report")
            report.line(str(number), session, str(n), str(version))

        session, n = acked.session, max(acked.versions, default=-1)
        version = acked.versions.get(n, 0)
        if not session:
            items = [(key, body(0)) for key in KEYS]
            made = await engine.create(ANA, kind="knowledge", title="t", items=items, change_id=f"make{number}")
            session, n, version = made.id, 0, 1
            told(n, version)
        for _ in range(EDITS):
            n += 1
            # The same change id and the same version as the life before may have sent: it lands once, whoever sent it.
            async with engine.edit(session, ANA, expected=version, change_id=f"c{n}") as draft:
                for key in KEYS:
                    draft.put(key, body(n))
            assert draft.committed is not None
            version = draft.committed.version
            told(n, version)


def body(n: int) -> dict[str, str]:
    return {"text": f"number {n}. " + "x" * 100}


async def check(engine: Engine, acked: Acked) -> None:
    """All that was acknowledged is in the log as it was sent; versions have no gap; no change-set is there in part."""
    if not acked.session:
        return
    session = await engine.read(acked.session, ANA)
    texts = {item.body["text"] for item in session.items}
    assert len(session.items) == len(KEYS), f"partial: {len(session.items)} items"
    assert len(texts) == 1, f"partial: {texts}"
    log: list[Entry] = []
    while page := await engine.history(acked.session, ANA, before=log[-1].step if log else None, limit=500):
        log += page
    versions = [entry.version for entry in reversed(log)]
    assert versions == list(range(1, len(log) + 1)), f"versions have gaps: {versions}"
    assert session.header.version == len(log), f"the head stands at {session.header.version}, the log at {len(log)}"
    by_version = {entry.version: entry for entry in log}
    for n, version in acked.versions.items():
        entry = by_version.get(version)
        assert entry is not None, f"lost: {n} at {version}"
        assert n == 0 or entry.header.change == f"c{n}", f"lost: {n} at {version} is {entry.header.change}"
        sent = {change.key: msgspec.json.decode(change.body or b"null") for change in entry.changes}
        assert sent == {key: body(n) for key in KEYS}, f"lost or partial: {n} at {version}"


def preload() -> None:
    """Import what an engine imports when it is used, so that the children need not."""
    stores = ("stores.cold.objects", "stores.hot.sqlite", "stores.keys.file", "stores.warm.sqlite")
    for name in ("sinks.vectors", "embedders.lexical", *stores):
        importlib.import_module(f"holdfast.{name}")
    kinds()


def main(folder: Path, cycles: int, seed: int, broken: bool) -> Tally:
    preload()
    sqlite._CHECKPOINT_PAGES = 12  # fold the log into the file often, so that kills fall into that too
    whole = Tally(seed)
    while whole.cycles < cycles and not whole.findings:
        lives = Lives(folder / f"{whole.cycles}", broken)
        count = min(CYCLES_A_HOME, cycles - whole.cycles)
        whole.add(run_cycles(lives.live, lives.heard, steps=STEPS, cycles=count, seed=seed + whole.cycles))
    return whole


if __name__ == "__main__":
    tally = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["broken"])
    print(msgspec.json.encode(tally).decode())
