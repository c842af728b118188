"""Brings sessions up: from the cold tier to the warm one, and from there to the hot one, where they are worked on."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from msgspec.structs import replace

from holdfast.engine.archiving import Archiving
from holdfast.engine.log import Log
from holdfast.engine.opened import Opened
from holdfast.engine.sealing import seal_item
from holdfast.engine.unsealing import Items, Unsealing, replay
from holdfast.errors import SessionNotFoundError, StoreUnavailableError, TamperedError, TierBehindError
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead, SealedItem
from holdfast.ports.clock import Clock
from holdfast.ports.hot import HotStore, TieredHotStore
from holdfast.ports.warm import Snapshot, WarmStore

KEEP_ENTRIES = 20
"""The newest entries of a log that the hot tier keeps: those that are read and undone most."""

_KEEP_BYTES = 8_000_000
"""Bytes of them at most, one entry aside."""

_PAGE = 256

UNKNOWN = "it is not known whether there is such a session"
"""What is said of a session that the warm tier does not have, or not for this principal, while the hot one is gone."""
_MOST_TRIES = 8


class Rehydrating:
    """Puts sessions that rest back into the hot tier, one flight a session.

    Where hot and warm are one store (``tiered`` is None) only archived sessions are anywhere else.
    """

    def __init__(
        self,
        hot: HotStore,
        tiered: TieredHotStore | None,
        warm: WarmStore,
        archiving: Archiving,
        unsealing: Unsealing,
        log: Log,
        clock: Clock,
        rest: float | None,
    ) -> None:
        self._hot, self.tiered, self._warm, self._archiving = hot, tiered, warm, archiving
        self._unsealing, self._log, self._clock, self._rest = unsealing, log, clock, rest
        self._flights: dict[str, asyncio.Task[SealedHead | None]] = {}

    @property
    def generation(self) -> int:
        """See ``TieredHotStore.generation``."""
        return 0 if self.tiered is None else self.tiered.generation

    async def bring(self, session: str) -> SealedHead | None:
        """The head of a session that the hot tier does not have, once it has it; None if nobody has it.

        A tombstone is left where it is. Whoever asks while it is under way waits for the same flight.
        """
        flight = self._flights.get(session)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(self._bring(session), name="holdfast-rehydrate")
            self._flights[session] = flight
            flight.add_done_callback(lambda _: self._flights.pop(session, None))
        return await asyncio.shield(flight)

    async def check(self, head: SealedHead) -> bool:
        """Hold what the hot tier has of a session against the warm tier; whether that could be done.

        Raises:
            TierBehindError: the warm tier has more of it, or another history.
        """
        if self.tiered is None:
            return True
        try:
            kept = await self._warm.head(head.id)
        except StoreUnavailableError:
            return False  # the warm tier being gone stops nobody; it is asked again at the next look
        if kept is None or kept.digest == head.digest:
            return True
        behind = kept.step >= head.step
        if not behind:
            same = (await self.tiered.at(head.id, [kept.step])).get(kept.step)
            behind = same is not None and same.digest != kept.digest
        if behind:
            newest = await self._hot.head(head.id)  # it may have been written and flushed between the two looks
            if newest is not None and newest.step == head.step:
                raise TierBehindError(head.id, head.step, kept.step)
        return True

    async def check_rested(self, session: str, step: int) -> None:
        """Hold a step that the warm tier has of a session, and the hot one nothing, against the one it had to have.

        Raises:
            TierBehindError: it has less than was there when the hot tier let go of the session.
        """
        rested = None if self.tiered is None else await self.tiered.rested(session)
        if rested is None or rested <= step:
            return
        newest = await self._warm.head(session)  # it may have come up, and gone to rest again, since that was read
        if newest is not None and newest.step < rested:
            raise TierBehindError(session, rested, newest.step)

    async def stale(self, session: str) -> Opened:
        """A session whole as the warm tier has it, marked as perhaps not the newest."""
        for _ in range(_MOST_TRIES):
            head = await self._warm.head(session) if session.isascii() else None
            if head is None:
                raise SessionNotFoundError(session)
            if head.archive is not None:
                head = await self._archiving.restore(head)
            try:
                return (await self._state(head, await self._warm.items(session)))[0]
            except TamperedError:
                if await self._warm.head(session) == head:  # else it was archived, or purged, while it was read
                    raise
        raise StoreUnavailableError("warm", "the session is archived each time it is read")

    async def _bring(self, session: str) -> SealedHead | None:
        for attempt in range(_MOST_TRIES):
            head, snapshot = await asyncio.gather(self._warm.head(session), self._warm.items(session))
            if head is None:
                return None
            try:
                if head.archive is not None and head.key is not None:
                    head = await self._archiving.restore(head)
                    snapshot = await self._warm.items(session)
                if self.tiered is None or head.key is None:
                    return head
                await self._install(self.tiered, head, snapshot)
            except TamperedError:
                if attempt and await self._warm.head(session) == head:
                    raise
                continue  # it was archived, or purged, while it was read; it may have been restored since
            found = await self._hot.head(session)
            if found is not None:  # ours, or whoever's was first; None: it was set to rest again
                if found.digest != head.digest:
                    await self.check(found)
                return found
            await self.check_rested(session, head.step)
        raise StoreUnavailableError("hot", "the session is set to rest each time it is brought back")

    async def _install(self, tiered: TieredHotStore, head: SealedHead, snapshot: Snapshot | None) -> None:
        """Put a session into the hot tier as the warm one has it."""
        (opened, rows), newest, changes = await asyncio.gather(
            self._state(head, snapshot), self._newest(head), self._warm.changes(head.id, below=head.step + 1)
        )
        if len(changes) < head.step:  # it was archived before they were read, or a part of its log is gone
            raise TamperedError(f"the log of session {head.id}")
        now = self._clock.now()
        due = opened.header.next_look(None)
        if self._rest is not None:
            idle = (now + timedelta(seconds=self._rest)).timestamp()
            due = idle if due is None else min(due, idle)
        # The time in microseconds is above what a lost hot tier has forgotten, as far as the machines' clocks agree;
        # what was granted here before the session was set to rest the hot tier keeps itself.
        fence = int(now.timestamp() * 1_000_000)
        if not await tiered.install(replace(head, due=due), rows, newest, fence=fence, changes=changes):
            return
        # Of what befell it in the warm tier while it was on its way up, nobody could tell it here.
        again = await self._warm.head(head.id)
        if again is None or again.key is None or again.digest != head.digest:
            await evicted(tiered, head.id, step=head.step, now=now)
            return
        if again.archive is not None:
            await self._archiving.restore(again)
        if again.key != head.key and head.key is not None:
            await tiered.rewrap(head.id, old=head.key, new=again.key)

    async def _state(self, head: SealedHead, snapshot: Snapshot | None) -> tuple[Opened, list[SealedItem]]:
        """A session with its items as of a head in the warm tier, and the same as rows: the newest snapshot, brought on
        by the log.
        """
        opened = self._unsealing.head(head)
        opened = opened.follow(replace(opened.header, stale=True), opened.due, None, None)
        step, rows = 0, dict[bytes, SealedItem]()
        items: Items = {}
        notes: Items = {}
        if snapshot is not None and snapshot.step <= head.step:
            step, rows = snapshot.step, {row.id: row for row in snapshot.items}
            items, notes = self._unsealing.rows(opened, snapshot.items)
        before = {item.key: item for part in (items, notes) for item in part.values()}
        while step < head.step:
            entries = await self._log.entries(opened, after=step, limit=_PAGE)
            replay(items, notes, entries)
            step = entries[-1].step
        whole = self._unsealing.complete(opened, items, notes)
        cipher = opened.cipher
        for is_note, part in enumerate((items, notes)):
            for item in part.values():
                if before.pop(item.key, None) is not item:
                    item_id = cipher.item_id(item.key)
                    rows[item_id] = seal_item(cipher, item, note=bool(is_note), item_id=item_id)
        for key in before:
            rows.pop(cipher.item_id(key), None)
        return whole, list(rows.values())

    async def _newest(self, head: SealedHead) -> list[SealedEntry]:
        """The end of a log as it goes to the hot tier."""
        entries = await self._warm.entries(head.id, after=max(0, head.step - KEEP_ENTRIES), limit=KEEP_ENTRIES)
        entries = [entry for entry in entries if entry.step <= head.step]
        held = 0
        for count, entry in enumerate(reversed(entries), 1):
            held += len(entry.payload)
            if held >= _KEEP_BYTES:
                return entries[-count:]
        return entries


async def evicted(tiered: TieredHotStore, session: str, *, step: int, now: datetime) -> None:
    """See that the hot tier does not have a session at a step, whatever lease on it is live.

    By force only where there is a lease: force lets an older state come in its place, even where the session is not
    there because somebody else was first.
    """
    gone = await tiered.evict(session, step=step, now=now)
    if not gone and await tiered.lease(session, now=now) is not None:
        await tiered.evict(session, step=step, now=now, force=True)
