"""The warm tier in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, ClassVar

import msgspec

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
from holdfast.errors import AlreadyExistsError, StoreUnavailableError
from holdfast.model.cursor import PageCursor
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead
from holdfast.ports.warm import AuditRow, ChainEnd, Query, WarmStore

MIGRATIONS = migrations(files("holdfast.stores.warm").joinpath("postgres.sql").read_text(encoding="utf-8"))

Place = tuple[Any, Any]
"""Beyond which row to go on: of a page of sessions or of audit lines."""

_MOST = 1_000
_ROOM = 8 * 2**20
"""Appends, and bytes, of one statement; one append that is larger goes alone."""

_HEADS = """
    SELECT s.id, s.tenant, s.owner, s.kind, s.status, s.step, s.version, s.digest, s.created, s.due, s.sealed, s.key
    FROM {schema}.session AS s
"""
_HEAD = _HEADS + " WHERE s.id = $1"
_SHARED = """
    SELECT s.*
    FROM {schema}.member AS m
        CROSS JOIN LATERAL (
            SELECT id, tenant, owner, kind, status, step, version, digest, created, due, sealed, key
            FROM {schema}.session WHERE id = m.id OFFSET 0 -- looked up for each member's row, as far as the page goes
        ) AS s
"""
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
_AT = _ENTRIES + " AND step = ANY ($2::text[]::bigint[])"
_UNDER_WAY = """
    SELECT status, kind, count(*) FROM {schema}.session WHERE status IN ('draft', 'locked') GROUP BY status, kind
"""

_APPEND = "SELECT {schema}.append($1, $2, $3)"
_REWRAP = "UPDATE {schema}.session SET key = $3 WHERE id = $1 AND key = $2 RETURNING true"
_PURGE = "SELECT {schema}.purge($1)"
_LINES = "SELECT chain, seq, tenant, session, line, mac FROM {schema}.audit"
_CHAINS = 'SELECT chain, seq, mac, "end" FROM {schema}.audit_chain'
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
        await self._appends.put(_Append(head, _each_once(head.id, entries), members))

    async def _send(self, batch: list[_Append]) -> Mapping[str, BaseException]:
        """Send a batch, and again without those of its appends that are refused."""
        refused: dict[str, BaseException] = {}
        while batch:
            try:
                seconds = ANSWER + sum(append.size for append in batch) / 2**20  # one more for each megabyte
                await self._pool.write(self._sql[_APPEND], *_described(batch), seconds=seconds)
                break
            except RaisedError as error:
                session = of_text(error.detail)
                refused[session] = AlreadyExistsError(f"another entry at a step of session {session}")
                batch = [append for append in batch if append.key != session]
        return refused

    async def head(self, session: str) -> SealedHead | None:
        rows = await self._pool.fetch(self._sql[_HEAD], as_text(session))
        return _head_of(rows[0]) if rows else None

    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        if room is None:
            rows = await self._pool.fetch(self._sql[_AFTER], as_text(session), after, limit)
        else:
            rows = await self._pool.fetch(self._sql[_AFTER_WITH_ROOM], as_text(session), after, limit, room)
        return [_entry_of(session, row) for row in rows]

    async def at(self, session: str, steps: Sequence[int]) -> dict[int, SealedEntry]:
        rows = await self._pool.fetch(self._sql[_AT], as_text(session), [str(step) for step in steps])
        return {row[0]: _entry_of(session, row) for row in rows}

    async def find(self, query: Query, *, after: PageCursor | None, limit: int) -> list[SealedHead]:
        sql, bound = found(query, after, limit)
        return [_head_of(row) for row in await self._pool.fetch(self._pool.sql(sql), *bound)]

    async def counts(self) -> dict[tuple[str, str], int]:
        rows = await self._pool.fetch(self._sql[_UNDER_WAY])
        return {(of_text(status), of_text(kind)): count for status, kind, count in rows}

    async def rewrap(self, session: str, *, old: bytes, new: bytes | None) -> bool:
        return bool(await self._pool.write(self._sql[_REWRAP], as_text(session), old, new))

    async def purge(self, session: str) -> None:
        await self._pool.write(self._sql[_PURGE], as_text(session), seconds=PATIENT)

    async def record(self, rows: Sequence[AuditRow], *, end: bytes) -> bool:
        first, last, blob = rows[0], rows[-1], _Bytes()
        lines = [
            {
                "seq": row.seq,
                "tenant": as_text(row.tenant),
                "session": as_text(row.session),
                "line": blob.put(row.line),
                "mac": blob.put(row.mac),
            }
            for row in rows
        ]
        bound = (as_text(first.chain), first.seq, last.seq, last.mac, end, _json(lines), bytes(blob.joined))
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

    async def close(self) -> None:
        self._closed = True
        await self._appends.close()
        await self._pool.close()


_STATEMENTS = (
    _HEAD,
    _AFTER,
    _AFTER_WITH_ROOM,
    _AT,
    _UNDER_WAY,
    _APPEND,
    _REWRAP,
    _PURGE,
    _RECORD,
    _CHAINS,
)


def found(query: Query, after: PageCursor | None, limit: int) -> tuple[str, list[Any]]:
    """The statement of ``find`` and what it binds. A member's sessions are its own and then those it shares, each read
    along its index as far as the limit.
    """
    bound, place = _Bound(), None if after is None else (after.created, as_text(after.id))
    wanted = {name: getattr(query, name) for name in ("tenant", "owner", "kind", "status")}
    if query.member is None:
        return _own(wanted, place, limit, bound), bound.values
    parts = []
    if query.owner in (None, query.member):
        parts.append(_own(wanted | {"owner": query.member}, place, limit, bound))
    parts.append(_shared(query.member, wanted, place, limit, bound))
    if len(parts) == 1:
        return parts[0], bound.values
    union = " UNION ALL ".join(f"({part})" for part in parts)
    return f"{union} ORDER BY created DESC, id DESC LIMIT {bound.put(limit)}", bound.values


def _own(wanted: Mapping[str, str | None], place: Place | None, limit: int, bound: _Bound) -> str:
    """The first heads of some values, newest first."""
    leading: tuple[str, ...] = ()
    if wanted["tenant"] is not None:
        by = ("owner",) if wanted["owner"] is not None else ("kind", "status")  # one owner's are few
        leading = ("tenant", *(name for name in by if wanted[name] is not None))
    values = {f"s.{name}": wanted[name] or "" for name in leading}
    terms, order = bound.along(values, ("s.created", "s.id"), place, backward=True)
    terms += bound.besides({f"s.{name}": value for name, value in wanted.items() if name not in leading})
    return f"{_HEADS}{_where(terms)} ORDER BY {order} LIMIT {bound.put(limit)}"


def _shared(member: str, wanted: Mapping[str, str | None], place: Place | None, limit: int, bound: _Bound) -> str:
    """The first heads of some values, newest first, of those that a principal is a member of and does not own."""
    leading = {"m.tenant": wanted["tenant"], "m.principal": member}
    values = {name: value for name, value in leading.items() if value is not None}
    terms, order = bound.along(values, ("m.created", "m.id"), place, backward=True)
    terms += bound.besides({f"s.{name}": wanted[name] for name in ("owner", "kind", "status")})
    terms.append(f"s.owner <> {bound.put(as_text(member))}")
    return f"{_SHARED}{_where(terms)} ORDER BY {order} LIMIT {bound.put(limit)}"


def lines_of(
    tenant: str | None, session: str | None, chain: str | None, after: tuple[str, int] | None, limit: int
) -> tuple[str, list[Any]]:
    """The statement of ``audit`` and what it binds."""
    bound, wanted = _Bound(), {"chain": chain, "session": session, "tenant": tenant}
    values = dict([(name, value) for name, value in wanted.items() if value][:1])
    place = None if after is None else (as_text(after[0]), after[1])
    terms, order = bound.along(values, ("chain", "seq"), place)
    if "session" in values:
        terms.append("session <> ''")  # as the index says of itself
    terms += bound.besides({name: value for name, value in wanted.items() if name not in values})
    return f"{_LINES}{_where(terms)} ORDER BY {order} LIMIT {bound.put(limit)}", bound.values


def _where(terms: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(terms)}" if terms else ""


class _Bound:
    """The parameters of a statement that is put together."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def put(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def along(
        self, values: Mapping[str, str], ordered: tuple[str, str], place: Place | None, *, backward: bool = False
    ) -> tuple[list[str], str]:
        """Terms for the rows that have some values, from a place on, and the order that one index has them in.

        The values are given as bounds of that index, and not as equations. Who says ``tenant = 'acme'`` and orders by
        time lets the planner take any index by time and pass over other tenants' rows, since it takes them to be well
        mixed; one that has done nothing for a year would be looked for behind everybody's year. In the order of all its
        columns only the one index can be read.
        """
        columns = [*(name for name in values if name not in ordered), *ordered]
        kept = [as_text(value) for value in values.values()]
        terms = []
        if values:
            leading = ", ".join(values)
            terms += [f"({leading}) {sign} ({', '.join(map(self.put, kept))})" for sign in (">=", "<=")]
        if place is not None:
            beyond = [*kept[: len(columns) - len(ordered)], *place]
            terms.append(f"({', '.join(columns)}) {'<' if backward else '>'} ({', '.join(map(self.put, beyond))})")
        return terms, ", ".join(f"{column} DESC" if backward else column for column in columns)

    def besides(self, wanted: Mapping[str, str | None]) -> list[str]:
        """Terms for what else is asked of those rows; None asks nothing. Put so that no index answers them, and so that
        the planner does not expect them to leave so few rows that it might as well read them all and sort.
        """
        return [
            f"CASE WHEN {name} = {self.put(as_text(value))} THEN true ELSE false END"
            for name, value in wanted.items()
            if value is not None
        ]


class _Bytes:
    """Runs of bytes sent as one parameter."""

    def __init__(self) -> None:
        self.joined = bytearray()

    def put(self, run: bytes | None) -> tuple[int, int] | None:
        """Where a run begins, counted from 1, and how long it is."""
        if run is None:
            return None
        start = len(self.joined) + 1
        self.joined += run
        return start, len(run)


class _Append(msgspec.Struct, frozen=True):
    """What one call of ``append`` brings."""

    head: SealedHead
    entries: list[SealedEntry]
    members: Sequence[str] | None

    @property
    def key(self) -> str:
        return self.head.id

    @property
    def size(self) -> int:
        return len(self.head.sealed) + sum(len(entry.payload) + len(entry.header) for entry in self.entries)


def _each_once(session: str, entries: Sequence[SealedEntry]) -> list[SealedEntry]:
    """Entries without their repetitions: a statement cannot meet a row twice."""
    by_step: dict[int, SealedEntry] = {}
    for entry in entries:
        if by_step.setdefault(entry.step, entry).digest != entry.digest:
            raise AlreadyExistsError(f"another entry at step {entry.step} of session {session}")
    return list(by_step.values())


def _described(batch: list[_Append]) -> tuple[str, str, bytes]:
    """The parameters of ``_APPEND``."""
    blob = _Bytes()
    heads = [
        {
            "id": as_text(head.id),
            "tenant": as_text(head.tenant),
            "owner": as_text(head.owner),
            "kind": as_text(head.kind),
            "status": as_text(head.status),
            "step": head.step,
            "version": head.version,
            "created": head.created,
            "due": head.due,
            "digest": blob.put(head.digest),
            "sealed": blob.put(head.sealed),
            "key": blob.put(head.key),
            "members": None if members is None else [as_text(member) for member in members],
        }
        for head, members in ((append.head, append.members) for append in batch)
    ]
    entries = [
        {
            "session": as_text(append.head.id),
            "step": entry.step,
            "version": entry.version,
            "made": entry.commit,
            "change": as_text(entry.change),
            "header": blob.put(entry.header),
            "payload": blob.put(entry.payload),
            "digest": blob.put(entry.digest),
        }
        for append in batch
        for entry in append.entries
    ]
    return _json(heads), _json(entries), bytes(blob.joined)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _head_of(row: Sequence[Any]) -> SealedHead:
    id, tenant, owner, kind, status, *rest = row
    return SealedHead(of_text(id), of_text(tenant), of_text(owner), of_text(kind), of_text(status), *rest)


def _entry_of(session: str, row: Sequence[Any]) -> SealedEntry:
    step, version, made, change, header, payload, digest = row
    return SealedEntry(session, step, version, made, of_text(change), header, payload, digest)
