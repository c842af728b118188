"""The past: undo, redo and their previews, history, any version again, differences, labels, restore."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request
from starlette.responses import Response

from holdfast.engine.labels import Label
from holdfast.model.difference import Difference
from holdfast.model.entry import Entry
from holdfast.model.session import Session
from holdfast.service import answers
from holdfast.service.conditions import change_id as named
from holdfast.service.conditions import seen
from holdfast.service.parameters import ChangeId, Fence, IfMatch, Limit, Prefer, SessionId, StillAt
from holdfast.service.routing import SESSION, STEP, Routes
from holdfast.service.schemas import Labelling, Restoring
from holdfast.service.service import Who, service_of

routes = Routes("history")


@routes.commit(
    "POST",
    "/sessions/{session}/undo",
    "undo",
    errors=("nothing-to-undo",),
)
async def undo(
    request: Request,
    session: SessionId,
    who: Who,
    if_match: IfMatch = None,
    change_id: ChangeId = None,
    prefer: Prefer = None,
    fence: Fence = None,
) -> Response:
    """Take the last commit back, or the last group of them, with a new commit."""
    service = service_of(request)
    made = await service.engine.undo(session, who, expected=seen(if_match), change_id=named(change_id), fence=fence)
    return await answers.written(service, made, who, prefer)


@routes.commit(
    "POST",
    "/sessions/{session}/redo",
    "redo",
    errors=("nothing-to-undo",),
)
async def redo(
    request: Request,
    session: SessionId,
    who: Who,
    if_match: IfMatch = None,
    change_id: ChangeId = None,
    prefer: Prefer = None,
    fence: Fence = None,
) -> Response:
    """Do again what the last undo took back."""
    service = service_of(request)
    made = await service.engine.redo(session, who, expected=seen(if_match), change_id=named(change_id), fence=fence)
    return await answers.written(service, made, who, prefer)


@routes("GET", "/sessions/{session}/undo", "undo", answers=list[Difference], errors=(*SESSION, "nothing-to-undo"))
async def preview_undo(request: Request, session: SessionId, who: Who) -> Response:
    """What an undo would change, without doing it."""
    return answers.answer(await service_of(request).engine.preview_undo(session, who))


@routes("GET", "/sessions/{session}/redo", "redo", answers=list[Difference], errors=(*SESSION, "nothing-to-undo"))
async def preview_redo(request: Request, session: SessionId, who: Who) -> Response:
    """What a redo would change, without doing it."""
    return answers.answer(await service_of(request).engine.preview_redo(session, who))


@routes("GET", "/sessions/{session}/history", "history", answers=list[Entry])
async def read_history(
    request: Request,
    session: SessionId,
    who: Who,
    before: Annotated[int | None, Query(description="Only what lies below this step.", ge=1, le=2**53)] = None,
    limit: Limit = 50,
) -> Response:
    """Commits and steps of the session's life, newest first. A page of large entries ends early; the last is empty."""
    return answers.answer(await service_of(request).engine.history(session, who, before=before, limit=limit))


@routes(
    "GET",
    "/sessions/{session}/versions/{version}",
    "read",
    answers=Session,
    errors=(*SESSION, "version-not-found"),
)
async def read_version(
    request: Request,
    session: SessionId,
    version: Annotated[int, Path(description="The version.", ge=0, le=2**53)],
    who: Who,
) -> Response:
    """A session as it was at a version: the header is today's, the items are those of then."""
    return answers.answer(await service_of(request).engine.read(session, who, version=version))


@routes("GET", "/sessions/{session}/diff", "diff", answers=list[Difference], errors=(*SESSION, "version-not-found"))
async def read_diff(
    request: Request,
    session: SessionId,
    who: Who,
    before: Annotated[int, Query(description="The one version.", ge=0, le=2**53)],
    after: Annotated[int, Query(description="The other.", ge=0, le=2**53)],
) -> Response:
    """What differs between two versions: by item, and within texts by words."""
    return answers.answer(await service_of(request).engine.diff(session, who, before, after))


@routes("GET", "/sessions/{session}/labels", "history", answers=list[Label])
async def list_labels(request: Request, session: SessionId, who: Who) -> Response:
    """The session's labels, newest version first."""
    return answers.answer(await service_of(request).engine.labels(session, who))


@routes(
    "PUT",
    "/sessions/{session}/labels/{label:path}",
    "label",
    takes=Labelling,
    example={"version": 3},
    optional=True,
    answers=Label,
    errors=(*STEP, "version-conflict", "version-not-found", "limit-exceeded", "change-id-reused"),
    writes=True,
)
async def set_label(
    request: Request,
    session: SessionId,
    label: Annotated[str, Path(description="The label.", min_length=1, max_length=200)],
    who: Who,
    change_id: ChangeId = None,
    if_match: StillAt = None,
) -> Response:
    """Name a version, the newest by default; a name used before moves."""
    service = service_of(request)
    asked = await service.take(request, Labelling, default=Labelling())
    made = await service.engine.label(
        session, who, label, version=asked.version, change_id=named(change_id), expected=seen(if_match)
    )
    return answers.answer(made, headers=answers.durable(service))


@routes.commit(
    "POST",
    "/sessions/{session}/restore",
    "restore",
    takes=Restoring,
    example={"to": 3},
    errors=("version-not-found", "label-not-found"),
)
async def restore(
    request: Request,
    session: SessionId,
    who: Who,
    if_match: IfMatch = None,
    change_id: ChangeId = None,
    prefer: Prefer = None,
    fence: Fence = None,
) -> Response:
    """Take the session back to a version, or to the one a label names, with a new commit."""
    service = service_of(request)
    asked = await service.take(request, Restoring)
    made = await service.engine.restore(
        session, who, asked.to, expected=seen(if_match), change_id=named(change_id), fence=fence
    )
    return await answers.written(service, made, who, prefer)
