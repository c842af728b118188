"""The application whole: what is served, whoever serves it, and what it writes and counts of its own life."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from holdfast.service.app import application
from holdfast.service.edge import SECURITY
from holdfast.settings import Settings
from holdfast.testing.front import ADDRESS, ADMIN, ANA, Front, opened
from holdfast.testing.issuer import Issuer
from holdfast.testing.peers import Peer, request
from holdfast.testing.serving import served

HUNG = 20.0


# -- its parts ---------------------------------------------------------------------------------------------------------


async def test_another_server_gets_it_whole_and_opens_it_by_the_lifespan_protocol(
    believing: Settings, issuer: Issuer
) -> None:
    """Embedded, it has its edge and its lines as under ``holdfast serve``."""
    app = application(believing)
    asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    told: asyncio.Queue[Any] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan", "asgi": {}, "state": {}}, asked.get, told.put))
    asked.put_nowait({"type": "lifespan.startup"})
    assert (await asyncio.wait_for(told.get(), HUNG))["type"] == "lifespan.startup.complete"
    token = issuer.token(ANA.id, tenant=ANA.tenant, roles=[])
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url=ADDRESS, headers={"authorization": f"Bearer {token}"}
    ) as client:
        made = await client.post("/v1/sessions", json={"kind": "knowledge"})
        assert made.status_code == 201
        assert {name.decode() for name, _ in SECURITY} | {"x-request-id"} <= set(made.headers)
        too_much = await client.post("/v1/sessions", content=b"x" * (believing.service.body_bytes + 1))
        assert too_much.status_code == 413
    asked.put_nowait({"type": "lifespan.shutdown"})
    assert (await asyncio.wait_for(told.get(), HUNG))["type"] == "lifespan.shutdown.complete"
    await lifespan
    assert app.service.stopping.is_set()


async def test_it_tells_of_its_own_life_once_each(tmp_path: Path) -> None:
    async with served(home=tmp_path / "home") as service:
        async with httpx2.AsyncClient(base_url=service.address, headers=service.headers) as client:
            made = await client.post("/v1/sessions", json={"kind": "knowledge"})
            async with client.stream("GET", f"{made.headers['location']}/events") as feed:
                lines = feed.aiter_lines()
                assert await anext(lines) == "retry: 1000"
                service.process.send_signal(signal.SIGTERM)
                assert "event: end" in [line async for line in lines]
        assert await service.process.wait() == 0
        written = [json.loads(line) for line in service.log.splitlines()]
        assert "Traceback" not in service.log
        told = [line for line in written if line["event"].startswith("service_")]
    assert [line["event"] for line in told] == ["service_started", "service_stopping", "service_stopped"]
    assert told[1]["streams"] == 1


async def test_keys_that_cannot_be_had_are_in_the_lines_and_in_the_figures(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    issuer = Issuer("RS")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    auth = replace(issuer.auth(), keys=f"http://127.0.0.1:{port}/keys.json")
    app = application(replace(settings, auth=auth))
    async with app.lifespan():
        token = issuer.token(ADMIN.id, roles=["admin"])
        headers = {"authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ADDRESS, headers=headers) as client:
            assert (await client.get("/v1/whoami")).status_code == 503
        figures = (await app.service.meters.render()).decode()
    assert 'holdfast_failures_total{what="keys"} 0.0' not in figures
    assert 'holdfast_failures_total{what="keys"}' in figures
    events = [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()]
    assert "keys_failed" in events


# -- who asks ----------------------------------------------------------------------------------------------------------


async def test_s06_a_request_that_says_twice_who_asks_is_refused(front: Front) -> None:
    """A proxy in front may go by the other one."""
    right, wrong = f"Bearer {front.token(ANA)}", f"Bearer {front.token(ADMIN)}"
    nobody = await front.client(None)
    for given in ((right, wrong), (wrong, right), (right, right), (right, ""), ("Basic x", right)):
        answer = await nobody.get("/v1/whoami", headers=[("authorization", one) for one in given])
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), given
        assert "www-authenticate" in answer.headers
    assert (await nobody.get("/v1/whoami", headers={"authorization": right})).json()["id"] == ANA.id


# -- bodies ------------------------------------------------------------------------------------------------------------


def nested(levels: int) -> Any:
    body: Any = 1
    for _ in range(levels):
        body = {"a": body}
    return body


@pytest.mark.parametrize("depth", [8, 200])
async def test_a_body_may_be_as_deep_as_the_settings_let_an_item_be(
    believing: Settings, issuer: Issuer, depth: int
) -> None:
    deep = replace(believing, limits=replace(believing.limits, depth=depth))
    async with opened(deep, issuer) as front:
        ana, (address, tag) = await front.client(ANA), await front.make()
        body = {"text": "x", "metadata": {"deep": nested(depth - 3)}}
        headers = {"if-match": tag}
        put = await ana.put(f"{address}/items/chunks/0001", json=body, headers=headers)
        assert put.status_code == 200, put.text
        headers = {"if-match": put.headers["etag"]}
        changes = {"changes": [{"put": "chunks/0002", "body": body}]}
        assert (await ana.patch(address, json=changes, headers=headers)).status_code == 200
        far = await ana.put(f"{address}/items/chunks/0001", json=nested(depth + 17), headers=headers)
        assert (far.status_code, far.json()["code"], far.json()["maximum"]) == (422, "limit-exceeded", depth + 16)


BEGINNINGS = {
    "appl": b'{"text": "The moon',
    "mult": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.md"\r\n\r\nThe moon',
}


@pytest.mark.parametrize(
    ("method", "path", "media"),
    [
        ("PUT", "/items/chunks/0001", "application/json"),
        ("PATCH", "", "application/merge-patch+json"),
        ("POST", "/v1/ingest", "multipart/form-data; boundary=x"),
    ],
)
async def test_a_peer_that_leaves_in_the_middle_of_its_body_is_nobody_s_failure(
    believing: Settings, issuer: Issuer, capfd: pytest.CaptureFixture[str], method: str, path: str, media: str
) -> None:
    """No line tells of an error, and it is counted as a request without an answer."""
    settings = replace(believing, service=replace(believing.service, log="debug"))
    async with opened(settings, issuer) as front, front.listening() as service:
        address, tag = await front.make()
        target = path if path.startswith("/v1") else f"{address}{path}"
        fields = [f"Authorization: Bearer {front.token(ANA)}", f"Content-Type: {media}"]
        if not path.startswith("/v1"):
            fields.append(f"If-Match: {tag}")
        async with Peer.to(service) as peer:
            await peer.send(request(method, target, *fields, "Content-Length: 100000") + BEGINNINGS[media[:4]])
            await asyncio.sleep(0.1)  # so that it is under way
        admin = await front.client(ADMIN, service)
        async with asyncio.timeout(HUNG):
            while f'method="{method}",status="none"' not in (figures := (await admin.get("/metrics")).text):
                await asyncio.sleep(0.02)
        assert 'status="5xx"' not in figures
        header = await front.engine.header(address.rpartition("/")[2], ADMIN)
        assert header.version == 1
    written = capfd.readouterr().err
    assert [one for one in ("crashed", "Traceback", "Disconnect", "library", '"error"') if one in written] == []


async def test_a_long_body_that_nobody_wanted_ends_the_connection(front: Front) -> None:
    """And a short one does not: to read past it costs less than another connection."""
    async with front.listening() as service:
        for length, closes in ((10, False), (65_536, False), (65_537, True)):
            async with Peer.to(service) as peer:
                head = request("POST", "/v1/sessions", "Content-Type: application/json", f"Content-Length: {length}")
                await peer.send(head)
                answer = await peer.answer()
                assert answer.status == 401
                assert (answer.headers.get("connection") == "close") is closes, length
                if not closes:
                    await peer.send(b"x" * length + request("GET", "/health/live"))
                    assert (await peer.answer()).status == 200
        async with Peer.to(service) as peer:
            await peer.send(request("POST", "/v1/sessions", "Transfer-Encoding: chunked"))
            assert (await peer.answer()).headers["connection"] == "close"
            assert await peer.ended(within=HUNG)


# -- what an edit is called --------------------------------------------------------------------------------------------


async def test_an_edit_has_the_name_its_author_gave_it(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    text = {"text": "The moon draws it."}
    for method, path, body, media in (
        ("PATCH", "", {"changes": [{"put": "chunks/0001", "body": text}]}, "application/json"),
        ("PATCH", "/items/chunks/0001", {"text": "It draws."}, "application/merge-patch+json"),
        ("PUT", "/items/chunks/0002", text, "application/json"),
        ("DELETE", "/items/chunks/0002", None, ""),
    ):
        headers = {"if-match": tag, **({"content-type": media} if media else {})}
        content = None if body is None else json.dumps(body).encode()
        answer = await ana.request(method, f"{address}{path}?operation=reword", headers=headers, content=content)
        assert answer.status_code == 200, answer.text
        tag = answer.headers["etag"]
    entries = (await ana.get(f"{address}/history")).json()
    assert [entry["operation"] for entry in entries] == [*["reword"] * 4, "create"]


@pytest.mark.parametrize("name", ["publish", "undo", "Reword", "two words", "end", "a%0Ab", ""])
async def test_an_edit_is_not_called_what_something_else_is(front: Front, ana: httpx2.AsyncClient, name: str) -> None:
    address, tag = await front.make()
    changes = {"changes": [{"delete": "chunks/0001"}]}
    answer = await ana.patch(f"{address}?operation={name}", json=changes, headers={"if-match": tag})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-change")
    assert (await ana.get(f"{address}/header")).json()["version"] == 1
