"""The edge of the service: what every request passes and every answer carries, whatever route it is for.

One ASGI class around the application, ``Edge(app, service)``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from itertools import count
from os import urandom
from time import perf_counter
from typing import Any, Protocol

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.errors import (
    HoldfastError,
    InvalidRequestError,
    RequestTooLargeError,
    ServiceError,
    StoppingError,
)
from holdfast.service.auth.local import is_loopback
from holdfast.service.logs import REQUEST, Logs
from holdfast.service.meters import NONE, Meters
from holdfast.service.problems import problem
from holdfast.settings import Settings

REQUEST_ID = "holdfast.request"
"""Where in the scope the id of a request is."""

_Headers = list[tuple[bytes, bytes]]

SECURITY: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
"""What every answer carries, unless its route has set the same header otherwise."""

_CLOSE = (b"connection", b"close")
_NAMES = frozenset(name for name, _ in SECURITY)
_READ = frozenset({b"host", b"origin", b"x-request-id", b"content-length", b"content-type", b"transfer-encoding"})
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_MULTIPART = b"multipart/form-data"
_FEED = b"text/event-stream"
_MULTIPART_MORE = 1_000_000  # bytes: what stands around the source in an upload
_UNREAD = 65_536  # bytes of a body that nobody wanted, and that are read past
_LIVE = "/health/live"
_MOST_HOSTS = 100

_TAKEN = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, X-Request-Id"
_SHOWN = b"ETag, Holdfast-Durability, Holdfast-Version, Location, Preference-Applied, Retry-After, Sunset, X-Request-Id"
_PREFLIGHT = {
    "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "access-control-allow-headers": _TAKEN,
    "access-control-max-age": "600",
}


class Shared(Protocol):
    """What the edge needs of the service."""

    @property
    def settings(self) -> Settings: ...
    @property
    def meters(self) -> Meters: ...
    @property
    def logs(self) -> Logs: ...
    @property
    def stopping(self) -> asyncio.Event: ...


class Edge:
    """Request ids, security headers, CORS, the bound on bodies, the last word on errors, and the time it all took.

    HEAD is answered as GET is, without the body (RFC 9110, 9.3.2); no route needs to know of it.
    """

    def __init__(self, app: ASGIApp, service: Shared) -> None:
        settings = service.settings
        self.app, self.meters, self.stopping, self.logs = app, service.meters, service.stopping, service.logs
        self.body_bytes = settings.service.body_bytes
        self.upload_bytes = settings.limits.source_bytes + _MULTIPART_MORE
        self.least_bytes = min(self.body_bytes, self.upload_bytes)
        self.origins = frozenset(origin.encode() for origin in settings.service.origins)
        self.prefix, self.numbers = urandom(6).hex(), count(1)
        self._is_local = settings.auth.issuer is None
        self._hosts: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        REQUEST.set(exchange.id)  # the server gives each request a context of its own
        failed: Exception | None = None
        try:
            refusal = exchange.refusal()
            if refusal is None:
                await self.app(exchange.scope, exchange.receive, exchange.send)
                if exchange.status == 0 and not await exchange.stand_by():
                    failed = RuntimeError("the application gave no answer")
            else:
                await refusal(exchange.scope, receive, exchange.send)
        except ClientDisconnect:
            pass
        except Exception as error:
            failed = error
        finally:
            if failed is None:
                exchange.end()
        if failed is not None:  # out of the block above, so that nothing of the error hangs on what is raised here
            try:
                cut = await exchange.fail(failed)
            finally:
                exchange.end()
            if cut is not None:
                raise cut

    def answers_to(self, host: bytes) -> bool:
        """Whether a request for this host is served. In local mode it must be a loopback name: a page whose own name
        was made to lead here (DNS rebinding) asks under that name.
        """
        if not self._is_local or host in self._hosts:
            return True
        if not is_loopback(host.decode("latin-1")):
            return False
        if len(self._hosts) < _MOST_HOSTS:
            self._hosts.add(host)
        return True


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "_closed",
        "_edge",
        "_given",
        "_held",
        "_is_feed",
        "_is_head",
        "_is_whole",
        "_receive",
        "_send",
        "_since",
        "_taken",
        "id",
        "scope",
        "status",
    )

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self._since = perf_counter()
        self._edge, self._receive, self._send = edge, receive, send
        self._is_head = scope["method"] == "HEAD"
        self.scope = scope = {**scope, "method": "GET"} if self._is_head else scope
        self._given = given = {name: value for name, value in scope["headers"] if name in _READ}
        wished = given.get(b"x-request-id")
        if wished is not None and _ID.fullmatch(wished) is not None:
            self.id = wished.decode()
        else:
            self.id = f"{edge.prefix}-{next(edge.numbers)}"
        scope[REQUEST_ID] = self.id
        self.status = self._taken = 0
        self._closed = self._is_feed = self._is_whole = False
        self._held: list[Message] = []

    def end(self) -> None:
        """Write down what has come of it."""
        edge, seconds = self._edge, perf_counter() - self._since
        route, method = template(self.scope), self._method
        if not self._is_feed:
            edge.meters.request(route, method, self.status, seconds)
        if self.status >= 500 or edge.logs.debugging:
            edge.logs.request(route, method, self.status, seconds)

    @property
    def _method(self) -> str:
        return "HEAD" if self._is_head else str(self.scope["method"])

    # -- what comes in -------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        if self._closed and self._is_head:
            return {"type": "http.disconnect"}  # to a feed that would go on
        message = await self._receive()
        if message["type"] == "http.request":
            self._taken += len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
            if self._taken > self._edge.least_bytes and self._taken > self._most:
                error = RequestTooLargeError("body", self._most)
                if self.status == 0:  # answered here, whatever the route makes of the error
                    await self._refused(error)(self.scope, self._receive, self.last)
                raise error
        return message

    @property
    def _most(self) -> int:
        """How many bytes the body may have: an upload more than another."""
        is_upload = self._given.get(b"content-type", b"")[: len(_MULTIPART)].lower() == _MULTIPART
        return self._edge.upload_bytes if is_upload else self._edge.body_bytes

    def refusal(self) -> Response | None:
        """The answer to a request that no route is to see."""
        edge, given, scope = self._edge, self._given, self.scope
        if not edge.answers_to(given.get(b"host", b"")):
            said = "a local service answers only under a loopback name, such as localhost"
            return self._refused(InvalidRequestError(said, "Host"))
        if edge.stopping.is_set() and scope["path"] != _LIVE:
            return self._refused(StoppingError())
        if scope["method"] == "OPTIONS" and given.get(b"origin") in edge.origins and _is_preflight(scope):
            return Response(None, 204, headers=_PREFLIGHT)
        length = given.get(b"content-length")
        if length is not None:
            if _LENGTH.fullmatch(length) is None:
                return self._refused(InvalidRequestError("this is not a number of bytes", "Content-Length"))
            if int(length) > edge.least_bytes and int(length) > self._most:
                return self._refused(RequestTooLargeError("body", self._most))
        return None

    # -- what goes out -------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        if self._closed:
            return
        # An answer of 500 is held back until the application has ended without an error: Starlette answers one that
        # nobody has foreseen in its own words, and raises it then.
        if self.status == 0 and (self._held or message.get("status") == 500):
            self._held.append(message)
            return
        await self._pass_on(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._closed = True

    async def last(self, message: Message) -> None:
        """Send a part of an answer after which there is no other."""
        await self._pass_on(message)
        self._closed = True

    async def _pass_on(self, message: Message) -> None:
        """Send a part of an answer; of one to HEAD the headers alone, and that is its end."""
        is_start = self.status == 0
        if is_start:
            self._begin(message)
        if is_start or not self._is_head:
            await self._send(message)
        if is_start and self._is_head:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._closed = True

    async def stand_by(self) -> bool:
        """Send the answer that was held back; whether there is one."""
        if self._held:
            for message in self._held:
                await self.last(message)
        return bool(self._held)

    def _begin(self, message: Message) -> None:
        self.status = message["status"]
        message["headers"] = self._headers(message.get("headers", ()))

    def _headers(self, set_: Iterable[tuple[bytes, bytes]]) -> _Headers:
        """The headers of the answer: those its route has set, and those every answer has."""
        edge, headers = self._edge, list(set_)
        names = dict(headers)
        if names.keys().isdisjoint(_NAMES):
            headers += SECURITY
        else:
            headers += [field for field in SECURITY if field[0] not in names]
        headers.append((b"x-request-id", self.id.encode()))
        if not self._is_whole and self._is_long and b"connection" not in names:
            headers.append(_CLOSE)
        if edge.origins:
            headers.append((b"vary", b"Origin"))
            origin = self._given.get(b"origin")
            if origin in edge.origins and origin is not None:
                headers += ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", _SHOWN))
        if names.get(b"content-type", b"").startswith(_FEED):  # it lasts as long as its reader likes
            self._is_feed = True
            edge.meters.request(template(self.scope), self._method, self.status, perf_counter() - self._since)
        return headers

    @property
    def _is_long(self) -> bool:
        """Whether a body comes, or may come, that is not to be read past for the sake of the connection."""
        length = self._given.get(b"content-length")
        return b"transfer-encoding" in self._given or (
            length is not None and len(length) > 4 and _LENGTH.fullmatch(length) is not None and int(length) > _UNREAD
        )

    def _refused(self, error: HoldfastError) -> Response:
        """The answer to a request whose body nobody reads: the connection ends with it."""
        answer = problem(error, self.id)
        answer.raw_headers.append(_CLOSE)
        return answer

    async def fail(self, error: Exception) -> Exception | None:
        """The last word on what nobody has dealt with: a problem, if no other answer was begun, and a line.

        What it gives back is to be raised: then the server cuts the connection, and nobody takes half an answer for
        the whole.
        """
        ours = isinstance(error, HoldfastError)
        try:
            answer = problem(error, self.id)
        except Exception:  # an error of ours that cannot be told
            answer, ours = problem(ServiceError("The service failed unexpectedly."), self.id), False
        if not ours:
            self._edge.logs.crashed(error, method=self._method, route=template(self.scope))
        if self.status == 0:
            await answer(self.scope, self._receive, self.last)
        elif not self._closed:
            return ServiceError("The answer was cut off.", self.id)
        return None


def template(scope: Scope) -> str:
    """The template of the route a request went to, such as ``/v1/sessions/{session}``; ``none`` if it found none."""
    route: Any = scope.get("route")
    return NONE if route is None else str(getattr(route, "path", NONE))


def _is_preflight(scope: Scope) -> bool:
    return any(name == b"access-control-request-method" for name, _ in scope["headers"])
