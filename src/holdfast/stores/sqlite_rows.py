"""The tables that the two embedded stores share, and their rows as values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw
from msgspec.structs import astuple

from holdfast.drivers.sqlite import SqliteFile
from holdfast.errors import AlreadyExistsError
from holdfast.model.entry import SealedEntry, purged_payload
from holdfast.model.session import SealedHead, SealedItem

SCHEMA = files("holdfast.stores").joinpath("sqlite.sql").read_text(encoding="utf-8")
UPGRADES = (
    # 1: sessions can be archived, and their items belong to a step
    "ALTER TABLE session ADD COLUMN archive TEXT;"
    "ALTER TABLE session ADD COLUMN snapped INTEGER;"
    "UPDATE session SET snapped = step WHERE EXISTS (SELECT 1 FROM item WHERE item.session = session.no);",
)
"""What brings the tables of an older file up to date; see ``SqliteFile.open``."""

_KEPT = ("id", "tenant", "owner", "kind", "status", "step", "version", "digest", "created", "due", "sealed", "key")
HEAD_COLUMNS = ", ".join(f"s.{column}" for column in (*_KEPT, "archive"))
HEADS = f"SELECT {HEAD_COLUMNS} FROM session AS s"  # noqa: S608 - constants
HEAD = f"{HEADS} WHERE s.id = ?"
KEEP_HEAD = f"INSERT INTO session ({', '.join(_KEPT)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
KEEP_ENTRY = (
    "INSERT INTO log (session, step, version, made, change, header, payload, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
ENTRY = (
    "SELECT l.step, l.version, l.made, l.change, l.header, l.payload, l.digest"
    " FROM session AS s JOIN log AS l ON l.session = s.no"
)
ENTRIES = f"{ENTRY} WHERE s.id = ? AND l.step > ? ORDER BY l.step LIMIT ?"
_UNDER_CHANGE = f"{ENTRY} WHERE s.id = ? AND l.change = ?"
ITEMS = "SELECT i.id, i.version, i.sealed FROM item AS i, session AS s WHERE s.id = ? AND i.session = s.no"
_DUE = "SELECT id FROM session WHERE due <= ? ORDER BY due LIMIT ?"
_DEFER = "UPDATE session SET due = ? WHERE id = ? AND step = ?"

_KEEP_NEW_ENTRY = KEEP_ENTRY + " ON CONFLICT DO NOTHING"
_DIGEST = "SELECT digest FROM log WHERE session = ? AND step = ?"
_LAST = "SELECT max(rowid) FROM log"
_NOBODY = -1
_KEEP_NUMBER = (
    "INSERT INTO log (rowid, session, step, version, made, change, header, payload, digest)"
    " VALUES (?, ?, 0, 0, 0, '', x'', x'', x'')"
)
_AT_ONCE = 500


def open_tables(path: str | Path, *, name: str, vfs: str | None = None, synchronous: str = "FULL") -> SqliteFile:
    """Open the file of the two stores, or of one of them; see ``SqliteFile.open``."""
    return SqliteFile.open(path, schema=SCHEMA, upgrades=UPGRADES, name=name, vfs=vfs, synchronous=synchronous)


def head_of(row: tuple[Any, ...]) -> SealedHead:
    """A head of a row of ``HEAD_COLUMNS``."""
    return SealedHead(*row)


def head_row(head: SealedHead) -> tuple[Any, ...]:
    """What ``KEEP_HEAD`` binds: a session that is new here is no stub."""
    return astuple(head)[: len(_KEPT)]


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
    connection.execute(
        "UPDATE session SET key = NULL, due = NULL, archive = NULL, snapped = NULL, purged = 1 WHERE no = ?", (number,)
    )


def entry_row(number: int, entry: SealedEntry) -> tuple[Any, ...]:
    """What ``KEEP_ENTRY`` binds, for the session of a number."""
    return (number, *astuple(entry)[1:])


def keep_entries(connection: apsw.Connection, session: str, number: int, entries: Iterable[SealedEntry]) -> None:
    """Keep entries of a session; those that are there already change nothing.

    Raises:
        AlreadyExistsError: another entry stands at one of the steps, or under one of the change ids.
    """
    for entry in entries:
        connection.execute(_KEEP_NEW_ENTRY, entry_row(number, entry))
        if connection.changes() == 0 and connection.execute(_DIGEST, (number, entry.step)).get != entry.digest:
            raise AlreadyExistsError(f"another entry at step {entry.step} of session {session}")


def drop_log(connection: apsw.Connection, number: int) -> None:
    """Forget the log of a session.

    The feed counts by the numbers of the rows, and SQLite gives the last one again once it is free: a row of no session
    keeps it. There is one such row at most.
    """
    last = connection.execute(_LAST).get
    connection.execute("DELETE FROM log WHERE session IN (?, ?)", (number, _NOBODY))
    if connection.execute(_LAST).get != last:
        connection.execute(_KEEP_NUMBER, (last, _NOBODY))


def keep_items(connection: apsw.Connection, number: int, step: int, items: Iterable[SealedItem]) -> None:
    """Put the items of a session as they stood at a step in place of those it has."""
    connection.execute("DELETE FROM item WHERE session = ?", (number,))
    connection.executemany(
        "INSERT INTO item (session, id, version, sealed) VALUES (?, ?, ?, ?)",
        ((number, item.id, item.version, item.sealed) for item in items),
    )
    connection.execute("UPDATE session SET snapped = ? WHERE no = ?", (step, number))


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


def entry_under(file: SqliteFile, session: str, change: str) -> SealedEntry | None:
    """The entry of a session with a change id."""
    found = entries_of(file, session, _UNDER_CHANGE, (session, change), None)
    return found[0] if found else None


def sessions_due(file: SqliteFile, now: datetime, limit: int) -> list[str]:
    """The ids of sessions that are due, the longest due first."""
    with file.mapped():
        return [row[0] for row in file.read.execute(_DUE, (now.timestamp(), limit))]


async def defer(file: SqliteFile, session: str, step: int, due: datetime | None) -> None:
    """Set when a session is next due, if it still stands at a step."""
    instant = None if due is None else due.timestamp()
    await file.write(lambda connection: connection.execute(_DEFER, (instant, session, step)))


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
