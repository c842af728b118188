"""A document in pieces: in time that grows with its length and no faster, and no further than there is room for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_text_splitter import TextSplitter

from holdfast.errors import LimitExceededError
from holdfast.kinds import parsing
from holdfast.kinds.parsing import Piece, parse

LARGE = 9_000_000
ROOM = 100
PROSE = "\n\n".join(
    " ".join(f"Sentence {number} of paragraph {paragraph} says a little more." for number in range(paragraph % 17 + 1))
    for paragraph in range(400)
)

fragments = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30),
    st.sampled_from(
        [
            "word ",
            "x",
            "\n\n",
            "\r\n",
            " ",
            "# Title\n\n",
            "## Part\n",
            "```\n",
            "- a\n",
            "> ",
            "e\u0301\u0301",
            "\U0001f469\u200d\U0001f680",
        ]
    ),
)
long_texts = st.lists(st.tuples(fragments, st.integers(1, 30_000)), min_size=1, max_size=6).map(
    lambda runs: "".join(fragment * (1 + times // len(fragment)) for fragment, times in runs)
)
names = st.sampled_from(["a.md", "a.txt"])


class Watched:
    """The splitter, with the length of every text that it was given."""

    seen: list[int]

    def __init__(self, size: tuple[int, int]) -> None:
        self._splitter = TextSplitter(size)

    def chunk_indices(self, text: str) -> list[tuple[int, str]]:
        self.seen.append(len(text))
        return self._splitter.chunk_indices(text)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters the splitter was given, each time."""
    Watched.seen = []
    monkeypatch.setattr(parsing, "TextSplitter", Watched)
    return Watched.seen


@pytest.mark.parametrize("unit", ["x", "word ", "A sentence of some words. ", "line\n", "\u0301"])
def test_f19_a_large_text_without_room_is_refused_after_a_few_windows(seen: list[int], unit: str) -> None:
    with pytest.raises(LimitExceededError, match=r"limits\.items") as refused:
        parse((unit * (LARGE // len(unit))).encode(), "a.txt", ROOM)
    assert (refused.value.limit, refused.value.figure, refused.value.maximum) == (
        "items in a session",
        ROOM + 1,
        ROOM,
    )
    assert max(seen) <= 50_000
    assert len(seen) <= 6  # 101 pieces of at most 2,000 characters, and a window that was begun


@pytest.mark.parametrize("unit", ["x", "word ", "A sentence of some words. ", "line\n"])
def test_f19_a_large_text_with_room_is_split_in_windows_that_each_get_on(seen: list[int], unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    assert_covers(text, parse(text.encode(), "a.txt").pieces)
    assert max(seen) <= 50_000
    assert len(seen) <= 1 + len(text) // 25_000


def test_f19_text_lost_in_white_space_does_not_hold_the_windows_up(seen: list[int]) -> None:
    text = ("a" + " " * 10 + "b" + "\n" * 49_985 + "c") * 20
    assert_covers(text, parse(text.encode(), "a.txt").pieces)
    assert len(seen) <= 1 + len(text) // 25_000


@settings(max_examples=60, deadline=None)
@given(long_texts, names)
def test_nothing_of_a_long_text_is_lost_or_doubled(text: str, name: str) -> None:
    if text.removeprefix("\ufeff").strip():
        assert_covers(text, parse(text.encode(), name).pieces)


@settings(max_examples=40, deadline=None)
@given(long_texts, names)
def test_a_text_is_refused_if_and_only_if_its_pieces_are_too_many(text: str, name: str) -> None:
    if not text.removeprefix("\ufeff").strip():
        return
    data = text.encode()
    whole = parse(data, name)
    assert parse(data, name, len(whole.pieces)) == whole
    with pytest.raises(LimitExceededError):
        parse(data, name, len(whole.pieces) - 1)


def test_windows_leave_no_trace_in_prose() -> None:
    assert len(PROSE) > 150_000
    size = parsing._SIZES[-1]
    whole = [(start, start + len(run)) for start, run in TextSplitter(size).chunk_indices(PROSE)]
    assert list(parsing._runs(PROSE, False, size)) == whole


def test_a_window_of_markdown_begins_with_a_heading_where_there_is_one() -> None:
    fenced = "```python\n" + "print('# no heading')\n" * 60 + "```\n\n"
    text = "".join(f"# Part {number}\n\nIt says this.\n\n{fenced}" for number in range(100))
    pieces = parse(text.encode(), "a.md").pieces
    assert_covers(text, pieces)
    assert [piece.headings for piece in pieces] == [(f"Part {number}",) for number in range(100)]
    assert all(piece.text.startswith("# Part") for piece in pieces)


def test_f19_a_heading_without_end_is_read_so_far() -> None:
    data = ("[a*_" * 20_000 + "\n===\n\ntext\n").encode()
    assert all(len(heading) <= 2_000 for piece in parse(data, "a.md").pieces for heading in piece.headings)


def assert_covers(text: str, pieces: tuple[Piece, ...]) -> None:
    """The pieces are the text in order, apart from white space between them, and none is longer than allowed."""
    assert all(text[piece.start : piece.end] == piece.text for piece in pieces)
    assert all(before.end <= after.start for before, after in pairwise(pieces))
    between = [
        text[low:high]
        for low, high in zip(
            [0, *(piece.end for piece in pieces)], [*(piece.start for piece in pieces), len(text)], strict=True
        )
    ]
    assert "".join(between).replace("\ufeff", "").strip() == ""
    assert max(len(piece.text) for piece in pieces) <= 2_000
