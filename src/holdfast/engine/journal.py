"""The one place where a decision becomes a stored entry, and stored bytes become a session again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.engine.log import Log
from holdfast.engine.opened import Opened
from holdfast.engine.rehydrating import UNKNOWN, Rehydrating
from holdfast.engine.sealing import (
    MOST_SEALED,
    Cipher,
    KeyRing,
    encode_entry,
    seal_head,
    seal_item,
    seal_payload,
)
from holdfast.engine.unsealing import Unsealing
from holdfast.engine.watching import Watching
from holdfast.errors import (
    HoldfastError,
    LimitExceededError,
    SessionNotFoundError,
    StoreUnavailableError,
    TierBehindError,
)
from holdfast.model.change import ChangeSet
from holdfast.model.entry import GENESIS, EntryHeader, Payload, SealedEntry, entry_digest
from holdfast.model.item import Item
from holdfast.model.session import Header, SealedHead, SealedItem, Tier, Write
from holdfast.ports.clock import Chance, Clock
from holdfast.ports.hot import HotStore
from holdfast.ports.observer import Observer
from holdfast.ports.warm import WarmStore

_FRESH = timedelta(seconds=0.5)
_UNCHECKED = -1
_MOST_TRIES = 8
"""How often a session that is evicted at every look is brought back."""


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
        log: Log,
        unsealing: Unsealing,
        rehydrating: Rehydrating,
        clock: Clock,
        chance: Chance,
        *,
        keep: int,
        keep_bytes: int,
        rest: float | None,
        observer: Observer | None = None,
    ) -> None:
        """``rest``: seconds without a write after which the sweeper should look whether a session may rest."""
        self.hot, self.warm, self.log, self._observer = hot, warm, log, observer
        self._unsealing, self._rehydrating = unsealing, rehydrating
        self._clock, self._chance, self._rest = clock, chance, rest
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._keep, self._keep_bytes, self._bytes = keep, keep_bytes, 0
        self.watching = Watching(hot)
        self.landed: Callable[[str, int, bytes], Awaitable[None]] | None = None
        """Awaited with session, step and digest of each entry before it is acknowledged, by ``confirm``."""

    @property
    def ring(self) -> KeyRing:
        return self._unsealing.ring

    # -- opening -------------------------------------------------------------------------------------------------------

    async def head(self, session: str) -> SealedHead | None:
        """A session's head as it stands now, None if there is none; from the hot tier, or as the warm one has it."""
        return await self.hot.head(session) or await self.warm.head(session)

    async def is_known(self, session: str) -> bool:
        """Whether there is a session by that name. While the warm tier is gone one that rests there goes unseen: the
        hot tier still refuses to make it again.
        """
        if await self.hot.head(session) is not None:
            return True
        try:
            return await self.warm.head(session) is not None
        except StoreUnavailableError:
            return False

    async def open(self, session: str, *, stale: bool = False) -> Opened:
        """A session's header as it stands now, with its items if they are at hand. One that rests in a lower tier is
        brought back.

        Args:
            stale: where the hot tier does not answer, or is behind, be content with what the warm tier has; the header
                then says that it is stale.
        Raises:
            SessionNotFoundError: there is none.
            SessionGoneError: it is purged; only a tombstone is left.
            UnreadableError, TamperedError: its key is destroyed, or its bytes are not what was written.
            TierBehindError: the hot tier has come back with an older state than the warm one.
        """
        try:
            return await self._open(session)
        except (StoreUnavailableError, TierBehindError) as error:
            if not stale or not self._rehydrating.tiered:
                raise
            return await self._stale(session, error)

    async def _stale(self, session: str, error: HoldfastError) -> Opened:
        """A session as the warm tier has it, since the hot one gave an error."""
        try:
            return await self._rehydrating.stale(session)
        except SessionNotFoundError:  # the hot tier alone may have it: absent is another answer than unavailable
            raise StoreUnavailableError("hot", UNKNOWN) from error

    async def _open(self, session: str) -> Opened:
        head = await self.hot.head(session) if session.isascii() else None
        is_brought = head is None or head.archive is not None
        if is_brought:
            head = await self._rehydrating.bring(session) if session.isascii() else None
        if head is None:
            raise SessionNotFoundError(session)
        known, generation = self._opened.get(session), self._rehydrating.generation
        if known is not None and known.generation != generation:
            self.forget(session)
            known = None
        if known is not None and known.header.digest == head.digest and known.key == head.key:
            known.seen = self._clock.now()
            return known
        checked = known is not None or is_brought or await self._rehydrating.check(head)
        opened = self._unsealing.head(head, known)
        await self.log.check_newest(head)
        opened.generation = generation if checked else _UNCHECKED
        return self._remember(opened)

    def recalled(self, session: str, now: datetime) -> Opened | None:
        """A session with its items as seen here within the last half second, None if it was not.

        For a writer: what it writes lands only on the step it was decided on, so nothing older is ever built upon,
        and a right that was taken away elsewhere ends within that half second.
        """
        known = self._opened.get(session)
        if known is None or not known.loaded or known.generation != self._rehydrating.generation:
            return None
        if known.seen and now - known.seen < _FRESH:
            return known
        return None

    async def load(self, session: str, *, stale: bool = False) -> Opened:
        """A session's header and items as they stand now; ``stale`` as of ``open``."""
        for _ in range(_MOST_TRIES):
            opened = await self.open(session, stale=stale)
            if opened.loaded:
                return opened
            try:
                loaded = await self.hot.load(session)
            except StoreUnavailableError as error:
                if not stale or not self._rehydrating.tiered:
                    raise
                return await self._stale(session, error)
            if loaded is not None and loaded[0].archive is None:
                head, sealed = loaded
                whole = self._unsealing.items(self._unsealing.head(head, opened), sealed)
                whole.generation = opened.generation
                return self._remember(whole)
        raise StoreUnavailableError("hot", "the session is set to rest each time it is brought back")

    def unseal(self, head: SealedHead) -> Opened:
        """A session opened from a head read elsewhere, as in a listing."""
        opened = self._opened.get(head.id)
        if opened is None or opened.header.digest != head.digest or opened.key != head.key:
            opened = self._unsealing.head(head, opened)
        if head.archive is None:
            return opened
        return opened.follow(replace(opened.header, tier=Tier.ARCHIVED), head.due, None, None)

    def unseal_items(self, opened: Opened, sealed: Sequence[SealedItem]) -> Opened:
        """A session with its items from rows read elsewhere, checked to be all of that moment."""
        return self._unsealing.items(opened, sealed)

    async def check(self, session: str) -> Opened:
        """Open a session from its stored bytes alone, whatever is at hand; one that rests, where it rests."""
        self.forget(session)
        if self._rehydrating.tiered and await self.hot.head(session) is None:
            opened = await self._rehydrating.stale(session)
            await self._rehydrating.check_rested(session, opened.header.step)
            return opened
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
        opened.data_key, opened.generation = data_key, self._rehydrating.generation
        return opened

    def next_look(self, header: Header) -> float | None:
        """When the sweeper should next look at a session in the hot tier; see ``Header.next_look``."""
        return header.next_look(None, self._rest)

    async def confirm(self, session: str, step: int, digest: bytes) -> None:
        """Return once an entry that has landed may be acknowledged, for the first time or again."""
        if self.landed is not None:
            await self.landed(session, step, digest)

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
        bodies = {key: msgspec.Raw(msgspec.json.encode(body)) for key, body in step.notes.items()}
        payload = seal_payload(cipher, entry_header, Payload(step.changes, step.detail, bodies))
        digest = entry_digest(entry_header, payload)
        sealed_items, notes, root = self._seal_items(opened, step, number)
        if was.sealed > MOST_SEALED:
            raise LimitExceededError("encryptions under one data key", was.sealed, MOST_SEALED)
        resting = step.operation == "suspend"  # of all that is written, this alone is no work on the session
        header = replace(
            step.header,
            step=number,
            version=version,
            digest=digest,
            state=digest if commit else was.state,
            updated=was.updated if resting else now,
            root=root,
            tier=Tier.DORMANT if resting else Tier.ACTIVE,
            sealed=was.sealed + len(sealed_items) + 2,
            stale=False,
        )
        due = header.next_look(opened.due, self._rest)
        write = Write(
            was.step,
            seal_head(cipher, header, due, opened.key),
            SealedEntry(was.id, number, version, commit, step.change, entry_header, payload, digest),
            tuple(sealed_items),
            step.fence,
            quota,
            was.digest,
            None if header.grants == was.grants else tuple(sorted(header.grants)),
        )
        if not await self.hot.write(write, now=now):
            return None
        await self.confirm(was.id, number, digest)
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


async def rewrap(store: HotStore | WarmStore, ring: KeyRing, head: SealedHead) -> bool:
    """Wrap a session's data key in a store under the active key, whoever else may be doing so; whether that was
    needed.
    """
    found: SealedHead | None = head
    while found is not None and found.key is not None and ring.wraps(found.key) != ring.active:
        new = ring.wrap(ring.unwrap(found.key, found.tenant, found.id), found.tenant, found.id)
        if await store.rewrap(found.id, old=found.key, new=new):
            return True
        found = await store.head(found.id)
    return False
