"""What answers look like, by the names that their types have in OpenAPI.

One session goes through all of them, so that who reads on recognises it. A test holds each against its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.service.problems import version

_ID = "27e2tu5au44wqvwqtkuyxiz2n75pyb2s"
_DIGEST = "d96fe1d8322127bb015a7eb688456815d0c47791be75269bcbe42d0cacca8551"
_PARENT = "8c9763508f992721e56eb46d0fd19192ed7249e905ec22c7e35c19e92578240b"
_SEAL = "ebfcc45cd536723cb6fb1a84abd4c214c3cf7497481107a83e2cdf0de3d2b2f7"
_AT = "2026-11-21T06:53:31.142671Z"
_REVISION = "8623831dff93d191e55ffae03a6eedaf"
_TARGET = f"default/{_ID}"
_CURSOR = "k6RmZWVkA8QgqXTAy7g_3VSZiyHWIpUte7r3DMZP"
_TEXT = "The sea rises and falls twice a day."

_HEADER: dict[str, Any] = {
    "id": _ID,
    "tenant": "default",
    "kind": "knowledge",
    "owner": "ana",
    "status": "draft",
    "tier": "active",
    "title": "Tides",
    "version": 2,
    "step": 2,
    "digest": _DIGEST,
    "state": _DIGEST,
    "undo": 2,
    "redo": 0,
    "count": 1,
    "size": 47,
    "labels": 0,
    "created": _AT,
    "updated": "2026-11-21T07:02:10.002487Z",
    "expires": "2026-11-22T07:02:10.002487Z",
    "restorable_until": None,
    "retention": {"ttl": 86400.0, "sliding": True, "maximum": None},
    "lock": None,
    "publication": None,
    "failure": None,
    "grants": {"ben": "editor"},
    "target": _TARGET,
    "parent": None,
    "origin": None,
    "source": {},
    "purged": False,
    "stale": False,
}
_ITEM = {"key": "chunks/0001", "position": "a0", "version": 2, "body": {"text": _TEXT}}
_ENTRY = {
    "session": _ID,
    "step": 2,
    "version": 2,
    "commit": True,
    "operation": "edit",
    "actor": "ana",
    "at": "2026-11-21T07:02:10.002487Z",
    "change": "form-42",
    "group": None,
    "digest": _DIGEST,
    "parent": _PARENT,
    "changes": [{"key": "chunks/0001", "verb": "changed", "position": "a0", "body": {"text": _TEXT}}],
    "detail": {},
}
_LEASE = {"session": _ID, "holder": "agent-7", "fence": 1, "until": "2026-11-21T07:02:40.538605Z"}
_LABEL = {"name": "reviewed", "version": 2, "actor": "ana", "at": "2026-11-21T07:05:00.143716Z"}
_RECEIPT = {
    "session": _ID,
    "version": 2,
    "seal": _SEAL,
    "target": _TARGET,
    "revision": _REVISION,
    "previous": None,
    "manifest": {"count": 1, "digest": "cda47b07b9c648115d8d1a0455fba2245f0c002f0c33dcd59f409c22cfaa0ea9"},
    "actor": "ana",
    "at": "2026-11-21T07:10:10.445959Z",
    "rolls_back": None,
}

EXAMPLES: Mapping[str, Any] = {
    "Session": _HEADER,
    "Whole": {**_HEADER, "items": [_ITEM]},
    "Page": {"sessions": [_HEADER], "cursor": None, "unreadable": [], "stale": False},
    "Item": _ITEM,
    "Committed": {
        "session": _ID,
        "version": 2,
        "step": 2,
        "digest": _DIGEST,
        "at": "2026-11-21T07:02:10.002487Z",
        "changes": {"chunks/0001": "changed"},
        "replayed": False,
        "durability": "disk",
    },
    "Difference": {
        "key": "chunks/0001",
        "verb": "changed",
        "before": {"text": "The sea rises twice a day."},
        "after": {"text": _TEXT},
        "texts": [
            {"path": "text", "words": [["=", "The sea rises "], ["+", "and falls "], ["=", "twice a day."]]},
        ],
    },
    "Entry": _ENTRY,
    "Feed": {"entries": [_ENTRY], "cursor": _CURSOR, "reload": False},
    "Label": _LABEL,
    "Preview": {
        "session": _ID,
        "version": 2,
        "target": _TARGET,
        "seal": _SEAL,
        "differences": [{"key": "chunks/0001", "verb": "added", "before": None, "after": _TEXT, "texts": []}],
        "counts": {"added": 1, "changed": 0, "deleted": 0, "unchanged": 0, "total": 1},
        "checks": ["every item is a valid knowledge item (1)", "what is live is known"],
        "forecast": {"records": 1, "new": 1, "embeds": 1, "tokens": 9},
        "lock": {"owner": "ana", "until": "2026-11-21T07:17:10.886441Z", "seal": _SEAL},
        "live": None,
    },
    "Receipt": _RECEIPT,
    "Hit": {
        "target": _TARGET,
        "revision": _REVISION,
        "key": "chunks/0001",
        "score": 0.42,
        "text": _TEXT,
        "body": {"title": "Tides", "source": None, "headings": [], "metadata": {}, "spans": [], "origin": "added"},
    },
    "Participants": {"owner": "ana", "grants": {"ben": "editor"}, "lease": _LEASE},
    "Lease": _LEASE,
    "Whoami": {"id": "ana", "tenant": "default", "roles": ["admin"]},
    "AuditLine": {
        "at": _AT,
        "actor": "ben",
        "tenant": "default",
        "verb": "publish",
        "session": _ID,
        "version": 2,
        "outcome": "permission-denied",
    },
    "Swept": {"warned": 1, "expired": 0, "unlocked": 0, "purged": 0, "recovered": 0, "rested": 0, "failed": {}},
    "Verified": {
        "session": _ID,
        "problems": [],
        "entries": 2,
        "items": 1,
        "blobs": 0,
        "chain": None,
        "repaired": ["the warm tier's step 2 counts, not the hot tier's 1"],
    },
    "Tiers": {
        "tiered": True,
        "flush": {"entries": 3, "waited": 0.142, "buried": 1},
        "buried": [{"session": _ID, "step": 2, "reason": "unreadable"}],
        "hot": {"sessions": 812, "bytes": 96_468_992},
        "warm": {"sessions": 40_215, "archived": 31_007, "bytes": 2_147_483_648},
        "troubles": {"cold": "it answered 404 NoSuchBucket"},
    },
    "Flushed": {"flushed": 3, "recovered": 1, "buried": 0},
    "KeyIds": {"active": "key-yfpwb6d6p24t", "ids": ["key-yfpwb6d6p24t"]},
    "Rotated": {"key_id": "key-h6pxoixg6rco", "sessions": 43, "failed": [], "dropped": []},
    "Revocation": {
        "tenant": "default",
        "token": "",
        "principal": "ben",
        "before": 1795244890.8,
        "until": 1795331410.8,
        "by": "ada",
    },
    "Health": {"status": "ok", "version": version(), "tiers": {"hot": "ok", "warm": "ok", "cold": "ok"}},
}

EXPORT = {
    "format": "holdfast-session-1",
    "header": {
        "id": _ID,
        "tenant": "default",
        "kind": "knowledge",
        "schema": 1,
        "owner": "ana",
        "status": "draft",
        "created": _AT,
        "updated": "2026-11-21T07:02:10.002487Z",
        "title": "Tides",
        "version": 2,
        "step": 2,
        "digest": "2W/h2DIhJ7sBWn62iEVoFdDEd5G+dSab8+QtDKzKhVE=",
    },
    "items": [_ITEM],
    "history": [
        {
            "session": _ID,
            "header": [
                *(2, 2, "edit", "ana", "2026-11-21T07:02:10.002487Z", "form-42", ""),
                *("jJdjUI+ZJyHlbrRtD9GRku1ySekF7CLH41wZ6SV4JAs=", None, 0, True),
            ],
            "payload": {"changes": [["chunks/0001", "a0", [{"text": _TEXT}], [1, 1, "a0"]]]},
            "digest": "2W/h2DIhJ7sBWn62iEVoFdDEd5G+dSab8+QtDKzKhVE=",
            "commit": True,
        }
    ],
    "labels": [_LABEL],
    "receipts": [_RECEIPT],
}

EVENT = {"id": _CURSOR, "event": "edit", "data": msgspec.json.encode(_ENTRY).decode()}

KINDS = [
    {
        "name": "knowledge",
        "summary": "Ordered chunks of an ingested source, published to a vector index in one switch.",
        "collections": ["chunks"],
        "ingests": True,
        "operations": [
            {
                "name": "enable",
                "summary": "Publish chunks that were disabled.",
                "commutative": False,
                "arguments": {"type": "object", "properties": {"keys": {"type": "array"}}, "required": ["keys"]},
            }
        ],
    }
]

METRICS = (
    "# HELP sessions_active Sessions that are draft or locked.\n"
    "# TYPE sessions_active gauge\n"
    'sessions_active{kind="knowledge",status="draft"} 36.0\n'
)


def example_of(schema: Mapping[str, Any]) -> Any:
    """The example of a schema that refers to a type, or to a list of them.

    Raises:
        KeyError: there is none: a type that is new needs one.
    """
    if "$ref" in schema:
        return EXAMPLES[schema["$ref"].rpartition("/")[2]]
    return [example_of(schema["items"])]
