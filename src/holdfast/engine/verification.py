"""Does everything add up? Tiers, chains, digests, items and blobs, each against the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import msgspec
from msgspec.structs import replace

from holdfast.engine.archiving import Archiving
from holdfast.engine.audit import Audit
from holdfast.engine.blobs import Blobs
from holdfast.engine.journal import Journal
from holdfast.engine.log import ROOM
from holdfast.engine.opened import Opened
from holdfast.engine.sealing import decode_entry
from holdfast.engine.tiering import Tiering
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    IntegrityError,
    SessionGoneError,
    StoreUnavailableError,
    TamperedError,
    TierBehindError,
    UnavailableError,
)
from holdfast.model.change import apply
from holdfast.model.entry import GENESIS, SealedEntry, entry_digest
from holdfast.model.item import Item
from holdfast.model.session import GONE, SealedHead
from holdfast.ports.sink import Receipt, Sink

_PAGE = 256
_LOOKS = 4
"""At a session that does not add up: it may be worked on meanwhile."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that does not add up: a stable code, and a sentence without content.

    ``unavailable``: it could not be looked at just now, because what holds it did not answer. That says nothing of what
    is stored.
    """

    code: str
    what: str
    unavailable: bool = False

    @classmethod
    def of(cls, error: HoldfastError) -> Problem:
        """What an error says of a session. Two tiers that differ are both there to be looked at."""
        unavailable = isinstance(error, UnavailableError) and not isinstance(error, TierBehindError)
        what = str(error)
        if isinstance(error, StoreUnavailableError):  # who reads has no change to send again
            what = f"the {error.store} store did not answer ({error.reason})"
        return cls(error.code, what, unavailable)


class Verified(msgspec.Struct, frozen=True):
    """What was found of one session, or (``session`` empty) of an audit chain.

    ``repaired`` says what was done before, a sentence each.
    """

    session: str
    problems: tuple[Problem, ...]
    entries: int = 0
    items: int = 0
    blobs: int = 0
    chain: str | None = None
    repaired: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def differs(self) -> bool:
        """Whether something was looked at that does not add up; if not ``ok`` either, some could not be looked at."""
        return any(not problem.unavailable for problem in self.problems)


class Verification:
    """Reads everything back and compares. It repairs nothing."""

    def __init__(self, journal: Journal, blobs: Blobs, audit: Audit, tiering: Tiering, archiving: Archiving) -> None:
        self._journal, self._blobs, self._audit = journal, blobs, audit
        self._tiering, self._archiving = tiering, archiving

    async def chains(self, tenant: str) -> AsyncIterator[Verified]:
        """The audit chain of a tenant."""
        async for chain, wrong in self._audit.check(tenant):
            problems = () if wrong is None else (Problem("audit-chain", f"audit chain {chain}: {wrong}"),)
            yield Verified("", problems, chain=chain)

    async def unflushed(self, tenant: str, letters: Iterable[str]) -> AsyncIterator[SealedHead]:
        """The sessions of a tenant that the hot tier alone has, because their creation became a dead letter."""
        for session in letters:
            if await self._journal.warm.head(session) is None:
                head = await self._journal.hot.head(session)
                if head is not None and head.tenant == tenant:
                    yield head

    async def session(self, warm: SealedHead, sink: Sink | None, letter: str | None = None) -> Verified:
        """One session: its head in both tiers, its log from the first entry on, the items the log makes, its blobs.

        Args:
            warm: its head as the catalogue has it.
            sink: where it publishes to, None where that is not known.
            letter: why it could not be flushed, if it is among the dead letters.
        """
        # Its parts are read one after the other. If it was worked on in between, or went to another tier, they do not
        # fit either; damage is there at every look, at one state of the session.
        looks = set[tuple[tuple[Problem, ...], bytes]]()
        for _ in range(_LOOKS):
            found = await self._look(warm, sink, letter)
            if not found.differs:
                return found
            head = await self._journal.head(warm.id)
            damage = tuple(problem for problem in found.problems if not problem.unavailable)
            looks.add((damage, b"" if head is None else head.digest))
        if len(looks) == 1:
            return found
        busy = Problem("session-busy", "it was worked on whenever it was looked at", unavailable=True)
        return replace(found, problems=(busy,))

    async def _look(self, warm: SealedHead, sink: Sink | None, letter: str | None) -> Verified:
        session, problems = warm.id, list[Problem]()
        if letter is not None:
            problems.append(Problem("dead-letter", f"it could not be flushed: {letter}"))
        try:
            await self._tiering.flush(session)
        except (ConflictError, IntegrityError) as error:
            problems.append(Problem("tiers-differ", str(error)))
        warm = await self._journal.warm.head(session) or warm
        hot = await self._journal.hot.head(session)
        if hot is not None and (hot.step < warm.step or (hot.step == warm.step and hot.digest != warm.digest)):
            problems.append(Problem("tiers-differ", f"hot stands at step {hot.step}, warm at {warm.step}"))
        head = hot or warm
        if head.archive is not None and head.key is not None:
            return await self._archive(head, head.archive, problems)
        entries = await self._chain(head, problems)
        if head.key is None and head.status in GONE:
            await self._check_tombstone(head, problems)
            return Verified(session, tuple(problems), entries)
        try:
            opened = await self._journal.check(session)
        except SessionGoneError:
            return Verified(session, tuple(problems), entries)
        except HoldfastError as error:
            problems.append(Problem.of(error))
            return Verified(session, tuple(problems), entries)
        header = opened.header
        if head.created != header.created.timestamp():
            problems.append(Problem("figures-differ", "the time of its making is filed otherwise than sealed"))
        events = header.events()
        if events and (head.due is None or head.due > min(events).timestamp() + 1):
            problems.append(Problem("due-differs", "the sweeper would look at it too late or never"))
        await self._replay(opened, problems)
        blobs = await self._check_blobs(opened, problems)
        if sink is not None:
            await self._check_receipts(opened, sink, problems)
        return Verified(session, tuple(problems), entries, opened.header.count, blobs)

    async def _archive(self, head: SealedHead, name: str, problems: list[Problem]) -> Verified:
        """An archived session is read where it is: its log link by link, its items against the header's root."""
        try:
            opened = self._journal.unseal(head)
            entries, snapshot = await self._archiving.read(opened, name)
            self._journal.unseal_items(opened, snapshot.items)
        except HoldfastError as error:
            return Verified(head.id, (*problems, Problem.of(error)))
        parent, version, wrong = GENESIS, 0, None
        for count, entry in enumerate(entries, 1):
            wrong = _broken(entry, count, parent, version, purged=False)
            if wrong is not None:
                problems.append(Problem("log-chain", f"step {count}: {wrong}"))
                break
            parent, version = entry.digest, entry.version
        if wrong is None and parent != head.digest:
            problems.append(Problem("log-chain", f"the archive ends elsewhere than at step {head.step}"))
        blobs = await self._check_blobs(opened, problems)
        return Verified(head.id, tuple(problems), len(entries), opened.header.count, blobs)

    async def _check_tombstone(self, head: SealedHead, problems: list[Problem]) -> None:
        """What is left of a purged session has no key of its own: the audit chain vouches for where its log ended."""
        lines = [line async for line in self._audit.lines(head.tenant, head.id) if line.verb == "purge"]
        if head.digest.hex() not in {line.proof for line in lines}:
            what = "its key is destroyed as if it were purged, and the audit knows of no such end of its log"
            problems.append(Problem("log-chain", what))

    async def _chain(self, head: SealedHead, problems: list[Problem]) -> int:
        """Follow the digests of a log in the warm tier, and compare the hot tier's part of it."""
        count, parent, version = 0, GENESIS, 0
        purged = head.key is None
        while page := await self._journal.warm.entries(head.id, after=count, limit=_PAGE, room=ROOM):
            hot = await self._journal.hot.at(head.id, [entry.step for entry in page])
            for entry in page:
                count += 1
                wrong = _broken(entry, count, parent, version, purged)
                if wrong is None and entry.step in hot and hot[entry.step] != entry:
                    wrong = "hot and warm differ"
                if wrong is not None:
                    problems.append(Problem("log-chain", f"step {count}: {wrong}"))
                    return count
                parent, version = entry.digest, entry.version
        if (count, parent) != (head.step, head.digest):
            problems.append(Problem("log-chain", f"the log ends at step {count}, the head stands at {head.step}"))
        return count

    async def _replay(self, opened: Opened, problems: list[Problem]) -> None:
        """Make the items anew from the log, and compare them with those kept."""
        items: dict[str, Item] = {}
        after = 0
        try:
            while page := await self._journal.log.entries(opened, after=after, limit=_PAGE):
                for entry in page:
                    apply(items, entry.changes, entry.version, entry.step)
                    after = entry.step
        except (HoldfastError, ValueError) as error:
            found = Problem.of(error) if isinstance(error, HoldfastError) else Problem("log-chain", str(error))
            problems.append(replace(found, what=f"step {after + 1}: {found.what}"))
            return
        if items != opened.items:
            differing = {key for key in items.keys() | opened.items.keys() if items.get(key) != opened.items.get(key)}
            problems.append(Problem("items-differ", f"{len(differing)} items are not what the log makes them"))
        size = sum(len(item.raw) for item in items.values())
        if (opened.header.count, opened.header.size) != (len(items), size):
            problems.append(Problem("figures-differ", "the header's count or bytes are not the items'"))

    async def _check_blobs(self, opened: Opened, problems: list[Problem]) -> int:
        for name in opened.header.blobs:
            try:
                await self._blobs.get(opened, name)
            except HoldfastError as error:
                problems.append(Problem.of(error))
        return len(opened.header.blobs)

    async def _check_receipts(self, opened: Opened, sink: Sink, problems: list[Problem]) -> None:
        """If the last receipt's revision is live, what is live must be what the receipt says."""
        notes = sorted(key for key in opened.notes if key.startswith("_receipts/"))
        if not notes:
            return
        receipt = msgspec.json.decode(opened.notes[notes[-1]].raw, type=Receipt)
        try:
            live = await sink.live(receipt.target)
            if live is None or receipt.revision is None or live.revision != receipt.revision:
                return
            if await sink.verify(receipt.target, receipt.revision) != receipt.manifest:
                problems.append(
                    Problem("publication-differs", f"what is live at {receipt.target} is not the receipt's")
                )
        except HoldfastError as error:
            problems.append(Problem.of(error))


def _broken(entry: SealedEntry, step: int, parent: bytes, version: int, purged: bool) -> str | None:
    if entry.step != step:
        return "it is missing"
    if entry_digest(entry.header, entry.payload, purged=purged) != entry.digest:
        return "its bytes are not those of its digest"
    try:
        told = decode_entry(entry.header, "")
    except TamperedError:
        return "its header cannot be read"
    if (told.step, told.version, told.commit, told.change) != (step, entry.version, entry.commit, entry.change):
        return "it is filed as another"
    if told.version != version + entry.commit:
        return "its version does not follow from the one before"
    return None if told.parent == parent else "it does not follow the entry before"
