"""A parent of children that edit, flush, rest and archive through Redis and PostgreSQL and are killed, or whose Redis
is; started by ``test_r01_tiers.py``, prints a tally.
"""

from __future__ import annotations

import asyncio
import importlib
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
from holdfast.kinds import kinds
from holdfast.model.entry import Entry
from holdfast.model.session import SealedHead, Write
from holdfast.settings import Settings
from holdfast.testing.broken import Around
from holdfast.testing.killing import NEVER, Killer, Report, Tally, one_life
from holdfast.testing.servers import RedisServer
from holdfast.testing.tiers import ANA, ROOT, Early, stepping

SESSIONS = 3
EDITS = 3  # of each session in one life
CYCLES_A_HOME = 25
LATEST = 12  # entries that each life looks at; the last of a home looks at all
KEYS = ("chunks/a", "chunks/b")

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


class RedisKiller(Killer):
    """Ends the Redis server at its step, in place of this process."""

    def __init__(self, step: str, nth: int, server: int) -> None:
        super().__init__(step, nth)
        self._server = server

    def at(self, step: str) -> None:
        self.passed[step] += 1
        if step == self.step and self.passed[step] == self.nth:
            os.kill(self._server, signal.SIGKILL)


class Eager(Around):
    """Broken on purpose: it acknowledges before the write has returned. Nobody notices, unless it is killed."""

    _late: asyncio.Task[bool] | None = None

    async def write(self, write: Write, **more: Any) -> bool:
        if self._late is not None:
            await self._late
        self._late = asyncio.create_task(self._store.write(write, **more))
        return True

    async def head(self, session: str) -> SealedHead | None:
        if self._late is not None:
            await self._late
        return await self._store.head(session)


BROKEN: dict[str, Callable[[Any], Any]] = {"eager": Eager, "early": Early}


class Acked(msgspec.Struct):
    """What was acknowledged of one session: its id, and the version each number was committed as."""

    session: str = ""
    versions: dict[int, int] = {}


class Lives:
    """What is known of one home, inherited by each child."""

    def __init__(self, settings: Settings, broken: str) -> None:
        self.settings, self.broken = settings, broken
        self.acked = [Acked() for _ in range(SESSIONS)]

    def heard(self, line: list[str]) -> None:
        acked = self.acked[int(line[0])]
        acked.session = line[1]
        acked.versions[int(line[2])] = int(line[3])

    async def live(self, killer: Killer, report: Report) -> None:
        last = killer.step == NEVER
        with stepping(killer.at):
            try:
                async with open_engine(self.settings, wrap=BROKEN.get(self.broken, lambda store: store)) as engine:
                    await self.look(engine, LATEST if not last else 10_000)
                    if last:
                        async for verified in engine.verify(ROOT):
                            assert verified.ok, f"verify: {verified.problems}"
                    await asyncio.gather(*(self.edit(engine, number, killer, report) for number in range(SESSIONS)))
            except StoreUnavailableError:
                if not isinstance(killer, RedisKiller):
                    raise

    async def look(self, engine: Engine, most: int) -> None:
        while await engine.flush(ROOT) or await waiting(engine):  # what the dead had claimed is had in a moment
            await asyncio.sleep(0.01)
        for acked in self.acked:
            if not acked.session:
                continue
            hot, warm = await engine._journal.hot.head(acked.session), await engine._journal.warm.head(acked.session)
            assert hot is None or (warm is not None and warm.step >= hot.step), "never flushed: it is off the queue"
            await check(engine, acked, most)

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
        for turn in range(EDITS):
            n += 1
            # The same change id and the same version as the life before may have sent: it lands once, whoever sent it.
            async with engine.edit(session, ANA, expected=version, change_id=f"c{n}") as draft:
                for key in KEYS:
                    draft.put(key, body(n))
            version = draft.result.version
            told(n, version)
            if turn == EDITS // 2:
                await engine.flush(ROOT)
                if number == 1:
                    await engine._tiering.rest(session)
                elif number == 2:
                    await engine._tiering.archive(session)


async def waiting(engine: Engine) -> int:
    """Entries of the flush queue."""
    return (await engine._tiering._tiered.backlog()).entries  # type: ignore[union-attr]


def body(n: int) -> dict[str, str]:
    return {"text": f"number {n}. " + "x" * 100}


async def check(engine: Engine, acked: Acked, most: int) -> None:
    """Of the latest entries: all that was acknowledged is there once, as it was sent; versions have no gap."""
    session = await engine.read(acked.session, ANA)
    if session.header.stale:  # its Redis has just been killed: the next life looks
        return
    log: list[Entry] = []
    while len(log) < most:
        page = await engine.history(acked.session, ANA, before=log[-1].step if log else None, limit=min(500, most))
        if not page:
            break
        log += page
    texts = {item.body["text"] for item in session.items}
    assert len(session.items) == len(KEYS), f"partial: {len(session.items)} items"
    assert len(texts) == 1, f"partial: {texts}"
    top = session.header.version
    versions = [entry.version for entry in log]
    assert versions == list(range(log[0].version, log[0].version - len(log), -1)), f"versions have gaps: {versions}"
    changes = [entry.header.change for entry in log]
    assert len(set(changes)) == len(changes), "double: one change has had two effects"
    by_version = {entry.version: entry for entry in log}
    for n, version in acked.versions.items():
        assert version <= top, f"lost: {n} at {version}, it stands at {top}"
        entry = by_version.get(version)
        if entry is None:
            assert version < log[-1].version, f"lost: {n} at {version}"
            continue
        assert n == 0 or entry.header.change == f"c{n}", f"lost: {n} at {version} is {entry.header.change}"
        sent = {change.key: msgspec.json.decode(change.body or b"null") for change in entry.changes}
        assert sent == {key: body(n) for key in KEYS}, f"lost or partial: {n} at {version}"


def preload() -> None:
    """Import what an engine imports when it is used, so that the children need not."""
    stores = ("stores.cold.objects", "stores.hot.redis", "stores.keys.file", "stores.warm.postgres")
    for name in ("sinks.vectors", "embedders.lexical", *stores):
        importlib.import_module(f"holdfast.{name}")
    kinds()


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
        lives, random, tally = Lives(settings, self.broken), Random(seed), Tally(seed)
        steps = {"flush": FLUSHING}.get(self.mode, [*WRITING * 3, *FLUSHING, *MOVING])
        while tally.cycles < count and not tally.findings:
            step, most = random.choice(steps)
            nth, server = random.randint(1, most), self.redis.process
            assert server is not None
            redis = self.mode in ("disk", "warm") and random.random() < 0.5
            killer = RedisKiller(step, nth, server.pid) if redis else Killer(step, nth)
            lines, status, error = one_life(lives.live, killer)
            for line in lines:
                lives.heard(line)
            tally.reports += len(lines)
            if redis and status == 0 and server.poll() is not None:
                self.restart()
                self.counted(tally, f"Redis {step}")
            elif status == -signal.SIGKILL:
                self.counted(tally, step)
            elif status == 0:
                tally.missed += 1
                assert tally.missed < 10 * count + 100, "the steps are hardly ever come to"
            else:
                tally.findings.append(f"cycle {tally.cycles}, {step}: {error or status}")
        lines, status, error = one_life(lives.live, Killer(NEVER, 1))
        tally.reports += len(lines)
        if status != 0 and not tally.findings:
            tally.findings.append(f"after the last cycle: {error or status}")
        return tally

    def counted(self, tally: Tally, step: str) -> None:
        tally.cycles += 1
        tally.steps[step] = tally.steps.get(step, 0) + 1

    def restart(self) -> None:
        """Start Redis again: on what it has on its disk, or, where the warm tier has promised, on nothing."""
        self.redis.kill()
        if self.mode == "warm":
            shutil.rmtree(self.redis.folder)
        self.redis.start()


def main(folder: Path, mode: str, warm: str, cycles: int, seed: int, broken: str) -> Tally:
    preload()
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
    tally = main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
    print(msgspec.json.encode(tally).decode())
