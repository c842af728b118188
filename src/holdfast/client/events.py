"""Server-sent events out of bytes, as they come (WHATWG HTML, 9.2.5 and 9.2.6): any pieces give the same events."""

from __future__ import annotations

import re
from typing import NamedTuple

from holdfast.errors import ServiceError

_END_OF_LINE = re.compile(rb"\r\n?|\n")
_MARK = b"\xef\xbb\xbf"
_MOST_BYTES = 64_000_000


class Event(NamedTuple):
    """One event. ``id`` is the last one given so far: where a reader who has seen this event stands."""

    name: str
    data: str
    id: str


class EventParser:
    """Takes a stream apart.

    Attributes:
        id: the last id that an event, or an empty one, has confirmed; "" for none.
        retry: seconds after which the other side wishes to be asked again; None if it has not said.
    """

    def __init__(self, most: int = _MOST_BYTES) -> None:
        self.id = ""
        self.retry: float | None = None
        self._most, self._size = most, 0
        self._line = bytearray()
        self._is_first, self._after_return = True, False
        self._name, self._next_id = "", ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[Event]:
        """The events that are whole with this piece. One that is not whole when the stream ends has not happened.

        Raises:
            ServiceError: an event is larger than the bound.
        """
        found: list[Event] = []
        start = 1 if self._after_return and piece.startswith(b"\n") else 0
        if piece:
            self._after_return = piece.endswith(b"\r")
        for end in _END_OF_LINE.finditer(piece, start):
            self._line += piece[start : end.start()]
            start = end.end()
            line, self._line = bytes(self._line), bytearray()
            self._count(len(line))
            if self._is_first:
                self._is_first, line = False, line.removeprefix(_MARK)
            if line:
                self._field(line.decode(errors="replace"))
            else:
                found += self._whole()
        self._line += piece[start:]
        self._count(0)
        return found

    def _count(self, more: int) -> None:
        self._size += more
        if self._size + len(self._line) > self._most:
            raise ServiceError(f"The service sent an event of more than {self._most:,} bytes.")

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")  # a comment has no name
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self._next_id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 16:
            self.retry = int(value) / 1000

    def _whole(self) -> list[Event]:
        self.id = self._next_id
        found = [Event(self._name or "message", "\n".join(self._data), self.id)] if self._data else []
        self._name, self._data, self._size = "", [], 0
        return found
