"""R17: told to stop with a hundred open streams and writes in flight, the service ends within five seconds.

What it acknowledged is there when it starts again, whoever is turned away hears 503 or loses the connection, and nobody
hears of a failure. ``HOLDFAST_TEST_STOPS`` sets how often it is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from holdfast.testing.peers import Peer, request
from holdfast.testing.serving import Served, served

pytestmark = pytest.mark.no_cover  # repeats what others measure once

STOPS = int(os.environ.get("HOLDFAST_TEST_STOPS", "2"))
STREAMS = 100
WRITERS = 8
BEFORE = 100
"""Acknowledged writes after which it is told to stop."""
PROMISED = 5.0
"""Seconds in which it ends, by its promise."""


class Writers:
    """Writers that each put one item after another into a session of their own, and keep what they were told."""

    def __init__(self) -> None:
        self.acked: dict[str, list[str]] = {}
        self.heard: Counter[str] = Counter()
        self.enough = asyncio.Event()

    async def write(self, service: Served, number: int) -> None:
        """Write until turned away; every other writer opens a connection for each write."""
        session, version = await created(service)
        acked = self.acked.setdefault(session, [])
        async with contextlib.AsyncExitStack() as stack:
            try:
                peer = await stack.enter_async_context(Peer.to(service.address))
                while True:
                    if number % 2:
                        await stack.aclose()
                        peer = await stack.enter_async_context(Peer.to(service.address))
                    text = f"{session}/{version}"
                    put = {"changes": [{"put": f"chunks/{version:04}", "body": {"text": text}}]}
                    answer = await ask(service, peer, "PATCH", f"/v1/sessions/{session}", put, f'If-Match: "{version}"')
                    self.heard[str(answer.status)] += 1
                    if answer.status != 200:
                        return
                    version = answer.json["version"]
                    acked.append(text)
                    if self.heard["200"] >= BEFORE:
                        self.enough.set()
            except ConnectionError:
                self.heard["lost"] += 1

    async def lost(self, service: Served) -> list[str]:
        """What was acknowledged and is not there."""
        missing = []
        async with Peer.to(service.address) as peer:
            for session, acked in self.acked.items():
                kept = (await ask(service, peer, "GET", f"/v1/sessions/{session}")).json
                texts = {item["body"]["text"] for item in kept["items"]}
                # Each item was one commit, and the start another.
                assert kept["version"] == len(kept["items"]) + 1, kept
                missing += [text for text in acked if text not in texts]
        return missing


async def ask(service: Served, peer: Peer, method: str, target: str, body: Any = None, *fields: str) -> Any:
    said = () if body is None else ("Content-Type: application/json",)
    sent = b"" if body is None else msgspec.json.encode(body)
    await peer.send(request(method, target, f"Authorization: Bearer {service.token}", *said, *fields, body=sent))
    return await peer.answer()


async def created(service: Served) -> tuple[str, int]:
    """A new session: its id and version."""
    async with Peer.to(service.address) as peer:
        answer = await ask(service, peer, "POST", "/v1/sessions", {"kind": "knowledge", "title": "Tides"})
        assert answer.status == 201, answer
        return answer.json["id"], answer.json["version"]


@contextlib.asynccontextmanager
async def streams(service: Served, session: str, count: int) -> AsyncIterator[list[Peer]]:
    """So many readers of a session's feed, each of which has heard something."""
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(Peer.to(service.address)) for _ in range(count)]
        for reader in readers:
            fields = (f"Authorization: Bearer {service.token}", "Accept: text/event-stream")
            await reader.send(request("GET", f"/v1/sessions/{session}/events", *fields))
        for reader in readers:
            head = await reader.reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            assert b"text/event-stream" in head
            await reader.reader.readuntil(b"\n\n")
        yield readers


async def test_r17_nothing_acknowledged_is_lost_by_a_stop_and_it_ends_in_time(tmp_path: Path) -> None:
    writers, slowest = Writers(), 0.0
    for _ in range(STOPS):
        writers.enough.clear()
        writers.heard["200"] = 0
        async with served(home=tmp_path / "home", HOLDFAST_LIMITS__ITEMS="10000") as service:
            session, _ = await created(service)
            async with streams(service, session, STREAMS) as readers, asyncio.TaskGroup() as group:
                for number in range(WRITERS):
                    group.create_task(writers.write(service, number))
                await writers.enough.wait()
                told = asyncio.get_running_loop().time()
                async with asyncio.timeout(PROMISED):
                    code = await service.stop(signal.SIGTERM)
                slowest = max(slowest, asyncio.get_running_loop().time() - told)
                assert code == 0, service.log
                assert all(await asyncio.gather(*(reader.ended(1) for reader in readers)))
            assert '"level":"error"' not in service.log
    assert not writers.heard.keys() - {"200", "503", "lost"}, writers.heard
    acked = sum(map(len, writers.acked.values()))
    async with served(home=tmp_path / "home") as again:
        assert await writers.lost(again) == []
        writers.acked[next(iter(writers.acked))].append("never written")
        assert await writers.lost(again) == ["never written"]  # teeth
    print(f"R17 stops={STOPS} streams={STREAMS} acked={acked} heard={dict(writers.heard)} slowest={slowest:.2f}s")


async def test_teeth_uvicorn_alone_never_ends_while_a_stream_is_open() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b": still here\n\n"
            await asyncio.sleep(0.1)

    async def follow(_: Request) -> Response:
        return StreamingResponse(endless())

    app = Starlette(routes=[Route("/", follow)])
    theirs = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        running = asyncio.create_task(theirs.serve(sockets=[listener]))
        async with Peer.to(f"http://127.0.0.1:{listener.getsockname()[1]}") as peer:
            await peer.send(request("GET", "/"))
            await peer.reader.readuntil(b"\n\n")
            theirs.should_exit = True
            await asyncio.wait((running,), timeout=PROMISED)
            assert not running.done()
        await running


BEGUN = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\nContent-Length: 100\r\n\r\n{"
"""A request whose end does not come."""


DOCUMENT = b"".join(
    (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="list.md"\r\n\r\n',
        b"- a\n" * 2_350_000,
        b"\r\n--b--\r\n",
    )
)
"""An upload of 9.4 MB, within ``limits.source_bytes``; to read its Markdown takes a minute and more."""


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
async def test_r17_a_request_without_an_end_does_not_hold_the_stop_up(tmp_path: Path, told: signal.Signals) -> None:
    async with served(home=tmp_path / "home") as service, Peer.to(service.address) as peer:
        await begun(service, peer)
        async with asyncio.timeout(2 * PROMISED):
            assert await service.stop(told) == 0
        assert await peer.ended(1)
        assert "Traceback" not in service.log


async def test_r17_a_document_that_is_being_read_does_not_hold_the_stop_up(tmp_path: Path) -> None:
    """As large as may be, and with room for all its pieces, so that it is not refused."""
    started = served(home=tmp_path / "home", HOLDFAST_LIMITS__ITEMS="1000000")
    async with started as service, contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(Peer.to(service.address)) for _ in range(3)]
        for reader in readers:
            fields = (f"Authorization: Bearer {service.token}", "Content-Type: multipart/form-data; boundary=b")
            await reader.send(request("POST", "/v1/ingest", *fields, body=DOCUMENT))
        for _ in range(3):
            await created(service)  # others are served meanwhile
        await asyncio.sleep(1)
        told = asyncio.get_running_loop().time()
        async with asyncio.timeout(2 * PROMISED):
            assert await service.stop(signal.SIGTERM) == 0
        took = asyncio.get_running_loop().time() - told
        for reader in readers:
            with contextlib.suppress(ConnectionError):
                assert (await reader.answer()).status == 503
        assert "Traceback" not in service.log
    print(f"R17 three documents under way, stopped in {took:.2f}s")


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, told: signal.Signals) -> None:
    started = served(home=tmp_path / "home", HOLDFAST_SERVICE__STOP_SECONDS="60")
    async with started as service, Peer.to(service.address) as peer:
        await begun(service, peer)
        service.process.send_signal(told)
        await asyncio.sleep(1)
        assert service.process.returncode is None
        assert await service.stop(told) == -told


async def test_the_same_signal_from_two_sides_is_one(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the whole group of processes, and some parents send it on."""
    async with served(home=tmp_path / "home") as service, Peer.to(service.address) as peer:
        await begun(service, peer)
        service.process.send_signal(signal.SIGINT)
        assert await service.stop(signal.SIGINT) == 0


async def begun(service: Served, peer: Peer) -> None:
    """Send the beginning of a request, and see to it that it has arrived."""
    assert service.token is not None
    await peer.send(BEGUN % service.token.encode())
    await created(service)
