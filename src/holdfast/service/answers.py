"""Answers as bytes, with the headers that belong to them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from starlette.responses import Response

from holdfast.engine.editing import Committed
from holdfast.model.session import Header, Session, Status
from holdfast.service.conditions import http_date, tag
from holdfast.wire import forms
from holdfast.wire.sessions import whole

JSON = "application/json"
DURABILITY = "holdfast-durability"
DISK = "disk"

_EXPIRING = frozenset({Status.DRAFT, Status.LOCKED})


class Wholes:
    """Whole sessions as bytes, built once a state and kept within a bound on bytes, the longest unused let go first."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._kept: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()

    def bytes_of(self, session: Session) -> bytes:
        """A session as JSON. Who may see it has been asked already."""
        header = session.header
        kept = self._kept.get(header.id)
        if kept is not None and kept[0] == header.digest:
            self._kept.move_to_end(header.id)
            return kept[1]
        data = whole(session)
        if kept is not None:
            self._held -= len(self._kept.pop(header.id)[1])
        if len(data) <= self._most:
            self._kept[header.id] = (header.digest, data)
            self._held += len(data)
        while self._held > self._most:
            self._held -= len(self._kept.popitem(last=False)[1][1])
        return data


def stated(header: Header) -> dict[str, str]:
    """The headers that tell the state of a session: its tag, and when it expires (RFC 8594)."""
    headers = {"etag": tag(header)}
    if header.expires is not None and header.status in _EXPIRING:
        headers["sunset"] = http_date(header.expires)
    return headers


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value in the form it is sent in."""
    return Response(forms.encode(value), status, headers=headers, media_type=JSON)


def sent(data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON that is bytes already."""
    return Response(data, status, headers=headers, media_type=JSON)


def unchanged(header: Header) -> Response:
    """304: the asker has this state already."""
    return Response(None, 304, headers=stated(header))


def empty(headers: dict[str, str] | None = None) -> Response:
    """204."""
    return Response(None, 204, headers={DURABILITY: DISK, **(headers or {})})


def moved(header: Header, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A session's header after a step of its life."""
    return answer(header, status, {**stated(header), DURABILITY: DISK, **(headers or {})})


def committed(made: Committed) -> Response:
    """What a commit came to."""
    return answer(made, 200, {"etag": tag(made), DURABILITY: made.durability})
