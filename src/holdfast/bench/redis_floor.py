"""The floor on Redis: a bare script on the same server, and nothing of Holdfast.

Through redis-py as it comes (its pool, hiredis, no second try) a commit is one EVALSHA: it compares the session's step,
writes one field and appends one entry to a stream, in the sizes that ours have. It seals and checks nothing, looks for
no change id, keeps no index, and counts nobody's sessions. Beside it the usual way without a script: WATCH, read,
MULTI, the same writes, EXEC. A load is the session's hash, whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import WatchError
from redis.retry import Retry

from holdfast.ports.hot import HotStore

_SCRIPT = """
if redis.call('HGET', KEYS[1], 'step') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'step', ARGV[2], ARGV[3], ARGV[4])
redis.call('XADD', KEYS[2], '*', 'e', ARGV[5])
return 1
"""


class Sizes(msgspec.Struct, frozen=True):
    """How large ours are, in bytes: the items of a session, and the entry of its last commit."""

    items: tuple[int, ...]
    entry: int

    @classmethod
    async def of(cls, store: HotStore, session: str) -> Sizes:
        """As a store has them. Of an entry all counts that is of one commit alone."""
        loaded = await store.load(session)
        if loaded is None:
            raise LookupError("there is no session to take sizes from")
        head, items = loaded
        (entry,) = await store.recent(session, before=head.step + 1, limit=1)
        size = len(entry.change) + len(entry.header) + len(entry.payload) + len(entry.digest)
        return cls(tuple(len(item.sealed or b"") for item in items), size)


class BareRedis:
    """A client of the server, with sessions in it."""

    def __init__(self, url: str) -> None:
        self._redis: Any = Redis.from_url(url.partition("?")[0], protocol=2, retry=Retry(NoBackoff(), 0))
        self._sha = ""

    async def sessions(self, sizes: Sequence[Sizes], name: str = "bare") -> list[BareSession]:
        """A session for each of the sizes, in keys that begin with a name."""
        self._sha = await self._redis.script_load(_SCRIPT)
        made = []
        for number, size in enumerate(sizes):
            session = BareSession(self._redis, self._sha, f"{name}:{number}", size)
            await session.create()
            made.append(session)
        return made

    async def put(self, key: str, values: Sequence[bytes]) -> None:
        """A hash of these values, by their numbers."""
        await self._redis.hset(key, mapping=dict(enumerate(values)))

    async def aclose(self) -> None:
        await self._redis.aclose()


class BareSession:
    """A session of the floor: one hash, and one stream."""

    def __init__(self, redis: Any, sha: str, key: str, sizes: Sizes) -> None:
        self._redis, self._sha = redis, sha
        self._key, self._log = key, f"{key}:log"
        self._items = [(b"i:%d" % at, os.urandom(size)) for at, size in enumerate(sizes.items)]
        self._entry = os.urandom(sizes.entry)
        self.step = 0

    async def create(self) -> None:
        fields: dict[Any, Any] = {"step": self.step, **dict(self._items)}
        await self._redis.hset(self._key, mapping=fields)

    async def commit(self) -> None:
        """One commit by the script."""
        field, item = self._next()
        given = (self._key, self._log, self.step, self.step + 1, field, item, self._entry)
        if await self._redis.evalsha(self._sha, 2, *given) != 1:
            raise LookupError("the session stands elsewhere")
        self.step += 1

    async def watched(self) -> None:
        """One commit without a script."""
        field, item = self._next()
        async with self._redis.pipeline() as pipe:
            try:
                await pipe.watch(self._key)
                if int(await pipe.hget(self._key, "step")) != self.step:
                    raise LookupError("the session stands elsewhere")
                pipe.multi()
                pipe.hset(self._key, mapping={"step": self.step + 1, field: item})
                pipe.xadd(self._log, {"e": self._entry})
                await pipe.execute()
            except WatchError:
                raise LookupError("the session stands elsewhere") from None
        self.step += 1

    async def load(self) -> dict[bytes, bytes]:
        """The session's step and its items."""
        fields: dict[bytes, bytes] = await self._redis.hgetall(self._key)
        return fields

    async def length(self) -> int:
        """How many entries its log has."""
        return int(await self._redis.xlen(self._log))

    async def shorten(self) -> None:
        """Forget the log, which nobody else takes away."""
        await self._redis.unlink(self._log)

    def _next(self) -> tuple[bytes, bytes]:
        """The field that the next commit writes, and with what."""
        return self._items[self.step % len(self._items)]
