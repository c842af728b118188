"""The floor: bare apsw doing the same rows, and nothing of Holdfast.

A bare file has the tables, the indexes and the rows of one of ours, in a database with SQLite's own defaults but for
WAL and ``synchronous=FULL``. A commit in it is what an engine cannot do without: one transaction that moves the
session on if it still stands where its author saw it, appends a line to the log and puts one item, all in rows of the
sizes that ours have. Its sessions are known by their row number, so that it looks nothing up. It seals, checks and
decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import threading
from pathlib import Path
from typing import Any

import apsw

_BEGIN, _COMMIT = "BEGIN IMMEDIATE", "COMMIT"
_MOVE = "UPDATE session SET status = ?, step = ?, version = ?, digest = ?, sealed = ? WHERE no = ? AND step = ?"
_APPEND = (
    "INSERT INTO log (session, step, version, made, change, header, payload, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT = (
    "INSERT INTO item (session, id, version, sealed) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (session, id) DO UPDATE SET version = excluded.version, sealed = excluded.sealed"
)
_ITEMS = "SELECT id, version, sealed FROM item WHERE session = ?"
_TABLES = ("session", "item", "log")
_CACHE_KIB = 16_384

Rows = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]


class BareSession:
    """Where a session of a bare file stands, and rows for its next commit in the sizes of its last one."""

    def __init__(self, connection: apsw.Connection, number: int) -> None:
        self.number = number
        self._step, self._version, self._status, digest, sealed = connection.execute(
            "SELECT step, version, status, digest, sealed FROM session WHERE no = ?", (number,)
        ).get
        self._random = random.Random(f"{number} {self._step}")  # noqa: S311 - filler, no secret
        change, header, payload = connection.execute(
            "SELECT change, header, payload FROM log WHERE session = ? ORDER BY step DESC LIMIT 1", (number,)
        ).get
        self._items = [(row[0], len(row[2])) for row in connection.execute(_ITEMS, (number,))]
        self._at = 0
        self._digest, self._head = os.urandom(len(digest)), os.urandom(len(sealed))
        self._header, self._payload = os.urandom(len(header)), os.urandom(len(payload))
        self._item = os.urandom(max(size for _, size in self._items))
        self._change_digits = len(change)

    def rows(self) -> Rows:
        """The rows of the next commit: the session's, the log's, the item's."""
        seen = self._step
        self._step += 1
        self._version += 1
        self._at = (self._at + 1) % len(self._items)
        item, size = self._items[self._at]
        change = f"{self._random.getrandbits(4 * self._change_digits):0{self._change_digits}x}"
        return (
            (self._status, self._step, self._version, self._digest, self._head, self.number, seen),
            (self.number, self._step, self._version, 1, change, self._header, self._payload, self._digest),
            (self.number, item, self._version, self._item[:size]),
        )


class BareFile:
    """A bare database file, written and read in the caller's own thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = apsw.Connection(str(path))
        self.connection.pragma("journal_mode", "wal")
        self.connection.pragma("synchronous", "FULL")
        self.connection.pragma("cache_size", -_CACHE_KIB)

    @classmethod
    def like(cls, ours: Path, path: Path) -> BareFile:
        """A file with the tables, indexes and rows of one of ours."""
        bare = cls(path)
        connection = bare.connection
        connection.execute("ATTACH ? AS ours", (str(ours),))
        with connection:
            for table in _TABLES:
                made = "SELECT sql FROM ours.sqlite_schema WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC"
                for (sql,) in connection.execute(made, (table,)).fetchall():
                    connection.execute(str(sql))
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM ours.{table}")  # noqa: S608 - our own names
        connection.execute("DETACH ours")
        connection.pragma("wal_checkpoint", "truncate")
        return bare

    def sessions(self) -> list[BareSession]:
        """Every session of the file."""
        numbers = [row[0] for row in self.connection.execute("SELECT no FROM session ORDER BY no")]
        return [BareSession(self.connection, number) for number in numbers]

    def commit(self, rows: Rows) -> None:
        """One commit, durable on return."""
        self.connection.execute(_BEGIN)
        apply(self.connection, rows)
        self.connection.execute(_COMMIT)

    def load(self, number: int) -> list[tuple[Any, ...]]:
        """The items of a session, as they are stored."""
        return self.connection.execute(_ITEMS, (number,)).fetchall()

    def close(self) -> None:
        self.connection.close()


def apply(connection: apsw.Connection, rows: Rows) -> None:
    """The statements of one commit, within a transaction."""
    session, log, item = rows
    connection.execute(_MOVE, session)
    if connection.changes() != 1:
        raise LookupError("the session stands elsewhere")
    connection.execute(_APPEND, log)
    connection.execute(_PUT, item)


class BareGroup:
    """Group commit over a bare file: a writer thread, each batch one transaction, one wake-up of the loop a batch."""

    def __init__(self, file: BareFile) -> None:
        self._connection = file.connection
        self._loop = asyncio.get_running_loop()
        self._sent: queue.SimpleQueue[tuple[Rows, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bare-writer", daemon=True)
        self._thread.start()

    def commit(self, rows: Rows) -> asyncio.Future[None]:
        """Send one commit; the future is done once it is durable."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._sent.put((rows, done))
        return done

    async def close(self) -> None:
        self._sent.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        connection = self._connection
        while (sent := self._sent.get()) is not None:
            batch = [sent]
            while not self._sent.empty():
                following = self._sent.get()
                if following is None:
                    self._sent.put(None)
                    break
                batch.append(following)
            connection.execute(_BEGIN)
            for rows, _ in batch:
                apply(connection, rows)
            connection.execute(_COMMIT)
            self._loop.call_soon_threadsafe(_settle, [done for _, done in batch])


def _settle(done: list[asyncio.Future[None]]) -> None:
    for one in done:
        one.set_result(None)
