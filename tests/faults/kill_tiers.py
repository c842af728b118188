"""A parent of children that edit, flush, rest and archive through Redis and PostgreSQL and are killed, or whose Redis
is; started by ``test_r01_tiers.py``, prints a tally.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from holdfast.compose import open_engine
from holdfast.engine import flushing
from holdfast.engine.engine import Engine
from holdfast.errors import StoreUnavailableError
from holdfast.settings import Settings
from holdfast.testing import lives
from holdfast.testing.broken import Eager
from holdfast.testing.killing import NEVER, Killer, Report, Tally, run_cycles
from holdfast.testing.servers import RedisServer
from holdfast.testing.tiers import ROOT, Early, sound, stepping, waiting

CYCLES_A_HOME = 25
LATEST = 12  # entries that each life looks at; the last of a home looks at all

WRITING = [("before hot.write", 9), ("after hot.write", 9), ("before report", 9)]
FLUSHING = [
    ("after hot.claim", 4),
    ("before warm.append", 6),
    ("after warm.append", 6),
    ("before hot.acknowledge", 4),
    ("after hot.acknowledge", 4),
]
MOVING = [
    ("before warm.snapshot", 2),
    ("before hot.evict", 2),
    ("after hot.evict", 2),
    ("before hot.install", 2),
    ("after hot.install", 2),
    ("before cold.put", 3),
    ("after cold.put", 3),
    ("after cold.get", 3),
    ("before warm.archive", 1),
    ("after warm.archive", 1),
    ("before warm.restore", 1),
    ("after warm.restore", 1),
    ("after cold.delete", 3),
]


BROKEN: dict[str, Callable[[Any], Any]] = {"eager": Eager, "early": Early}


class RedisKiller(Killer):
    """Ends the Redis server at its step, in place of this process, and starts it again after this life."""

    def __init__(self, step: str, nth: int, home: Home) -> None:
        super().__init__(step, nth)
        self._home = home

    @property
    def name(self) -> str:
        return f"Redis {self.step}"

    def kill(self) -> None:
        server = self._home.redis.process
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)

    def has_killed(self, status: int) -> bool:
        server = self._home.redis.process
        assert server is not None
        if status != 0 or server.poll() is None:
            return False
        self._home.restart()
        return True


class Lives(lives.Lives):
    edits = 3
    keys = ("chunks/a", "chunks/b")

    def __init__(self, settings: Settings, broken: str) -> None:
        super().__init__()
        self.settings, self.broken = settings, broken

    async def live(self, killer: Killer, report: Report) -> None:
        last = killer.step == NEVER
        with stepping(killer.at):
            try:
                async with open_engine(self.settings, wrap=BROKEN.get(self.broken, lambda store: store)) as engine:
                    await self.look(engine, LATEST if not last else sys.maxsize)
                    if last:
                        found = await sound(engine)
                        assert not found, f"verify: {found}"
                    await asyncio.gather(*(self.edit(engine, at, killer, report) for at in range(self.sessions)))
            except StoreUnavailableError:
                if not isinstance(killer, RedisKiller):
                    raise

    async def look(self, engine: Engine, most: int) -> None:
        while (await engine.flush(ROOT)).flushed or await waiting(
            engine
        ):  # what the dead had claimed is had in a moment
            await asyncio.sleep(0.01)
        for acked in self.acked:
            if not acked.session:
                continue
            hot, warm = await engine._journal.hot.head(acked.session), await engine._journal.warm.head(acked.session)
            assert hot is None or (warm is not None and warm.step >= hot.step), "never flushed: it is off the queue"
            await self.check(engine, acked, most)

    async def edited(self, engine: Engine, session: str, number: int, turn: int) -> None:
        if turn == self.edits // 2:
            await engine.flush(ROOT)
            if number == 1:
                await engine._tiering.rest(session)
            elif number == 2:
                await engine._tiering.archive(session)


class Home:
    """One home after the other, on one Redis and one PostgreSQL."""

    def __init__(self, folder: Path, mode: str, warm: str, broken: str) -> None:
        self.folder, self.mode, self.warm, self.broken = folder, mode, warm, broken
        sync = "always" if mode in ("disk", "flush") else "everysec"
        self.redis = RedisServer(folder / "redis", appendfsync=sync).start()

    def cycles(self, number: int, count: int, seed: int) -> Tally:
        """Live and kill so often, then live to the end once and look at everything."""
        durable = "disk" if self.mode in ("disk", "flush") else "hot"
        acknowledge = "warm" if self.mode == "warm" and self.broken != "unconfirmed" else "hot"
        settings = Settings(
            home=self.folder / f"{number}",
            hot=f"{self.redis.url}?prefix=h{number}&durability={durable}&partitions=4&lanes=2",
            warm=f"{self.warm}_{number}&connections=2",
            acknowledge=acknowledge,
        )
        home = Lives(settings, self.broken)
        steps = {"flush": FLUSHING}.get(self.mode, [*WRITING * 3, *FLUSHING, *MOVING])
        return run_cycles(home.live, home.heard, steps=steps, cycles=count, seed=seed, killer=self.killer)

    def killer(self, step: str, nth: int, random: Random) -> Killer:
        redis = self.mode in ("disk", "warm") and random.random() < 0.5
        return RedisKiller(step, nth, self) if redis else Killer(step, nth)

    def restart(self) -> None:
        """Start Redis again: on what it has on its disk, or, where the warm tier has promised, on nothing."""
        self.redis.kill()
        if self.mode == "warm":
            shutil.rmtree(self.redis.folder)
        self.redis.start()


def main(folder: Path, cycles: int, seed: int, mode: str, warm: str, broken: str) -> Tally:
    lives.preload("cold.objects", "hot.redis", "keys.file", "warm.postgres")
    flushing._GATHER, flushing._DEAD = 0.002, 0.05  # flush often, and do not wait long for the dead
    whole, home, number = Tally(seed), Home(folder, mode, warm, broken), 0
    try:
        while whole.cycles < cycles and not whole.findings:
            number += 1
            whole.add(home.cycles(number, min(CYCLES_A_HOME, cycles - whole.cycles), seed + whole.cycles))
    finally:
        home.redis.kill()
    return whole


if __name__ == "__main__":
    tally = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
    print(msgspec.json.encode(tally).decode())
