"""The ASGI application: the routes, the one middleware, and the engine for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response

from holdfast.compose import is_remote, kinds, open_engine
from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError, InvalidRequestError, RouteNotFoundError
from holdfast.ports.observer import Observers
from holdfast.service import answers, problems, routing
from holdfast.service.auth.authenticator import authenticator
from holdfast.service.edge import Edge
from holdfast.service.logs import Logs
from holdfast.service.meters import Meters
from holdfast.service.rates import Rates
from holdfast.service.router import Router
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
stable `code`. A lost connection means *unknown*: send the same request again under the same change id.

`HEAD` is answered wherever `GET` is. A body on a route that takes none is refused."""


_ITSELF = {"openapi": "3.1.0", "info": {"title": "Holdfast", "version": problems.version()}, "paths": {}}


def create_app(settings: Settings, **engine: Any) -> FastAPI:
    """The routes; their lifespan opens the engine that settings describe.

    What is served is ``application``: without the edge there are no bounds on bodies, no request ids, no security
    headers and no guard of local mode.

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
            asked = authenticator(settings, opened, observer=observers)
            await asked.open()
            meters.attach(opened)
            service.open(opened, asked)
            asking = asyncio.create_task(_ask_cold(opened, service), name="holdfast-cold")
            try:
                yield
            finally:
                service.stopping.set()
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                await asked.close()

    app = FastAPI(
        title="Holdfast",
        version=problems.version(),
        description=_ABOUT,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            HoldfastError: _refused,
            RequestValidationError: _misread,
            HTTPException: _unknown,
        },
    )
    app.router = Router(lifespan=lifespan)
    # FastAPI's stack has three layers more: for errors nobody has foreseen and the bound on bodies, which the edge sees
    # to, and for telemetry. They took a twentieth of a read.
    app.middleware_stack = ExceptionMiddleware(AsyncExitStackMiddleware(app.router), app.exception_handlers)
    app.state.service = service
    declared = [module.routes for module in GROUPS] + [operations.routes_of(kinds().values()), _document(app)]
    for routes in declared:
        app.router.routes.extend(routes.router.routes)  # one flat list: an included router is matched twice
    page.mount(app)
    app.openapi = lambda: _described(app, declared)  # type: ignore[method-assign]
    return app


class Application(Edge):
    """The routes within their edge, as any ASGI server may run them; made by ``application``.

    Attributes:
        routes: the FastAPI application; nobody serves it as it is.
        service: what the routes share, ``service.stopping`` among it.
    """

    def __init__(self, routes: FastAPI) -> None:
        self.routes = routes
        self.service: Service = routes.state.service
        super().__init__(routes, self.service)

    def lifespan(self) -> contextlib.AbstractAsyncContextManager[object]:
        """What a server that speaks ASGI's lifespan protocol enters by itself: the engine is open within it."""
        return self.routes.router.lifespan_context(self.routes)


def application(settings: Settings, **engine: Any) -> Application:
    """What a server runs: ``holdfast serve``, or another one that somebody embeds it in.

    It writes lines of its own and counts in either; what libraries log becomes such lines under ``holdfast serve``
    alone, as elsewhere that is the host's business.

    Args and Raises: as ``create_app``.
    """
    return Application(create_app(settings, **engine))


def _document(app: FastAPI) -> Routes:
    routes = Routes("health", prefix="")

    @routes("GET", "/openapi.json", "whoami", answers={"type": "object"}, shows=_ITSELF, errors=EVERY)
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
        for routes in declared:
            routing.show(document, routes.shown)
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


async def _ask_cold(engine: Engine, service: Service) -> None:
    """Ask the cold tier once, as nothing else may for days, and say if it cannot be used as it is set.

    Nobody waits for it: without it only archives, sources and bundles cannot be had.
    """
    if not is_remote(service.settings.cold_url):
        return
    try:
        reason = (await engine.answering.troubles()).get("cold")
    except Exception as error:
        reason = type(error).__name__
    if reason is not None:
        service.logs.event("cold_failed", "warning", reason=reason)


async def _refused(request: Request, error: Exception) -> Response:
    return problems.problem(error, request.scope.get("holdfast.request"))


async def _misread(request: Request, error: Exception) -> Response:
    found = error.errors()[0] if isinstance(error, RequestValidationError) and error.errors() else {}
    where = " ".join(str(part) for part in found.get("loc", ())) or None
    return await _refused(request, InvalidRequestError(str(found.get("msg", "it cannot be read")), where))


async def _unknown(request: Request, error: Exception) -> Response:
    allowed = (error.headers or {}).get("Allow") if isinstance(error, HTTPException) else None
    unknown = RouteNotFoundError(request.method, request.url.path, (allowed or "").replace(",", " ").split())
    response = problems.problem(unknown, request.scope.get("holdfast.request"), status=404 if allowed is None else 405)
    if allowed is not None:
        response.headers["allow"] = allowed
    return response
