"""What a problem says beside its status: when to ask again."""

from __future__ import annotations

import json

import pytest

from holdfast.errors import (
    FlushQueueFullError,
    HoldfastError,
    RateLimitedError,
    SessionNotFoundError,
    StoreDownError,
    StoreFullError,
    StoreUnavailableError,
    TierBehindError,
)
from holdfast.service.problems import RETRY_AFTER, problem


@pytest.mark.parametrize(
    ("error", "status", "seconds"),
    [
        (StoreDownError("hot", 0.25), 503, 1),
        (StoreDownError("hot", 1.75), 503, 2),
        (RateLimitedError("requests", 0.25), 429, 1),
        (StoreUnavailableError("hot", "gone"), 503, RETRY_AFTER),
        (FlushQueueFullError(100_000), 503, RETRY_AFTER),
        (TierBehindError("s", 3, 7), 503, RETRY_AFTER),
        (StoreFullError("hot"), 507, RETRY_AFTER),
        (SessionNotFoundError("s"), 404, None),
    ],
    ids=lambda value: (
        f"{value.code}-{value.facts().get('retry_after', '')}" if isinstance(value, HoldfastError) else ""
    ),
)
def test_what_may_be_had_later_says_when_in_whole_seconds(
    error: HoldfastError, status: int, seconds: int | None
) -> None:
    """R11: a write that finds no hot tier is answered 503, with the time the breaker rests, never rounded down."""
    answer = problem(error, "r1")
    assert (answer.status_code, json.loads(bytes(answer.body))["code"]) == (status, error.code)
    assert answer.headers.get("retry-after") == (None if seconds is None else str(seconds))


def test_a_program_is_told_the_time_exactly() -> None:
    told = json.loads(bytes(problem(StoreDownError("hot", 0.25)).body))
    assert (told["store"], told["retry_after"]) == ("hot", 0.25)
