"""The warm tier in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from holdfast.drivers.batches import Batches
from holdfast.drivers.postgres import (
    ANSWER,
    PATIENT,
    Migration,
    PostgresPool,
    RaisedError,
    as_text,
    migrations,
    of_text,
)
from holdfast.errors import AlreadyExistsError, StoreUnavailableError, TamperedError
from holdfast.model.cursor import PageCursor
from holdfast.model.entry import SealedEntry
from holdfast.model.revocation import Revocation
from holdfast.model.session import SealedHead
from holdfast.ports.warm import AuditRow, ChainEnd, Query, Snapshot, WarmSize, WarmStore
from holdfast.stores.warm.postgres_queries import HEADS, found, lines_of
from holdfast.stores.warm.postgres_rows import (
    Bytes,
    entries_described,
    entry_of,
    head_of,
    heads_described,
    lines_described,
    packed,
    snapshot_of,
)

MIGRATIONS = migrations(files("holdfast.stores.warm").joinpath("postgres.sql").read_text(encoding="utf-8"))

_MOST = 1_000
_ROOM = 8 * 2**20
"""Appends, and bytes, of one statement; one append that is larger goes alone."""
_LOAD = 15.0
"""Seconds to wait for a snapshot: ten megabytes over a network that carries one a second, and the time to find them."""
_FEW = 100_000
"""Rows that are counted, where more are estimated: so many take some thirty milliseconds."""

_HEAD = HEADS + " WHERE s.id = $1"
_ENTRIES = "SELECT step, version, made, change, header, payload, digest FROM {schema}.log WHERE session = $1"
_AFTER = _ENTRIES + " AND step > $2 ORDER BY step LIMIT $3"
_AFTER_WITH_ROOM = """
    SELECT step, version, made, change, header, payload, digest
    FROM (
        SELECT *, sum(octet_length(payload)) OVER (ORDER BY step) - octet_length(payload) AS filled
        FROM {schema}.log WHERE session = $1 AND step > $2 ORDER BY step LIMIT $3
    ) AS following
    WHERE filled < $4 OR filled = 0 ORDER BY step
"""
_UNDER_CHANGE = _ENTRIES + " AND change = $2"
_CHANGES = "SELECT change, step FROM {schema}.log WHERE session = $1 AND step < $2"
_AT = _ENTRIES + " AND step = ANY ($2::text[]::bigint[])"
_UNDER_WAY = """
    SELECT status, kind, count(*) FROM {schema}.session WHERE status IN ('draft', 'locked') GROUP BY status, kind
"""

_APPEND = "SELECT {schema}.append($1, $2, $3)"
_DUE = "SELECT id FROM {schema}.session WHERE due <= $1 ORDER BY due LIMIT $2"
_DEFER = "UPDATE {schema}.session SET due = $3 WHERE id = $1 AND step = $2"
_SNAPSHOT = "SELECT {schema}.keep_items($1, $2, $3)"
_ITEMS = "SELECT step, items FROM {schema}.snapshot WHERE session = $1"
_ARCHIVE = "SELECT {schema}.archive($1, $2, $3)"
_IDENTITY = "SELECT id FROM {schema}.identity"
_RESTORE = "SELECT {schema}.restore($1, $2, $3, $4, $5, $6)"
# Many sessions are counted by what the server remembers of the last time it looked through them.
_SIZE = """
    SELECT
        CASE WHEN sessions.known < {few} THEN (SELECT count(*) FROM {schema}.session) ELSE sessions.known END,
        CASE WHEN archived.known < {few} THEN (SELECT count(*) FROM {schema}.session WHERE archive IS NOT NULL)
            ELSE archived.known END,
        (
            SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
            WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r'
        )
    FROM
        (SELECT reltuples::bigint AS known FROM pg_class WHERE oid = '{schema}.session'::regclass) AS sessions,
        (SELECT reltuples::bigint AS known FROM pg_class WHERE oid = '{schema}.session_archived'::regclass) AS archived
""".replace("{few}", str(_FEW))
_REWRAP = "UPDATE {schema}.session SET key = $3 WHERE id = $1 AND key = $2 RETURNING true"
_PURGE = "SELECT {schema}.purge($1)"
_CHAINS = 'SELECT chain, seq, mac, "end" FROM {schema}.audit_chain'
_REVOKE = "SELECT stands, ends FROM {schema}.revoke($1, $2, $3, $4, $5, $6, $7)"
_REVOKED = """
    SELECT tenant, token, principal, before, until, "by", no FROM {schema}.revocation
    WHERE no > $1 AND until > $2 ORDER BY no
"""
# The end is moved first, if it stands where the lines begin: of two writers one finds that it does not any more.
_RECORD = """
    WITH moved AS (
        INSERT INTO {schema}.audit_chain AS c (chain, seq, mac, "end")
        SELECT $1::text, $3::bigint, $4::bytea, $5::bytea
        WHERE $2::bigint = 1 OR EXISTS (SELECT FROM {schema}.audit_chain WHERE chain = $1::text)
        ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, mac = excluded.mac, "end" = excluded."end"
        WHERE c.seq = $2::bigint - 1
        RETURNING true
    )
    INSERT INTO {schema}.audit (chain, seq, tenant, session, line, mac)
    SELECT
        $1::text, seq, tenant, session, substring($7::bytea FROM line[1] FOR line[2]),
        substring($7 FROM mac[1] FOR mac[2])
    FROM json_to_recordset($6::json) AS lines (seq bigint, tenant text, session text, line int[], mac int[]), moved
    RETURNING true
"""


class PostgresWarmStore(WarmStore):
    """The catalogue, the log and the audit in the tables of one schema. Appends that are ready together go together."""

    _migrations: ClassVar[Sequence[Migration]] = MIGRATIONS

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._sql = {text: pool.sql(text) for text in _STATEMENTS}
        self._appends = Batches[_Append](pool.name, self._send, most=_MOST, room=_ROOM)
        self._closed = False

    @classmethod
    async def open(cls, url: str) -> PostgresWarmStore:
        """Open the database of a URL and bring its tables up to date; see ``PostgresPool.open``."""
        return cls(await PostgresPool.open(url, name="warm", steps=cls._migrations))

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        if self._closed:
            raise StoreUnavailableError(self._pool.name, "it is closed")
        await self._appends.put(_Append(head, entries, members))

    async def _send(self, batch: list[_Append]) -> Mapping[str, BaseException]:
        """Send a batch, and again without those of its appends that are refused."""
        refused: dict[str, BaseException] = {}
        while batch:
            try:
                blob = Bytes()
                heads = heads_described(((append.head, append.members) for append in batch), blob)
                entries = entries_described(((append.key, entry) for append in batch for entry in append.entries), blob)
                seconds = _seconds(sum(append.size for append in batch))
                await self._pool.write(self._sql[_APPEND], heads, entries, blob.joined(), seconds=seconds)
                break
            except RaisedError as error:
                session = of_text(error.detail)
                refused[session] = AlreadyExistsError(f"another entry at a step of session {session}")
                batch = [append for append in batch if append.key != session]
        return refused

    async def head(self, session: str) -> SealedHead | None:
        rows = await self._pool.fetch(self._sql[_HEAD], as_text(session))
        return head_of(rows[0]) if rows else None

    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        if room is None:
            rows = await self._pool.fetch(self._sql[_AFTER], as_text(session), after, limit)
        else:
            rows = await self._pool.fetch(self._sql[_AFTER_WITH_ROOM], as_text(session), after, limit, room)
        return [entry_of(session, row) for row in rows]

    async def at(self, session: str, steps: Sequence[int]) -> dict[int, SealedEntry]:
        rows = await self._pool.fetch(self._sql[_AT], as_text(session), [str(step) for step in steps])
        return {row[0]: entry_of(session, row) for row in rows}

    async def change(self, session: str, change: str) -> SealedEntry | None:
        rows = await self._pool.fetch(self._sql[_UNDER_CHANGE], as_text(session), as_text(change))
        return entry_of(session, rows[0]) if rows else None

    async def changes(self, session: str, *, below: int) -> dict[str, int]:
        rows = await self._pool.fetch(self._sql[_CHANGES], as_text(session), below)
        return {of_text(change): step for change, step in rows}

    async def find(self, query: Query, *, after: PageCursor | None, limit: int) -> list[SealedHead]:
        sql, bound = found(query, after, limit)
        return [head_of(row) for row in await self._pool.fetch(self._pool.sql(sql), *bound)]

    async def counts(self) -> dict[tuple[str, str], int]:
        rows = await self._pool.fetch(self._sql[_UNDER_WAY])
        return {(of_text(status), of_text(kind)): count for status, kind, count in rows}

    async def rewrap(self, session: str, *, old: bytes, new: bytes | None) -> bool:
        return bool(await self._pool.write(self._sql[_REWRAP], as_text(session), old, new))

    async def purge(self, session: str) -> None:
        await self._pool.write(self._sql[_PURGE], as_text(session), seconds=PATIENT)

    async def due(self, *, now: datetime, limit: int) -> list[str]:
        return [of_text(row[0]) for row in await self._pool.fetch(self._sql[_DUE], now.timestamp(), limit)]

    async def defer(self, session: str, *, step: int, due: datetime | None) -> None:
        instant = None if due is None else due.timestamp()
        await self._pool.write(self._sql[_DEFER], as_text(session), step, instant)

    async def snapshot(self, session: str, snapshot: Snapshot) -> None:
        items = packed(snapshot.items)
        seconds = _seconds(len(items))
        await self._pool.write(self._sql[_SNAPSHOT], as_text(session), snapshot.step, items, seconds=seconds)

    async def items(self, session: str) -> Snapshot | None:
        rows = await self._pool.fetch(self._sql[_ITEMS], as_text(session), seconds=_LOAD)
        try:
            return snapshot_of(*rows[0]) if rows else None
        except msgspec.MsgspecError:
            raise TamperedError(f"the snapshot of session {session}") from None

    async def archive(self, session: str, *, step: int, key: str) -> bool:
        bound = (as_text(session), step, as_text(key))
        return bool((await self._pool.write(self._sql[_ARCHIVE], *bound, seconds=PATIENT))[0][0])

    async def restore(self, session: str, entries: Sequence[SealedEntry], snapshot: Snapshot, *, key: str) -> None:
        items, blob = packed(snapshot.items), Bytes()
        described = entries_described(((session, entry) for entry in entries), blob)
        log = blob.joined()
        bound = (as_text(session), as_text(key), snapshot.step, items, described, log)
        try:
            await self._pool.write(self._sql[_RESTORE], *bound, seconds=_seconds(len(items) + len(log)))
        except RaisedError:
            raise AlreadyExistsError(f"another entry at a step of session {session}") from None

    async def identity(self) -> str:
        return of_text((await self._pool.fetch(self._sql[_IDENTITY]))[0][0])

    async def size(self) -> WarmSize:
        return WarmSize(*(await self._pool.fetch(self._sql[_SIZE]))[0])

    async def record(self, rows: Sequence[AuditRow], *, end: bytes) -> bool:
        first, last, blob = rows[0], rows[-1], Bytes()
        lines = lines_described(rows, blob)
        bound = (as_text(first.chain), first.seq, last.seq, last.mac, end, lines, blob.joined())
        return bool(await self._pool.write(self._sql[_RECORD], *bound))

    async def audit(
        self,
        *,
        tenant: str | None = None,
        session: str | None = None,
        chain: str | None = None,
        after: tuple[str, int] | None = None,
        limit: int = 1000,
    ) -> list[AuditRow]:
        sql, bound = lines_of(tenant, session, chain, after, limit)
        rows = await self._pool.fetch(self._pool.sql(sql), *bound)
        return [
            AuditRow(of_text(chain), seq, of_text(tenant), of_text(session), line, mac)
            for chain, seq, tenant, session, line, mac in rows
        ]

    async def chains(self) -> dict[str, ChainEnd]:
        rows = await self._pool.fetch(self._sql[_CHAINS])
        return {of_text(chain): ChainEnd(seq, mac, end) for chain, seq, mac, end in rows}

    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        made = revocation
        about = (as_text(made.tenant), as_text(made.token), as_text(made.principal))
        rows = await self._pool.write(
            self._sql[_REVOKE], *about, made.before, made.until, as_text(made.by), now.timestamp()
        )
        before, until = rows[0]
        return replace(revocation, before=before, until=until)

    async def revoked(self, *, after: int, now: datetime) -> tuple[list[Revocation], int]:
        rows = await self._pool.fetch(self._sql[_REVOKED], after, now.timestamp())
        found = [
            Revocation(of_text(tenant), of_text(token), of_text(principal), before, until, of_text(by))
            for tenant, token, principal, before, until, by, _ in rows
        ]
        return found, rows[-1][-1] if rows else after

    async def close(self) -> None:
        self._closed = True
        await self._appends.close()
        await self._pool.close()


def _seconds(size: int) -> float:
    """How long to wait for the answer to a write of so many bytes: one second more for each megabyte."""
    return ANSWER + size / 2**20


_STATEMENTS = (
    _HEAD,
    _AFTER,
    _AFTER_WITH_ROOM,
    _AT,
    _UNDER_CHANGE,
    _CHANGES,
    _UNDER_WAY,
    _APPEND,
    _REWRAP,
    _PURGE,
    _DUE,
    _DEFER,
    _SNAPSHOT,
    _IDENTITY,
    _ITEMS,
    _ARCHIVE,
    _RESTORE,
    _SIZE,
    _RECORD,
    _CHAINS,
    _REVOKE,
    _REVOKED,
)


class _Append(msgspec.Struct, frozen=True):
    """What one call of ``append`` brings."""

    head: SealedHead
    entries: Sequence[SealedEntry]
    members: Sequence[str] | None

    @property
    def key(self) -> str:
        return self.head.id

    @property
    def size(self) -> int:
        return len(self.head.sealed) + sum(len(entry.payload) + len(entry.header) for entry in self.entries)
