"""The edge: what every request passes and every answer carries.

S20 (bodies), S23 (headers on all answers, CORS), S25 (TRACE is off), and the guard of local mode against DNS rebinding.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from fastapi import FastAPI, Request
from msgspec.structs import replace
from starlette.responses import Response, StreamingResponse

from holdfast.service.edge import REQUEST_ID, SECURITY
from holdfast.service.logs import REQUEST
from holdfast.settings import Settings
from holdfast.settings.sections import Auth, Service
from holdfast.testing.edged import HERE, Around, Told, asked, nothing_more
from holdfast.testing.front import ADMIN, ANA, Front
from holdfast.testing.peers import Peer, request, running

ISSUER = Auth(issuer="https://issuer.test", audience="holdfast", keys="file:///nowhere.json")

Client = httpx2.AsyncClient


def routes() -> FastAPI:
    app = FastAPI(openapi_url=None, telemetry={"tracing": False, "metrics": False})
    app.state.seen = []

    @app.get("/ok")
    async def ok() -> Response:
        return Response(b"{}", media_type="application/json")

    @app.get("/things/{name}")
    async def thing(name: str) -> Response:
        return Response(name.encode())

    @app.get("/sets")
    async def sets() -> Response:
        return Response(b"", headers={"cache-control": "max-age=60", "content-security-policy": "default-src 'self'"})

    @app.api_route("/body", methods=["POST", "PUT"])
    async def body(request: Request) -> Response:
        taken = 0
        async for part in request.stream():
            taken += len(part)
            app.state.seen.append(len(part))
        return Response(str(taken).encode())

    @app.post("/masks")
    async def masks(request: Request) -> Response:
        try:
            await request.body()
        except Exception:
            return Response(b"all is well")
        return Response(b"whole")

    @app.get("/id")
    async def identity(request: Request) -> Response:
        return Response(f"{request.scope[REQUEST_ID]} {REQUEST.get()}".encode())

    @app.get("/raises/value")
    async def raises() -> Response:
        raise ValueError

    @app.get("/500")
    async def deliberate() -> Response:
        return Response(b"known", 500, media_type="text/plain")

    @app.get("/feed")
    async def feed() -> Response:
        return StreamingResponse(iter([b"data: 1\n\n"]), media_type="text/event-stream")

    return app


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


def is_guarded(response: httpx2.Response) -> bool:
    """Whether an answer carries every header that every answer is to carry, each once."""
    names = [name.lower() for name, _ in response.headers.multi_items()]
    wanted = [name.decode() for name, _ in SECURITY] + ["x-request-id"]
    return all(names.count(name) == 1 for name in wanted)


# -- S23: the headers of every answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ok", 200),
        ("GET", "/sets", 200),
        ("GET", "/nothing", 404),
        ("GET", "/things/", 404),
        ("DELETE", "/ok", 405),
        ("OPTIONS", "/ok", 405),
        ("TRACE", "/ok", 405),
        ("FROBNICATE", "/ok", 405),
        ("GET", "/raises/value", 500),
        ("GET", "/500", 500),
        ("GET", "/feed", 200),
    ],
)
async def test_s23_every_answer_carries_the_security_headers_once(
    client: Client, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert is_guarded(response)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"] or path == "/sets"


async def test_s23_what_a_route_has_set_is_left_as_it_is(client: Client) -> None:
    response = await client.get("/sets")
    assert response.headers["cache-control"] == "max-age=60"
    assert response.headers["content-security-policy"] == "default-src 'self'"
    assert (await client.get("/ok")).headers["cache-control"] == "no-store"


async def test_s23_teeth_an_answer_without_the_edge_does_not_pass(app: FastAPI) -> None:
    async with Client(transport=httpx2.ASGITransport(app), base_url=HERE) as client:
        assert not is_guarded(await client.get("/ok"))


async def test_s23_every_route_of_the_service_is_guarded_for_whoever_asks(front: Front, nobody: Client) -> None:
    count = 0
    ana, admin = await front.client(ANA), await front.client(ADMIN)
    for path, operations in front.document["paths"].items():
        for method in operations:
            for client in (nobody, ana, admin) if method == "get" and "events" not in path else (nobody,):
                response = await client.request(method, path.format_map(Anything()))
                assert is_guarded(response), (method, path, response.status_code)
                count += 1
    for path in ("/", "/page/page.js", "/nothing/at/all", "/v1/sessions/%00", "/openapi.json", "/metrics"):
        assert is_guarded(await nobody.get(path)), path
    assert count > 60


class Anything(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "x"


# -- request ids -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wished", ["a", "A-z_0.9", "x" * 64, "7f3a-b2"])
async def test_a_well_formed_request_id_is_taken_over(client: Client, wished: str) -> None:
    response = await client.get("/id", headers={"x-request-id": wished})
    assert response.headers["x-request-id"] == wished
    assert response.text == f"{wished} {wished}"


@pytest.mark.parametrize(
    "wished", ["", "x" * 65, "a b", "a\tb", "a;b", '{"a":1}', "a\x7f", "é", "../x", "a,b", "\x1b[31m"]
)
async def test_any_other_is_replaced(around: Around, client: Client, wished: str) -> None:
    response = await client.get("/id", headers={b"x-request-id": wished.encode("latin-1")})
    given = response.headers["x-request-id"]
    assert given
    assert given != wished
    assert set(given) <= set("0123456789abcdef-")
    assert around.lines[-1]["request"] == given


async def test_request_ids_do_not_come_twice(around: Around, app: FastAPI, settings: Settings, client: Client) -> None:
    async with Around(app, settings).client() as other:
        ids = [(await one.get("/ok")).headers["x-request-id"] for one in (client, other) for _ in range(50)]
    assert len(set(ids)) == 100


# -- CORS --------------------------------------------------------------------------------------------------------------

STUDIO = "https://studio.example.org"


@pytest.fixture
async def opened(app: FastAPI, settings: Settings) -> AsyncIterator[Client]:
    """A service that one origin may call."""
    asked = replace(settings, service=Service(origins=(STUDIO,)))
    async with Around(app, asked).client() as client:
        yield client


def cors(response: httpx2.Response) -> list[str]:
    return [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("origin", [STUDIO, "null", HERE, "*", ""])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_s23_no_origin_is_let_in_by_default(client: Client, origin: str, method: str) -> None:
    headers = {"origin": origin, "access-control-request-method": "PATCH"}
    response = await client.request(method, "/ok", headers=headers)
    assert cors(response) == []
    assert response.status_code == (200 if method == "GET" else 405)


async def test_s23_an_origin_of_the_settings_may_ask_and_read(opened: Client) -> None:
    for path in ("/ok", "/nothing", "/raises/value"):
        response = await opened.get(path, headers={"origin": STUDIO})
        assert response.headers["access-control-allow-origin"] == STUDIO
        exposed = response.headers["access-control-expose-headers"].split(", ")
        assert {"ETag", "Location", "Retry-After", "Sunset", "X-Request-Id"} <= set(exposed)
        assert "access-control-allow-credentials" not in response.headers
        assert response.headers["vary"] == "Origin"


async def test_s23_the_preflight_of_an_origin_of_the_settings_is_answered(opened: Client) -> None:
    headers = {"origin": STUDIO, "access-control-request-method": "PATCH", "access-control-request-headers": "if-match"}
    response = await opened.options("/things/x", headers=headers)
    assert response.status_code == 204
    assert is_guarded(response)
    assert "PATCH" in response.headers["access-control-allow-methods"].split(", ")
    allowed = set(response.headers["access-control-allow-headers"].lower().split(", "))
    assert {"authorization", "content-type", "if-match", "idempotency-key", "last-event-id", "prefer"} <= allowed
    assert response.headers["access-control-allow-origin"] == STUDIO


@pytest.mark.parametrize(
    "origin",
    [
        "https://studio.example.org.evil.test",
        "https://evil-studio.example.org",
        "http://studio.example.org",
        "https://studio.example.org:8443",
        "https://STUDIO.example.org",
        "https://studio.example.org/",
        "null",
        f"{STUDIO}, https://evil.test",
    ],
)
async def test_s23_an_origin_that_is_not_of_the_settings_is_not_let_in(opened: Client, origin: str) -> None:
    headers = {"origin": origin, "access-control-request-method": "GET"}
    for method, status in (("GET", 200), ("OPTIONS", 405)):
        response = await opened.request(method, "/ok", headers=headers)
        assert (response.status_code, cors(response)) == (status, [])
        assert response.headers["vary"] == "Origin"


# -- S20: bodies -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(app: FastAPI, settings: Settings) -> Around:
    """A service that takes a thousand bytes, and uploads of five hundred and what is around them."""
    limits = replace(settings.limits, source_bytes=500)
    return Around(app, replace(settings, service=Service(body_bytes=1_000), limits=limits))


def chunks(size: int, count: int) -> Callable[[], AsyncIterator[bytes]]:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * size

    return parts


def refused(response: httpx2.Response, code: str, status: int) -> bool:
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    return (told["code"], told["status"], response.status_code) == (code, status, status) and is_guarded(response)


async def test_s20_a_body_up_to_the_limit_is_taken(small: Around) -> None:
    async with small.client() as client:
        assert (await client.post("/body", content=b"x" * 1_000)).text == "1000"
        assert (await client.post("/body", content=chunks(100, 10)())).text == "1000"


async def test_s20_a_body_that_says_it_is_longer_is_refused_unread(small: Around, app: FastAPI) -> None:
    async with small.client() as client:
        response = await client.post("/body", content=b"x" * 1_001)
    assert refused(response, "request-too-large", 413)
    assert response.headers["connection"] == "close"
    assert response.json()["maximum"] == 1_000
    assert response.json()["request"] == response.headers["x-request-id"]
    assert app.state.seen == []


@pytest.mark.parametrize("path", ["/body", "/masks"])
async def test_s20_a_body_that_does_not_say_is_counted_whatever_the_route_makes_of_it(
    small: Around, app: FastAPI, path: str
) -> None:
    async with small.client() as client:
        response = await client.post(path, content=chunks(300, 1_000)())
    assert refused(response, "request-too-large", 413)
    assert response.headers["connection"] == "close"
    assert sum(app.state.seen) <= 1_000


async def test_s20_teeth_without_the_edge_a_body_is_taken_whole(app: FastAPI) -> None:
    async with Client(transport=httpx2.ASGITransport(app), base_url=HERE) as client:
        assert (await client.post("/body", content=chunks(300, 1_000)())).text == "300000"


@pytest.mark.parametrize("length", ["-1", "1e3", "+5", "0x10", "1_0", "", " ", "9" * 40, "ten"])
async def test_s20_a_length_that_is_no_number_is_refused(small: Around, app: FastAPI, length: str) -> None:
    async with small.client() as client:
        response = await client.post("/body", headers={"content-length": length}, content=chunks(1, 1)())
    assert refused(response, "invalid-request", 400)
    assert app.state.seen == []


@pytest.mark.parametrize("media", ["multipart/form-data; boundary=x", "Multipart/Form-Data;boundary=x"])
async def test_s20_an_upload_has_a_limit_of_its_own(small: Around, media: str) -> None:
    async with small.client(**{"content-type": media}) as client:
        assert (await client.post("/body", content=b"x" * 1_000_500)).text == "1000500"
        assert refused(await client.post("/body", content=b"x" * 1_000_501), "request-too-large", 413)
        assert refused(await client.post("/body", content=chunks(10_000, 200)()), "request-too-large", 413)


async def test_s20_an_upload_may_also_be_bounded_below_other_bodies(app: FastAPI, settings: Settings) -> None:
    limits = replace(settings.limits, source_bytes=1)
    around = Around(app, replace(settings, service=Service(body_bytes=2_000_000), limits=limits))
    upload = {"content-type": "multipart/form-data"}
    async with around.client() as client:
        assert (await client.post("/body", content=b"x" * 2_000_000)).text == "2000000"
        assert refused(await client.post("/body", content=b"x" * 1_000_002, headers=upload), "request-too-large", 413)
        assert refused(
            await client.post("/body", content=chunks(50_000, 30)(), headers=upload), "request-too-large", 413
        )


async def test_s20_a_chunked_body_without_end_is_refused_on_a_real_connection(app: FastAPI, small: Around) -> None:
    async with running(small.serving(app), small.settings.service) as address, Peer.to(address) as peer:
        await peer.send(request("POST", "/masks", "Transfer-Encoding: chunked"))
        for _ in range(8):
            await peer.send(b"c8\r\n" + b"x" * 200 + b"\r\n")
        answer = await peer.answer()
        assert (answer.status, answer.json["code"]) == (413, "request-too-large")
        assert await peer.ended(within=10)


# -- the host, and the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8420", "127.8.9.1", "[::1]:80"])
async def test_a_local_service_answers_under_loopback_names(client: Client, host: str) -> None:
    for _ in range(2):
        assert (await client.get("/ok", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:8420",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "127.0.0.1@evil.test",
        "10.0.0.1",
        "0.0.0.0",
        "[2001:db8::1]",
        "[::ffff:10.0.0.1]",
        "localhost:80:80",
        "localhost:port",
        "localhost.",
        "",
        "é",
    ],
)
async def test_a_local_service_answers_under_no_other_name(around: Around, client: Client, host: str) -> None:
    """DNS rebinding: a page whose own name was made to lead to this machine asks under that name."""
    response = await client.get("/things/x", headers={b"host": host.encode("latin-1"), b"origin": b"http://evil.test"})
    assert refused(response, "invalid-request", 400)
    assert cors(response) == []
    assert host not in response.text or not host
    assert host not in around.raw.decode() or not host


async def test_a_request_without_a_host_is_not_answered_locally(around: Around) -> None:
    scope, told = asked("/ok", headers=[]), Told()
    await around.edge(scope, nothing_more, told)
    assert told.status == 400


async def test_a_service_with_an_issuer_leaves_its_name_to_whoever_runs_it(app: FastAPI, settings: Settings) -> None:
    async with Around(app, replace(settings, auth=ISSUER)).client() as client:
        assert (await client.get("/ok", headers={"host": "holdfast.example.org"})).status_code == 200


async def test_while_stopping_new_requests_are_told_so_and_its_health_is_still_known(
    around: Around, client: Client, app: FastAPI
) -> None:
    app.add_api_route("/health/live", lambda: Response(b"alive"))
    around.stopping.set()
    for path in ("/ok", "/nothing", "/health/ready", "/health", "/health/live/"):
        response = await client.get(path)
        assert refused(response, "stopping", 503)
        assert response.headers["connection"] == "close"
        assert int(response.headers["retry-after"]) > 0
    assert (await client.get("/health/live")).text == "alive"
