"""``holdfast serve``: the HTTP service, until it is told to stop."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

from holdfast.cli.call import Call, command
from holdfast.cli.output import as_json, note, say, styled

if TYPE_CHECKING:
    from holdfast.service.server import Address
    from holdfast.settings import Settings

EXTRA = "server"


async def serve(
    call: Call,
    host: Annotated[
        str | None, typer.Option("--host", metavar="HOST", help="The address to listen on, instead of the setting.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="PORT", help="The port, instead of the setting; 0 takes a free one."),
    ] = None,
) -> None:
    """Serve over HTTP what the other commands do, until told to stop.

    Without an issuer it is for this machine alone: it listens on a loopback address, makes a token, and prints an
    address that opens with it. What it logs goes to standard error. The first signal stops it within seconds, with
    requests under way brought to their end; a second one ends it at once, and loses nothing that was acknowledged.
    """
    if port is not None and not 0 <= port <= 65_535:
        raise typer.BadParameter(f"{port} is no port: there are 0 to 65535.")
    run = _server()
    if os.environ.get("HOLDFAST_URL"):
        note("HOLDFAST_URL is not heeded here: this serves the home of this machine.")
    settings = call.settings()
    service = settings.service
    service = replace(service, host=service.host if host is None else host, port=service.port if port is None else port)
    settings = replace(settings, service=service)

    def ready(address: Address) -> None:
        if call.json:
            mode = "issuer" if settings.auth.issuer else "local"
            print(as_json({"address": address.url, "pid": os.getpid(), "mode": mode}), flush=True)
        else:
            _tell(address, settings)

    await run(settings, ready=ready)


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app, engine=False, runner=_run)(serve)


def _server() -> Callable[..., Coroutine[Any, Any, None]]:
    """What serves; it needs packages that only a service needs.

    Raises:
        MissingExtraError: they are not all there.
    """
    from holdfast.errors import MissingExtraError

    try:
        from holdfast.service.server import serve as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "holdfast":
            raise
        raise MissingExtraError(error.name, EXTRA) from None
    return run


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it on uvloop, where there is one: it is the faster loop for many connections."""
    import asyncio

    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        from uvloop import new_event_loop as factory
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


def _tell(address: Address, settings: Settings) -> None:
    """Where it is, and in local mode how to speak to it."""
    lines = [f"{styled('Holdfast is at', 'bold')} {address.url} (Ctrl-C stops it)"]
    if settings.auth.issuer is None:
        from holdfast.service.auth.local import NAME, local_token

        token = shlex.quote(str((settings.home / NAME).absolute()))
        lines += [
            "",
            f"  open   {address.url}/#token={local_token(settings.home)}",
            f"  shell  export HOLDFAST_URL={address.url} HOLDFAST_TOKEN=$(cat {token})",
            "         holdfast sessions list",
            '         curl -H "Authorization: Bearer $HOLDFAST_TOKEN" $HOLDFAST_URL/v1/sessions',
            "",
        ]
    say("\n".join(lines))
    print(end="", flush=True)
