"""Flush: what has landed in the hot tier goes to the warm one, in every process, by a queue that they share.

An entry of the queue only says that a session has moved. Whoever claims it copies everything of that session that the
warm tier does not have yet, and acknowledges up to where that is committed there; so duplicates, a wrong order and a
flusher that dies at any point are harmless. What cannot be flushed for a reason of its own goes to the dead letters.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Sequence

from holdfast.engine.journal import rewrap
from holdfast.engine.log import ROOM
from holdfast.engine.rehydrating import KEEP_ENTRIES
from holdfast.engine.sealing import decode_entry
from holdfast.engine.unsealing import Unsealing
from holdfast.errors import AlreadyExistsError, HoldfastError, TamperedError, UnavailableError
from holdfast.model.entry import GENESIS, SealedEntry
from holdfast.model.session import Header, SealedHead
from holdfast.ports.hot import Queued, TieredHotStore
from holdfast.ports.observer import Observer
from holdfast.ports.warm import WarmStore

_AT_ONCE = 512
"""Entries that are claimed at a time, each of another session."""

_SESSIONS = 64
"""Sessions that are copied at a time."""

_GATHER = 0.2
"""Seconds for which writes are gathered before they are flushed: a session that is typed in is copied once for all."""

_EVERYWHERE = 1.0
"""Seconds between two looks at what other processes have left on the queue."""

_DEAD = 30.0
"""Seconds after which whoever has claimed an entry is taken for dead. One that lives only loses the work: a session
copied twice is one."""

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
        """``worker``: a name that no other process has."""
        self._hot, self._warm, self._unsealing = hot, warm, unsealing
        self._worker, self._observer = worker, observer
        self._wanted = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._held: list[Queued] = []  # claimed, and not flushed yet because a tier did not answer
        self._rounds = asyncio.Lock()
        self._tries: dict[str, int] = {}
        self._trimmed: OrderedDict[str, int] = OrderedDict()  # below which step a session was trimmed last

    def start(self) -> None:
        """Flush for as long as the engine is open."""
        self._running = asyncio.get_running_loop().create_task(self._run(), name="holdfast-flushing")

    async def wake(self, session: str) -> None:
        """A session has been written to: flush it soon."""
        self._wanted.set()

    async def kept(self, session: str) -> None:
        """A session has been written to: flush it now, so that whoever wrote is answered once the warm tier has it."""
        self._wanted.set()  # for the entry that is on the queue
        await self.session(session)

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

    async def settle(self) -> None:
        """Flush what this process has written and not flushed yet, so that who wrote here finds it in a listing. Where
        a tier does not answer that has to wait.
        """
        if self._wanted.is_set() or self._rounds.locked():  # the one under way may have what was written
            with contextlib.suppress(UnavailableError):
                await self.round(everywhere=False)

    async def drain(self) -> int:
        """Flush all that is on the queue, whoever wrote it and whoever has claimed it: the reply to a claim may have
        been lost, and a session that two have copied is one; how many entries.

        Raises:
            UnavailableError: a tier did not answer; what is not flushed stays on the queue.
        """
        count = 0
        while True:
            done = await self.round(everywhere=True, idle=0.0)
            count += done
            if not done and not self._held:  # what fails for a reason of its own is held for a few rounds, then buried
                return count

    async def session(self, session: str) -> SealedHead | None:
        """Copy to the warm tier what it does not have of a session; the head it stands at there then.

        Raises:
            AlreadyExistsError: the two tiers have different histories.
            TamperedError: a part of the log is in neither.
            UnavailableError: a tier did not answer.
        """
        head = await self._hot.head(session)
        kept = await self._warm.head(session)
        if head is None or (kept is not None and kept.step > head.step):
            return kept  # set to rest, so that the warm tier has all of it; or come back older than it was
        if kept is not None and kept.step == head.step:
            if kept.digest != head.digest:
                raise AlreadyExistsError(f"another entry at step {head.step} of session {session}")
            return kept
        return await self._copy(head, kept)

    async def round(self, *, everywhere: bool, idle: float | None = None) -> int:
        """Claim, copy, acknowledge, once; how many entries are off the queue.

        Args:
            idle: seconds after which a claim lapses; None for as usual.
        """
        async with self._rounds:
            return await self._round(everywhere, _DEAD if idle is None else idle)

    async def _round(self, everywhere: bool, idle: float) -> int:
        self._wanted.clear()
        queued = self._held
        if len(queued) < _AT_ONCE // 2:  # a few that cannot be flushed just now hold nobody up
            limit = _AT_ONCE - len(queued)
            fresh = await self._hot.claim(self._worker, limit=limit, idle=idle, everywhere=everywhere)
            queued = [*{(one.session, one.ticket): one for one in (*queued, *fresh)}.values()]
        self._held = queued
        by_session: dict[str, list[Queued]] = {}
        for one in queued:
            by_session.setdefault(one.session, []).append(one)
        slots = asyncio.Semaphore(_SESSIONS)

        async def copy(session: str) -> SealedHead | Exception | None:
            async with slots:
                try:
                    return await self.session(session)
                except Exception as error:  # one that is broken in a new way must not hold the others up
                    return error

        outcomes = await asyncio.gather(*map(copy, by_session))
        done: list[tuple[Queued, int]] = []
        gone: UnavailableError | None = None
        for (session, entries), outcome in zip(by_session.items(), outcomes, strict=True):
            if not isinstance(outcome, Exception):  # None: it is in neither tier, and there is nothing to copy
                done += [(one, one.step if outcome is None else outcome.step) for one in entries]
                self._tries.pop(session, None)
            elif isinstance(outcome, UnavailableError):
                gone = outcome
            elif await self._given_up(session, entries, outcome):
                self._held = [one for one in self._held if one.session != session]
        if done:
            await self._hot.acknowledge(done)
            off = {(one.session, one.ticket) for one, _ in done}
            self._held = [one for one in self._held if (one.session, one.ticket) not in off]
        if gone is not None and not done:
            raise gone
        return len(queued) - len(self._held)

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
        members = self._members(head, kept)
        while True:
            # A session that is new there goes in one piece: a head must not stand there without its log.
            room = None if kept is None else ROOM
            page = await self._hot.entries(session, after=after, limit=head.step - after, room=room)
            page = [entry for entry in page if entry.step <= head.step]
            self._check(head, page, after, parent)
            last = page[-1]
            if last.step == head.step:
                await self._warm.append(head, page, members=members)
                break
            if kept is None:
                raise TamperedError(f"the log of session {session}")
            await self._warm.append(kept, page)
            after, parent = last.step, last.digest
        if kept is None and head.key is not None and self._unsealing.ring.is_stale(head.key):
            # The keys were rotated between its making and now, so that the rotation may not have seen it.
            await rewrap(self._warm, self._unsealing.ring, head)
        await self._trim(head)
        return head

    def _check(self, head: SealedHead, page: Sequence[SealedEntry], after: int, parent: bytes) -> None:
        """Raise unless a page goes on where the warm tier's log ends."""
        if not page or page[0].step != after + 1:
            raise TamperedError(f"the log of session {head.id}")
        if decode_entry(page[0].header, f"step {after + 1} of session {head.id}").parent != parent:
            raise AlreadyExistsError(f"another entry at step {after} of session {head.id}")

    def _members(self, head: SealedHead, kept: SealedHead | None) -> tuple[str, ...] | None:
        """Who beside the owner may know of a session, where that has changed; None where it has not."""
        header = self._header(head)
        if header is None:
            return None
        before = None if kept is None else self._header(kept)
        if before is not None and before.grants == header.grants:
            return None
        return tuple(sorted(header.grants))

    def _header(self, head: SealedHead) -> Header | None:
        try:
            return self._unsealing.head(head).header
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

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause, looked = _PAUSE, 0.0
        while True:
            everywhere = loop.time() - looked >= _EVERYWHERE
            try:
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
