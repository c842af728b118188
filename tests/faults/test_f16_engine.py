"""F16, R13, R14 through the engine: leases and times to live, while the wall clock jumps and the engine restarts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from holdfast.compose import open_engine
from holdfast.engine.clock import SteadyClock
from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError, LeaseHeldError, LeaseLostError, SessionGoneError
from holdfast.model.access import Principal
from holdfast.model.retention import Retention
from holdfast.model.session import Status
from holdfast.ports.clock import Clock
from holdfast.settings import Settings
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.testing.clock import MachineTime

ANA = Principal(id="ana")
ADMIN = Principal(id="root", roles=frozenset({"admin", "operator"}))
ITEMS = [("chunks/a", {"text": "a"})]
HOUR, YEAR = 3_600.0, 31_557_600.0

JUMPS: dict[str, Callable[[MachineTime], None]] = {
    "an hour ahead": lambda machine: machine.set_wall(HOUR),
    "an hour back": lambda machine: machine.set_wall(-HOUR),
    "ten years ahead": lambda machine: machine.set_wall(10 * YEAR),
    "ten years back": lambda machine: machine.set_wall(-10 * YEAR),
    "frozen": lambda machine: machine.freeze_wall(),
}


class WallClock(Clock):
    """Broken on purpose: it believes the wall clock."""

    def __init__(self, machine: MachineTime) -> None:
        self._machine = machine

    def now(self) -> datetime:
        return self._machine.wall()


@contextlib.asynccontextmanager
async def started(home: Path, machine: MachineTime, *, steady: bool = True) -> AsyncIterator[Engine]:
    """An engine as a process on this machine would start it."""
    clock: Clock = WallClock(machine)
    if steady:
        store = SqliteHotStore.open(Path(urlsplit(Settings(home=home).hot_url).path))
        clock = await SteadyClock.on(store, wall=machine.wall, steady=machine.steady, boot=lambda: "this boot")
        await store.close()
    async with open_engine(Settings(home=home), clock=clock) as engine:
        yield engine


async def wrong_with_a_lease(home: Path, jump: Callable[[MachineTime], None], *, steady: bool) -> list[str]:
    """Hold a lease for 30 seconds, across a jump and a restart; somebody else asks at 29 and at 31."""
    machine, wrong = MachineTime(), []
    async with started(home, machine, steady=steady) as engine:
        session = await engine.create(ANA, kind="knowledge", title="t", items=ITEMS, retention=Retention(ttl=None))
        mine = await engine.lease(session.id, ANA, "agent-1", seconds=30)
    jump(machine)
    machine.elapse(29)
    async with started(home, machine, steady=steady) as engine:
        try:
            await engine.lease(session.id, ANA, "agent-2", seconds=30)
            wrong.append("granted to another while it was held")
        except LeaseHeldError:
            pass
        machine.elapse(2)
        try:
            theirs = await engine.lease(session.id, ANA, "agent-2", seconds=30)
            if theirs.fence <= mine.fence:
                wrong.append("the fence did not grow")
        except LeaseHeldError:
            wrong.append("held beyond its time")
            theirs = mine
        async with engine.edit(session.id, ANA, expected=1, fence=theirs.fence) as draft:
            draft.put("chunks/a", {"text": "theirs"})
        try:
            async with engine.edit(session.id, ANA, expected=2, fence=mine.fence) as draft:
                draft.put("chunks/a", {"text": "mine, too late"})
            wrong.append("the old holder's write was taken")
        except LeaseLostError:
            pass
    return wrong


async def wrong_with_an_expiry(home: Path, jump: Callable[[MachineTime], None], *, steady: bool) -> list[str]:
    """Let a session with a time to live of an hour begin, jump, and look, edit and sweep just before and just after."""
    machine, wrong = MachineTime(), []
    keep = Retention(ttl=HOUR, sliding=False)
    async with started(home, machine, steady=steady) as engine:
        session = await engine.create(ANA, kind="knowledge", title="t", items=ITEMS, retention=keep)
    jump(machine)
    machine.elapse(HOUR - 1)
    async with started(home, machine, steady=steady) as engine:
        swept = await engine.sweep(ADMIN)
        if swept.expired:
            wrong.append("expired early")
        else:
            async with engine.edit(session.id, ANA, expected=1) as draft:
                draft.put("chunks/a", {"text": "in time"})
        jump(machine)
        machine.elapse(2)
        try:
            await engine.read(session.id, ANA)
            wrong.append("read when its time was over")
        except SessionGoneError:
            pass
        expired = [(await engine.sweep(ADMIN)).expired for _ in range(2)]
        if swept.expired + sum(expired) != 1:
            wrong.append(f"expired {swept.expired + sum(expired)} times")
        if (await engine.header(session.id, ANA)).status is not Status.EXPIRED:
            wrong.append("not expired")
    return wrong


@pytest.mark.parametrize("jump", list(JUMPS))
async def test_f16_r14_a_lease_ends_with_its_time_whatever_the_wall_clock_says(tmp_path: Path, jump: str) -> None:
    assert await wrong_with_a_lease(tmp_path, JUMPS[jump], steady=True) == []


@pytest.mark.parametrize("jump", list(JUMPS))
async def test_f16_r13_a_session_expires_once_and_in_time_whatever_the_wall_clock_says(
    tmp_path: Path, jump: str
) -> None:
    assert await wrong_with_an_expiry(tmp_path, JUMPS[jump], steady=True) == []


@pytest.mark.parametrize("what", [wrong_with_a_lease, wrong_with_an_expiry])
async def test_f16_teeth_an_engine_that_believes_the_wall_clock_is_found(
    tmp_path: Path, what: Callable[..., AsyncIterator[list[str]]]
) -> None:
    found = {}
    for name, jump in JUMPS.items():
        try:
            found[name] = await what(tmp_path / name.replace(" ", "-"), jump, steady=False)  # type: ignore[misc]
        except HoldfastError as error:
            found[name] = [error.code]
    print(f"F16 broken clock: {found}")
    assert all(found.values())
