"""A source document in, pieces of its text out, each with where it stands in the source and under which headings."""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import PurePosixPath

import msgspec
from markdown_it import MarkdownIt
from markdown_it.token import Token
from semantic_text_splitter import MarkdownSplitter, TextSplitter

from holdfast.errors import InvalidChangeError
from holdfast.model.limits import check_limit

MARKDOWN = frozenset({".md", ".markdown", ".mdown", ".mkd"})

_SIZES = ((200, 1000), (500, 1500), (1000, 2000))
"""Characters of a piece: it is full once within the range. Longer documents get longer pieces, so that the default
limit of 100 items leaves room to split."""
_COMFORTABLE = 80
_SHORT = 80
_WINDOW = 50_000
"""Characters that the splitter sees at a time: some 25 ms of work, whatever they are."""
_COUNTED = "items in a session"
_LONGEST_TITLE = 200
_LONGEST_HEADING = 2_000
"""Characters of a heading that are read: reading its markup takes time with the square of it."""
_NEWLINE = re.compile(r"\r\n?|\n")
_FRONT_MATTER = re.compile(r"---[ \t]*[\r\n]+(?=[\w\"'-]+[ \t]*:).*?[\r\n](?:---|\.\.\.)[ \t]*(?=[\r\n]|\Z)", re.DOTALL)


class Piece(msgspec.Struct, frozen=True):
    """A run of the source: ``text`` is its characters ``start`` to ``end``."""

    start: int
    text: str
    headings: tuple[str, ...]

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class Parsed(msgspec.Struct, frozen=True):
    """What was read: a title, the media type, the length in characters, and the pieces in order."""

    title: str
    media: str
    characters: int
    pieces: tuple[Piece, ...]


def parse(data: bytes, name: str, most: int = sys.maxsize) -> Parsed:
    """Read Markdown (by the ending of ``name``) or plain text, in UTF-8.

    Offsets count characters of ``data.decode("utf-8")``, a byte order mark included. Pieces do not overlap; white space
    around them is left out, everything else is kept as it is.

    Raises:
        InvalidChangeError: not UTF-8, not text, or nothing in it.
        LimitExceededError: it comes to more than ``most`` pieces; the rest of it is not looked at.
    """
    text = _decode(data, name)
    file_name = PurePosixPath(name.replace("\\", "/")).name or "untitled"
    skipped = 1 if text.startswith("\ufeff") else 0
    body = text[skipped:]
    if not body.strip():
        raise InvalidChangeError(f"{file_name} is empty: there is no text in it to work on")
    markdown = PurePosixPath(file_name.lower()).suffix in MARKDOWN
    ranges = _split(body, markdown, most)
    headings = _headings(body) if markdown else []
    starts = [start for start, _ in headings]
    pieces = []
    for low, high in ranges:
        place = bisect_right(starts, low)
        pieces.append(Piece(low + skipped, body[low:high], headings[place - 1][1] if place else ()))
    pieces = _glued(pieces, text)
    check_limit(_COUNTED, len(pieces), most)
    title = next((path[-1] for _, path in headings if path[-1]), file_name)
    media = "text/markdown" if markdown else "text/plain"
    return Parsed(title[:_LONGEST_TITLE], media, len(text), tuple(pieces))


def _decode(data: bytes, name: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidChangeError(f"{name} is UTF-16; save it as UTF-8 first")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidChangeError(
            f"{name} is not UTF-8 text (byte {error.start:,}); Markdown and plain text in UTF-8 can be ingested"
        ) from None
    if "\0" in text:
        raise InvalidChangeError(f"{name} has a NUL character (at {text.index(chr(0)):,}), so it is not a text")
    return text


def _split(text: str, markdown: bool, most: int) -> list[tuple[int, int]]:
    """Where the runs of text begin and end that pieces are made of; raises once they cannot be ``most`` pieces."""
    for size in _SIZES[:-1]:
        if len(text) <= size[1] * _COMFORTABLE:  # it could be few enough pieces
            ranges = list(islice(_runs(text, markdown, size), _COMFORTABLE + 1))
            if len(ranges) <= _COMFORTABLE:
                return ranges
    ranges = []
    whole = 0
    for low, high in _runs(text, markdown, _SIZES[-1]):
        ranges.append((low, high))
        whole += high - low >= _SHORT
        # What is glued together ends with the first run that is not short, and is at most _SHORT runs.
        check_limit(_COUNTED, max(whole, -(-len(ranges) // _SHORT)), most)
    return ranges


def _runs(text: str, markdown: bool, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Runs that fill ``size``, in order, white space between them left out.

    The splitter takes time with the square of a text, so it sees a window at a time. The last run of a window was cut
    by the window's end, so the next one begins with it again; in Markdown with the last heading, if one begins a run.
    """
    splitter = (MarkdownSplitter if markdown else TextSplitter)(size)
    low = 0
    while low < len(text):
        window = text[low : low + _WINDOW]
        runs = [(start, start + len(run)) for start, run in splitter.chunk_indices(window) if run.strip()]
        reached = len(window)
        if low + reached < len(text):
            again = [start for start, _ in runs if start >= _WINDOW // 2]  # so that each window gets on
            if again:
                titles = (start for start in reversed(again) if markdown and window[start] == "#")
                reached = next(titles, again[-1])
        for start, end in runs:
            if start < reached:
                yield low + start, low + end
        low += reached


def _glued(pieces: list[Piece], text: str) -> list[Piece]:
    """A piece too short to be found by itself, such as a lone heading, goes with the next of its section if it fits."""
    result: list[Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        if (
            last is not None
            and len(last.text) < _SHORT
            and piece.end - last.start <= _SIZES[-1][1]
            and piece.headings[: len(last.headings)] == last.headings
        ):
            result[-1] = Piece(last.start, text[last.start : piece.end], last.headings)
        else:
            result.append(piece)
    return result


def _headings(text: str) -> list[tuple[int, tuple[str, ...]]]:
    """Where each heading begins, in characters, and the path of headings down to it. Front matter holds none."""
    front = _FRONT_MATTER.match(text)
    blank = "" if front is None else "\n" * len(_NEWLINE.findall(front.group()))
    source = text if front is None else blank + text[front.end() :]
    lines = [0, *(match.end() for match in _NEWLINE.finditer(text))]
    reader = MarkdownIt("commonmark")
    reader.disable("inline")  # only the headings' own text is read closely, below
    closely = MarkdownIt("commonmark")
    path: list[tuple[int, str]] = []
    found = []
    for opening, content in pairwise(reader.parse(source)):
        if opening.type != "heading_open" or opening.level != 0 or opening.map is None:
            continue
        depth = int(opening.tag[1:])
        path = [
            *(above for above in path if above[0] < depth),
            (depth, _plain(closely, content.content[:_LONGEST_HEADING])),
        ]
        found.append((lines[opening.map[0]], tuple(title for _, title in path if title)))
    return [(start, titles) for start, titles in found if titles]


def _plain(reader: MarkdownIt, content: str) -> str:
    """The words of a heading without its markup."""
    return " ".join("".join(_words(token) for token in reader.parseInline(content)).split())


def _words(token: Token) -> str:
    if token.children is not None:
        return "".join(_words(child) for child in token.children)
    if token.type in ("softbreak", "hardbreak"):
        return " "
    return token.content if token.type in ("text", "code_inline") else ""
