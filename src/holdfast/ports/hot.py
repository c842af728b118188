"""The hot tier: active sessions, their log, their leases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from holdfast.model.entry import SealedEntry
from holdfast.model.lease import Lease
from holdfast.model.session import SealedHead, SealedItem, Write


class HotStore(Protocol):
    """Heads, compare-and-set writes, leases and the feed. A store keeps promises and decides nothing.

    A write whose caller is cancelled is awaited to its outcome before the cancellation goes on.
    """

    @abstractmethod
    async def head(self, session: str) -> SealedHead | None:
        """The header of a session, None if there is none. A read that starts after a write returned sees that write."""

    @abstractmethod
    async def load(self, session: str) -> tuple[SealedHead, list[SealedItem]] | None:
        """The header and every item of a session, from one moment; None if there is none."""

    @abstractmethod
    async def write(self, write: Write, *, now: datetime) -> bool:
        """Apply one write whole, if the session still stands at ``write.expected`` with the digest ``write.parent``;
        durable on return.

        An item whose ``sealed`` is None is removed. A live lease that the write carries is renewed by its own length.

        Args:
            write: with ``expected`` 0 it creates the session.
            now: aware UTC time, from the engine's clock.
        Returns:
            True if it landed. False if nothing was changed because the session stands elsewhere (for a creation: is
            there already), or because its change id is in the log: read again and decide anew.
        Raises:
            LeaseLostError: ``write.fence`` is not the last fence granted, or was released.
            LeaseHeldError: ``write.fence`` is None, the entry is a commit, and somebody's lease is live at ``now``.
            LimitExceededError: a creation beyond ``write.quota``, counted with the owner's sessions that are not gone.
            StoreFullError: no room; nothing was changed.
            FlushQueueFullError: of a ``TieredHotStore``: the warm tier is too far behind; nothing was changed.
            StoreUnavailableError: nobody knows whether it landed; send the same write again.
        """

    @abstractmethod
    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        """The log beyond step ``after``, in order; without what has been trimmed.

        Args:
            limit: how many entries at most.
            room: end with the entry that brings the payloads to so many bytes.
        """

    @abstractmethod
    async def recent(self, session: str, *, before: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        """The log below step ``before``, newest first; ``limit`` and ``room`` as of ``entries``."""

    @abstractmethod
    async def at(self, session: str, steps: Sequence[int]) -> dict[int, SealedEntry]:
        """The entries at some steps, by step; without those that are not there or have been trimmed."""

    @abstractmethod
    async def change(self, session: str, change: str) -> SealedEntry | None:
        """The entry with a change id, None if there is none or it has been trimmed."""

    @abstractmethod
    async def moved(self, since: int | None) -> tuple[int, set[str]]:
        """Which sessions' logs have grown since a mark, by whoever's hand, and the mark to ask from next.

        None of them is left out; one may be named that has not grown. Without a mark: none, and the mark of now.
        """

    @abstractmethod
    async def trim(self, session: str, *, below: int) -> None:
        """Forget the log below a step. Asked only for entries that are safe in the warm tier."""

    @abstractmethod
    async def acquire(
        self, session: str, holder: str, *, seconds: float, now: datetime, force: bool = False
    ) -> Lease | None:
        """Grant the lease with the next fence, durable on return.

        The holder of a live lease gets a new grant too. None if there is no such session.

        Args:
            force: take the lease from whoever holds it.
        Raises:
            LeaseHeldError: another holder's lease is live at ``now``.
        """

    @abstractmethod
    async def renew(self, lease: Lease, *, seconds: float, now: datetime) -> Lease:
        """Extend a lease; raise ``LeaseLostError`` if a newer fence has been granted or it was released."""

    @abstractmethod
    async def release(self, lease: Lease) -> None:
        """Give a lease back. One that is lost already is left as it is."""

    @abstractmethod
    async def lease(self, session: str, *, now: datetime) -> Lease | None:
        """The lease that is live, None if there is none."""

    @abstractmethod
    async def due(self, *, now: datetime, limit: int) -> list[str]:
        """Ids of sessions whose ``due`` is not after ``now``, the longest due first."""

    @abstractmethod
    async def defer(self, session: str, *, step: int, due: datetime | None) -> None:
        """Set when a session is next due, if it still stands at ``step``."""

    @abstractmethod
    async def rewrap(self, session: str, *, old: bytes, new: bytes | None) -> bool:
        """Replace the wrapped data key if it is still ``old``; None destroys it. Returns whether it was replaced."""

    @abstractmethod
    async def purge(self, session: str) -> None:
        """Remove every item, leave of every payload of the log its hash (``purged_payload``), destroy the data key
        and clear ``due``, all in one step; nobody is a member of it any more.

        The head and the headers of the entries stay. A session that is not there is no error.
        """

    @abstractmethod
    async def epoch(self, boot: str, offer: datetime) -> datetime:
        """The wall-clock time of a machine boot's first instant, as first offered for that boot; one answer for all.

        It lies no earlier than the offer and, for a boot not seen before, no earlier than any answer given before.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release what is held; writes already sent are finished first."""


class Queued(msgspec.Struct, frozen=True):
    """A session on its way to the warm tier: an entry of the flush queue.

    Attributes:
        ticket: the store's own name for it.
        step: the first of its entries that waits to be flushed.
        tries: how often it has been claimed, this time included.
        waited: seconds since that entry was written, by the store's clock.
    """

    ticket: str
    session: str
    step: int
    tries: int = 1
    waited: float = 0.0


class Buried(msgspec.Struct, frozen=True):
    """A dead letter: an entry that could not be flushed for a reason that waiting does not mend.

    ``reason`` is a stable code.
    """

    session: str
    step: int
    reason: str


class Backlog(msgspec.Struct, frozen=True):
    """How far the warm tier is behind: log entries not acknowledged, seconds the oldest has waited, dead letters."""

    entries: int
    waited: float
    buried: int


class HotSize(msgspec.Struct, frozen=True):
    """How much the hot tier holds: sessions, and bytes of memory or disk."""

    sessions: int
    bytes: int


class TieredHotStore(HotStore, Protocol):
    """A hot store apart from the warm one: what it takes to move sessions between the two.

    A session that is written to is put on the flush queue in the same atomic step, once, and stays there until all that
    was written to it is acknowledged. Nothing is ever dropped from the queue to make room: where more log entries wait
    than its bound, writes are refused.
    """

    @property
    @abstractmethod
    def generation(self) -> int:
        """A number that grows whenever the store may have come back as it was before: with each new connection to a
        server that is not known to be the same.
        """

    @abstractmethod
    async def whole(self) -> bool:
        """Whether nobody has emptied the store, or a server of it, since it was opened or this was last asked.

        Each process is told once, and ``generation`` grows with it. Ask when ``generation`` has grown, and now and
        then: a store may be emptied without a new connection. What it needs in order to be used is made anew.

        Raises:
            ConfigurationError: somebody else has begun it anew meanwhile, in a way that this process cannot use.
            StoreUnavailableError: it cannot be told; ask again.
        """

    @abstractmethod
    async def bind(self, warm: str) -> str:
        """Keep with the store which warm tier it is flushed to, by its ``identity``, unless that is kept already; the
        one that is kept.
        """

    @property
    @abstractmethod
    def durability(self) -> str:
        """What an acknowledged write survives: ``disk``, or ``hot`` where the store syncs later."""

    @abstractmethod
    async def claim(self, worker: str, *, limit: int, idle: float, everywhere: bool = True) -> list[Queued]:
        """Entries of the flush queue, of a session one at most, for one worker at a time; about the oldest first.

        They are those that nobody has claimed, and those that were claimed ``idle`` seconds ago or earlier and not
        acknowledged: whoever claimed them is taken for dead, be it this worker itself.

        Args:
            limit: about how many.
            idle: seconds, by the store's clock.
            everywhere: look at all there is; else only where this process has written since it last looked.
        """

    @abstractmethod
    async def acknowledge(self, flushed: Sequence[tuple[Queued, int]]) -> None:
        """Take entries off the queue, because the warm tier has each one's session up to a step. Any number of times.

        A session that has been written to beyond that step is put on the queue anew, in the same atomic step.
        """

    @abstractmethod
    async def bury(self, queued: Sequence[Queued], reason: str) -> None:
        """Take entries off the queue and put them among the dead letters, in one step each. The next write to such a
        session puts it on the queue again.
        """

    @abstractmethod
    async def buried(self, *, limit: int) -> list[Buried]:
        """Dead letters, in no order."""

    @abstractmethod
    async def exhume(self) -> int:
        """Put every dead letter back on the queue; how many."""

    @abstractmethod
    async def backlog(self) -> Backlog:
        """How long the queue is."""

    @abstractmethod
    async def evict(self, session: str, *, step: int, now: datetime, force: bool = False) -> bool:
        """Forget a session, if it still stands at ``step`` and no lease on it is live at ``now``.

        Asked only for a session that the warm tier holds whole. It goes on counting towards its owner's quota, unless
        it is gone, and no creation under its id lands any more. What of it still waits to be flushed counts as flushed,
        and its entry leaves the flush queue. The last fence that was granted is kept.

        Args:
            force: whatever lease is live; any state may then be installed in its place, also where it was not here.
        Returns:
            Whether it was there, and is not any more.
        """

    @abstractmethod
    async def known(self, session: str, change: str) -> int | None:
        """The step of a change id; 0 if the session has no such id, and None if the session is not here.

        An id outlives its entry when that is trimmed, and no write lands under it again.
        """

    @abstractmethod
    async def rested(self, session: str) -> int | None:
        """The step below which no state of a session is installed: it was evicted there. None if it was not, or if that
        is forgotten.
        """

    @abstractmethod
    async def install(
        self,
        head: SealedHead,
        items: Sequence[SealedItem],
        entries: Sequence[SealedEntry],
        *,
        fence: int,
        changes: Mapping[str, int],
    ) -> bool:
        """Put a session here as it stands in the warm tier, if it is not here; durable on return.

        It is not queued, and its ``due`` counts.

        Args:
            items: all of them.
            entries: the end of its log, up to ``head.step``, without a gap; what lies before counts as trimmed.
            changes: change ids of what counts as trimmed, with the step of each.
            fence: number that the next lease's is above; it is above every fence granted before the eviction too,
                whatever is named here.
        Returns:
            False if it is here already, or was evicted at a later step: nothing is changed.
        """

    @abstractmethod
    async def size(self) -> HotSize:
        """How much is held. An estimate will do; it costs little."""
