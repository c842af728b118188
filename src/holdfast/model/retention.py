"""How long a session is kept, when its people are warned, and when somebody should look at it next."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from holdfast.errors import InvalidChangeError

WARN_AT = (0.5, 0.8)
"""Shares of the time to live at which a warning is due."""

LAST_WARNING = 300.0
"""Seconds before the end at which the last warning is due."""

LONGEST = 1e10

SLACK = 0.1
"""Share of the time to live by which a look may come early; see ``next_look``."""


class Retention(msgspec.Struct, frozen=True):
    """How long a session is kept.

    Attributes:
        ttl: seconds to live; None is permanent.
        sliding: whether each write starts the time anew.
        maximum: seconds after creation beyond which no write and no extension goes; None for no bound.
    """

    ttl: float | None = 86_400.0
    sliding: bool = True
    maximum: float | None = None

    def until(self, created: datetime, start: datetime) -> datetime | None:
        """When a session created then expires, if its time starts at ``start``."""
        if self.ttl is None:
            return None
        end = start + timedelta(seconds=self.ttl)
        return end if self.maximum is None else min(end, created + timedelta(seconds=self.maximum))


def check_retention(retention: Retention) -> None:
    """Raise ``InvalidChangeError`` unless its times are above 0, below some 300 years, and in keeping."""
    for seconds in (retention.ttl, retention.maximum):
        if seconds is not None and not 0 < seconds <= LONGEST:
            raise InvalidChangeError(f"a session is kept for a number of seconds above 0, not {seconds}")
    if retention.maximum is not None and (retention.ttl is None or retention.ttl > retention.maximum):
        kept = "permanent" if retention.ttl is None else f"{retention.ttl:g} seconds"
        raise InvalidChangeError(f"a time to live ({kept}) cannot be beyond its maximum, {retention.maximum:g} seconds")


def within(retention: Retention, longest: float | None) -> Retention:
    """A retention that goes no further than ``longest`` seconds after creation (None: no bound).

    Raises:
        InvalidChangeError: its times make no sense, or it is to be kept for longer than that.
    """
    if longest is not None:
        maximum = longest if retention.maximum is None else min(retention.maximum, longest)
        retention = Retention(retention.ttl, retention.sliding, maximum)
    check_retention(retention)
    return retention


def warning_times(start: datetime, end: datetime) -> list[datetime]:
    """When warnings are due for a time to live from ``start`` to ``end``, in order: at 50 %, at 80 %, and five
    minutes before it ends (not for a time that is no longer than that). Those that coincide are one.
    """
    times = {start + (end - start) * share for share in WARN_AT}
    last = end - timedelta(seconds=LAST_WARNING)
    return sorted(times | {last} if last > start else times)


def first_warning(life: float) -> float:
    """Seconds from the start of a time to live to its first warning."""
    return min(life * WARN_AT[0], life - LAST_WARNING) if life > LAST_WARNING else life * WARN_AT[0]


def next_look(due: float, planned: float | None, slack: float) -> float:
    """When the sweeper should next look at a session with something due then; all in epoch seconds.

    A look already planned stands while it is early by no more than ``slack`` seconds: a sliding session would otherwise
    move its place in the index at every keystroke. A look that comes early finds nothing to do and plans the next.
    """
    return planned if planned is not None and due - slack <= planned <= due else due
