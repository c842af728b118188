"""How long a session is kept, when its people are warned, and when somebody looks next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidChangeError
from holdfast.model.retention import Retention, check_retention, first_warning, next_look, warning_times, within

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def warned_at(ttl: float) -> list[float]:
    return [(time - NOW).total_seconds() for time in warning_times(NOW, after(ttl))]


def test_a_session_is_kept_for_a_day_from_its_last_write_unless_said_otherwise() -> None:
    assert Retention() == Retention(ttl=86_400.0, sliding=True, maximum=None)
    assert Retention().until(NOW, after(50)) == after(86_450)


def test_a_permanent_session_never_expires() -> None:
    assert Retention(ttl=None).until(NOW, NOW) is None


def test_no_start_leads_beyond_the_maximum() -> None:
    retention = Retention(ttl=100, maximum=250)
    assert [retention.until(NOW, after(start)) for start in (0, 100, 150, 151, 240)] == [
        after(end) for end in (100, 200, 250, 250, 250)
    ]


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (86_400, [43_200, 69_120, 86_100]),
        (1_501, [750.5, 1_200.8, 1_201]),
        (1_500, [750, 1_200]),  # five minutes before the end is at 80 %
        (1_000, [500, 700, 800]),  # and before that, for a shorter time
        (600, [300, 480]),  # and at 50 %
        (400, [100, 200, 320]),
        (300, [150, 240]),  # it is no warning to be told at the start
        (10, [5, 8]),
    ],
)
def test_warnings_are_due_at_half_at_four_fifths_and_five_minutes_before_the_end(
    ttl: float, expected: list[float]
) -> None:
    assert warned_at(ttl) == expected


@given(st.floats(0.001, 1e9))
def test_warnings_come_in_order_once_each_and_inside_the_time_to_live(ttl: float) -> None:
    times = warned_at(ttl)
    assert times == sorted(set(times))
    assert len(times) in (2, 3)
    assert all(0 <= time <= ttl for time in times)


@pytest.mark.parametrize(
    "retention",
    [
        Retention(),
        Retention(None),
        Retention(0.5),
        Retention(1e10),
        Retention(60, maximum=60),
        Retention(60, False, 1e10),
    ],
)
def test_times_that_are_in_keeping_pass(retention: Retention) -> None:
    check_retention(retention)
    assert within(retention, None) == retention


@pytest.mark.parametrize(
    "retention",
    [
        Retention(0),
        Retention(-1),
        Retention(float("nan")),
        Retention(float("inf")),
        Retention(1.1e10),
        Retention(60, maximum=0),
        Retention(60, maximum=float("nan")),
        Retention(60, maximum=59),
        Retention(None, maximum=60),
    ],
)
def test_times_that_make_no_sense_are_refused(retention: Retention) -> None:
    for longest in (None, 10**9):
        with pytest.raises(InvalidChangeError):
            within(retention, longest)


def test_a_retention_goes_no_further_than_the_service_allows() -> None:
    assert within(Retention(60), 100) == Retention(60, maximum=100)
    assert within(Retention(60, maximum=80), 100) == Retention(60, maximum=80)
    assert within(Retention(60, False, 200), 100) == Retention(60, False, 100)
    for too_long in (Retention(101), Retention(None), Retention(150, maximum=200)):
        with pytest.raises(InvalidChangeError):
            within(too_long, 100)


@given(st.floats(0.001, 1e9))
def test_the_first_warning_is_known_without_the_others(ttl: float) -> None:
    life = (after(ttl) - NOW).total_seconds()
    assert first_warning(life) == pytest.approx(warned_at(ttl)[0], abs=2e-6)


@pytest.mark.parametrize(("early", "stands"), [(0, True), (1, True), (10, True), (10.5, False), (-1, False)])
def test_a_look_that_is_planned_stands_if_it_is_early_by_no_more_than_the_slack(early: float, stands: bool) -> None:
    assert next_look(1_000.0, 1_000.0 - early, 10) == (1_000.0 - early if stands else 1_000.0)


@given(st.integers(0, 10**6), st.none() | st.integers(-(10**6), 2 * 10**6), st.integers(0, 1_000))
def test_nobody_ever_looks_too_late_nor_far_too_early(due: int, planned: int | None, slack: int) -> None:
    assert due - slack <= next_look(due, planned, slack) <= due
