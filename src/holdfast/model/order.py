"""Position keys between neighbours, so that moving one item changes one item.

A position is a string over the base-62 digits that sorts as text. Its head is an integer part of marked length, the
rest a fraction: appending a million items in a row costs five characters, not a million. The scheme is David
Greenspan's "Implementing Fractional Indexing" (Observable, 2020).
"""

from __future__ import annotations

from bisect import bisect_left

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FIRST = "a0"
_LOWEST = "A" + DIGITS[0] * 26
_ALLOWED = frozenset(DIGITS)


def between(low: str | None, high: str | None) -> str:
    """A position strictly between two others; ``None`` stands for the open end.

    Raises:
        ValueError: ``low`` does not sort before ``high``, or one of them is no position.
    """
    for given in (low, high):
        if given is not None and not is_position(given):
            raise ValueError(f"{given!r} is not a position")
    if low is not None and high is not None and low >= high:
        raise ValueError(f"no position lies between {low!r} and {high!r}")
    if low is None:
        return FIRST if high is None else _before(high)
    if high is None:
        whole = _whole(low)
        following = _step(whole, up=True)
        return following if following is not None else whole + _middle(low[len(whole) :], None)
    low_whole, high_whole = _whole(low), _whole(high)
    if low_whole == high_whole:
        return low_whole + _middle(low[len(low_whole) :], high[len(high_whole) :])
    following = _step(low_whole, up=True)
    if following is not None and following < high:
        return following
    return low_whole + _middle(low[len(low_whole) :], None)


def spread(low: str | None, high: str | None, count: int) -> list[str]:
    """``count`` positions in order between two others, by halving, so that none grows long."""
    if count <= 0:
        return []
    if high is None:
        positions = []
        for _ in range(count):
            low = between(low, None)
            positions.append(low)
        return positions
    middle = between(low, high)
    left = (count - 1) // 2
    return [*spread(low, middle, left), middle, *spread(middle, high, count - 1 - left)]


def is_position(text: str) -> bool:
    """Whether a string is a position this module could have made."""
    try:
        whole = _whole(text)
    except ValueError:
        return False
    if text == _LOWEST or (len(text) > len(whole) and text.endswith(DIGITS[0])):
        return False  # nothing could be placed before the one, nor always between two of the other
    return _ALLOWED.issuperset(text[1:])


def neighbours(positions: list[str], position: str) -> tuple[str | None, str | None]:
    """The positions right below and right above ``position`` in a sorted list."""
    at = bisect_left(positions, position)
    above = next((other for other in positions[at:] if other > position), None)
    return (positions[at - 1] if at else None, above)


def _before(high: str) -> str:
    whole = _whole(high)
    if whole == _LOWEST:
        return whole + _middle("", high[len(whole) :])
    if whole < high:
        return whole
    preceding = _step(whole, up=False)
    return _LOWEST + _middle("", None) if preceding is None or preceding == _LOWEST else preceding


def _whole(position: str) -> str:
    head = position[:1]
    if "a" <= head <= "z":
        length = ord(head) - ord("a") + 2
    elif "A" <= head <= "Z":
        length = ord("Z") - ord(head) + 2
    else:
        raise ValueError(f"{position!r} is not a position")
    if len(position) < length:
        raise ValueError(f"{position!r} is not a position")
    return position[:length]


def _step(whole: str, *, up: bool) -> str | None:
    head, digits = whole[0], list(whole[1:])
    carried, fill = (DIGITS[-1], DIGITS[0]) if up else (DIGITS[0], DIGITS[-1])
    for at in range(len(digits) - 1, -1, -1):
        if digits[at] != carried:
            digits[at] = DIGITS[DIGITS.index(digits[at]) + (1 if up else -1)]
            return head + "".join(digits)
        digits[at] = fill
    if up:
        if head == "z":
            return None
        if head == "Z":
            return FIRST
        digits = [*digits, fill] if head >= "a" else digits[:-1]
        return chr(ord(head) + 1) + "".join(digits)
    if head == "A":
        return None
    if head == "a":
        return "Z" + DIGITS[-1]
    digits = [*digits, fill] if head < "a" else digits[:-1]
    return chr(ord(head) - 1) + "".join(digits)


def _middle(low: str, high: str | None) -> str:
    """The shortest fraction between two others, neither of which ends in the zero digit."""
    shared = 0
    if high is not None:
        while shared < len(high) and (low[shared] if shared < len(low) else DIGITS[0]) == high[shared]:
            shared += 1
        if shared:
            return high[:shared] + _middle(low[shared:], high[shared:])
    low_digit = DIGITS.index(low[0]) if low else 0
    high_digit = DIGITS.index(high[0]) if high else len(DIGITS)
    if high_digit - low_digit > 1:
        return DIGITS[(low_digit + high_digit) // 2]
    if high is not None and len(high) > 1:
        return high[0]
    return DIGITS[low_digit] + _middle(low[1:], None)
