"""The server: one process, one listening socket, and a stop in which nothing acknowledged is lost.

uvicorn parses HTTP and speaks ASGI (``protocol.Guarded``); binding, starting and stopping are done here, so that what
is wrong is told as an error of ours, and so that the end takes no longer than it may.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate

import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from holdfast.errors import ConfigurationError, ServiceError
from holdfast.service.app import application
from holdfast.service.auth.local import check_loopback
from holdfast.service.protocol import SPARE, Guarded, protocol
from holdfast.settings import Settings
from holdfast.settings.sections import Service

BACKLOG = 2_048
"""Connections that may wait to be accepted."""
OWN_FILES = 256
"""Files that are left to the stores, out of those the system lets the process open."""
CUT_SECONDS = 0.5
"""How long a request that was cut may take to notice it."""
CLOSE_SECONDS = 1.0
"""How much longer than ``service.stop_seconds`` the whole stop may take: with the default, five seconds in all."""
ECHO_SECONDS = 0.3
"""A signal that follows the first so soon is the same one: a terminal and a parent process may both send it."""

_POLL = 0.02
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_log = logging.getLogger("holdfast.server")


class Address(msgspec.Struct, frozen=True):
    """Where the service listens; ``host`` is an IP address, ``port`` the real one."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


async def serve(settings: Settings, *, ready: Callable[[Address], None]) -> None:
    """Serve until SIGINT or SIGTERM, or until somebody sets ``app.state.service.stopping``.

    A second signal ends the process at once. Where this does not run in the main thread, signals are left alone.

    Args:
        ready: called once, when requests are answered.
    Raises:
        ConfigurationError: the address cannot be listened on, or may not be in local mode; or what ``open_engine`` says
            of the settings. Nothing was opened, or all is closed again.
    """
    with contextlib.closing(await listen(settings)) as listener:
        bounds = msgspec.structs.replace(settings.service, connections=room_for(settings.service.connections))
        app = application(settings)
        logs, meters, stopping = app.service.logs, app.service.meters, app.service.stopping

        def up(address: Address) -> None:
            logs.event("service_started", address=address.url)
            ready(address)

        def ending() -> None:
            logs.event("service_stopping", streams=meters.streams)

        with logs.adopting():
            await run(app, app.lifespan(), bounds, listener, stopping=stopping, ready=up, ending=ending)
        logs.event("service_stopped")


async def listen(settings: Settings) -> socket.socket:
    """A socket that listens where the settings say. What connects before the service is ready has to wait.

    Raises:
        ConfigurationError: names the address and the setting to change.
    """
    host, port = settings.service.host, settings.service.port
    if settings.auth.issuer is None:
        check_loopback(host)
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _refused(error, host, port) from None
    family, _, _, _, address = found[0]
    if settings.auth.issuer is None:
        check_loopback(str(address[0]))  # whatever the name came to
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        raise _refused(error, host, port) from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # What the system has sent or holds for a peer, it gives up on after the same time as we do (RFC 5482).
        listener.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(settings.service.send_seconds * 1_000))
        )
    listener.setblocking(False)
    return listener


def room_for(connections: int) -> int:
    """As many of these connections as the process may have files for, once it has asked for more.

    Beyond that, accepting would fail, and opening a store's file too.
    """
    try:
        import resource
    except ImportError:  # not POSIX: there is no such bound
        return connections
    wanted = connections + SPARE + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    room = max(1, soft - SPARE - OWN_FILES)
    if room < connections:
        _log.warning("the system lets this process hold %d connections, not %d", room, connections)
    return min(connections, room)


async def run(
    app: ASGIApp,
    lifespan: contextlib.AbstractAsyncContextManager[object],
    bounds: Service,
    listener: socket.socket,
    *,
    stopping: asyncio.Event,
    ready: Callable[[Address], None],
    ending: Callable[[], None] = lambda: None,
    connection: Callable[..., asyncio.Protocol] | None = None,
) -> None:
    """Run an application on a listening socket until ``stopping`` is set, by a signal or otherwise.

    Then nothing new is accepted, requests under way have ``stop_seconds`` to end, the rest is cut, and the lifespan
    ends. Cancelled, it cuts at once.

    Args:
        lifespan: open while requests are served; the application is not asked for one.
        ending: called once, when it is told to stop; streams are still open.
        connection: what makes a connection, in place of ``protocol.Guarded``.
    Raises:
        ServiceError: the lifespan did not end in time. And whatever the lifespan raises.
    """
    config = uvicorn.Config(
        app,
        http=Guarded,
        ws="none",
        lifespan="off",  # it is entered here, so that what it raises is not lost
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    config.load()
    state = ServerState()
    make = connection or protocol(bounds)
    loop = asyncio.get_running_loop()
    with _told_by_signals(stopping):
        await lifespan.__aenter__()
        told: float | None = None
        try:
            server = await loop.create_server(lambda: make(config, state, {}), sock=listener, backlog=BACKLOG)
            dating = asyncio.create_task(_date(state))
            try:
                if not stopping.is_set():
                    host, port, *_ = listener.getsockname()
                    ready(Address(host, port))
                await stopping.wait()
                told = loop.time()
                ending()
                server.close()
                await _quiet(state, bounds.stop_seconds)
            finally:
                stopping.set()
                server.close()
                await _cut(state)
                dating.cancel()
        finally:
            until = (told or loop.time()) + bounds.stop_seconds + CLOSE_SECONDS
            try:
                async with asyncio.timeout_at(max(until, loop.time() + CUT_SECONDS)):
                    await lifespan.__aexit__(None, None, None)
            except TimeoutError:
                raise ServiceError("The service did not close in time.") from None


async def _date(state: ServerState) -> None:
    """Keep the date in the header of every answer."""
    while True:
        state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        await asyncio.sleep(1)


async def _quiet(state: ServerState, seconds: float) -> None:
    """Close each connection once it has nothing under way; return when all are, or when the time is over."""
    until = asyncio.get_running_loop().time() + seconds
    while state.connections or state.tasks:
        for connection in list(state.connections):
            connection.shutdown()
        if asyncio.get_running_loop().time() >= until:
            return
        await asyncio.sleep(_POLL)


async def _cut(state: ServerState) -> None:
    """End what is left. A write that was sent to the store is awaited by the engine all the same."""
    if not state.connections and not state.tasks:
        return
    _log.warning("requests that did not end in time and are cut: %d", len(state.tasks))
    for connection in list(state.connections):
        connection.transport.abort()
    await asyncio.sleep(0)  # they hear of the lost connection first
    with _silent("uvicorn.error"):  # which would show each as an exception in the application
        for task in list(state.tasks):
            task.cancel()
        await _quiet(state, CUT_SECONDS)


@contextlib.contextmanager
def _silent(logger: str) -> Iterator[None]:
    found = logging.getLogger(logger)
    before, found.disabled = found.disabled, True
    try:
        yield
    finally:
        found.disabled = before


@contextlib.contextmanager
def _told_by_signals(stopping: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stopping``; a second one ends the process at once, whatever it is at.

    Python hears of signals in the main thread only; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {one: signal.getsignal(one) for one in _SIGNALS}
    handing_over: list[asyncio.TimerHandle] = []

    def to_the_system() -> None:
        for one in _SIGNALS:
            loop.remove_signal_handler(one)
            signal.signal(one, signal.SIG_DFL)

    def told() -> None:
        stopping.set()
        if not handing_over:
            handing_over.append(loop.call_later(ECHO_SECONDS, to_the_system))

    for one in _SIGNALS:
        loop.add_signal_handler(one, told)
    try:
        yield
    finally:
        for handle in handing_over:
            handle.cancel()
        for one, handler in before.items():
            loop.remove_signal_handler(one)
            signal.signal(one, handler)


def _refused(error: OSError, host: str, port: int) -> ConfigurationError:
    """Why an address cannot be listened on, and what to change."""
    where = f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"Another program listens on {where}. Choose another port: service.port (HOLDFAST_SERVICE__PORT, --port);"
            " 0 takes a free one."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigurationError(
            f"The system does not let this user listen on {where}. Choose a port from 1024 on: service.port"
            " (HOLDFAST_SERVICE__PORT, --port)."
        )
    return ConfigurationError(
        f"{where} is no address of this machine to listen on ({error.strerror or error}). Mend service.host"
        " (HOLDFAST_SERVICE__HOST, --host)."
    )
