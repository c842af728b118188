"""F16, R14: whatever the wall clock does, a lease and a time to live end when their time has passed, and only then."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import msgspec
import pytest

from holdfast.engine.clock import SteadyClock
from holdfast.errors import LeaseHeldError
from holdfast.model.retention import Retention
from holdfast.model.session import Header, Status
from holdfast.ports.clock import Clock
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.testing.clock import START, MachineTime
from holdfast.testing.ledger import Ledger

ROUNDS = int(os.environ.get("HOLDFAST_TEST_CLOCK_ROUNDS", "400"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "20261120"))
HOUR, YEAR = 3_600.0, 31_557_600.0

JUMPS: dict[str, Callable[[MachineTime], None]] = {
    "an hour ahead": lambda machine: machine.set_wall(HOUR),
    "an hour back": lambda machine: machine.set_wall(-HOUR),
    "ten years ahead": lambda machine: machine.set_wall(10 * YEAR),
    "ten years back": lambda machine: machine.set_wall(-10 * YEAR),
    "frozen": lambda machine: machine.freeze_wall(),
    "going again": lambda machine: machine.freeze_wall(False),
}


class WallClock(Clock):
    """Broken on purpose: it believes the wall clock."""

    def __init__(self, machine: MachineTime) -> None:
        self._machine = machine

    def now(self) -> datetime:
        return self._machine.wall()


class Found(msgspec.Struct):
    """What went wrong, by kind; ``early`` and ``late`` are of leases, ``double`` is two holders at once."""

    backwards: int = 0
    early: int = 0
    late: int = 0
    double: int = 0
    expiry: int = 0
    grants: int = 0

    @property
    def wrong(self) -> int:
        return self.backwards + self.early + self.late + self.double + self.expiry


async def start(store: SqliteHotStore, machine: MachineTime, boot: str, steady: bool) -> Clock:
    """What a process does when it starts."""
    if not steady:
        return WallClock(machine)
    return await SteadyClock.on(store, wall=machine.wall, steady=machine.steady, boot=lambda: boot)


async def play(folder: Path, *, rounds: int, steady: bool) -> Found:
    """Two processes on one machine take turns with a lease, while the wall clock jumps and processes restart."""
    random, machine, found = Random(SEED), MachineTime(), Found()
    store = SqliteHotStore.open(folder / "hot.db", synchronous="OFF")
    await Ledger("s").write(store, "c")
    clocks = [await start(store, machine, "boot", steady) for _ in range(2)]
    held: tuple[str, float] | None = None  # who, and on the true clock until when
    last = clocks[0].now()
    for number in range(rounds):
        JUMPS[random.choice(list(JUMPS))](machine)
        if random.random() < 0.3:
            clocks[random.randrange(2)] = await start(store, machine, "boot", steady)
        which = random.randrange(2)
        now = clocks[which].now()
        found.backwards += now < last
        last = now
        true = machine.steady()
        live = await store.lease("s", now=now)
        if held is not None:
            found.early += live is None and true < held[1]
            found.late += live is not None and true >= held[1]
        try:
            lease = await store.acquire("s", f"p{which}", seconds=30, now=now)
        except LeaseHeldError:
            pass
        else:
            assert lease is not None
            found.grants += 1
            found.double += held is not None and held[0] != lease.holder and true < held[1]
            held = (lease.holder, true + 30)
        if number % 20 == 19:
            found.expiry += expiry_is_wrong(clocks[which], machine)
        machine.elapse(random.choice((0.5, 10.0, 29.75, 30.25, 120.0)))
    await store.close()
    return found


def expiry_is_wrong(clock: Clock, machine: MachineTime) -> bool:
    """Let a session with a time to live of a day begin, jump, and look just before its end and just after."""
    start = clock.now()
    trial = msgspec.structs.replace(HEADER, created=start, expires=HEADER.retention.until(start, start))
    machine.elapse(86_399)
    JUMPS["ten years ahead"](machine)
    before = trial.status_at(clock.now())
    JUMPS["ten years back"](machine)
    machine.elapse(2)
    JUMPS["an hour back"](machine)
    after = trial.status_at(clock.now())
    JUMPS["an hour ahead"](machine)
    return (before, after) != (Status.DRAFT, Status.EXPIRED)


HEADER = Header(
    id="s",
    tenant="t",
    kind="k",
    schema=1,
    owner="o",
    status=Status.DRAFT,
    created=START,
    updated=START,
    retention=Retention(ttl=86_400.0),
)


async def test_f16_r14_jumps_of_the_wall_clock_end_nothing_early_and_nothing_twice(tmp_path: Path) -> None:
    found = await play(tmp_path, rounds=ROUNDS, steady=True)
    print(f"F16/R14 rounds={ROUNDS} seed={SEED} grants={found.grants} wrong={found.wrong}")
    assert ROUNDS // 10 < found.grants < ROUNDS
    assert found.wrong == 0, found


async def test_f16_r14_teeth_a_clock_that_believes_the_wall_is_found(tmp_path: Path) -> None:
    found = await play(tmp_path, rounds=120, steady=False)
    print(f"F16/R14 broken clock: {found}")
    assert min(found.backwards, found.early, found.late, found.double, found.expiry) > 0


@pytest.mark.parametrize("jump", list(JUMPS))
async def test_f16_r14_a_process_started_after_a_jump_agrees_with_the_one_before(tmp_path: Path, jump: str) -> None:
    machine = MachineTime()
    store = SqliteHotStore.open(tmp_path / "hot.db")
    first = await start(store, machine, "boot", steady=True)
    assert first.now() == START
    JUMPS[jump](machine)
    machine.elapse(5)
    second = await start(store, machine, "boot", steady=True)
    assert second.now() == first.now() == START + timedelta(seconds=5)
    await store.close()


async def test_f16_a_wall_clock_set_back_over_a_reboot_does_not_bring_an_earlier_boot_back(tmp_path: Path) -> None:
    machine = MachineTime(up=0.0)
    store = SqliteHotStore.open(tmp_path / "hot.db")
    first = await start(store, machine, "one", steady=True)
    began = first.now()
    machine.elapse(HOUR)
    machine.set_wall(-10 * YEAR)
    machine.boot()
    second = await start(store, machine, "two", steady=True)
    assert second.now() >= began
    await store.close()
