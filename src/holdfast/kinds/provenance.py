"""Spans: which characters of a text stand where in its source, kept true through splitting, joining and editing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

import msgspec

_WORD = re.compile(r"\s*\S+|\s+")
_LEAST_WORDS = 3
_MOST_WORDS = 4_000


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Characters ``at`` and on of a text are characters ``start`` to ``end`` of the source."""

    start: int
    end: int
    at: int = 0

    @property
    def length(self) -> int:
        return self.end - self.start


def parted(spans: Iterable[Span], at: int) -> tuple[list[Span], list[Span]]:
    """The spans of the two texts that a cut before character ``at`` makes."""
    return cut(spans, 0, at), [shifted(span, -at) for span in cut(spans, at, None)]


def joined(parts: Sequence[tuple[str, Sequence[Span]]], separator: str) -> tuple[str, list[Span]]:
    """Texts put together with a separator, and the spans of the whole."""
    spans: list[Span] = []
    reached = 0
    for text, own in parts:
        spans += [shifted(span, reached) for span in own]
        reached += len(text) + len(separator)
    return separator.join(text for text, _ in parts), run_together(spans)


def kept(old: str, spans: Sequence[Span], new: str) -> list[Span]:
    """What is left of a text's spans once it was edited.

    The common beginning and end keep theirs. Between them, runs of three words or more that both texts have keep
    theirs; what else there is counts as typed in, for a word or two would as likely be chance.
    """
    if not spans:
        return []
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    runs = [(0, 0, head)]
    runs += [(head + i, head + j, n) for i, j, n in _shared(old[head : len(old) - tail], new[head : len(new) - tail])]
    runs += [(len(old) - tail, len(new) - tail, tail)]
    return run_together(
        shifted(span, there - here) for here, there, length in runs for span in cut(spans, here, here + length)
    )


def cut(spans: Iterable[Span], low: int, high: int | None) -> list[Span]:
    """The parts of spans that lie on characters ``low`` to ``high`` of the text (None: its end)."""
    parts = []
    for span in spans:
        first = max(span.at, low)
        last = span.at + span.length if high is None else min(span.at + span.length, high)
        if first < last:
            parts.append(Span(span.start + first - span.at, span.start + last - span.at, first))
    return parts


def shifted(span: Span, by: int) -> Span:
    return Span(span.start, span.end, span.at + by)


def run_together(spans: Iterable[Span]) -> list[Span]:
    """Neighbours that go on from one another, in the text and in the source, made one."""
    result: list[Span] = []
    for span in spans:
        last = result[-1] if result else None
        if last is not None and last.end == span.start and last.at + last.length == span.at:
            result[-1] = Span(last.start, span.end, last.at)
        else:
            result.append(span)
    return result


def _common(a: str, b: str) -> int:
    """Length of the common beginning, by halving: comparing slices is quicker than comparing characters."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _shared(old: str, new: str) -> list[tuple[int, int, int]]:
    """Runs of words both texts have: where in each, and how long, in characters."""
    old_words, new_words = _WORD.findall(old), _WORD.findall(new)
    if not old_words or not new_words or max(len(old_words), len(new_words)) > _MOST_WORDS:
        return []
    old_at, new_at = _places(old_words), _places(new_words)
    blocks = SequenceMatcher(None, old_words, new_words, autojunk=False).get_matching_blocks()
    return [(old_at[i], new_at[j], old_at[i + n] - old_at[i]) for i, j, n in blocks if n >= _LEAST_WORDS]


def _places(words: Sequence[str]) -> list[int]:
    places = [0]
    for word in words:
        places.append(places[-1] + len(word))
    return places
