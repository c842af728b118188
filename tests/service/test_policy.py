"""Every route names its policy, and none is open that is not meant to be (S01, S25).

A route that is new fails here until it says which verb it is allowed by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
from starlette.responses import Response

from holdfast.model.access import SERVICE_VERBS, VERBS, Principal
from holdfast.service import problems
from holdfast.service.app import create_app
from holdfast.service.routing import OPEN
from holdfast.settings import Settings
from holdfast.testing.document import Operation, operations
from holdfast.testing.front import ADMIN, AUDITOR, Front

OF_ANYBODY = {"create", "ingest", "find", "search", "whoami"}
"""Verbs that need a principal and no role."""

VERBS_OF_ROUTES = VERBS.keys() | SERVICE_VERBS.keys() | OF_ANYBODY | {"metrics", OPEN}

OPEN_OPERATIONS = {"live", "ready"}
"""What a stranger may ask; whoever adds to it says why it tells nothing of anybody's work."""


def unguarded(document: Mapping[str, Any]) -> list[str]:
    """What is wrong with the policies of a document's operations: the walk that a new route has to pass (S01)."""
    found = []
    for operation in operations(document):
        where = f"{operation.method} {operation.path}"
        if operation.verb not in VERBS_OF_ROUTES:
            found.append(f"{where} has no policy that is known: {operation.verb}")
        elif operation.verb == OPEN:
            if operation.name not in OPEN_OPERATIONS or "security" in operation.said:
                found.append(f"{where} is open, and that is not foreseen")
        elif operation.said.get("security") != [{"bearer": []}]:
            found.append(f"{where} names no token")
        if operation.of_session and operation.verb not in VERBS:
            found.append(f"{where} is of one session, and {operation.verb} is not")
    return found


def test_every_operation_names_its_policy(document: dict[str, Any]) -> None:
    assert unguarded(document) == []


@pytest.mark.parametrize(
    "extra", [{}, {"x-holdfast-verb": "whatever"}, {"x-holdfast-verb": OPEN}, {"x-holdfast-verb": "sweep"}]
)
def test_the_walk_catches_a_route_without_a_policy(settings: Settings, extra: dict[str, Any]) -> None:
    app = create_app(settings)

    async def leak(session: str) -> Response:
        """Somebody forgot."""
        return Response(session)

    app.add_api_route(
        "/v1/sessions/{session}/leak",
        leak,
        methods=["GET"],
        response_model=None,
        operation_id="leak",
        openapi_extra=extra,
    )
    app.openapi_schema = None
    assert [said for said in unguarded(app.openapi()) if "/leak" in said]


def test_every_verb_of_a_session_has_its_route(told: list[Operation]) -> None:
    assert {operation.verb for operation in told if operation.of_session} == VERBS.keys()
    assert {operation.verb for operation in told} >= SERVICE_VERBS.keys() - {"repair"}  # a parameter of verify


async def test_nothing_is_told_without_a_token(front: Front, nobody: httpx2.AsyncClient) -> None:
    """S01: no token, one that is garbage, a wrong scheme: all are told the same, whatever else is wrong as well."""
    asked = 0
    for operation in operations(front.document):
        if operation.verb == OPEN:
            continue
        asked += 1
        for target in (operation.ask().url, operation.path):
            alike = set()
            for given in (None, "Bearer garbage", "Bearer a.b.c", "Basic YTpi", "Bearer"):
                headers = {"x-request-id": "one", **({} if given is None else {"authorization": given})}
                answer = await nobody.request(operation.method, target, headers=headers, content=b"{")
                assert answer.status_code == 401, (operation.name, given, answer.text)
                assert answer.headers["www-authenticate"].startswith("Bearer ")
                assert answer.headers["content-type"] == problems.MEDIA_TYPE
                body = answer.json()
                assert body["code"] == "unauthenticated"
                sent = given is not None and given.startswith("Bearer ")
                alike.add((sent, answer.content))
            assert len(alike) == 2, (operation.name, alike)
    assert asked > 60


async def test_what_is_open_answers_a_stranger(front: Front, nobody: httpx2.AsyncClient) -> None:
    for operation in operations(front.document):
        if operation.verb == OPEN:
            answer = await nobody.request(operation.method, operation.path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json", "/health", "/v1/kinds"])
async def test_figures_and_document_are_closed_without_a_token(nobody: httpx2.AsyncClient, path: str) -> None:
    """S25."""
    assert (await nobody.get(path)).status_code == 401


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/docs/oauth2-redirect", "/v1/openapi.json", "/v1", "/page/", "/.git"]
)
async def test_there_is_no_other_page(ana: httpx2.AsyncClient, path: str) -> None:
    """S25: FastAPI's own pages, which load scripts from elsewhere, are not there for anybody."""
    answer = await ana.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "route-not-found")


async def test_trace_is_refused(ana: httpx2.AsyncClient) -> None:
    """S25: whoever made a browser send it could read its own headers back."""
    for path in ("/v1/whoami", "/health/live", "/nowhere"):
        assert (await ana.request("TRACE", path)).status_code in (404, 405)


async def test_figures_are_for_operators(front: Front, ana: httpx2.AsyncClient) -> None:
    """They tell of every tenant."""
    for who in (await front.client(AUDITOR), await front.client(Principal("ada", roles=frozenset({"admin"}))), ana):
        assert (await who.get("/metrics")).json()["code"] == "permission-denied"
    assert (await (await front.client(ADMIN)).get("/metrics")).status_code == 200


async def test_a_method_that_is_not_there_is_refused_with_those_that_are(front: Front, ana: httpx2.AsyncClient) -> None:
    by_path: dict[str, set[str]] = {}
    for operation in operations(front.document):
        by_path.setdefault(operation.ask().url.partition("?")[0], set()).add(operation.method)
    for path, methods in by_path.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - methods:
            answer = await ana.request(method, path)
            assert answer.status_code == answer.json()["status"] == 405, (method, path)
            allowed = methods | {"HEAD"} if "GET" in methods else methods
            assert set(answer.headers["allow"].replace(",", " ").split()) == allowed, (method, path)


async def test_the_document_is_the_one_that_is_sent(front: Front, ana: httpx2.AsyncClient) -> None:
    answer = await ana.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == front.document
