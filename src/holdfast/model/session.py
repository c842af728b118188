"""A session: its header, its items, and the lifecycle as one table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec

from holdfast.model.access import Role
from holdfast.model.entry import SealedEntry
from holdfast.model.item import Item
from holdfast.model.retention import SLACK, Retention, first_warning, next_look, warning_times


class Status(StrEnum):
    """What became of the work. Where it lives is its ``Tier``, another axis."""

    DRAFT = "draft"
    LOCKED = "locked"
    PUBLISHED = "published"
    DISCARDED = "discarded"
    EXPIRED = "expired"


class Tier(StrEnum):
    """Where the session lives."""

    ACTIVE = "active"
    DORMANT = "dormant"
    ARCHIVED = "archived"


GONE = frozenset({Status.DISCARDED, Status.EXPIRED})
_EXPIRING = frozenset({Status.DRAFT, Status.LOCKED})

LIFECYCLE: Mapping[str, Mapping[Status, Status]] = {
    "edit": {Status.DRAFT: Status.DRAFT},
    "lock": {Status.DRAFT: Status.LOCKED},
    "unlock": {Status.LOCKED: Status.DRAFT},
    "take-over": {Status.LOCKED: Status.LOCKED},
    "publish": {Status.LOCKED: Status.PUBLISHED},
    "publish-begin": {Status.LOCKED: Status.LOCKED},
    "publish-failed": {Status.LOCKED: Status.LOCKED},
    "discard": {Status.DRAFT: Status.DISCARDED, Status.LOCKED: Status.DISCARDED},
    "expire": {Status.DRAFT: Status.EXPIRED, Status.LOCKED: Status.EXPIRED},
    "revive": {Status.DISCARDED: Status.DRAFT, Status.EXPIRED: Status.DRAFT},
    "rollback": {Status.PUBLISHED: Status.PUBLISHED},
    "reopen": {Status.PUBLISHED: Status.PUBLISHED},
    "label": {status: status for status in (Status.DRAFT, Status.LOCKED, Status.PUBLISHED)},
    "grant": {status: status for status in (Status.DRAFT, Status.LOCKED, Status.PUBLISHED)},
    "rename": {Status.DRAFT: Status.DRAFT},
    "touch": {Status.DRAFT: Status.DRAFT, Status.LOCKED: Status.LOCKED},
    "extend": {Status.DRAFT: Status.DRAFT, Status.LOCKED: Status.LOCKED},
    "suspend": {status: status for status in (Status.DRAFT, Status.LOCKED, Status.PUBLISHED)},
    "warn": {Status.DRAFT: Status.DRAFT, Status.LOCKED: Status.LOCKED},
    "purge": {Status.DISCARDED: Status.DISCARDED, Status.EXPIRED: Status.EXPIRED},
}
"""Every step there is: the verb, the statuses it starts from, and where it leads. What is not here is refused."""


class Lock(msgspec.Struct, frozen=True):
    """A preview holds the draft still: by whom, until when, and the seal of what was previewed."""

    owner: str
    until: datetime
    seal: str


class Publication(msgspec.Struct, frozen=True):
    """A publication under way: enough to finish it or undo it after a crash."""

    revision: str
    attempt: str
    seal: str
    target: str
    previous: str | None
    actor: str
    until: datetime


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything about a session but its items.

    ``version`` counts commits, ``step`` counts commits and lifecycle steps; ``digest`` is the last entry's,
    ``state`` the last commit's, which is the state's name. ``undo`` and ``redo`` are the steps of the commits atop
    the two stacks, 0 for an empty one. ``root`` is a keyed hash of the set of items and their versions. ``sealed``
    counts what the data key has encrypted. ``origin`` is the session whose target a reopened one publishes to.
    ``stale`` is never kept: it says of an answer that the hot tier was gone, so that a newer state may be there.
    """

    id: str
    tenant: str
    kind: str
    schema: int
    owner: str
    status: Status
    created: datetime
    updated: datetime
    title: str = ""
    tier: Tier = Tier.ACTIVE
    version: int = 0
    step: int = 0
    digest: bytes = b""
    state: bytes = b""
    undo: int = 0
    redo: int = 0
    retention: Retention = Retention()
    expires: datetime | None = None
    expiring_since: datetime | None = None
    warned: int = 0
    restorable_until: datetime | None = None
    lock: Lock | None = None
    publication: Publication | None = None
    failure: str | None = None
    grants: dict[str, Role] = {}
    target: str = ""
    parent: str | None = None
    origin: str | None = None
    source: dict[str, Any] = {}
    blobs: tuple[str, ...] = ()
    count: int = 0
    size: int = 0
    labels: int = 0
    root: bytes = b""
    sealed: int = 0
    purged: bool = False
    stale: bool = False

    def events(self) -> list[datetime]:
        """The times at which something is due: a warning, the expiry, a lapsing lock, an overdue publication, the
        purge.
        """
        if self.status in GONE:  # once purged too: the purge of the content, which ends this, may have been cut off
            return [self.restorable_until or self.updated]
        times = [self.lock.until] if self.lock is not None and self.publication is None else []
        if self.publication is not None:
            times.append(self.publication.until)
        if self.expires is not None and self.expiring_since is not None and self.status in _EXPIRING:
            times += warning_times(self.expiring_since, self.expires)[self.warned :]
            times.append(self.expires)
        return times

    def next_look(self, planned: float | None, rest: float | None = None) -> float | None:
        """When the sweeper should next look, in epoch seconds, given when it was going to; None for never.

        Args:
            rest: seconds without a write after which the session may go down a tier; None for never.
        """
        since, expires, life = self.expiring_since, self.expires, 0.0
        is_draft = self.status is Status.DRAFT and not self.warned and self.publication is None and self.lock is None
        due: float | None = None
        if since is not None and expires is not None:
            life = (expires - since).total_seconds()
        if life and since is not None and is_draft:
            # The case of every commit to a draft that expires, worked out without a list of all that is due.
            due = since.timestamp() + first_warning(life)
        elif events := self.events():
            due = min(events).timestamp()
        if rest is not None and self.status in (Status.DRAFT, Status.PUBLISHED):
            down = self.updated.timestamp() + rest
            if due is None or down < due:
                due, life = down, rest
        return None if due is None else next_look(due, planned, life * SLACK)

    def status_at(self, now: datetime) -> Status:
        """The status as of a time: a session past its expiry is expired, swept yet or not; a lapsed lock is no lock."""
        if self.status in _EXPIRING:
            if self.expires is not None and self.expires <= now and self.publication is None:
                return Status.EXPIRED
            if self.lock is not None and self.lock.until <= now and self.publication is None:
                return Status.DRAFT
        return self.status


class SealedHead(msgspec.Struct, frozen=True, gc=False):
    """A session's header as a store sees it: what it must find sessions by, and the rest as opaque bytes.

    Attributes:
        due: epoch seconds at which the sweeper should next look at the session; None for never.
        key: the wrapped data key with its key id, or None once destroyed. Not part of the compare-and-set.
        archive: key of the object in the cold tier that holds the log, None where the warm tier holds it.
    """

    id: str
    tenant: str
    owner: str
    kind: str
    status: str
    step: int
    version: int
    digest: bytes
    created: float
    due: float | None
    sealed: bytes
    key: bytes | None
    archive: str | None = None


class SealedItem(msgspec.Struct, frozen=True, gc=False):
    """An item as a store sees it: an opaque id, a version, and opaque bytes (None: the item is deleted)."""

    id: bytes
    version: int
    sealed: bytes | None


class Write(msgspec.Struct, frozen=True):
    """All that one entry changes in the hot tier: applied whole or not at all.

    Attributes:
        expected: the step the session must stand at, 0 to create it.
        parent: the digest it must have there; empty for a creation. A step alone may be another history's, where the
            store has come back as it was before.
        head: the header after the write; its ``key`` is stored only at creation.
        entry: the line appended to the log, at step ``expected + 1``.
        items: the items that change.
        fence: number of the lease the writer holds, None where it holds none.
        quota: at creation, how many sessions the owner may have in all; None for no bound.
        members: where that changes, who beside the owner may know of the session.
    """

    expected: int
    head: SealedHead
    entry: SealedEntry
    items: tuple[SealedItem, ...] = ()
    fence: int | None = None
    quota: int | None = None
    parent: bytes = b""
    members: tuple[str, ...] | None = None


class Session:
    """A session as read: its header and its items in order. Attributes of the header can be read here directly."""

    __slots__ = ("_items", "_ordered", "header")

    def __init__(self, header: Header, items: Mapping[str, Item]) -> None:
        self.header = header
        self._items = items
        self._ordered: tuple[Item, ...] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.header, name)

    def __repr__(self) -> str:
        return f"<Session {self.header.id} {self.header.kind} {self.header.status} v{self.header.version}>"

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, by position."""
        if self._ordered is None:
            self._ordered = tuple(sorted(self._items.values(), key=_place))
        return self._ordered

    @property
    def by_key(self) -> Mapping[str, Item]:
        """All items by key, to be read only: the engine has the same ones at hand."""
        return MappingProxyType(self._items)

    def get(self, key: str) -> Item | None:
        return self._items.get(key)

    def collection(self, name: str) -> tuple[Item, ...]:
        """The items of one collection, by position."""
        return tuple(item for item in self.items if item.collection == name)


def _place(item: Item) -> tuple[str, str]:
    return (item.position, item.key)


def in_order(items: Mapping[str, Item]) -> list[Item]:
    """Items by position, ties by key."""
    return sorted(items.values(), key=_place)
