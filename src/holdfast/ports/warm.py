"""The warm tier: the catalogue of sessions, the whole log, the audit log."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import msgspec

from holdfast.model.cursor import PageCursor
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead


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
            AlreadyExistsError: another entry stands at one of the steps; nothing of the call is kept.
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

        The head and the headers of the entries stay. A session that is not there is no error.
        """

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
    async def close(self) -> None:
        """Release what is held; writes already sent are finished first."""
