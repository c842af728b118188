"""Entries of a session's log, as JSON: the history and the feed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from holdfast.engine.feed import FeedPage
from holdfast.model.change import Before, Change
from holdfast.model.entry import Entry, EntryHeader, Payload

_encode = msgspec.json.Encoder().encode


class ChangeForm(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a commit did to one item: ``added``, ``changed``, ``moved`` or ``deleted``.

    ``body`` is there where the commit wrote one.
    """

    key: str
    verb: str
    position: str | None = None
    body: Any = msgspec.UNSET

    @classmethod
    def of(cls, change: Change) -> ChangeForm:
        body = msgspec.UNSET if change.body is None else change.body
        return cls(change.key, change.verb, change.position, body)

    def change(self) -> Change:
        bodies = () if self.body is msgspec.UNSET else (msgspec.Raw(_encode(self.body)),)
        before = None if self.verb == "added" else Before(0, 0, "")
        return Change(self.key, None if self.verb == "deleted" else self.position or "", bodies, before)


class EntryForm(msgspec.Struct, frozen=True):
    """One line of the log: a commit, which makes a version, or a lifecycle step, which does not."""

    session: str
    step: int
    version: int
    commit: bool
    operation: str
    actor: str
    at: datetime
    change: str
    group: str | None
    digest: str
    parent: str
    changes: tuple[ChangeForm, ...]
    detail: dict[str, Any]

    @classmethod
    def of(cls, entry: Entry) -> EntryForm:
        said = entry.header
        return cls(
            entry.session,
            said.step,
            said.version,
            entry.commit,
            said.operation,
            said.actor,
            said.at,
            said.change,
            said.group,
            entry.digest.hex(),
            said.parent.hex(),
            tuple(map(ChangeForm.of, entry.changes)),
            entry.payload.detail,
        )

    def entry(self) -> Entry:
        header = EntryHeader(
            self.step,
            self.version,
            self.operation,
            self.actor,
            self.at,
            self.change,
            b"",
            bytes.fromhex(self.parent),
            self.group,
            0,
            self.commit,
        )
        payload = Payload(tuple(form.change() for form in self.changes), self.detail)
        return Entry(self.session, header, payload, bytes.fromhex(self.digest), self.commit)


class FeedForm(msgspec.Struct, frozen=True):
    """Entries in order, and the cursor to go on from. ``reload``: the past the cursor stood in is gone; read anew."""

    entries: tuple[EntryForm, ...]
    cursor: str
    reload: bool = False

    @classmethod
    def of(cls, page: FeedPage) -> FeedForm:
        return cls(tuple(map(EntryForm.of, page.entries)), page.cursor, page.reload)

    def page(self) -> FeedPage:
        return FeedPage(tuple(form.entry() for form in self.entries), self.cursor, self.reload)
