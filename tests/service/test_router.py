"""The way from a path to its route: the one Starlette would take, without its redirects.

S25 (nobody is sent to where a request says that this service is).
"""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.routing import Router as StarletteRouter
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.service.app import create_app
from holdfast.service.router import Router
from holdfast.settings import Settings
from holdfast.testing.front import ANA, Front

METHODS = ("GET", "GET", "GET", "POST", "POST", "PUT", "PATCH", "DELETE", "TRACE")


class End:
    """Where every route ends: an application that answers nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass


def routes_like(app: FastAPI) -> list[Route]:
    """Routes with the paths and methods of the service's."""
    declared = [route for route in app.routes if isinstance(route, Route)]
    assert len(declared) == len(app.routes) > 60
    return [Route(one.path, End(), methods=sorted(one.methods or ()), name=str(no)) for no, one in enumerate(declared)]


def led(router: ASGIApp, path: str, method: str, root: str = "") -> Any:
    """Where a request is led: the route's number and the parameters, or the status it is refused with."""
    scope: Scope = {"type": "http", "path": path, "root_path": root, "method": method, "headers": [], "app": None}

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nobody listens")

    try:
        assert list(router(scope, nothing, nothing).__await__()) == []  # it waits for nothing
    except HTTPException as refused:
        return refused.status_code
    return scope["route"].name, scope["path_params"]


@pytest.fixture(scope="module")
def both(app: FastAPI) -> tuple[Router, StarletteRouter]:
    """Our router and Starlette's, with the routes of the service."""
    routes = routes_like(app)
    return Router(routes=routes), StarletteRouter(routes, redirect_slashes=False)


def paths(both: tuple[Router, StarletteRouter]) -> st.SearchStrategy[str]:
    """Paths of routes with anything for parameters, and such paths with a segment more, less or other."""
    declared = sorted({route.path for route in both[0].routes if isinstance(route, Route)})
    words = sorted({segment for path in declared for segment in path.split("/") if "{" not in segment})
    anything = st.sampled_from([*words, "a", "", ".", "..", "é", "a b", "%2F", "{session}"]) | st.text(
        "ab/{}:. ", max_size=4
    )

    @st.composite
    def path(draw: st.DrawFn) -> str:
        segments = [draw(anything) if "{" in one else one for one in draw(st.sampled_from(declared)).split("/")]
        at = draw(st.integers(0, len(segments) - 1))
        change = draw(st.sampled_from(["none", "none", "more", "less", "other", "slash"]))
        if change == "more":
            segments.insert(at + 1, draw(anything))
        elif change == "less" and len(segments) > 2:
            del segments[max(1, at)]
        elif change == "other":
            segments[at] = draw(anything)
        elif change == "slash":
            segments.append("")
        return "/".join(segments)

    return path()


def test_a_path_leads_where_starlette_would_lead_it(both: tuple[Router, StarletteRouter]) -> None:
    found: dict[Any, int] = {}

    @example_settings(max_examples=1_500, deadline=None, database=None)
    @given(path=paths(both), method=st.sampled_from(METHODS), root=st.sampled_from(["", "", "", "/v1", "/below"]))
    @example("/v1/sessions/s/labels/a/b", "PUT", "")
    @example("/v1/sessions/s/labels/", "PUT", "")
    @example("/v1/sessions//header", "GET", "")
    @example("v1/whoami", "GET", "")
    @example("*", "OPTIONS", "")
    @example("", "GET", "")
    def same(path: str, method: str, root: str) -> None:
        path = f"{root}{path}" if root == "/below" else path
        ours, theirs = led(both[0], path, method, root), led(both[1], path, method, root)
        assert ours == theirs, (path, method)
        kind = theirs if isinstance(theirs, int) else "found"
        found[kind] = found.get(kind, 0) + 1

    same()
    assert {"found", 404, 405} <= found.keys()
    assert found["found"] > 100


def test_each_route_of_the_service_is_found_by_its_own_path(both: tuple[Router, StarletteRouter]) -> None:
    for number, route in enumerate(both[0].routes):
        assert isinstance(route, Route)
        path, given_ = route.path, {name: f"some {name}" for name in route.param_convertors}
        for name, value in given_.items():
            path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
        for method in route.methods or ():
            assert led(both[0], path, method) == (str(number), given_)


def test_of_two_routes_that_fit_the_first_counts() -> None:
    named = Route("/a/{name}", End(), methods=["GET"], name="named")
    fixed = Route("/a/b", End(), methods=["GET"], name="fixed")
    assert led(Router(routes=[named, fixed]), "/a/b", "GET") == ("named", {"name": "b"})
    assert led(Router(routes=[fixed, named]), "/a/b", "GET") == ("fixed", {})
    alike = Route("/b/{name}", End(), methods=["GET"], name="alike")
    rest = Route("/a/{rest:path}", End(), methods=["GET"], name="rest")
    assert led(Router(routes=[alike, fixed, named]), "/a/b", "GET") == ("fixed", {})
    assert led(Router(routes=[alike, named, fixed]), "/a/b", "GET") == ("named", {"name": "b"})
    assert led(Router(routes=[rest, fixed, named]), "/a/b", "GET") == ("rest", {"rest": "b"})
    assert led(Router(routes=[named, rest]), "/a/b", "GET") == ("named", {"name": "b"})
    posted = Route("/a/{other:path}", End(), methods=["POST"], name="posted")
    router = Router(routes=[fixed, posted])
    assert led(router, "/a/b", "POST") == ("posted", {"other": "b"})
    assert led(router, "/a/b", "PUT") == 405


def test_a_line_break_at_the_end_is_part_of_the_path(both: tuple[Router, StarletteRouter]) -> None:
    """A pattern ends before it, and Starlette so takes one path for another."""
    assert led(both[0], "/v1/whoami\n", "GET") == 404
    assert led(both[0], "/v1/sessions/s/labels/a\n", "PUT")[1] == {"session": "s", "label": "a\n"}
    assert led(both[1], "/v1/whoami\n", "GET") != 404


async def test_a_route_that_comes_later_is_found_too(settings: Settings) -> None:
    app = create_app(settings)
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://it")
    async with client:
        assert (await client.get("/later")).status_code == 404

        async def later() -> Response:
            return Response(b"here")

        app.add_api_route("/later", later, response_model=None)
        assert (await client.get("/later")).text == "here"


@pytest.mark.parametrize("path", ["/a-{name}", "/{name:int}", "/{name:path}/b", "/{first}{second}"])
def test_a_route_whose_parameters_are_no_whole_segments_is_refused(path: str) -> None:
    with pytest.raises(TypeError, match="whole segment"):
        led(Router(routes=[Route(path, End(), methods=["GET"])]), "/", "GET")


@pytest.mark.parametrize("route", [Mount("/a", End()), Route("/a", End())], ids=["a mount", "any method"])
def test_what_is_no_route_of_certain_methods_is_refused(route: BaseRoute) -> None:
    with pytest.raises(TypeError, match="plain routes"):
        led(Router(routes=[route]), "/a", "GET")


async def test_s25_a_slash_at_the_end_is_another_path_and_redirects_nobody(front: Front) -> None:
    """Where to would be said by the ``Host`` of the request, which anybody can make up."""
    ana, (address, _) = await front.client(ANA), await front.make()
    for path in ("/v1/sessions/", "/v1/whoami/", "/health/live/", f"{address}/", f"{address}/items/", "//v1/whoami"):
        for method in ("GET", "POST", "HEAD"):
            answer = await ana.request(method, f"http://127.0.0.1:8420{path}", headers={"host": "evil.example"})
            assert answer.status_code == 404, (method, path)
            assert "location" not in answer.headers
            assert method == "HEAD" or answer.json()["code"] == "route-not-found"
