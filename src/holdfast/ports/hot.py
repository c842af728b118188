"""The hot tier: active sessions, their log, their leases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from holdfast.model.entry import SealedEntry
from holdfast.model.lease import Lease
from holdfast.model.revocation import Revocation
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
        """Apply one write whole, if the session still stands at ``write.expected``; durable on return.

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
        """The entry with a change id, None if there is none."""

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
    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        """Keep a revocation until it lapses, durable on return; those that have lapsed at ``now`` are forgotten.

        There is one for a tenant, token and principal. Where there is one already, the later ``before`` and the later
        ``until`` of the two stand: a revocation never becomes weaker.

        Returns:
            The revocation as it stands.
        Raises:
            StoreFullError: no room; nothing was changed.
            StoreUnavailableError: nobody knows whether it landed; send the same again.
        """

    @abstractmethod
    async def revoked(self, *, after: int, now: datetime) -> tuple[list[Revocation], int]:
        """The revocations that have not lapsed at ``now``, of every tenant, and a number to go on from.

        Args:
            after: such a number: then only those kept or changed since it was given; 0 for all. A read that starts
                after ``revoke`` returned sees that revocation.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release what is held; writes already sent are finished first."""
