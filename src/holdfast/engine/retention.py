"""How long sessions are kept: touch, extend, warn, expire, have back, purge. Expiry is the sweeper's, never
traffic's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from holdfast.engine.audit import Audit
from holdfast.engine.blobs import Blobs
from holdfast.engine.journal import Journal
from holdfast.engine.lifecycle import Lifecycle, Sent, Turn, gone
from holdfast.engine.opened import Opened
from holdfast.engine.tiering import Below, Tiering
from holdfast.errors import HoldfastError, InvalidChangeError, LimitExceededError, SessionGoneError, UnavailableError
from holdfast.model.access import SYSTEM, Principal
from holdfast.model.retention import warning_times
from holdfast.model.session import GONE, Header, Status, Tier
from holdfast.ports.clock import Clock

_AT_ONCE = 256
_ARCHIVES = 8
"""Sessions that are archived at a time; then it is looked for what has become due meanwhile."""
_MOST_IDLE = 4_096
"""Sessions to be archived that are remembered, while others are looked for that something is due for."""


class Swept(msgspec.Struct):
    """What a sweep did, in sessions.

    ``rested`` went down a tier; ``failed`` names those it could not read, with the code of the error, and under no name
    that of a warm tier which did not answer.
    """

    warned: int = 0
    expired: int = 0
    unlocked: int = 0
    purged: int = 0
    recovered: int = 0
    rested: int = 0
    failed: dict[str, str] = {}

    @property
    def total(self) -> int:
        return self.warned + self.expired + self.unlocked + self.purged + self.recovered + self.rested


Recover = Callable[[Opened], Awaitable[Opened]]


class Retaining:
    """Moves sessions along their time to live."""

    def __init__(
        self,
        journal: Journal,
        lifecycle: Lifecycle,
        blobs: Blobs,
        audit: Audit,
        tiering: Tiering,
        clock: Clock,
        grace: float,
    ) -> None:
        self._journal, self._lifecycle, self._blobs, self._audit = journal, lifecycle, blobs, audit
        self._tiering, self._clock, self._grace = tiering, clock, grace

    async def touch(self, opened: Opened, actor: str, sent: Sent) -> Opened:
        """Start a sliding time to live anew; a fixed one is left as it is."""
        return await self._lifecycle.step(opened, "touch", actor, lambda now: self._slid(now.header), sent=sent)

    async def extend(self, opened: Opened, actor: str, seconds: float | None, sent: Sent) -> Opened:
        """Keep a session for ``seconds`` from now, or for good.

        Raises:
            LimitExceededError: beyond the session's maximum.
        """
        if seconds is not None and not 0 < seconds < 1e10:
            raise InvalidChangeError(
                f"a session is kept for a number of seconds above 0 and below 10,000,000,000, not {seconds:g}"
            )

        def decide(now: Opened) -> Turn:
            header, here = now.header, self._clock.now()
            retention = replace(header.retention, ttl=seconds)
            if seconds is None:
                if header.retention.maximum is not None:
                    raise LimitExceededError("seconds to live", 10**10, int(header.retention.maximum))
                header = replace(header, retention=retention, expires=None, expiring_since=None, warned=0)
                return Turn(header, detail={"expires": None})
            expires = here + timedelta(seconds=seconds)
            bound = retention.until(header.created, here)
            if bound is not None and bound < expires:
                asked = int((expires - header.created).total_seconds())
                raise LimitExceededError("seconds to live", asked, int(retention.maximum or 0))
            header = replace(header, retention=retention, expires=expires, expiring_since=here, warned=0)
            return Turn(header, detail={"expires": expires.isoformat()})

        return await self._lifecycle.step(opened, "extend", actor, decide, sent=sent)

    async def revive(self, opened: Opened, actor: str, sent: Sent) -> Opened:
        """Take a discarded or expired session back within its grace; its time to live starts anew."""

        def decide(now: Opened) -> Turn:
            header, here = now.header, self._clock.now()
            until = header.restorable_until
            if header.status not in GONE and header.expires is not None:  # expired, and not swept yet
                until = here + timedelta(seconds=self._grace)
            if until is None or until <= here:
                raise SessionGoneError(header.id, header.status_at(here).value, None)
            header = replace(header, restorable_until=None, lock=None, failure=None, warned=0)
            if header.retention.ttl is None:
                return Turn(replace(header, expires=None, expiring_since=None))
            retention = header.retention
            bounded = retention.until(header.created, here)
            if bounded is not None and bounded <= here:  # its maximum is over: it comes back for one more time to live
                bounded = replace(retention, maximum=None).until(header.created, here)
            return Turn(replace(header, expires=bounded, expiring_since=here))

        return await self._lifecycle.step(opened, "revive", actor, decide, sent=sent)

    async def sweep(self, recover: Recover) -> Swept:
        """Do what is due everywhere: in the hot tier, then below it; archives come last, for the cold tier may be slow.

        Several may sweep at a time: each step is taken once.
        """
        swept = Swept(failed={})
        tried: set[str] = set()
        idle: dict[str, None] = {}  # to be archived
        while True:
            most = _AT_ONCE + len(swept.failed)
            due = await self._journal.hot.due(now=self._clock.now(), limit=most)
            done = await self._each(due, tried, idle, swept, recover)
            below = await self._below(most, swept)
            more = [session for session in below.idle if session not in idle and session not in swept.failed]
            idle |= dict.fromkeys(more)
            done += await self._each(below.due, tried, idle, swept, recover)
            if (done or more) and len(idle) < _MOST_IDLE:
                continue
            if idle:
                batch = [*idle][:_ARCHIVES]
                await asyncio.gather(*(self._archive(session, swept) for session in batch))
                for session in batch:
                    del idle[session]
            elif not done:
                return swept

    async def _below(self, most: int, swept: Swept) -> Below:
        if "" in swept.failed:
            return Below()
        try:
            return await self._tiering.due_below(most)
        except UnavailableError as error:  # what is in the hot tier does not wait for the warm one
            swept.failed[""] = error.code
            return Below()

    async def _each(
        self, ids: Sequence[str], tried: set[str], idle: dict[str, None], swept: Swept, recover: Recover
    ) -> int:
        """What is due for each of some sessions that was not tried before; how many those were."""
        fresh = [session for session in ids if session not in tried]
        tried.update(fresh)
        for session in fresh:
            with _noting(session, swept):
                if await self._one(session, swept, recover):
                    idle[session] = None
        return len(fresh)

    async def _archive(self, session: str, swept: Swept) -> None:
        with _noting(session, swept):  # the cold tier being gone is nothing to those that need it not
            if await self._tiering.archive_idle(session):
                swept.rested += 1

    async def purge(self, opened: Opened) -> None:
        """Remove a gone session from every tier; what stays is a tombstone, and the log's headers without their
        content.
        """
        header = opened.header
        if not header.purged:
            opened = await self._lifecycle.step(
                opened,
                "purge",
                SYSTEM,
                lambda now: None if now.header.purged else Turn(replace(now.header, purged=True)),
                timed=True,
            )
        system = Principal(SYSTEM, header.tenant)
        self._audit.note(system, "purge", header.id, header.version, proof=opened.header.digest.hex())
        await self._audit.flush()
        await self._blobs.drop(header.id)
        await self._tiering.purge(opened)

    async def _one(self, session: str, swept: Swept, recover: Recover) -> bool:
        """Everything that is due for one session, then when to look next; whether it is to be archived."""
        try:
            opened = await self._journal.open(session)
        except SessionGoneError:
            return False
        while True:
            header, now = opened.header, self._clock.now()
            if header.status in GONE:
                if header.purged or header.restorable_until is None or header.restorable_until <= now:
                    await self.purge(opened)
                    swept.purged += 1
                    return False
                break
            if header.publication is not None and header.publication.until <= now:
                opened = await recover(opened)
                swept.recovered += 1
            elif header.status_at(now) is Status.EXPIRED:
                opened = await self._expire(opened)
                swept.expired += 1
            elif header.status is Status.LOCKED and header.status_at(now) is Status.DRAFT:
                opened = await self._lifecycle.settle(opened)
                swept.unlocked += 1
            elif self._warnings_due(header, now) > header.warned:
                opened = await self._warn(opened)
                swept.warned += 1
            else:
                break
        wanted = self._tiering.wanted(opened.header, now)
        if wanted is Tier.ARCHIVED:
            await self._tiering.put_off(opened.header)
            return True
        if wanted is not None and await self._rest(opened, now):
            swept.rested += 1
            return False
        due = self._journal.next_look(opened.header)
        if due != opened.due:
            when = None if due is None else datetime.fromtimestamp(due, now.tzinfo)
            await self._journal.hot.defer(session, step=opened.header.step, due=when)
            self._journal.forget(session)
        return False

    async def _rest(self, opened: Opened, now: datetime) -> bool:
        """Take a session out of the hot tier, unless a lease on it is live; whether it was."""
        session = opened.header.id
        if await self._journal.hot.lease(session, now=now) is not None:
            return False
        if opened.header.tier is Tier.ACTIVE:
            await self._lifecycle.suspend(opened, SYSTEM, Sent())
        return await self._tiering.rest(session)

    async def _expire(self, opened: Opened) -> Opened:
        def decide(now: Opened) -> Turn | None:
            here = self._clock.now()
            if now.header.status_at(here) is not Status.EXPIRED or now.header.expires is None:
                return None
            until = max(now.header.expires, here) + timedelta(seconds=self._grace)
            return Turn(gone(now.header, until), detail={"restorable_until": until.isoformat()})

        return await self._lifecycle.step(opened, "expire", SYSTEM, decide, timed=True)

    async def _warn(self, opened: Opened) -> Opened:
        def decide(now: Opened) -> Turn | None:
            header, here = now.header, self._clock.now()
            due = self._warnings_due(header, here)
            if due <= header.warned or header.expires is None:
                return None
            left = (header.expires - here).total_seconds()
            detail = {"warning": due, "expires": header.expires.isoformat(), "seconds_left": round(left, 3)}
            return Turn(replace(header, warned=due), detail=detail)

        return await self._lifecycle.step(opened, "warn", SYSTEM, decide, timed=True)

    def _warnings_due(self, header: Header, now: datetime) -> int:
        if header.expires is None or header.expiring_since is None:
            return 0
        return sum(time <= now for time in warning_times(header.expiring_since, header.expires))

    def _slid(self, header: Header) -> Turn | None:
        if not header.retention.sliding or header.expires is None:
            return None
        now = self._clock.now()
        expires = header.retention.until(header.created, now)
        return Turn(replace(header, expires=expires, expiring_since=now, warned=0))


@contextmanager
def _noting(session: str, swept: Swept) -> Iterator[None]:
    """Note what goes wrong with one session: one that is broken, be it in a new way, must not end the sweep of the
    others.
    """
    try:
        yield
    except Exception as error:
        swept.failed[session] = error.code if isinstance(error, HoldfastError) else type(error).__name__
