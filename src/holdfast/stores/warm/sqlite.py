"""The warm tier in a SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
from msgspec.structs import replace

from holdfast.drivers.sqlite import SqliteFile
from holdfast.errors import AlreadyExistsError
from holdfast.model.cursor import PageCursor
from holdfast.model.entry import SealedEntry, purged_payload
from holdfast.model.session import SealedHead
from holdfast.ports.warm import AuditRow, ChainEnd, Query, WarmStore
from holdfast.stores.sqlite_rows import (
    ENTRIES,
    HEAD,
    HEAD_COLUMNS,
    HEADS,
    KEEP_ENTRY,
    KEEP_HEAD,
    SCHEMA,
    entries_at,
    entries_of,
    entry_row,
    head_of,
    head_row,
    keep_members,
    purge,
    rewrap,
)

_LINES = "SELECT chain, seq, tenant, session, line, mac FROM audit"
_UNDER_WAY = "SELECT status, kind, count(*) FROM session WHERE status IN ('draft', 'locked') GROUP BY status, kind"
_KEEP_NEWER_HEAD = (
    KEEP_HEAD + " ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, status = excluded.status,"
    " step = excluded.step, version = excluded.version, digest = excluded.digest, due = excluded.due,"
    " sealed = excluded.sealed WHERE excluded.step > session.step"
)
_SHARED = f"SELECT {HEAD_COLUMNS} FROM member AS m CROSS JOIN session AS s ON s.id = m.id"  # noqa: S608 - constants
_KEEP_NEW_ENTRY = KEEP_ENTRY + " ON CONFLICT DO NOTHING"


class SqliteWarmStore(WarmStore):
    """The catalogue, the log and the audit in one SQLite file, which the hot tier may share."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    @classmethod
    def open(cls, path: str | Path, *, vfs: str | None = None, synchronous: str = "FULL") -> SqliteWarmStore:
        """Open the file of a path; see ``SqliteFile.open``."""
        return cls(SqliteFile.open(path, schema=SCHEMA, name="warm", vfs=vfs, synchronous=synchronous))

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        def job(connection: apsw.Connection) -> None:
            connection.execute(_KEEP_NEWER_HEAD, head_row(head))
            is_newer = connection.changes() > 0
            number, purged = connection.execute("SELECT no, purged FROM session WHERE id = ?", (head.id,)).get
            if members is not None and is_newer and not purged:
                keep_members(connection, head, members)
            for entry in entries:
                kept = replace(entry, payload=purged_payload(entry.payload)) if purged else entry
                connection.execute(_KEEP_NEW_ENTRY, entry_row(number, kept))
                if connection.changes() == 0:
                    digest = connection.execute(
                        "SELECT digest FROM log WHERE session = ? AND step = ?", (number, entry.step)
                    ).get
                    if digest != entry.digest:
                        raise AlreadyExistsError(f"another entry at step {entry.step} of session {head.id}")

        await self._file.write(job)

    async def head(self, session: str) -> SealedHead | None:
        with self._file.mapped():
            row = self._file.read.execute(HEAD, (session,)).get
        return None if row is None else head_of(row)

    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        return entries_of(self._file, session, ENTRIES, (session, after, limit), room)

    async def at(self, session: str, steps: Sequence[int]) -> dict[int, SealedEntry]:
        return entries_at(self._file, session, steps)

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
        await self._file.write(lambda connection: purge(connection, session))

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

    async def close(self) -> None:
        await self._file.close()
