"""The hot tier in Redis or Valkey: one server, one behind sentinels, or a cluster. Its keys stand in ``redis_keys``.

A commit is one script and one round trip: it compares the step and the fence, looks for the change id, and changes the
items, the head, the log and the indexes of its partition in one atomic step. To create a session takes two, because
the count of its owner's sessions may lie on another server: it is counted first, then made (``redis_quota``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.drivers.redis import Redis, Script
from holdfast.drivers.redis_url import RedisUrl
from holdfast.errors import (
    ConfigurationError,
    LeaseHeldError,
    LeaseLostError,
    StoreUnavailableError,
    TamperedError,
)
from holdfast.model.entry import SealedEntry, purged_payload
from holdfast.model.lease import Lease
from holdfast.model.revocation import Revocation
from holdfast.model.session import SealedHead, SealedItem, Write
from holdfast.ports.hot import HotStore
from holdfast.stores.hot.redis_keys import Keys, SessionKeys
from holdfast.stores.hot.redis_quota import Quota
from holdfast.stores.hot.redis_rows import (
    HEAD_FIELDS,
    entry_of,
    entry_row,
    fields_of,
    head_of,
    loaded_of,
    members_of,
    number,
    time,
)

_FORMAT = 1
_PAGE = 1_000  # entries read at a time
_PAGE_BYTES = 4 * 1024 * 1024
_TRIM = 1_000  # entries forgotten at a time: others are served in between
_COUNT_BYTES = 8
_WRITE_HEAD = 12  # arguments of the write script before the fields
_ABOUT = msgspec.msgpack.Decoder(tuple[str, str, str])


def script(name: str) -> Script:
    """A script by the name of its file."""
    return Script.of(files("holdfast.stores.hot").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8"))


class RedisHotStore(HotStore):
    """Sessions, their log and their leases in Redis. ``queue``: whether writes go to the flush queue too."""

    write_script = script("write")
    page_script = script("page")
    change_script = script("change")
    trim_script = script("trim")
    purge_script = script("purge")
    acquire_script = script("acquire")
    renew_script = script("renew")
    release_script = script("release")
    defer_script = script("defer")
    rewrap_script = script("rewrap")
    epoch_script = script("epoch")
    revoke_script = script("revoke")
    revoked_script = script("revoked")

    def __init__(self, redis: Redis, *, queue: bool = False) -> None:
        self._redis, self._queued = redis, queue
        self.keys = Keys(redis.url.prefix, redis.url.partitions)
        self._quota = Quota(redis, self.keys)
        self._open = _Open()

    @classmethod
    async def open(cls, url: str, *, queue: bool = False, **fields: Any) -> RedisHotStore:
        """Open the hot tier of a URL, see ``RedisUrl``; ``fields`` of it take the place of what the URL says.

        Raises:
            ConfigurationError: the URL cannot be, the server contradicts the durability that is promised, or the
                prefix is in use with another number of partitions; says what to set.
            StoreUnavailableError: there is nobody.
        """
        redis = await Redis.connect(replace(RedisUrl.parse(url), **fields), name="hot")
        store = cls(redis, queue=queue)
        try:
            await store._agree()
        except BaseException:
            await store.close()
            raise
        return store

    async def _agree(self) -> None:
        """Sessions are found by a hash over the partitions: all who share a prefix must have as many."""
        tag, key, wanted = self.keys.root, self.keys.layout, len(self.keys.partitions)
        *_, (format, partitions) = await self._redis.ask_all(
            [
                (tag, (b"HSETNX", key, b"format", _FORMAT)),
                (tag, (b"HSETNX", key, b"partitions", wanted)),
                (tag, (b"HMGET", key, b"format", b"partitions")),
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

    # -- reading -----------------------------------------------------------------------------------------------------

    async def head(self, session: str) -> SealedHead | None:
        keys = self.keys.session(session)
        return head_of(session, await self._redis.ask(keys.tag, b"HMGET", keys.session, *HEAD_FIELDS))

    async def load(self, session: str) -> tuple[SealedHead, list[SealedItem]] | None:
        keys = self.keys.session(session)  # head and items are one key: one command reads them of one moment
        return loaded_of(session, await self._redis.ask(keys.tag, b"HGETALL", keys.session))

    async def members(self, session: str) -> tuple[str, ...]:
        """Who beside the owner may know of a session, as last written."""
        keys = self.keys.session(session)
        return members_of(await self._redis.ask(keys.tag, b"HGET", keys.session, b"members"))

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
                elif why == b"lost":
                    raise LeaseLostError(write.fence or 0, int(facts[0]))
                elif why == b"held":
                    raise LeaseHeldError(facts[0].decode(), time(facts[1]))
                else:
                    raise TamperedError(f"the log of session {write.head.id}")

    async def _send(self, write: Write, keys: SessionKeys, token: bytes, creating: bool, now: datetime) -> Any:
        head, entry = write.head, write.entry
        kept, dropped = fields_of(write, creating=creating)
        partition = self.keys.partition(head.id.encode())
        names = [keys.session, keys.log, partition.due, partition.moved, partition.written, self.keys.void(keys, token)]
        if self._queued:
            names.append(partition.queue)
        return await self._redis.run(
            self.write_script,
            keys.tag,
            names,
            (
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
                _WRITE_HEAD + len(kept),
                *kept,
                *dropped,
            ),
        )

    async def moved(self, since: int | None) -> tuple[int, set[str]]:
        """The mark holds the count of every partition, eight bytes each."""
        partitions = self.keys.partitions
        counts = [int(count or 0) for count in await self._redis.gets([(one.tag, one.written) for one in partitions])]
        mark = int.from_bytes(b"".join(count.to_bytes(_COUNT_BYTES, "big") for count in counts), "big")
        if since is None or since == mark:
            return mark, set()
        size = _COUNT_BYTES * len(partitions)
        known = since.to_bytes(size, "big") if 0 <= since.bit_length() <= 8 * size else bytes(size)
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
        names = (keys.session, self.keys.partition(session.encode()).due)
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
        names = (keys.session, keys.log, self.keys.partition(session.encode()).due)
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

    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        about = msgspec.msgpack.encode((revocation.tenant, revocation.token, revocation.principal))
        given = (
            about,
            number(revocation.before),
            number(revocation.until),
            revocation.by,
            number(now.timestamp()),
        )
        with self._open:
            before, until = await self._redis.run(self.revoke_script, self.keys.root, self.keys.revocations, given)
        return replace(revocation, before=float(before), until=float(until))

    async def revoked(self, *, after: int, now: datetime) -> tuple[list[Revocation], int]:
        row = await self._redis.run(self.revoked_script, self.keys.root, self.keys.revocations[:2], (after,))
        found, instant = [], now.timestamp()
        for about, rest in zip(row[::3], row[1::3], strict=True):
            before, until, by = msgspec.msgpack.decode(rest)
            if float(until) > instant:
                found.append(Revocation(*_ABOUT.decode(about), float(before), float(until), by))
        return found, int(row[-1]) if row else after

    # -- closing -----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        await self._open.close()
        await self._redis.close()


class _Open:
    """Around a write, which may take several scripts: closing waits for it."""

    def __init__(self) -> None:
        self._inside = 0
        self._closed = False
        self._quiet: asyncio.Future[None] | None = None

    def __enter__(self) -> None:
        if self._closed:
            raise StoreUnavailableError("hot", "it is closed")
        self._inside += 1

    def __exit__(self, *raised: object) -> None:
        self._inside -= 1
        if not self._inside and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    async def close(self) -> None:
        self._closed = True
        while self._inside:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet
