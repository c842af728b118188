"""The warm tier: the catalogue of sessions, the whole log, the audit log."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from holdfast.model.cursor import PageCursor
from holdfast.model.entry import SealedEntry
from holdfast.model.revocation import Revocation
from holdfast.model.session import SealedHead, SealedItem


class Query(msgspec.Struct, frozen=True):
    """Which sessions; None asks nothing. ``member`` asks for those that a principal owns or is a member of."""

    tenant: str | None = None
    owner: str | None = None
    kind: str | None = None
    status: str | None = None
    member: str | None = None


class AuditRow(msgspec.Struct, frozen=True, gc=False):
    """A line of an audit chain as stored.

    Attributes:
        chain: id of the chain, one a tenant; ``seq`` counts its lines from 1.
        tenant, session: what the line is about, to find it by; ``session`` is empty for a verb on the whole service.
        line: the encoded ``AuditLine``.
        mac: keyed hash over the mac before and the line.
    """

    chain: str
    seq: int
    tenant: str
    session: str
    line: bytes
    mac: bytes


class ChainEnd(msgspec.Struct, frozen=True):
    """The number and mac of a chain's last line, and the keyed hash that vouches for both."""

    seq: int
    mac: bytes
    end: bytes


class Snapshot(msgspec.Struct, frozen=True):
    """Every item of a session as it stood at a step."""

    step: int
    items: tuple[SealedItem, ...]


class WarmSize(msgspec.Struct, frozen=True):
    """How much the warm tier holds: sessions, how many of them are archived, and bytes on disk."""

    sessions: int
    archived: int
    bytes: int


class WarmStore(Protocol):
    """Insert-only entries keyed ``session:step``, opaque payloads, no transaction over more than one session."""

    @abstractmethod
    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        """Keep entries and the head they lead to; durable on return.

        Entries that are there already change nothing, in any order and any number of times; an older head than the one
        kept changes nothing, and so do the members it comes with. The data key of a session that is there stays as it
        is, however new the head: ``rewrap`` and ``purge`` alone change it. Of what is appended to a purged session only
        the hashes of the payloads are kept, and no members.

        Args:
            members: who beside the owner may know of the session from this head on; None: who was before.

        Raises:
            AlreadyExistsError: another entry stands at one of the steps or under one of the change ids, or the head
                kept at the same step has another digest; nothing of the call is kept.
            StoreFullError, StoreUnavailableError: as for ``HotStore.write``.
        """

    @abstractmethod
    async def head(self, session: str) -> SealedHead | None:
        """The newest head kept for a session, None if there is none."""

    @abstractmethod
    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        """The log beyond step ``after``, in order.

        Args:
            limit: how many entries at most.
            room: end with the entry that brings the payloads to so many bytes.
        """

    @abstractmethod
    async def at(self, session: str, steps: Sequence[int]) -> dict[int, SealedEntry]:
        """The entries at some steps, by step; without those that are not there."""

    @abstractmethod
    async def change(self, session: str, change: str) -> SealedEntry | None:
        """The entry with a change id, None if there is none. It costs no more the longer the log is."""

    @abstractmethod
    async def changes(self, session: str, *, below: int) -> dict[str, int]:
        """The change ids of the log below a step, with the step of each. No payload is read for it."""

    @abstractmethod
    async def find(self, query: Query, *, after: PageCursor | None, limit: int) -> list[SealedHead]:
        """Sessions that match, newest first by creation, ``limit`` at most, beyond a cursor.

        It costs no more the more sessions there are that do not match.
        """

    @abstractmethod
    async def counts(self) -> dict[tuple[str, str], int]:
        """How many sessions are kept as draft or locked, of every tenant, by status and kind; none that is zero.

        It costs no more the more sessions are published or gone.
        """

    @abstractmethod
    async def rewrap(self, session: str, *, old: bytes, new: bytes | None) -> bool:
        """Replace the wrapped data key if it is still ``old``; None destroys it. Returns whether it was replaced."""

    @abstractmethod
    async def purge(self, session: str) -> None:
        """Leave of every payload of the log its hash (``purged_payload``), forget the members, destroy the data key and
        clear ``due``, all in one step.

        The head and the headers of the entries stay; the snapshot and every item go. A session that is not there is no
        error.
        """

    @abstractmethod
    async def due(self, *, now: datetime, limit: int) -> list[str]:
        """Ids of sessions whose ``due`` is not after ``now``, the longest due first."""

    @abstractmethod
    async def defer(self, session: str, *, step: int, due: datetime | None) -> None:
        """Set when a session is next due, if it still stands at ``step``."""

    @abstractmethod
    async def snapshot(self, session: str, snapshot: Snapshot) -> None:
        """Keep the items of a session in place of an older snapshot; durable on return.

        One that is older than the one kept changes nothing, nor does one of a session that is purged, a stub, or not
        there.
        """

    @abstractmethod
    async def items(self, session: str) -> Snapshot | None:
        """The newest snapshot, None if there is none."""

    @abstractmethod
    async def archive(self, session: str, *, step: int, key: str) -> bool:
        """Make a stub of a session that stands at ``step``: forget its log and its items, and keep with its head where
        they are. One step, durable on return.

        Args:
            key: of the object in the cold tier that holds them.
        Returns:
            False if it stands elsewhere, is purged, is archived under another key, or is not there; nothing was
            changed. The same again answers True.
        """

    @abstractmethod
    async def restore(self, session: str, entries: Sequence[SealedEntry], snapshot: Snapshot, *, key: str) -> None:
        """Take back what a stub was made of, and forget where it was; in one step, durable on return.

        Entries that are there already change nothing. What was purged meanwhile is not taken back, nor is anything of a
        session that is no stub, or is one of another object by now.

        Args:
            key: of the object that they were read from.
        Raises:
            AlreadyExistsError: another entry has come to the stub; nothing was changed.
        """

    @abstractmethod
    async def identity(self) -> str:
        """A name of what is kept here: the same for all who open it, for as long as it is there, and nobody else's."""

    @abstractmethod
    async def size(self) -> WarmSize:
        """How much is held. An estimate will do; it costs little."""

    @abstractmethod
    async def record(self, rows: Sequence[AuditRow], *, end: bytes) -> bool:
        """Append lines to one audit chain, if they follow its last; durable on return.

        Args:
            rows: at least one, numbered without a gap.
            end: what vouches for the chain's new end; kept with it.
        Returns:
            False if the chain ends elsewhere, and nothing was appended: read its end and chain anew.
        """

    @abstractmethod
    async def audit(
        self,
        *,
        tenant: str | None = None,
        session: str | None = None,
        chain: str | None = None,
        after: tuple[str, int] | None = None,
        limit: int = 1000,
    ) -> list[AuditRow]:
        """Audit lines by chain and number, beyond ``after``; each of the filters may be None."""

    @abstractmethod
    async def chains(self) -> dict[str, ChainEnd]:
        """Where every audit chain ends, kept apart from the lines so that a truncation shows."""

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
