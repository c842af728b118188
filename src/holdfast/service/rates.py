"""How much one principal may ask of this process: requests a second, and feeds at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from holdfast.errors import RateLimitedError
from holdfast.model.access import Principal

MOST = 100_000
"""Principals whose buckets are kept at a time; those beyond them share one."""

_AT_ONCE = 8  # buckets forgotten for each new one, so that no request pays for thousands
_FEED_AGAIN = 5.0  # seconds; when a feed will end, nobody knows
_Key = tuple[str, str]
_EVERYBODY_ELSE: _Key = ("", "")  # no principal: its id would have a character or more


class Rates:
    """A token bucket for each principal.

    A bucket is kept as one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T
    I.371): it is full now if that time has come, and then it is as good as none and can be forgotten. No bucket that
    still owes is ever forgotten, or forgetting would fill it for nothing. One that is idle for ``burst / rate`` seconds
    is full, so what has to be kept is bounded by how many ask within that time; if there are more than ``MOST`` even
    so, those who come then share one bucket until the others are full.

    Args:
        rate: requests a second that come back to a bucket.
        burst: requests that a full bucket holds.
        streams: feeds that one principal may follow at a time.
        now: seconds on a clock that does not run backwards.
    """

    def __init__(self, rate: int, burst: int, streams: int, now: Callable[[], float], *, most: int = MOST) -> None:
        self._each, self._whole, self._streams, self._now, self._most = 1 / rate, burst / rate, streams, now, most
        self._full: OrderedDict[_Key, float] = OrderedDict()  # when each is full again; the longest unasked first
        self._open: dict[_Key, int] = {}

    def take(self, who: Principal) -> None:
        """Count one request.

        Raises:
            RateLimitedError: the bucket is empty; nothing was counted.
        """
        now, key, known = self._now(), (who.tenant, who.id), self._full
        full = known.get(key)
        if full is None:
            for _ in range(_AT_ONCE):
                if not known or next(iter(known.values())) > now:
                    break
                known.popitem(last=False)
            if len(known) >= self._most:
                key = _EVERYBODY_ELSE
                full = known.get(key)
        full = (now if full is None or full < now else full) + self._each
        if full - now > self._whole + 1e-9:
            raise RateLimitedError("requests", full - now - self._whole)
        known[key] = full
        known.move_to_end(key)

    def stream(self, who: Principal) -> AbstractContextManager[None]:
        """Counts one feed for as long as it is entered.

        Raises:
            RateLimitedError: on entering, if the principal follows as many as it may.
        """
        return _Stream(self._open, (who.tenant, who.id), self._streams)

    def __len__(self) -> int:
        """How many principals are remembered."""
        return len(self._full) + len(self._open)


class _Stream:
    """One feed of one principal. One that was entered and lost, its generator never begun, is counted off as well."""

    __slots__ = ("_entered", "_key", "_most", "_open")

    def __init__(self, open_: dict[_Key, int], key: _Key, most: int) -> None:
        self._open, self._key, self._most, self._entered = open_, key, most, False

    def __enter__(self) -> None:
        count = self._open.get(self._key, 0)
        if count >= self._most:
            raise RateLimitedError("feeds", _FEED_AGAIN)
        self._open[self._key] = count + 1
        self._entered = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._entered:
            self._entered = False
            left = self._open[self._key] - 1
            if left:
                self._open[self._key] = left
            else:
                del self._open[self._key]

    def __del__(self) -> None:
        self.__exit__(None, None, None)
