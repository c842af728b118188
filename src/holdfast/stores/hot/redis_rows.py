"""Heads, items and entries as Redis keeps them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import msgspec

from holdfast.drivers.redis import Script
from holdfast.drivers.redis_server import Argument
from holdfast.errors import TamperedError
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead, SealedItem, Write

HEAD_FIELDS = (b"about", b"status", b"step", b"version", b"digest", b"due", b"sealed", b"key")

_ENTRY = struct.Struct(
    ">Q?III"
)  # version, commit, and how long change id, header and digest are; the payload is the rest
_VERSION = struct.Struct(">Q")
_ITEM = b"i:"
_ABOUT = msgspec.msgpack.Decoder(tuple[str, str, str, float])
_HASH_BYTES = 32


def script(name: str) -> Script:
    """A script by the name of its file."""
    return Script.of(files("holdfast.stores.hot").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8"))


def head_of(session: str, row: list[Any]) -> SealedHead | None:
    """A head of the values of ``HEAD_FIELDS``, None where there is no session."""
    about, status, step, version, digest, due, sealed, key = row
    if step is None:
        return None
    try:
        tenant, owner, kind, created = _ABOUT.decode(about)
        return SealedHead(
            session,
            tenant,
            owner,
            kind,
            status.decode(),
            int(step),
            int(version),
            digest,
            created,
            None if due is None else float(due),
            sealed,
            key,
        )
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError):
        raise TamperedError(f"the head of session {session}") from None


def loaded_of(session: str, fields: list[Any]) -> tuple[SealedHead, list[SealedItem]] | None:
    """Head and items of all fields of a session and their values in turn."""
    named: dict[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=True))
    head = head_of(session, [named.get(field) for field in HEAD_FIELDS])
    if head is None:
        return None
    size, version = _VERSION.size, _VERSION.unpack_from
    try:
        items = [
            SealedItem(field[2:], version(value)[0], value[size:])
            for field, value in named.items()
            if field[:2] == _ITEM
        ]
    except struct.error:
        raise TamperedError(f"an item of session {session}") from None
    return head, items


def fields_of(write: Write, *, creating: bool) -> tuple[list[Argument], list[Argument]]:
    """The fields of the session that a write sets, each with its value, and those that it removes."""
    kept = _head_fields(write.head, creating=creating)
    dropped: list[Argument] = []
    for item in write.items:
        if item.sealed is None:
            dropped.append(_ITEM + item.id)
        else:
            kept += (_ITEM + item.id, _VERSION.pack(item.version) + item.sealed)
    return kept, dropped


def installed_of(
    head: SealedHead,
    items: Sequence[SealedItem],
    entries: Sequence[SealedEntry],
    changes: Mapping[str, int],
    fence: int,
) -> tuple[list[Argument], list[Argument]]:
    """The fields of a session that is put here whole, each with its value, and those of its log."""
    fields = _head_fields(head, creating=True)
    fields += (b"floor", entries[0].step if entries else head.step + 1)
    if fence:
        fields += (b"fence", fence)
    if head.key is None and not items and entries and all(len(entry.payload) == _HASH_BYTES for entry in entries):
        fields += (b"purged", b"1")  # no payload is as short as its hash
    for item in items:
        if item.sealed is not None:
            fields += (_ITEM + item.id, _VERSION.pack(item.version) + item.sealed)
    log: list[Argument] = []
    for entry in entries:
        log += (entry.step, entry_row(entry), "c:" + entry.change, entry.step)
    for change, step in changes.items():
        log += ("c:" + change, step)
    return fields, log


def _head_fields(head: SealedHead, *, creating: bool) -> list[Argument]:
    """The fields of a head that a write sets, each with its value; but for ``due``, which has an index."""
    fields: list[Argument] = [
        *(b"step", head.step, b"version", head.version),
        *(b"digest", head.digest, b"sealed", head.sealed, b"status", head.status),
    ]
    if creating:
        fields += (b"about", msgspec.msgpack.encode((head.tenant, head.owner, head.kind, head.created)))
        if head.key is not None:
            fields += (b"key", head.key)
    return fields


def entry_row(entry: SealedEntry) -> bytes:
    """An entry as the log keeps it; the scripts know where in it the change id stands and how long the payload is."""
    change = entry.change.encode()
    sizes = _ENTRY.pack(entry.version, entry.commit, len(change), len(entry.header), len(entry.digest))
    return b"".join((sizes, change, entry.header, entry.digest, entry.payload))


def entry_of(session: str, step: int, row: bytes) -> SealedEntry:
    try:
        version, commit, change, header, digest = _ENTRY.unpack_from(row)
        first = _ENTRY.size
        second = first + change
        third = second + header
        fourth = third + digest
        return SealedEntry(
            session,
            step,
            version,
            commit,
            row[first:second].decode(),
            row[second:third],
            row[fourth:],
            row[third:fourth],
        )
    except (struct.error, UnicodeDecodeError, TypeError):  # torn, or the change id is there and the entry is not
        raise TamperedError(f"the log of session {session}") from None


def number(instant: float) -> bytes:
    """A time as text that gives the same time back; as a text it is equal where the time is."""
    return repr(instant).encode()


def time(instant: float | bytes) -> datetime:
    return datetime.fromtimestamp(float(instant), UTC)
