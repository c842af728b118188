"""The warm tier in a SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw
from msgspec.structs import replace

from holdfast.drivers.sqlite import SqliteFile
from holdfast.errors import AlreadyExistsError
from holdfast.model.cursor import PageCursor
from holdfast.model.entry import SealedEntry, purged_payload
from holdfast.model.revocation import Revocation
from holdfast.model.session import SealedHead, SealedItem
from holdfast.ports.warm import AuditRow, ChainEnd, Query, Snapshot, WarmSize, WarmStore
from holdfast.stores.sqlite_rows import (
    ENTRIES,
    HEAD,
    HEAD_COLUMNS,
    HEADS,
    ITEMS,
    KEEP_HEAD,
    defer,
    drop_log,
    entries_at,
    entries_of,
    entry_under,
    head_of,
    head_row,
    keep_entries,
    keep_items,
    keep_members,
    open_tables,
    purge,
    rewrap,
    sessions_due,
)

_LINES = "SELECT chain, seq, tenant, session, line, mac FROM audit"
_CHANGES = "SELECT l.change, l.step FROM session AS s JOIN log AS l ON l.session = s.no WHERE s.id = ? AND l.step < ?"
_UNDER_WAY = "SELECT status, kind, count(*) FROM session WHERE status IN ('draft', 'locked') GROUP BY status, kind"
_KEEP_NEWER_HEAD = (
    KEEP_HEAD + " ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, status = excluded.status,"
    " step = excluded.step, version = excluded.version, digest = excluded.digest, due = excluded.due,"
    " sealed = excluded.sealed WHERE excluded.step > session.step"
)
_SHARED = f"SELECT {HEAD_COLUMNS} FROM member AS m CROSS JOIN session AS s ON s.id = m.id"  # noqa: S608 - constants
_LENGTHY = 2**20
"""Bytes from which on an append is not written in the event loop's thread."""
_STANDS = "SELECT no, purged, step, digest FROM session WHERE id = ?"
_OPEN = "SELECT no, snapped FROM session WHERE id = ? AND archive IS NULL AND NOT purged"
_STUB = "SELECT no FROM session WHERE id = ? AND archive = ?"
_ARCHIVED = "SELECT 1 FROM session WHERE id = ? AND step = ? AND archive = ?"
_SNAPPED = "SELECT snapped FROM session WHERE id = ? AND NOT purged"
_NAME = "INSERT INTO identity SELECT hex(randomblob(16)) WHERE NOT EXISTS (SELECT * FROM identity)"
_SIZE = """
    SELECT
        (SELECT count(*) FROM session),
        (SELECT count(*) FROM session WHERE archive IS NOT NULL),
        (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)
"""
_STANDING = "SELECT before, until FROM revocation WHERE tenant = ? AND token = ? AND principal = ?"
_REVOKE = (
    'INSERT OR REPLACE INTO revocation (tenant, token, principal, before, until, "by")'  # with a new, higher number
    " VALUES (?, ?, ?, ?, ?, ?)"
)
_REVOKED = (
    'SELECT tenant, token, principal, before, until, "by", no FROM revocation WHERE no > ? AND until > ? ORDER BY no'
)


class SqliteWarmStore(WarmStore):
    """The catalogue, the log and the audit in one SQLite file, which the hot tier may share."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    @classmethod
    def open(cls, path: str | Path, *, vfs: str | None = None, synchronous: str = "FULL") -> SqliteWarmStore:
        """Open the file of a path; see ``SqliteFile.open``."""
        return cls(open_tables(path, name="warm", vfs=vfs, synchronous=synchronous))

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        def job(connection: apsw.Connection) -> None:
            connection.execute(_KEEP_NEWER_HEAD, head_row(head))
            is_newer = connection.changes() > 0
            number, purged, *stands = connection.execute(_STANDS, (head.id,)).get
            if stands[0] == head.step and stands[1] != head.digest:
                raise AlreadyExistsError(f"another entry at step {head.step} of session {head.id}")
            if members is not None and is_newer and not purged:
                keep_members(connection, head, members)
            kept = entries
            if purged:
                kept = [replace(entry, payload=purged_payload(entry.payload)) for entry in entries]
            keep_entries(connection, head.id, number, kept)

        await self._file.write(job, lengthy=sum(len(entry.payload) for entry in entries) > _LENGTHY)

    async def head(self, session: str) -> SealedHead | None:
        with self._file.mapped():
            row = self._file.read.execute(HEAD, (session,)).get
        return None if row is None else head_of(row)

    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        return entries_of(self._file, session, ENTRIES, (session, after, limit), room)

    async def at(self, session: str, steps: Sequence[int]) -> dict[int, SealedEntry]:
        return entries_at(self._file, session, steps)

    async def change(self, session: str, change: str) -> SealedEntry | None:
        return entry_under(self._file, session, change)

    async def changes(self, session: str, *, below: int) -> dict[str, int]:
        with self._file.mapped():
            rows: Any = self._file.read.execute(_CHANGES, (session, below)).fetchall()
        return dict(rows)

    async def find(self, query: Query, *, after: PageCursor | None, limit: int) -> list[SealedHead]:
        if query.member is None:
            return self._found(HEADS, "s", query, {"s.owner": query.owner}, after, limit)
        owned: list[SealedHead] = []
        if query.owner in (None, query.member):
            owned = self._found(HEADS, "s", query, {"s.owner": query.member}, after, limit)
        shared = self._found(_SHARED, "m", query, {"m.principal": query.member, "s.owner": query.owner}, after, limit)
        both = {head.id: head for head in (*owned, *shared)}
        return sorted(both.values(), key=lambda head: (head.created, head.id), reverse=True)[:limit]

    def _found(
        self, heads: str, by: str, query: Query, wanted: dict[str, str | None], after: PageCursor | None, limit: int
    ) -> list[SealedHead]:
        """The first heads of a query, read along the index of the table ``by``."""
        wanted = {f"{by}.tenant": query.tenant, **wanted, "s.kind": query.kind, "s.status": query.status}
        terms = ["1", *(f"{column} = ?" for column, value in wanted.items() if value is not None)]
        bound: list[Any] = [value for value in wanted.values() if value is not None]
        if after is not None:
            terms.append(f"({by}.created, {by}.id) < (?, ?)")
            bound += [after.created, after.id]
        sql = f"{heads} WHERE {' AND '.join(terms)} ORDER BY {by}.created DESC, {by}.id DESC LIMIT ?"
        with self._file.mapped():
            return [head_of(row) for row in self._file.read.execute(sql, (*bound, limit))]

    async def counts(self) -> dict[tuple[str, str], int]:
        with self._file.mapped():
            return {(status, kind): count for status, kind, count in self._file.read.execute(_UNDER_WAY)}

    async def rewrap(self, session: str, *, old: bytes, new: bytes | None) -> bool:
        return await self._file.write(lambda connection: rewrap(connection, session, old, new))

    async def purge(self, session: str) -> None:
        await self._file.write(lambda connection: purge(connection, session), lengthy=True)

    async def due(self, *, now: datetime, limit: int) -> list[str]:
        return sessions_due(self._file, now, limit)

    async def defer(self, session: str, *, step: int, due: datetime | None) -> None:
        await defer(self._file, session, step, due)

    async def snapshot(self, session: str, snapshot: Snapshot) -> None:
        def job(connection: apsw.Connection) -> None:
            row = connection.execute(_OPEN, (session,)).get
            if row is not None and (row[1] is None or row[1] <= snapshot.step):
                keep_items(connection, row[0], snapshot.step, snapshot.items)

        await self._file.write(job, lengthy=True)

    async def items(self, session: str) -> Snapshot | None:
        read = self._file.read
        with self._file.mapped(), read:  # one transaction: the step and the items of one moment
            step = read.execute(_SNAPPED, (session,)).get
            kept = [] if step is None else [SealedItem(*row) for row in read.execute(ITEMS, (session,))]
        return None if step is None else Snapshot(step, tuple(kept))

    async def archive(self, session: str, *, step: int, key: str) -> bool:
        def job(connection: apsw.Connection) -> bool:
            row = connection.execute(f"{_OPEN} AND step = ?", (session, step)).get
            if row is None:  # unless by this very object: who asks again because the answer was lost must not remove it
                return connection.execute(_ARCHIVED, (session, step, key)).get is not None
            drop_log(connection, row[0])
            connection.execute("DELETE FROM item WHERE session = ?", row[:1])
            connection.execute("UPDATE session SET archive = ?, snapped = NULL WHERE no = ?", (key, row[0]))
            return True

        return await self._file.write(job, lengthy=True)

    async def restore(self, session: str, entries: Sequence[SealedEntry], snapshot: Snapshot, *, key: str) -> None:
        def job(connection: apsw.Connection) -> None:
            number = connection.execute(_STUB, (session, key)).get
            if number is None:
                return
            keep_entries(connection, session, number, entries)
            keep_items(connection, number, snapshot.step, snapshot.items)
            connection.execute("UPDATE session SET archive = NULL WHERE no = ?", (number,))

        await self._file.write(job, lengthy=True)

    async def identity(self) -> str:
        def job(connection: apsw.Connection) -> str:
            connection.execute(_NAME)
            return str(connection.execute("SELECT id FROM identity").get)

        return await self._file.write(job)

    async def size(self) -> WarmSize:
        with self._file.mapped():
            return WarmSize(*self._file.read.execute(_SIZE).get)

    async def record(self, rows: Sequence[AuditRow], *, end: bytes) -> bool:
        def job(connection: apsw.Connection) -> bool:
            chain = rows[0].chain
            last = connection.execute("SELECT seq FROM audit_chain WHERE chain = ?", (chain,)).get or 0
            if rows[0].seq != last + 1:
                return False
            connection.executemany(
                "INSERT INTO audit (chain, seq, tenant, session, line, mac) VALUES (?, ?, ?, ?, ?, ?)",
                [(row.chain, row.seq, row.tenant, row.session, row.line, row.mac) for row in rows],
            )
            connection.execute(
                'INSERT INTO audit_chain (chain, seq, mac, "end") VALUES (?, ?, ?, ?)'
                ' ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, mac = excluded.mac, "end" = excluded."end"',
                (chain, rows[-1].seq, rows[-1].mac, end),
            )
            return True

        return await self._file.write(job)

    async def audit(
        self,
        *,
        tenant: str | None = None,
        session: str | None = None,
        chain: str | None = None,
        after: tuple[str, int] | None = None,
        limit: int = 1000,
    ) -> list[AuditRow]:
        terms, bound = ["1"], list[Any]()
        for column, value in (("tenant", tenant), ("session", session), ("chain", chain)):
            if value is not None:
                terms.append(f"{column} = ?")
                bound.append(value)
        if after is not None:
            terms.append("(chain, seq) > (?, ?)")
            bound += after
        sql = _LINES + " WHERE " + " AND ".join(terms) + " ORDER BY chain, seq LIMIT ?"
        with self._file.mapped():
            return [AuditRow(*row) for row in self._file.read.execute(sql, (*bound, limit))]

    async def chains(self) -> dict[str, ChainEnd]:
        with self._file.mapped():
            rows = self._file.read.execute('SELECT chain, seq, mac, "end" FROM audit_chain')
            return {chain: ChainEnd(seq, mac, end) for chain, seq, mac, end in rows}

    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        instant = now.timestamp()

        def job(connection: apsw.Connection) -> Revocation:
            connection.execute("DELETE FROM revocation WHERE until <= ?", (instant,))
            about = (revocation.tenant, revocation.token, revocation.principal)
            before, until = connection.execute(_STANDING, about).get or (0.0, 0.0)
            before, until = max(before, revocation.before), max(until, revocation.until)
            connection.execute(_REVOKE, (*about, before, until, revocation.by))
            return replace(revocation, before=before, until=until)

        return await self._file.write(job)

    async def revoked(self, *, after: int, now: datetime) -> tuple[list[Revocation], int]:
        with self._file.mapped():
            rows: list[Any] = self._file.read.execute(_REVOKED, (after, now.timestamp())).fetchall()
        return [Revocation(*row[:-1]) for row in rows], rows[-1][-1] if rows else after

    async def close(self) -> None:
        await self._file.close()
