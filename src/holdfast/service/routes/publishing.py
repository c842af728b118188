"""Publishing: preview and lock, unlock, take over, publish, receipts, roll back, edit again."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from holdfast.engine.publishing import Preview
from holdfast.model.access import Principal
from holdfast.model.session import Header, Session
from holdfast.ports.sink import Receipt
from holdfast.service import answers
from holdfast.service.conditions import change_id as named
from holdfast.service.conditions import seen
from holdfast.service.parameters import ChangeId, SessionId, StillAt
from holdfast.service.routing import SESSION, STEP, Routes
from holdfast.service.schemas import Locking, Sealed
from holdfast.service.service import Service, Who, service_of

routes = Routes("publishing")

_SINK = ("sink-unavailable", "live-moved", "verification-failed", "limit-exceeded", "invalid-item")
_HERE = {"parameters": {"path.session": "$request.path.session"}}


@routes(
    "POST",
    "/sessions/{session}/preview",
    "preview",
    takes=Locking,
    example={"seconds": 900},
    optional=True,
    answers=Preview,
    errors=(*STEP, "version-conflict", *_SINK),
    state=True,
    writes=True,
    links={"publish": {**_HERE, "requestBody": {"seal": "$response.body#/seal"}}, "unlock": _HERE, "take_over": _HERE},
)
async def preview(request: Request, session: SessionId, who: Who, if_match: StillAt = None) -> Response:
    """Show what publishing would do, and lock the draft under a seal of exactly that."""
    service = service_of(request)
    asked = await service.take(request, Locking, default=Locking())
    return await _locked(
        service, await service.engine.preview(session, who, seconds=asked.seconds, expected=seen(if_match)), who
    )


@routes(
    "POST",
    "/sessions/{session}/unlock",
    "unlock",
    answers=Header,
    errors=(*STEP, "version-conflict", "change-id-reused"),
    state=True,
    writes=True,
)
async def unlock(
    request: Request, session: SessionId, who: Who, change_id: ChangeId = None, if_match: StillAt = None
) -> Response:
    """Make a locked session a draft again."""
    service = service_of(request)
    return answers.moved(
        service, await service.engine.unlock(session, who, change_id=named(change_id), expected=seen(if_match))
    )


@routes(
    "POST",
    "/sessions/{session}/take-over",
    "take-over",
    takes=Locking,
    example={"seconds": 900},
    optional=True,
    answers=Preview,
    errors=(*STEP, *_SINK),
    state=True,
    writes=True,
)
async def take_over(request: Request, session: SessionId, who: Who) -> Response:
    """Take somebody's lock over; the state its owner left is labelled first."""
    service = service_of(request)
    asked = await service.take(request, Locking, default=Locking())
    return await _locked(service, await service.engine.take_over(session, who, seconds=asked.seconds), who)


@routes(
    "POST",
    "/sessions/{session}/publish",
    "publish",
    takes=Sealed,
    example={"seal": "the seal of the preview"},
    answers=Receipt,
    errors=(*STEP, "seal-mismatch", *_SINK),
    writes=True,
    links={"list_receipts": _HERE, "rollback": _HERE, "reopen": _HERE},
)
async def publish(request: Request, session: SessionId, who: Who) -> Response:
    """Publish the state a preview sealed. The same publication asked for again gives the same receipt."""
    service = service_of(request)
    asked = await service.take(request, Sealed)
    return answers.answer(await service.engine.publish(session, who, seal=asked.seal), headers=answers.durable(service))


@routes("GET", "/sessions/{session}/receipts", "receipts", answers=list[Receipt], errors=SESSION)
async def list_receipts(request: Request, session: SessionId, who: Who) -> Response:
    """The session's receipts, newest first."""
    return answers.answer(await service_of(request).engine.receipts(session, who))


@routes(
    "POST",
    "/sessions/{session}/rollback",
    "rollback",
    answers=Receipt,
    errors=(*STEP, "receipt-not-found", *_SINK),
    writes=True,
)
async def rollback(request: Request, session: SessionId, who: Who) -> Response:
    """Make what was live before this session's publication live again."""
    service = service_of(request)
    return answers.answer(await service.engine.rollback(session, who), headers=answers.durable(service))


@routes(
    "POST",
    "/sessions/{session}/reopen",
    "reopen",
    answers=Session,
    status=201,
    errors=(*STEP, "change-id-reused", "receipt-not-found", "blob-not-found", "limit-exceeded"),
    state=True,
    writes=True,
)
async def reopen(request: Request, session: SessionId, who: Who, change_id: ChangeId = None) -> Response:
    """Edit again: a new draft of what a session published, to be published in its place."""
    service = service_of(request)
    return answers.created(service, await service.engine.reopen(session, who, change_id=named(change_id)))


async def _locked(service: Service, shown: Preview, who: Principal) -> Response:
    """A preview, with the tag of the state it has locked; without one if that has been unlocked since."""
    header = await service.engine.header(shown.session, who)
    stands = header.lock is not None and header.lock.seal == shown.seal
    return answers.answer(shown, headers={**(answers.stated(header) if stands else {}), **answers.durable(service)})
