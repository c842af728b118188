"""The server: what it listens on, what it refuses before the application hears of it, and how many it lets in.

S20 and S21 (bounds of a request's head), S25 (TRACE is off); and requests that two parsers could read in two ways.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast.errors import ConfigurationError
from holdfast.service.edge import SECURITY
from holdfast.service.protocol import MOST_FIELDS, MOST_HEAD, MOST_TARGET
from holdfast.service.server import Address, listen, room_for, run
from holdfast.settings import Settings
from holdfast.settings.sections import Auth, Service
from holdfast.testing.peers import Peer, request, running

ISSUER = Auth(issuer="https://issuer.test", audience="holdfast", keys="file:///nowhere.json")


class Heard:
    """An application that answers with what it was told, and keeps a list of it."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.gate = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/wait", self.wait),
                Route("/no", self.no, methods=["POST"]),
                Route("/{path:path}", self.echo, methods=["GET", "POST", "PUT"]),
            ]
        )

    async def echo(self, asked: Request) -> Response:
        self.requests.append(f"{asked.method} {asked.url.path}")
        body = await asked.body()
        return JSONResponse({"body": body.decode(), "headers": dict(asked.headers)})

    async def no(self, asked: Request) -> Response:
        return Response("too large", 413, headers={"connection": "close"})

    async def wait(self, asked: Request) -> Response:
        self.requests.append(f"{asked.method} {asked.url.path}")
        await self.gate.wait()
        return Response("waited")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def address(heard: Heard) -> AsyncIterator[str]:
    async with running(heard.app, Service(header_seconds=5, body_seconds=5)) as address:
        yield address


async def test_a_connection_carries_one_request_after_another(heard: Heard, address: str) -> None:
    async with Peer.to(address) as peer:
        for number in range(3):
            await peer.send(request("POST", f"/{number}", body=b"hello"))
            answer = await peer.answer()
            assert answer.status == 200
            assert answer.json["body"] == "hello"
    assert heard.requests == ["POST /0", "POST /1", "POST /2"]


async def test_an_answer_has_a_date_and_does_not_tell_what_serves_it(address: str) -> None:
    async with Peer.to(address) as peer:
        await peer.send(request("GET", "/"))
        headers = (await peer.answer()).headers
        await peer.send(b"not HTTP\r\n\r\n")
        refused = (await peer.answer()).headers
    for shown in (headers, refused):
        assert shown["date"].endswith("GMT")
        assert "server" not in shown


# -- what is refused ---------------------------------------------------------------------------------------------------

POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"

MALFORMED = {
    "a length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": POST + b"Content-Length: +3\r\n\r\nabc",
    "a length below nothing": POST + b"Content-Length: -3\r\n\r\nabc",
    "a coding that is not chunked": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "a coding that is almost chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a coding beneath the chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "codings in two fields": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded field": POST + b"X: a\r\n b\r\n\r\n",
    "lines that end in LF": b"GET /x HTTP/1.1\nHost: a\n\n",
    "a bare CR in a value": POST + b"X: a\rb\r\n\r\n",
    "a NUL in a value": POST + b"X: a\0b\r\n\r\n",
    "a field without a name": POST + b": x\r\n\r\n",
    "no Host": b"GET /x HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /x\r\n\r\n",
    "HTTP/2.0": b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"BREW /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that is no URL": b"GET nonsense HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a letter that is not ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
"""Requests of no right form, after RFC 9112; those with two readings first."""


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_request_of_no_right_form_is_refused_and_nobody_hears_of_it(
    heard: Heard, address: str, sent: bytes
) -> None:
    async with Peer.to(address) as peer:
        await peer.send(sent + request("GET", "/smuggled"))
        answer = await peer.answer()
        assert answer.status == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        assert answer.json["code"] == "invalid-request"
        assert {name.decode(): value.decode() for name, value in SECURITY}.items() <= answer.headers.items()
        assert await peer.ended(10)
    assert heard.requests == []


MISCHUNKED = {
    "a size below nothing": b"-1\r\nx\r\n0\r\n\r\n",
    "a size in C": b"0x1\r\nx\r\n0\r\n\r\n",
    "a size beyond all numbers": b"fffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "a size before a blank": b"1 \r\nx\r\n0\r\n\r\n",
    "a line that ends in LF": b"1\nx\r\n0\r\n\r\n",
    "a chunk that does not end": b"1\r\nx0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", MISCHUNKED.values(), ids=MISCHUNKED.keys())
async def test_a_body_in_chunks_of_no_right_form_is_refused(heard: Heard, address: str, chunks: bytes) -> None:
    async with Peer.to(address) as peer:
        await peer.send(CHUNKED + b"\r\n" + chunks + request("GET", "/smuggled"))
        assert (await peer.answer()).status == 400
        assert await peer.ended(10)
    assert "GET /smuggled" not in heard.requests


async def test_teeth_uvicorn_alone_hands_on_what_it_refuses(heard: Heard) -> None:
    sent = MALFORMED["a coding that is not chunked"]
    async with running(heard.app, Service(), connection=HttpToolsProtocol) as address, Peer.to(address) as peer:
        await peer.send(sent)
        assert (await peer.answer()).status == 400
    assert heard.requests == ["POST /x"]


@pytest.mark.parametrize(("method", "target"), [("TRACE", "/x?secret"), ("CONNECT", "holdfast.test:443")])
async def test_trace_and_connect_are_off(heard: Heard, address: str, method: str, target: str) -> None:
    async with Peer.to(address) as peer:
        await peer.send(request(method, target, "X-Secret: hush"))
        answer = await peer.answer()
        assert answer.status == answer.json["status"] == 405
        assert "GET" in answer.headers["allow"]
        assert b"hush" not in answer.body
        assert b"secret" not in answer.body
        assert await peer.ended(10)
    assert heard.requests == []


LARGE = {
    "a target": request("GET", "/" + "x" * MOST_TARGET),
    "a query": request("GET", "/?" + "x" * MOST_TARGET),
    "fields": request("GET", "/", *(f"X-{number}: y" for number in range(MOST_FIELDS))),
    "a field": request("GET", "/", "X: " + "y" * MOST_HEAD),
    "a field's name": request("GET", "/", "X" * MOST_HEAD + ": y"),
    "fields together": request("GET", "/", *(f"X: {'y' * (MOST_HEAD // 9)}" for _ in range(9))),
    "a field without an end": request("GET", "/")[:-2] + b"X: " + b"y" * 4 * MOST_HEAD,
    "a target without an end": b"GET /" + b"x" * 4 * MOST_HEAD,
    "blank lines": b"\r\n" * 2 * MOST_HEAD,
}


@pytest.mark.parametrize("sent", LARGE.values(), ids=LARGE.keys())
async def test_s20_a_head_that_is_too_large_is_refused(heard: Heard, address: str, sent: bytes) -> None:
    async with Peer.to(address) as peer:
        await peer.send(sent)
        answer = await peer.answer()
        assert answer.status == answer.json["status"] == 431
        assert await peer.ended(10)
    assert heard.requests == []


async def test_s20_a_head_as_large_as_it_may_be_is_read(heard: Heard, address: str) -> None:
    fields = (f"X-{number}: {'y' * 250}" for number in range(MOST_FIELDS - 1))
    async with Peer.to(address) as peer:
        await peer.send(request("GET", "/" + "x" * (MOST_TARGET - 1), *fields))
        assert (await peer.answer()).status == 200


async def test_s20_a_trailer_without_an_end_is_refused(heard: Heard, address: str) -> None:
    async with Peer.to(address) as peer:
        await peer.send(CHUNKED + b"\r\n1\r\nx\r\n0\r\nX: ")
        await peer.send(b"y" * 32 * MOST_HEAD)
        assert (await peer.answer()).status == 431
        assert await peer.ended(10)


async def test_what_follows_a_body_is_no_header(address: str) -> None:
    async with Peer.to(address) as peer:
        await peer.send(CHUNKED + b"\r\n1\r\nx\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
        answer = (await peer.answer()).json
    assert answer["body"] == "x"
    assert "authorization" not in answer["headers"]


async def test_what_is_wrong_waits_for_the_answer_before_it(heard: Heard, address: str) -> None:
    async with Peer.to(address) as peer:
        await peer.send(request("GET", "/wait") + request("GET", "/next") + b"nonsense\r\n\r\n")
        while not heard.requests:
            await asyncio.sleep(0.01)
        heard.gate.set()
        assert (await peer.answer()).body == b"waited"
        assert (await peer.answer()).status == 200
        assert await peer.ended(10)
    assert heard.requests == ["GET /wait", "GET /next"]


async def test_one_that_still_sends_can_read_why_it_was_turned_away(address: str) -> None:
    async with Peer.to(address) as peer:
        await peer.send(b"POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 100_000)
        for _ in range(20):
            await peer.send(b"x" * 100_000)
            await asyncio.sleep(0)
        answer = await peer.answer()
        assert (answer.status, answer.body) == (413, b"too large")
        await peer.send(b"x" * 100_000)
        assert await peer.reader.read() == b""


# -- other protocols ---------------------------------------------------------------------------------------------------

H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13")


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
async def test_an_offer_of_another_protocol_is_passed_over(heard: Heard, address: str, offer: tuple[str, ...]) -> None:
    async with Peer.to(address) as peer:
        await peer.send(request("GET", "/before") + request("POST", "/x", *offer, body=b"hello"))
        await peer.answer()
        answer = await peer.answer()
        assert answer.status == 200
        assert answer.json["body"] == "hello"
        await peer.send(request("GET", "/next"))
        assert (await peer.answer()).status == 200
    assert heard.requests == ["GET /before", "POST /x", "GET /next"]


async def test_teeth_uvicorn_alone_reads_the_body_of_such_a_request_as_the_next_request(heard: Heard) -> None:
    body = request("GET", "/smuggled")
    async with running(heard.app, Service(), connection=HttpToolsProtocol) as address, Peer.to(address) as peer:
        await peer.send(request("POST", "/x", *H2C)[:-2] + b"Content-Length: %d\r\n\r\n" % len(body))
        await peer.answer()
        await peer.send(body)
        await peer.answer()
    assert heard.requests == ["POST /x", "GET /smuggled"]


async def test_the_body_of_such_a_request_is_not_the_next_request(heard: Heard, address: str) -> None:
    body = request("GET", "/smuggled")
    async with Peer.to(address) as peer:
        await peer.send(request("POST", "/x", *H2C)[:-2] + b"Content-Length: %d\r\n\r\n" % len(body))
        await peer.send(body)
        assert (await peer.answer()).json["body"].startswith("GET /smuggled")
    assert heard.requests == ["POST /x"]


# -- how many ----------------------------------------------------------------------------------------------------------


async def test_s21_one_connection_too_many_is_told_so_and_let_in_later(heard: Heard) -> None:
    async with running(heard.app, Service(connections=2)) as address, Peer.to(address) as first:
        async with Peer.to(address) as second, Peer.to(address) as third:
            for peer in (first, second):
                await peer.send(request("GET", "/"))
                assert (await peer.answer()).status == 200
            await third.send(request("GET", "/"))
            refused = await third.answer()
            assert (refused.status, refused.json["code"]) == (503, "stopping")
            assert int(refused.headers["retry-after"]) > 0
            assert await third.ended(10)
            await first.send(request("GET", "/"))
            assert (await first.answer()).status == 200
        await first.send(request("GET", "/"))  # asked after those were closed, so they are gone when it is answered
        assert (await first.answer()).status == 200
        async with Peer.to(address) as fourth:
            await fourth.send(request("GET", "/"))
            assert (await fourth.answer()).status == 200


def test_s21_no_more_connections_are_let_in_than_there_are_files_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert room_for(100) == 100
        room = room_for(10_000_000)
        now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert now >= soft
        assert 0 < room < now or now == resource.RLIM_INFINITY
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- listening ---------------------------------------------------------------------------------------------------------


def alive(heard: Heard) -> AbstractAsyncContextManager[object]:
    return heard.app.router.lifespan_context(heard.app)


def settings(tmp_path: Path, auth: Auth | None = None, **service: object) -> Settings:
    return Settings(home=tmp_path / "home", auth=auth or Auth(), service=Service(**service))  # type: ignore[arg-type]


async def test_an_address_in_use_is_said_to_be_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"listens on 127\.0\.0\.1:{port}\..*service\.port"):
            await listen(settings(tmp_path, port=port))


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
async def test_an_address_of_another_machine_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{host}:0 is no address of this machine.*service\.host"):
        await listen(settings(tmp_path, ISSUER, host=host, port=0))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.test"])
async def test_in_local_mode_only_this_machine_is_listened_to(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match="for this machine alone"):
        await listen(settings(tmp_path, host=host, port=0))


async def test_in_local_mode_a_name_that_leads_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def elsewhere(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", elsewhere)
    with pytest.raises(ConfigurationError, match="for this machine alone"):
        await listen(settings(tmp_path, host="localhost", port=0))


@pytest.mark.parametrize(("host", "start"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")])
async def test_port_0_takes_a_free_port_and_tells_which(heard: Heard, tmp_path: Path, host: str, start: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    stopping, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    with await listen(settings(tmp_path, host=host, port=0)) as listener:
        serving = run(heard.app, alive(heard), Service(), listener, stopping=stopping, ready=ready.set_result)
        ran = asyncio.create_task(serving)
        address: Address = await ready
        assert address.url.startswith(start)
        assert address.port > 0
        async with Peer.to(address.url) as peer:
            await peer.send(request("GET", "/"))
            assert (await peer.answer()).status == 200
        stopping.set()
        await ran


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


# -- the end -----------------------------------------------------------------------------------------------------------


def test_it_stops_without_signals_in_a_thread_of_its_own() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    heard, up = Heard(), threading.Event()
    stops: list[Callable[[], object]] = []

    async def main() -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        stops.append(lambda: loop.call_soon_threadsafe(stopping.set))
        await run(heard.app, alive(heard), Service(), listener, stopping=stopping, ready=lambda _: up.set())

    with listener:
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        assert up.wait(20)
        stops[0]()
        thread.join(20)
        assert not thread.is_alive()


async def test_a_request_under_way_is_answered_and_new_ones_are_turned_away(heard: Heard) -> None:
    stopping = asyncio.Event()
    async with (
        running(heard.app, Service(), stopping=stopping) as address,
        Peer.to(address) as busy,
        Peer.to(address) as idle,
    ):
        await busy.send(request("GET", "/wait"))
        while not heard.requests:
            await asyncio.sleep(0.01)
        stopping.set()
        assert await idle.ended(10)
        with pytest.raises(ConnectionError):
            await ask(address)
        heard.gate.set()
        answer = await busy.answer()
        assert answer.body == b"waited"
        assert answer.headers["connection"] == "close"
        assert await busy.ended(10)


async def ask(address: str) -> None:
    async with Peer.to(address) as peer:
        await peer.send(request("GET", "/"))
        await peer.answer()


async def test_a_request_that_does_not_end_is_cut(heard: Heard) -> None:
    stopping = asyncio.Event()
    bounds = Service(stop_seconds=0.2)
    async with running(heard.app, bounds, stopping=stopping) as address, Peer.to(address) as busy:
        await busy.send(request("GET", "/wait"))
        while not heard.requests:
            await asyncio.sleep(0.01)
        stopping.set()
        assert await busy.ended(10)


async def test_what_the_application_cannot_open_is_told_as_it_is(heard: Heard) -> None:
    heard.app.router.lifespan_context = broken  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="the roof is open"):
        async with running(heard.app, Service()):
            pass


def broken(app: Starlette) -> Callable[[], None]:
    raise ConfigurationError("the roof is open")
