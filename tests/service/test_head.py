"""HEAD: what GET would say of itself, and not a byte of it (RFC 9110, 9.3.2)."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from holdfast.testing.document import operations
from holdfast.testing.front import ADMIN, ANA, Front
from holdfast.testing.peers import Peer, request

VARYING = {"x-request-id", "date"}
CHANGING = {"follow", "metrics", "session_audit", "tenant_audit"}  # another answer each time they are asked


def lasting(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in VARYING}


async def test_head_is_answered_as_get_is_without_the_body(front: Front) -> None:
    count = 0
    for operation in operations(front.document):
        if operation.method != "GET" or operation.name in CHANGING:
            continue
        _, asked = await front.ready(operation)
        got = await front.send(ADMIN, asked)
        head = await front.send(ADMIN, asked._replace(method="HEAD"))
        assert (head.status_code, lasting(head)) == (got.status_code, lasting(got)), operation.name
        assert (got.content != b"", head.content) == (True, b""), operation.name
        count += 1
    assert count > 20


async def test_a_tag_that_still_stands_is_a_304(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    assert (await ana.head(address, headers={"if-none-match": tag})).status_code == 304


async def test_head_on_sockets_leaves_the_connection_to_the_next_request(front: Front) -> None:
    address, _ = await front.make()
    token = f"Authorization: Bearer {front.token(ANA)}"
    async with front.listening() as service, Peer.to(service) as peer:
        for method, target, status in (("HEAD", address, 200), ("GET", address, 200), ("HEAD", "/v1/nothing", 404)):
            await peer.send(request(method, target, token))
            if method == "GET":
                assert (await peer.answer()).json["title"] == "Tides"
                continue
            head = await peer.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: "))
            assert int(length.split()[1]) > 100
        await peer.send(request("GET", "/health/live"))
        assert (await peer.answer()).json == {"status": "ok"}


async def test_head_on_a_feed_does_not_follow_it(front: Front) -> None:
    address, _ = await front.make()
    token = f"Authorization: Bearer {front.token(ANA)}"
    async with front.listening() as service, Peer.to(service) as peer, asyncio.timeout(20):
        await peer.send(request("HEAD", f"{address}/events", token))
        assert b"text/event-stream" in await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(request("GET", "/health/live"))
        while (line := await peer.reader.readline()) != b'{"status":"ok"}' and line:
            if not line.strip():
                assert await peer.reader.readexactly(15) == b'{"status":"ok"}'
                break
    assert front.service.meters.streams == 0


@pytest.mark.parametrize("path", ["/v1/ingest", "/v1/sessions/x/undo/x"])
async def test_where_there_is_no_get_there_is_no_head(ana: httpx2.AsyncClient, path: str) -> None:
    answer = await ana.head(path)
    assert answer.status_code in (404, 405)
    assert "HEAD" not in answer.headers.get("allow", "")


async def test_it_is_counted_as_what_it_is(front: Front, ana: httpx2.AsyncClient) -> None:
    address, _ = await front.make()
    await ana.head(address)
    figures = (await (await front.client(ADMIN)).get("/metrics")).text
    line = 'duration_seconds_count{route="/v1/sessions/{session}",method="HEAD",status="2xx"} 1'
    assert line in figures
