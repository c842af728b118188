"""Time and chance, as parameters of the engine: nothing below it reads a clock."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    @abstractmethod
    def now(self) -> datetime:
        """Aware UTC time that never runs backwards."""


class Chance(Protocol):
    @abstractmethod
    def token(self) -> str:
        """A new id: at least 128 random bits from a cryptographic source, URL-safe, with no meaning inside."""

    @abstractmethod
    def bytes(self, count: int) -> bytes:
        """Random bytes from a cryptographic source."""
