"""What comes in and what is live: ingest a document, search what was published, the kinds there are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from holdfast.model.session import Session
from holdfast.ports.sink import Hit
from holdfast.service import answers, bodies, form
from holdfast.service.conditions import change_id as named
from holdfast.service.examples import KINDS
from holdfast.service.parameters import ChangeId, Limit
from holdfast.service.routing import CREATE, EVERY, Routes
from holdfast.service.schemas import Lifetime
from holdfast.service.service import Who, service_of
from holdfast.wire.operations import explained

routes = Routes("sources")

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
        },
        "example": {
            "file": "# Tides\n\nThe sea rises twice a day.\n",
            "title": "Tides",
            "kind": "knowledge",
            "retention": {"ttl": 604800, "sliding": True, "maximum": None},
        },
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
    bodies.media(request, (form.MEDIA_TYPE,))
    upload = await form.read(request, _WORDS, service.settings.limits.source_bytes)
    words = upload.words
    lifetime = words.get("retention")
    made = await service.engine.ingest(
        who,
        upload.file,
        upload.name or "upload",
        kind=words.get("kind") or "knowledge",
        title=words.get("title"),
        target=words.get("target"),
        retention=None if lifetime is None else service.decode(lifetime.encode(), Lifetime).retention(),
        change_id=named(change_id),
    )
    return answers.created(service, made)


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


@routes("GET", "/kinds", "whoami", answers={"type": "array", "items": {"type": "object"}}, shows=KINDS, errors=EVERY)
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
