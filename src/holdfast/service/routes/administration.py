"""For those who run the service: audit, sweep, verify, tiers, keys, revocations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from holdfast.engine.retention import Swept
from holdfast.engine.rotation import KeyIds, Rotated
from holdfast.engine.tiering import Flushed, Tiers
from holdfast.engine.verification import Verified
from holdfast.errors import InvalidChangeError
from holdfast.model.audit import AuditLine
from holdfast.model.revocation import Revocation
from holdfast.service import answers
from holdfast.service.auth.local import NAME as TOKEN_FILE
from holdfast.service.parameters import Limit, SessionId
from holdfast.service.routing import EVERY, SESSION, Routes
from holdfast.service.schemas import Flushing, Revoking, Rotation
from holdfast.service.service import Who, service_of

routes = Routes("administration")

Skip = Annotated[int, Query(description="How many lines to skip: they come oldest first.", ge=0, le=2**53)]
_ADMIN = (*EVERY, "permission-denied")
_LINES = "application/jsonl"
_encode = msgspec.json.Encoder().encode


class Whoami(msgspec.Struct, frozen=True):
    """Who asks, as the service knows it."""

    id: str
    tenant: str
    roles: tuple[str, ...]


@routes("GET", "/whoami", "whoami", answers=Whoami, errors=EVERY)
async def whoami(who: Who) -> Response:
    """Who you are here, and which service roles you have."""
    return answers.answer(Whoami(who.id, who.tenant, tuple(sorted(who.roles))))


@routes("GET", "/sessions/{session}/audit", "audit", answers=list[AuditLine], errors=SESSION)
async def session_audit(
    request: Request, session: SessionId, who: Who, after: Skip = 0, limit: Limit = 100
) -> Response:
    """Who did what to a session, refused attempts too, oldest first."""
    engine = service_of(request).engine
    return answers.answer(await engine.audit(who, session_id=session, after=after, limit=limit))


@routes("GET", "/audit", "audit", answers=list[AuditLine], errors=_ADMIN)
async def tenant_audit(request: Request, who: Who, after: Skip = 0, limit: Limit = 100) -> Response:
    """The tenant's reads, refusals and service verbs, oldest first; for admins and auditors."""
    return answers.answer(await service_of(request).engine.audit(who, after=after, limit=limit))


@routes("POST", "/sweep", "sweep", answers=Swept, errors=_ADMIN, writes=True)
async def sweep(request: Request, who: Who) -> Response:
    """Do what is due now: warn, expire, take down lapsed locks, finish publications, purge."""
    service = service_of(request)
    return answers.answer(await service.engine.sweep(who), headers=answers.durable(service))


@routes("POST", "/verify", "verify", answers=Verified, content=_LINES, errors=(*_ADMIN, "session-not-found"))
async def verify(
    request: Request,
    who: Who,
    session: Annotated[str | None, Query(description="Only this session.", max_length=200)] = None,
    repair: Annotated[bool, Query(description="Mend what the hot and the warm tier tell differently.")] = False,
) -> Response:
    """Read everything of the tenant back and compare: a line of JSON for each session and each audit chain. With
    `repair`, which is for admins, the newer of the two tiers counts; where each has what the other has not, the hot
    tier's is kept as a session of its own.
    """
    found = service_of(request).engine.verify(who, session, repair=repair)
    first = await anext(found, None)  # a refusal comes before the first byte of the answer

    async def lines() -> AsyncIterator[bytes]:
        if first is not None:
            yield _encode(first) + b"\n"
            async for one in found:
                yield _encode(one) + b"\n"

    return StreamingResponse(lines(), media_type=_LINES)


@routes("GET", "/tiers", "tiers", answers=Tiers, errors=_ADMIN)
async def read_tiers(request: Request, who: Who) -> Response:
    """How far each tier is: what it holds, what is on its way from the hot one to the warm one, and why one does not
    answer.
    """
    return answers.answer(await service_of(request).engine.tiers(who))


@routes(
    "POST",
    "/tiers/flush",
    "flush",
    takes=Flushing,
    example={"retry": False},
    optional=True,
    answers=Flushed,
    errors=_ADMIN,
)
async def flush_tiers(request: Request, who: Who) -> Response:
    """Copy to the warm tier, now, what it does not have yet, and tell what dead letters are left."""
    service = service_of(request)
    asked = await service.take(request, Flushing, default=Flushing())
    return answers.answer(await service.engine.flush(who, retry=asked.retry))


@routes("GET", "/keys", "rotate-keys", answers=KeyIds, errors=_ADMIN)
async def list_keys(request: Request, who: Who) -> Response:
    """The ids of the key-encryption keys."""
    return answers.answer(await service_of(request).engine.keys(who))


@routes(
    "POST",
    "/keys/rotate",
    "rotate-keys",
    takes=Rotation,
    example={"drop": False},
    optional=True,
    answers=Rotated,
    errors=(*_ADMIN, "configuration"),
    writes=True,
)
async def rotate_keys(request: Request, who: Who) -> Response:
    """Make a new key-encryption key and wrap every data key under it, while work goes on."""
    service = service_of(request)
    asked = await service.take(request, Rotation, default=Rotation())
    return answers.answer(await service.engine.rotate_keys(who, drop=asked.drop), headers=answers.durable(service))


@routes(
    "POST",
    "/revocations",
    "revoke",
    takes=Revoking,
    example={"principal": "ben"},
    answers=Revocation,
    status=201,
    errors=(*_ADMIN, "invalid-change"),
    writes=True,
)
async def revoke(request: Request, who: Who) -> Response:
    """End a token, or all tokens of a principal or of the tenant that were issued before now: an admin those of
    anybody, everybody their own. In force everywhere within a second.
    """
    service = service_of(request)
    asked = await service.take(request, Revoking)
    if service.settings.auth.issuer is None:  # kept, it would revoke nothing, and say that it has
        raise InvalidChangeError(
            f"local mode has one token: to end it, delete the file {TOKEN_FILE!r} in the home and start the service"
            " again"
        )
    made = await service.engine.revoke(
        who,
        token=asked.token,
        principal=asked.principal,
        everybody=asked.everybody,
        before=asked.before,
        until=asked.until,
    )
    return answers.answer(made, 201, answers.durable(service) | {"location": "/v1/revocations"})


@routes("GET", "/revocations", "revocations", answers=list[Revocation], errors=EVERY)
async def list_revocations(request: Request, who: Who) -> Response:
    """What is revoked: an admin sees the tenant's, everybody else what is their own."""
    return answers.answer(await service_of(request).engine.revocations(who))
