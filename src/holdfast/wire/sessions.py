"""A session, its items and the answer to a write, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from holdfast.engine.catalogue import Page
from holdfast.engine.editing import Committed
from holdfast.model.access import Role
from holdfast.model.item import Item
from holdfast.model.retention import Retention
from holdfast.model.session import Header, Lock, Publication, Session, Status, Tier

_encode = msgspec.json.Encoder().encode


class ItemForm(msgspec.Struct, frozen=True):
    """One item: its key, its place, the version that last changed it, and its body."""

    key: str
    position: str
    version: int
    body: Any

    @classmethod
    def of(cls, item: Item) -> ItemForm:
        return cls(item.key, item.position, item.version, msgspec.Raw(item.raw))

    def item(self) -> Item:
        return Item(self.key, self.position, _encode(self.body), self.version, 0)


class SessionForm(msgspec.Struct, frozen=True):
    """A session's header: everything about it but its items.

    ``version`` counts commits; ``step`` counts commits and lifecycle steps. ``undo`` and ``redo`` are 0 where there is
    nothing to undo or redo. ``digest`` names the last step, ``state`` the last commit, both in hex. ``stale``: the warm
    tier has answered for the hot one, so that there may be a newer state.
    """

    id: str
    tenant: str
    kind: str
    owner: str
    status: Status
    tier: Tier
    title: str
    version: int
    step: int
    digest: str
    state: str
    undo: int
    redo: int
    count: int
    size: int
    labels: int
    created: datetime
    updated: datetime
    expires: datetime | None
    restorable_until: datetime | None
    retention: Retention
    lock: Lock | None
    publication: Publication | None
    failure: str | None
    grants: dict[str, Role]
    target: str
    parent: str | None
    origin: str | None
    source: dict[str, Any]
    purged: bool
    stale: bool

    @classmethod
    def of(cls, header: Header) -> SessionForm:
        return cls(
            header.id,
            header.tenant,
            header.kind,
            header.owner,
            header.status,
            header.tier,
            header.title,
            header.version,
            header.step,
            header.digest.hex(),
            header.state.hex(),
            header.undo,
            header.redo,
            header.count,
            header.size,
            header.labels,
            header.created,
            header.updated,
            header.expires,
            header.restorable_until,
            header.retention,
            header.lock,
            header.publication,
            header.failure,
            header.grants,
            header.target,
            header.parent,
            header.origin,
            header.source,
            header.purged,
            header.stale,
        )

    def header(self) -> Header:
        """The header again, without what only the engine has a use for."""
        named = {name: getattr(self, name) for name in SessionForm.__struct_fields__ if name not in ("digest", "state")}
        return Header(**named, schema=0, digest=bytes.fromhex(self.digest), state=bytes.fromhex(self.state))


class WholeForm(SessionForm, frozen=True):
    """A session with its items, in order."""

    items: tuple[ItemForm, ...]

    def session(self) -> Session:
        return Session(self.header(), {item.key: item.item() for item in self.items})


class PageForm(msgspec.Struct, frozen=True):
    """Sessions, newest first, and the cursor of the page after; null after the last. ``unreadable`` names those that
    are there but do not open. ``stale``: the hot tier does not answer, so that there may be newer states and sessions.
    """

    sessions: tuple[SessionForm, ...]
    cursor: str | None = None
    unreadable: tuple[str, ...] = ()
    stale: bool = False

    @classmethod
    def of(cls, page: Page) -> PageForm:
        return cls(tuple(map(SessionForm.of, page.headers)), page.cursor, page.unreadable, page.stale)

    def page(self) -> Page:
        return Page(tuple(form.header() for form in self.sessions), self.cursor, self.unreadable, self.stale)


class CommittedForm(msgspec.Struct, frozen=True):
    """The answer to a write: where the session stands after it, and what became of each item that changed.

    ``changes`` is empty if there was nothing to do. ``replayed``: this is the answer of the first time, given again.
    """

    session: str
    version: int
    step: int
    digest: str
    at: datetime
    changes: dict[str, str]
    replayed: bool
    durability: str

    @classmethod
    def of(cls, committed: Committed) -> CommittedForm:
        return cls(
            committed.session,
            committed.version,
            committed.step,
            committed.digest.hex(),
            committed.at,
            committed.changes,
            committed.replayed,
            committed.durability,
        )

    def committed(self) -> Committed:
        return Committed(
            self.session,
            self.version,
            self.step,
            bytes.fromhex(self.digest),
            self.at,
            self.changes,
            self.replayed,
            self.durability,
        )


def whole(session: Session) -> bytes:
    """A session with its items as JSON, put together from the bytes that are kept: no body is decoded."""
    head = _encode(SessionForm.of(session.header))
    items = b",".join(
        b'{"key":%b,"position":%b,"version":%d,"body":%b}'
        % (_encode(item.key), _encode(item.position), item.version, item.raw)
        for item in session.items
    )
    return b'%b,"items":[%b]}' % (head[:-1], items)
