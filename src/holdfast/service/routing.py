"""How a route is declared: its verb, what it takes, what it answers, and how it can fail.

Everything OpenAPI tells of a route comes from its declaration. A route names the verb it is allowed by; a test walks
the document and refuses one that does not.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from holdfast.engine.editing import Committed
from holdfast.service import problems
from holdfast.service.answers import MINIMAL
from holdfast.service.examples import example_of
from holdfast.service.route import Route
from holdfast.wire.forms import form_of

OPEN = "open"
"""The verb of a route that anybody may ask: it tells nothing of anybody's work."""

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])

EVERY = (
    "unauthenticated",
    "rate-limited",
    "invalid-request",
    "request-too-large",
    "request-timeout",
    "stopping",
    "unavailable",
    "store-unavailable",
    "store-down",
    "service",
)
"""How any route can fail that asks who you are."""

BEHIND = ("flush-queue-full", "tier-behind")
"""How any route can fail that writes to a session, where hot and warm tier are apart."""

BODY = ("media-type", "limit-exceeded")
"""How any route can fail that takes a body."""

CREATE = (
    *EVERY,
    "unknown-kind",
    "invalid-change",
    "invalid-item",
    "limit-exceeded",
    "change-id-reused",
    "session-gone",
    "already-exists",
    "store-full",
    "tampered",
    "unreadable",
    *BEHIND,
)
"""How making a session can fail."""

SESSION = (
    *EVERY,
    "session-not-found",
    "session-gone",
    "permission-denied",
    "tampered",
    "unreadable",
)
"""How any route of one session can fail."""

STEP = (*SESSION, "not-draft", "lock-held", "publication-pending", "invalid-change", "store-full", *BEHIND)
"""How a step of a session's life can fail."""

EDIT = (
    *STEP,
    "version-required",
    "version-conflict",
    "change-id-reused",
    "invalid-item",
    "limit-exceeded",
    "item-not-found",
    "lease-held",
    "lease-lost",
)
"""How a change to items can fail."""

_REFERENCE = "#/components/schemas/"
_MADE_HEADERS = {"Location": {"description": "Where what was made is.", "schema": {"type": "string"}}}
_LINK = "#/components/links/"
_EXAMPLE = "#/components/examples/"
_NAMED = {"Problem": "Flaw"}
"""What a type is called that has the name of another one here: a ``Problem`` is RFC 9457's."""
_STATE_HEADERS = {
    "ETag": {"description": "The tag of the session's state.", "schema": {"type": "string"}},
    "Sunset": {"description": "When the session expires (RFC 8594).", "schema": {"type": "string"}},
}
_READ_HEADERS = {
    "Holdfast-Stale": {
        "description": "`true` where the warm tier has answered for the hot one: there may be a newer state. Such an"
        " answer has no tag, and is for no cache.",
        "schema": {"const": "true"},
    },
}
_WRITE_HEADERS = {
    "Holdfast-Durability": {
        "description": "What the write survives: `disk` is on the hot tier's disk before the answer, `warm` in the warm"
        " tier, `hot` in the hot tier's memory.",
        "schema": {"enum": ["hot", "disk", "warm"]},
    },
}

_AGAIN = {"Retry-After": "integer"}
_FAILURE_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "string"},
    412: {"Holdfast-Version": "integer"},
    **dict.fromkeys((408, 429, 503, 507), _AGAIN),
}


class Shown(NamedTuple):
    """The examples of a route: of each media type it takes, and of its answer under its status and media type."""

    path: str
    method: str
    bodies: Mapping[str, Any]
    status: str
    answers: Mapping[str, Any]


class Routes:
    """A group of routes under one tag, the types their bodies are made of, and what these look like."""

    def __init__(self, tag: str, prefix: str = "/v1") -> None:
        self.router = APIRouter(prefix=prefix, tags=[tag], route_class=Route)
        self.types: set[Any] = set()
        self.shown: list[Shown] = []

    def __call__(
        self,
        method: str,
        path: str,
        verb: str,
        *,
        answers: Any = None,
        shows: Any = None,
        status: int = 200,
        takes: Any = None,
        example: Any = None,
        optional: bool = False,
        media: Mapping[str, Any] | None = None,
        errors: Iterable[str] = SESSION,
        also: Mapping[int, str] | None = None,
        content: str = "application/json",
        state: bool = False,
        writes: bool = False,
        links: Mapping[str, Any] | None = None,
        summary: str = "",
    ) -> Callable[[Handler], Handler]:
        """Declare a route.

        Args:
            verb: what the principal must be allowed; ``open`` for anybody.
            answers: the type of the answer; ``list[T]`` for a list. None: there is no body.
            shows: an example of the answer, where it is not of a type that has one.
            takes: the type of the JSON body, with an ``example``; ``optional``: it may be left out.
            media: bodies of other media types: the OpenAPI media object of each, with an example.
            errors: the codes it can fail with.
            also: other statuses it can have, with what they mean, such as 304.
            state: its answer carries the tag of a session's state; ``writes``: and how durable it is.
            links: OpenAPI links from its answer to what may follow it, by operation id, beside those of ``link``.
            summary: what it does in a few words, if not the beginning of its docstring.
        """
        headers = {**(_STATE_HEADERS if state else {}), **(_WRITE_HEADERS if writes else {})}
        if method == "GET" and ("{session}" in path or verb == "find"):
            headers |= _READ_HEADERS
        if status == 201:
            headers |= _MADE_HEADERS
        answered: dict[str, Any] = {}
        documented: dict[int | str, dict[str, Any]] = {status: {"description": "Done.", "headers": dict(headers)}}
        if answers is not None:
            schema = self._schema(answers)
            answered = {content: example_of(schema) if shows is None else shows}
            documented[status]["content"] = {content: {"schema": schema}}
        if links is not None:
            documented[status]["links"] = {name: {"operationId": name, **said} for name, said in links.items()}
        for other, meaning in (also or {}).items():
            documented[other] = {"description": meaning, "headers": dict(headers)}
        bodies = dict(media or {})
        if takes is not None:
            bodies = {"application/json": {"schema": self._schema(takes), "example": example}, **bodies}
        documented |= failures((*errors, *(BODY if bodies else ())))
        extra: dict[str, Any] = {"x-holdfast-verb": verb}
        if verb != OPEN:
            extra["security"] = [{"bearer": []}]
        if bodies:
            extra["requestBody"] = {"required": not optional, "content": bodies}

        def declare(handler: Handler) -> Handler:
            described = inspect.cleandoc(handler.__doc__ or "").replace("``", "`")
            self.router.add_api_route(
                path,
                handler,
                methods=[method],
                status_code=status,
                responses=documented,
                response_model=None,
                response_class=Response,
                openapi_extra=extra,
                operation_id=handler.__name__.rstrip("_"),
                summary=summary or _beginning(described),
                description=described,
            )
            taken = {one: said["example"] for one, said in bodies.items()}
            made: Any = self.router.routes[-1]
            self.shown.append(Shown(made.path_format, method.lower(), taken, str(status), answered))
            return handler

        return declare

    def commit(
        self, method: str, path: str, verb: str, *, errors: Iterable[str] = (), **more: Any
    ) -> Callable[[Handler], Handler]:
        """Declare a route that commits; ``errors`` are those it has beside ``EDIT``."""
        told = {"answers": Committed, "also": MINIMAL, "state": True, "writes": True, **more}
        return self(method, path, verb, errors=(*EDIT, *errors), **told)

    def _schema(self, kind: Any) -> dict[str, Any]:
        """The schema of a type, as a reference where it has a name."""
        if isinstance(kind, dict):
            return kind
        inner = getattr(kind, "__args__", (None,))[0]
        if getattr(kind, "__origin__", None) is list:
            return {"type": "array", "items": self._schema(inner)}
        sent = form_of(kind)
        self.types.add(sent)
        return {"$ref": _REFERENCE + named(sent.__name__)}


def named(name: str) -> str:
    """The name a type has in OpenAPI."""
    return _NAMED.get(name) or name.removesuffix("Form") or name


def _beginning(described: str) -> str:
    """The beginning of a description, up to the first stop of any kind."""
    return re.split(r"[.:;](?:\s|$)", described, maxsplit=1)[0]


def show(document: dict[str, Any], shown: Iterable[Shown]) -> None:
    """Put the examples in. FastAPI would take out of them what is null, and null says something."""
    for one in shown:
        operation = document["paths"][one.path][one.method]
        for media, example in one.bodies.items():
            operation["requestBody"]["content"][media]["example"] = example
        for media, example in one.answers.items():
            operation["responses"][one.status]["content"][media]["example"] = example


def mend(document: dict[str, Any]) -> None:
    """Take out of the document what FastAPI says and is not so: that a parameter may be null, where it may be left out,
    and that one that is misread is a 422 of FastAPI's own.
    """
    for methods in document["paths"].values():
        for operation in methods.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
            for parameter in operation.get("parameters", ()):
                schema = parameter["schema"]
                forms = [form for form in schema.get("anyOf", ()) if form != {"type": "null"}]
                if len(forms) == 1:
                    del schema["anyOf"]
                    schema |= forms[0]


def link(document: dict[str, Any]) -> dict[str, Any]:
    """Link, in the document, what makes a session to all that can be done with it.

    Returns:
        The links themselves, for the components.
    """
    links: dict[str, Any] = {}
    making = []
    for path, methods in document["paths"].items():
        for operation in methods.values():
            name = operation["operationId"]
            if "{session}" in path:
                wanted = {"path.session": "$response.body#/id"}
                if any(parameter["name"] == "If-Match" for parameter in operation["parameters"]):
                    wanted["header.If-Match"] = "$response.header.ETag"
                links[name] = {"operationId": name, "parameters": wanted}
            if "ETag" in operation["responses"].get("201", {}).get("headers", {}):
                making.append(operation["responses"]["201"])
    for answer in making:
        answer["links"] = {name: {"$ref": _LINK + name} for name in links}
    return links


def failures(codes: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """The responses of errors, by status: which codes, with an example of each."""
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(problems.STATUSES[code], []).append(code)
    return {
        status: {
            "description": " or ".join(f"`{code}`" for code in found),
            "headers": {name: {"schema": {"type": kind}} for name, kind in _FAILURE_HEADERS.get(status, {}).items()},
            "content": {
                problems.MEDIA_TYPE: {
                    "schema": {"$ref": f"{_REFERENCE}Problem"},
                    "examples": {code: {"$ref": _EXAMPLE + code} for code in found},
                }
            },
        }
        for status, found in sorted(by_status.items())
    }


def components(kinds: Iterable[Any]) -> dict[str, Any]:
    """The schemas of types, under the names they have in OpenAPI."""
    # A type that names another refers to it by its own name; both are told by the name without ``Form``.
    _, schemas = msgspec.json.schema_components(
        sorted(kinds, key=lambda kind: str(kind.__name__)), ref_template=_REFERENCE + "{name}"
    )
    renamed = {named(name): schema for name, schema in schemas.items()}
    text = msgspec.json.encode(renamed).decode()
    for name in schemas:
        text = text.replace(f'"{_REFERENCE}{name}"', f'"{_REFERENCE}{named(name)}"')
    for schema in (decoded := msgspec.json.decode(text)).values():
        if "title" in schema:
            schema["title"] = named(schema["title"])
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].replace("``", "`").split())
    return dict(decoded)
