"""Opaque cursors, for pages and for the feed."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, TypeVar

import msgspec

from holdfast.errors import InvalidCursorError

T = TypeVar("T")


class PageCursor(msgspec.Struct, frozen=True, array_like=True, tag="page"):
    """Where a listing stands: the creation time and id of the last session given."""

    created: float
    id: str


class FeedCursor(msgspec.Struct, frozen=True, array_like=True, tag="feed"):
    """Where a reader of a session's feed stands. The digest tells a history that was replaced from one that went on."""

    step: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    digest: bytes


class Seen(msgspec.Struct, frozen=True):
    """The state an author saw: a version, and the step and the beginning of the digest that tell this history from
    another that has the same numbers.
    """

    version: int
    step: int
    digest: bytes


def write_cursor(cursor: PageCursor | FeedCursor) -> str:
    """A cursor as URL-safe text."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode().rstrip("=")


def read_page_cursor(text: str) -> PageCursor:
    """The listing cursor behind a text, or ``InvalidCursorError``."""
    return _read(text, PageCursor)


def read_feed_cursor(text: str) -> FeedCursor:
    """The feed cursor behind a text, or ``InvalidCursorError``."""
    return _read(text, FeedCursor)


def _read(text: str, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (binascii.Error, msgspec.MsgspecError, ValueError, UnicodeEncodeError):
        raise InvalidCursorError from None
