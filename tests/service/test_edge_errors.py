"""The edge: what becomes of errors, and what is counted and written down of requests.

S24 (errors leak nothing, in answers and in lines), S12 and S16 (nothing of a request in the log), S25 (too much at a
time is counted).
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from holdfast.errors import (
    HoldfastError,
    InvalidChangeError,
    RateLimitedError,
    StoreUnavailableError,
    TamperedError,
    UnauthenticatedError,
)
from holdfast.settings import Settings
from holdfast.testing.edged import HERE, Around, Told, asked, nothing_more
from holdfast.testing.peers import Peer, request, running

CANARY = "canary-7f3a91"

Client = httpx2.AsyncClient


class OddError(Exception):
    """An error whose every word is content, and that cannot even be shown."""

    def __init__(self) -> None:
        super().__init__(CANARY)
        self.body = {"text": CANARY}
        self.add_note(CANARY)

    def __str__(self) -> str:
        raise ValueError(CANARY)

    __repr__ = __str__


class UnheardError(HoldfastError):
    """An error of ours with a code that the table does not know."""

    code = "unheard-of"


def routes() -> FastAPI:
    app = FastAPI(openapi_url=None, telemetry={"tracing": False, "metrics": False})

    @app.get("/ok")
    async def ok() -> Response:
        return Response(b"{}", media_type="application/json")

    @app.get("/things/{name}")
    async def thing(name: str) -> Response:
        return Response(name.encode())

    @app.get("/raises/{what}")
    async def raises(what: str) -> Response:
        secret = f"{CANARY} {what}"
        try:
            fail(what, secret)
        finally:
            del secret
        return Response(b"")

    @app.get("/500")
    async def deliberate() -> Response:
        return Response(b"known", 500, media_type="text/plain")

    @app.get("/breaks-off")
    async def breaks_off() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first half"
            fail("value", CANARY)

        return StreamingResponse(parts())

    return app


def fail(what: str, secret: str) -> None:
    """Fail in one of many ways, the content in each of its words."""
    if what == "value":
        raise ValueError(secret, {"text": secret})
    if what == "odd":
        raise OddError
    if what == "cause":
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise RuntimeError(secret) from error
    if what == "context":
        try:
            json.loads("{" + secret)
        except ValueError:
            raise OSError(2, secret, secret)  # noqa: B904 - the context is what is tested
    if what == "group":
        raise ExceptionGroup(secret, [ValueError(secret), ExceptionGroup(secret, [KeyError(secret)])])
    if what == "named":
        raise type("Named", (Exception,), {})(secret)
    if what == "recursion":
        fail(what, secret)
    if what == "unheard":
        raise UnheardError(secret)
    if what == "assertion":
        assert secret == "", secret


KINDS = {
    "value": "ValueError",
    "odd": "OddError",
    "cause": "RuntimeError",
    "context": "FileNotFoundError",
    "group": "ExceptionGroup",
    "named": "Named",
    "recursion": "RecursionError",
    "unheard": "UnheardError",
    "assertion": "AssertionError",
}


@pytest.fixture
def app() -> FastAPI:
    return routes()


@pytest.fixture
def around(app: FastAPI, settings: Settings) -> Around:
    return Around(app, settings, "debug")


@pytest.fixture
async def client(around: Around) -> AsyncIterator[Client]:
    async with around.client() as client:
        yield client


def refused(response: httpx2.Response, code: str, status: int) -> bool:
    """Whether an answer is a problem of a code."""
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    return (told["code"], told["status"], response.status_code) == (code, status, status)


# -- S24: errors -------------------------------------------------------------------------------------------------------


def leaks(*texts: str | bytes) -> bool:
    return any(CANARY in (text if isinstance(text, str) else text.decode("latin-1")) for text in texts)


@pytest.mark.parametrize("what", KINDS)
async def test_s24_an_unforeseen_error_is_a_problem_that_tells_nothing(
    around: Around, client: Client, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    response = await client.get(f"/raises/{what}?secret={CANARY}", headers={"authorization": f"Bearer {CANARY}"})
    assert refused(response, "service", 500)
    assert response.json()["request"] == response.headers["x-request-id"]
    (crashed,) = [line for line in around.lines if line["event"] == "crashed"]
    assert crashed["level"] == "error"
    assert crashed["request"] == response.headers["x-request-id"]
    assert crashed["route"] == "/raises/{what}"
    assert crashed["error"].rpartition(".")[2] == KINDS[what]
    assert any("fail" in place for place in crashed["trace"])
    assert not leaks(response.content, str(response.headers), around.raw, await around.figures())
    assert not leaks(*capfd.readouterr())


async def test_s24_a_line_about_an_error_tells_its_type_its_causes_and_the_way_it_came(
    around: Around, client: Client
) -> None:
    await client.get("/raises/cause")
    (crashed,) = [line for line in around.lines if line["event"] == "crashed"]
    assert crashed["error"] == "RuntimeError"
    assert crashed["causes"][0].startswith("KeyError at ")
    assert crashed["trace"][-1].split()[0].startswith(f"{__name__}:")
    assert crashed["trace"][-1].split()[1] == "fail"


def test_s24_teeth_an_ordinary_traceback_would_tell() -> None:
    for what in KINDS.keys() - {"recursion", "odd"}:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever
            fail(what, CANARY)
        assert leaks("".join(traceback.format_exception(caught.value)))


async def test_s24_teeth_starlettes_own_last_word_is_no_problem_document(app: FastAPI) -> None:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with Client(transport=transport, base_url=HERE) as client:
        response = await client.get("/raises/value")
    assert (response.status_code, response.text) == (500, "Internal Server Error")


@given(st.text(max_size=60), st.sampled_from([ValueError, KeyError, OSError, UnicodeError, LookupError, RuntimeError]))
@example_settings(max_examples=60, deadline=None)
def test_s24_no_word_of_any_error_is_ever_told(word: str, kind: type[Exception]) -> None:
    secret = f"{CANARY}{word}\n{CANARY}"

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        scope["secret"] = secret
        raise kind(secret) from ValueError(secret)

    around, told = Around(broken, Settings()), Told()
    asyncio.run(around.edge(asked("/x", query=secret.encode("utf-8", "replace")), nothing_more, told))
    assert told.status == 500
    assert not leaks(told.body, around.raw)
    assert around.raw.count(b"\n") == len(around.lines) == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidChangeError("no", "chunks/1"), 422),
        (StoreUnavailableError("hot", "busy"), 503),
        (TamperedError("Session x"), 500),
        (UnauthenticatedError("no token"), 401),
        (RateLimitedError("requests", 2.0), 429),
    ],
)
async def test_an_error_of_ours_that_nobody_dealt_with_has_its_own_status(
    settings: Settings, error: HoldfastError, status: int
) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    around = Around(broken, settings)
    async with around.client() as client:
        response = await client.get("/")
    assert refused(response, error.code, status)
    assert [line["event"] for line in around.lines] == (["request"] if status >= 500 else [])


async def test_an_answer_of_500_that_a_route_meant_is_left_as_it_is(around: Around, client: Client) -> None:
    response = await client.get("/500")
    assert (response.status_code, response.text) == (500, "known")
    assert [line["event"] for line in around.lines] == ["request"]


async def test_an_application_that_gives_no_answer_is_answered_for(settings: Settings) -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    around = Around(silent, settings)
    async with around.client() as client:
        assert refused(await client.get("/"), "service", 500)
    assert [line["event"] for line in around.lines] == ["crashed", "request"]


async def test_s24_an_answer_that_breaks_off_is_cut_and_never_looks_whole(
    around: Around, app: FastAPI, capfd: pytest.CaptureFixture[str]
) -> None:
    with around.logs.adopting():
        async with running(around.serving(app), around.settings.service) as address, Peer.to(address) as peer:
            await peer.send(request("GET", "/breaks-off"))
            with pytest.raises(ConnectionError):
                await peer.answer()
    crashed = [line["error"] for line in around.lines if line["event"] == "crashed"]
    assert crashed == ["ValueError"]
    assert not leaks(around.raw, *capfd.readouterr())


async def test_an_error_after_the_whole_answer_is_told_and_spoils_nothing(settings: Settings) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("whole")(scope, receive, send)
        raise ValueError(CANARY)

    around = Around(late, settings)
    async with around.client() as client:
        assert (await client.get("/")).text == "whole"
    assert [line["event"] for line in around.lines] == ["crashed"]


async def test_a_peer_that_goes_away_is_no_error(settings: Settings) -> None:
    async def leaving(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    around = Around(leaving, settings)
    await around.edge(asked("/"), nothing_more, Told())
    assert around.lines == []
    assert 'status="none"' in await around.figures()


async def test_a_request_that_is_cancelled_is_counted_and_the_cancellation_goes_on(settings: Settings) -> None:
    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    around = Around(waiting, settings)
    task = asyncio.create_task(around.edge(asked("/"), nothing_more, Told()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 'status="none"' in await around.figures()


async def test_a_web_socket_is_declined_and_a_lifespan_is_the_applications(settings: Settings) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    around, told = Around(app, settings), Told()
    await around.edge({"type": "websocket", "headers": [], "path": "/"}, nothing_more, told)
    assert [message["type"] for message in told.messages] == ["websocket.close"]
    await around.edge({"type": "lifespan"}, nothing_more, told)
    assert seen == ["lifespan"]


# -- what is counted and written down ----------------------------------------------------------------------------------


async def test_requests_are_counted_by_route_and_never_by_path(around: Around, client: Client) -> None:
    for name in range(5):
        await client.get(f"/things/{CANARY}{name}?q={CANARY}")
        await client.get(f"/nowhere/{CANARY}{name}")
        await client.request(f"METHOD{name}", f"/things/{CANARY}")
    figures = await around.figures()
    count = "holdfast_http_request_duration_seconds_count"
    assert f'{count}{{route="/things/{{name}}",method="GET",status="2xx"}} 5' in figures
    assert f'{count}{{route="none",method="GET",status="4xx"}} 5' in figures
    assert f'{count}{{route="/things/{{name}}",method="other",status="4xx"}} 5' in figures
    assert not leaks(figures, around.raw)
    assert {line["route"] for line in around.lines} == {"/things/{name}", "none"}


async def test_s25_the_refused_and_the_unknown_are_counted(settings: Settings) -> None:
    errors = iter([RateLimitedError("requests", 0.2), UnauthenticatedError("no"), RateLimitedError("requests", 0.2)])

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        raise next(errors)

    around = Around(refusing, settings)
    async with around.client() as client:
        limited = await client.get("/")
        assert limited.headers["retry-after"] == "1"
        await client.get("/")
        await client.get("/")
    figures = await around.figures()
    assert "holdfast_rate_limited_total 2.0" in figures
    assert "holdfast_unauthenticated_total 1.0" in figures


async def test_the_time_of_a_feed_is_the_time_to_its_beginning(settings: Settings) -> None:
    going = asyncio.Event()

    async def feed(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await going.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    around = Around(feed, settings)
    task = asyncio.create_task(around.edge(asked("/"), nothing_more, Told()))
    await asyncio.sleep(0)
    count = 'holdfast_http_request_duration_seconds_count{route="none",method="GET",status="2xx"} 1'
    assert count in await around.figures()
    going.set()
    await task
    assert count in await around.figures()


@pytest.mark.parametrize(("level", "written"), [("debug", [200, 404, 500]), ("info", [500]), ("error", [])])
async def test_every_request_is_a_line_at_debug_and_a_failed_one_always(
    app: FastAPI, settings: Settings, level: str, written: list[int]
) -> None:
    around = Around(app, settings, level)
    async with around.client() as client:
        for path in ("/ok", "/nothing", "/500"):
            await client.get(path)
    lines = [line for line in around.lines if line["event"] == "request"]
    assert [line["status"] for line in lines] == written
    assert {line["level"] for line in lines if line["status"] == 500} <= {"warning"}
    assert all(line.keys() == {"at", "level", "event", "method", "route", "status", "ms", "request"} for line in lines)
