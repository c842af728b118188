"""The hot tier in a SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import apsw

from holdfast.drivers.sqlite import SqliteFile
from holdfast.errors import LeaseHeldError, LeaseLostError, LimitExceededError, TamperedError
from holdfast.model.entry import SealedEntry
from holdfast.model.lease import Lease
from holdfast.model.session import SealedHead, SealedItem, Write
from holdfast.ports.hot import HotStore
from holdfast.stores.sqlite_rows import (
    ENTRIES,
    ENTRY,
    HEAD,
    ITEMS,
    KEEP_ENTRY,
    KEEP_HEAD,
    defer,
    entries_at,
    entries_of,
    entry_row,
    entry_under,
    head_of,
    head_row,
    keep_members,
    open_tables,
    purge,
    rewrap,
    sessions_due,
)

_RECENT = f"{ENTRY} WHERE s.id = ? AND l.step < ? ORDER BY l.step DESC LIMIT ?"
_STANDS = "SELECT no, step, fence, holder, until, due, status, digest, archive FROM session WHERE id = ?"
_MOVE = "UPDATE session SET step = ?1, version = ?2, digest = ?3, sealed = ?4, snapped = ?1 WHERE no = ?5"
_SNAPPED = "UPDATE session SET snapped = step WHERE no = ?"
_TURN = "UPDATE session SET status = ? WHERE no = ?"  # apart: naming an indexed column costs an index write each time
_DEFER = "UPDATE session SET due = ? WHERE no = ?"  # and so is this one
_PUT = (
    "INSERT INTO item (session, id, version, sealed) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (session, id) DO UPDATE SET version = excluded.version, sealed = excluded.sealed"
)
_RENEW = "UPDATE session SET until = ? + seconds WHERE no = ? AND holder IS NOT NULL AND until > ?"
_CHANGED = "SELECT 1 FROM log WHERE session = ? AND change = ?"
_DROP = "DELETE FROM item WHERE session = ? AND id = ?"
_GONE = ("discarded", "expired")


class SqliteHotStore(HotStore):
    """Sessions, their log and their leases in one SQLite file, which the warm tier may share."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    @classmethod
    def open(cls, path: str | Path, *, vfs: str | None = None, synchronous: str = "FULL") -> SqliteHotStore:
        """Open the file of a path; see ``SqliteFile.open``."""
        return cls(open_tables(path, name="hot", vfs=vfs, synchronous=synchronous))

    async def head(self, session: str) -> SealedHead | None:
        with self._file.mapped():
            row = self._file.read.execute(HEAD, (session,)).get
        return None if row is None else head_of(row)

    async def load(self, session: str) -> tuple[SealedHead, list[SealedItem]] | None:
        read = self._file.read
        with self._file.mapped(), read:  # one transaction: header and items of one moment
            row = read.execute(HEAD, (session,)).get
            if row is None:
                return None
            items = [SealedItem(*item) for item in read.execute(ITEMS, (session,))]
        return head_of(row), items

    async def write(self, write: Write, *, now: datetime) -> bool:
        instant = now.timestamp()
        if write.expected == 0:
            return await self._file.write(lambda connection: _create(connection, write))
        return await self._file.write(lambda connection: _move(connection, write, instant))

    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        return entries_of(self._file, session, ENTRIES, (session, after, limit), room)

    async def recent(self, session: str, *, before: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        return entries_of(self._file, session, _RECENT, (session, before, limit), room)

    async def at(self, session: str, steps: Sequence[int]) -> dict[int, SealedEntry]:
        return entries_at(self._file, session, steps)

    async def change(self, session: str, change: str) -> SealedEntry | None:
        return entry_under(self._file, session, change)

    async def trim(self, session: str, *, below: int) -> None:
        await self._file.write(
            lambda connection: connection.execute(
                "DELETE FROM log WHERE session = (SELECT no FROM session WHERE id = ?) AND step < ?", (session, below)
            )
        )

    async def acquire(
        self, session: str, holder: str, *, seconds: float, now: datetime, force: bool = False
    ) -> Lease | None:
        instant = now.timestamp()

        def job(connection: apsw.Connection) -> Lease | None:
            row = connection.execute(_STANDS, (session,)).get
            if row is None:
                return None
            number, _, fence, held_by, until, *_ = row
            if held_by is not None and held_by != holder and until > instant and not force:
                raise LeaseHeldError(held_by, _time(until))
            connection.execute(
                "UPDATE session SET fence = ?, holder = ?, until = ?, seconds = ? WHERE no = ?",
                (fence + 1, holder, instant + seconds, seconds, number),
            )
            return Lease(session, holder, fence + 1, _time(instant + seconds))

        return await self._file.write(job)

    async def renew(self, lease: Lease, *, seconds: float, now: datetime) -> Lease:
        until = now.timestamp() + seconds

        def job(connection: apsw.Connection) -> Lease:
            row = connection.execute(_STANDS, (lease.session,)).get
            if row is None or row[2] != lease.fence or row[3] is None:
                raise LeaseLostError(lease.fence, 0 if row is None else row[2])
            connection.execute("UPDATE session SET until = ?, seconds = ? WHERE no = ?", (until, seconds, row[0]))
            return Lease(lease.session, row[3], lease.fence, _time(until))

        return await self._file.write(job)

    async def release(self, lease: Lease) -> None:
        await self._file.write(
            lambda connection: connection.execute(
                "UPDATE session SET holder = NULL, until = 0 WHERE id = ? AND fence = ?", (lease.session, lease.fence)
            )
        )

    async def lease(self, session: str, *, now: datetime) -> Lease | None:
        with self._file.mapped():
            row = self._file.read.execute(_STANDS, (session,)).get
        if row is None or row[3] is None or row[4] <= now.timestamp():
            return None
        return Lease(session, row[3], row[2], _time(row[4]))

    async def moved(self, since: int | None) -> tuple[int, set[str]]:
        with self._file.mapped():
            mark = self._file.read.execute("SELECT coalesce(max(rowid), 0) FROM log").get
            if since is None or since == mark:
                return mark, set()
            rows = self._file.read.execute(
                "SELECT DISTINCT session.id FROM log JOIN session ON session.no = log.session WHERE log.rowid > ?",
                (since,),
            )
            return mark, {row[0] for row in rows}

    async def due(self, *, now: datetime, limit: int) -> list[str]:
        return sessions_due(self._file, now, limit)

    async def defer(self, session: str, *, step: int, due: datetime | None) -> None:
        await defer(self._file, session, step, due)

    async def rewrap(self, session: str, *, old: bytes, new: bytes | None) -> bool:
        return await self._file.write(lambda connection: rewrap(connection, session, old, new))

    async def purge(self, session: str) -> None:
        await self._file.write(lambda connection: purge(connection, session))

    async def epoch(self, boot: str, offer: datetime) -> datetime:
        def job(connection: apsw.Connection) -> float:
            known = connection.execute("SELECT instant FROM epoch WHERE boot = ?", (boot,)).get
            if known is not None:
                return float(known)
            latest = connection.execute("SELECT max(instant) FROM epoch").get
            instant = max(offer.timestamp(), latest or 0.0)
            connection.execute("INSERT INTO epoch (boot, instant) VALUES (?, ?)", (boot, instant))
            return instant

        return _time(await self._file.write(job))

    async def close(self) -> None:
        await self._file.close()


def _create(connection: apsw.Connection, write: Write) -> bool:
    head = write.head
    if connection.execute(_STANDS, (head.id,)).get is not None:
        return False
    if write.quota is not None:
        kept = connection.execute(
            "SELECT count(*) FROM session WHERE tenant = ? AND owner = ? AND status NOT IN (?, ?)",
            (head.tenant, head.owner, *_GONE),
        ).get
        if kept >= write.quota:
            raise LimitExceededError("sessions of one owner", kept + 1, write.quota)
    connection.execute(KEEP_HEAD, head_row(head))
    number = connection.last_insert_rowid()
    if write.members:
        keep_members(connection, head, write.members)
    _append(connection, number, write)
    _items(connection, number, write)
    connection.execute(_SNAPPED, (number,))
    return True


def _move(connection: apsw.Connection, write: Write, now: float) -> bool:
    head = write.head
    row = connection.execute(_STANDS, (head.id,)).get
    if row is None or row[1] != write.expected or row[-1] is not None or (write.parent and row[7] != write.parent):
        return False  # of a stub nothing is here to write to: who reads it again has it restored
    number, _, fence, holder, until, due, status, *_ = row
    if write.fence is not None:
        if write.fence != fence or holder is None:
            raise LeaseLostError(write.fence, fence)
    elif holder is not None and until > now and write.entry.commit:
        raise LeaseHeldError(holder, _time(until))
    try:
        _append(connection, number, write)
    except apsw.ConstraintError:  # the statement undid itself, and nothing else was done
        if connection.execute(_CHANGED, (number, write.entry.change)).get is None:
            raise TamperedError(f"the log of session {head.id}") from None
        return False
    _items(connection, number, write)
    if write.fence is not None:
        connection.execute(_RENEW, (now, number, now))
    connection.execute(_MOVE, (head.step, head.version, head.digest, head.sealed, number))
    if head.status != status:
        connection.execute(_TURN, (head.status, number))
    if head.due != due:
        connection.execute(_DEFER, (head.due, number))
    if write.members is not None:
        keep_members(connection, head, write.members)
    return True


def _append(connection: apsw.Connection, number: int, write: Write) -> None:
    connection.execute(KEEP_ENTRY, entry_row(number, write.entry))


def _items(connection: apsw.Connection, number: int, write: Write) -> None:
    for item in write.items:
        if item.sealed is None:
            connection.execute(_DROP, (number, item.id))
        else:
            connection.execute(_PUT, (number, item.id, item.version, item.sealed))


def _time(instant: float) -> datetime:
    return datetime.fromtimestamp(instant, UTC)
