"""The service and a bare FastAPI application on one server: the process that the HTTP rows ask.

``python -m holdfast.bench.server HOME`` serves until its standard input ends, and prints its port once it answers. Both
applications have the same server, the same event loop and the same settings of it; which one a request is for, its path
says. The bare one has a route for each row: it answers with bytes that it was given before, and does nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.service.app import application
from holdfast.service.server import Address, listen, room_for, run
from holdfast.settings import Settings
from holdfast.settings.sections import Service

BARE = "/bare"
JSON = "application/json"
UNBOUNDED = 10_000_000


def bare() -> FastAPI:
    """The floor. It knows nobody, keeps nothing and reads no JSON."""
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, telemetry={"tracing": False, "metrics": False, "logs": False}
    )
    kept: dict[str, bytes] = {}

    @app.get(f"{BARE}/read")
    async def read() -> Response:
        return Response(kept["read"], media_type=JSON)

    @app.patch(f"{BARE}/edit")
    async def edit(request: Request) -> Response:
        await request.body()
        return Response(kept["edit"], media_type=JSON)

    @app.put(BARE + "/{row}")
    async def keep(row: str, request: Request) -> Response:
        """What the route of this row answers from now on."""
        kept[row] = await request.body()
        return Response()

    return app


def either(ours: ASGIApp, floor: ASGIApp) -> ASGIApp:
    """Both as one application."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (floor if scope["path"].startswith(BARE) else ours)(scope, receive, send)

    return app


async def serve(home: Path) -> None:
    """Serve a home as ``holdfast serve`` does in local mode, but without a bound on the rate, and the floor beside."""
    settings = Settings(home=home, service=Service(port=0, rate=UNBOUNDED, burst=UNBOUNDED, log="warning"))
    bounds = msgspec.structs.replace(settings.service, connections=room_for(settings.service.connections))
    app = application(settings)
    service = app.service
    loop, given = asyncio.get_running_loop(), sys.stdin.fileno()

    def left() -> None:
        loop.remove_reader(given)
        service.stopping.set()

    def ready(address: Address) -> None:
        print(address.port, flush=True)  # noqa: T201 - to the process that started this one

    both = either(app, bare())
    with contextlib.closing(await listen(settings)) as listener, service.logs.adopting():
        loop.add_reader(given, left)  # nothing is sent: there is something to read when it ends
        await run(both, app.lifespan(), bounds, listener, stopping=service.stopping, ready=ready)


def main() -> None:
    """Serve on uvloop where there is one, as ``holdfast serve`` does."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        from uvloop import new_event_loop as factory
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
