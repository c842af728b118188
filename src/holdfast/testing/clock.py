"""Time and chance under a test's control."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from random import Random

from holdfast.ports.clock import Chance, Clock

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class ManualClock(Clock):
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        """Let time pass; returns the new time.

        Raises:
            ValueError: less than no time, which a clock of the engine never shows; see ``jump``.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards; to break the rule on purpose, jump")
        return self.jump(seconds)

    def jump(self, seconds: float) -> datetime:
        """Set the clock ahead or back, as no clock of the engine may be: for tests of what stands above and below."""
        self._now += timedelta(seconds=seconds)
        return self._now


class MachineTime:
    """The two clocks of a machine, to be injected where one reads them: the wall clock and the one that only grows.

    ``wall`` can be set at will, as an administrator or a time server does; ``steady`` counts seconds since the machine
    booted, whatever the wall clock does.
    """

    def __init__(self, start: datetime = START, *, up: float = 1_000.0) -> None:
        self._wall, self._steady, self._frozen = start, up, False

    def wall(self) -> datetime:
        return self._wall

    def wall_seconds(self) -> float:
        return self._wall.timestamp()

    def steady(self) -> float:
        return self._steady

    def elapse(self, seconds: float) -> None:
        """Let time pass: both clocks go on, unless the wall clock is frozen."""
        self._steady += seconds
        if not self._frozen:
            self._wall += timedelta(seconds=seconds)

    def set_wall(self, seconds: float) -> None:
        """Move the wall clock ahead or (negative) back, while no time passes."""
        self._wall += timedelta(seconds=seconds)

    def freeze_wall(self, frozen: bool = True) -> None:
        """Stop the wall clock, or let it go on from where it stands."""
        self._frozen = frozen

    def boot(self) -> None:
        """Start the machine again: the steady clock begins anew."""
        self._steady = 0.0


class SeededChance(Chance):
    """Chance that comes out the same for the same seed: for tests alone, it can be guessed."""

    def __init__(self, seed: int | str) -> None:
        self._random = Random(seed)  # noqa: S311 - to come out the same is the point

    def token(self) -> str:
        return base64.urlsafe_b64encode(self._random.randbytes(18)).decode()

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)
