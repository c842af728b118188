"""Keeping: touch, extend, suspend, archive, bring back."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from holdfast.model.session import Header
from holdfast.service import answers
from holdfast.service.conditions import change_id as named
from holdfast.service.conditions import seen
from holdfast.service.parameters import ChangeId, SessionId, StillAt
from holdfast.service.routing import BEHIND, SESSION, STEP, Routes
from holdfast.service.schemas import Keeping
from holdfast.service.service import Who, service_of

routes = Routes("keeping")


@routes(
    "POST",
    "/sessions/{session}/touch",
    "touch",
    answers=Header,
    errors=(*STEP, "version-conflict", "change-id-reused"),
    state=True,
    writes=True,
)
async def touch(
    request: Request, session: SessionId, who: Who, change_id: ChangeId = None, if_match: StillAt = None
) -> Response:
    """Start a sliding time to live anew."""
    service = service_of(request)
    return answers.moved(
        service, await service.engine.touch(session, who, change_id=named(change_id), expected=seen(if_match))
    )


@routes(
    "POST",
    "/sessions/{session}/extend",
    "extend",
    takes=Keeping,
    example={"seconds": 604800},
    answers=Header,
    errors=(*STEP, "version-conflict", "change-id-reused", "limit-exceeded"),
    state=True,
    writes=True,
)
async def extend(
    request: Request, session: SessionId, who: Who, change_id: ChangeId = None, if_match: StillAt = None
) -> Response:
    """Keep a session for so many seconds from now; null keeps it for good."""
    service = service_of(request)
    asked = await service.take(request, Keeping)
    header = await service.engine.extend(
        session, who, seconds=asked.seconds, change_id=named(change_id), expected=seen(if_match)
    )
    return answers.moved(service, header)


@routes(
    "POST",
    "/sessions/{session}/suspend",
    "suspend",
    answers=Header,
    errors=(*STEP, "version-conflict", "change-id-reused", "lease-held"),
    state=True,
    writes=True,
)
async def suspend(
    request: Request, session: SessionId, who: Who, change_id: ChangeId = None, if_match: StillAt = None
) -> Response:
    """Set a session to rest until it is next written; refused while somebody's lease is live."""
    service = service_of(request)
    return answers.moved(
        service, await service.engine.suspend(session, who, change_id=named(change_id), expected=seen(if_match))
    )


@routes(
    "POST",
    "/sessions/{session}/archive",
    "archive",
    answers=Header,
    errors=(*SESSION, "publication-pending", "lease-held", "session-busy", *BEHIND, "store-full"),
    state=True,
)
async def archive(request: Request, session: SessionId, who: Who) -> Response:
    """Move a session to the cold tier, written whole and read back first; refused while somebody's lease is live.
    Whoever opens it next brings it back.
    """
    header = await service_of(request).engine.archive(session, who)
    return answers.answer(header, headers=answers.stated(header))


@routes(
    "POST",
    "/sessions/{session}/rehydrate",
    "rehydrate",
    answers=Header,
    errors=(*SESSION, *BEHIND, "store-full"),
    state=True,
)
async def rehydrate(request: Request, session: SessionId, who: Who) -> Response:
    """Bring a session back to the hot tier, from wherever it rests, before somebody has to wait for it."""
    header = await service_of(request).engine.rehydrate(session, who)
    return answers.answer(header, headers=answers.stated(header))
