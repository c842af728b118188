"""Repair: where the hot and the warm tier tell a session differently, the newer side is kept, and nothing is lost."""

from __future__ import annotations

from msgspec.structs import replace

from holdfast.engine.blobs import Blobs
from holdfast.engine.journal import Journal, Step
from holdfast.engine.opened import Opened
from holdfast.engine.tiering import Tiering
from holdfast.engine.unsealing import Unsealing
from holdfast.errors import BlobNotFoundError, StoreUnavailableError, TamperedError, UnreadableError
from holdfast.model.access import SYSTEM
from holdfast.model.change import apply, net
from holdfast.model.item import Item
from holdfast.model.session import Header, SealedHead, Status
from holdfast.ports.clock import Chance, Clock
from holdfast.ports.hot import TieredHotStore

_NOTE = " (recovered)"


class Repairing:
    """Brings the two tiers to tell the same."""

    def __init__(
        self,
        journal: Journal,
        tiered: TieredHotStore | None,
        tiering: Tiering,
        unsealing: Unsealing,
        blobs: Blobs,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._journal, self._tiered, self._tiering = journal, tiered, tiering
        self._unsealing, self._blobs, self._clock, self._chance = unsealing, blobs, clock, chance

    async def session(self, session: str, letters: dict[str, str]) -> tuple[str, ...]:
        """Mend a session if it needs it; what was done, a sentence each.

        Args:
            letters: the dead letters. If the session has one they are all tried again, and brought up to date here.
        """
        done = await self._mend(session)
        if session in letters:
            await self._tiering.retry()
            await self._tiering.flush()
            left = await self._tiering.letters()
            letters.clear()
            letters.update(left)
            if session not in left and not done:
                done = ("what could not be flushed is in the warm tier",)
        return done

    async def _mend(self, session: str) -> tuple[str, ...]:
        """Bring the two tiers to tell the same of a session.

        * The hot tier is behind (it came back as it was before): it forgets the session, which is brought back from
          the warm tier when it is next opened.
        * Each has what the other has not: the hot tier's state is made a session of its own first.
        * The warm tier is behind: that is what the flush is for. Where the hot tier has let go of the entry that
          comes next there, its state is made a session of its own too; where it has let go of the session, the warm
          tier's counts.
        """
        if self._tiered is None:
            return ()
        hot, warm = await self._tiered.head(session), await self._journal.warm.head(session)
        if warm is None:
            return ()
        if hot is None:
            return await self._lost(self._tiered, session)
        if hot.digest == warm.digest:
            return await self._rekeyed(hot, warm)
        agreed, done = await self._agree(hot, warm), list[str]()
        if agreed and hot.step > warm.step:
            if not await self._is_torn(self._tiered, warm):
                return ()
            agreed = False
        if not agreed:
            loaded = await self._tiered.load(session)
            if loaded is None:
                return ()
            head, items = loaded
            opened = self._unsealing.items(self._unsealing.head(head), items)
            made = await self._apart(opened)
            what = f"what the hot tier had at step {head.step} (its items and sources; not its history)"
            done.append(f"{what} is session {made}")
            hot = head
        if not await self._tiered.evict(session, step=hot.step, now=self._clock.now(), force=True):
            raise StoreUnavailableError("hot", "the session has moved on meanwhile")
        self._journal.forget(session)
        return (*done, f"the warm tier's step {warm.step} counts, not the hot tier's {hot.step}")

    async def _is_torn(self, tiered: TieredHotStore, warm: SealedHead) -> bool:
        """Whether nobody has the entry that comes after those of the warm tier: it has come back as it was before."""
        if await tiered.at(warm.id, [warm.step + 1]):
            return False
        newest = await self._journal.warm.head(warm.id)  # else that entry was flushed, and trimmed, since
        return newest is not None and newest.step == warm.step

    async def _lost(self, tiered: TieredHotStore, session: str) -> tuple[str, ...]:
        """Where the warm tier has come back as it was before the session was set to rest."""
        rested, warm = await tiered.rested(session), await self._journal.warm.head(session)
        if rested is None or warm is None or rested <= warm.step:
            return ()
        await tiered.evict(session, step=rested, now=self._clock.now(), force=True)
        self._journal.forget(session)
        return (f"the warm tier's step {warm.step} counts: nobody has what came after it, up to step {rested}",)

    async def _rekeyed(self, hot: SealedHead, warm: SealedHead) -> tuple[str, ...]:
        """Where the hot tier came back with a data key as it was wrapped under a key that is gone since: the warm tier
        has it as it is wrapped now.
        """
        if self._tiered is None or hot.key is None or warm.key is None or hot.key == warm.key:
            return ()
        try:
            self._unsealing.head(hot)
        except UnreadableError:
            self._unsealing.head(replace(hot, key=warm.key))
            if await self._tiered.rewrap(hot.id, old=hot.key, new=warm.key):
                self._journal.forget(hot.id)
                return ("the hot tier's copy was sealed under a key that is gone",)
        return ()

    async def _agree(self, hot: SealedHead, warm: SealedHead) -> bool:
        """Whether the one log goes on where the other ends. What the hot tier has let go of is the warm tier's own."""
        if hot.step > warm.step:
            kept = {} if self._tiered is None else await self._tiered.at(hot.id, [warm.step])
            return warm.step not in kept or kept[warm.step].digest == warm.digest
        kept = await self._journal.warm.at(hot.id, [hot.step])
        return hot.step in kept and kept[hot.step].digest == hot.digest

    async def _apart(self, opened: Opened) -> str:
        """A draft of its own with the items and the sources of a session; its id.

        Its labels, its receipts and its history stay behind: they are of steps that the draft never took.
        """
        was, now = opened.header, self._clock.now()
        expires = was.retention.until(now, now)
        header = Header(
            id=self._chance.token(),
            tenant=was.tenant,
            kind=was.kind,
            schema=was.schema,
            owner=was.owner,
            status=Status.DRAFT,
            created=now,
            updated=now,
            title=was.title[: 500 - len(_NOTE)] + _NOTE,
            retention=was.retention,
            expires=expires,
            expiring_since=None if expires is None else now,
            grants=was.grants,
            parent=was.id,
            source=was.source,
        )
        header = replace(header, target=f"{was.tenant}/{header.id}", count=was.count, size=was.size)
        changes = net({}, {key: (item.position, item.raw) for key, item in opened.items.items()})
        items: dict[str, Item] = {}
        apply(items, changes, 1, 1)
        begun = self._journal.begin(header)
        names = await self._copied(opened, begun)
        source = {key: names.get(value, value) if key == "blob" else value for key, value in was.source.items()}
        header = replace(header, blobs=tuple(names.values()), source=source)
        step = Step(header, "create", SYSTEM, self._chance.token(), b"", items=items, changes=changes)
        await self._journal.append(begun, step)
        return header.id

    async def _copied(self, opened: Opened, begun: Opened) -> dict[str, str]:
        """Keep a session's whole objects under another's key too; their names there, by those they had. What cannot be
        read cannot be had back either: it is left, and ``verify`` says so of where it was.
        """
        names: dict[str, str] = {}
        for name in opened.header.blobs:
            try:
                data = await self._blobs.get(opened, name)
            except (BlobNotFoundError, TamperedError):
                continue
            names[name] = await self._blobs.put(begun, data)
        return names
