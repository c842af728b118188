"""Sessions: make, list, read, name, throw away, have back."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Query, Request
from starlette.responses import Response

from holdfast.engine.catalogue import Page
from holdfast.model.entry import EntryHeader
from holdfast.model.session import Header, Session, Status, Tier
from holdfast.service import answers
from holdfast.service.conditions import change_id as named
from holdfast.service.conditions import is_known, seen, tag
from holdfast.service.examples import EXPORT
from holdfast.service.parameters import After, ChangeId, IfNoneMatch, Limit, SessionId, StillAt, Version
from holdfast.service.routing import CREATE, EVERY, SESSION, STEP, Routes
from holdfast.service.schemas import Creation, Naming
from holdfast.service.service import Who, service_of

routes = Routes("sessions")

_SCHEMAS = "#/components/schemas/"
_ENTRY = {
    "type": "object",
    "required": ["session", "header", "payload", "digest", "commit"],
    "properties": {
        "session": {"type": "string"},
        "header": {
            "type": "array",
            "description": "As it is stored and goes into the chain, the values by their places: "
            + ", ".join(f"`{name}`" for name in EntryHeader.__struct_fields__),
        },
        "payload": {"type": "object", "description": "`changes` of a commit, `detail` of a step."},
        "digest": {"type": "string", "contentEncoding": "base64"},
        "commit": {"type": "boolean"},
    },
}
_EXPORT = {
    "type": "object",
    "description": "A bundle for keeping elsewhere, in the form in which things are stored: what is at its default is"
    " left out of `header` and `payload`, bytes are base64. `format` names the form.",
    "required": ["format", "header", "items", "history", "labels", "receipts"],
    "properties": {
        "format": {"const": "holdfast-session-1"},
        "header": {"type": "object"},
        "items": {"type": "array", "items": {"$ref": f"{_SCHEMAS}Item"}},
        "history": {"type": "array", "description": "Oldest first.", "items": _ENTRY},
        "labels": {"type": "array", "items": {"$ref": f"{_SCHEMAS}Label"}},
        "receipts": {"type": "array", "items": {"$ref": f"{_SCHEMAS}Receipt"}},
    },
}
"""The schema of an export; who changes what the engine gives out changes its ``format`` too."""

_EXAMPLE = {
    "kind": "knowledge",
    "title": "Tides",
    "items": [{"key": "chunks/0001", "body": {"text": "The sea rises twice a day."}}],
}


@routes(
    "POST",
    "/sessions",
    "create",
    takes=Creation,
    example=_EXAMPLE,
    answers=Session,
    status=201,
    errors=CREATE,
    state=True,
    writes=True,
)
async def create_session(request: Request, who: Who, change_id: ChangeId = None) -> Response:
    """Make a draft of a kind, at version 1."""
    service = service_of(request)
    asked = await service.take(request, Creation)
    made = await service.engine.create(
        who,
        kind=asked.kind,
        title=asked.title,
        items=[(item.key, item.body) for item in asked.items],
        retention=None if asked.retention is None else asked.retention.retention(),
        target=asked.target,
        change_id=named(change_id),
    )
    return answers.created(service, made)


@routes("GET", "/sessions", "find", answers=Page, errors=(*EVERY, "invalid-cursor"))
async def list_sessions(
    request: Request,
    who: Who,
    kind: Annotated[str | None, Query(description="Only of this kind.", max_length=200)] = None,
    status: Annotated[Status | None, Query(description="Only in this status.")] = None,
    tier: Annotated[Tier | None, Query(description="Only in this tier state.")] = None,
    owner: Annotated[str | None, Query(description="Only of this owner.", max_length=200)] = None,
    text: Annotated[str | None, Query(description="Only with this in the title, case aside.", max_length=500)] = None,
    after: After = None,
    limit: Limit = 50,
) -> Response:
    """Sessions you may see, newest first."""
    page = await service_of(request).engine.find(
        who, kind=kind, status=status, tier=tier, owner=owner, text=text, after=after, limit=limit
    )
    return answers.answer(page)


@routes(
    "GET",
    "/sessions/{session}",
    "read",
    answers=Session,
    errors=(*SESSION, "version-not-found"),
    also={304: "You hold this state already."},
    state=True,
)
async def read_session(
    request: Request,
    session: SessionId,
    who: Who,
    version: Version = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """A session with its items, as it stands or as it was at a version."""
    service = service_of(request)
    if if_none_match is not None and version is None:
        newer = await service.engine.read(session, who, unless=lambda header: _is_held(if_none_match, header))
        if isinstance(newer, Header):
            return answers.unchanged(newer)
        return answers.sent(service.wholes.bytes_of(newer), headers=answers.stated(newer.header))
    found = await service.engine.read(session, who, version=version)
    if version is not None and version != found.header.version:
        return answers.answer(found)
    return answers.sent(service.wholes.bytes_of(found), headers=answers.stated(found.header))


@routes(
    "GET",
    "/sessions/{session}/header",
    "header",
    answers=Header,
    also={304: "You hold this state already."},
    state=True,
)
async def read_header(request: Request, session: SessionId, who: Who, if_none_match: IfNoneMatch = None) -> Response:
    """A session's header, without its items; also of one that is gone and can still be had back."""
    header = await service_of(request).engine.header(session, who)
    if _is_held(if_none_match, header):
        return answers.unchanged(header)
    return answers.answer(header, headers=answers.stated(header))


@routes("GET", "/sessions/{session}/export", "export", answers=_EXPORT, shows=EXPORT, errors=SESSION, state=True)
async def export_session(request: Request, session: SessionId, who: Who) -> Response:
    """A session whole, for keeping elsewhere: header, items, history, labels, receipts."""
    whole = await service_of(request).engine.export(session, who)
    return answers.answer(whole, headers=answers.stated(msgspec.convert(whole["header"], Header)))


@routes(
    "PUT",
    "/sessions/{session}/title",
    "rename",
    takes=Naming,
    example={"title": "Tides and moons"},
    answers=Header,
    errors=(*STEP, "version-conflict", "change-id-reused"),
    state=True,
    writes=True,
)
async def rename_session(
    request: Request, session: SessionId, who: Who, change_id: ChangeId = None, if_match: StillAt = None
) -> Response:
    """Give a session another title."""
    service = service_of(request)
    asked = await service.take(request, Naming)
    return answers.moved(
        service,
        await service.engine.rename(session, who, asked.title, change_id=named(change_id), expected=seen(if_match)),
    )


@routes(
    "DELETE",
    "/sessions/{session}",
    "discard",
    answers=Header,
    errors=(*STEP, "version-conflict", "change-id-reused"),
    state=True,
    writes=True,
)
async def discard_session(
    request: Request, session: SessionId, who: Who, change_id: ChangeId = None, if_match: StillAt = None
) -> Response:
    """Throw a session away; within its grace it can be had back."""
    service = service_of(request)
    return answers.moved(
        service, await service.engine.discard(session, who, change_id=named(change_id), expected=seen(if_match))
    )


@routes(
    "POST",
    "/sessions/{session}/revive",
    "revive",
    answers=Header,
    errors=(*STEP, "version-conflict", "change-id-reused", "limit-exceeded"),
    state=True,
    writes=True,
)
async def revive_session(
    request: Request, session: SessionId, who: Who, change_id: ChangeId = None, if_match: StillAt = None
) -> Response:
    """Take a discarded or expired session back within its grace."""
    service = service_of(request)
    return answers.moved(
        service, await service.engine.revive(session, who, change_id=named(change_id), expected=seen(if_match))
    )


def _is_held(if_none_match: str | None, header: Header) -> bool:
    """Whether the asker holds this state. One that may not be the newest is told of, whatever the asker holds."""
    return not header.stale and is_known(if_none_match, tag(header))
