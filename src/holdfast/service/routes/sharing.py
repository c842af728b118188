"""Sharing: grants, participants, and the leases by which they take turns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import Path, Request
from starlette.responses import Response

from holdfast.model.access import Role
from holdfast.model.lease import Lease
from holdfast.model.session import Header
from holdfast.service import answers
from holdfast.service.conditions import change_id as named
from holdfast.service.conditions import seen
from holdfast.service.parameters import ChangeId, SessionId, StillAt
from holdfast.service.routing import BEHIND, SESSION, STEP, Routes
from holdfast.service.schemas import Granting, Leasing, Renewal
from holdfast.service.service import Who, service_of

routes = Routes("sharing")

PrincipalId = Annotated[str, Path(description="The principal's id.", max_length=200)]
FencePath = Annotated[int, Path(description="The lease's fence.", ge=0, le=2**63 - 1)]
_ANY_TIME = datetime.fromtimestamp(0, UTC)
"""The time of a lease that is named by its fence alone."""
_GRANT = (*STEP, "version-conflict", "limit-exceeded", "change-id-reused")
_LEASED = {"parameters": {"path.session": "$response.body#/session", "path.fence": "$response.body#/fence"}}


class Participants(msgspec.Struct, frozen=True):
    """Who works on a session: its owner, who was granted which role, and who holds the lease now."""

    owner: str
    grants: dict[str, Role]
    lease: Lease | None


@routes("GET", "/sessions/{session}/participants", "read", answers=Participants)
async def list_participants(request: Request, session: SessionId, who: Who) -> Response:
    """Who works on a session, and whose turn it is."""
    engine = service_of(request).engine
    lease = await engine.leased(session, who)
    header = await engine.header(session, who)
    return answers.answer(Participants(header.owner, header.grants, lease))


@routes(
    "PUT",
    "/sessions/{session}/grants/{principal:path}",
    "grant",
    takes=Granting,
    example={"role": "editor"},
    answers=Header,
    errors=_GRANT,
    state=True,
    writes=True,
)
async def grant(
    request: Request,
    session: SessionId,
    principal: PrincipalId,
    who: Who,
    change_id: ChangeId = None,
    if_match: StillAt = None,
) -> Response:
    """Give a principal a role on a session."""
    service = service_of(request)
    asked = await service.take(request, Granting)
    header = await service.engine.grant(
        session, who, principal, asked.role, change_id=named(change_id), expected=seen(if_match)
    )
    return answers.moved(service, header)


@routes(
    "DELETE",
    "/sessions/{session}/grants/{principal:path}",
    "grant",
    answers=Header,
    errors=_GRANT,
    state=True,
    writes=True,
)
async def withdraw(
    request: Request,
    session: SessionId,
    principal: PrincipalId,
    who: Who,
    change_id: ChangeId = None,
    if_match: StillAt = None,
) -> Response:
    """Take a principal's role on a session away; its open feeds end within a second."""
    service = service_of(request)
    return answers.moved(
        service,
        await service.engine.grant(session, who, principal, None, change_id=named(change_id), expected=seen(if_match)),
    )


@routes(
    "POST",
    "/sessions/{session}/leases",
    "lease",
    takes=Leasing,
    example={"holder": "agent-7", "seconds": 30},
    answers=Lease,
    status=201,
    errors=(*STEP, "lease-held"),
    writes=True,
    links={"renew_lease": _LEASED, "release_lease": _LEASED},
)
async def take_lease(request: Request, session: SessionId, who: Who) -> Response:
    """Take the timed right to write: while it is live, only who names its fence may commit."""
    service = service_of(request)
    asked = await service.take(request, Leasing)
    lease = await service.engine.lease(session, who, asked.holder, seconds=asked.seconds, force=asked.force)
    location = {"location": f"/v1/sessions/{session}/leases/{lease.fence}"}
    return answers.answer(lease, 201, answers.durable(service) | location)


@routes(
    "PUT",
    "/sessions/{session}/leases/{fence}",
    "lease",
    takes=Renewal,
    example={"seconds": 30},
    optional=True,
    answers=Lease,
    errors=(*STEP, "lease-lost"),
    writes=True,
)
async def renew_lease(request: Request, session: SessionId, fence: FencePath, who: Who) -> Response:
    """Hold a lease for longer; refused once a newer fence has been granted."""
    service = service_of(request)
    asked = await service.take(request, Renewal, default=Renewal())
    lease = await service.engine.renew(Lease(session, "", fence, _ANY_TIME), who, seconds=asked.seconds)
    return answers.answer(lease, headers=answers.durable(service))


@routes("DELETE", "/sessions/{session}/leases/{fence}", "lease", status=204, errors=(*SESSION, *BEHIND), writes=True)
async def release_lease(request: Request, session: SessionId, fence: FencePath, who: Who) -> Response:
    """Give a lease back. One that is lost already is left as it is."""
    service = service_of(request)
    await service.engine.release(Lease(session, "", fence, _ANY_TIME), who)
    return answers.empty(answers.durable(service))
