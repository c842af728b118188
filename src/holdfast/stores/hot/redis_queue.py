"""The flush queue of the Redis hot tier: what was written and is not in the warm tier yet.

A session that is written to has one entry there until all that was written is acknowledged; it keeps the first step
that waits and the entry's id itself, in ``queued``. So what is copied whole costs one entry, however many writes it
was, and an acknowledgement that comes twice, or late, changes nothing. How many log entries wait is the difference of
two counts, of what was written and of what was flushed.

Each partition has a stream with one consumer group. A claim is the group's; that of a worker that died lapses, and
another takes it. The group is made by whoever claims first: it is gone with the stream when a server comes back empty.

An older file put back brings stream, sessions and counts of one moment. Where somebody's hand has parted them they
come together again: on an empty queue nothing waits, whatever the counts say, so that writes land; and whoever finds
them at odds there, looking everywhere, queues the sessions that should be and counts anew. While writes are refused the
queue does not grow, so that it does become empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.drivers.redis import Redis
from holdfast.drivers.redis_server import Argument
from holdfast.errors import HoldfastError
from holdfast.ports.hot import Backlog, Buried, Queued
from holdfast.stores.hot.redis_closing import Writes
from holdfast.stores.hot.redis_keys import Keys, PartitionKeys
from holdfast.stores.hot.redis_rows import script

MALFORMED = "malformed"
"""Why an entry of the queue is buried that none of our scripts has written."""

_LONGEST_STEP = 16  # digits; what is longer is no step, for up to 2**53 they are exact
_ALL = 2**31
_LETTERS = 500  # put back at a time: others are served in between


class RedisQueue:
    """The part of the Redis hot store that is about its flush queue."""

    claim_script = script("claim")
    acknowledge_script = script("acknowledge")
    bury_script = script("bury")
    buried_script = script("buried")
    exhume_script = script("exhume")
    recount_script = script("recount")
    backlog_script = script("backlog")

    keys: Keys
    _redis: Redis
    _open: Writes

    def __init__(self) -> None:
        self._news: set[PartitionKeys] = set()  # where this process has written since it last looked

    async def claim(self, worker: str, *, limit: int, idle: float, everywhere: bool = True) -> list[Queued]:
        """All partitions in one pipeline. Where more is left than a partition's share, it is asked for more."""
        found: list[Queued] = []
        failure: HoldfastError | None = None
        with self._open:
            asked = dict.fromkeys(self.keys.partitions if everywhere else self._news, b"0-0")  # beyond which entry
            self._news.difference_update(asked)
            try:
                while asked and len(found) < limit:
                    share = -(-(limit - len(found)) // len(asked))
                    given = (worker, share, round(idle * 1000), b"1" if everywhere else b"0")
                    rows = await self._redis.run_each(
                        [
                            (self.claim_script, one.tag, (one.queue, one.written, one.flushed), (*given, after))
                            for one, after in asked.items()
                        ]
                    )
                    partitions, asked = list(asked), {}
                    for one, row in zip(partitions, rows, strict=True):
                        if isinstance(row, HoldfastError):
                            self._news.add(one)
                            failure = row
                            continue
                        if isinstance(row, int):
                            if await self._recount(one, row):
                                asked[one] = b"0-0"
                            continue
                        found += await self._sound(one, row)
                        if len(row) >= share:
                            asked[one] = b"(" + row[-1][0]
            finally:
                self._news.update(asked)
        if failure is not None and not found:  # what other servers of a cluster have is flushed all the same
            raise failure
        return found

    async def _sound(self, partition: PartitionKeys, row: list[Any]) -> list[Queued]:
        """What was claimed in a partition, without what cannot be read: that is buried, and stops nobody else."""
        found: list[Queued] = []
        malformed: list[Argument] = []
        for ticket, fields, tries, waited in row:
            queued = self._queued(partition, ticket, fields, tries, waited)
            if queued is None:
                malformed.append(ticket)
            else:
                found.append(queued)
        if malformed:
            names = (partition.queue, partition.buried, partition.flushed)
            await self._redis.run(self.bury_script, partition.tag, names, (MALFORMED, *malformed))
        return found

    def _queued(
        self, partition: PartitionKeys, ticket: bytes, fields: list[bytes], tries: int, waited: int
    ) -> Queued | None:
        if len(fields) != 4 or fields[0] != b"s" or fields[2] != b"n":
            return None
        session, step = fields[1], fields[3]
        if not step.isdigit() or len(step) > _LONGEST_STEP or self.keys.partition(session) != partition:
            return None
        try:
            return Queued(ticket.decode(), session.decode(), int(step), tries, waited / 1000)
        except UnicodeDecodeError:
            return None

    async def _recount(self, partition: PartitionKeys, written: int) -> int:
        """Queue what should be on a queue that is empty, and count anew; how many sessions."""
        ids = await self._redis.ask(partition.tag, b"ZRANGE", partition.moved, 0, -1)
        names = (partition.queue, partition.written, partition.flushed, *map(self.keys.stands, ids))
        return int(await self._redis.run(self.recount_script, partition.tag, names, (written, *ids)))

    async def acknowledge(self, flushed: Sequence[tuple[Queued, int]]) -> None:
        calls: dict[PartitionKeys, tuple[list[bytes], list[Argument]]] = {}
        for one, step in flushed:
            id = one.session.encode()
            partition = self.keys.partition(id)
            names, given = calls.setdefault(partition, ([partition.queue, partition.flushed], []))
            names.append(self.keys.stands(id))
            given += (one.ticket, id, step)
        with self._open:
            answers = await self._redis.run_all(
                [(self.acknowledge_script, one.tag, names, given) for one, (names, given) in calls.items()]
            )
            self._news.update(one for one, anew in zip(calls, answers, strict=True) if anew)

    async def bury(self, queued: Sequence[Queued], reason: str) -> None:
        calls: dict[PartitionKeys, tuple[list[bytes], list[Argument]]] = {}
        for one in queued:
            id = one.session.encode()
            partition = self.keys.partition(id)
            start = [partition.queue, partition.buried, partition.flushed]
            names, given = calls.setdefault(partition, (start, [reason]))
            names.append(self.keys.stands(id))
            given.append(one.ticket)
        with self._open:
            await self._redis.run_all(
                [(self.bury_script, one.tag, names, given) for one, (names, given) in calls.items()]
            )

    async def buried(self, *, limit: int) -> list[Buried]:
        rows = await self._redis.run_all(
            [(self.buried_script, one.tag, (one.buried,), (limit,)) for one in self.keys.partitions]
        )
        return [_letter(reason, fields) for row in rows for _, reason, fields in row][:limit]

    async def exhume(self) -> int:
        """In the order in which they were written: of several letters of a session the first says what waits."""
        partitions = self.keys.partitions
        with self._open:
            self._news.update(partitions)
            rows = await self._redis.run_all(
                [(self.buried_script, one.tag, (one.buried,), (_ALL,)) for one in partitions]
            )
            calls = []
            for one, row in zip(partitions, rows, strict=True):
                letters = sorted(row, key=lambda letter: [int(part) for part in letter[0].split(b"-")])
                for start in range(0, len(letters), _LETTERS):
                    part = letters[start : start + _LETTERS]
                    sessions = [self._named(one, ticket, fields) for ticket, _, fields in part]
                    names = (one.queue, one.buried, one.flushed, *sessions)
                    calls.append((self.exhume_script, one.tag, names, [ticket for ticket, *_ in part]))
            return sum(await self._redis.run_all(calls))

    def _named(self, partition: PartitionKeys, ticket: bytes, fields: list[bytes]) -> bytes:
        """The key of the session that a dead letter is of; the letters' own for none."""
        queued = self._queued(partition, ticket, fields, 1, 0)
        return partition.buried if queued is None else self.keys.stands(fields[1])

    async def backlog(self) -> Backlog:
        rows = await self._redis.run_all(
            [
                (self.backlog_script, one.tag, (one.queue, one.buried, one.written, one.flushed), ())
                for one in self.keys.partitions
            ]
        )
        entries, waited, buried = zip(*rows, strict=True)
        return Backlog(sum(entries), max(waited) / 1000, sum(buried))


def _letter(reason: bytes, fields: list[bytes]) -> Buried:
    """A dead letter as far as it can be read: of one that is malformed there may be nothing."""
    named = dict(zip(fields[::2], fields[1::2], strict=False))
    session, step = named.get(b"s", b"").decode(errors="replace"), named.get(b"n", b"")
    return Buried(session, int(step) if step.isdigit() and len(step) <= _LONGEST_STEP else 0, reason.decode())
