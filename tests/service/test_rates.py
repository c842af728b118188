"""S25: how much one principal may ask, and that forgetting a principal never gives it more."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import RateLimitedError
from holdfast.model.access import Principal
from holdfast.service.rates import Rates

ANA, BEN = Principal("ana"), Principal("ben")
ANA_ELSEWHERE = Principal("ana", "other")


class Seconds:
    """A steady clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


def takes(rates: Rates, who: Principal, at_most: int = 10_000) -> int:
    """How many requests in a row are let through."""
    for count in range(at_most):
        try:
            rates.take(who)
        except RateLimitedError:
            return count
    return at_most


def test_a_burst_is_let_through_and_no_more(clock: Seconds) -> None:
    rates = Rates(rate=10, burst=50, streams=1, now=clock)
    assert takes(rates, ANA) == 50
    assert takes(rates, ANA) == 0


def test_requests_come_back_at_the_rate_up_to_the_burst(clock: Seconds) -> None:
    rates = Rates(rate=10, burst=50, streams=1, now=clock)
    assert takes(rates, ANA) == 50
    clock.now += 1.0
    assert takes(rates, ANA) == 10
    clock.now += 1_000.0
    assert takes(rates, ANA) == 50


def test_the_refusal_says_when_the_next_request_is_let_through(clock: Seconds) -> None:
    rates = Rates(rate=4, burst=3, streams=1, now=clock)
    takes(rates, ANA)
    with pytest.raises(RateLimitedError) as caught:
        rates.take(ANA)
    assert caught.value.what == "requests"
    assert caught.value.retry_after == pytest.approx(0.25)
    clock.now += caught.value.retry_after / 2
    with pytest.raises(RateLimitedError):
        rates.take(ANA)
    clock.now += caught.value.retry_after / 2
    rates.take(ANA)


def test_a_refused_request_costs_nothing(clock: Seconds) -> None:
    rates = Rates(rate=10, burst=5, streams=1, now=clock)
    takes(rates, ANA)
    for _ in range(1_000):
        with pytest.raises(RateLimitedError):
            rates.take(ANA)
    clock.now += 0.1
    assert takes(rates, ANA) == 1


def test_principals_do_not_share_and_one_id_in_two_tenants_is_two(clock: Seconds) -> None:
    rates = Rates(rate=10, burst=5, streams=1, now=clock)
    assert [takes(rates, who) for who in (ANA, BEN, ANA_ELSEWHERE, ANA)] == [5, 5, 5, 0]


def test_a_principal_has_one_bucket_whatever_its_roles(clock: Seconds) -> None:
    rates = Rates(rate=10, burst=5, streams=1, now=clock)
    assert [takes(rates, ANA), takes(rates, Principal("ana", roles=frozenset({"admin"})))] == [5, 0]


def test_a_clock_that_stands_or_goes_back_gives_nothing_away(clock: Seconds) -> None:
    rates = Rates(rate=10, burst=5, streams=1, now=clock)
    takes(rates, ANA)
    clock.now -= 500.0
    assert takes(rates, ANA) == 0
    clock.now += 500.1
    assert takes(rates, ANA) == 1


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_whoever_owes_nothing_any_more_is_forgotten(clock: Seconds) -> None:
    rates = Rates(rate=10, burst=5, streams=1, now=clock)
    for number in range(1_000):
        rates.take(Principal(f"p{number}"))
    assert len(rates) == 1_000
    clock.now += 1.0
    for number in range(200):
        rates.take(Principal(f"q{number}"))
    assert len(rates) == 200


def test_however_many_ask_at_a_time_what_is_remembered_is_bounded(clock: Seconds) -> None:
    rates = Rates(rate=1, burst=1_000, streams=1, now=clock, most=100)
    for number in range(2_000):
        try:
            rates.take(Principal(f"p{number}"))
        except RateLimitedError:
            assert number >= 100 + 1_000  # all those beyond share one bucket
    assert len(rates) <= 101


class Forgetful(Rates):
    """Forgets whoever asked longest ago, empty bucket or not: the broken variant that the property catches."""

    def take(self, who: Principal) -> None:
        super().take(who)
        while len(self._full) > 2:
            self._full.popitem(last=False)


def most_let_through(rates: Rates, clock: Seconds, steps: list[tuple[int, float]], rate: int, burst: int) -> None:
    """Assert that no principal ever got more than a burst and what the rate brings, over any span of time."""
    let: dict[int, list[float]] = {}
    for number, pause in steps:
        clock.now += pause
        try:
            rates.take(Principal(f"p{number}"))
        except RateLimitedError:
            continue
        times = let.setdefault(number, [])
        times.append(clock.now)
        for first, since in enumerate(times):
            assert len(times) - first <= burst + rate * (clock.now - since) + 1e-6


STEPS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.3, 2.0])), max_size=80)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(1, 8))
def test_nobody_ever_gets_more_than_the_burst_and_the_rate(steps: list[tuple[int, float]], most: int) -> None:
    clock = Seconds()
    rates = Rates(rate=3, burst=4, streams=1, now=clock, most=most)
    most_let_through(rates, clock, steps, rate=3, burst=4)
    assert len(rates) <= most + 1


def test_teeth_forgetting_a_bucket_that_owes_is_caught() -> None:
    chance = Random(3)
    steps = [(chance.randrange(6), chance.choice([0.0, 0.1])) for _ in range(400)]
    clock = Seconds()
    with pytest.raises(AssertionError):
        most_let_through(Forgetful(rate=3, burst=4, streams=1, now=clock), clock, steps, rate=3, burst=4)


# -- feeds -------------------------------------------------------------------------------------------------------------


def test_feeds_at_a_time_are_capped_for_each_principal(clock: Seconds) -> None:
    rates = Rates(rate=1, burst=1, streams=2, now=clock)
    with rates.stream(ANA):
        with rates.stream(ANA), rates.stream(BEN):
            with pytest.raises(RateLimitedError) as caught, rates.stream(ANA):
                pass
            assert caught.value.what == "feeds"
            assert caught.value.retry_after > 0
        with rates.stream(ANA):
            pass
    assert len(rates) == 0


def test_a_feed_that_fails_is_counted_off(clock: Seconds) -> None:
    rates = Rates(rate=1, burst=1, streams=1, now=clock)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), rates.stream(ANA):
            raise ZeroDivisionError
    assert len(rates) == 0


def test_a_feed_whose_generator_never_began_is_counted_off(clock: Seconds) -> None:
    rates = Rates(rate=1, burst=1, streams=1, now=clock)

    def lost() -> None:
        held = ExitStack()
        held.enter_context(rates.stream(ANA))
        held.pop_all()  # whoever was to close it never comes

    lost()
    gc.collect()
    with rates.stream(ANA):
        pass


def test_a_feed_that_was_only_asked_for_or_refused_counts_nothing(clock: Seconds) -> None:
    rates = Rates(rate=1, burst=1, streams=1, now=clock)
    rates.stream(ANA)
    with rates.stream(ANA):
        for _ in range(3):
            with pytest.raises(RateLimitedError), rates.stream(ANA):
                pass
        with pytest.raises(RateLimitedError), rates.stream(ANA):
            pass
    assert len(rates) == 0


def test_feeds_and_requests_are_counted_apart(clock: Seconds) -> None:
    rates = Rates(rate=1, burst=1, streams=1, now=clock)
    rates.take(ANA)
    with rates.stream(ANA), pytest.raises(RateLimitedError):
        rates.take(ANA)
