"""What comes in and what is live: ingest a document, search what was published, the kinds there are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import Response

from holdfast.errors import InvalidRequestError, RequestTooLargeError
from holdfast.model.session import Session
from holdfast.ports.sink import Hit
from holdfast.service import answers, bodies
from holdfast.service.conditions import change_id as named
from holdfast.service.parameters import ChangeId, Limit
from holdfast.service.routes.sessions import created
from holdfast.service.routing import CREATE, EVERY, Routes
from holdfast.service.schemas import Lifetime
from holdfast.service.service import Who, service_of
from holdfast.wire.operations import explained

routes = Routes("sources")

_PIECE = 1 << 18
_WORDS = ("title", "kind", "target", "retention")
_FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "additionalProperties": False,
            "properties": {
                "file": {"type": "string", "format": "binary", "description": "The document."},
                "title": {"type": "string"},
                "kind": {"type": "string", "default": "knowledge"},
                "target": {"type": "string"},
                "retention": {"$ref": "#/components/schemas/Lifetime"},
            },
        }
    }
}


@routes(
    "POST",
    "/ingest",
    "ingest",
    media=_FORM,
    answers=Session,
    status=201,
    errors=CREATE,
    state=True,
    writes=True,
)
async def ingest(request: Request, who: Who, change_id: ChangeId = None) -> Response:
    """Make a draft of a document: upload it as `file` of a form. The source is kept sealed. `retention` is JSON."""
    service = service_of(request)
    bodies.media(request, ("multipart/form-data",))
    most = service.settings.limits.source_bytes
    form = await _form(request)
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidRequestError("a file is wanted in the field 'file'", "body")
        unknown = sorted(set(form) - {"file", *_WORDS})
        if unknown:
            raise InvalidRequestError(f"there is no field {unknown[0]!r}", "body")
        if len(form.multi_items()) > len(form):
            raise InvalidRequestError("a field is there twice", "body")
        data = bytearray()
        while piece := await file.read(_PIECE):
            data += piece
            if len(data) > most:
                raise RequestTooLargeError("document", most)
        words = {name: _text(form.get(name), name) for name in _WORDS}
        lifetime = words["retention"]
        made = await service.engine.ingest(
            who,
            bytes(data),
            file.filename or "upload",
            kind=words["kind"] or "knowledge",
            title=words["title"],
            target=words["target"],
            retention=None if lifetime is None else bodies.decode(lifetime.encode(), Lifetime).retention(),
            change_id=named(change_id),
        )
        return created(request, made)
    finally:
        await form.close()


@routes(
    "GET", "/search", "search", answers=list[Hit], errors=(*EVERY, "unknown-kind", "sink-unavailable", "invalid-change")
)
async def search(
    request: Request,
    who: Who,
    q: Annotated[str, Query(description="What to look for.", min_length=1, max_length=2_000)],
    kind: Annotated[
        str, Query(description="Among what sessions of this kind published.", max_length=200)
    ] = "knowledge",
    limit: Limit = 10,
) -> Response:
    """What is live and fits a query best. Drafts are never searched."""
    return answers.answer(await service_of(request).engine.search(who, q, kind=kind, limit=limit))


@routes("GET", "/kinds", "whoami", answers={"type": "array", "items": {"type": "object"}}, errors=EVERY)
async def list_kinds(request: Request, who: Who) -> Response:
    """The kinds of session there are, and the operations each declares, with their arguments as JSON schemas."""
    found: list[dict[str, Any]] = [
        {
            "name": kind.name,
            "summary": kind.summary,
            "collections": sorted(kind.bodies),
            "ingests": kind.ingest is not None,
            "operations": [explained(operation) for operation in kind.operations],
        }
        for kind in service_of(request).engine.kinds.values()
    ]
    return answers.answer(found)


async def _form(request: Request) -> FormData:
    try:
        return await request.form(max_files=1, max_fields=8, max_part_size=_PIECE)
    except (MultiPartException, HTTPException) as error:
        said = error.message if isinstance(error, MultiPartException) else error.detail
        raise InvalidRequestError(str(said), "body") from None


def _text(value: UploadFile | str | None, name: str) -> str | None:
    if isinstance(value, UploadFile):
        raise InvalidRequestError(f"the field {name!r} is text", "body")
    return value
