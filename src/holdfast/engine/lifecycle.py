"""Steps of a session's life: whatever changes the header and not the items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.engine.journal import Journal, Step
from holdfast.engine.opened import Opened
from holdfast.engine.sealing import fingerprint
from holdfast.errors import (
    ChangeIdReusedError,
    InvalidChangeError,
    LockHeldError,
    NotDraftError,
    PublicationPendingError,
    SessionGoneError,
    StoreUnavailableError,
    VersionConflictError,
)
from holdfast.model.access import SYSTEM, Role
from holdfast.model.cursor import Seen
from holdfast.model.limits import check_limit
from holdfast.model.session import GONE, LIFECYCLE, Header, Lock, Status, Tier
from holdfast.model.text import check_text
from holdfast.ports.clock import Chance, Clock

_MOST_TRIES = 1_000
_MOST_TITLE = 500
_MOST_NAME = 200


class Turn(msgspec.Struct, frozen=True):
    """What a step changes: the header (its status is the table's), notes by key, and what the log says of it."""

    header: Header
    notes: Mapping[str, Any] = {}
    detail: dict[str, Any] = {}


class Sent(msgspec.Struct, frozen=True):
    """What a step was asked under.

    Attributes:
        change: the change id; empty where none was named.
        fingerprint: what tells a resend of the request from another one.
        expected: the version its author saw, if the step is for no other.
    """

    change: str = ""
    fingerprint: bytes = b""
    expected: int | Seen | None = None

    @classmethod
    def under(cls, change_id: str | None, expected: int | Seen | None, verb: str, asked: object = None) -> Sent:
        """``asked`` is what was asked beside the verb."""
        if change_id is None:
            return cls(expected=expected)
        check_text("a change id", change_id, most=_MOST_NAME)
        return cls(change_id, fingerprint(verb, asked), expected)


_UNNAMED = Sent()


Decide = Callable[[Opened], "Turn | None"]


class Lifecycle:
    """Takes sessions through the table of ``model.session.LIFECYCLE``."""

    def __init__(self, journal: Journal, clock: Clock, chance: Chance) -> None:
        self._journal, self._clock, self._chance = journal, clock, chance

    async def step(
        self,
        opened: Opened,
        verb: str,
        actor: str,
        decide: Decide,
        *,
        notes: bool = False,
        timed: bool = False,
        sent: Sent = _UNNAMED,
    ) -> Opened:
        """Take one step, deciding again if another writer was first.

        Args:
            decide: what to change, None for nothing; raises where it cannot be.
            notes: whether the step needs the session's notes to decide or to write.
            timed: the step carries out what time has brought about, so it starts from the status as stored.
            sent: under a change id, the same again changes nothing, and answers with the session as it stands.
        Raises:
            ChangeIdReusedError: something else was asked under that change id before.
            VersionConflictError: the session is not at the version its author saw.
            NotDraftError, SessionGoneError: the table has no such step from the status the session is in.
        """
        session = opened.header.id
        for _ in range(_MOST_TRIES):
            if notes and not opened.loaded:
                opened = await self._journal.load(session)
            told = opened.cipher.request_id(sent.fingerprint, actor) if sent.change else b""
            if sent.change and (first := await self._journal.log.change(opened, sent.change)) is not None:
                if first.header.fingerprint != told:
                    raise ChangeIdReusedError(sent.change)
                await self._journal.confirm(session, first.step, first.digest)
                return opened
            await self.check_seen(opened, sent.expected)
            status = opened.header.status if timed else self.check(opened.header, verb)
            turn = decide(opened)
            if turn is None and sent.change:
                turn = Turn(opened.header)  # nothing to do, which is remembered as the answer
            if turn is None or status not in LIFECYCLE[verb]:
                return opened
            step = Step(
                replace(turn.header, status=LIFECYCLE[verb][status]),
                verb,
                actor,
                sent.change or self._chance.token(),
                told,
                notes=turn.notes,
                detail=turn.detail,
            )
            following = await self._journal.append(opened, step)
            if following is not None:
                return following
            opened = await self._journal.open(session)
        raise StoreUnavailableError("hot", f"{_MOST_TRIES} other writes were first")

    async def again(self, opened: Opened) -> Opened:
        """The session as it stands now."""
        return await self._journal.open(opened.header.id)

    def check(self, header: Header, verb: str) -> Status:
        """The status the session is in now; raises unless the table has the step from there."""
        status = header.status_at(self._clock.now())
        if status not in LIFECYCLE[verb]:
            if status in GONE:
                raise SessionGoneError(header.id, status.value, header.restorable_until)
            lock = header.lock if status is Status.LOCKED else None
            if lock is None:
                raise NotDraftError(header.id, status.value, verb)
            raise NotDraftError(header.id, status.value, verb, lock.owner, lock.until)
        return status

    async def check_seen(self, opened: Opened, expected: int | Seen | None) -> None:
        """Raise ``VersionConflictError`` unless a session is at the version somebody saw."""
        version = expected.version if isinstance(expected, Seen) else expected
        if version is not None and version != opened.header.version:
            raise VersionConflictError(opened.header.id, version, opened.header.version)
        await self.check_history(opened, expected)

    async def check_history(self, opened: Opened, expected: int | Seen | None) -> None:
        """Raise unless what somebody saw is of this history, and not of one that a lost disk has replaced."""
        if isinstance(expected, Seen) and not await self._journal.log.has(opened, expected):
            raise VersionConflictError(opened.header.id, expected.version, opened.header.version)

    async def settle(self, opened: Opened) -> Opened:
        """Take down a lock that has lapsed, so that the log tells of it before anything else happens."""
        header = opened.header
        if header.status is Status.LOCKED and header.status_at(self._clock.now()) is Status.DRAFT:
            return await self.step(opened, "unlock", SYSTEM, self._lapse, timed=True)
        return opened

    async def lock(self, opened: Opened, actor: str, seal: str, seconds: float) -> Opened:
        """Hold a draft still for its preview; by whom it is held already, the lock is renewed for the new seal."""
        until = self._clock.now() + timedelta(seconds=seconds)
        lock = Lock(actor, until, seal)

        def decide(now: Opened) -> Turn:
            held = now.header.lock
            if now.header.status is Status.LOCKED and held is not None:
                if held.owner != actor:
                    raise LockHeldError(held.owner, held.until)
                self.check_idle(now.header)
            return Turn(replace(now.header, lock=lock, failure=None), detail={"seal": seal})

        if opened.header.status is Status.LOCKED:
            decide(opened)
        verb = "lock" if opened.header.status is Status.DRAFT else "take-over"
        return await self.step(opened, verb, actor, decide)

    async def unlock(self, opened: Opened, actor: str, *, force: bool, sent: Sent) -> Opened:
        """Make a locked session a draft again; ``force`` for somebody else's lock."""

        def decide(now: Opened) -> Turn:
            self.check_idle(now.header)
            lock = now.header.lock
            if lock is not None and lock.owner != actor and not force:
                raise LockHeldError(lock.owner, lock.until)
            return Turn(replace(now.header, lock=None, failure=None))

        return await self.step(opened, "unlock", actor, decide, sent=sent)

    async def discard(self, opened: Opened, actor: str, grace: float, sent: Sent) -> Opened:
        """Throw a session away; for ``grace`` seconds it can be had back."""

        def decide(now: Opened) -> Turn:
            self.check_idle(now.header)
            return Turn(gone(now.header, self._clock.now() + timedelta(seconds=grace)))

        return await self.step(opened, "discard", actor, decide, sent=sent)

    async def suspend(self, opened: Opened, actor: str, sent: Sent) -> Opened:
        """Set a session to rest: whatever is written next wakes it."""

        def decide(now: Opened) -> Turn | None:
            self.check_idle(now.header)
            resting = now.header.tier is Tier.DORMANT
            return None if resting else Turn(replace(now.header, tier=Tier.DORMANT))

        return await self.step(opened, "suspend", actor, decide, sent=sent)

    async def rename(self, opened: Opened, actor: str, title: str, sent: Sent) -> Opened:
        """Give a session another title."""
        check_title(title)
        return await self.step(
            opened,
            "rename",
            actor,
            lambda now: Turn(replace(now.header, title=title), detail={"title": title}),
            sent=sent,
        )

    def _lapse(self, opened: Opened) -> Turn | None:
        header = opened.header
        if header.lock is None or header.status_at(self._clock.now()) is not Status.DRAFT:
            return None
        return Turn(replace(header, lock=None), detail={"reason": "the lock lapsed", "owner": header.lock.owner})

    async def grant(
        self, opened: Opened, actor: str, principal: str, role: Role | None, most: int, sent: Sent
    ) -> Opened:
        """Give a principal a role on a session, or (None) take it away; ``most`` grants in all."""
        if role is Role.OWNER:
            raise InvalidChangeError("a session has one owner; grant editor, participant or viewer")
        check_text("a principal's id", principal, most=_MOST_NAME)

        def decide(now: Opened) -> Turn | None:
            grants = {id_: held for id_, held in now.header.grants.items() if id_ != principal}
            if role is not None:
                grants[principal] = role
            if grants == now.header.grants:
                return None
            check_limit("grants on a session", len(grants), most)
            return Turn(replace(now.header, grants=grants), detail={"principal": principal, "role": role})

        return await self.step(opened, "grant", actor, decide, sent=sent)

    def check_idle(self, header: Header) -> None:
        """Raise ``PublicationPendingError`` while a publication of the session is under way."""
        if header.publication is not None:
            raise PublicationPendingError(header.id)


def check_title(title: str) -> None:
    """Raise unless a title is short enough."""
    check_text("a title", title, most=_MOST_TITLE, least=0)


def gone(header: Header, until: datetime) -> Header:
    """The header of a session that is discarded or expired."""
    return replace(header, lock=None, restorable_until=until, expires=None, expiring_since=None, warned=0)
