"""The engine: one short method a verb.

Each verb asks whether the principal may, before any data is touched, then decides, writes, and leaves its line in the
audit: changes in the session's own log, reads and refusals in the audit chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import Any, overload

import msgspec
from msgspec.structs import replace

from holdfast.engine.answering import Answering
from holdfast.engine.archiving import Archiving
from holdfast.engine.aside import Aside
from holdfast.engine.audit import Audit
from holdfast.engine.authoring import Ask, Authoring, Edit, check_operation
from holdfast.engine.blobs import Blobs
from holdfast.engine.catalogue import Catalogue, Page
from holdfast.engine.creating import Creating, Start
from holdfast.engine.editing import Committed, Decision, Editing
from holdfast.engine.feed import Feed, FeedPage
from holdfast.engine.flushing import Flushing
from holdfast.engine.gate import Gate, hidden
from holdfast.engine.history import History
from holdfast.engine.journal import Journal
from holdfast.engine.labels import Label, Labels
from holdfast.engine.leasing import Leasing
from holdfast.engine.lifecycle import Lifecycle, Sent
from holdfast.engine.log import Log
from holdfast.engine.opened import Opened
from holdfast.engine.publishing import Preview, Progress, Publishing
from holdfast.engine.rehydrating import Rehydrating
from holdfast.engine.repairing import Repairing
from holdfast.engine.retention import Retaining, Swept
from holdfast.engine.revoking import Revoking
from holdfast.engine.rotation import KeyIds, Rotated, Rotation
from holdfast.engine.sealing import KeyRing
from holdfast.engine.tiering import Flushed, Tiering, Tiers
from holdfast.engine.trail import Trail
from holdfast.engine.unsealing import Unsealing
from holdfast.engine.verification import Verification, Verified
from holdfast.errors import InvalidChangeError, SessionNotFoundError, StoreFullError, UnknownKindError
from holdfast.model.access import SYSTEM, Principal, Role
from holdfast.model.audit import AuditLine
from holdfast.model.cursor import Seen
from holdfast.model.difference import Difference
from holdfast.model.entry import Entry
from holdfast.model.lease import Lease
from holdfast.model.limits import Limits, check_limit
from holdfast.model.retention import Retention
from holdfast.model.revocation import Revocation
from holdfast.model.session import Header, SealedHead, Session, Tier
from holdfast.model.text import check_text
from holdfast.ports.clock import Chance, Clock
from holdfast.ports.cold import ColdStore
from holdfast.ports.hot import HotStore, TieredHotStore
from holdfast.ports.kind import Kind
from holdfast.ports.observer import Lags, Observer
from holdfast.ports.sink import Hit, Receipt, Sink
from holdfast.ports.warm import Query, WarmStore

_MOST_PER_PAGE = 1_000
_MOST_AT_ONCE, _ROOM_AT_ONCE = 100, 1_000_000
"""Entries, and bytes of them, that a follower is given at a time: a slow reader holds no more of a log than that, or
than one entry.
"""
_MOST_WAIT = 2.0
"""Seconds that whoever asks for the state of the tiers waits for one that does not answer."""
_LONGEST_LOCK = 604_800.0
_MOST_SOURCE_NAME = 1_000
_MOST_SPLIT = 2
"""Source documents that are read at a time, each of which may keep a core."""


class Policy(msgspec.Struct, frozen=True):
    """What of the settings the engine decides by; times in seconds.

    ``suspend_after`` and ``archive_after`` are how long after its last write a session is set to rest in the warm tier,
    and in the cold one; None for never. ``durability`` is what an acknowledged write survives: ``hot``, ``disk``,
    ``warm``.
    ``token`` is how long the service may believe a token from its issue on, differences between clocks included.
    ``keep_revisions`` are kept in a sink to roll back to; ``keep_sessions`` and ``keep_bytes`` bound what is at hand in
    memory.
    """

    limits: Limits = Limits()
    retention: Retention = Retention()
    grace: float = 604_800.0
    lock: float = 900.0
    lease: float = 30.0
    suspend_after: float | None = 3_600.0
    archive_after: float | None = None
    durability: str = "disk"
    token: float = 86_520.0
    keep_revisions: int = 5
    keep_sessions: int = 1_000
    keep_bytes: int = 256_000_000


class Engine:
    """Everything that can be done with sessions. Made by ``open_engine``; one to an event loop.

    ``tiered`` is the hot store where it is apart from the warm one, None where the two are one.
    ``revoking`` is for whoever verifies tokens: what is revoked, of every tenant.
    ``answering`` is for whoever tells an operator of the tiers.
    """

    def __init__(
        self,
        *,
        hot: HotStore,
        tiered: TieredHotStore | None,
        warm: WarmStore,
        cold: ColdStore,
        ring: KeyRing,
        kinds: Mapping[str, Kind],
        sinks: Callable[[str], Sink],
        clock: Clock,
        chance: Chance,
        policy: Policy,
        observer: Observer | None = None,
    ) -> None:
        self.kinds, self.policy, self._sinks = kinds, policy, sinks
        self._clock, self._observer, self._swept = clock, observer, clock.now()
        limits = policy.limits
        after = (policy.archive_after,) if tiered is None else (policy.suspend_after, policy.archive_after)
        rest = min((seconds for seconds in after if seconds is not None), default=None)
        self._blobs = blobs = Blobs(cold)
        self.answering = Answering(hot, warm, blobs)
        unsealing, log = Unsealing(ring, chance), Log(hot, warm, tiered)
        archiving = Archiving(warm, blobs, unsealing, chance)
        rehydrating = Rehydrating(hot, tiered, warm, archiving, unsealing, log, clock, rest)
        log.bring = rehydrating.bring
        self._journal = journal = Journal(
            hot,
            warm,
            log,
            unsealing,
            rehydrating,
            clock,
            chance,
            keep=policy.keep_sessions,
            keep_bytes=policy.keep_bytes,
            rest=rest,
            observer=observer,
        )
        self._flushing = None if tiered is None else Flushing(tiered, warm, unsealing, chance.token(), observer)
        if self._flushing is not None:
            journal.landed = self._flushing.kept if policy.durability == "warm" else self._flushing.wake
        self._tiering = tiering = Tiering(
            journal,
            tiered,
            self._flushing,
            archiving,
            clock,
            suspend_after=policy.suspend_after,
            archive_after=policy.archive_after,
        )
        self._aside = Aside(_MOST_SPLIT)
        editing = Editing(journal, clock, kinds, limits, policy.durability)
        self._lifecycle = lifecycle = Lifecycle(journal, clock, chance)
        self._history = history = History(journal)
        self._audit = audit = Audit(warm, ring, clock, chance)
        self._gate = gate = Gate(journal, lifecycle, audit, clock)
        self._catalogue = Catalogue(warm, gate)
        self._labels = Labels(lifecycle, history, clock, limits)
        self._leasing = Leasing(hot, lifecycle, clock, policy.lease)
        self._authoring = Authoring(gate, editing, history, lifecycle, kinds, limits, chance)
        longest = policy.retention.maximum
        self._creating = Creating(journal, editing, blobs, ring, kinds, limits, clock, chance, longest=longest)
        self._feed = Feed(journal)
        self._retaining = Retaining(journal, lifecycle, blobs, audit, tiering, clock, policy.grace)
        self._publishing = Publishing(
            journal,
            lifecycle,
            editing,
            self._labels,
            blobs,
            kinds,
            sinks,
            clock,
            chance,
            keep=policy.keep_revisions,
        )
        self._trail = Trail(journal, gate, audit)
        self._verification = Verification(journal, blobs, audit, tiering, archiving)
        self._repairing = Repairing(journal, tiered, tiering, unsealing, blobs, clock, chance)
        self._rotation = Rotation(journal, tiering, ring, self._catalogue, audit)
        self.revoking = Revoking(warm, policy.token)

    # -- making and finding ------------------------------------------------------------------------------------------

    async def create(
        self,
        who: Principal,
        *,
        kind: str,
        title: str = "",
        items: Iterable[tuple[str, Any]] = (),
        retention: Retention | None = None,
        target: str | None = None,
        change_id: str | None = None,
    ) -> Session:
        """Make a draft of a kind, at version 1; ``items`` are keys and bodies in order."""
        with self._gate.asked(who, "create"):
            start = Start(kind, title, items, retention or self.policy.retention, target)
            return (await self._creating.create(who, start, change_id)).session

    async def ingest(
        self,
        who: Principal,
        data: bytes,
        name: str,
        *,
        kind: str = "knowledge",
        title: str | None = None,
        retention: Retention | None = None,
        target: str | None = None,
        change_id: str | None = None,
    ) -> Session:
        """Make a draft from a source document, which is kept sealed in the cold tier."""
        with self._gate.asked(who, "ingest"):
            check_limit("bytes of a source", len(data), self.policy.limits.source_bytes)
            check_text("a source's name", name, most=_MOST_SOURCE_NAME)
            declared = self._kind(kind)
            if declared.ingest is None:
                raise InvalidChangeError(f"a {kind} session is not made from a source document")
            split = partial(declared.ingest, data, name, most=self.policy.limits.items)
            made = await self._aside.run(split)
            start = Start(
                kind,
                made.title if title is None else title,
                made.items,
                retention or self.policy.retention,
                target,
                source={"name": name, **made.source},
                blob=data,
            )
            return (await self._creating.create(who, start, change_id)).session

    async def find(
        self,
        who: Principal,
        *,
        kind: str | None = None,
        status: str | None = None,
        tier: Tier | None = None,
        owner: str | None = None,
        text: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Sessions this principal may see, newest first; ``text`` is looked for in the title.

        While the hot tier is gone the page and its headers are marked as stale.
        """
        with self._gate.asked(who, "find") as asked:
            answers, _ = await asyncio.gather(self._tiering.answers(), self._tiering.settle())
            is_member = not who.roles & {"admin", "auditor"}
            query = Query(who.tenant, owner, kind, status, who.id if is_member else None)
            page = await self._catalogue.find(who, query, text, tier, after, _bounded(limit), stale=not answers)
            asked.done()
            return page

    # -- reading -----------------------------------------------------------------------------------------------------

    @overload
    async def read(self, session_id: str, who: Principal, *, version: int | None = None) -> Session: ...
    @overload
    async def read(self, session_id: str, who: Principal, *, unless: Callable[[Header], bool]) -> Session | Header: ...
    async def read(
        self,
        session_id: str,
        who: Principal,
        *,
        version: int | None = None,
        unless: Callable[[Header], bool] | None = None,
    ) -> Session | Header:
        """A session with its items, as it stands or as it was at a version.

        Args:
            unless: says whether the asker has this state already: then the header is all there is, and no item is
                loaded.
        """
        with self._gate.asked(who, "read", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "read", load=unless is None)
            if unless is not None:
                if unless(opened.header):
                    asked.done(opened.header.version)
                    return opened.header
                if not opened.loaded:
                    opened = await self._gate.enter(session_id, who, "read", load=True)
            asked.done(opened.header.version if version is None else version)
            if version is None or version == opened.header.version:
                return opened.session
            return Session(opened.header, await self._history.as_of(opened, version))

    async def header(self, session_id: str, who: Principal) -> Header:
        """A session's header; also of one that is gone and can still be had back."""
        with self._gate.asked(who, "header", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "header", gone=True)
            asked.done(opened.header.version)
            return opened.header

    async def history(
        self, session_id: str, who: Principal, *, before: int | None = None, limit: int = 50
    ) -> list[Entry]:
        """Commits and steps, newest first, below a step. A page of large entries ends early; the last is empty."""
        with self._gate.asked(who, "history", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "history")
            asked.done(opened.header.version)
            return await self._history.page(opened, before=before, limit=_bounded(limit))

    async def diff(self, session_id: str, who: Principal, before: int, after: int) -> list[Difference]:
        """What differs between two versions."""
        with self._gate.asked(who, "diff", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "diff", load=True)
            asked.done(opened.header.version)
            return await self._history.diff(opened, before, after)

    async def feed(self, session_id: str, who: Principal, *, after: str | None = None, limit: int = 100) -> FeedPage:
        """Commits and steps in order, beyond a cursor; from the first without one."""
        with self._gate.asked(who, "feed", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "feed", gone=True)
            asked.done(opened.header.version)
            return await self._feed.page(opened, after, _bounded(limit))

    async def follow(
        self, session_id: str, who: Principal, *, after: str | None = None, idle: float | None = None
    ) -> AsyncGenerator[FeedPage]:
        """The feed as it grows: a page whenever there is more. It ends, with the error, once the right to it does.

        Args:
            idle: after so many seconds without news comes a page without entries.
        """
        with self._gate.asked(who, "follow", session_id) as asked:

            async def read(cursor: str | None) -> FeedPage:
                opened = await self._gate.enter(session_id, who, "feed", gone=True)
                asked.begun(opened.header.version)
                return await self._feed.page(opened, cursor, _MOST_AT_ONCE, _ROOM_AT_ONCE)

            async for page in self._feed.follow(session_id, after, read, idle):
                yield page

    async def export(self, session_id: str, who: Principal) -> dict[str, Any]:
        """A session whole, as plain data: header, items, history, labels, receipts."""
        with self._gate.asked(who, "export", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "export", load=True, gone=True)
            asked.done(opened.header.version)
            entries: list[Entry] = []
            while page := await self._journal.log.entries(opened, after=len(entries), limit=_MOST_PER_PAGE):
                entries += page
            whole = {
                "format": "holdfast-session-1",
                "header": opened.header,
                "items": [
                    {"key": item.key, "position": item.position, "version": item.version, "body": msgspec.Raw(item.raw)}
                    for item in opened.session.items
                ],
                "history": entries,
                "labels": self._labels.all(opened),
                "receipts": self._publishing.receipts(opened),
            }
            return dict(msgspec.json.decode(msgspec.json.encode(whole)))

    # -- editing -----------------------------------------------------------------------------------------------------

    def edit(
        self,
        session_id: str,
        who: Principal,
        *,
        expected: int | Seen | None = None,
        rebase: bool = False,
        change_id: str | None = None,
        group: str | None = None,
        operation: str = "edit",
        fence: int | None = None,
    ) -> Edit:
        """The one way to change a session: ``async with engine.edit(...) as draft``.

        Args:
            expected: the version its author saw; as ``Seen``, it is also checked to be of this history.
            rebase: land on a newer version if nothing read or written here has changed since; else any newer version is
                a conflict.
            change_id: the same id again with the same changes gives the first answer.
            group: commits that share it undo as one.
            fence: number of the lease held.
        Raises:
            VersionConflictError, VersionRequiredError, NotDraftError, LeaseLostError, LeaseHeldError, InvalidError,
            ...:
                on leaving the block, or on entering it where that is known already. Nothing is changed.
        """
        if operation != "edit":
            with self._gate.asked(who, "edit", session_id):
                check_operation(operation)
        return Edit(self._authoring, Ask(session_id, who, operation, expected, rebase, change_id, group, fence))

    async def operate(
        self,
        session_id: str,
        who: Principal,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        expected: int | Seen | None = None,
        rebase: bool = False,
        change_id: str | None = None,
        group: str | None = None,
        fence: int | None = None,
    ) -> Committed:
        """Run an operation of the session's kind; its arguments are checked against its declaration."""
        ask = Ask(session_id, who, operation, expected, rebase, change_id, group, fence)
        return await self._authoring.operate(ask, arguments or {})

    async def undo(
        self,
        session_id: str,
        who: Principal,
        *,
        expected: int | Seen | None,
        change_id: str | None = None,
        fence: int | None = None,
    ) -> Committed:
        """Take the last commit back, or the last group of them, with a new commit."""
        ask = Ask(session_id, who, "undo", expected, change_id=change_id, fence=fence)
        return await self._authoring.turn_back(ask, self._history.undo)

    async def redo(
        self,
        session_id: str,
        who: Principal,
        *,
        expected: int | Seen | None,
        change_id: str | None = None,
        fence: int | None = None,
    ) -> Committed:
        """Do again what the last undo took back."""
        ask = Ask(session_id, who, "redo", expected, change_id=change_id, fence=fence)
        return await self._authoring.turn_back(ask, self._history.redo)

    async def preview_undo(self, session_id: str, who: Principal) -> list[Difference]:
        """What an undo would change, without doing it."""
        with self._gate.asked(who, "undo-preview", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "undo", load=True)
            asked.done(opened.header.version)
            return await self._history.preview(opened, self._history.undo)

    async def preview_redo(self, session_id: str, who: Principal) -> list[Difference]:
        """What a redo would change, without doing it."""
        with self._gate.asked(who, "redo-preview", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "redo", load=True)
            asked.done(opened.header.version)
            return await self._history.preview(opened, self._history.redo)

    async def restore(
        self,
        session_id: str,
        who: Principal,
        to: int | str,
        *,
        expected: int | Seen | None,
        change_id: str | None = None,
        fence: int | None = None,
    ) -> Committed:
        """Take the session back to a version, or to the one a label names, with a new commit."""

        async def decide(opened: Opened) -> Decision:
            version = self._labels.get(opened, to).version if isinstance(to, str) else to
            return await self._history.restore(opened, version)

        ask = Ask(session_id, who, "restore", expected, change_id=change_id, fence=fence)
        return await self._authoring.turn_back(ask, decide, to)

    # -- labels, names, rights ---------------------------------------------------------------------------------------

    async def label(
        self,
        session_id: str,
        who: Principal,
        name: str,
        *,
        version: int | None = None,
        expected: int | Seen | None = None,
        change_id: str | None = None,
    ) -> Label:
        """Name a version, the newest by default; a name used before moves."""
        with self._gate.asked(who, "label", session_id):
            sent = Sent.under(change_id, expected, "label", (name, version))
            opened = await self._gate.settled(session_id, who, "label", load=True)
            return await self._labels.set(opened, who.id, name, version, sent)

    async def labels(self, session_id: str, who: Principal) -> list[Label]:
        """The session's labels, newest version first."""
        with self._gate.asked(who, "history", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "history", load=True)
            asked.done(opened.header.version)
            return self._labels.all(opened)

    async def rename(
        self,
        session_id: str,
        who: Principal,
        title: str,
        *,
        expected: int | Seen | None = None,
        change_id: str | None = None,
    ) -> Header:
        """Give a session another title."""
        with self._gate.asked(who, "rename", session_id):
            sent = Sent.under(change_id, expected, "rename", title)
            opened = await self._gate.settled(session_id, who, "rename")
            return (await self._lifecycle.rename(opened, who.id, title, sent)).header

    async def grant(
        self,
        session_id: str,
        who: Principal,
        principal: str,
        role: Role | None,
        *,
        expected: int | Seen | None = None,
        change_id: str | None = None,
    ) -> Header:
        """Give a principal a role on a session, or take it away."""
        with self._gate.asked(who, "grant", session_id):
            sent = Sent.under(change_id, expected, "grant", (principal, role))
            opened = await self._gate.settled(session_id, who, "grant")
            most = self.policy.limits.grants
            return (await self._lifecycle.grant(opened, who.id, principal, role, most, sent)).header

    # -- preview, publish --------------------------------------------------------------------------------------------

    async def preview(
        self, session_id: str, who: Principal, *, seconds: float | None = None, expected: int | Seen | None = None
    ) -> Preview:
        """Show what publishing would do, and lock the draft under a seal of exactly that."""
        with self._gate.asked(who, "preview", session_id):
            opened = await self._gate.settled(session_id, who, "preview", load=True)
            return await self._publishing.preview(opened, who.id, self._lock_length(seconds), expected)

    async def unlock(
        self, session_id: str, who: Principal, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Make a locked session a draft again; an admin may unlock anybody's."""
        with self._gate.asked(who, "unlock", session_id):
            sent = Sent.under(change_id, expected, "unlock")
            opened = await self._gate.settled(session_id, who, "unlock")
            return (await self._lifecycle.unlock(opened, who.id, force="admin" in who.roles, sent=sent)).header

    async def take_over(self, session_id: str, who: Principal, *, seconds: float | None = None) -> Preview:
        """Take somebody's lock over; the state its owner left is labelled first."""
        with self._gate.asked(who, "take-over", session_id):
            opened = await self._gate.settled(session_id, who, "take-over", load=True)
            return await self._publishing.take_over(opened, who.id, self._lock_length(seconds))

    async def publish(
        self, session_id: str, who: Principal, *, seal: str, progress: Progress = lambda step, done, total: None
    ) -> Receipt:
        """Publish the state a preview sealed. The same publication asked for again gives the same receipt."""
        with self._gate.asked(who, "publish", session_id):
            opened = await self._gate.settled(session_id, who, "publish", load=True)
            await self._publishing.check_target(opened, who)
            force = "admin" in who.roles
            return await self._publishing.publish(opened, who.id, seal, force=force, progress=progress)

    async def receipts(self, session_id: str, who: Principal) -> list[Receipt]:
        """The session's receipts, newest first."""
        with self._gate.asked(who, "receipts", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "receipts", load=True)
            asked.done(opened.header.version)
            return self._publishing.receipts(opened)

    async def rollback(self, session_id: str, who: Principal) -> Receipt:
        """Make what was live before this session's publication live again."""
        with self._gate.asked(who, "rollback", session_id):
            opened = await self._gate.enter(session_id, who, "rollback", load=True, stale=False)
            return await self._publishing.rollback(opened, who.id)

    async def reopen(self, session_id: str, who: Principal, *, change_id: str | None = None) -> Session:
        """Edit again: a new draft of what a session published, to be published in its place."""
        with self._gate.asked(who, "reopen", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "reopen", load=True, stale=False)
            start = await self._publishing.reopened(opened)
            made = await self._creating.create(who, start, change_id)
            asked.done(opened.header.version)
            return made.session

    async def search(self, who: Principal, query: str, *, kind: str = "knowledge", limit: int = 10) -> list[Hit]:
        """What is live and fits a query best. Drafts are never searched."""
        with self._gate.asked(who, "search") as asked:
            self._kind(kind)
            asked.done()
            return await self._sinks(kind).search(who.tenant, query, limit=_bounded(limit))

    # -- keeping and letting go --------------------------------------------------------------------------------------

    async def discard(
        self, session_id: str, who: Principal, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Throw a session away; within its grace it can be had back."""
        with self._gate.asked(who, "discard", session_id):
            sent = Sent.under(change_id, expected, "discard")
            opened = await self._gate.settled(session_id, who, "discard", gone=change_id is not None)
            opened = await self._lifecycle.discard(opened, who.id, self.policy.grace, sent)
            if self.policy.grace <= 0:
                await self._retaining.purge(opened)
            return opened.header

    async def revive(
        self, session_id: str, who: Principal, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Take a discarded or expired session back within its grace."""
        with self._gate.asked(who, "revive", session_id):
            sent = Sent.under(change_id, expected, "revive")
            opened = await self._gate.enter(session_id, who, "revive", gone=True, stale=False)
            return (await self._retaining.revive(opened, who.id, sent)).header

    async def touch(
        self, session_id: str, who: Principal, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Start a sliding time to live anew."""
        with self._gate.asked(who, "touch", session_id):
            sent = Sent.under(change_id, expected, "touch")
            opened = await self._gate.settled(session_id, who, "touch")
            return (await self._retaining.touch(opened, who.id, sent)).header

    async def extend(
        self,
        session_id: str,
        who: Principal,
        *,
        seconds: float | None,
        expected: int | Seen | None = None,
        change_id: str | None = None,
    ) -> Header:
        """Keep a session for that long from now, None for good."""
        with self._gate.asked(who, "extend", session_id):
            sent = Sent.under(change_id, expected, "extend", seconds)
            opened = await self._gate.settled(session_id, who, "extend")
            return (await self._retaining.extend(opened, who.id, seconds, sent)).header

    async def suspend(
        self, session_id: str, who: Principal, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Set a session to rest until it is next written.

        Raises:
            LeaseHeldError: somebody's lease on it is live.
        """
        with self._gate.asked(who, "suspend", session_id):
            sent = Sent.under(change_id, expected, "suspend")
            opened = await self._gate.settled(session_id, who, "suspend")
            await self._leasing.check_free(opened)
            try:
                opened = await self._lifecycle.suspend(opened, who.id, sent)
            except StoreFullError:  # a session leaves a full hot tier all the same, and makes room
                if not await self._tiering.rest(session_id):
                    raise
            self._journal.forget(session_id)
            await self._tiering.rest(session_id)
            return opened.header

    async def archive(self, session_id: str, who: Principal) -> Header:
        """Move a session to the cold tier, written whole and read back before the warm tier lets go of it. Whoever
        opens it next brings it back.

        Raises:
            LeaseHeldError: somebody's lease on it is live.
            PublicationPendingError: a publication of it is under way.
        """
        with self._gate.asked(who, "archive", session_id) as asked:
            opened = await self._gate.settled(session_id, who, "archive", gone=True)
            self._lifecycle.check_idle(opened.header)
            await self._leasing.check_free(opened)
            asked.done(opened.header.version)
            return (await self._tiering.archive(session_id)).header

    async def rehydrate(self, session_id: str, who: Principal) -> Header:
        """Bring a session back to the hot tier, from wherever it rests, before somebody has to wait for it."""
        with self._gate.asked(who, "rehydrate", session_id) as asked:
            opened = await self._gate.settled(session_id, who, "rehydrate", load=True, gone=True)
            asked.done(opened.header.version)
            return opened.header

    async def sweep(self, who: Principal) -> Swept:
        """Do what is due: warn, expire, take down lapsed locks, finish or undo publications, purge."""
        with self._gate.asked(who, "sweep") as asked:
            self._gate.serve(who, "sweep")
            swept = await self._retaining.sweep(self._publishing.recover)
            self._swept = self._clock.now()
            if swept.total or who.id != SYSTEM:  # the sweeper's own rounds that find nothing to do are no news
                asked.done()
            return swept

    # -- leases ------------------------------------------------------------------------------------------------------

    async def lease(
        self, session_id: str, who: Principal, holder: str, *, seconds: float | None = None, force: bool = False
    ) -> Lease:
        """Take the timed right to write; while it is live only who names its fence may commit. ``force`` takes it
        over.
        """
        with self._gate.asked(who, "lease", session_id) as asked:
            opened = await self._gate.settled(session_id, who, "lease")
            lease = await self._leasing.acquire(opened, holder, seconds, force=force)
            asked.done(opened.header.version)
            if self._observer is not None:
                self._observer.leased("taken", opened.header, who.id, lease)
            return lease

    async def renew(self, lease: Lease, who: Principal, *, seconds: float | None = None) -> Lease:
        """Hold a lease for longer; refused once a newer fence has been granted."""
        with self._gate.asked(who, "lease", lease.session) as asked:
            opened = await self._gate.enter(lease.session, who, "lease", stale=False)
            renewed = await self._leasing.renew(opened, lease, seconds)
            asked.done(opened.header.version)
            if self._observer is not None:
                self._observer.leased("renewed", opened.header, who.id, renewed)
            return renewed

    async def release(self, lease: Lease, who: Principal) -> None:
        """Give a lease back."""
        with self._gate.asked(who, "lease", lease.session) as asked:
            opened = await self._gate.enter(lease.session, who, "lease", gone=True, stale=False)
            await self._leasing.release(lease)
            asked.done(opened.header.version)
            if self._observer is not None:
                self._observer.leased("released", opened.header, who.id, lease)

    async def leased(self, session_id: str, who: Principal) -> Lease | None:
        """Who holds the lease now."""
        with self._gate.asked(who, "read", session_id) as asked:
            opened = await self._gate.enter(session_id, who, "read")
            asked.done(opened.header.version)
            return await self._leasing.live(opened)

    # -- the service as a whole --------------------------------------------------------------------------------------

    async def audit(
        self, who: Principal, *, session_id: str | None = None, after: int = 0, limit: int = 100
    ) -> list[AuditLine]:
        """Who did what, oldest first: of one session, or (admin, auditor) of the tenant's refusals, reads and
        service verbs.

        Args:
            after: how many lines to skip.
        """
        with self._gate.asked(who, "audit", session_id or "") as asked:
            lines = await self._trail.lines(who, session_id, max(0, after), max(1, limit))
            asked.done()
            return lines

    async def verify(
        self, who: Principal, session_id: str | None = None, *, repair: bool = False
    ) -> AsyncIterator[Verified]:
        """Read everything of the tenant back and compare, one finding a session and one an audit chain.

        Args:
            session_id: only this session.
            repair: where the hot and the warm tier differ, keep the newer; where each has what the other has not, keep
                both, the hot tier's as a session of its own. Only an admin may.
        Raises:
            SessionNotFoundError: the tenant has no such session.
        """
        with self._gate.asked(who, "verify", session_id or "") as asked:
            self._gate.serve(who, "repair" if repair else "verify")
            await self._audit.flush()
            found = set[str]()  # of those that verifying has flushed, so that the catalogue has them too by now
            if session_id is not None:
                one = await self._head(session_id, who)
                asked.begun(0)
                yield await self._verify(one, repair, await self._tiering.letters())
                return
            asked.begun(0)
            await self._tiering.flush()
            letters = await self._tiering.letters()
            async for head in self._verification.unflushed(who.tenant, [*letters]):
                yield await self._verify(head, repair, letters)
                found.add(head.id)
            async for head in self._catalogue.all(Query(who.tenant)):
                if head.id not in found:
                    yield await self._verify(head, repair, letters)
            async for chain in self._verification.chains(who.tenant):
                yield chain

    async def tiers(self, who: Principal) -> Tiers:
        """How far each tier is: what it holds, what is on its way between them, and why one does not answer."""
        with self._gate.asked(who, "tiers") as asked:
            self._gate.serve(who, "tiers")
            asked.done()
            state, troubles = await asyncio.gather(self._tiering.state(), self.answering.troubles(_MOST_WAIT))
            return replace(state, troubles=troubles)

    async def flush(self, who: Principal, *, retry: bool = False) -> Flushed:
        """Copy to the warm tier, now, what it does not have yet; how many writes that was, and what dead letters are
        left.

        Args:
            retry: try the dead letters again too.
        """
        with self._gate.asked(who, "flush") as asked:
            self._gate.serve(who, "flush")
            flushed = await self._tiering.drain(retry=retry)
            asked.done()
            return flushed

    async def keys(self, who: Principal) -> KeyIds:
        """Which key-encryption keys there are."""
        with self._gate.asked(who, "keys") as asked:
            self._gate.serve(who, "rotate-keys")
            asked.done()
            return self._rotation.ids()

    async def rotate_keys(
        self, who: Principal, progress: Callable[[int], None] = lambda done: None, *, drop: bool = False
    ) -> Rotated:
        """Make a new key-encryption key and wrap every data key under it, while work goes on.

        Args:
            drop: forget the older keys, once nothing is wrapped under them any more.
        """
        with self._gate.asked(who, "rotate-keys") as asked:
            self._gate.serve(who, "rotate-keys")
            rotated = await self._rotation.rotate(progress, drop=drop)
            asked.done()
            return rotated

    async def revoke(
        self,
        who: Principal,
        *,
        token: str | None = None,
        principal: str | None = None,
        everybody: bool = False,
        before: float | None = None,
        until: float | None = None,
    ) -> Revocation:
        """Take tokens back before they expire: one of them, or all that were issued before a time.

        An admin may for anybody in the tenant, everybody for himself. It is in force in this process when it returns,
        and in every other within a second.

        Args:
            token: the id (``jti``) of one token; who is no admin reaches only his own by it.
            principal: whose tokens.
            everybody: those of the whole tenant, whoever asks included.
            before: seconds since the epoch, on the issuer's clock; now by default. Not with a ``token``.
            until: when that ``token`` expires, leeway included, if known: from then on the revocation is forgotten.
        Raises:
            LimitExceededError: too many single tokens of one's own.
        """
        with self._gate.asked(who, "revoke") as asked:
            revocation = await self.revoking.revoke(
                who, token, principal, everybody=everybody, before=before, until=until
            )
            asked.done()
            return revocation

    async def revocations(self, who: Principal) -> list[Revocation]:
        """What stands revoked and has not lapsed: to an admin all of the tenant, to others their own."""
        with self._gate.asked(who, "revocations") as asked:
            asked.done()
            return await self.revoking.standing(who)

    async def counts(self) -> dict[tuple[str, str], int]:
        """How many sessions are under way, of every tenant, by status and kind. For metrics: it is not audited, and
        a session that is past its time counts until the sweeper has been.
        """
        return await self._journal.warm.counts()

    async def tier_state(self) -> Tiers:
        """How far each tier is. For metrics: it is not audited."""
        return await self._tiering.state()

    def lags(self) -> Lags:
        """How far the engine is behind with what it does by itself. For metrics: it is not audited."""
        now = self._clock.now()
        pending, since = self._audit.pending
        waited = 0.0 if since is None else (now - since).total_seconds()
        return Lags(pending, waited, self._audit.lost, (now - self._swept).total_seconds())

    async def health(self) -> dict[str, str]:
        """Each tier asked whether it answers: ``ok``, or the code of the error."""
        return await self.answering.codes()

    def start(self) -> None:
        """Begin with what the engine does by itself while it is open: flush what lands, where tiers are apart."""
        if self._flushing is not None:
            self._flushing.start()

    async def close(self) -> None:
        """Write what is left of the audit. The stores are closed by whoever opened them."""
        await self._journal.watching.close()
        if self._flushing is not None:
            await self._flushing.close()
        await self._audit.close()

    async def _head(self, session_id: str, who: Principal) -> SealedHead:
        """The head of a session of the tenant as it is kept, whether it can be opened or not."""
        journal, head = self._journal, None
        if session_id.isascii():
            head = await journal.warm.head(session_id) or await journal.hot.head(session_id)
        if head is None:
            raise SessionNotFoundError(session_id)
        if head.tenant != who.tenant:
            raise hidden(session_id)
        return head

    async def _verify(self, head: SealedHead, repair: bool, letters: dict[str, str]) -> Verified:
        """``letters``: why sessions could not be flushed; without those that a repair got flushed, afterwards."""
        done = await self._repairing.session(head.id, letters) if repair else ()
        sink = self._sinks(head.kind) if head.kind in self.kinds else None
        return replace(await self._verification.session(head, sink, letters.get(head.id)), repaired=done)

    def _lock_length(self, seconds: float | None) -> float:
        if seconds is None:
            return self.policy.lock
        if not 0 < seconds <= _LONGEST_LOCK:
            raise InvalidChangeError(f"a lock lasts up to {_LONGEST_LOCK:,.0f} seconds, not {seconds}")
        return seconds

    def _kind(self, name: str) -> Kind:
        if name not in self.kinds:
            raise UnknownKindError(name, self.kinds)
        return self.kinds[name]


def _bounded(limit: int) -> int:
    """How many of a page: 1 to 1,000."""
    return max(1, min(limit, _MOST_PER_PAGE))
