"""Server-sent events are read as the HTML standard says (9.2.6), however the bytes are cut into pieces (R18)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.events import Event, EventParser
from holdfast.errors import ServiceError


def read(*pieces: bytes) -> list[Event]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def data_of(*pieces: bytes) -> list[str]:
    return [event.data for event in read(*pieces)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_line_ends_in_any_of_three_ways(end: bytes) -> None:
    stream = end.join((b"event: edit", b"id: 7", b"data: one", b"data: two", b"", b"data: three", b"", b""))
    assert read(stream) == [Event("edit", "one\ntwo", "7"), Event("message", "three", "7")]


def test_a_return_and_a_line_feed_are_one_end_even_in_two_pieces() -> None:
    assert data_of(b"data: one\r", b"\ndata: two\r\n\r", b"\n") == ["one\ntwo"]
    assert data_of(b"data: one\r", b"", b"\n\r\n") == ["one"]
    assert data_of(b"data: one\r", b"\rdata: two\r\r") == ["one", "two"]


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (b"\xef\xbb\xbfdata: marked\n\n", ["marked"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: marked twice\n\n", []),
        (b"data: a\n\n\xef\xbb\xbfdata: not at the beginning\n\n", ["a"]),
        (b"\xef\xbb\xbf\n\ndata: after blank lines\n\n", ["after blank lines"]),
        (b": a comment\n\n:\n\ndata: a\n: in between\n\n", ["a"]),
        (b"data:no blank\n\n", ["no blank"]),
        (b"data:  two blanks\n\n", [" two blanks"]),
        (b"data:\ta tab\n\n", ["\ta tab"]),
        (b"data: a: colon\n\n", ["a: colon"]),
        (b"data\n\n", [""]),
        (b"data:\n\n", [""]),
        (b"data\ndata\n\n", ["\n"]),
        (b"data:\ndata: a\ndata:\n\n", ["\na\n"]),
        (b"event: edit\n\n", []),
        (b"id: 7\n\n", []),
        (b"Data: a\n\n data: b\n\ndata : c\n\nother: d\n\n", []),
        (b"data: never ended\n", []),
        (b"data: never ended", []),
        ("data: größer 🜁\n\n".encode(), ["größer 🜁"]),
        (b"data: \xff\xc3\n\n", ["��"]),
        (b"data: \x00\n\n", ["\0"]),
    ],
)
def test_a_stream_says(stream: bytes, told: list[str]) -> None:
    assert data_of(stream) == told


def test_a_name_counts_for_one_event() -> None:
    names = [event.name for event in read(b"event: edit\nevent: undo\ndata: a\n\ndata: b\n\nevent:\ndata: c\n\n")]
    assert names == ["undo", "message", "message"]
    dropped = read(b"event: edit\n\ndata: a\n\n")  # an event without data takes its name along
    assert [event.name for event in dropped] == ["message"]


def test_an_id_counts_until_the_next_one_and_only_once_its_event_is_whole() -> None:
    parser = EventParser()
    assert [event.id for event in parser.feed(b"data: a\n\nid: 1\ndata: b\n\ndata: c\n\nid\ndata: d\n\n")] == [
        "",
        "1",
        "1",
        "",
    ]
    parser.feed(b"id: 2\n\n")
    assert parser.id == "2"
    parser.feed(b"id: 3\ndata: cut off")
    assert parser.id == "2"


def test_an_id_with_a_zero_byte_is_no_id() -> None:
    assert [event.id for event in read(b"id: 1\nid: 2\x00\ndata: a\n\n")] == ["1"]


def test_the_time_to_wait_is_of_digits_alone() -> None:
    parser = EventParser()
    assert parser.retry is None
    for line in (b"retry: 1.5\n", b"retry: -3\n", b"retry:\n", b"retry: \xd9\xa3\n", b"retry: 1000 ms\n"):
        parser.feed(line)
        assert parser.retry is None
    parser.feed(b"retry: 1500\n")
    assert parser.retry == 1.5


def test_an_event_beyond_the_bound_is_refused_and_many_small_ones_are_not() -> None:
    parser = EventParser(most=100)
    for _ in range(50):
        assert len(parser.feed(b"data: 0123456789\n\n")) == 1
    for big in (b"data: " + b"x" * 100, b"data: 0123456789\n" * 10, b":" * 101):
        with pytest.raises(ServiceError, match="more than 100 bytes"):
            EventParser(most=100).feed(big)


LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b"data: a", b"data:", b"id: 7", b"id", b"event: edit", b":", b"retry: 5", b"id: \x00"]),
        st.text(max_size=12).map(lambda text: b"data: " + text.replace("\r", "").replace("\n", "").encode()),
        st.binary(max_size=8),
    ),
    max_size=12,
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.booleans(), LINES, st.lists(ENDS, min_size=12, max_size=12), st.data())
def test_any_pieces_give_the_same_events(
    marked: bool, lines: list[bytes], ends: list[bytes], data: st.DataObject
) -> None:
    stream = b"\xef\xbb\xbf" * marked + b"".join(line + end for line, end in zip(lines, ends, strict=False))
    whole = EventParser()
    told = whole.feed(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    for cut in (pieces, [bytes([byte]) for byte in stream]):
        parser = EventParser()
        assert [event for piece in cut for event in parser.feed(piece)] == told
        assert (parser.id, parser.retry) == (whole.id, whole.retry)
