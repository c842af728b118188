"""Items: read one or many, and every way to change them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from holdfast.engine.authoring import Edit
from holdfast.errors import ItemNotFoundError
from holdfast.model.access import Principal
from holdfast.model.item import Item
from holdfast.model.patch import PatchOperation, merged
from holdfast.service import answers, bodies, patching
from holdfast.service.conditions import change_id as named
from holdfast.service.conditions import seen
from holdfast.service.parameters import (
    ChangeId,
    Collection,
    Fence,
    Group,
    IfMatch,
    Name,
    Operation,
    Prefer,
    Rebase,
    SessionId,
    Version,
)
from holdfast.service.routing import SESSION, Routes
from holdfast.service.schemas import Changes
from holdfast.service.service import Service, Who, service_of
from holdfast.wire.changes import make

routes = Routes("items")

MERGE, PATCH, CHANGES = "application/merge-patch+json", "application/json-patch+json", "application/json"
_ANY = {"description": "Any JSON value that the kind admits."}
_OPERATIONS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["op", "path"],
        "properties": {
            "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
            "path": {"type": "string"},
            "from": {"type": "string"},
            "value": {},
        },
    },
}
_MEDIA = {
    MERGE: {
        "schema": {"type": "object", "description": "RFC 7396, on {collection: {name: body}}."},
        "example": {"chunks": {"0001": {"text": "The sea rises and falls twice a day."}, "0002": None}},
    },
    PATCH: {
        "schema": {**_OPERATIONS, "description": "RFC 6902, on {collection: {name: body}}."},
        "example": [{"op": "replace", "path": "/chunks/0001/text", "value": "The sea rises and falls twice a day."}],
    },
}
_BODY_MEDIA = {
    MERGE: {
        "schema": {"description": "RFC 7396, on the body of the item; what is no object takes its place."},
        "example": {"text": "The sea rises and falls twice a day."},
    },
    PATCH: {"schema": _OPERATIONS, "example": [{"op": "replace", "path": "/text", "value": "The sea rises."}]},
}


@routes(
    "GET", "/sessions/{session}/items", "read", answers=list[Item], errors=(*SESSION, "version-not-found"), state=True
)
async def list_items(
    request: Request,
    session: SessionId,
    who: Who,
    collection: Annotated[str | None, Query(description="Only of this collection.", max_length=200)] = None,
    version: Version = None,
) -> Response:
    """The items of a session in order, or of one of its collections."""
    found = await service_of(request).engine.read(session, who, version=version)
    items = found.items if collection is None else found.collection(collection)
    current = version is None or version == found.header.version
    return answers.answer(items, headers=answers.stated(found.header) if current else None)


@routes(
    "GET",
    "/sessions/{session}/items/{collection}/{name}",
    "read",
    answers=Item,
    errors=(*SESSION, "item-not-found", "version-not-found"),
    state=True,
)
async def read_item(
    request: Request, session: SessionId, collection: Collection, name: Name, who: Who, version: Version = None
) -> Response:
    """One item by its key. The tag is the session's, fit for `If-Match`."""
    found = await service_of(request).engine.read(session, who, version=version)
    item = found.get(f"{collection}/{name}")
    if item is None:
        raise ItemNotFoundError(f"{collection}/{name}")
    current = version is None or version == found.header.version
    return answers.answer(item, headers=answers.stated(found.header) if current else None)


@routes.commit(
    "PATCH",
    "/sessions/{session}",
    "edit",
    takes=Changes,
    example={"changes": [{"put": "chunks/0001", "body": {"text": "The sea rises and falls twice a day."}}]},
    media=_MEDIA,
)
async def edit_session(
    request: Request,
    session: SessionId,
    who: Who,
    if_match: IfMatch = None,
    change_id: ChangeId = None,
    prefer: Prefer = None,
    rebase: Rebase = False,
    group: Group = None,
    operation: Operation = "edit",
    fence: Fence = None,
) -> Response:
    """Change items: all of it lands as one commit, or none of it."""
    service = service_of(request)
    edit = _edit(service, session, who, if_match, change_id, rebase, group, operation, fence)
    media = bodies.media(request, (CHANGES, MERGE, PATCH))
    data = await bodies.read(request, service.body_bytes)
    limits = service.settings.limits
    if media == CHANGES:
        asked = service.decode(data, Changes)
        async with edit as draft:
            draft.reads.update(asked.reads)
            draft.collections.update(asked.collections)
            make(draft, asked.changes)
    elif media == MERGE:
        merging = service.decode(data, dict[str, Any])
        async with edit as draft:
            patching.merge(draft, merging, limits)
    else:
        operations = service.decode(data, list[PatchOperation])
        async with edit as draft:
            patching.apply(draft, operations, limits)
    return await answers.written(service, draft.result, who, prefer)


@routes.commit(
    "PUT",
    "/sessions/{session}/items/{collection}/{name}",
    "edit",
    media={CHANGES: {"schema": _ANY, "example": {"text": "The sea rises twice a day."}}},
)
async def put_item(
    request: Request,
    session: SessionId,
    collection: Collection,
    name: Name,
    who: Who,
    after: Annotated[
        str | None, Query(description="Place it right after the item of this key.", max_length=300)
    ] = None,
    before: Annotated[str | None, Query(description="Place it right before it.", max_length=300)] = None,
    if_match: IfMatch = None,
    change_id: ChangeId = None,
    prefer: Prefer = None,
    rebase: Rebase = False,
    group: Group = None,
    operation: Operation = "edit",
    fence: Fence = None,
) -> Response:
    """Write one item whole: a new one goes to the end, or next to the item named."""
    service = service_of(request)
    body = await service.take(request, Any)
    async with _edit(service, session, who, if_match, change_id, rebase, group, operation, fence) as draft:
        draft.put(f"{collection}/{name}", body, after=after, before=before)
    return await answers.written(service, draft.result, who, prefer)


@routes.commit(
    "PATCH",
    "/sessions/{session}/items/{collection}/{name}",
    "edit",
    media=_BODY_MEDIA,
)
async def patch_item(
    request: Request,
    session: SessionId,
    collection: Collection,
    name: Name,
    who: Who,
    if_match: IfMatch = None,
    change_id: ChangeId = None,
    prefer: Prefer = None,
    rebase: Rebase = False,
    group: Group = None,
    operation: Operation = "edit",
    fence: Fence = None,
) -> Response:
    """Change parts of one item's body."""
    service, key = service_of(request), f"{collection}/{name}"
    media = bodies.media(request, (MERGE, PATCH))
    data = await bodies.read(request, service.body_bytes)
    edit = _edit(service, session, who, if_match, change_id, rebase, group, operation, fence)
    if media == MERGE:
        merging = service.decode(data, Any)
        async with edit as draft:
            draft.put(key, merged(draft.body(key), merging))
    else:
        operations = service.decode(data, list[PatchOperation])
        async with edit as draft:
            draft.put(key, patching.patch_body(draft.body(key), operations, service.settings.limits))
    return await answers.written(service, draft.result, who, prefer)


@routes.commit(
    "DELETE",
    "/sessions/{session}/items/{collection}/{name}",
    "edit",
)
async def delete_item(
    request: Request,
    session: SessionId,
    collection: Collection,
    name: Name,
    who: Who,
    if_match: IfMatch = None,
    change_id: ChangeId = None,
    prefer: Prefer = None,
    rebase: Rebase = False,
    group: Group = None,
    operation: Operation = "edit",
    fence: Fence = None,
) -> Response:
    """Remove one item."""
    service = service_of(request)
    async with _edit(service, session, who, if_match, change_id, rebase, group, operation, fence) as draft:
        draft.delete(f"{collection}/{name}")
    return await answers.written(service, draft.result, who, prefer)


def _edit(
    service: Service,
    session: str,
    who: Principal,
    if_match: str | None,
    change_id: str | None,
    rebase: bool,
    group: str | None,
    operation: str,
    fence: int | None,
) -> Edit:
    return service.engine.edit(
        session,
        who,
        expected=seen(if_match),
        rebase=rebase,
        change_id=named(change_id),
        group=group,
        operation=operation,
        fence=fence,
    )
