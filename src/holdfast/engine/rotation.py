"""A new key-encryption key for everything, while work goes on."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast.engine.audit import Audit
from holdfast.engine.catalogue import Catalogue
from holdfast.engine.journal import Journal, rewrap
from holdfast.engine.sealing import KeyRing
from holdfast.engine.tiering import Tiering
from holdfast.errors import HoldfastError
from holdfast.model.session import SealedHead
from holdfast.ports.warm import Query


class KeyIds(msgspec.Struct, frozen=True):
    """The ids of the key-encryption keys in the ring: which wraps, and all that unwrap."""

    active: str
    ids: tuple[str, ...]


class Rotated(msgspec.Struct, frozen=True):
    """The new key's id, how many data keys it wraps now, and what could not be unwrapped and is as it was.

    ``dropped`` are the older keys that were forgotten.
    """

    key_id: str
    sessions: int
    failed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class Rotation:
    """Wraps data keys anew.

    What they seal is not touched, so it costs the same for a large session as for a small one.
    """

    def __init__(self, journal: Journal, tiering: Tiering, ring: KeyRing, catalogue: Catalogue, audit: Audit) -> None:
        self._journal, self._tiering, self._ring = journal, tiering, ring
        self._catalogue, self._audit = catalogue, audit

    def ids(self) -> KeyIds:
        """Which key-encryption keys there are."""
        return KeyIds(self._ring.active, tuple(sorted(self._ring.ids)))

    async def rotate(self, progress: Callable[[int], None], *, drop: bool) -> Rotated:
        """Make a key, wrap every data key under it, and forget the older ones if asked and nothing needs them.

        A session made meanwhile is in the catalogue gone through here, or else its maker finds, before
        acknowledging it, that the keys have been rotated, and wraps its data key anew (``Journal.append``).
        """
        key_id, count, failed = self._ring.rotate(), 0, list[str]()
        await self._tiering.flush()  # the catalogue is the warm tier's
        async for head in self._catalogue.all(Query()):
            try:
                count += await self._rewrap(head)
            except HoldfastError:
                failed.append(head.id)
            progress(count)
        failed += await self._audit.rewrap()
        dropped: tuple[str, ...] = ()
        self._ring.reload()
        # If another rotation has begun since, the older keys are its to drop.
        if drop and not failed and self._ring.writable and self._ring.active == key_id:
            dropped = tuple(older for older in self._ring.ids if older != key_id)
            for older in dropped:
                self._ring.drop(older)
        return Rotated(key_id, count, tuple(failed), dropped)

    async def _rewrap(self, head: SealedHead) -> int:
        """Wrap one session's data key under the active key, wherever it is kept; 1 if that was needed."""
        needed = False
        if self._tiering.tiered:  # first the one that sessions come up from, so that none brings an old key with it
            needed = await rewrap(self._journal.warm, self._ring, head)
        hot = await self._journal.hot.head(head.id)
        return int((hot is not None and await rewrap(self._journal.hot, self._ring, hot)) or needed)
