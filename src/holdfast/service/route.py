"""A FastAPI route that reads its parameters by a plan made once.

FastAPI works out anew at each request what each parameter is and where it comes from; for a session of 20 items
that was a third of all the time a read took. The signature, the validation of each value and the document are
FastAPI's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import request_response

from holdfast.errors import InvalidRequestError

_SAYS_BODY = frozenset({b"content-length", b"transfer-encoding"})


class Read(NamedTuple):
    """How one parameter is read: the argument it becomes, its name in the request, and what makes a value of it."""

    argument: str
    name: str
    where: str
    validate: Callable[..., tuple[Any, Any]]
    required: bool


class Route(APIRoute):
    """Serves an endpoint whose arguments are the request, the principal, and path, query and header parameters."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **declared: Any) -> None:
        super().__init__(path, endpoint, **declared)
        self.app = request_response(self._handler())

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

        async def handle(request: Request) -> Response:
            given: dict[str, Any] = {}
            if request_name is not None:
                given[request_name] = request
            if who is not None:
                given[who.name or ""] = await who.call(request)  # type: ignore[misc]
            if not takes_body:
                _refuse_body(request)
            if path:
                _take(path, request.scope["path_params"], given)
            if query and (request.scope["query_string"] or any(one.required for one in query)):
                _take(query, request.query_params, given)
            if header:
                _take(header, request.headers, given)
            response: Response = await endpoint(**given)
            return response

        return handle


def _refuse_body(request: Request) -> None:
    """Raise for a body where none is taken: whoever sends one means something by it."""
    for name, value in request.scope["headers"]:
        if name in _SAYS_BODY and value != b"0":
            raise InvalidRequestError("this route takes no body", "body")


def _read(field: Any, where: str) -> Read:
    return Read(field.name, field.alias, where, field.validate, field.field_info.is_required())


def _take(reads: tuple[Read, ...], found: Mapping[str, Any], given: dict[str, Any]) -> None:
    """Put what is there among the arguments; what is not there is left to the endpoint's own default.

    Raises:
        RequestValidationError: one is missing, or of no value that is allowed.
    """
    for argument, name, where, validate, required in reads:
        raw = found.get(name)
        if raw is None:
            if required:
                raise RequestValidationError([{"loc": (where, name), "msg": "it is wanted", "type": "missing"}])
            continue
        value, errors = validate(raw, given, loc=(where, name))
        if errors:
            raise RequestValidationError(errors)
        given[argument] = value
