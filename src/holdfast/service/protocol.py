"""One connection of the service: uvicorn's HTTP protocol with deadlines and bounds around it.

uvicorn waits for the head and the body of a request, and for an answer to be read, as long as the peer cares to take.
Here each has its time; what has no right form, or no end, is refused before the application hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import httptools
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from holdfast.errors import (
    HoldfastError,
    InvalidRequestError,
    RequestTimeoutError,
    RouteNotFoundError,
    StoppingError,
)
from holdfast.service.edge import SECURITY
from holdfast.service.problems import described, problem
from holdfast.settings.sections import Service

MOST_TARGET = 8_192
"""Bytes of a request's target: path and query."""
MOST_HEAD = 32_768
"""Bytes of a request's head; of a chunked body's trailer too, which is read and dropped."""
MOST_FIELDS = 100
"""Header fields of a request."""
LEAST_RATE = 16_384
"""Bytes a second at which an answer must be read on average, once more waits than the transport likes to hold."""
LINGER = 2.0
"""Seconds in which a peer that still sends may read its answer, before its connection is cut (RFC 9112, 9.6)."""
SPARE = 64
"""Connections beyond the bound that are told so; those beyond these are cut unheard."""

_ALLOWED = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_REFUSED = frozenset({b"CONNECT", b"TRACE"})
_SPOKEN = frozenset({"1.0", "1.1"})
_WATCHED = frozenset({b"host", b"transfer-encoding", b"expect"})
_HEAD, _BODY = "head", "body"


class _WayOut:
    """What an answer sees of the transport; when it is the last one, the connection ends as ``close`` has it."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._write, self.is_closing, self.close = transport.write, transport.is_closing, close

    def write(self, data: bytes) -> None:
        if not self.is_closing():  # uvloop takes offence
            self._write(data)


class Guarded(HttpToolsProtocol):
    """One connection. Made by the server, with the settings as ``bounds``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        bounds: Service,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.bounds = bounds
        self.timeout_keep_alive = cast(int, bounds.idle_seconds)  # a float does as well
        self._stage: str | None = _HEAD  # which part of a request is under way
        self._timed: str | None = None  # which part the deadline is for
        self._deadline: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None  # the deadline of a peer that reads too slowly
        self._begun = False  # whether anything of the request is there
        self._moved = False  # whether what was fed last brought the request further
        self._pending = 0  # bytes fed since that was so
        self._head_bytes = self._hosts = 0
        self._codings: list[bytes] = []
        self._refusal: Response | None = None
        self._declined: bytes | None = None  # the head of a request to be read without its offer to upgrade
        self._over = False  # whether what still comes is dropped
        self._running: RequestResponseCycle | None = None

    # -- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._way_out = cast(asyncio.Transport, _WayOut(transport, self._last_word))
        beyond = len(self.connections) - self.bounds.connections
        if beyond > SPARE:
            transport.abort()
        elif beyond > 0:
            self.app = _full
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None:  # it is not the last one that came, if the peer sent the next before its answer
            self._running.disconnected = True
            self._running.message_event.set()
        self._over = True
        self._unset_keepalive_if_required()
        self._clear()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def shutdown(self) -> None:
        """The service stops: at once, or with the answer to the request under way."""
        if self._over and (self.cycle is None or self.cycle.response_complete or self.cycle.disconnected):
            self.transport.abort()
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # the peer is not idle, it reads the last answer
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    # -- what comes in -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._over:
            return None
        self._moved = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            return self._decline(data[offer.args[0] :])
        except httptools.HttpParserError:
            return self._refuse(self._refusal or problem(InvalidRequestError("This is not HTTP as it should be.")))
        self._pending = 0 if self._moved else self._pending + len(data)
        if self._pending > MOST_HEAD and self._stage is not None:
            return self._refuse(_too_large("head or the trailer"))
        return self._watch()

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        self._clear()
        self._stage, self._begun = _HEAD, True
        self._head_bytes, self._hosts, self._codings = 0, 0, []
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MOST_TARGET:
            raise self._refused(_too_large("target", MOST_TARGET))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage is _BODY:
            return  # a trailer: nobody here reads it, and what was decided by the head stands
        name = name.lower()
        self.headers.append((name, value))
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MOST_HEAD or len(self.headers) > MOST_FIELDS:
            raise self._refused(_too_large("head"))
        if name in _WATCHED:
            if name == b"host":
                self._hosts += 1
            elif name == b"transfer-encoding":
                self._codings.append(value.strip().lower())
            elif value.lower() == b"100-continue":
                self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        self._moved = True
        parser = self.parser
        method, version = parser.get_method(), parser.get_http_version()
        if method in _REFUSED:
            raise self._refused(_not_allowed(method.decode(), self.url))
        if version not in _SPOKEN:
            raise self._refused(problem(InvalidRequestError("HTTP/1.1 and HTTP/1.0 are spoken here.")))
        if parser.should_upgrade():
            self._declined = self._without_offer(method, version)
            return
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            raise self._refused(problem(InvalidRequestError("A request has one Host field.")))
        if self._codings and (self._codings != [b"chunked"] or version == "1.0"):
            raise self._refused(problem(InvalidRequestError("A body may be chunked, and coded in no other way.")))
        super().on_headers_complete()
        self.cycle.transport = self._way_out
        self._stage = _BODY

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._declined is None:
            self._moved, self._stage, self._begun = True, None, False
            super().on_message_complete()

    def _without_offer(self, method: bytes, version: str) -> bytes:
        """The head that was read, but for its offer to speak another protocol."""
        lines = [b"%b %b HTTP/%b" % (method, self.url, version.encode())]
        lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def _decline(self, rest: bytes) -> None:
        """Read a request as if it had not offered to speak another protocol (RFC 9110, 7.8).

        The parser passes over the body of such a request, and would take it for the next request.
        """
        head, self._declined = self._declined or b"", None
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    # -- deadlines ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Set the deadline of the part of a request that is under way, unless it is set."""
        if self._stage == self._timed or self._over:
            return
        self._clear()
        if self._stage is not None:
            seconds = self.bounds.header_seconds if self._stage == _HEAD else self.bounds.body_seconds
            self._timed = self._stage
            self._deadline = self.loop.call_later(seconds, self._late, seconds)

    def _clear(self) -> None:
        self._timed = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self, seconds: float) -> None:
        self._clear()
        if self.flow.read_paused:  # it is the application that takes its time
            self._watch()
        elif self._stage == _HEAD and not self._begun:
            self.transport.abort()
        else:
            self._refuse(problem(RequestTimeoutError(seconds)))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        if self.cycle is not None and self.cycle.response_complete:
            self._see_it_read()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._see_it_read()

    def _see_it_read(self) -> None:
        """Nothing more comes after this for now: what waits has its time, below the high-water mark too.

        A closing transport would wait for ever for a peer that leaves the end of an answer.
        """
        waiting = self.transport.get_write_buffer_size()
        if waiting and self._reading is None:
            self._look_again(waiting)

    def _look_again(self, waiting: int) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = self.loop.call_later(self.bounds.send_seconds, self._unread, waiting)

    def _unread(self, before: int) -> None:
        """Go on with a peer that reads, if slowly, and cut one that does not."""
        self._reading = None
        waiting = self.transport.get_write_buffer_size()
        if waiting and waiting > before - LEAST_RATE * self.bounds.send_seconds:
            self.transport.abort()
        elif waiting:
            self._look_again(waiting)

    # -- refusals ----------------------------------------------------------------------------------------------------

    def _refused(self, answer: Response) -> Exception:
        """What a callback raises to end the parsing; the parser does not hand it on, so the answer is kept here."""
        self._refusal = answer
        return ValueError("refused")

    def _refuse(self, answer: Response) -> None:
        """Read nothing more, answer if no other answer is in the way, and end the connection."""
        self._over = True
        self._clear()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._stage != _BODY:  # earlier requests of this connection are being answered; the last answer ends it
                cycle.keep_alive = False
                return
            if cycle.response_started or self.pipeline:
                self.transport.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        elif self._stage == _BODY:  # answered before its body had come whole
            self.transport.abort()
            return
        if self.transport.is_closing():
            self.transport.abort()
            return
        fields = (*self.server_state.default_headers, *_last(answer).raw_headers)
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(STATUS_LINE[answer.status_code] + head + b"\r\n" + bytes(answer.body))
        self._linger()

    def _last_word(self) -> None:
        """The last answer is written. With something unread, the system would not let the peer read it to its end."""
        if self._stage != _BODY or self.pipeline or self.transport.is_closing():
            self.transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        self._over = True
        self._clear()
        self.transport.write_eof()
        self._deadline = self.loop.call_later(LINGER, self.transport.abort)


def _too_large(what: str, most: int = MOST_HEAD) -> Response:
    error = InvalidRequestError(f"The {what} of the request has more than {most:,} bytes or {MOST_FIELDS} fields.")
    return _as(431, "Too much head", error)


def _not_allowed(method: str, target: bytes) -> Response:
    path = target.partition(b"?")[0].decode("latin-1")
    answer = _as(405, "Not a method that is taken here", RouteNotFoundError(method, path, _ALLOWED.split(", ")))
    answer.headers["allow"] = _ALLOWED
    return answer


def _as(status: int, title: str, error: HoldfastError) -> Response:
    """A problem under a status of HTTP's own, which the table of codes does not know."""
    answer = problem(error)
    body = msgspec.json.encode({**described(error), "status": status, "title": title})
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return Response(body, status, headers)


def _last(answer: Response) -> Response:
    """An answer that the edge does not see, with what every answer carries, and the last on its connection."""
    set_ = {name for name, _ in answer.raw_headers}
    answer.raw_headers += [field for field in SECURITY if field[0] not in set_]
    answer.raw_headers.append((b"connection", b"close"))
    return answer


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for the application on a connection beyond the bound."""
    await _last(problem(StoppingError("it has as many connections as it may")))(scope, receive, send)


def protocol(bounds: Service) -> Callable[..., Guarded]:
    """What makes the connections of a server with these settings."""

    def make(*args: Any, **kwargs: Any) -> Guarded:
        return Guarded(*args, **kwargs, bounds=bounds)

    return make
