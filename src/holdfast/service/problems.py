"""Errors as RFC 9457 problem documents: the one table of which HTTP status each stable code has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from starlette.responses import Response

from holdfast.errors import (
    HoldfastError,
    RateLimitedError,
    ServiceError,
    StoreDownError,
    UnavailableError,
    VersionConflictError,
)
from holdfast.wire.values import plain

MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[str, int] = {
    # nothing by that name
    "not-found": 404,
    "session-not-found": 404,
    "session-gone": 410,
    "item-not-found": 404,
    "version-not-found": 404,
    "label-not-found": 404,
    "receipt-not-found": 404,
    "blob-not-found": 404,
    "route-not-found": 404,
    # read again, rebase, retry
    "conflict": 409,
    "version-conflict": 412,
    "lease-held": 409,
    "already-exists": 409,
    "session-busy": 409,
    "seal-mismatch": 409,
    "live-moved": 409,
    # not you, or not now
    "refused": 403,
    "permission-denied": 403,
    "unauthenticated": 401,
    "rate-limited": 429,
    "not-draft": 409,
    "lock-held": 409,
    "lease-lost": 409,
    "nothing-to-undo": 409,
    "publication-pending": 409,
    # mend the input
    "invalid": 422,
    "invalid-change": 422,
    "invalid-item": 422,
    "invalid-request": 400,
    "invalid-cursor": 400,
    "limit-exceeded": 422,
    "request-too-large": 413,
    "media-type": 415,
    "version-required": 428,
    "change-id-reused": 422,
    "unknown-kind": 422,
    "unknown-operation": 404,
    # wait; the outcome is open
    "unavailable": 503,
    "store-unavailable": 503,
    "store-down": 503,
    "flush-queue-full": 503,
    "tier-behind": 503,
    "store-full": 507,
    "sink-unavailable": 503,
    "stopping": 503,
    "unreachable": 503,
    "request-timeout": 408,
    "service": 500,
    # stored bytes do not add up
    "integrity": 500,
    "archive-missing": 500,
    "tampered": 500,
    "unreadable": 500,
    "verification-failed": 500,
    # mend the settings
    "configuration": 500,
    "weak-key": 500,
    "missing-extra": 500,
    "error": 500,
}
"""Every code there is, and its status. A code that is not here is a mistake that a test finds."""

RENAMED: Mapping[str, str] = {"status": "session_status"}
"""Facts of errors whose names RFC 9457 has taken, and what they are called in a problem document."""

RETRY_AFTER = 2
"""Seconds after which to ask again, where the error itself does not say."""

_TITLES = {
    400: "The request cannot be read",
    401: "Who asks is not known",
    403: "Not allowed",
    404: "Nothing by that name",
    405: "Not a method that is taken here",
    408: "The request did not arrive in time",
    409: "Not as things stand",
    410: "Gone",
    412: "The session has moved on",
    413: "Too large",
    415: "Not a media type that is taken here",
    422: "The input has to be mended",
    428: "A version is wanted",
    429: "Too much at a time",
    500: "Something is wrong here",
    503: "Not just now",
    507: "No room left",
}


def status_of(error: HoldfastError) -> int:
    """The HTTP status of an error."""
    return STATUSES[error.code]


def described(error: HoldfastError, request: str | None = None, *, status: int | None = None) -> dict[str, Any]:
    """An error as the members of a problem document: RFC 9457's own, the stable code, and the error's facts.

    ``status`` is one that HTTP itself asks for in place of the table's.
    """
    status = status_of(error) if status is None else status
    facts = {RENAMED.get(name, name): plain(value) for name, value in error.facts().items()}
    return {
        **facts,
        "type": f"urn:holdfast:error:{error.code}",
        "title": _TITLES[status],
        "status": status,
        "detail": str(error),
        "code": error.code,
        **({"request": request} if request else {}),
    }


def problem(error: BaseException, request: str | None = None, *, status: int | None = None) -> Response:
    """An error as a response; one that is not ours says nothing but that it happened, and the request's id.

    ``status`` is one that HTTP itself asks for in place of the table's, such as 405.
    """
    known = error if isinstance(error, HoldfastError) else ServiceError("The service failed unexpectedly.", request)
    status = status_of(known) if status is None else status
    headers = {"cache-control": "no-store"}
    if isinstance(known, RateLimitedError | StoreDownError):
        headers["retry-after"] = str(max(1, round(known.retry_after + 0.5)))
    elif isinstance(known, UnavailableError) and status in (503, 507, 408):
        headers["retry-after"] = str(RETRY_AFTER)
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="holdfast"'
    if isinstance(known, VersionConflictError):
        headers["holdfast-version"] = str(known.actual)
    body = msgspec.json.encode(described(known, request, status=status))
    return Response(body, status, headers=headers, media_type=MEDIA_TYPE)


def example(code: str) -> dict[str, Any]:
    """What a problem document of a code looks like."""
    status = STATUSES[code]
    shown = {
        "type": f"urn:holdfast:error:{code}",
        "title": _TITLES[status],
        "status": status,
        "detail": "A sentence that says what is the matter and what to do.",
        "code": code,
        "request": "b3f1c2d4",
    }
    if code == "version-conflict":
        conflict = {"key": "chunks/0001", "base": {"text": "a"}, "theirs": {"text": "b"}, "mine": {"text": "c"}}
        shown |= {"expected": 7, "actual": 8, "conflicts": [conflict]}
    return shown


SCHEMA: Mapping[str, Any] = {
    "title": "Problem",
    "type": "object",
    "description": "An error (RFC 9457), with a stable code and the facts a program needs to go on.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(STATUSES)},
        "request": {"type": "string", "description": "The id of the request, as in `X-Request-Id` and in the logs."},
    },
    "additionalProperties": True,
}
"""The JSON schema of a problem document."""


@cache
def version() -> str:
    """The version of the package, as it is installed."""
    from importlib.metadata import version as installed

    return installed("holdfast")
