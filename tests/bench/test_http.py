"""The rows of HTTP: that both sides are asked the same, and that what does not count is not counted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from holdfast.bench import http, report, run, servers, workloads
from holdfast.bench.connection import HOST, Connection, request
from holdfast.bench.rounds import Plan
from holdfast.bench.server import bare, either

TINY = Plan(rounds=1, seconds=0.02, warm=0.05, edits=10, patience=5.0, sessions=2)


# -- the two sides -----------------------------------------------------------------------------------------------------


async def test_the_floor_answers_an_edit_and_a_read_with_the_bytes_of_ours(tmp_path: Path) -> None:
    async with http.served(tmp_path) as port, http.come(tmp_path, port, 1) as (client,):
        await http.teach(client)
        assert (await client.bare_read()).body != (await client.bare_edit()).body
        before = await client.read()
        assert (await client.bare_read()).body != before.body, "the floor made an answer of its own"
        again = await client.edit()
        assert json.loads((await client.bare_edit()).body).keys() == json.loads(again.body).keys()


async def test_an_edit_is_one_commit_that_a_read_sees(tmp_path: Path) -> None:
    async with http.served(tmp_path) as port, http.come(tmp_path, port, 2) as (one, other):
        for _ in range(3):
            await one.edit()
        read = json.loads((await one.read()).body)
        assert (read["id"], read["version"], len(read["items"])) == (one.session, 4, workloads.FEW)
        assert {len(json.dumps(item["body"], separators=(",", ":"))) for item in read["items"]} == {
            workloads.ITEM_BYTES
        }
        assert json.loads((await other.read()).body)["version"] == 1


async def test_an_edit_that_is_refused_is_not_measured(tmp_path: Path) -> None:
    async with http.served(tmp_path) as port, http.come(tmp_path, port, 1) as (client,):
        stale = client.tag
        await client.edit()
        client.tag = stale
        with pytest.raises(LookupError, match="412"):
            await client.edit()


async def test_the_server_ends_with_the_block_and_leaves_nobody_listening(tmp_path: Path) -> None:
    async with http.served(tmp_path) as port:
        connection = await Connection.to(port)
        assert (await connection.ask(request("GET", "/health/live"))).status == 200
        connection.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await Connection.to(port)


async def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("no token")
    with pytest.raises(RuntimeError, match="token file"):
        async with http.served(tmp_path):
            pass


async def test_the_path_says_which_application_a_request_is_for() -> None:
    transport = httpx2.ASGITransport(either(bare(), bare()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.put("/bare/read", content=b"[1]")).status_code == 200
        assert (await client.get("/bare/read")).content == b"[1]"
    ours = bare()

    @ours.get("/else")
    async def other() -> str:
        return "ours"

    transport = httpx2.ASGITransport(either(ours, bare()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/else")).json() == "ours"
        assert (await client.get("/bare/else")).status_code in (404, 405)


# -- requests that are spread out --------------------------------------------------------------------------------------


async def test_clients_ask_in_turn_and_once_a_round() -> None:
    asked: list[int] = []

    def ask(number: int) -> http.Ask:
        async def one() -> None:
            asked.append(number)

        return one

    paced = http.Paced([ask(number) for number in range(6)], pace=0.06)
    assert len(await paced(0.04)) == len(http.SHARES)
    assert sorted(asked) == [0, 1, 2, 3]
    await paced(0.02)
    assert sorted(asked) == [0, 1, 2, 3, 4, 5]
    asked.clear()
    await paced(60.0)
    assert sorted(asked) == [0, 1, 2, 3, 4, 5], "somebody asked twice in one round"


# -- the connection ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _answering(*pieces: bytes) -> AsyncIterator[Connection]:
    """A connection to somebody who sends these pieces, one by one, to each request, and hangs up at an empty one."""

    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for piece in filter(None, pieces):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)  # so that each piece is on its way alone
                if not all(pieces):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            gone.set()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        connection = await Connection.to(server.sockets[0].getsockname()[1])
        try:
            yield connection
        finally:
            connection.close()
            await gone.wait()


async def test_an_answer_in_pieces_is_put_together() -> None:
    pieces = (b"HTTP/1.1 200 OK\r\ncontent-le", b'ngth: 6\r\netag: "3.3-ab"\r\n\r\nto', b"get", b"h")
    async with _answering(*pieces) as connection:
        for _ in range(2):
            answer = await connection.ask(request("GET", "/"))
            assert (answer.status, answer.tag, answer.body) == (200, b'"3.3-ab"', b"togeth")


async def test_an_answer_without_a_body_or_a_tag_is_whole_too() -> None:
    async with _answering(b"HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n") as connection:
        answer = await connection.ask(request("GET", "/"))
        assert (answer.status, answer.tag, answer.body) == (204, b"", b"")


async def test_a_connection_that_ends_is_no_answer() -> None:
    async with _answering(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nto", b"") as connection:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await connection.ask(request("GET", "/"))


# -- without a server --------------------------------------------------------------------------------------------------


async def test_without_what_a_server_needs_the_rows_are_left_out_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)  # as if it were not installed
    monkeypatch.setattr(servers, "program", lambda *names: None)
    monkeypatch.setattr(workloads, "WORKLOADS", (workloads.load20,))
    assert [row.name for row in await run(folder=tmp_path, plan=TINY)] == ["embedded.load20"]
    told = dict(report.described(report.machine(tmp_path, quick=True)))
    assert told["http"] == "left out: fastapi not installed; pip install 'holdfast[server]'"


def test_with_it_the_machine_says_by_what_it_is_served(tmp_path: Path) -> None:
    assert "uvicorn" in report.machine(tmp_path, quick=True)["http"]
