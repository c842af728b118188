"""What ``verify`` makes of an error that it meets: could not be looked at now, or does not add up."""

from __future__ import annotations

import pytest

from holdfast.engine.verification import Problem, Verified
from holdfast.errors import (
    BlobNotFoundError,
    HoldfastError,
    SinkUnavailableError,
    StoreDownError,
    StoreUnavailableError,
    TamperedError,
    TierBehindError,
    UnreadableError,
)


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
