"""Values as rows of the PostgreSQL warm store, and back.

A statement is sent many values as two parameters: JSON that describes them, and one run of bytes that theirs are in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast.drivers.postgres import as_text, of_text
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead, SealedItem
from holdfast.ports.warm import AuditRow, Snapshot

_ITEMS = msgspec.msgpack.Decoder(list[tuple[bytes, int, bytes]])


class Bytes:
    """Runs of bytes sent as one parameter."""

    def __init__(self) -> None:
        self._joined = bytearray()

    def put(self, run: bytes | None) -> tuple[int, int] | None:
        """Where a run begins, counted from 1, and how long it is."""
        if run is None:
            return None
        start = len(self._joined) + 1
        self._joined += run
        return start, len(run)

    def joined(self) -> bytes:
        return bytes(self._joined)


def heads_described(heads: Iterable[tuple[SealedHead, Sequence[str] | None]], blob: Bytes) -> str:
    """Heads, each with the members that come with it, as the function ``append`` takes them."""
    return _json(
        [
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
            for head, members in heads
        ]
    )


def entries_described(entries: Iterable[tuple[str, SealedEntry]], blob: Bytes) -> str:
    """Entries, each with its session's id, as the function ``keep`` takes them."""
    return _json(
        [
            {
                "session": as_text(session),
                "step": entry.step,
                "version": entry.version,
                "made": entry.commit,
                "change": as_text(entry.change),
                "header": blob.put(entry.header),
                "payload": blob.put(entry.payload),
                "digest": blob.put(entry.digest),
            }
            for session, entry in entries
        ]
    )


def lines_described(rows: Iterable[AuditRow], blob: Bytes) -> str:
    """Audit lines as the statement that records them takes them."""
    return _json(
        [
            {
                "seq": row.seq,
                "tenant": as_text(row.tenant),
                "session": as_text(row.session),
                "line": blob.put(row.line),
                "mac": blob.put(row.mac),
            }
            for row in rows
        ]
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def head_of(row: Sequence[Any]) -> SealedHead:
    """A head of a row of ``HEADS``."""
    id, tenant, owner, kind, status, step, version, digest, created, due, sealed, key, archive = row
    id, tenant, owner, kind, status = map(of_text, (id, tenant, owner, kind, status))
    archive = None if archive is None else of_text(archive)
    return SealedHead(id, tenant, owner, kind, status, step, version, digest, created, due, sealed, key, archive)


def entry_of(session: str, row: Sequence[Any]) -> SealedEntry:
    """An entry of a row of the log."""
    step, version, made, change, header, payload, digest = row
    return SealedEntry(session, step, version, made, of_text(change), header, payload, digest)


def packed(items: Iterable[SealedItem]) -> bytes:
    """Items as one run of bytes."""
    return msgspec.msgpack.encode([(item.id, item.version, item.sealed) for item in items])


def snapshot_of(step: int, items: bytes) -> Snapshot:
    """The snapshot of a step and what ``packed`` made of its items.

    Raises:
        msgspec.MsgspecError: it made no such bytes.
    """
    return Snapshot(step, tuple(SealedItem(*item) for item in _ITEMS.decode(items)))
