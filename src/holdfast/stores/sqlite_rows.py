"""The tables that the two embedded stores share, and their rows as values."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import apsw
from msgspec.structs import astuple

from holdfast.drivers.sqlite import SqliteFile
from holdfast.model.entry import SealedEntry, purged_payload
from holdfast.model.session import SealedHead

SCHEMA = files("holdfast.stores").joinpath("sqlite.sql").read_text(encoding="utf-8")

_HEAD = ("id", "tenant", "owner", "kind", "status", "step", "version", "digest", "created", "due", "sealed", "key")
HEAD_COLUMNS = ", ".join(f"s.{column}" for column in _HEAD)
HEADS = f"SELECT {HEAD_COLUMNS} FROM session AS s"  # noqa: S608 - constants
HEAD = f"{HEADS} WHERE s.id = ?"
KEEP_HEAD = f"INSERT INTO session ({', '.join(_HEAD)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
KEEP_ENTRY = (
    "INSERT INTO log (session, step, version, made, change, header, payload, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
ENTRY = (
    "SELECT l.step, l.version, l.made, l.change, l.header, l.payload, l.digest"
    " FROM session AS s JOIN log AS l ON l.session = s.no"
)
ENTRIES = f"{ENTRY} WHERE s.id = ? AND l.step > ? ORDER BY l.step LIMIT ?"

_AT_ONCE = 500


def head_of(row: tuple[Any, ...]) -> SealedHead:
    """A head of a row of ``HEAD_COLUMNS``."""
    return SealedHead(*row)


def head_row(head: SealedHead) -> tuple[Any, ...]:
    """What ``KEEP_HEAD`` binds."""
    return astuple(head)


def keep_members(connection: apsw.Connection, head: SealedHead, members: Sequence[str]) -> None:
    """Put the members of a session in place of those it had."""
    connection.execute("DELETE FROM member WHERE id = ?", (head.id,))
    rows = [(head.tenant, member, head.created, head.id) for member in members]
    connection.executemany("INSERT INTO member (tenant, principal, created, id) VALUES (?, ?, ?, ?)", rows)


def rewrap(connection: apsw.Connection, session: str, old: bytes, new: bytes | None) -> bool:
    """Put one wrapped data key in place of another; whether it was that other."""
    connection.execute("UPDATE session SET key = ? WHERE id = ? AND key = ?", (new, session, old))
    return connection.changes() == 1


def purge(connection: apsw.Connection, session: str) -> None:
    """Leave of a session what a purge leaves."""
    row = connection.execute("SELECT no, purged FROM session WHERE id = ?", (session,)).get
    if row is None:
        return
    number, purged = row
    if not purged:  # a destroyed key alone does not say so: it may have been destroyed to shred the session
        connection.execute("DELETE FROM item WHERE session = ?", (number,))
        log: Any = connection.execute("SELECT step, payload FROM log WHERE session = ?", (number,)).fetchall()
        left = [(purged_payload(payload), number, step) for step, payload in log]
        connection.executemany("UPDATE log SET payload = ? WHERE session = ? AND step = ?", left)
    connection.execute("DELETE FROM member WHERE id = ?", (session,))
    connection.execute("UPDATE session SET key = NULL, due = NULL, purged = 1 WHERE no = ?", (number,))


def entry_row(number: int, entry: SealedEntry) -> tuple[Any, ...]:
    """What ``KEEP_ENTRY`` binds, for the session of a number."""
    return (number, *astuple(entry)[1:])


def entry_of(session: str, row: tuple[Any, ...]) -> SealedEntry:
    """An entry of a row of ``ENTRY``."""
    step, version, made, change, header, payload, digest = row
    return SealedEntry(session, step, version, bool(made), change, header, payload, digest)


def entries_of(file: SqliteFile, session: str, sql: str, bound: tuple[Any, ...], room: int | None) -> list[SealedEntry]:
    """The entries that a query of ``ENTRY`` finds, up to the one that brings the payloads to ``room`` bytes. What lies
    beyond is not read.
    """
    found: list[SealedEntry] = []
    filled = 0
    with file.mapped():
        for row in file.read.execute(sql, bound):
            found.append(entry_of(session, row))
            filled += len(found[-1].payload)
            if room is not None and filled >= room:
                break
    return found


def entries_at(file: SqliteFile, session: str, steps: Sequence[int]) -> dict[int, SealedEntry]:
    """The entries of a session at some steps, by step."""
    found: dict[int, SealedEntry] = {}
    with file.mapped():
        for start in range(0, len(steps), _AT_ONCE):
            part = steps[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            for row in file.read.execute(f"{ENTRY} WHERE s.id = ? AND l.step IN ({marks})", (session, *part)):
                found[row[0]] = entry_of(session, row)
    return found
