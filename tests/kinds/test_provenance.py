"""Spans stay true: what a span says is always what stands in the source."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from holdfast.kinds.provenance import Span, joined, kept, parted, run_together

SOURCE = "".join(chr(0x4E00 + number) for number in range(400))
"""No character stands in it twice, so a wrong span shows."""

WORDS = [f"word{number}" for number in range(300)]


@st.composite
def cited(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """A text of parts from the source and parts typed in, with its spans in their simplest form."""
    text, spans = "", []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            start = draw(st.integers(0, len(SOURCE) - 1))
            end = draw(st.integers(start + 1, min(len(SOURCE), start + 30)))
            spans.append(Span(start, end, len(text)))
            text += SOURCE[start:end]
        else:
            text += draw(st.text(st.sampled_from("xyz \n"), max_size=9))
    return text, run_together(spans)


def true(text: str, spans: Sequence[Span], source: str = SOURCE) -> bool:
    """Whether each span's characters are those of the source, in order and without overlap."""
    reached = 0
    for span in spans:
        if (
            span.at < reached
            or not span.length
            or text[span.at : span.at + span.length] != source[span.start : span.end]
        ):
            return False
        reached = span.at + span.length
    return True


@given(cited(), st.data())
def test_a_split_keeps_both_halves_true_and_joining_them_gives_the_same_back(
    whole: tuple[str, list[Span]], data: st.DataObject
) -> None:
    text, spans = whole
    at = data.draw(st.integers(0, len(text)))
    left, right = parted(spans, at)
    assert true(text[:at], left)
    assert true(text[at:], right)
    assert joined([(text[:at], left), (text[at:], right)], "") == (text, spans)


@given(st.lists(cited(), min_size=1, max_size=4), st.text(st.sampled_from("- \n"), max_size=3))
def test_joining_keeps_every_span_true_and_loses_none(parts: list[tuple[str, list[Span]]], separator: str) -> None:
    text, spans = joined(parts, separator)
    assert text == separator.join(part for part, _ in parts)
    assert true(text, spans)
    assert sum(span.length for span in spans) == sum(span.length for _, own in parts for span in own)


@given(cited(), st.data())
def test_an_edit_keeps_true_spans_of_what_was_not_touched(whole: tuple[str, list[Span]], data: st.DataObject) -> None:
    text, spans = whole
    low = data.draw(st.integers(0, len(text)))
    high = data.draw(st.integers(low, len(text)))
    typed = data.draw(st.text(st.sampled_from("abc "), max_size=8))
    edited = text[:low] + typed + text[high:]
    after = kept(text, spans, edited)
    assert true(edited, after)
    untouched = sum(min(span.length, max(0, low - span.at)) for span in spans)
    untouched += sum(min(span.length, max(0, span.at + span.length - high)) for span in spans)
    assert sum(span.length for span in after) >= untouched


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=40, unique=True), st.data())
def test_several_edits_at_once_keep_true_spans(words: list[str], data: st.DataObject) -> None:
    source = " ".join(words)
    changed = [data.draw(st.sampled_from([word, word, word, "typed", ""])) for word in words]
    edited = " ".join(changed)
    assert true(edited, kept(source, [Span(0, len(source))], edited), source)


def test_runs_of_words_between_two_edits_keep_their_place_in_the_source() -> None:
    source = "one two three four five six seven eight nine ten"
    edited = "ONE two three four five six seven eight nine TEN"
    (span,) = kept(source, [Span(100, 100 + len(source))], edited)
    assert edited[span.at : span.at + span.length] == " two three four five six seven eight nine"
    assert span.start == 103


def test_a_rewritten_text_has_no_spans_left() -> None:
    assert kept("alpha beta gamma delta", [Span(0, 22)], "quite another thing, the beta of it") == []
    assert kept("", [], "typed") == []
    assert kept("abc", [], "abcd") == []


def test_very_long_texts_are_compared_at_their_ends_only() -> None:
    middle = " ".join(f"w{number}" for number in range(9_000))
    old = f"begin {middle} end"
    new = f"begin X {middle} Y end"
    spans = kept(old, [Span(0, len(old))], new)
    assert true(new, spans, old)
    assert sum(span.length for span in spans) >= len("begin  end")
