"""The difference of two states: per item, and within text by words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import msgspec

from holdfast.model.item import Item

_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_STEPS = 150_000


class Word(msgspec.Struct, frozen=True, array_like=True):
    """A run of text that stayed (``=``), came (``+``) or went (``-``)."""

    op: str
    text: str


class TextDifference(msgspec.Struct, frozen=True):
    """How one text inside a body changed; ``path`` says where, as ``text`` or ``cells.3.note``."""

    path: str
    words: tuple[Word, ...]


class Difference(msgspec.Struct, frozen=True):
    """How one item differs: ``added``, ``changed``, ``moved`` or ``deleted``, with its bodies (None where there is
    no item).
    """

    key: str
    verb: str
    before: Any
    after: Any
    texts: tuple[TextDifference, ...] = ()


def differences(before: Mapping[str, Item], after: Mapping[str, Item], keys: Iterable[str]) -> list[Difference]:
    """What differs between two states at some keys, in the order of the later state, deleted ones last."""
    found = []
    for key in keys:
        old, new = before.get(key), after.get(key)
        if old is None and new is None:
            continue
        if old is None or new is None:
            verb = "added" if old is None else "deleted"
            found.append(Difference(key, verb, old and old.body, new and new.body))
        elif old.raw != new.raw:
            old_body, new_body = old.body, new.body
            texts = tuple(text_differences(old_body, new_body))
            found.append(Difference(key, "changed", old_body, new_body, texts))
        elif old.position != new.position:
            found.append(Difference(key, "moved", old.body, new.body))
    place = {key: item.position for key, item in after.items()}
    return sorted(found, key=lambda difference: (place.get(difference.key, "~"), difference.key))


def text_differences(before: Any, after: Any, path: str = "") -> Iterator[TextDifference]:
    """Every text that stands at the same place in both bodies and differs, by words."""
    if isinstance(before, str) and isinstance(after, str):
        if before != after:
            yield TextDifference(path, word_differences(before, after))
    elif isinstance(before, dict) and isinstance(after, dict):
        for name in before:
            if name in after:
                yield from text_differences(before[name], after[name], f"{path}.{name}" if path else name)
    elif isinstance(before, list) and isinstance(after, list):
        for at, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from text_differences(old, new, f"{path}.{at}" if path else str(at))


def word_differences(before: str, after: str) -> tuple[Word, ...]:
    """How one text became another, word by word.

    Between the first and the last word that differ, texts with so little in common that it would take long to find
    are taken as replaced whole.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    shorter = min(len(old), len(new))
    start = end = 0
    while start < shorter and old[start] == new[start]:
        start += 1
    while end < shorter - start and old[-1 - end] == new[-1 - end]:
        end += 1
    old_end, new_end = len(old) - end, len(new) - end
    kept = [(start + old_at, start + new_at) for old_at, new_at in _kept(old[start:old_end], new[start:new_end])]
    runs = [("=", old[:start])]
    old_from = new_from = start
    for old_at, new_at in [*kept, (old_end, new_end)]:
        runs += [("-", old[old_from:old_at]), ("+", new[new_from:new_at]), ("=", old[old_at : old_at + 1])]
        old_from, new_from = old_at + 1, new_at + 1
    runs.append(("=", old[old_from:]))
    return tuple(
        Word(op, "".join(chain.from_iterable(words for _, words in alike)))
        for op, alike in groupby((run for run in runs if run[1]), key=itemgetter(0))
    )


def _kept(old: list[str], new: list[str]) -> list[tuple[int, int]]:
    """The places, in both, of the words of a longest common subsequence; none if it would take too long to find.

    Eugene Myers, "An O(ND) Difference Algorithm and Its Variations" (1986): for one edit more at a time, how far each
    diagonal reaches.
    """
    left = _MOST_STEPS + len(old) + len(new)
    reach, trail = {1: 0}, list[dict[int, int]]()
    for edits in range(len(old) + len(new) + 1):
        trail.append(dict(reach))
        for diagonal in range(-edits, edits + 1, 2):
            came = _came(reach, diagonal, edits)
            old_at = first = reach[came] + (came < diagonal)
            new_at = old_at - diagonal
            while old_at < len(old) and new_at < len(new) and old[old_at] == new[new_at]:
                old_at, new_at = old_at + 1, new_at + 1
            reach[diagonal] = old_at
            left -= 1 + old_at - first
            if old_at >= len(old) and new_at >= len(new):
                return _path(trail, old_at, new_at)
        if left < 0:
            break
    return []


def _path(trail: list[dict[int, int]], old_at: int, new_at: int) -> list[tuple[int, int]]:
    kept = []
    for edits in range(len(trail) - 1, -1, -1):
        came = _came(trail[edits], old_at - new_at, edits)
        old_from = trail[edits][came]
        new_from = old_from - came
        while old_at > old_from and new_at > new_from:
            old_at, new_at = old_at - 1, new_at - 1
            kept.append((old_at, new_at))
        old_at, new_at = old_from, new_from
    return kept[::-1]


def _came(reach: Mapping[int, int], diagonal: int, edits: int) -> int:
    """The diagonal from which one more edit leads furthest on this one."""
    if diagonal == -edits or (diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1]):
        return diagonal + 1
    return diagonal - 1
