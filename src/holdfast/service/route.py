"""A FastAPI route that reads its parameters by a plan made once.

FastAPI works out anew at each request what each parameter is and where it comes from; for a session of 20 items
that was a third of all the time a read took. The signature, the validation of each value and the document are
FastAPI's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast.engine.gate import STALE
from holdfast.errors import InvalidRequestError

_READING = frozenset({"GET", "HEAD"})
_PRECONDITIONS = frozenset({b"if-match", b"if-none-match"})
_SHOWN = 64
_LISTS = frozenset({b"if-none-match", b"prefer"})
_SAYS_BODY = frozenset({b"content-length", b"transfer-encoding"})


class Read(NamedTuple):
    """How one parameter is read: the argument it becomes, its name in the request, and what makes a value of it.

    Attributes:
        key: the name as it is found by: of a header as it comes in, in lower case.
    """

    argument: str
    name: str
    where: str
    key: Any
    validate: Callable[..., tuple[Any, Any]]
    required: bool


class Route(APIRoute):
    """Serves an endpoint whose arguments are the request, the principal, and path, query and header parameters."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **declared: Any) -> None:
        super().__init__(path, endpoint, **declared)
        handle = self._handler()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            answer = await handle(Request(scope, receive, send))
            await answer(scope, receive, send)

        self.app = app  # FastAPI's own looks once more for the errors that the application around it deals with

    def _handler(self) -> Callable[[Request], Awaitable[Response]]:
        told = self.dependant
        if told.body_params or told.cookie_params or len(told.dependencies) > 1:
            raise TypeError(f"{self.path}: a route reads its own body, and depends on the principal alone")
        endpoint, request_name = self.endpoint, told.request_param_name
        takes_body = "requestBody" in (self.openapi_extra or {})
        who = told.dependencies[0] if told.dependencies else None
        if who is not None and (who.dependencies or who.call is None or who.request_param_name != "request"):
            raise TypeError(f"{self.path}: its one dependency takes the request alone")
        path, query, header = (
            tuple(_read(field, where) for field in fields)
            for where, fields in (
                ("path", told.path_params),
                ("query", told.query_params),
                ("header", told.header_params),
            )
        )
        wanted = frozenset(one.key for one in header)
        names = [one.name for one in query]
        refused = frozenset() if (self.methods or _READING) <= _READING else _PRECONDITIONS - wanted

        async def handle(request: Request) -> Response:
            given: dict[str, Any] = {}
            STALE.set(False)
            if request_name is not None:
                given[request_name] = request
            if who is not None:
                given[who.name or ""] = await who.call(request)  # type: ignore[misc]
            if not takes_body:
                _refuse_body(request)
            if path:
                _take(path, request.scope["path_params"], given)
            if request.scope["query_string"] or any(one.required for one in query):
                _take(query, _asked(request, names), given)
            if wanted or refused:
                _take(header, _said(request, wanted, refused), given)
            response: Response = await endpoint(**given)
            if STALE.get():
                response.headers["holdfast-stale"] = "true"
            return response

        return handle


def fields(request: Request, name: bytes) -> list[str]:
    """What the header fields of a name say, one after the other; the name is in lower case.

    Starlette's ``Headers`` would look at all of them for each name, and at what it was asked for first.
    """
    return [value.decode("latin-1") for given, value in request.scope["headers"] if given == name]


def _refuse_body(request: Request) -> None:
    """Raise for a body where none is taken: whoever sends one means something by it."""
    for name, value in request.scope["headers"]:
        if name in _SAYS_BODY and value != b"0":
            raise InvalidRequestError("this route takes no body", "body")


def _read(field: Any, where: str) -> Read:
    key = field.alias.lower().encode() if where == "header" else field.alias
    return Read(field.name, field.alias, where, key, field.validate, field.field_info.is_required())


def _asked(request: Request, names: Sequence[str]) -> dict[str, str]:
    """The query parameters.

    Raises:
        InvalidRequestError: one is not known here, such as ``fense``, or is there twice.
    """
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names:
            there = f"there are: {', '.join(names)}" if names else "there is none here"
            raise InvalidRequestError(f"there is no such parameter; {there}", f"query: {name[:_SHOWN]}")
        if name in found:
            raise InvalidRequestError("it is given twice", f"query: {name}")
        found[name] = value
    return found


def _said(request: Request, wanted: frozenset[bytes], refused: frozenset[bytes]) -> dict[bytes, str]:
    """What the header fields of some names say.

    Raises:
        InvalidRequestError: one is there that names a condition which would not be kept; or one is there twice and is
            no list (RFC 9110, 5.3): which one counts, a proxy may see otherwise than this service.
    """
    found: dict[bytes, str] = {}
    for name, value in request.scope["headers"]:
        if name in refused:
            raise InvalidRequestError("this route heeds no such condition", name.decode("latin-1"))
        if name in wanted:
            text = value.decode("latin-1")
            if name in found:
                if name not in _LISTS:
                    raise InvalidRequestError("it is given twice", name.decode("latin-1"))
                text = f"{found[name]}, {text}"
            found[name] = text
    return found


def _take(reads: tuple[Read, ...], found: Mapping[Any, Any], given: dict[str, Any]) -> None:
    """Put what is there among the arguments; what is not there is left to the endpoint's own default.

    Raises:
        RequestValidationError: one is missing, or of no value that is allowed.
    """
    for argument, name, where, key, validate, required in reads:
        raw = found.get(key)
        if raw is None:
            if required:
                raise RequestValidationError([{"loc": (where, name), "msg": "it is wanted", "type": "missing"}])
            continue
        value, errors = validate(raw, given, loc=(where, name))
        if errors:
            raise RequestValidationError(errors)
        given[argument] = value
