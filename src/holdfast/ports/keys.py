"""Where key-encryption keys are kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

import msgspec


class Keys(msgspec.Struct, frozen=True):
    """Key-encryption keys of 32 bytes by id; ``active`` wraps, the others only unwrap."""

    active: str
    keys: Mapping[str, bytes]


class KeySource(Protocol):
    """A file, the environment, or a key service."""

    writable: bool
    """Whether ``write`` can replace the keys; where it cannot, new keys are brought in from outside."""

    @abstractmethod
    def read(self) -> Keys:
        """The keys as they stand now; raises ``ConfigurationError`` or ``WeakKeyError``."""

    @abstractmethod
    def write(self, keys: Keys) -> None:
        """Replace the keys, atomically and durably; raises ``ConfigurationError`` where the source is read-only."""
