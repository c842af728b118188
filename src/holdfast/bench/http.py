"""The workloads over HTTP: the service beside a bare FastAPI route that answers with the same bytes, on one server.

The server is a process of its own (``server.py``), asked from this one. Each client has a session and a connection.
Some of them, asking as fast as they are answered, show how much the server does in a second; all of them, each asking
once in a while as people do, how long one waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import msgspec

from holdfast.bench.connection import Answer, Connection, request
from holdfast.bench.report import Row
from holdfast.bench.rounds import Plan, Side, Sides, compare, compare_each, rate, until_wrapped
from holdfast.bench.workloads import FEW, FILE, TASKS, body_of, key_of

READY_SECONDS = 30.0
STOP_SECONDS = 15.0
OWN_FILES = 256
"""Files that are left to everything else, out of those the system lets this process open."""
SHARES = (50, 95, 99)

Ask = Callable[[], Awaitable[object]]

_encode = msgspec.json.Encoder().encode
_JSON = "content-type: application/json"


async def over_http(home: Path, plan: Plan) -> list[Row]:
    """Reads and edits of sessions of 20 items of 1 KB."""
    _make_room(plan.clients + OWN_FILES)
    async with served(home) as port, come(home, port, plan.clients) as clients:
        few = clients[:TASKS]
        await teach(few[0])

        def fast(ask: Callable[[Client], Awaitable[object]]) -> Side:
            return partial(rate, [partial(ask, client) for client in few])

        def paced(ask: Callable[[Client], Awaitable[object]]) -> Sides:
            return Paced([partial(ask, client) for client in clients], plan.pace)

        read, bare_read, edit, bare_edit = Client.read, Client.bare_read, Client.edit, Client.bare_edit
        for ask in (read, bare_read, bare_edit):
            await fast(ask)(plan.seconds / 4)
        await until_wrapped(home / FILE, fast(edit), plan.warm)
        return [
            await compare("http.read", "1/s", fast(read), fast(bare_read), plan.rounds, plan.seconds / 3),
            await compare("http.edit", "1/s", fast(edit), fast(bare_edit), plan.rounds, plan.seconds),
            *await compare_each(_names("http.read"), "µs", paced(read), paced(bare_read), plan.rounds, plan.seconds),
            *await compare_each(_names("http.edit"), "µs", paced(edit), paced(bare_edit), plan.rounds, plan.seconds),
        ]


class Client:
    """Somebody with a session of his own, which he reads whole, or edits an item at a time.

    Attributes:
        tag: of the state that was seen last; the next edit names it.
    """

    def __init__(self, connection: Connection, token: str, number: int) -> None:
        self._connection, self._token, self._number = connection, f"authorization: Bearer {token}", number
        self._numbers = itertools.count(number + FEW)
        self.session = ""
        self.tag = b""
        self._read = self._bare_read = b""

    async def create(self) -> None:
        """Make the session."""
        items = [{"key": key_of(at), "body": body_of(self._number + at)} for at in range(FEW)]
        made = _encode({"kind": "knowledge", "title": "Measured", "items": items})
        answer = await self._connection.ask(request("POST", "/v1/sessions", self._token, _JSON, body=made))
        told = msgspec.json.decode(_checked(answer, 201).body)
        self.session, self.tag = told["id"], answer.tag
        self._read = request("GET", f"/v1/sessions/{self.session}", self._token)
        self._bare_read = request("GET", "/bare/read", self._token)

    async def read(self) -> Answer:
        """The session, whole."""
        return _checked(await self._connection.ask(self._read))

    async def edit(self) -> Answer:
        """Put another body in the place of one item's, as the author of the state that was seen last."""
        answer = _checked(await self._connection.ask(self._change(f"/v1/sessions/{self.session}")))
        if _version(answer.tag) != _version(self.tag) + 1:
            raise LookupError("an edit that changed nothing measures nothing")
        self.tag = answer.tag
        return answer

    async def bare_read(self) -> Answer:
        """The same bytes, of the floor."""
        return _checked(await self._connection.ask(self._bare_read))

    async def bare_edit(self) -> Answer:
        """The same request and the same answer, of the floor."""
        return _checked(await self._connection.ask(self._change("/bare/edit")))

    async def teach(self, row: str, answer: bytes) -> None:
        """Tell the floor what it is to answer."""
        _checked(await self._connection.ask(request("PUT", f"/bare/{row}", body=answer)))

    def close(self) -> None:
        self._connection.close()

    def _change(self, path: str) -> bytes:
        number = next(self._numbers)
        change = {"put": key_of(number % FEW), "body": body_of(number)}
        fields = (f"if-match: {self.tag.decode()}", f'idempotency-key: "{secrets.token_urlsafe(16)}"')
        return request("PATCH", path, self._token, _JSON, *fields, body=_encode({"changes": [change]}))


# -- parts -------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(home: Path) -> AsyncIterator[int]:
    """The server, on a free port."""
    with tempfile.TemporaryFile() as said:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-P", "-m", "holdfast.bench.server", str(home))
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=said)
        try:
            yield await _port(process, said)
        finally:
            await _end(process)


async def _port(process: asyncio.subprocess.Process, said: IO[bytes]) -> int:
    if process.stdout is None:
        raise LookupError("the server has no output")
    line = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            line = await process.stdout.readline()
    if not line:
        said.seek(0)
        raise RuntimeError(f"the server to be measured did not come up: {said.read().decode(errors='replace')}")
    return int(line)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let it end, which it does when nobody is left to ask it."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.communicate(b"")
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise


@contextlib.asynccontextmanager
async def come(home: Path, port: int, count: int) -> AsyncIterator[list[Client]]:
    """So many clients, each with a session; 32 at a time come in."""
    token = (home / "token").read_text("ascii").strip()
    clients: list[Client] = []
    try:
        for at in range(0, count, TASKS):
            numbers = range(at, min(at + TASKS, count))
            connections = await asyncio.gather(*(Connection.to(port) for _ in numbers))
            new = [Client(connection, token, number) for number, connection in zip(numbers, connections, strict=True)]
            clients += new
            await asyncio.gather(*(client.create() for client in new))
        yield clients
    finally:
        for client in clients:
            client.close()


async def teach(client: Client) -> None:
    """Give the floor the bytes of a read and of an edit of ours, and see that it answers with them."""
    for row, ask, bare in (("read", client.read, client.bare_read), ("edit", client.edit, client.bare_edit)):
        answer = (await ask()).body
        await client.teach(row, answer)
        if (await bare()).body != answer:
            raise LookupError("the floor does not answer with the same bytes")


class Paced:
    """Requests spread out evenly: each client in turn, and each once every ``pace`` seconds."""

    def __init__(self, asks: Sequence[Ask], pace: float) -> None:
        self._asks, self._each = itertools.cycle(asks), pace / len(asks)
        self._most = len(asks)

    async def __call__(self, seconds: float) -> list[float]:
        """How long the answers took, in microseconds: at each of ``SHARES``. Goes on where it left off; nobody asks
        twice in one call, so that nobody has to wait for his own last answer.
        """
        count = min(max(2, round(seconds / self._each)), self._most)
        start = time.perf_counter()
        asks = enumerate(itertools.islice(self._asks, count))
        took = await asyncio.gather(*(_timed(ask, start + number * self._each) for number, ask in asks))
        shares = statistics.quantiles(took, n=100, method="inclusive")
        return [shares[share - 1] for share in SHARES]


async def _timed(ask: Ask, due: float) -> float:
    await asyncio.sleep(due - time.perf_counter())
    start = time.perf_counter_ns()
    await ask()
    return (time.perf_counter_ns() - start) / 1_000


def _names(name: str) -> list[str]:
    return [f"{name}.p{share}" for share in SHARES]


def _version(tag: bytes) -> int:
    """The version that a tag names, ``"7.9-0123456789abcdef"``."""
    return int(tag[1:].partition(b".")[0])


def _checked(answer: Answer, status: int = 200) -> Answer:
    if answer.status != status:
        raise LookupError(f"the server answered {answer.status}: {answer.body[:200]!r}")
    return answer


def _make_room(wanted: int) -> None:
    """Ask for as many files as this needs; the system's own bound stands."""
    try:
        import resource
    except ImportError:  # not POSIX: there is no such bound
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
