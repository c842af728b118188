"""Cursors: what comes back is what was given out, and nothing else is taken for one."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.errors import InvalidCursorError
from holdfast.model.cursor import FeedCursor, PageCursor, read_feed_cursor, read_page_cursor, write_cursor

words = st.text(st.characters(exclude_categories=["Cs"]))


def text_of(value: object) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(value)).decode().rstrip("=")


@given(st.builds(PageCursor, st.floats(allow_nan=False), words))
def test_a_page_cursor_comes_back(cursor: PageCursor) -> None:
    text = write_cursor(cursor)
    assert read_page_cursor(text) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()
    with pytest.raises(InvalidCursorError):
        read_feed_cursor(text)


@given(st.builds(FeedCursor, st.integers(0, 2**63 - 1), st.binary(max_size=40)))
def test_a_feed_cursor_comes_back(cursor: FeedCursor) -> None:
    text = write_cursor(cursor)
    assert read_feed_cursor(text) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()
    with pytest.raises(InvalidCursorError):
        read_page_cursor(text)


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
@example("")
@example("=")
@example("ü")
@example("\ud800")
@example("a")
@example("!!!!")
@example(text_of(["page", 1.5]))
@example(text_of(["page", "late", "s"]))
@example(text_of(["page", 1.5, 7]))
@example(text_of(["page", None, "s"]))
@example(text_of(["feed", 1]))
@example(text_of(["feed", 1.5, b""]))
@example(text_of(["feed", -1, b""]))
@example(text_of(["feed", 2**63, b""]))  # no number that a store could be asked for
@example(text_of(["feed", 1, "text"]))
@example(text_of(["other", 1, b""]))
@example(text_of({"type": "page", "created": 1.5, "id": "s"}))
@example(base64.urlsafe_b64encode(msgspec.msgpack.encode(["page", 1.5, "s"])[:-1] + b"\xff").decode())
def test_garbage_is_refused(text: str) -> None:
    for read in (read_page_cursor, read_feed_cursor):
        with pytest.raises(InvalidCursorError, match="start again without it"):
            read(text)


@given(st.integers(0, 200))
def test_a_cursor_that_was_cut_short_is_refused(cut: int) -> None:
    text = write_cursor(FeedCursor(7, b"digest" * 20))
    with pytest.raises(InvalidCursorError):
        read_feed_cursor(text[: min(cut, len(text) - 2)])
