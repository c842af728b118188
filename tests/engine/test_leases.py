"""R08, R14: fences only grow, an old one is refused however well its lease looked, and the store's time decides."""

# ruff: noqa: PT012 - an edit is a block

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import (
    InvalidChangeError,
    LeaseHeldError,
    LeaseLostError,
    PermissionDeniedError,
    SessionNotFoundError,
)
from holdfast.model.access import Principal, Role
from holdfast.testing.clock import ManualClock

ANA, BEN, VIC, EVE = Principal("ana"), Principal("ben"), Principal("vic"), Principal("eve")


async def start(engine: Engine) -> str:
    session = str((await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id)
    await engine.grant(session, ANA, "ben", Role.PARTICIPANT)
    await engine.grant(session, ANA, "vic", Role.VIEWER)
    return session


async def put(engine: Engine, session: str, who: Principal, text: str, expected: int, fence: int | None = None) -> int:
    async with engine.edit(session, who, expected=expected, fence=fence) as draft:
        draft.put("chunks/1", {"text": text})
    assert draft.committed is not None
    return draft.committed.version


async def test_r08_a_holder_that_was_paused_writes_nothing_once_the_lease_is_another_s(
    opens: Any, clock: ManualClock
) -> None:
    one, two = await opens(), await opens()
    session = await start(one)
    paused = await one.lease(session, ANA, "agent-1")
    await put(one, session, ANA, "as long as it is held", 1, paused.fence)
    clock.advance(60)
    taken = await two.lease(session, BEN, "agent-2")
    assert taken.fence > paused.fence
    accepted = 0
    for attempt in range(20):
        with pytest.raises(LeaseLostError) as caught:
            await put(one, session, ANA, f"late {attempt}", 2, paused.fence)
        assert (caught.value.fence, caught.value.actual) == (paused.fence, taken.fence)
    print(f"R08 paused for 60 s: attempts=20 accepted={accepted}")
    for refused in (one.renew(paused, ANA), one.undo(session, ANA, expected=2, fence=paused.fence)):
        with pytest.raises(LeaseLostError):
            await refused
    with pytest.raises(LeaseLostError):
        await one.restore(session, ANA, 1, expected=2, fence=paused.fence)
    with pytest.raises(LeaseLostError):
        arguments = {"key": "chunks/1", "text": "late"}
        await one.operate(session, ANA, "edit", arguments, expected=2, fence=paused.fence)
    assert await put(two, session, BEN, "the new holder", 2, taken.fence) == 3
    assert [item.body["text"] for item in (await one.read(session, ANA)).items] == ["the new holder"]


async def test_r08_fences_only_grow_whoever_asks_and_however_often(opens: Any, clock: ManualClock) -> None:
    engines = [await opens(), await opens()]
    session = await start(engines[0])
    fences = []
    for n in range(60):
        lease = await engines[n % 2].lease(session, ANA, f"agent-{n % 3}", force=True)
        fences.append(lease.fence)
        if n % 5 == 0:
            await engines[0].release(lease, ANA)
        clock.advance(n % 4 * 20)
    assert fences == sorted(set(fences))


async def test_r08_of_many_that_ask_at_once_one_gets_the_lease(opens: Any) -> None:
    engines = [await opens(), await opens()]
    session = await start(engines[0])
    asked = [engines[n % 2].lease(session, ANA, f"agent-{n}") for n in range(32)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in outcomes) == 1
    assert sum(isinstance(one, LeaseHeldError) for one in outcomes) == 31


async def test_r08_while_a_lease_is_live_only_its_fence_writes(engine: Engine, clock: ManualClock) -> None:
    session = await start(engine)
    lease = await engine.lease(session, BEN, "agent-1", seconds=10)
    with pytest.raises(LeaseHeldError) as caught:
        await put(engine, session, ANA, "no fence", 1)
    assert caught.value.holder == "agent-1"
    with pytest.raises(LeaseLostError):
        await put(engine, session, ANA, "a made-up fence", 1, lease.fence + 5)
    assert await put(engine, session, BEN, "with its fence", 1, lease.fence) == 2
    with pytest.raises(LeaseHeldError):
        await engine.undo(session, ANA, expected=2)
    await engine.label(session, ANA, "labels are no edits")
    await engine.release(lease, BEN)
    assert await put(engine, session, ANA, "released", 2) == 3
    lease = await engine.lease(session, BEN, "agent-1", seconds=10)
    clock.advance(10)
    assert await engine.leased(session, ANA) is None
    assert await put(engine, session, ANA, "lapsed", 3) == 4


async def test_r08_a_write_renews_the_lease_it_carries(engine: Engine, clock: ManualClock) -> None:
    session = await start(engine)
    lease = await engine.lease(session, BEN, "agent-1", seconds=10)
    for version in range(1, 6):
        clock.advance(9)
        await put(engine, session, BEN, f"{version}", version, lease.fence)
    live = await engine.leased(session, ANA)
    assert live is not None
    assert (live.holder, live.fence) == ("agent-1", lease.fence)
    renewed = await engine.renew(lease, BEN, seconds=100)
    clock.advance(99)
    assert await engine.leased(session, ANA) == renewed


async def test_r08_a_released_lease_is_not_renewed_and_a_lost_one_releases_nothing(engine: Engine) -> None:
    session = await start(engine)
    first = await engine.lease(session, BEN, "agent-1")
    await engine.release(first, BEN)
    with pytest.raises(LeaseLostError):
        await engine.renew(first, BEN)
    second = await engine.lease(session, BEN, "agent-2")
    await engine.release(first, BEN)
    assert await engine.leased(session, ANA) == second


async def test_r08_a_lease_outlives_the_process_that_took_it(opens: Any) -> None:
    engine = await opens()
    session = await start(engine)
    lease = await engine.lease(session, BEN, "agent-1", seconds=60)
    again = await opens()
    with pytest.raises(LeaseHeldError):
        await again.lease(session, ANA, "agent-2")
    assert (await again.lease(session, BEN, "agent-1")).fence == lease.fence + 1
    assert (await again.lease(session, ANA, "agent-2", force=True)).fence == lease.fence + 2


async def test_r08_who_may_not_write_gets_no_lease(engine: Engine) -> None:
    session = await start(engine)
    lease = await engine.lease(session, BEN, "agent-1")
    with pytest.raises(PermissionDeniedError):
        await engine.lease(session, VIC, "tab", force=True)
    for refused in (engine.lease(session, EVE, "tab"), engine.renew(lease, EVE), engine.release(lease, EVE)):
        with pytest.raises(SessionNotFoundError):
            await refused
    assert await engine.leased(session, ANA) == lease
    with pytest.raises(PermissionDeniedError):
        await engine.release(lease, VIC)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 86_401.0, float("nan"), float("inf")])
async def test_r14_a_lease_lasts_a_time_that_makes_sense(engine: Engine, seconds: float) -> None:
    session = await start(engine)
    with pytest.raises(InvalidChangeError):
        await engine.lease(session, BEN, "agent-1", seconds=seconds)
    lease = await engine.lease(session, BEN, "agent-1")
    with pytest.raises(InvalidChangeError):
        await engine.renew(lease, BEN, seconds=seconds)


async def test_r14_the_clock_of_the_holder_means_nothing(engine: Engine, clock: ManualClock) -> None:
    """What a client says of its lease, how long it lasts and who holds it, changes nothing."""
    session = await start(engine)
    lease = await engine.lease(session, BEN, "agent-1", seconds=10)
    forged = msgspec.structs.replace(lease, until=lease.until.replace(year=2099), holder="agent-9")
    clock.advance(11)
    await engine.lease(session, ANA, "agent-2")
    with pytest.raises(LeaseLostError):
        await engine.renew(forged, BEN)
    with pytest.raises(LeaseLostError):
        await engine.renew(msgspec.structs.replace(forged, fence=2**70), BEN)
    await engine.release(msgspec.structs.replace(forged, fence=2**70), BEN)
    live = await engine.leased(session, ANA)
    assert live is not None
    assert live.holder == "agent-2"


@pytest.mark.parametrize("holder", ["", "x" * 201, "\ud800"])
async def test_a_holder_s_name_is_text_of_a_sensible_length(engine: Engine, holder: str) -> None:
    session = await start(engine)
    with pytest.raises(InvalidChangeError):
        await engine.lease(session, BEN, holder)
