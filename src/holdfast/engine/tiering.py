"""Where sessions live: set to rest in the warm tier, archived in the cold one; and how far each tier is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from holdfast.engine.archiving import Archiving
from holdfast.engine.flushing import Flushing
from holdfast.engine.journal import Journal
from holdfast.engine.opened import Opened
from holdfast.engine.rehydrating import evicted
from holdfast.errors import HoldfastError, SessionBusyError, SessionNotFoundError
from holdfast.model.session import GONE, Header, SealedHead, SealedItem, Status, Tier
from holdfast.ports.clock import Clock
from holdfast.ports.hot import Backlog, Buried, HotSize, TieredHotStore
from holdfast.ports.warm import Snapshot, WarmSize

_MOST_TRIES = 8
_MOST_BURIED = 100
_MOST_LETTERS = 100_000
_MOST_WAIT = 1.0
_AGAIN = timedelta(seconds=60)
"""After which a session that was to be archived, and was not, is listed again."""

Answer = TypeVar("Answer")


class Tiers(msgspec.Struct, frozen=True):
    """How far each tier is.

    Attributes:
        tiered: whether hot and warm are two stores. Where they are one, nothing is ever on its way between them.
        flush: the flush queue; None where there is none, or the hot tier does not answer.
        buried: dead letters, up to a hundred.
        hot, warm: what they hold; None for one that does not answer.
        troubles: of each tier that does not answer why, in few words; empty where all do, or they were not asked.
    """

    tiered: bool
    flush: Backlog | None = None
    buried: tuple[Buried, ...] = ()
    hot: HotSize | None = None
    warm: WarmSize | None = None
    troubles: dict[str, str] = {}


class Flushed(msgspec.Struct, frozen=True):
    """What came of a flush.

    Attributes:
        flushed: writes that waited, those of dead letters included, and are in the warm tier now.
        recovered: dead letters that were tried again and are none any more.
        buried: dead letters that there are now, those that came back included.
    """

    flushed: int = 0
    recovered: int = 0
    buried: int = 0


class Below(msgspec.Struct, frozen=True):
    """Sessions of the warm tier that are not in the hot one: for which something is due, and which may be archived."""

    due: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()


class Tiering:
    """Moves sessions down the tiers; ``Rehydrating`` brings them up."""

    def __init__(
        self,
        journal: Journal,
        tiered: TieredHotStore | None,
        flushing: Flushing | None,
        archiving: Archiving,
        clock: Clock,
        *,
        suspend_after: float | None,
        archive_after: float | None,
    ) -> None:
        """The times are seconds without a write, None for never."""
        self._journal, self._tiered, self._flushing, self._archiving = journal, tiered, flushing, archiving
        self._clock, self._suspend_after, self._archive_after = clock, suspend_after, archive_after

    @property
    def tiered(self) -> bool:
        return self._tiered is not None

    async def flush(self, session: str | None = None) -> None:
        """Copy to the warm tier what it does not have yet, of a session or of all."""
        if self._flushing is None:
            return
        if session is None:
            await self._flushing.drain()
        else:
            await self._flushing.session(session)

    async def drain(self, *, retry: bool) -> Flushed:
        """Flush all that waits, if asked to the dead letters too; what came of it.

        Other processes may do some of it: their writes are not counted, but what has become of the letters is.
        """
        if self._tiered is None or self._flushing is None:
            return Flushed()
        before = self._flushing.flushed
        tried = await self._tiered.buried(limit=_MOST_LETTERS) if retry else []
        if retry:
            await self._tiered.exhume()
        await self._flushing.drain()
        left = [letter.session for letter in await self._tiered.buried(limit=_MOST_LETTERS)]
        again = set(left)
        recovered = sum(letter.session not in again for letter in tried)
        return Flushed(self._flushing.flushed - before, recovered, len(left))

    async def answers(self) -> bool:
        """Whether a hot tier of its own answers; where hot and warm are one that is not asked."""
        try:
            if self._tiered is not None:
                await self._tiered.head("-")
        except HoldfastError:
            return False
        return True

    async def settle(self) -> None:
        """Let this process's own writes be found in listings, which are the warm tier's."""
        if self._flushing is not None:
            await self._flushing.settle()

    async def rest(self, session: str) -> bool:
        """Let the hot tier forget a session, once the warm tier has all of it; False if it is wanted there after all:
        it has been written to meanwhile, or a lease on it is live.
        """
        if self._tiered is None or self._flushing is None:
            return False
        loaded = await self._tiered.load(session)
        if loaded is None:
            return True
        head, items = loaded
        opened = self._journal.unseal(head)
        self._journal.unseal_items(opened, items)  # what does not add up must not become the copy
        kept = await self._flushing.session(session)
        if kept is None or kept.digest != head.digest:
            return False
        await self._journal.warm.snapshot(session, Snapshot(head.step, tuple(items)))
        due = opened.header.next_look(None, self._archive_after)
        if due is not None and (kept.due is None or due < kept.due):  # it was archived before, and only read since
            when = datetime.fromtimestamp(due, opened.header.created.tzinfo)
            await self._journal.warm.defer(session, step=head.step, due=when)
        self._journal.forget(session)
        return await self._tiered.evict(session, step=head.step, now=self._clock.now())

    async def archive(self, session: str) -> Opened:
        """Archive a session: only a stub of it is left in the warm tier.

        Raises:
            StoreUnavailableError: a tier does not answer; it is as it was.
            SessionBusyError: the session is written to again and again; it is as it was.
        """
        for _ in range(_MOST_TRIES):
            is_hot = self._tiered is not None and await self._tiered.head(session) is not None
            if is_hot and not await self.rest(session):
                continue
            standing = await self._standing(session)
            if standing is None:
                continue
            head, items = standing
            opened = self._journal.unseal(head)
            if head.archive is not None:
                return opened
            if not await self._archiving.write(opened, head, items):
                continue
            self._journal.forget(session)
            if self._tiered is not None and await self._tiered.head(session) is not None:
                # Somebody brought it back between its eviction and now: it lives in the hot tier, and is no stub.
                await self._archiving.restore(await self._stub(session))
                continue
            due = opened.header.next_look(None)
            when = None if due is None else datetime.fromtimestamp(due, opened.header.created.tzinfo)
            await self._journal.warm.defer(session, step=head.step, due=when)
            return self._journal.unseal(await self._stub(session))
        raise SessionBusyError(session)

    async def archive_idle(self, session: str) -> bool:
        """Archive a session that was found idle a while ago, unless it has been worked on since; whether it was."""
        hot = await self._journal.hot.head(session)
        head = hot if self._tiered is None else await self._journal.warm.head(session)
        if head is None or head.archive is not None or (hot is not None and self._tiered is not None):
            return False
        header, now = self._journal.unseal(head).header, self._clock.now()
        if not self._is_over(header, self._archive_after, now):
            return False
        if self._tiered is None and self.wanted(header, now) is not Tier.ARCHIVED:
            return False
        await self.archive(session)
        return True

    async def _standing(self, session: str) -> tuple[SealedHead, Sequence[SealedItem]] | None:
        """A session that is not in the hot tier, as it stands with all its items; None if that is to be looked for
        again.
        """
        if self._tiered is None:
            return await self._journal.hot.load(session)
        head = await self._stub(session)
        if head.archive is not None:
            return head, ()
        snapshot = await self._journal.warm.items(session)
        if snapshot is None or snapshot.step != head.step:
            await self._journal.load(session)  # it came here without one, and gets one on its way back
            return None
        return head, snapshot.items

    async def purge(self, opened: Opened) -> None:
        """Leave of a gone session a tombstone, in the warm tier, and nothing in the hot one where they are two."""
        session, step = opened.header.id, opened.header.step
        if self._tiered is None or self._flushing is None:
            await self._journal.hot.purge(session)
        else:
            await self._flushing.session(session)
            await self._journal.warm.purge(session)
            await evicted(self._tiered, session, step=step, now=self._clock.now())
        self._journal.forget(session)

    def wanted(self, header: Header, now: datetime) -> Tier | None:
        """Where the idle policies want a session that is in the hot tier; None for there."""
        if header.status in GONE or header.publication is not None or header.stale:
            return None
        if self._tiered is None:
            return Tier.ARCHIVED if self._is_over(header, self._archive_after, now) else None
        after = [seconds for seconds in (self._suspend_after, self._archive_after) if seconds is not None]
        if not after:
            return None
        # What is to be archived leaves the hot tier first; the warm tier's list says when its archive is due.
        resting = header.tier is Tier.DORMANT or self._is_over(header, min(after), now)
        return Tier.DORMANT if resting else None

    async def put_off(self, head: Header) -> None:
        """Let a session that is to be archived, where the tiers are one, make room on the sweeper's list for others;
        it is listed again in a minute, archived or not.
        """
        now = self._clock.now()
        again = _sooner(now + _AGAIN, head.next_look(None))
        await self._journal.hot.defer(head.id, step=head.step, due=again)
        self._journal.forget(head.id)

    async def due_below(self, limit: int) -> Below:
        """What is to be done for sessions of the warm tier that no longer are in the hot one.

        Those to be archived are listed again a minute later, so that they hide no others meanwhile.
        """
        if self._tiered is None:
            return Below()
        warm, found, idle = self._journal.warm, list[str](), list[str]()
        now = self._clock.now()
        for session in await warm.due(now=now, limit=limit):
            kept, hot = await asyncio.gather(warm.head(session), self._tiered.head(session))
            if kept is None:
                continue
            if hot is not None:  # its turn comes by the hot tier's own list
                when = None if hot.due is None else datetime.fromtimestamp(hot.due, now.tzinfo)
                if when is None or when > now:
                    await warm.defer(session, step=kept.step, due=when)
                continue
            try:
                header = self._journal.unseal(kept).header
            except HoldfastError:
                found.append(session)  # whoever opens it says what is wrong
                continue
            rest = None if kept.archive is not None else self._archive_after
            due, other = header.next_look(None, rest), header.next_look(None)
            if other is not None and other <= now.timestamp():
                found.append(session)
                continue
            if self._is_over(header, rest, now):
                idle.append(session)
                await warm.defer(session, step=kept.step, due=_sooner(now + _AGAIN, other))
                continue
            when = None if due is None else datetime.fromtimestamp(due, now.tzinfo)
            await warm.defer(session, step=kept.step, due=when)
        return Below(tuple(found), tuple(idle))

    async def state(self) -> Tiers:
        """How far each tier is; what does not answer within a second is left out."""
        warm = await _asked(self._journal.warm.size())
        if self._tiered is None:
            return Tiers(False, warm=warm)
        hot, flush, buried = await asyncio.gather(
            _asked(self._tiered.size()), _asked(self._tiered.backlog()), _asked(self._tiered.buried(limit=_MOST_BURIED))
        )
        return Tiers(True, flush, tuple(buried or ()), hot, warm)

    async def retry(self) -> int:
        """Put the dead letters back on the flush queue; how many."""
        return 0 if self._tiered is None else await self._tiered.exhume()

    async def letters(self) -> dict[str, str]:
        """Why sessions could not be flushed, by session: the dead letters, of every tenant."""
        if self._tiered is None:
            return {}
        return {one.session: one.reason for one in await self._tiered.buried(limit=_MOST_LETTERS)}

    async def _stub(self, session: str) -> SealedHead:
        head = await self._journal.warm.head(session)
        if head is None:
            raise SessionNotFoundError(session)
        return head

    def _is_over(self, header: Header, seconds: float | None, now: datetime) -> bool:
        return (
            seconds is not None
            and header.status is not Status.LOCKED
            and header.updated + timedelta(seconds=seconds) <= now
        )


def _sooner(time: datetime, other: float | None) -> datetime:
    """The earlier of two times, the other in epoch seconds if there is one."""
    return time if other is None else min(time, datetime.fromtimestamp(other, time.tzinfo))


async def _asked(question: Awaitable[Answer]) -> Answer | None:
    try:
        return await asyncio.wait_for(question, _MOST_WAIT)
    except (HoldfastError, TimeoutError):
        return None
