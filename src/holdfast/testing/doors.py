"""Services on one home, and how tests come in: several processes that can be killed and started again, or services of
this process around a store that is broken on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from holdfast.ports.hot import HotStore
from holdfast.settings import Settings
from holdfast.settings.sections import Service
from holdfast.testing.peers import Answer, Peer, running
from holdfast.testing.serving import Served, served

BUSY = Service(rate=1_000_000, burst=1_000_000, streams=1_000, log="error")
"""Settings for tests that ask more than people do."""


class Door(msgspec.Struct):
    """Where a service is found, and the token to show there. After a restart it may be elsewhere: this is changed."""

    address: str
    token: str

    def request(self, method: str, target: str, *fields: str, body: bytes = b"") -> bytes:
        """A request to this service by who holds the token; a body is JSON, if no field says otherwise."""
        host = self.address.removeprefix("http://")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {self.token}", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
            if not any(field.lower().startswith("content-type:") for field in fields):
                lines.append("Content-Type: application/json")
        return "\r\n".join((*lines, "", "")).encode("latin-1") + body


class Caller:
    """A connection to a service, kept open."""

    def __init__(self, door: Door, peer: Peer) -> None:
        self._door, self.peer = door, peer

    async def ask(self, method: str, target: str, *fields: str, body: Any = None) -> Answer:
        """One request and its answer; ``body`` is sent as JSON."""
        await self.send(method, target, *fields, body=body)
        return await self.peer.answer()

    async def send(self, method: str, target: str, *fields: str, body: Any = None) -> None:
        """One request, whose answer is left to be read."""
        data = b"" if body is None else msgspec.json.encode(body)
        await self.peer.send(self._door.request(method, target, *fields, body=data))


@contextlib.asynccontextmanager
async def callers(doors: list[Door], many: int = 1) -> AsyncIterator[list[Caller]]:
    """So many connections, shared out over the doors."""
    async with contextlib.AsyncExitStack() as stack:
        each = [doors[number % len(doors)] for number in range(many)]
        yield [Caller(door, await stack.enter_async_context(Peer.to(door.address))) for door in each]


class Servers:
    """Processes of ``holdfast serve`` on one home, each behind its door."""

    def __init__(self, settings: Settings, stack: contextlib.AsyncExitStack) -> None:
        self._settings, self._stack = settings, stack
        self._running: list[Served] = []
        self.doors: list[Door] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, home: Path, many: int, service: Service = BUSY) -> AsyncIterator[Servers]:
        """Start so many at once, on a home that may be new."""
        async with contextlib.AsyncExitStack() as stack:
            servers = cls(Settings(home=home, service=service), stack)
            servers._running = await asyncio.gather(*(servers._start() for _ in range(many)))
            servers.doors = [Door(one.address, one.token or "") for one in servers._running]
            yield servers

    @property
    def pids(self) -> list[int]:
        """The process behind each door."""
        return [one.process.pid for one in self._running]

    async def restart(self, which: int, how: signal.Signals = signal.SIGTERM) -> None:
        """End one with a signal, SIGKILL as a crash would, and start another in its place, at another address."""
        await self._running[which].stop(how)
        one = self._running[which] = await self._start()
        self.doors[which].address, self.doors[which].token = one.address, one.token or ""

    async def _start(self) -> Served:
        return await self._stack.enter_async_context(served(self._settings, home=self._settings.home))


@contextlib.asynccontextmanager
async def services(home: Path, many: int, wrap: Callable[[HotStore], HotStore]) -> AsyncIterator[list[Door]]:
    """So many services of this process on one home, each with an engine of its own around what ``wrap`` makes of the
    store.
    """
    from holdfast.service.app import create_app

    settings = Settings(home=home, service=BUSY)
    async with contextlib.AsyncExitStack() as stack:
        doors = []
        for _ in range(many):
            address = await stack.enter_async_context(running(create_app(settings, wrap=wrap), BUSY))
            doors.append(Door(address, (home / "token").read_text("ascii").strip()))
        yield doors


__all__ = ["BUSY", "Caller", "Door", "Servers", "callers", "services"]
