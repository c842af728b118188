"""What the PostgreSQL warm store asks when somebody looks for something: one statement, read along one index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.drivers.postgres import as_text
from holdfast.model.cursor import PageCursor
from holdfast.ports.warm import Query

Place = tuple[Any, Any]
"""Beyond which row to go on: of a page of sessions or of audit lines."""

HEADS = """
    SELECT s.id, s.tenant, s.owner, s.kind, s.status, s.step, s.version, s.digest, s.created, s.due, s.sealed, s.key,
        s.archive
    FROM {schema}.session AS s
"""
_SHARED = """
    SELECT s.*
    FROM {schema}.member AS m
        CROSS JOIN LATERAL (
            SELECT id, tenant, owner, kind, status, step, version, digest, created, due, sealed, key, archive
            FROM {schema}.session WHERE id = m.id OFFSET 0 -- looked up for each member's row, as far as the page goes
        ) AS s
"""
LINES = "SELECT chain, seq, tenant, session, line, mac FROM {schema}.audit"


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
    return f"{HEADS}{_where(terms)} ORDER BY {order} LIMIT {bound.put(limit)}"


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
    return f"{LINES}{_where(terms)} ORDER BY {order} LIMIT {bound.put(limit)}", bound.values


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
