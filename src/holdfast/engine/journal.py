"""The one place where a decision becomes a stored entry, and stored bytes become a session again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.engine.log import Log
from holdfast.engine.opened import Opened
from holdfast.engine.sealing import (
    MOST_SEALED,
    Cipher,
    KeyRing,
    encode_entry,
    open_head,
    open_item,
    seal_head,
    seal_item,
    seal_payload,
)
from holdfast.engine.watching import Watching
from holdfast.errors import LimitExceededError, SessionGoneError, SessionNotFoundError, TamperedError, UnreadableError
from holdfast.model.change import ChangeSet
from holdfast.model.entry import GENESIS, EntryHeader, SealedEntry, entry_digest
from holdfast.model.item import Item
from holdfast.model.session import GONE, Header, SealedHead, SealedItem, Tier, Write
from holdfast.ports.clock import Chance, Clock
from holdfast.ports.hot import HotStore
from holdfast.ports.observer import Observer
from holdfast.ports.warm import WarmStore

_FRESH = timedelta(seconds=0.5)


class Step(msgspec.Struct, frozen=True):
    """What a decision amounts to, before it is sealed.

    Attributes:
        header: the session's header with what the decision changes; the journal sees to step, version, digest, root.
        items: the items after it, None where it is no commit.
        changes: the commit's change-set.
        notes: notes to write (None: to remove), by key.
        detail: content of a lifecycle step.
    """

    header: Header
    operation: str
    actor: str
    change: str
    fingerprint: bytes
    items: dict[str, Item] | None = None
    changes: ChangeSet = ()
    notes: Mapping[str, Any] = {}
    detail: dict[str, Any] = {}
    group: str | None = None
    beneath: int = 0
    fence: int | None = None


class Journal:
    """Opens sessions and appends to their logs."""

    def __init__(
        self,
        hot: HotStore,
        warm: WarmStore,
        ring: KeyRing,
        clock: Clock,
        chance: Chance,
        *,
        keep: int,
        keep_bytes: int,
        observer: Observer | None = None,
    ) -> None:
        self.hot, self.warm, self.ring, self._observer = hot, warm, ring, observer
        self.log = Log(hot, warm)
        self._clock, self._chance = clock, chance
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._keep, self._keep_bytes, self._bytes = keep, keep_bytes, 0
        self.watching = Watching(hot)

    # -- opening -------------------------------------------------------------------------------------------------------

    async def open(self, session: str) -> Opened:
        """A session's header as it stands now, with its items if they are at hand.

        Raises:
            SessionNotFoundError: there is none.
            SessionGoneError: it is purged; only a tombstone is left.
            UnreadableError, TamperedError: its key is destroyed, or its bytes are not what was written.
        """
        head = await self.hot.head(session) if session.isascii() else None
        if head is None:
            raise SessionNotFoundError(session)
        known = self._opened.get(session)
        if known is not None and known.header.digest == head.digest and known.key == head.key:
            known.seen = self._clock.now()
            return known
        opened = self._unseal(head, known)
        await self.log.check_newest(head)
        return self._remember(opened)

    def recalled(self, session: str, now: datetime) -> Opened | None:
        """A session with its items as seen here within the last half second, None if it was not.

        For a writer: what it writes lands only on the step it was decided on, so nothing older is ever built upon,
        and a right that was taken away elsewhere ends within that half second.
        """
        known = self._opened.get(session)
        if known is not None and known.loaded and known.seen and now - known.seen < _FRESH:
            return known
        return None

    async def load(self, session: str) -> Opened:
        """A session's header and items as they stand now."""
        opened = await self.open(session)
        if opened.loaded:
            return opened
        loaded = await self.hot.load(session)
        if loaded is None:
            raise SessionNotFoundError(session)
        head, sealed = loaded
        opened = self._unseal(head, opened)
        items, notes = self._unseal_items(opened, sealed)
        return self._remember(opened.follow(opened.header, opened.due, items, notes))

    def unseal(self, head: SealedHead) -> Opened:
        """A session opened from a head read elsewhere, as in a listing."""
        known = self._opened.get(head.id)
        if known is not None and known.header.digest == head.digest and known.key == head.key:
            return known
        return self._unseal(head, known)

    async def check(self, session: str) -> Opened:
        """Open a session from its stored bytes alone, whatever is at hand."""
        self.forget(session)
        return await self.load(session)

    def forget(self, session: str) -> None:
        """Keep nothing of a session in memory."""
        gone = self._opened.pop(session, None)
        if gone is not None and gone.loaded:
            self._bytes -= gone.header.size

    # -- appending -----------------------------------------------------------------------------------------------------

    def begin(self, header: Header) -> Opened:
        """A session that is not stored yet, with a data key of its own: its first ``append`` creates it."""
        data_key = self._chance.bytes(32)
        cipher = Cipher(data_key, header.tenant, header.id, self._chance)
        opened = Opened(header, cipher, self.ring.wrap(data_key, header.tenant, header.id), None, {}, {})
        opened.data_key = data_key
        return opened

    async def append(self, opened: Opened, step: Step, *, quota: int | None = None) -> Opened | None:
        """Write the next entry of a session; None if it has moved on since it was opened, and nothing was written."""
        now, was, cipher = self._clock.now(), opened.header, opened.cipher
        commit = step.items is not None
        number, version = was.step + 1, was.version + commit
        entry_header = encode_entry(
            EntryHeader(
                number,
                version,
                step.operation,
                step.actor,
                now,
                step.change,
                step.fingerprint,
                was.digest or GENESIS,
                step.group,
                step.beneath,
                commit,
            )
        )
        payload = seal_payload(cipher, entry_header, step.changes, step.detail)
        digest = entry_digest(entry_header, payload)
        sealed_items, notes, root = self._seal_items(opened, step, number)
        if was.sealed > MOST_SEALED:
            raise LimitExceededError("encryptions under one data key", was.sealed, MOST_SEALED)
        header = replace(
            step.header,
            step=number,
            version=version,
            digest=digest,
            state=digest if commit else was.state,
            updated=now,
            root=root,
            tier=Tier.DORMANT if step.operation == "suspend" else Tier.ACTIVE,
            sealed=was.sealed + len(sealed_items) + 2,
        )
        due = header.next_look(opened.due)
        write = Write(
            was.step,
            seal_head(cipher, header, due, opened.key),
            SealedEntry(was.id, number, version, commit, step.change, entry_header, payload, digest),
            tuple(sealed_items),
            step.fence,
            quota,
            None if header.grants == was.grants else tuple(sorted(header.grants)),
        )
        if not await self.hot.write(write, now=now):
            return None
        if self._observer is not None:
            self._observer.appended(header, step.operation, step.actor, now)
        if opened.data_key is not None and self.ring.is_stale(opened.key):
            # The keys were rotated between wrapping and landing, and the one it is under may be gone already.
            await self.hot.rewrap(was.id, old=opened.key, new=self.ring.wrap(opened.data_key, was.tenant, was.id))
            return await self.load(was.id)
        following = opened.follow(header, due, step.items, notes)
        self._remember(following, now)
        self.watching.wake(was.id)
        return following

    def _seal_items(
        self, opened: Opened, step: Step, number: int
    ) -> tuple[list[SealedItem], dict[str, Item] | None, bytes]:
        """The rows a step changes, the notes after it, and the root after it."""
        cipher, root = opened.cipher, int.from_bytes(opened.header.root, "big")
        sealed: list[SealedItem] = []
        if step.items is not None:
            for change in step.changes:
                item_id = cipher.item_id(change.key)
                if change.before is not None:
                    root ^= cipher.root_part(item_id, change.before.version)
                item = step.items.get(change.key)
                if item is None:
                    sealed.append(SealedItem(item_id, 0, None))
                else:
                    root ^= cipher.root_part(item_id, item.version)
                    sealed.append(seal_item(cipher, item, item_id=item_id))
        notes = None
        if step.notes:
            notes = dict(opened.notes)
            for key, body in step.notes.items():
                item_id, old = cipher.item_id(key), notes.pop(key, None)
                if old is not None:
                    root ^= cipher.root_part(item_id, old.version)
                if body is None:
                    sealed.append(SealedItem(item_id, 0, None))
                    continue
                notes[key] = Item(key, "", msgspec.json.encode(body), number, number)
                root ^= cipher.root_part(item_id, number)
                sealed.append(seal_item(cipher, notes[key], note=True, item_id=item_id))
        return sealed, notes, root.to_bytes(32, "big")

    # -- unsealing -----------------------------------------------------------------------------------------------------

    def _unseal(self, head: SealedHead, known: Opened | None) -> Opened:
        if head.key is None:
            if head.status in GONE:
                raise SessionGoneError(head.id, head.status, None)
            raise UnreadableError(f"Session {head.id}", "destroyed")
        if known is not None and known.key == head.key and known.header.tenant == head.tenant:
            cipher = known.cipher
        else:
            data_key = self.ring.unwrap(head.key, head.tenant, head.id)
            cipher = Cipher(data_key, head.tenant, head.id, self._chance)
        header = open_head(cipher, head)
        if known is not None and known.header.digest == header.digest:
            return known.again(head)
        return Opened(header, cipher, head.key, head.due)

    def _unseal_items(self, opened: Opened, sealed: Sequence[SealedItem]) -> tuple[dict[str, Item], dict[str, Item]]:
        """Items and notes, checked against the root: none missing, none extra, none of another version."""
        cipher, root = opened.cipher, 0
        items: dict[str, Item] = {}
        notes: dict[str, Item] = {}
        for row in sealed:
            item, is_note = open_item(cipher, row)
            root ^= cipher.root_part(row.id, row.version)
            (notes if is_note else items)[item.key] = item
        if root.to_bytes(32, "big") != opened.header.root:
            raise TamperedError(f"the items of session {opened.header.id}")
        return items, notes

    def _remember(self, opened: Opened, now: datetime | None = None) -> Opened:
        """Keep a session at hand, newest use last, within the bounds on count and bytes."""
        session = opened.header.id
        opened.seen = now or self._clock.now()
        known = self._opened.get(session)
        if known is not None:
            if known.header.step > opened.header.step and known.key == opened.key:
                return opened
            if known.loaded:
                self._bytes -= known.header.size
        self._opened[session] = opened
        self._opened.move_to_end(session)
        if opened.loaded:
            self._bytes += opened.header.size
        while self._opened and (len(self._opened) > self._keep or self._bytes > self._keep_bytes):
            _, oldest = self._opened.popitem(last=False)
            if oldest.loaded:
                self._bytes -= oldest.header.size
        return opened


async def rewrap(hot: HotStore, ring: KeyRing, head: SealedHead) -> bool:
    """Wrap a session's data key under the active key, whoever else may be doing so; whether that was needed."""
    found: SealedHead | None = head
    while found is not None and found.key is not None and ring.wraps(found.key) != ring.active:
        new = ring.wrap(ring.unwrap(found.key, found.tenant, found.id), found.tenant, found.id)
        if await hot.rewrap(found.id, old=found.key, new=new):
            return True
        found = await hot.head(found.id)
    return False
