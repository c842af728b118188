"""Answers as bytes, with the headers that belong to them."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from holdfast.engine.editing import Committed
from holdfast.model.access import Principal
from holdfast.model.session import Header, Session, Status
from holdfast.service.conditions import http_date, preference, tag
from holdfast.service.service import Service
from holdfast.wire import forms

JSON = "application/json"
DURABILITY = "holdfast-durability"
MINIMAL = {204: "Done, as `Prefer: return=minimal` asked."}
"""What the OpenAPI document says of the short answer to a commit."""

_EXPIRING = frozenset({Status.DRAFT, Status.LOCKED})


def stated(header: Header) -> dict[str, str]:
    """The headers that tell the state of a session: its tag, and when it expires (RFC 8594).

    A stale one has no tag: there may be a newer state, and nobody is to take this one for current when it is asked for
    again.
    """
    headers = {} if header.stale else {"etag": tag(header)}
    if header.expires is not None and header.status in _EXPIRING:
        headers["sunset"] = http_date(header.expires)
    return headers


def durable(service: Service) -> dict[str, str]:
    """The headers of an answer to a write that says nothing of a session's state: what it survives."""
    return {DURABILITY: service.engine.policy.durability}


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value in the form it is sent in."""
    return Response(forms.encode(value), status, headers=headers, media_type=JSON)


def sent(data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON that is bytes already."""
    return Response(data, status, headers=headers, media_type=JSON)


def unchanged(header: Header) -> Response:
    """304: the asker has this state already."""
    return Response(None, 304, headers=stated(header))


def empty(headers: dict[str, str]) -> Response:
    """204, for a write."""
    return Response(None, 204, headers=headers)


def moved(service: Service, header: Header) -> Response:
    """A session's header after a step of its life."""
    return answer(header, headers=stated(header) | durable(service))


def committed(made: Committed) -> Response:
    """What a commit came to."""
    return answer(made, 200, {"etag": tag(made), DURABILITY: made.durability})


async def written(service: Service, made: Committed, who: Principal, prefer: str | None) -> Response:
    """What a commit came to, as long as the asker prefers (RFC 7240)."""
    wanted = preference(prefer)
    if wanted == "minimal":
        return empty({"etag": tag(made), DURABILITY: made.durability, "preference-applied": "return=minimal"})
    if wanted == "representation":
        found = await service.engine.read(made.session, who)
        headers = {
            **stated(found.header),
            DURABILITY: made.durability,
            "preference-applied": "return=representation",
        }
        return sent(service.wholes.bytes_of(found), headers=headers)
    return committed(made)


def created(service: Service, made: Session) -> Response:
    """201 for a new session, with its address."""
    header = made.header
    headers = stated(header) | durable(service) | {"location": f"/v1/sessions/{header.id}"}
    return sent(service.wholes.bytes_of(made), 201, headers)
