"""A route's own reading of its parameters, beside FastAPI's of the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.responses import Response

from holdfast.errors import InvalidRequestError
from holdfast.service.route import Route, fields

ASKED: dict[str, tuple[str, list[tuple[bytes, bytes]]]] = {
    "nothing": ("/rooms/tide", []),
    "all": ("/rooms/tide?count=3", [(b"If-Match", b'"7"'), (b"x-number", b"4")]),
    "a header that nobody declared": ("/rooms/tide", [(b"x-other", b"1"), (b"if-match-not", b"2")]),
    "a header of no letters": ("/rooms/tide", [(b"if-match", b"\xe9\xff")]),
    "an empty header": ("/rooms/tide", [(b"if-match", b"")]),
    "a number that is none": ("/rooms/tide", [(b"x-number", b"four")]),
    "too long a header": ("/rooms/tide", [(b"if-match", b"x" * 11)]),
}


def app_of(route: type[APIRoute]) -> FastAPI:
    """The same endpoints behind one kind of route."""
    telemetry: Any = {"tracing": False, "metrics": False, "logs": False}
    app = FastAPI(openapi_url=None, telemetry=telemetry)
    router = APIRouter(route_class=route)

    @router.get("/rooms/{name}")
    async def room(
        request: Request,
        name: str,
        count: Annotated[int, Query()] = 1,
        if_match: Annotated[str | None, Header(alias="If-Match", max_length=10)] = None,
        number: Annotated[int | None, Header(alias="X-Number")] = None,
    ) -> Response:
        return JSONResponse([name, count, if_match, number, fields(request, b"if-match")])

    @router.get("/prefers")
    async def prefers(prefer: Annotated[str | None, Header()] = None) -> Response:
        return JSONResponse(prefer)

    @router.get("/fails")
    async def fails() -> Response:
        raise KeyError("tide")

    @app.exception_handler(KeyError)
    async def known(request: Request, error: Exception) -> Response:
        return Response(f"{request.url.path} {error.args[0]}", 418)

    @app.exception_handler(InvalidRequestError)
    async def refused(request: Request, error: InvalidRequestError) -> Response:
        return Response(str(error), 400)

    app.router.routes.extend(router.routes)  # as the service has them: an included router makes its own of them
    return app


@pytest.fixture
def asked() -> Callable[..., Any]:
    async def ask(route: type[APIRoute], path: str, sent: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
        transport = httpx2.ASGITransport(app=app_of(route))
        async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
            answer = await client.get(path, headers=sent)
            return answer.status_code, answer.content

    return ask


@pytest.mark.parametrize("what", ASKED)
async def test_parameters_are_read_as_fastapi_reads_them(asked: Callable[..., Any], what: str) -> None:
    path, sent = ASKED[what]
    status, body = await asked(Route, path, sent)
    assert (status, body) == await asked(APIRoute, path, sent)
    assert status == (422 if what in ("a number that is none", "too long a header") else 200)


async def test_a_header_sent_twice_is_refused_and_a_list_is_put_together(asked: Callable[..., Any]) -> None:
    """RFC 9110, 5.3: only what is defined as a list may come in parts."""
    twice = [(b"if-match", b'"7"'), (b"IF-MATCH", b'"8"')]
    status, body = await asked(Route, "/rooms/tide", twice)
    assert status == 400
    assert b"if-match" in body
    assert (await asked(APIRoute, "/rooms/tide", twice))[0] == 200  # what FastAPI makes of it
    parts = [(b"prefer", b"return=minimal"), (b"Prefer", b"wait=1")]
    assert (await asked(Route, "/prefers", parts)) == (200, b'"return=minimal, wait=1"')


async def test_what_a_route_raises_is_for_the_application_around_it(asked: Callable[..., Any]) -> None:
    assert await asked(Route, "/fails", []) == (418, b"/fails tide")
