"""Position keys between neighbours."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.model.order import DIGITS, FIRST, between, is_position, neighbours, spread

LOWEST = "A" + "0" * 26
HIGHEST = "z" * 27


def wholes() -> st.SearchStrategy[str]:
    """Integer parts of every length, those at the ends of a length often."""

    def of(head: str) -> st.SearchStrategy[str]:
        length = ord(head) - ord("a") + 1 if head >= "a" else ord("Z") - ord(head) + 1
        digits = st.sampled_from("0z1y" + DIGITS)
        return st.lists(digits, min_size=length, max_size=length).map(lambda found: head + "".join(found))

    return st.sampled_from("abcYZXAzBy").flatmap(of)


fractions = st.lists(st.sampled_from("01z" + DIGITS), max_size=5).map("".join).map(lambda text: text.rstrip("0"))
positions = st.builds(str.__add__, wholes(), fractions).filter(is_position)


@given(positions, positions)
@example("Zz", "a0")
@example("a0", "a1")
@example("a0", "a0V")
@example("a0V", "a0W")
@example("a0z", "a1")
@example("az", "b00")
@example(LOWEST + "V", LOWEST + "W")
@example("A" + "0" * 25 + "1", LOWEST + "1")
@example(HIGHEST, HIGHEST + "z")
def test_a_position_between_two_others_lies_strictly_between(one: str, other: str) -> None:
    low, high = min(one, other), max(one, other)
    if low == high:
        with pytest.raises(ValueError, match="no position lies between"):
            between(low, high)
        return
    middle = between(low, high)
    assert low < middle < high
    assert is_position(middle)


@given(positions)
@example(LOWEST + "1")
@example(LOWEST + "0001")
@example("A" + "0" * 25 + "1")
@example(HIGHEST)
@example(HIGHEST + "zzz")
def test_there_is_always_a_position_before_and_after(position: str) -> None:
    before, after = between(None, position), between(position, None)
    assert before < position < after
    assert is_position(before)
    assert is_position(after)


def test_the_first_position_of_all_is_short() -> None:
    assert between(None, None) == FIRST
    assert is_position(FIRST)


@pytest.mark.parametrize("low", [None, "a0", "a0V"])
@pytest.mark.parametrize(
    "bad", ["", "a", "a00", "a0V0", "b1", "A0", "a!", "a0!", "ä0", "!0", "0", LOWEST, "a0\n", "a٣"]
)
def test_what_is_no_position_is_refused(low: str | None, bad: str) -> None:
    assert not is_position(bad)
    for given_low, given_high in ((low, bad), (bad, None), (bad, low)):
        with pytest.raises(ValueError, match="position"):
            between(given_low, given_high)


def test_positions_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="no position lies between 'a1' and 'a0'"):
        between("a1", "a0")


@given(st.text(alphabet=DIGITS + "!-~", max_size=12))
def test_whatever_is_said_to_be_a_position_can_be_worked_with(text: str) -> None:
    if not is_position(text):
        return
    before, after = between(None, text), between(text, None)
    assert before < between(before, text) < text < between(text, after) < after


def test_appending_without_end_keeps_positions_short() -> None:
    position, longest = None, 0
    for _ in range(100_000):
        following = between(position, None)
        assert position is None or position < following
        position, longest = following, max(longest, len(following))
    assert longest == 4


def test_a_million_appended_take_five_characters() -> None:
    assert between("cz" + "zz", None) == "d0000"  # 62 + 62² + 62³ are behind, 62⁴ more fit in
    assert 62 + 62**2 + 62**3 < 1_000_000 < 62**4


def test_placing_in_front_without_end_keeps_positions_short() -> None:
    position, longest = FIRST, 0
    for _ in range(10_000):
        before = between(None, position)
        assert before < position
        position, longest = before, max(longest, len(before))
    assert longest == 4


@pytest.mark.parametrize("above", [True, False])
def test_placing_at_the_same_place_grows_slowly(above: bool) -> None:
    low, high = "a0", "a1"
    for _ in range(1_000):
        middle = between(low, high)
        assert low < middle < high
        low, high = (low, middle) if above else (middle, high)
    assert len(middle) <= 210  # some five placements a character


@given(st.integers(0, 2**32), st.integers(1, 120))
def test_placing_anywhere_keeps_order_and_never_repeats(seed: int, count: int) -> None:
    chance, placed = Random(seed), list[str]()
    for _ in range(count):
        at = chance.randint(0, len(placed))
        placed.insert(at, between(placed[at - 1] if at else None, placed[at] if at < len(placed) else None))
    assert placed == sorted(set(placed))
    assert all(is_position(position) for position in placed)


@given(st.none() | positions, st.none() | positions, st.integers(0, 300))
def test_a_spread_is_in_order_and_strictly_inside(one: str | None, other: str | None, count: int) -> None:
    if one is not None and other is not None:
        if one == other:
            return
        one, other = min(one, other), max(one, other)
    found = spread(one, other, count)
    assert len(found) == count
    assert all(is_position(position) for position in found)
    ends = [*([] if one is None else [one]), *found, *([] if other is None else [other])]
    assert all(low < high for low, high in pairwise(ends))


def test_a_spread_between_neighbours_stays_short() -> None:
    assert max(map(len, spread("a0", "a1", 1_000))) <= 5
    assert max(map(len, spread(None, None, 1_000))) == 3


@pytest.mark.parametrize("count", [0, -1])
def test_a_spread_of_nothing_is_empty(count: int) -> None:
    assert spread("a0", "a1", count) == []


@given(st.lists(st.sampled_from(["a0", "a1", "a1V", "b00"])), st.sampled_from(["Zz", "a0", "a1", "a1V", "b00", "b01"]))
def test_neighbours_are_the_nearest_others(unsorted: list[str], position: str) -> None:
    others = sorted(unsorted)
    assert neighbours(others, position) == (
        max((other for other in others if other < position), default=None),
        min((other for other in others if other > position), default=None),
    )
