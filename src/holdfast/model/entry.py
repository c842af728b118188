"""One line of a session's log: a commit, which makes a version, or a lifecycle step, which does not.

The log is the history, the feed and the audit trail of what was done, in one: nothing is written twice.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec

from holdfast.model.change import ChangeSet

GENESIS = bytes(32)


class EntryHeader(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """Who did what, when: everything about an entry but its content. Stored in clear, authenticated with the payload.

    Attributes:
        step, version: which line of its session's log, and the version the session stands at after it.
        operation: the verb, such as ``edit``, ``undo``, ``split``, ``lock``, ``publish``.
        actor: id of the principal.
        change: the change id; ``fingerprint`` tells a resend from a reuse.
        group: commits that share it undo as one.
        beneath: step of the commit beneath this one on the undo stack, or on the redo stack for an undo.
        parent: digest of the entry before.
        commit: whether it made the version.
    """

    step: int
    version: int
    operation: str
    actor: str
    at: datetime
    change: str
    fingerprint: bytes
    parent: bytes
    group: str | None = None
    beneath: int = 0
    commit: bool = True


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of an entry: sealed at rest. ``notes`` are the bodies of those it wrote, null for one it removed."""

    changes: ChangeSet = ()
    detail: dict[str, Any] = {}
    notes: dict[str, msgspec.Raw] = {}


class Entry(msgspec.Struct, frozen=True):
    """An entry as read: its header, its content and its digest; ``commit`` is whether it made a version."""

    session: str
    header: EntryHeader
    payload: Payload
    digest: bytes
    commit: bool

    @property
    def step(self) -> int:
        return self.header.step

    @property
    def version(self) -> int:
        return self.header.version

    @property
    def changes(self) -> ChangeSet:
        return self.payload.changes


class SealedEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry as a store sees it: four columns and two runs of bytes.

    Attributes:
        step: counts every entry of the session from 1, without a gap; the compare-and-set is on it.
        version: of the session after the entry.
        commit: whether the entry made that version.
        change: the change id, unique within the session.
        header: the encoded ``EntryHeader``, in clear.
        payload: the sealed ``Payload``; its SHA-256 once the session is purged.
        digest: SHA-256 over parent, header and payload.
    """

    session: str
    step: int
    version: int
    commit: bool
    change: str
    header: bytes
    payload: bytes
    digest: bytes


def purged_payload(payload: bytes) -> bytes:
    """What is left of a payload once its session is purged: its hash, so that the chain can still be followed."""
    return hashlib.sha256(payload).digest()


def entry_digest(header: bytes, payload: bytes, *, purged: bool = False) -> bytes:
    """The digest of an entry; the header names the parent's, so the digests chain and the history is tamper-evident.

    Taken over the sealed payload, so that a chain can be checked without a key and tells nothing of the content.
    """
    content = payload if purged else purged_payload(payload)
    return hashlib.sha256(b"%d:" % len(header) + header + content).digest()
