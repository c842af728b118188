"""The service in this process, as it is served, and those who ask it: with sockets or without.

For tests of what a route answers. What only a process can show needs ``serving.served``. Needs the [server] extra.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.engine.engine import Engine
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.testing.document import SOME, Ask, Operation
from holdfast.testing.issuer import Issuer

if TYPE_CHECKING:
    import httpx2
    from starlette.types import Message, Receive, Scope, Send

    from holdfast.service.app import Application

_FAILURE_HEADERS = {"allow", "holdfast-version", "retry-after", "www-authenticate"}

_DOCUMENT: list[dict[str, Any]] = []
"""The document of this process: it is every application's, and to make it takes longer than most tests."""

ADDRESS = "http://127.0.0.1:8420"

ANA, BEN, EVE = Principal("ana"), Principal("ben"), Principal("eve", "other")
ADMIN = Principal("ada", roles=frozenset({"admin", "operator"}))
AUDITOR = Principal("otto", roles=frozenset({"auditor"}))

CHUNKS: Mapping[str, Any] = {
    "chunks/0001": {"text": "The tide comes in."},
    "chunks/0002": {"text": "The tide goes out."},
}
"""The items of what ``Front.make`` makes."""


class Front:
    """The application, open, and a client of it for each principal, with a token of the issuer it believes.

    Each answer that a client gets is held against the OpenAPI document: a status, a media type or the code of a problem
    that is not told of there fails the test.

    Attributes:
        app: the application; ``edge`` is the application within its edge, which is what is asked.
    """

    def __init__(self, edge: Application, issuer: Issuer, opened: AsyncExitStack) -> None:
        from fastapi.routing import APIRoute

        self.edge, self.app, self.service = edge, edge.routes, edge.service
        self.issuer, self._opened = issuer, opened
        self._clients: dict[tuple[Principal | None, str], httpx2.AsyncClient] = {}
        if not _DOCUMENT:
            _DOCUMENT.append(self.document)
        self.app.openapi_schema = _DOCUMENT[0]
        paths = self.document["paths"]
        self._told = [
            (route.path_regex, method, paths[route.path_format][method.lower()])
            for route in self.app.routes
            if isinstance(route, APIRoute) and route.include_in_schema
            for method in route.methods or ()
        ]

    @property
    def engine(self) -> Engine:
        return self.service.engine

    @property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return self.app.openapi()

    def token(self, who: Principal, **claims: Any) -> str:
        """A token of a principal; ``claims`` go over what it says."""
        return self.issuer.token(who.id, **{"tenant": who.tenant, "roles": sorted(who.roles), **claims})

    async def client(self, who: Principal | None, address: str = "") -> httpx2.AsyncClient:
        """A client of a principal, None for somebody without a token; the same one each time.

        Args:
            address: what ``listening`` gave, to ask through a socket; without one a feed ends at once.
        """
        import httpx2

        name = who, address
        if name not in self._clients:
            headers = {} if who is None else {"authorization": f"Bearer {self.token(who)}"}
            transport = httpx2.AsyncHTTPTransport() if address else httpx2.ASGITransport(self._asked)
            client = httpx2.AsyncClient(
                transport=transport,
                base_url=address or ADDRESS,
                headers=headers,
                event_hooks={"response": [self._hold]},
            )
            self._clients[name] = await self._opened.enter_async_context(client)
        return self._clients[name]

    async def make(self, who: Principal = ANA, **more: Any) -> tuple[str, str]:
        """A new session of two chunks: its address and its tag."""
        items = [{"key": key, "body": body} for key, body in CHUNKS.items()]
        asked = {"kind": "knowledge", "title": "Tides", "items": items, **more}
        answer = await (await self.client(who)).post("/v1/sessions", json=asked)
        assert answer.status_code == 201, answer.text
        return answer.headers["location"], answer.headers["etag"]

    async def _asked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application within its edge, for a client without a socket; it cannot read on, so it leaves a feed."""

        async def gone() -> Message:
            return {"type": "http.disconnect"}

        await self.edge(scope, gone if scope["path"].endswith("/events") else receive, send)

    async def _hold(self, response: httpx2.Response) -> None:
        """Hold an answer against the document."""
        asked = response.request
        path, method = asked.url.path, asked.method
        operation = next((said for way, its, said in self._told if its == method and way.match(path)), None)
        if operation is None:
            return
        where = f"{method} {path}: {response.status_code}"
        answer = operation["responses"].get(str(response.status_code))
        assert answer is not None, f"{where} is not in the document"
        media = response.headers.get("content-type", "").partition(";")[0]
        content = answer.get("content", {})
        assert media in content or (not content and not media), f"{where} {media} is not in the document"
        if response.status_code >= 400:
            await response.aread()
            code = response.json()["code"]
            told = {name.lower() for name in answer.get("headers", {})}
            assert told == _FAILURE_HEADERS & set(response.headers), f"{where} has headers that are not in the document"
            assert code in content[media]["examples"], f"{where} {code} is not in the document"

    async def ready(self, operation: Operation) -> tuple[str, Ask]:
        """A session of ANA's in which an operation has something to do, and the request for it; no session where the
        operation is of none.

        The session has a commit that was undone, so there is one to redo; what else the operation starts from is made
        as well.
        """
        if not operation.of_session:
            return "", operation.ask()
        ana, (address, tag) = await self.client(ANA), await self.make()

        async def send(method: str, path: str, body: Any = None) -> dict[str, Any]:
            nonlocal tag
            headers = {} if path in ("/publish", "/leases") else {"if-match": tag}
            answer = await ana.request(method, f"{address}{path}", json=body, headers=headers)
            assert answer.status_code < 300, answer.text
            tag = answer.headers.get("etag", tag)
            told: dict[str, Any] = answer.json()
            return told

        await send("PUT", "/items/chunks/0003", {"text": "It comes again."})
        await send("POST", "/undo")
        name, seal = operation.name, ""
        if name in ("undo", "preview_undo"):
            await send("PUT", "/items/chunks/0003", {"text": "It comes once more."})
        elif name == "restore":
            for text in ("One.", "Two."):
                await send("PUT", "/items/chunks/0003", {"text": text})
        elif name == "operate_enable":
            await send("POST", "/operations/disable", {"keys": ["chunks/0001"]})
        elif name in ("unlock", "take_over", "publish", "list_receipts", "rollback", "reopen"):
            seal = (await send("POST", "/preview"))["seal"]
            if name in ("list_receipts", "rollback", "reopen"):
                await send("POST", "/publish", {"seal": seal})
        elif name == "withdraw":
            await send("PUT", f"/grants/{SOME['principal']}", {"role": "viewer"})
        elif name in ("renew_lease", "release_lease"):
            await send("POST", "/leases", {"holder": "a tab"})
        elif name == "revive_session":
            await send("DELETE", "")
        session = address.rpartition("/")[2]
        asked = operation.ask(session, **({"if-match": tag} if operation.takes("If-Match") else {}))
        return session, asked._replace(content=msgspec.json.encode({"seal": seal})) if name == "publish" else asked

    async def send(self, who: Principal | None, asked: Ask, **headers: str) -> httpx2.Response:
        """The answer to a request of somebody's."""
        client = await self.client(who)
        return await client.request(
            asked.method, asked.url, headers={**asked.headers, **headers}, content=asked.content
        )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """The same on our server, on a free port of this machine: its address. The service stops with the block."""
        from holdfast.service.server import Address, run

        ready: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
        bounds, stopping = self.service.settings.service, self.service.stopping
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            ran = run(self.edge, nullcontext(), bounds, listener, stopping=stopping, ready=ready.set_result)
            server = asyncio.create_task(ran)
            await asyncio.wait((server, ready), return_when=asyncio.FIRST_COMPLETED)
            try:
                if ready.done():
                    yield (await ready).url
            finally:
                stopping.set()
                await server


@asynccontextmanager
async def opened(settings: Settings, issuer: Issuer, **engine: Any) -> AsyncIterator[Front]:
    """An application of settings, its engine open until the end of the block; ``engine`` is what ``application``
    takes.
    """
    from holdfast.service.app import application

    async with AsyncExitStack() as stack:
        edge = application(settings, **engine)
        await stack.enter_async_context(edge.lifespan())
        yield Front(edge, issuer, stack)
