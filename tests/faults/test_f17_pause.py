"""F17, R08: a process that holds a lease is stopped (SIGSTOP) for longer than the lease lasts, another takes over, and
the first goes on: none of its writes is accepted, wherever the session has been meanwhile. ``HOLDFAST_TEST_PAUSE`` says
for how many seconds it is stopped (1.5 here), under a lease a third as long.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import LeaseHeldError
from holdfast.testing.tiers import ANA, ROOT, Apart, log, make, put, sound

PAUSE = float(os.environ.get("HOLDFAST_TEST_PAUSE", "1.5"))


class Holder:
    """A process of ``hold_lease.py``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.fence = 0
        self.told: list[int] = []
        self.ended = ""

    @classmethod
    async def start(cls, tiers: Apart, session: str, *, broken: bool = False) -> Holder:
        given = {"session": session, "seconds": PAUSE / 3, "broken": broken, "home": str(tiers.home)}
        given |= {"hot": tiers.direct.hot, "warm": tiers.direct.warm}
        script = str(Path(__file__).with_name("hold_lease.py"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, msgspec.json.encode(given).decode(), stdout=asyncio.subprocess.PIPE
        )
        holder = cls(process)
        await holder.heard(lambda: len(holder.told) >= 5)
        return holder

    async def heard(self, enough: Callable[[], bool]) -> None:
        """Listen until it has said enough, or ended."""
        assert self._process.stdout is not None
        while not enough():
            line = (await asyncio.wait_for(self._process.stdout.readline(), 30)).decode().split()
            if not line:
                return
            if line[0] == "fence":
                self.fence = int(line[1])
            elif line[0] == "told":
                self.told.append(int(line[1]))
            else:
                self.ended = line[1]

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def end(self) -> None:
        if self._process.returncode is None:
            self.go_on()
            self._process.kill()
        await self._process.wait()


async def take_over(engine: Engine, session: str, holder: Holder, between: str) -> int:
    """Stop the holder, let its lease lapse, write under another, and let it go on; the version before it goes on."""
    with pytest.raises(LeaseHeldError):
        await engine.lease(session, ANA, "second")
    holder.pause()
    await asyncio.sleep(PAUSE)
    if between == "rested":
        assert await engine._tiering.rest(session)
    elif between == "archived":
        await engine.archive(session, ANA)
    lease = await engine.lease(session, ANA, "second")
    assert lease.fence > holder.fence
    for number in range(3):
        version = await put(engine, session, f"second {number}", key="chunks/2", fence=lease.fence)
    await engine.release(lease, ANA)  # it is free again: nothing but the fence stands in the first one's way
    if between == "rested":
        assert await engine._tiering.rest(session)
    holder.go_on()
    await holder.heard(lambda: bool(holder.ended) or (bool(holder.told) and holder.told[-1] > version + 3))
    return version


@pytest.mark.parametrize("between", ["hot", "rested", "archived"])
async def test_f17_who_was_stopped_beyond_his_lease_writes_no_more(between: str, tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine)
    holder = await Holder.start(tiers, session)
    try:
        version = await take_over(engine, session, holder, between)
    finally:
        await holder.end()
    entries = [entry for entry in await log(engine, session) if entry.version > version]
    print(f"F17 {between}: stopped {PAUSE:g} s, told before={len(holder.told)} accepted after={len(entries)}")
    assert holder.ended == "lease-lost"
    assert not entries
    assert holder.told[-1] <= version - 3
    await engine.flush(ROOT)
    assert not await sound(engine)


async def test_teeth_without_a_fence_he_writes_on(tiers: Apart) -> None:
    engine = await tiers.open()
    session = await make(engine)
    holder = await Holder.start(tiers, session, broken=True)
    try:
        version = await take_over(engine, session, holder, "hot")
    finally:
        await holder.end()
    assert holder.told[-1] > version
