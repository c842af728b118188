"""An item: one entry of a session, with its name, its place and its body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.errors import HoldfastError, InvalidItemError, LimitExceededError

_KEY = re.compile(r"[a-z][a-z0-9_-]{0,63}/[^/\x00-\x1f\x7f\ud800-\udfff]{1,200}")
_encode = msgspec.json.Encoder().encode
_INTEGERS = 2**63


class Item(msgspec.Struct, frozen=True, gc=False):
    """One entry of a session.

    Attributes:
        key: ``collection/name``.
        position: its place in the session, a fractional order key (see ``order``).
        raw: the body as UTF-8 JSON, the bytes that are stored and sent.
        version: the version that last changed the item in any way.
        written: the step of the log at which the body was last written.
    """

    key: str
    position: str
    raw: bytes
    version: int
    written: int

    @property
    def body(self) -> Any:
        """The body, decoded anew at each call, so that no two readers share it."""
        return msgspec.json.decode(self.raw)

    @property
    def collection(self) -> str:
        return self.key.partition("/")[0]


Items = Mapping[str, Item]


def check_key(key: str) -> None:
    """Raise unless ``key`` is ``collection/name``: a lower-case word, a slash, 1 to 200 printable characters."""
    if not isinstance(key, str) or _KEY.fullmatch(key) is None:
        raise InvalidItemError(
            str(key)[:300], "a key is collection/name: a lower-case word, a slash, up to 200 printable characters"
        )


def encode_body(key: str, body: Any, *, depth: int, size: int) -> bytes:
    """A body as the JSON bytes that are stored.

    Raises:
        InvalidItemError: it is not plain JSON (a NaN, a lone surrogate, a key that is not text, another type).
        LimitExceededError: deeper than ``depth`` levels or longer than ``size`` bytes.
    """
    try:
        _check_plain(key, body, depth, depth, [size, size])
        raw = _encode(body)
    except HoldfastError:
        raise
    except (TypeError, ValueError, UnicodeEncodeError, RecursionError, OverflowError) as error:
        raise InvalidItemError(key, f"the body is not JSON: {error}") from None
    if len(raw) > size:
        raise LimitExceededError("item bytes", len(raw), size)
    return raw


def _check_plain(key: str, value: Any, left: int, depth: int, room: list[int]) -> None:
    """Raise unless a value is plain JSON.

    ``room`` is the bytes that are left, and all there were: each value takes one at least. So a small value that holds
    itself many times over, and would be vast once written out, is refused before it is.
    """
    kind = type(value)
    if kind is str:
        room[0] -= len(value)
        if room[0] < 0:
            raise LimitExceededError("item bytes", room[1] - room[0], room[1])
        return
    if kind is bool or value is None:
        return
    if kind is int:
        if not -_INTEGERS <= value < 2 * _INTEGERS:
            raise InvalidItemError(key, "an integer beyond 64 bits is not kept by every reader of JSON")
        return
    if kind is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidItemError(key, "NaN and infinity are not JSON")
        return
    if left == 0 and kind in (dict, list, tuple):
        raise LimitExceededError("JSON depth", depth + 1, depth)
    if kind is dict or kind is list or kind is tuple:
        room[0] -= len(value)
        if room[0] < 0:
            raise LimitExceededError("item bytes", room[1] - room[0], room[1])
    if kind is dict:
        for name, inner in value.items():
            if type(name) is not str:
                raise InvalidItemError(key, f"an object key must be text, not {type(name).__name__}")
            _check_plain(key, inner, left - 1, depth, room)
    elif kind is list or kind is tuple:
        for inner in value:
            _check_plain(key, inner, left - 1, depth, room)
    else:
        raise InvalidItemError(key, f"{kind.__name__} is not JSON")
