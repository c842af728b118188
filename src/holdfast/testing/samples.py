"""Heads, entries and writes as an engine would send them, for the suites of the hot and the warm tier."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from holdfast.model.entry import SealedEntry, purged_payload
from holdfast.model.session import SealedHead, SealedItem, Write

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def later(seconds: float) -> datetime:
    """So many seconds after ``NOW``."""
    return NOW + timedelta(seconds=seconds)


def content(name: str, size: int = 200) -> bytes:
    """Bytes of any value, the same ones for the same name."""
    return hashlib.shake_256(name.encode()).digest(size)


def head_at(session: str, step: int, **other: Any) -> SealedHead:
    """The head of a session at a step; ``other`` names the fields that matter to a test."""
    head = SealedHead(
        id=session,
        tenant="acme",
        owner="ana",
        kind="knowledge",
        status="draft",
        step=step,
        version=step,
        digest=content(f"{session}/{step} digest", 32),
        created=NOW.timestamp(),
        due=None,
        sealed=content(f"{session}/{step} head"),
        key=b"key of " + session.encode(),
    )
    return replace(head, **other)


def entry_at(session: str, step: int, change: str | None = None, **other: Any) -> SealedEntry:
    """The entry at a step; its bytes are made from its change id."""
    change = f"c{step}" if change is None else change
    entry = SealedEntry(
        session=session,
        step=step,
        version=step,
        commit=True,
        change=change,
        header=content(f"{session}/{change} header", 60),
        payload=content(f"{session}/{change} payload"),
        digest=content(f"{session}/{step} digest", 32),
    )
    return replace(entry, **other)


def purged(entry: SealedEntry) -> SealedEntry:
    """What a purge leaves of an entry."""
    return replace(entry, payload=purged_payload(entry.payload))


def write_at(
    session: str,
    step: int,
    change: str | None = None,
    *,
    items: Mapping[bytes, bytes | None] | Iterable[bytes] = (),
    commit: bool = True,
    fence: int | None = None,
    quota: int | None = None,
    parent: bytes = b"",
    **head: Any,
) -> Write:
    """The write that makes step ``step``; items that are only named get bytes made from the step."""
    named = items if isinstance(items, Mapping) else {name: content(f"{name!r} {step}") for name in items}
    return Write(
        expected=step - 1,
        head=head_at(session, step, **head),
        entry=entry_at(session, step, change, commit=commit),
        items=tuple(SealedItem(name, step, sealed) for name, sealed in named.items()),
        fence=fence,
        quota=quota,
        parent=parent,
    )
