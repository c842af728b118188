"""The cold tier: immutable blobs, snapshots and published bundles."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Protocol


class ColdStore(Protocol):
    """Whole objects under keys such as ``blobs/ab/abcd…``; the engine names them by content hash and seals them.

    A key that could lead elsewhere (empty, absolute, with ``..``, an empty name or a hidden one in it) is refused with
    an ``InvalidError``.
    """

    @abstractmethod
    async def put(self, key: str, data: bytes) -> None:
        """Keep an object whole; durable on return, and never seen half-written. The same object again changes nothing.

        Raises:
            AlreadyExistsError: another object stands under the key; it is left as it is.
            StoreFullError: no room; nothing was changed.
            StoreUnavailableError: nobody knows whether it was kept; put it again.
        """

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """The object, None if there is none."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    @abstractmethod
    def keys(self, prefix: str) -> AsyncIterator[str]:
        """Keys under a prefix that ends in ``/``, in no order."""

    @abstractmethod
    async def close(self) -> None:
        """Release what is held."""
