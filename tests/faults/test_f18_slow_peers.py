"""F18 and S21: peers that drip, that never read, that stay and say nothing. They are cut in time; others are served.

Each is shown to hold a connection of plain uvicorn for as long as it likes. ``HOLDFAST_TEST_IDLE`` sets how many idle
connections there are.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast.service.protocol import Guarded, protocol
from holdfast.settings.sections import Service
from holdfast.testing.peers import Answer, Peer, request, running
from holdfast.testing.serving import Served, served

IDLE = int(os.environ.get("HOLDFAST_TEST_IDLE", "500"))
QUICK = Service(header_seconds=0.3, body_seconds=0.3, send_seconds=0.3, idle_seconds=0.3, stop_seconds=0.3)
PAUSE = 0.03
"""Seconds between two bytes: ten times as often as a deadline passes."""
IN_TIME = 5.0
"""Seconds in which a peer is cut whose deadline is a third of one, on a busy machine."""
LONG = 1.5
"""Seconds after which one that was to be cut has been."""
LARGE = 16_000_000
"""Bytes of an answer: more than the system holds for both sides together."""
WINDOW = 16_384
"""Bytes the system is asked to hold for a peer that does not read; it holds about twice as many."""


class App:
    """Answers at once, with a large body or without an end; tells what became of each request."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        names = {"/": self.hello, "/body": self.body, "/deaf": self.hello, "/large": self.large}
        names |= {"/whole": self.whole, "/endless": self.endless, "/rest": self.rest}
        self.app = Starlette(routes=[Route(path, name, methods=["GET", "POST"]) for path, name in names.items()])

    async def hello(self, asked: Request) -> Response:
        return Response("hello")

    async def body(self, asked: Request) -> Response:
        try:
            return Response(await asked.body())
        except ClientDisconnect:
            self.ended.put_nowait("lost")
            raise

    async def whole(self, asked: Request) -> Response:
        return Response(b"x" * LARGE)

    async def rest(self, asked: Request) -> Response:
        return Response(b"x" * int(asked.url.query))

    async def large(self, asked: Request) -> Response:
        return StreamingResponse(
            self._pieces(LARGE // 65_536), headers={"content-length": str(LARGE // 65_536 * 65_536)}
        )

    async def endless(self, asked: Request) -> Response:
        return StreamingResponse(self._pieces(10**9), media_type="text/event-stream")

    async def _pieces(self, count: int) -> AsyncIterator[bytes]:
        try:
            for _ in range(count):
                yield b"x" * 65_536
                self.sent += 65_536
                await asyncio.sleep(0)
        finally:
            self.ended.put_nowait("cut")


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def address(app: App) -> AsyncIterator[str]:
    async with running(app.app, QUICK) as address:
        yield address


async def is_served(address: str) -> bool:
    async with Peer.to(address) as peer:
        await peer.send(request("GET", "/"))
        return (await peer.answer()).body == b"hello"


# -- those that drip ---------------------------------------------------------------------------------------------------

ENDLESS = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 1_000


async def test_f18_a_head_that_drips_is_cut_in_time_and_others_are_served(address: str) -> None:
    async with asyncio.timeout(IN_TIME), Peer.to(address) as peer:
        dripping = asyncio.create_task(peer.drip(ENDLESS, PAUSE))
        while not dripping.done():
            assert await is_served(address)
            await asyncio.sleep(PAUSE)
        answer = await dripping
        assert answer is not None
        assert answer.status == 408


async def test_f18_a_second_request_that_drips_is_cut_too(address: str) -> None:
    async with asyncio.timeout(IN_TIME), Peer.to(address) as peer:
        await peer.send(request("GET", "/") + ENDLESS[:10])
        await peer.answer()
        answer = await peer.drip(ENDLESS[10:], PAUSE)
        assert answer is not None
        assert answer.status == 408


@pytest.mark.parametrize("first", [b"", request("GET", "/")], ids=["at first", "between requests"])
async def test_f18_dripping_blank_lines_do_not_keep_a_connection(address: str, first: bytes) -> None:
    async with asyncio.timeout(IN_TIME), Peer.to(address) as peer:
        if first:
            await peer.send(first)
            await peer.answer()
        with pytest.raises(ConnectionError):
            await peer.drip(b"\r\n" * 1_000, PAUSE)


async def test_f18_requests_that_overlap_are_none_that_drip(address: str) -> None:
    one = request("GET", "/")
    async with Peer.to(address) as peer:
        await peer.send(one[:-5])
        for _ in range(30):
            await asyncio.sleep(PAUSE)
            await peer.send(one[-5:] + one[:-5])
            assert (await peer.answer()).body == b"hello"


BODIES = {
    "a length": b"Content-Length: 100000\r\n\r\n" + b"x" * 1_000,
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1_000,
    "a chunk's extension": b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 1_000,
    "a trailer": b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 1_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_f18_a_body_that_drips_is_cut_in_time_and_nothing_is_done(app: App, address: str, body: bytes) -> None:
    head, _, rest = body.partition(b"\r\n\r\n")
    async with asyncio.timeout(IN_TIME), Peer.to(address) as peer:
        await peer.send(b"POST /body HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n")
        answer = await peer.drip(rest, PAUSE)
        assert answer is not None
        assert (answer.status, answer.json["code"]) == (408, "request-timeout")
        assert await app.ended.get() == "lost"
        assert await is_served(address)


async def test_f18_a_body_that_nobody_waits_for_is_not_read_for_ever(address: str) -> None:
    async with asyncio.timeout(IN_TIME), Peer.to(address) as peer:
        await peer.send(b"POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        assert (await peer.answer()).body == b"hello"
        with pytest.raises(ConnectionError):
            await peer.drip(b"x" * 1_000, PAUSE)


@pytest.mark.parametrize(
    "sent", [ENDLESS, b"POST /body HTTP/1.1\r\nHost: a\r\n" + BODIES["a length"]], ids=["a head", "a body"]
)
async def test_teeth_uvicorn_alone_waits_for_those_that_drip(app: App, sent: bytes) -> None:
    async with running(app.app, QUICK, connection=HttpToolsProtocol) as address, Peer.to(address) as peer:
        await peer.send(sent[:100])
        assert await peer.drip(sent[100:140], PAUSE) is None
        assert not await peer.ended(1)


# -- those that do not read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/endless", "/large"])
async def test_f18_a_reader_that_never_reads_is_cut_and_not_buffered_for(app: App, address: str, path: str) -> None:
    async with asyncio.timeout(IN_TIME), Peer.to(address, window=WINDOW) as peer:
        await peer.send(request("GET", path))
        while app.ended.empty():
            assert await is_served(address)
            await asyncio.sleep(PAUSE)
        assert app.sent < LARGE
        assert await peer.ended(IN_TIME)


async def test_f18_an_answer_in_one_piece_that_is_not_read_is_let_go(address: str) -> None:
    async with Peer.to(address, window=WINDOW) as peer:
        await peer.send(request("GET", "/whole"))
        await asyncio.sleep(LONG)
        assert await is_served(address)
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(IN_TIME):
                await peer.answer()


async def test_f18_the_end_of_an_answer_left_unread_does_not_keep_a_connection(app: App) -> None:
    """So little waits that the transport goes on; it is to close then, and would wait for ever."""
    made: list[Guarded] = []
    bounds = Service(send_seconds=1)

    def connection(*given: Any) -> Guarded:
        made.append(protocol(bounds)(*given))
        return made[-1]

    async with running(app.app, bounds, window=WINDOW, connection=connection) as address, AsyncExitStack() as stack:
        for size in range(50_000, 500_000, 8_000):  # how much the system takes is its own affair
            peer = await stack.enter_async_context(Peer.to(address, window=WINDOW))
            await peer.send(request("GET", f"/rest?{size}", "Connection: close"))
            await peer.reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.2)  # it takes some at once, and some when the other side has made room
            if 0 < made[-1].transport.get_write_buffer_size() < 16_384:
                break
        assert made[-1].transport.is_closing()
        async with asyncio.timeout(IN_TIME):
            while made[-1] in made[-1].connections:
                await asyncio.sleep(PAUSE)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await peer.reader.readexactly(size)


async def test_f18_a_reader_that_is_slow_but_reads_gets_it_all_and_is_not_idle(app: App) -> None:
    bounds = Service(send_seconds=0.3, idle_seconds=1)
    async with running(app.app, bounds, window=WINDOW) as address, Peer.to(address, window=WINDOW) as peer:
        await peer.send(request("GET", "/whole"))
        await peer.reader.readuntil(b"\r\n\r\n")
        for _ in range(50):
            await peer.reader.readexactly(LARGE // 50)
            await asyncio.sleep(PAUSE)
        await peer.send(request("GET", "/"))
        assert (await peer.answer()).body == b"hello"


async def leave_early(address: str) -> None:
    """Ask for an answer without an end, ask for something else, and go."""
    async with Peer.to(address) as peer:
        await peer.send(request("GET", "/endless") + request("GET", "/"))
        await peer.reader.readexactly(100_000)


async def test_f18_one_that_asked_twice_and_went_away_is_not_sent_to_for_ever(app: App, address: str) -> None:
    await leave_early(address)
    async with asyncio.timeout(IN_TIME):
        assert await app.ended.get() == "cut"


async def test_teeth_uvicorn_alone_sends_for_ever_to_one_that_asked_twice_and_went_away(app: App) -> None:
    async with running(app.app, QUICK, connection=HttpToolsProtocol) as address:
        await leave_early(address)
        await asyncio.sleep(LONG)
        assert app.ended.empty()


async def test_teeth_uvicorn_alone_holds_a_large_answer_for_one_that_never_reads(app: App) -> None:
    theirs = running(app.app, QUICK, connection=HttpToolsProtocol)
    async with theirs as address, Peer.to(address, window=WINDOW) as peer:
        await peer.send(request("GET", "/endless"))
        await asyncio.sleep(LONG)
        assert app.ended.empty()


# -- those that say nothing --------------------------------------------------------------------------------------------


async def test_f18_idle_connections_are_closed_in_time_and_others_are_served(app: App) -> None:
    seconds = 2 + IDLE / 500  # all of them are to be open at a time
    bounds = Service(header_seconds=seconds, idle_seconds=seconds, connections=2 * IDLE)
    async with running(app.app, bounds) as address, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(Peer.to(address)) for _ in range(IDLE)]
        for peer in idle[::2]:  # every other one has asked something before it fell silent
            await peer.send(request("GET", "/"))
            assert (await peer.answer()).status == 200
        for _ in range(50):
            assert await is_served(address)
        assert all(await asyncio.gather(*(peer.ended(seconds + IN_TIME) for peer in idle)))
        assert await is_served(address)


async def test_f18_one_that_begins_and_falls_silent_is_told_why(address: str) -> None:
    async with asyncio.timeout(IN_TIME), Peer.to(address) as peer:
        await peer.send(b"GET / HT")
        assert (await peer.answer()).status == 408
        assert await peer.ended(IN_TIME)


# -- the service itself, in a process of its own and on the loop it runs on --------------------------------------------


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Served]:
    deadlines = {"HEADER": "0.3", "BODY": "2", "SEND": "0.3"}  # a body of megabytes is sent here, too
    seconds = {f"HOLDFAST_SERVICE__{name}_SECONDS": value for name, value in deadlines.items()}
    async with served(seconds, home=tmp_path / "home") as service:
        yield service


async def asks(service: Served, peer: Peer, method: str, target: str, body: object = None) -> Answer:
    said = (f"Authorization: Bearer {service.token}", "Content-Type: application/json")
    await peer.send(request(method, target, *said, body=b"" if body is None else msgspec.json.encode(body)))
    return await peer.answer()


@pytest.mark.parametrize("stage", ["head", "body"])
async def test_f18_the_service_cuts_one_that_drips_and_serves_others(service: Served, stage: str) -> None:
    body = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\nContent-Length: 9000\r\n\r\n"
    assert service.token is not None
    async with asyncio.timeout(IN_TIME), Peer.to(service.address) as peer, Peer.to(service.address) as other:
        if stage == "body":
            await peer.send(body % service.token.encode())
        dripping = asyncio.create_task(peer.drip(ENDLESS, PAUSE))
        while not dripping.done():
            assert (await asks(service, other, "GET", "/v1/sessions")).status == 200
            await asyncio.sleep(PAUSE)
        answer = await dripping
        assert answer is not None
        assert (answer.status, answer.json["code"]) == (408, "request-timeout")
        assert (await asks(service, other, "GET", "/v1/sessions")).json["sessions"] == []
    assert '"level":"error"' not in service.log


async def test_f18_the_service_cuts_one_that_never_reads_and_serves_others(service: Served) -> None:
    items = [{"key": f"chunks/{number}", "body": {"text": "x" * 900_000}} for number in range(7)]
    async with Peer.to(service.address) as other, Peer.to(service.address, window=WINDOW) as deaf:
        made = await asks(service, other, "POST", "/v1/sessions", {"kind": "knowledge", "title": "a", "items": items})
        assert made.status == 201, made.body[:500]
        target = f"/v1/sessions/{made.json['id']}"
        await deaf.send(4 * request("GET", target, f"Authorization: Bearer {service.token}"))  # before it can be cut
        until = asyncio.get_running_loop().time() + LONG
        while asyncio.get_running_loop().time() < until:
            assert (await asks(service, other, "GET", f"{target}/header")).status == 200
            await asyncio.sleep(PAUSE)
        assert await read(deaf) < len(made.body)
    assert '"level":"error"' not in service.log, service.log


async def read(peer: Peer) -> int:
    """Read on until the connection ends; how many bytes came."""
    count = 0
    with suppress(ConnectionError):
        async with asyncio.timeout(IN_TIME):
            while piece := await peer.reader.read(65_536):
                count += len(piece)
    return count
