"""The hot tier in Redis or Valkey: one server, one behind sentinels, or a cluster. Its keys stand in ``redis_keys``.

A commit is one script and one round trip: it compares the step and the fence, looks for the change id, and changes the
items, the head, the log and the indexes of its partition in one atomic step. To create a session takes two, because
the count of its owner's sessions may lie on another server: it is counted first, then made (``redis_quota``).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from holdfast.drivers.redis import Redis
from holdfast.drivers.redis_url import RedisUrl
from holdfast.errors import (
    ConfigurationError,
    FlushQueueFullError,
    LeaseHeldError,
    LeaseLostError,
    TamperedError,
)
from holdfast.model.entry import SealedEntry, purged_payload
from holdfast.model.lease import Lease
from holdfast.model.session import SealedHead, SealedItem, Write
from holdfast.ports.hot import HotSize, TieredHotStore
from holdfast.stores.hot.redis_closing import Writes
from holdfast.stores.hot.redis_keys import Keys, SessionKeys
from holdfast.stores.hot.redis_queue import RedisQueue
from holdfast.stores.hot.redis_quota import Quota
from holdfast.stores.hot.redis_rows import (
    HEAD_FIELDS,
    entry_of,
    entry_row,
    fields_of,
    head_of,
    installed_of,
    loaded_of,
    number,
    script,
    time,
)

_FORMAT = 1
_PAGE = 1_000  # entries read at a time
_PAGE_BYTES = 4 * 1024 * 1024
_TRIM = 1_000  # entries forgotten at a time: others are served in between
_COUNT_BYTES = 8
_WRITE_HEAD = 14  # arguments of the write script before the fields
_INSTALL_HEAD = 4  # and of the install script
_BOUND = 10_000


class RedisHotStore(RedisQueue, TieredHotStore):
    """Sessions, their log, their leases and the flush queue in Redis.

    ``bound``: how many log entries of one partition may wait to be flushed; beyond it, writes are refused.
    """

    write_script = script("write")
    page_script = script("page")
    change_script = script("change")
    known_script = script("known")
    trim_script = script("trim")
    purge_script = script("purge")
    acquire_script = script("acquire")
    renew_script = script("renew")
    release_script = script("release")
    defer_script = script("defer")
    rewrap_script = script("rewrap")
    epoch_script = script("epoch")
    evict_script = script("evict")
    install_script = script("install")

    def __init__(self, redis: Redis, *, bound: int = _BOUND) -> None:
        super().__init__()
        self._redis, self._bound = redis, bound
        self.keys = Keys(redis.url.prefix, redis.url.partitions)
        self._quota = Quota(redis, self.keys)
        self._open = Writes()
        self._marks: list[bytes | None] = []  # of the layout and each partition, as of when they were last looked at

    @classmethod
    async def open(cls, url: str, *, bound: int = _BOUND, **fields: Any) -> RedisHotStore:
        """Open the hot tier of a URL, see ``RedisUrl``; ``fields`` of it take the place of what the URL says.

        Args:
            bound: how many writes of one partition may wait to be flushed.
        Raises:
            ConfigurationError: the URL cannot be, the server contradicts the durability that is promised, or the
                prefix is in use with another number of partitions; says what to set.
            StoreUnavailableError: there is nobody.
        """
        redis = await Redis.connect(replace(RedisUrl.parse(url), **fields), name="hot")
        store = cls(redis, bound=bound)
        try:
            store._marks = await store._agree()
        except BaseException:
            await store.close()
            raise
        return store

    async def _agree(self) -> list[bytes | None]:
        """Sessions are found by a hash over the partitions: all who share a prefix must have as many.

        The layout and the marks are made where they are missing. Nothing is written where they are not: a server
        without memory takes no writes.

        Returns:
            The marks, of the layout and of each partition.
        """
        tag, key, wanted = self.keys.root, self.keys.layout, len(self.keys.partitions)
        read = (b"HMGET", key, b"format", b"partitions", b"mark")
        format, partitions, mark = await self._redis.ask(tag, *read)
        if format is None or partitions is None or mark is None:
            *_, (format, partitions, mark) = await self._redis.ask_all(
                [
                    (tag, (b"HSETNX", key, b"format", _FORMAT)),
                    (tag, (b"HSETNX", key, b"partitions", wanted)),
                    (tag, (b"HSETNX", key, b"mark", _fresh_mark())),
                    (tag, read),
                ]
            )
        if int(format) != _FORMAT:
            raise ConfigurationError(
                f"The hot tier is kept in format {int(format)}, and this Holdfast knows {_FORMAT}."
            )
        if int(partitions) != wanted:
            raise ConfigurationError(
                f"This prefix of the hot tier has {int(partitions)} partitions, not {wanted}: set"
                f" partitions={int(partitions)} in its URL."
            )
        named = [(one.tag, one.mark) for one in self.keys.partitions]
        marks = await self._redis.gets(named)
        if None in marks:
            missing = [name for name, known in zip(named, marks, strict=True) if known is None]
            await self._redis.ask_all([(tag, (b"SET", name, _fresh_mark(), b"NX")) for tag, name in missing])
            marks = await self._redis.gets(named)
        return [mark, *marks]

    # -- reading -----------------------------------------------------------------------------------------------------

    async def head(self, session: str) -> SealedHead | None:
        keys = self.keys.session(session)
        return head_of(session, await self._redis.ask(keys.tag, b"HMGET", keys.session, *HEAD_FIELDS))

    async def load(self, session: str) -> tuple[SealedHead, list[SealedItem]] | None:
        keys = self.keys.session(session)  # head and items are one key: one command reads them of one moment
        return loaded_of(session, await self._redis.ask(keys.tag, b"HGETALL", keys.session))

    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        return await self._pages(session, after + 1, 1, limit, room)

    async def recent(self, session: str, *, before: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        return await self._pages(session, before - 1, -1, limit, room)

    async def at(self, session: str, steps: Sequence[int]) -> dict[int, SealedEntry]:
        keys = self.keys.session(session)
        found: dict[int, SealedEntry] = {}
        for start in range(0, len(steps), _PAGE):
            part = steps[start : start + _PAGE]
            rows = await self._redis.ask(keys.tag, b"HMGET", keys.log, *part)
            found |= {
                step: entry_of(session, step, row) for step, row in zip(part, rows, strict=True) if row is not None
            }
        return found

    async def change(self, session: str, change: str) -> SealedEntry | None:
        keys = self.keys.session(session)
        found = await self._redis.run(self.change_script, keys.tag, (keys.log,), (change,))
        return None if found is None else entry_of(session, int(found[0]), found[1])

    async def known(self, session: str, change: str) -> int | None:
        keys = self.keys.session(session)
        step: int | None = await self._redis.run(self.known_script, keys.tag, (keys.session, keys.log), (change,))
        return step

    async def _pages(self, session: str, start: int, way: int, limit: int, room: int | None) -> list[SealedEntry]:
        """A run of the log, read in parts that keep the server busy for a moment only."""
        keys = self.keys.session(session)
        found: list[SealedEntry] = []
        left = 2**53 if room is None else room
        while len(found) < limit and left > 0:
            most, bytes_ = min(limit - len(found), _PAGE), min(left, _PAGE_BYTES)
            row = await self._redis.run(
                self.page_script, keys.tag, (keys.session, keys.log), (start, way, most, bytes_)
            )
            part = [entry_of(session, int(step), entry) for step, entry in zip(row[::2], row[1::2], strict=True)]
            found += part
            read = sum(len(entry.payload) for entry in part)
            if not part or (len(part) < most and read < bytes_):
                break
            left, start = left - read, part[-1].step + way
        return found

    # -- writing -----------------------------------------------------------------------------------------------------

    async def write(self, write: Write, *, now: datetime) -> bool:
        with self._open:
            keys, token = self.keys.session(write.head.id), b""
            creating = write.expected == 0
            if creating:
                reserved = await self._quota.reserve(write.head, write.quota)
                if reserved is None:
                    return False
                token = reserved
            while True:
                answer = await self._send(write, keys, token, creating, now)
                if isinstance(answer, int):
                    return answer == 1
                why, *facts = answer
                if why in (b"void", b"uncounted"):  # a session that comes back is counted, and bound by no quota
                    again = await self._quota.reserve(write.head, write.quota if creating else None, void=token)
                    if again is None:
                        return False
                    token = again
                elif why == b"full":
                    raise FlushQueueFullError(int(facts[0]))
                elif why == b"lost":
                    raise LeaseLostError(write.fence or 0, int(facts[0]))
                elif why == b"held":
                    raise LeaseHeldError(facts[0].decode(), time(facts[1]))
                else:
                    raise TamperedError(f"the log of session {write.head.id}")

    async def _send(self, write: Write, keys: SessionKeys, token: bytes, creating: bool, now: datetime) -> Any:
        head, entry = write.head, write.entry
        kept, dropped = fields_of(write, creating=creating)
        partition = keys.partition
        names = [keys.session, keys.log, partition.due, partition.moved, partition.written]
        names += (partition.queue, partition.flushed)
        if token:
            names += (self.keys.void(keys, token), partition.evicted)
        given = (
            head.id,
            write.expected,
            number(now.timestamp()),
            b"" if write.fence is None else write.fence,
            b"1" if entry.commit else b"0",
            entry.change,
            entry.step,
            entry_row(entry),
            head.status,
            b"" if head.due is None else number(head.due),
            token,
            self._bound,
            write.parent,
            _WRITE_HEAD + len(kept),
            *kept,
            *dropped,
        )
        try:
            return await self._redis.run(self.write_script, keys.tag, names, given)
        finally:  # whatever came of it
            self._news.add(partition)

    async def moved(self, since: int | None) -> tuple[int, set[str]]:
        """The mark holds the count of every partition, eight bytes each."""
        partitions = self.keys.partitions
        counts = [int(count or 0) for count in await self._redis.gets([(one.tag, one.written) for one in partitions])]
        mark = int.from_bytes(b"".join(count.to_bytes(_COUNT_BYTES, "big") for count in counts), "big")
        if since is None or since == mark:
            return mark, set()
        size = _COUNT_BYTES * len(partitions)
        known = since.to_bytes(size, "big") if 0 <= since < 1 << 8 * size else bytes(size)
        asked = []
        for at, (one, count) in enumerate(zip(partitions, counts, strict=True)):
            before = int.from_bytes(known[at * _COUNT_BYTES : (at + 1) * _COUNT_BYTES], "big")
            if before != count:  # a count that has fallen is of older data put back: all of it may be news
                first = b"(%d" % before if before < count else b"-inf"
                asked.append((one.tag, (b"ZRANGEBYSCORE", one.moved, first, b"+inf")))
        return mark, {id.decode() for found in await self._redis.ask_all(asked) for id in found}

    async def trim(self, session: str, *, below: int) -> None:
        with self._open:
            keys = self.keys.session(session)
            while await self._redis.run(self.trim_script, keys.tag, (keys.session, keys.log), (below, _TRIM)):
                pass

    async def due(self, *, now: datetime, limit: int) -> list[str]:
        until = number(now.timestamp())
        found = await self._redis.ask_all(
            [
                (one.tag, (b"ZRANGEBYSCORE", one.due, b"-inf", until, b"WITHSCORES", b"LIMIT", 0, limit))
                for one in self.keys.partitions
            ]
        )
        all_due = sorted((float(due), id) for row in found for id, due in zip(row[::2], row[1::2], strict=True))
        return [id.decode() for _, id in all_due[:limit]]

    async def defer(self, session: str, *, step: int, due: datetime | None) -> None:
        keys = self.keys.session(session)
        instant = b"" if due is None else number(due.timestamp())
        names = (keys.session, keys.partition.due)
        with self._open:
            await self._redis.run(self.defer_script, keys.tag, names, (session, step, instant))

    async def rewrap(self, session: str, *, old: bytes, new: bytes | None) -> bool:
        keys = self.keys.session(session)
        with self._open:
            given = (old,) if new is None else (old, new)
            return bool(await self._redis.run(self.rewrap_script, keys.tag, (keys.session,), given) == 1)

    async def purge(self, session: str) -> None:
        with self._open:
            while not await self._purge(session):  # it was written to meanwhile: its log is hashed anew
                pass

    async def _purge(self, session: str) -> bool:
        keys = self.keys.session(session)
        step, floor, purged = await self._redis.ask(keys.tag, b"HMGET", keys.session, b"step", b"floor", b"purged")
        if step is None:
            return True
        left: list[bytes | int] = []
        if purged is None:
            for entry in await self.entries(session, after=int(floor or 1) - 1, limit=int(step)):
                left += (entry.step, entry_row(replace(entry, payload=purged_payload(entry.payload))))
        names = (keys.session, keys.log, keys.partition.due)
        given = (session, step, floor or b"1", *left)
        return bool(await self._redis.run(self.purge_script, keys.tag, names, given) == 1)

    # -- leases ------------------------------------------------------------------------------------------------------

    async def acquire(
        self, session: str, holder: str, *, seconds: float, now: datetime, force: bool = False
    ) -> Lease | None:
        keys, instant = self.keys.session(session), now.timestamp()
        until = instant + seconds
        given = (holder, number(instant), number(until), number(seconds), b"1" if force else b"0")
        with self._open:
            answer = await self._redis.run(self.acquire_script, keys.tag, (keys.session,), given)
        if isinstance(answer, list):
            raise LeaseHeldError(answer[1].decode(), time(answer[2]))
        return None if answer is None else Lease(session, holder, answer, time(until))

    async def renew(self, lease: Lease, *, seconds: float, now: datetime) -> Lease:
        keys, until = self.keys.session(lease.session), now.timestamp() + seconds
        given = (lease.fence, number(until), number(seconds))
        with self._open:
            answer = await self._redis.run(self.renew_script, keys.tag, (keys.session,), given)
        if isinstance(answer, list):
            raise LeaseLostError(lease.fence, int(answer[1]))
        return Lease(lease.session, answer.decode(), lease.fence, time(until))

    async def release(self, lease: Lease) -> None:
        keys = self.keys.session(lease.session)
        with self._open:
            await self._redis.run(self.release_script, keys.tag, (keys.session,), (lease.fence,))

    async def lease(self, session: str, *, now: datetime) -> Lease | None:
        keys = self.keys.session(session)
        holder, fence, until = await self._redis.ask(keys.tag, b"HMGET", keys.session, b"holder", b"fence", b"until")
        if holder is None or float(until) <= now.timestamp():
            return None
        return Lease(session, holder.decode(), int(fence), time(until))

    # -- what is of no session -----------------------------------------------------------------------------------

    async def epoch(self, boot: str, offer: datetime) -> datetime:
        with self._open:
            given = (boot, number(offer.timestamp()))
            return time(await self._redis.run(self.epoch_script, self.keys.root, (self.keys.epochs,), given))

    # -- moving between the tiers ------------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        return self._redis.generation

    @property
    def durability(self) -> str:
        return self._redis.url.durability

    async def whole(self) -> bool:
        """By the marks: one that is another was made anew, by whichever process came first.

        So every process finds it out for itself, and that a single server of a cluster was emptied, too.
        """
        with self._open:
            marks = await self._agree()
        if marks == self._marks:
            return True
        self._marks = marks
        self._redis.generation += 1
        return False

    async def bind(self, warm: str) -> str:
        with self._open:
            await self._redis.ask(self.keys.root, b"HSETNX", self.keys.layout, b"warm", warm)
            bound: bytes = await self._redis.ask(self.keys.root, b"HGET", self.keys.layout, b"warm")
        return bound.decode()

    async def evict(self, session: str, *, step: int, now: datetime, force: bool = False) -> bool:
        keys = self.keys.session(session)
        partition = keys.partition
        names = [keys.session, keys.log, partition.due, partition.moved, partition.evicted, partition.lately]
        names += (partition.queue, partition.flushed)
        given = (session, step, number(now.timestamp()), b"1" if force else b"0")
        with self._open:
            return bool(await self._redis.run(self.evict_script, keys.tag, names, given) == 1)

    async def rested(self, session: str) -> int | None:
        partition = self.keys.session(session).partition
        kept = await self._redis.ask(partition.tag, b"HGET", partition.evicted, session)
        return None if kept is None else abs(int(kept.split()[0]))

    async def install(
        self,
        head: SealedHead,
        items: Sequence[SealedItem],
        entries: Sequence[SealedEntry],
        *,
        fence: int,
        changes: Mapping[str, int],
    ) -> bool:
        keys = self.keys.session(head.id)
        partition = keys.partition
        names = [keys.session, keys.log, partition.due, partition.moved, partition.written]
        names += (partition.evicted, partition.lately, partition.flushed)
        fields, log = installed_of(head, items, entries, changes, fence)
        due = b"" if head.due is None else number(head.due)
        given = (head.id, head.step, due, _INSTALL_HEAD + len(fields), *fields, *log)
        with self._open:
            return bool(await self._redis.run(self.install_script, keys.tag, names, given) == 1)

    async def size(self) -> HotSize:
        """The bytes are those of the servers, whatever else they keep."""
        counts = await self._redis.ask_all(
            [
                (one.tag, command)
                for one in self.keys.partitions
                for command in ((b"ZCARD", one.moved), (b"LLEN", one.lately))
            ]
        )
        return HotSize(sum(counts[::2]) - sum(counts[1::2]), await self._redis.memory())

    # -- closing -----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        await self._open.close()
        await self._redis.close()


def _fresh_mark() -> bytes:
    return secrets.token_hex(8).encode()
