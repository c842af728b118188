"""What ``verify`` makes of what it meets: it could not be looked at now, does not add up, or is being worked on."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from holdfast.engine.engine import Engine
from holdfast.engine.verification import Problem, Verified
from holdfast.errors import (
    BlobNotFoundError,
    HoldfastError,
    SinkUnavailableError,
    StoreDownError,
    StoreUnavailableError,
    TamperedError,
    TierBehindError,
    UnavailableError,
    UnreadableError,
)
from holdfast.testing.tiers import ANA, ROOT, Apart, make, put


@pytest.mark.parametrize(
    "error",
    [StoreUnavailableError("cold", "no connection"), StoreDownError("warm", 1.0), SinkUnavailableError("v", "x")],
)
def test_what_does_not_answer_is_no_damage(error: HoldfastError) -> None:
    problem = Problem.of(error)
    assert (problem.code, problem.unavailable) == (error.code, True)
    found = Verified("s", (problem,))
    assert (found.ok, found.differs) == (False, False)
    assert "change id" not in problem.what


@pytest.mark.parametrize(
    "error", [TierBehindError("s", 1, 2), TamperedError("it"), UnreadableError("it", "key"), BlobNotFoundError("a")]
)
def test_what_is_there_and_wrong_is(error: HoldfastError) -> None:
    """A hot tier that is behind too: it says that writes must wait, and both tiers answer."""
    problem = Problem.of(error)
    assert (problem.code, problem.unavailable, problem.what) == (error.code, False, str(error))
    found = Verified("s", (problem, Problem.of(StoreUnavailableError("cold", "no connection"))))
    assert (found.ok, found.differs) == (False, True)


def test_nothing_wrong_is_well() -> None:
    assert (Verified("s", ()).ok, Verified("s", ()).differs) == (True, False)


async def test_a_session_that_is_worked_on_and_moved_meanwhile_is_not_called_damaged(tiers: Apart) -> None:
    engines: list[Engine] = [await tiers.open(proxied=False) for _ in range(3)]
    session = await make(engines[0], 30)
    over = False

    async def work() -> None:
        version = 31
        while not over:
            with contextlib.suppress(UnavailableError):
                version = await put(engines[0], session, f"at {version}")
            await asyncio.sleep(0.02)

    async def move() -> None:
        while not over:
            with contextlib.suppress(HoldfastError):
                await engines[1]._tiering.rest(session)
            with contextlib.suppress(HoldfastError):
                await engines[1]._tiering.archive(session)
            await asyncio.sleep(0.05)

    at_work = [asyncio.create_task(work()), asyncio.create_task(move())]
    try:
        found = []
        for _ in range(6):
            found += [one async for one in engines[2].verify(ROOT, session)]
    finally:
        over = True
        await asyncio.gather(*at_work)
    assert not [problem for one in found for problem in one.problems if not problem.unavailable]
    assert (await engines[0].read(session, ANA)).header.version > 31
