"""Flush: what has landed in the hot tier goes to the warm one, in every process, by a queue that they share.

An entry of the queue only says that a session has moved. Whoever claims it copies everything of that session that the
warm tier does not have yet, and acknowledges up to where that is committed there; so duplicates, a wrong order and a
flusher that dies at any point are harmless. What cannot be flushed for a reason of its own goes to the dead letters.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from holdfast.engine.journal import rewrap
from holdfast.engine.log import ROOM
from holdfast.engine.rehydrating import KEEP_ENTRIES
from holdfast.engine.sealing import decode_entry
from holdfast.engine.unsealing import Unsealing
from holdfast.errors import (
    AlreadyExistsError,
    ConfigurationError,
    ConflictError,
    HoldfastError,
    IntegrityError,
    StoreUnavailableError,
    TamperedError,
    UnavailableError,
)
from holdfast.model.entry import GENESIS, SealedEntry
from holdfast.model.session import SealedHead
from holdfast.ports.hot import Queued, TieredHotStore
from holdfast.ports.observer import Observer
from holdfast.ports.warm import WarmStore

_AT_ONCE = 512
"""Entries that are claimed at a time, each of another session."""

_SESSIONS = 32
"""Sessions that are copied at a time."""

_GATHER = 0.2
"""Seconds for which writes are gathered before they are flushed: a session that is typed in is copied once for all."""

_SETTLE = 0.1
"""Seconds that a listing waits for what was written here a moment ago."""

_MOST_SETTLED = 1_000
"""Sessions that it waits for: more are not copied in that time. Others may have flushed them, and nobody says so."""

_EVERYWHERE = 1.0
"""Seconds between two looks at what other processes have left on the queue."""

_DEAD = 30.0
"""Seconds after which whoever has claimed an entry is taken for dead. One that lives only loses the work: a session
copied twice is one."""

_DOUBT = 0.01
"""Seconds by which the hot tier's word on how long something has waited may be wrong: it counts in milliseconds."""

_TRIES, _PAUSE, _LONGEST_PAUSE = 3, 0.1, 2.0
_TRIM = 16
"""Entries more than are kept, for which it is worth telling the hot tier to forget them."""

_MOST_REMEMBERED = 10_000


class Flushing:
    """Empties the flush queue."""

    def __init__(
        self,
        hot: TieredHotStore,
        warm: WarmStore,
        unsealing: Unsealing,
        worker: str,
        observer: Observer | None = None,
    ) -> None:
        """``worker``: a name that no other process has. ``flushed``: writes so far that it has copied off the queue."""
        self._hot, self._warm, self._unsealing = hot, warm, unsealing
        self._worker, self._observer, self.flushed = worker, observer, 0
        self._wanted = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._generation = hot.generation
        self._bound = True  # to this warm tier, by whoever opened the two
        self._settling: asyncio.Task[bool] | None = None
        self._written: OrderedDict[str, None] = OrderedDict()  # by this process and not flushed by it, the newest last
        self._held: list[Queued] = []  # claimed, and not flushed yet because a tier did not answer
        self._rounds = asyncio.Lock()
        self._tries: dict[str, int] = {}
        self._trimmed: OrderedDict[str, int] = OrderedDict()  # below which step a session was trimmed last

    def start(self) -> None:
        """Flush for as long as the engine is open."""
        self._running = asyncio.get_running_loop().create_task(self._run(), name="holdfast-flushing")

    async def wake(self, session: str, step: int, digest: bytes) -> None:
        """An entry has landed: flush its session soon."""
        self._written[session] = None
        self._written.move_to_end(session)
        while len(self._written) > _MOST_SETTLED:
            self._written.popitem(last=False)
        self._wanted.set()

    async def kept(self, session: str, step: int, digest: bytes) -> None:
        """An entry has landed: flush it now, so that whoever wrote it is answered once the warm tier has it.

        Raises:
            StoreUnavailableError: the warm tier does not have it, be it that the hot tier has lost it meanwhile.
        """
        self._wanted.set()  # for the entry that is on the queue
        try:
            head = await self.session(session)
        except (ConflictError, IntegrityError):  # another history stands there, or a part of this one is gone
            raise StoreUnavailableError("hot", "it has come back as it was before") from None
        found: SealedHead | SealedEntry | None = head
        if head is not None and head.step > step:
            found = (await self._warm.at(session, [step])).get(step)
        if found is None or (found.step, found.digest) != (step, digest):
            raise StoreUnavailableError("hot", "it has come back as it was before")

    async def close(self) -> None:
        """Flush what this process has written, as far as the warm tier lets it, and stop."""
        if self._running is None:
            return
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        self._running = None
        with contextlib.suppress(HoldfastError, TimeoutError):
            async with asyncio.timeout(_LONGEST_PAUSE):
                while await self.round(everywhere=False):
                    pass

    async def settle(self) -> bool:
        """Flush the sessions that this process has written to, so that who wrote here finds them in a listing; False if
        that has to wait, because a tier does not answer, or there is too much. Many who ask at a time share one go.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE):
                if self._settling is not None:  # it began before, and may not have the newest
                    await asyncio.shield(self._settling)
                if self._settling is None and self._written:
                    self._settling = asyncio.get_running_loop().create_task(self._settle(), name="holdfast-settling")
                return True if self._settling is None else await asyncio.shield(self._settling)
        return False

    async def _settle(self) -> bool:
        written, self._written = self._written, OrderedDict()
        try:
            outcomes = await self._copied(written)
        finally:
            self._settling = None
        failed = [session for session, outcome in outcomes.items() if isinstance(outcome, UnavailableError)]
        self._written = OrderedDict.fromkeys(failed) | self._written
        return not failed

    async def drain(self) -> None:
        """Flush all that is on the queue, whoever wrote it and whoever has claimed it: the reply to a claim may have
        been lost, and a session that two have copied is one. What comes there meanwhile need not be waited for: others
        may never stop to write.

        Raises:
            UnavailableError: a tier did not answer; what is not flushed stays on the queue.
            ConfigurationError: the hot tier came back empty, and is flushed to another warm tier by now.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        # What fails for a reason of its own is held for a few rounds, then buried.
        while await self.round(everywhere=True, idle=0.0) or self._held:
            asked = loop.time()  # and not when the answer is there, which is older than that
            if not self._held and (await self._hot.backlog()).waited + _DOUBT <= asked - began:
                return

    async def session(self, session: str) -> SealedHead | None:
        """Copy to the warm tier what it does not have of a session; the head it stands at there then.

        Raises:
            AlreadyExistsError: the two tiers have different histories.
            TamperedError: a part of the log is in neither.
            UnavailableError: a tier did not answer.
        """
        standing: SealedHead | None = None
        looked = False
        while True:
            head = await self._hot.head(session)
            kept = await self._warm.head(session)
            if head is None or (kept is not None and kept.step > head.step):
                return kept  # set to rest, so that the warm tier has all of it; or come back older than it was
            if kept is not None and kept.step == head.step:
                if kept.digest != head.digest:
                    raise AlreadyExistsError(f"another entry at step {head.step} of session {session}")
                await self._rewrap(head, kept)
                return kept
            try:
                return await self._copy(head, kept)
            except TamperedError:
                if looked and kept == standing:
                    raise
                # Another flusher may have gone on, and let the hot tier trim what it has copied.
                standing, looked = kept, True

    async def round(self, *, everywhere: bool, idle: float | None = None) -> int:
        """Claim, copy, acknowledge, once; how many entries are off the queue.

        Args:
            idle: seconds after which a claim lapses; None for as usual.
        """
        async with self._rounds:
            return await self._round(everywhere, _DEAD if idle is None else idle)

    async def _round(self, everywhere: bool, idle: float) -> int:
        self._wanted.clear()
        if not self._bound:
            await self._bind()
        queued = self._held
        if len(queued) < _AT_ONCE // 2:  # a few that cannot be flushed just now hold nobody up
            limit = _AT_ONCE - len(queued)
            fresh = await self._hot.claim(self._worker, limit=limit, idle=idle, everywhere=everywhere)
            queued = [*{(one.session, one.ticket): one for one in (*queued, *fresh)}.values()]
        self._held = queued
        by_session: dict[str, list[Queued]] = {}
        for one in queued:
            by_session.setdefault(one.session, []).append(one)
        outcomes = await self._copied(by_session)
        done: list[tuple[Queued, int]] = []
        gone: UnavailableError | None = None
        flushed = 0
        for session, entries in by_session.items():
            outcome = outcomes[session]
            if not isinstance(outcome, Exception):  # None: it is in neither tier, and there is nothing to copy
                done += [(one, one.step if outcome is None else outcome.step) for one in entries]
                if outcome is not None:
                    flushed += max(0, outcome.step - min(one.step for one in entries) + 1)
                self._tries.pop(session, None)
                self._written.pop(session, None)
            elif isinstance(outcome, UnavailableError):
                gone = outcome
            elif await self._given_up(session, entries, outcome):
                self._held = [one for one in self._held if one.session != session]
        if done:
            await self._hot.acknowledge(done)
            self.flushed += flushed
            off = {(one.session, one.ticket) for one, _ in done}
            self._held = [one for one in self._held if (one.session, one.ticket) not in off]
        if gone is not None and not done:
            raise gone
        return len(queued) - len(self._held)

    async def _copied(self, sessions: Iterable[str]) -> dict[str, SealedHead | Exception | None]:
        """Copy sessions, some at a time; what came of each."""
        slots = asyncio.Semaphore(_SESSIONS)

        async def copy(session: str) -> tuple[str, SealedHead | Exception | None]:
            async with slots:
                try:
                    return session, await self.session(session)
                except Exception as error:  # one that is broken in a new way must not hold the others up
                    return session, error

        return dict(await asyncio.gather(*map(copy, sessions)))

    async def _given_up(self, session: str, entries: Sequence[Queued], error: Exception) -> bool:
        """Bury what cannot be flushed for a reason that does not go away."""
        tries = self._tries[session] = self._tries.get(session, 0) + 1
        if tries < _TRIES:
            return False
        self._tries.pop(session, None)
        code = error.code if isinstance(error, HoldfastError) else type(error).__name__
        await self._hot.bury(entries, code)
        if self._observer is not None:
            self._observer.failed("flush", code, session)
        return True

    async def _copy(self, head: SealedHead, kept: SealedHead | None) -> SealedHead:
        """Append to the warm tier what lies beyond the head it has; the last page brings the new one."""
        session, after = head.id, 0 if kept is None else kept.step
        parent = GENESIS if kept is None else kept.digest
        members = self._members(head)
        while True:
            # A session that is new there goes in one piece: a head must not stand there without its log.
            room = None if kept is None else ROOM
            page = await self._hot.entries(session, after=after, limit=head.step - after, room=room)
            self._check(head, page, after, parent)
            last = page[-1]
            if last.step == head.step:
                await self._warm.append(head, page, members=members)
                break
            if kept is None:
                raise TamperedError(f"the log of session {session}")
            await self._warm.append(kept, page)
            after, parent = last.step, last.digest
        await self._rewrap(head, kept)
        await self._trim(head)
        return head

    async def _rewrap(self, head: SealedHead, kept: SealedHead | None) -> None:
        """See that the warm tier has the data key under a key-encryption key that is not about to be dropped.

        A rotation goes through the warm tier. A session that is new there it may have missed, and its maker wraps what
        the hot tier has; and what was kept under a key that is gone by now can be had from the hot tier alone.
        """
        ring, key = self._unsealing.ring, head.key if kept is None else kept.key
        if key is None or head.key is None or (kept is not None and ring.wraps(key) == ring.active):
            return
        if not ring.is_stale(key):
            return
        if ring.wraps(key) in ring.ids:
            await rewrap(self._warm, ring, replace(head, key=key))
        else:
            await self._warm.rewrap(head.id, old=key, new=head.key)

    def _check(self, head: SealedHead, page: Sequence[SealedEntry], after: int, parent: bytes) -> None:
        """Raise unless a page goes on where the warm tier's log ends, without a gap, and ends as the head says."""
        steps = range(after + 1, after + len(page) + 1)
        if not page or [entry.step for entry in page] != [*steps]:
            raise TamperedError(f"the log of session {head.id}")
        if page[-1].step == head.step and page[-1].digest != head.digest:
            raise TamperedError(f"the log of session {head.id}")
        if decode_entry(page[0].header, f"step {after + 1} of session {head.id}").parent != parent:
            raise AlreadyExistsError(f"another entry at step {after} of session {head.id}")

    def _members(self, head: SealedHead) -> tuple[str, ...] | None:
        """Who beside the owner may know of a session; None where that cannot be read, and stays as it was.

        It goes with each head, changed or not: of two flushers neither knows what the other brings in between.
        """
        try:
            return tuple(sorted(self._unsealing.head(head).header.grants))
        except HoldfastError:  # it is flushed as it is: whoever opens it is told
            return None

    async def _trim(self, head: SealedHead) -> None:
        below = head.step - KEEP_ENTRIES + 1
        if below - self._trimmed.get(head.id, 1) < _TRIM:
            return
        await self._hot.trim(head.id, below=below)
        self._trimmed[head.id] = below
        self._trimmed.move_to_end(head.id)
        while len(self._trimmed) > _MOST_REMEMBERED:
            self._trimmed.popitem(last=False)

    async def _look(self) -> None:
        """Tell of a hot tier that has come back empty: what was not flushed is lost, and somebody should know. With the
        rest it has forgotten which warm tier it is flushed to.
        """
        whole = await self._hot.whole()
        self._generation = self._hot.generation
        if not whole:
            self._bound = False
            if self._observer is not None:
                self._observer.failed("hot", "emptied")

    async def _bind(self) -> None:
        """Say so again.

        Raises:
            ConfigurationError: it is flushed to another one by now.
        """
        warm = await self._warm.identity()
        if await self._hot.bind(warm) != warm:
            raise ConfigurationError("The hot tier is flushed to another warm tier since it came back empty.")
        self._bound = True

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause, looked = _PAUSE, 0.0
        while True:
            everywhere = loop.time() - looked >= _EVERYWHERE
            try:
                if everywhere or self._hot.generation != self._generation:
                    await self._look()
                done = await self.round(everywhere=everywhere)
            except Exception as error:  # whatever it is, what is on the queue stays there
                code = error.code if isinstance(error, HoldfastError) else type(error).__name__
                if self._observer is not None and pause == _PAUSE:
                    self._observer.failed("flush", code)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _PAUSE
            if everywhere and not done:
                looked = loop.time()
            if self._held:
                await asyncio.sleep(_PAUSE)
            elif not done:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_EVERYWHERE):  # wait_for may lose a cancellation, before Python 3.12
                        await self._wanted.wait()
            await asyncio.sleep(_GATHER)
