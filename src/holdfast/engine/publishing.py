"""Preview, publish, roll back.

Stage under a new revision, verify what is staged, switch one pointer, keep the receipt, clean up later. Readers see
the old revision until the switch, then the new one. The revision's name follows from the session and the seal, so
the same publication is the same revision however often it is asked for; killed at any step, it is finished by
whoever asks again, or undone by the sweeper once its time is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.engine.blobs import Blobs
from holdfast.engine.creating import Start
from holdfast.engine.editing import Editing
from holdfast.engine.journal import Journal
from holdfast.engine.labels import Labels
from holdfast.engine.lifecycle import Lifecycle, Turn
from holdfast.engine.opened import Opened
from holdfast.engine.sealing import framed
from holdfast.errors import (
    HoldfastError,
    InvalidChangeError,
    LiveMovedError,
    LockHeldError,
    NotDraftError,
    NotFoundError,
    PermissionDeniedError,
    ReceiptNotFoundError,
    SealMismatchError,
    TamperedError,
    UnavailableError,
    VerificationFailedError,
)
from holdfast.model.access import Principal, may
from holdfast.model.cursor import Seen
from holdfast.model.difference import Difference, TextDifference, word_differences
from holdfast.model.item import Item
from holdfast.model.session import Header, Lock, Publication, Status
from holdfast.ports.clock import Chance, Clock
from holdfast.ports.kind import Kind
from holdfast.ports.sink import Forecast, Manifest, Receipt, Record, Sink, manifest_of

RECEIPTS = "_receipts/"
_BATCH = 64
_OVERDUE = 300.0
"""Seconds after which a publication that nobody finished is the sweeper's to finish or undo."""

Progress = Callable[[str, int, int], None]
"""Told the step (stage, verify, switch, done), how many records are through, and how many there are."""


class Preview(msgspec.Struct, frozen=True):
    """What publishing would do, and the seal of exactly that.

    Attributes:
        differences: against what is live, by record; ``counts`` has added, changed, deleted, unchanged and total.
        checks: what was checked and holds; a check that fails raises instead.
        live: the receipt of what is live now, None for nothing.
    """

    session: str
    version: int
    target: str
    seal: str
    differences: tuple[Difference, ...]
    counts: dict[str, int]
    checks: tuple[str, ...]
    forecast: Forecast
    lock: Lock
    live: Receipt | None


class Bundle(msgspec.Struct, frozen=True):
    """A published state whole: what a new draft of it starts from. Kept in the cold tier."""

    kind: str
    schema: int
    title: str
    version: int
    items: tuple[Item, ...]


class _Plan(msgspec.Struct, frozen=True):
    """A publication as it follows from a state."""

    records: tuple[Record, ...]
    manifest: Manifest
    live: Receipt | None
    seal: str
    revision: str


class Publishing:
    """Runs publications, once each, and keeps their receipts."""

    def __init__(
        self,
        journal: Journal,
        lifecycle: Lifecycle,
        editing: Editing,
        labels: Labels,
        blobs: Blobs,
        kinds: Mapping[str, Kind],
        sinks: Callable[[str], Sink],
        clock: Clock,
        chance: Chance,
        *,
        keep: int,
    ) -> None:
        self._journal, self._lifecycle, self._editing = journal, lifecycle, editing
        self._labels, self._blobs = labels, blobs
        self._kinds, self._sinks, self._clock, self._chance, self._keep = kinds, sinks, clock, chance, keep

    def sink(self, header: Header) -> Sink:
        """The sink a session publishes to."""
        return self._sinks(header.kind)

    async def preview(self, opened: Opened, actor: str, seconds: float, expected: int | Seen | None = None) -> Preview:
        """Check a state, compare it with what is live, and lock it under its seal."""
        await self._lifecycle.check_seen(opened, expected)
        header, session = opened.header, opened.session
        items = session.by_key
        self._editing.check_items(self._kinds[header.kind], items, frozenset(items))
        plan = await self._plan(opened)
        differences, counts = _compare(await self.sink(header).records(header.target), plan.records)
        forecast = await self.sink(header).forecast(header.target, plan.records)
        opened = await self._lifecycle.lock(opened, actor, plan.seal, seconds)
        if opened.header.version != header.version:  # what was looked at is not what is locked: another was first
            return await self.preview(await self._journal.load(header.id), actor, seconds, expected)
        checks = (
            f"every item is a valid {header.kind} item ({len(items)})",
            f"every record has a key of its own ({plan.manifest.count})",
            "what is live is known",
        )
        return Preview(
            header.id,
            header.version,
            header.target,
            plan.seal,
            tuple(differences),
            counts,
            checks,
            forecast,
            _lock(opened),
            plan.live,
        )

    async def take_over(self, opened: Opened, actor: str, seconds: float) -> Preview:
        """Take somebody's lock over, the state its owner left labelled first, and preview that state anew."""
        self._lifecycle.check_idle(opened.header)

        def decide(now: Opened) -> Turn | None:
            self._lifecycle.check_idle(now.header)
            lock = _lock(now)
            if lock.owner == actor:
                return None
            turn = self._labels.turn(now, actor, f"{lock.owner} {self._clock.now():%Y-%m-%d %H:%M:%S}")
            header = replace(turn.header, lock=replace(lock, owner=actor))
            return Turn(header, turn.notes, {"from": lock.owner, **turn.detail})

        await self._lifecycle.step(opened, "take-over", actor, decide, notes=True)
        return await self.preview(await self._journal.load(opened.header.id), actor, seconds)

    async def check_target(self, opened: Opened, who: Principal) -> None:
        """Raise unless this principal may replace what is live.

        The right is the target's, whoever published there last: it asks for the right to publish the session that the
        target was first of.
        """
        live = await self.sink(opened.header).live(opened.header.target)
        if live is None or live.session == opened.header.id or "admin" in who.roles:
            return
        try:
            other = await self._journal.open(live.session)
            if other.header.origin is not None:
                other = await self._journal.open(other.header.origin)
        except NotFoundError:  # nobody is left to ask but who published it
            if live.actor == who.id:
                return
            raise PermissionDeniedError(who.id, "publish") from None
        if not may(who, "publish", other.header):
            raise PermissionDeniedError(who.id, "publish")

    async def publish(self, opened: Opened, actor: str, seal: str, *, force: bool, progress: Progress) -> Receipt:
        """Publish what the seal names; the same publication again gives the same receipt.

        Raises:
            SealMismatchError: the seal is not of this state.
            LiveMovedError: something else has been published there since the preview.
            LockHeldError: somebody else holds the lock.
            VerificationFailedError: what was staged did not add up; nothing changed for readers.
            SinkUnavailableError: the outcome is open; publish again.
        """
        header = opened.header
        if header.status is Status.PUBLISHED:
            return self._receipt(opened, seal)
        self._lifecycle.check(header, "publish")
        lock = _lock(opened)
        if lock.owner != actor and not force:
            raise LockHeldError(lock.owner, lock.until)
        pending = header.publication
        if lock.seal != seal or (pending is not None and pending.seal != seal):
            raise SealMismatchError(header.id)
        plan = await self._plan(opened)
        if pending is not None:
            published = await self.sink(header).published(header.target, pending.revision)
            if published is not None:
                return await self._finish(opened, published)
            plan = await self._plan(opened, live=pending.previous)
        if plan.seal != seal:
            live = plan.live.revision if plan.live else None
            raise LiveMovedError(header.target, None if pending is None else pending.previous, live)
        try:
            opened, attempt = await self._begin(opened, actor, plan)
        except NotDraftError:  # the same publication, asked for at the same time, may be done by now
            opened = await self._journal.load(header.id)
            if opened.header.status is not Status.PUBLISHED:
                raise
            return self._receipt(opened, seal)
        try:
            receipt = await self._deliver(opened, actor, plan, attempt, progress)
        except UnavailableError as error:
            await self._tell(opened, actor, error)
            raise
        except HoldfastError as error:
            winner = await self.sink(header).published(header.target, plan.revision)
            if winner is None:
                await self._undo(opened, actor, plan.revision, error)
                raise
            receipt = winner  # another attempt at the same publication was first
        await self._finish(opened, receipt)
        progress("done", plan.manifest.count, plan.manifest.count)
        await self.sink(header).clean(header.target, keep=self._keep)
        return receipt

    async def recover(self, opened: Opened) -> Opened:
        """Finish or undo a publication that nobody has finished in time."""
        header, pending = opened.header, opened.header.publication
        if pending is None:
            return opened
        sink = self.sink(header)
        await sink.abandon(pending.target, pending.revision)  # from here on its attempt cannot switch
        published = await sink.published(pending.target, pending.revision)
        if published is not None:  # live now, or superseded since: it was published all the same
            await self._finish(opened, published)
            return await self._journal.open(header.id)
        return await self._failed(opened, pending.actor, "interrupted", clear=pending.attempt)

    async def rollback(self, opened: Opened, actor: str) -> Receipt:
        """Make what was live before the session's publication live again; asked again, it gives the same receipt."""
        header = opened.header
        self._lifecycle.check(header, "rollback")
        receipts = self.receipts(opened)
        if not receipts:
            raise ReceiptNotFoundError(header.id)
        last = receipts[0]
        if last.rolls_back is not None:
            return last
        sink = self.sink(header)
        back = last.previous  # the receipt vouches for what becomes live, not for what is withdrawn
        before = replace(
            last,
            revision=back,
            previous=last.revision,
            manifest=manifest_of([]) if back is None else await sink.verify(header.target, back),
            actor=actor,
            at=self._clock.now(),
            rolls_back=last.revision,
        )
        receipt = await sink.rollback(header.target, receipt=before)

        def decide(now: Opened) -> Turn | None:
            known = self.receipts(now)
            if known and known[0].rolls_back == receipt.rolls_back:
                return None
            return Turn(now.header, {_note(len(known)): receipt}, {"rolls_back": receipt.rolls_back})

        await self._lifecycle.step(opened, "rollback", actor, decide, notes=True)
        return receipt

    def receipts(self, opened: Opened) -> list[Receipt]:
        """The session's receipts, newest first."""
        notes = sorted((key for key in opened.notes if key.startswith(RECEIPTS)), reverse=True)
        return [msgspec.json.decode(opened.notes[key].raw, type=Receipt) for key in notes]

    def _receipt(self, opened: Opened, seal: str) -> Receipt:
        """The receipt of what a published session was published as."""
        for receipt in self.receipts(opened):
            if receipt.seal == seal and receipt.rolls_back is None:
                return receipt
        raise NotDraftError(opened.header.id, opened.header.status.value, "publish")

    async def reopened(self, opened: Opened) -> Start:
        """What a new draft of a published session begins with: the state it published, from the cold tier."""
        header = opened.header
        self._lifecycle.check(header, "reopen")
        bundle = await self._bundle(opened)
        return Start(
            header.kind,
            bundle.title,
            [(item.key, item.body) for item in bundle.items],
            header.retention,
            header.target.partition("/")[2],
            parent=header.id,
            origin=header.origin or header.id,
            source={"name": header.source.get("name", ""), "from": header.id, "version": bundle.version},
        )

    async def _bundle(self, opened: Opened) -> Bundle:
        name = opened.header.source.get("bundle")
        if not isinstance(name, str):
            raise ReceiptNotFoundError(opened.header.id)
        try:
            return msgspec.json.decode(await self._blobs.get(opened, name), type=Bundle)
        except msgspec.MsgspecError:
            raise VerificationFailedError(name, "it is no bundle") from None

    # -- the steps -----------------------------------------------------------------------------------------------------

    async def _plan(self, opened: Opened, live: str | None = "") -> _Plan:
        header, session = opened.header, opened.session
        records = tuple(self._kinds[header.kind].publish(session))
        if len({record.key for record in records}) < len(records):
            raise InvalidChangeError("two of the records to publish have the same key")
        manifest = manifest_of((record.key, record.digest) for record in records)
        receipt = await self.sink(header).live(header.target)
        previous = (receipt.revision if receipt else None) if live == "" else live
        seal = hashlib.sha256(
            framed(
                b"seal 1",
                header.tenant.encode(),
                header.id.encode(),
                b"%d" % header.version,
                header.state,
                manifest.digest.encode(),
                header.target.encode(),
                (previous or "").encode(),
            )
        ).hexdigest()
        revision = hashlib.sha256(framed(b"revision 1", header.id.encode(), seal.encode())).hexdigest()[:32]
        return _Plan(records, manifest, receipt, seal, revision)

    async def _begin(self, opened: Opened, actor: str, plan: _Plan) -> tuple[Opened, str]:
        """Write down that a publication is under way, so that a crash leaves something to finish or undo."""
        attempt = self._chance.token()
        header = opened.header
        bundle = Bundle(header.kind, header.schema, header.title, header.version, opened.session.items)
        name = await self._blobs.put(opened, msgspec.json.encode(bundle))
        until = self._clock.now() + timedelta(seconds=_OVERDUE)

        def decide(now: Opened) -> Turn:
            if now.header.version != header.version or now.header.lock is None or now.header.lock.seal != plan.seal:
                raise SealMismatchError(header.id)
            previous = now.header.publication.previous if now.header.publication else None
            if now.header.publication is None and plan.live is not None:
                previous = plan.live.revision
            publication = Publication(plan.revision, attempt, plan.seal, header.target, previous, actor, until)
            blobs = now.header.blobs if name in now.header.blobs else (*now.header.blobs, name)
            changed = replace(
                now.header,
                publication=publication,
                failure=None,
                blobs=blobs,
                source={**now.header.source, "bundle": name},
            )
            return Turn(changed, detail={"revision": plan.revision, "records": plan.manifest.count})

        return await self._lifecycle.step(opened, "publish-begin", actor, decide), attempt

    async def _deliver(self, opened: Opened, actor: str, plan: _Plan, attempt: str, progress: Progress) -> Receipt:
        header, sink, publication = opened.header, self.sink(opened.header), _publication(opened)
        target, total = header.target, plan.manifest.count
        until = publication.until
        await sink.begin(target, plan.revision, attempt, now=self._clock.now())
        for start in range(0, total, _BATCH):
            progress("stage", start, total)
            await sink.stage(target, plan.revision, attempt, plan.records[start : start + _BATCH], start=start)
            if self._clock.now() > until - timedelta(seconds=_OVERDUE / 2):
                until = await self._prolong(opened, actor, attempt)
        progress("verify", total, total)
        found = await sink.verify(target, plan.revision)
        if found != plan.manifest:
            reason = f"{found.count} records are staged, {total} were to be, or their hashes differ"
            raise VerificationFailedError(plan.revision, reason)
        progress("switch", total, total)
        receipt = Receipt(
            header.id,
            header.version,
            plan.seal,
            target,
            plan.revision,
            publication.previous,
            plan.manifest,
            actor,
            self._clock.now(),
        )
        return await sink.switch(target, plan.revision, attempt, receipt=receipt)

    async def _prolong(self, opened: Opened, actor: str, attempt: str) -> datetime:
        """A publication that gets on is not overdue: give it the whole time again."""
        until = self._clock.now() + timedelta(seconds=_OVERDUE)

        def decide(now: Opened) -> Turn | None:
            pending = now.header.publication
            if pending is None or pending.attempt != attempt:
                return None  # somebody else has taken it over: the sink will say so
            return Turn(replace(now.header, publication=replace(pending, until=until)), detail={"prolonged": True})

        opened = await self._journal.open(opened.header.id)
        await self._lifecycle.step(opened, "publish-begin", actor, decide, timed=True)
        return until

    async def _finish(self, opened: Opened, receipt: Receipt) -> Receipt:
        """Write down that it is published; done before, nothing is written."""

        def decide(now: Opened) -> Turn | None:
            known = self.receipts(now)
            if any(one.revision == receipt.revision for one in known):
                return None
            header = replace(
                now.header, lock=None, publication=None, failure=None, expires=None, expiring_since=None, warned=0
            )
            detail = {"revision": receipt.revision, "target": receipt.target, "records": receipt.manifest.count}
            return Turn(header, {_note(len(known)): receipt}, detail)

        opened = await self._journal.load(opened.header.id)
        if opened.header.status is not Status.PUBLISHED:
            await self._lifecycle.step(opened, "publish", receipt.actor, decide, notes=True, timed=True)
        return receipt

    async def _undo(self, opened: Opened, actor: str, revision: str, error: HoldfastError) -> None:
        """Take a failed publication back; what cannot be undone now is left for the sweeper.

        Not if another attempt at it has begun since: the revision is its own to stage, and to undo.
        """
        publication = _publication(opened)
        pending = (await self._journal.open(opened.header.id)).header.publication
        if pending is not None and pending.attempt != publication.attempt:
            return
        try:
            await self.sink(opened.header).abandon(opened.header.target, revision)
        except UnavailableError:
            await self._tell(opened, actor, error)
            return
        await self._failed(opened, actor, error.code, clear=publication.attempt)

    async def _tell(self, opened: Opened, actor: str, error: HoldfastError) -> None:
        await self._failed(opened, actor, error.code, clear=None)

    async def _failed(self, opened: Opened, actor: str, reason: str, *, clear: str | None) -> Opened:
        """Write down why a publication failed; with ``clear``, that this attempt is over."""

        def decide(now: Opened) -> Turn | None:
            pending = now.header.publication
            if pending is None or (clear is not None and pending.attempt != clear):
                return None
            kept = None if clear is not None else pending
            return Turn(replace(now.header, publication=kept, failure=reason), detail={"reason": reason})

        opened = await self._journal.open(opened.header.id)
        return await self._lifecycle.step(opened, "publish-failed", actor, decide, timed=True)


def _compare(live: Sequence[Record], records: Sequence[Record]) -> tuple[list[Difference], dict[str, int]]:
    before = {record.key: record for record in live}
    after = {record.key: record for record in records}
    found: list[Difference] = []
    for key, new in after.items():
        old = before.get(key)
        if old is None:
            found.append(Difference(key, "added", None, new.text))
        elif old.digest != new.digest:
            texts: tuple[Any, ...] = ()
            if old.text != new.text:
                texts = (TextDifference("text", word_differences(old.text, new.text)),)
            found.append(Difference(key, "changed", old.text, new.text, texts))
    found += [Difference(key, "deleted", old.text, None) for key, old in before.items() if key not in after]
    counts = {verb: sum(one.verb == verb for one in found) for verb in ("added", "changed", "deleted")}
    counts |= {"unchanged": len(after) - counts["added"] - counts["changed"], "total": len(after)}
    return found, counts


def _lock(opened: Opened) -> Lock:
    """The lock of a session whose status says that it has one."""
    if opened.header.lock is None:
        raise TamperedError(f"session {opened.header.id}")
    return opened.header.lock


def _publication(opened: Opened) -> Publication:
    if opened.header.publication is None:
        raise TamperedError(f"session {opened.header.id}")
    return opened.header.publication


def _note(number: int) -> str:
    return f"{RECEIPTS}{number:06d}"
