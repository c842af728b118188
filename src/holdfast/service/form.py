"""An upload: a form with one file and a few words, read into memory and nowhere else (S16).

What a session holds is sealed before it reaches a disk. Starlette's own reading of forms puts a file of more than a
megabyte into a temporary one, in clear, and holds what it reads of it twice more.
"""

from __future__ import annotations

from collections.abc import Collection
from io import BytesIO

import msgspec
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from holdfast.errors import InvalidRequestError, RequestTooLargeError

MEDIA_TYPE = "multipart/form-data"
FILE = "file"
"""The field that is the document."""
MOST_WORD = 262_144
"""Bytes of any other field."""
_MOST_HEADER = 4_096  # bytes of the name of a part's header, and as many of what it says


class Form(msgspec.Struct, frozen=True):
    """What was uploaded.

    Attributes:
        file: the document; ``name`` is what its sender calls it, empty where he does not say.
        words: the other fields, those that were sent.
    """

    file: bytes
    name: str
    words: dict[str, str]


async def read(request: Request, words: Collection[str], most: int) -> Form:
    """The form of a request whose media type is known to be ``MEDIA_TYPE``.

    Args:
        words: the fields there may be beside the file.
        most: bytes of the file.
    Raises:
        RequestTooLargeError: the file, or a word, is longer; the rest of it is not read.
        InvalidRequestError: no such form, a field that is not known or there twice, or no file.
    """
    _, parameters = parse_options_header(request.headers["content-type"])
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise InvalidRequestError("the boundary is missing", "Content-Type")
    parts = _Parts(words, most)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_name,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headed,
                "on_part_data": parts.data,
                "on_part_end": parts.end,
                "on_end": parts.close,
            },
        )
        async for piece in request.stream():
            parser.write(piece)
    except FormParserError:  # not its words: they quote what stood there
        raise InvalidRequestError("the form cannot be read (RFC 7578)", "body") from None
    if not parts.closed:
        raise InvalidRequestError("the form ends too early", "body")
    if parts.file is None:
        raise InvalidRequestError(f"a file is wanted in the field {FILE!r}", "body")
    return Form(parts.file.getvalue(), parts.name, parts.words)  # which hands over what it holds, and copies nothing


class _Parts:
    """The parts of a form as they come in; called by the parser."""

    def __init__(self, known: Collection[str], most: int) -> None:
        self._known, self._most = known, most
        self._header, self._value, self._disposition = b"", b"", b""
        self._field, self._text = "", bytearray()
        self.words: dict[str, str] = {}
        self.file: BytesIO | None = None
        self.name, self.closed = "", False

    def begin(self) -> None:
        self._disposition = b""

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = _longer(self._header, data, start, end)

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = _longer(self._value, data, start, end)

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def headed(self) -> None:
        """All headers of a part are there: what it is, and whether it may be."""
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise InvalidRequestError("a part does not say which field it is", "body")
        self._field = field = _decoded(options[b"name"], "the name of a field")
        if field == FILE:
            if b"filename" not in options:
                if b"filename*" in self._disposition.lower():
                    said = "'filename*' is forbidden in a form (RFC 7578, 4.2): send 'filename', in UTF-8"
                    raise InvalidRequestError(said, "body")
                raise InvalidRequestError(f"a file is wanted in the field {FILE!r}", "body")
            if self.file is not None:
                raise _twice()
            self.name = _decoded(options[b"filename"], "the name of the file")
            self.file = BytesIO()
            return
        if field not in self._known:
            raise InvalidRequestError(f"there is no field {field[:100]!r}", "body")
        if b"filename" in options:
            raise InvalidRequestError(f"the field {field!r} is text", "body")
        if field in self.words:
            raise _twice()
        self._text = bytearray()

    def data(self, data: bytes, start: int, end: int) -> None:
        more = end - start
        if self._field == FILE and self.file is not None:
            if self.file.tell() + more > self._most:
                raise RequestTooLargeError("document", self._most)
            self.file.write(memoryview(data)[start:end])
        else:
            if len(self._text) + more > MOST_WORD:
                raise RequestTooLargeError(f"field {self._field}", MOST_WORD)
            self._text += memoryview(data)[start:end]

    def end(self) -> None:
        if self._field != FILE:
            self.words[self._field] = _decoded(bytes(self._text), f"the field {self._field!r}")

    def close(self) -> None:
        self.closed = True


def _longer(held: bytes, data: bytes, start: int, end: int) -> bytes:
    """More of a header. Not every release of the parser bounds what stands in front of a part."""
    if len(held) + end - start > _MOST_HEADER:
        raise InvalidRequestError("the header of a part is too long, so the form cannot be read", "body")
    return held + data[start:end]


def _decoded(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{what} is not UTF-8", "body") from None


def _twice() -> InvalidRequestError:
    return InvalidRequestError("a field is there twice", "body")
