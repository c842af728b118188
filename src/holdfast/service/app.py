"""The ASGI application: the routes, the one middleware, and the engine for as long as it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp

from holdfast.compose import kinds, open_engine
from holdfast.errors import HoldfastError, InvalidRequestError, RouteNotFoundError
from holdfast.ports.observer import Observers
from holdfast.service import answers, problems, routing
from holdfast.service.auth.authenticator import authenticator
from holdfast.service.edge import Edge
from holdfast.service.logs import Logs
from holdfast.service.meters import Meters
from holdfast.service.rates import Rates
from holdfast.service.routes import (
    administration,
    feed,
    health,
    history,
    items,
    keeping,
    operations,
    page,
    publishing,
    sessions,
    sharing,
    sources,
)
from holdfast.service.routing import EVERY, Routes
from holdfast.service.service import Service, Who
from holdfast.settings import Settings

GROUPS = (sessions, items, history, publishing, feed, sharing, keeping, sources, administration, health)
"""One module a group of routes, in the order of the document; the kinds' operations come with them."""

_ABOUT = """Working sessions: drafts that people and agents edit, preview, lock, and publish in one step or throw away.

Every request names who asks (`Authorization: Bearer`). A write names the state its author saw (`If-Match`) and, so
that it can be sent again without a second effect, a change id (`Idempotency-Key`). Errors are RFC 9457 problems with a
stable `code`. A lost connection means *unknown*: send the same request again under the same change id."""


def create_app(settings: Settings, **engine: Any) -> FastAPI:
    """The application; its lifespan opens the engine that settings describe.

    Args:
        engine: more for ``open_engine``: a clock, chance, or something around the stores.
    Raises:
        ConfigurationError: the settings cannot be.
    """
    meters = Meters()
    config = settings.service
    rates = Rates(config.rate, config.burst, config.streams, time.monotonic)
    service = Service(settings, meters, Logs(config.log), rates)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        observers = Observers(service.logs, meters)
        async with open_engine(settings, sweeping=True, observer=observers, **engine) as opened:
            asked = authenticator(settings, opened)
            await asked.open()
            meters.attach(opened)
            service.open(opened, asked)
            try:
                yield
            finally:
                service.stopping.set()
                await asked.close()

    app = FastAPI(
        title="Holdfast",
        version=problems.version(),
        description=_ABOUT,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False},
        exception_handlers={
            HoldfastError: _refused,
            RequestValidationError: _misread,
            HTTPException: _unknown,
        },
    )
    app.state.service = service
    declared = [module.routes for module in GROUPS] + [operations.routes_of(kinds().values()), _document(app)]
    for routes in declared:
        app.router.routes.extend(routes.router.routes)  # one flat list: an included router is matched twice
    page.mount(app)
    app.openapi = lambda: _described(app, declared)  # type: ignore[method-assign]
    return app


def application(settings: Settings, **engine: Any) -> ASGIApp:
    """The application within its edge: what a server runs."""
    app = create_app(settings, **engine)
    return Edge(app, app.state.service)


def _document(app: FastAPI) -> Routes:
    routes = Routes("health", prefix="")

    @routes("GET", "/openapi.json", "whoami", answers={"type": "object"}, errors=EVERY)
    async def openapi(who: Who) -> Response:
        """This document."""
        return answers.answer(app.openapi())

    return routes


def _described(app: FastAPI, declared: list[Routes]) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, servers=[{"url": "/"}]
        )
        routing.mend(document)
        types = set().union(*(routes.types for routes in declared))
        schemas = routing.components(types) | {"Problem": dict(problems.SCHEMA)}
        document["components"] = {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "examples": {code: {"value": problems.example(code)} for code in problems.STATUSES},
            "links": routing.link(document),
        }
        app.openapi_schema = document
    return app.openapi_schema


async def _refused(request: Request, error: Exception) -> Response:
    return problems.problem(error, request.scope.get("holdfast.request"))


async def _misread(request: Request, error: Exception) -> Response:
    found = error.errors()[0] if isinstance(error, RequestValidationError) and error.errors() else {}
    where = " ".join(str(part) for part in found.get("loc", ())) or None
    return await _refused(request, InvalidRequestError(str(found.get("msg", "it cannot be read")), where))


async def _unknown(request: Request, error: Exception) -> Response:
    status = 405 if isinstance(error, HTTPException) and error.status_code == 405 else 404
    unknown = RouteNotFoundError(request.method, request.url.path)
    response = problems.problem(unknown, request.scope.get("holdfast.request"), status=status)
    if status == 405:
        response.headers["allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """The methods of an address; its methods are routes of their own, and the router names those of the first alone."""
    found = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in found for method in route.methods or ()}
