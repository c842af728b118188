"""A parent of children that publish and are killed at every step; started by ``test_publishing.py``, prints a tally."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.kinds import kinds
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock
from holdfast.testing.killing import NEVER, Killer, KillingDisk, Report, Stepping, one_life

ANA = Principal("ana")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
OLD, NEW = {f"the old lamp number {n}" for n in range(5)}, {f"the new lamp number {n}" for n in range(66)}
LOADED = (
    "holdfast.drivers.sqlite",
    "holdfast.embedders.lexical",
    "holdfast.sinks.vectors",
    "holdfast.stores.cold.objects",
    "holdfast.stores.hot.sqlite",
    "holdfast.stores.keys.file",
    "holdfast.stores.warm.sqlite",
)
"""What an engine loads when it is opened: loaded before the first child, so that none has to. None starts a thread."""
CALLS = ("write", "purge", "begin", "stage", "verify", "switch", "clean", "abandon", "published", "live")


class Broken:
    """A sink that deletes what is live before it switches: what the kill must find."""

    def __init__(self, sink: Any, passed: Any) -> None:
        self._sink, self._passed = sink, passed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    async def switch(self, target: str, revision: str, attempt: str, *, receipt: Any) -> Any:
        live = await self._sink.live(target)
        gone = msgspec.structs.replace(live, revision=None, previous=live.revision, rolls_back=live.revision)
        await self._sink.rollback(target, receipt=gone)
        self._passed("after sink.live")
        return await self._sink.switch(
            target, revision, attempt, receipt=msgspec.structs.replace(receipt, previous=None)
        )


class Findings(msgspec.Struct):
    """What came of it: how many steps there were, how many children died at theirs, and what was wrong."""

    steps: int = 0
    kills: int = 0
    old: int = 0
    new: int = 0
    findings: list[str] = []


class Lives:
    """The parts of one publication's life, each run in a child of its own."""

    def __init__(self, home: Path, broken: bool) -> None:
        self.home, self.broken = home, broken
        self.session = self.seal = ""

    async def prepare(self, killer: Killer, report: Report) -> None:
        """Something is live, and a new draft of it is previewed."""
        async with open_engine(Settings(home=self.home), clock=ManualClock()) as engine:
            items = [(f"chunks/{n:03}", {"text": text}) for n, text in enumerate(sorted(OLD))]
            first = (await engine.create(ANA, kind="knowledge", items=items)).id
            await engine.publish(first, ANA, seal=(await engine.preview(first, ANA)).seal)
            again = await engine.reopen(first, ANA)
            async with engine.edit(again.id, ANA, expected=1) as draft:
                for item in again.items:
                    draft.delete(item.key)
                for n, text in enumerate(sorted(NEW)):
                    draft.put(f"chunks/new-{n:03}", {"text": text})
            report.line(again.id, (await engine.preview(again.id, ANA)).seal)

    async def publish(self, killer: Killer, report: Report) -> None:
        """Publish, and be killed at a step."""
        with KillingDisk(killer).everywhere():
            async with open_engine(
                Settings(home=self.home),
                clock=ManualClock(),
                wrap=lambda store: Stepping(store, "hot", killer.at),
                wrap_sink=lambda sink: self.wrapped(sink, killer),
            ) as engine:
                killer.passed.clear()
                await engine.publish(self.session, ANA, seal=self.seal)
                for step, count in killer.passed.items():
                    report.line(step, str(count))

    def wrapped(self, sink: Any, killer: Killer) -> Any:
        inner = Broken(sink, killer.at) if self.broken else sink
        return Stepping(inner, "sink", killer.at)

    async def resume(self, killer: Killer, report: Report) -> None:
        """What readers see is whole; asking again finishes it; asking once more gives the same receipt."""
        async with open_engine(Settings(home=self.home), clock=ManualClock()) as engine:
            report.line(await seen(engine))
            receipt = await engine.publish(self.session, ANA, seal=self.seal)
            assert await seen(engine) == "new", "published, and not seen"
            assert await engine.publish(self.session, ANA, seal=self.seal) == receipt, "another receipt"
            await check(engine, self.session)
            back = await engine.rollback(self.session, ANA)
            assert back.rolls_back == receipt.revision
            assert await seen(engine) == "old", "rolled back, and not seen"

    async def sweep(self, killer: Killer, report: Report) -> None:
        """Nobody asks again: the sweeper finishes or undoes it; then it can be previewed and published anew."""
        clock = ManualClock()
        clock.advance(400)
        async with open_engine(Settings(home=self.home), clock=clock) as engine:
            before = await seen(engine)
            report.line(before)
            await engine.sweep(ROOT)
            header = await engine.header(self.session, ANA)
            assert header.publication is None, "still under way after the sweep"
            assert await seen(engine) == before, "the sweep changed what readers see"
            if header.status != "published":
                assert before == "old", f"readers see the new one, and the session is {header.status}"
                await engine.publish(self.session, ANA, seal=(await engine.preview(self.session, ANA)).seal)
            assert await seen(engine) == "new", "published, and not seen"
            await check(engine, self.session)


async def seen(engine: Engine) -> str:
    texts = {hit.text for hit in await engine.search(ANA, "lamp number", limit=1000)}
    found = {frozenset(OLD): "old", frozenset(NEW): "new"}.get(frozenset(texts))
    assert found is not None, f"readers see a mixture, or nothing: {len(texts)} records"
    return found


async def check(engine: Engine, session: str) -> None:
    assert (await engine.header(session, ANA)).status == "published"
    assert len(await engine.receipts(session, ANA)) == 1, "not one receipt"
    async for verified in engine.verify(ROOT):
        assert verified.ok, f"verify: {verified.problems}"


def run(life: Any, killer: Killer, findings: Findings) -> list[list[str]]:
    lines, status, error = one_life(life, killer)
    if status > 0:
        findings.findings.append(f"{killer.step} {killer.nth}: {error or status}")
    if status == -9:
        findings.kills += 1
    return lines


def main(folder: Path, broken: bool, share: int, shares: int, most: int) -> Findings:
    """Kill at every step, or (``most`` above 0) at every call and at some of the many writes and syncs of files."""
    kinds()
    for name in LOADED:
        importlib.import_module(name)
    found = Findings()
    lives = Lives(folder / "first", broken)
    ((lives.session, lives.seal),) = run(lives.prepare, Killer(NEVER, 1), found)
    shutil.copytree(folder / "first", folder / "dry")
    lives.home = folder / "dry"
    passed = run(lives.publish, Killer(NEVER, 1), found)
    calls = [(step, nth) for step, count in passed for nth in range(1, int(count) + 1) if "." in step and wanted(step)]
    files = [(step, nth) for step, count in passed for nth in range(1, int(count) + 1) if "." not in step]
    if most:
        files = Random(20261120).sample(files, max(0, min(len(files), most - len(calls))))
    for number, (step, nth) in enumerate(calls + files):
        if number % shares != share or len(found.findings) > 5:
            continue
        found.steps += 1
        lives.home = folder / "killed"
        shutil.copytree(folder / "first", lives.home)
        run(lives.publish, Killer(step, nth), found)
        shutil.copytree(lives.home, folder / "swept")
        for home, after in ((folder / "killed", lives.resume), (folder / "swept", lives.sweep)):
            lives.home = home
            if most and (number // shares + (after == lives.sweep)) % 2:
                shutil.rmtree(home)
                continue
            for (line,) in run(after, Killer(f"after {step}", nth), found):
                found.old += line == "old"
                found.new += line == "new"
            shutil.rmtree(home)
    return found


def wanted(step: str) -> bool:
    return step.partition(".")[2] in CALLS


if __name__ == "__main__":
    result = main(Path(sys.argv[1]), sys.argv[2] == "broken", *map(int, sys.argv[3:6]))
    print(msgspec.json.encode(result).decode())
