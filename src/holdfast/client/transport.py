"""Requests and answers: one pool of connections, a bound on everything, and the rule of what is sent again.

It speaks to the transport of httpx2 and not through its client: that one writes addresses with their queries to the
log, keeps cookies, and sends what it is given through whatever proxy the environment names.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urlencode

import msgspec

from holdfast.client.address import checked_address, checked_token
from holdfast.client.problems import error_of
from holdfast.client.uploading import Upload
from holdfast.errors import (
    HoldfastError,
    MissingExtraError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceError,
    StoppingError,
    UnavailableError,
    UnreachableError,
)

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

JSON = "application/json"
MOST_BYTES = 512_000_000
"""Bytes of an answer, unpacked, that are read at most."""

_CONNECTIONS = 100
_PROBLEM_BYTES = 20_000_000
_CONNECT_SECONDS, _LONG_SECONDS = 10.0, 300.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LONGEST_ASKED_PAUSE = 60.0
_GATEWAY = frozenset({502, 503, 504})
_chance = random.SystemRandom()


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request.

    Attributes:
        path: below the address, percent-encoded.
        query: parameters that are None are left out.
        upload: in place of a body.
        change_id: the same on every try, so that the request has one effect.
        again: may be sent again though nobody knows what came of it.
        long: it may take the service a while, which is no reason to ask again.
    """

    method: str
    path: str
    query: Mapping[str, str | int | bool | None] = {}
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    upload: Upload | None = None
    change_id: str | None = None
    again: bool = True
    long: bool = False

    @property
    def target(self) -> str:
        given = {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in self.query.items()
            if value is not None
        }
        return f"{self.path}?{urlencode(given, errors='surrogatepass')}" if given else self.path


class Answer(msgspec.Struct, frozen=True):
    """What came back, with a status below 400."""

    status: int
    body: bytes


class Outcome(Enum):
    """What is known of a try that failed."""

    NOTHING = auto()  # it had no effect
    OPEN = auto()  # nobody knows
    REFUSED = auto()  # it was answered, and that is that


_NO_WAITING = frozenset({"store-full", "tier-behind"})
"""What waiting does not mend: somebody has to see to it first."""


class FailedError(Exception):
    """A try that failed. Stays within the client: ``error`` is what the caller is told.

    ``after`` is in how many seconds to ask again, where the service says so.
    """

    def __init__(self, error: HoldfastError, outcome: Outcome, after: float | None = None) -> None:
        self.error, self.outcome, self.after = error, outcome, after
        super().__init__(str(error))


class Transport:
    """Sends requests to one service, in the name of one token.

    Args:
        token: or what gives one, asked before each try.
        timeout: seconds that one try of a request may take; of a stream, that may pass without a byte.
        retries: how often a request is tried again.
    """

    def __init__(
        self,
        address: str | None,
        token: str | Callable[[], str] | None,
        *,
        timeout: float,
        retries: int,
        insecure: bool = False,
    ) -> None:
        self.address = checked_address(address, insecure=insecure)
        if not callable(token):
            checked_token(token)
        self._token, self._timeout, self.retries = token, timeout, retries
        self._wire: httpx2.AsyncBaseTransport | None = None

    async def open(self) -> None:
        """Take up the pool; connections are made as they are needed.

        Raises:
            MissingExtraError: the [client] extra is not installed.
        """
        try:
            import httpx2
        except ImportError:
            raise MissingExtraError("httpx2", "client") from None
        limits = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        # Plain http needs none of the authorities that are trusted, which take 0.2 s to read.
        trust = True if self.address.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._wire = httpx2.AsyncHTTPTransport(verify=trust, http1=True, http2=False, limits=limits, retries=0)

    async def close(self) -> None:
        """End every connection."""
        if self._wire is not None:
            wire, self._wire = self._wire, None
            await wire.aclose()

    async def answer(self, ask: Ask) -> Answer:
        """Send a request, again if that is safe and may help, and read the answer whole.

        Raises:
            UnavailableError: the tries are used up. Of a write, nobody knows the outcome; the error's facts have the
                ``change_id`` to ask again with.
            HoldfastError: whatever the service answered.
        """

        async def once() -> Answer:
            with _mapped(self.address):
                async with (
                    asyncio.timeout(self._whole(ask)),
                    contextlib.aclosing(await self._exchange(ask)) as response,
                ):
                    return Answer(response.status_code, await _read(response, MOST_BYTES))

        return await self._insist(ask, once)

    @contextlib.asynccontextmanager
    async def stream(
        self, ask: Ask, *, silence: float | None = None, retries: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send a request and give the answer as it comes, piece by piece. Sent again only until it begins to come.

        Args:
            silence: seconds that may pass without a byte; the client's timeout by default.
            retries: instead of the client's, for who tries again by himself.
        """

        async def once() -> httpx2.Response:
            with _mapped(self.address):
                async with asyncio.timeout(self._whole(ask)):
                    return await self._exchange(ask, silence)

        async with contextlib.aclosing(await self._insist(ask, once, retries)) as response:

            async def pieces() -> AsyncGenerator[bytes]:
                try:
                    with _mapped(self.address):
                        async for piece in response.aiter_bytes():
                            yield piece
                except FailedError as failed:
                    raise failed.error from failed.__cause__

            async with contextlib.aclosing(pieces()) as coming:
                yield coming

    def _whole(self, ask: Ask) -> float:
        """Seconds that a try may take, or the beginning of a stream."""
        return max(self._timeout, _LONG_SECONDS) if ask.long else self._timeout

    async def _insist(self, ask: Ask, once: Callable[[], Awaitable[T]], retries: int | None = None) -> T:
        """Try until it is answered, refused, or the tries are used up."""
        tried, is_open = 0, False
        most = self.retries if retries is None else retries
        while True:
            try:
                return await once()
            except FailedError as failed:
                is_open = is_open or failed.outcome is Outcome.OPEN
                known = failed.outcome is Outcome.NOTHING or (failed.outcome is Outcome.OPEN and ask.again)
                seconds = pause(tried, failed.after)
                if not known or tried >= most or seconds is None:
                    _give_up(failed, ask, is_open)
            tried += 1
            await asyncio.sleep(seconds)

    async def _exchange(self, ask: Ask, silence: float | None = None) -> httpx2.Response:
        """One try: the answer, its body still to be read.

        Raises:
            FailedError: it has a status of 400 or more, or one that makes no sense here.
        """
        import httpx2

        if self._wire is None:
            raise LookupError("the client is not open: use it in an `async with` block")
        token = checked_token(self._token() if callable(self._token) else self._token)
        headers = {
            "authorization": f"Bearer {token}",
            "accept": f"{JSON}, application/problem+json",
            "accept-encoding": "gzip" if silence is None else "identity",
            "user-agent": "holdfast",
            **ask.headers,
        }
        if ask.change_id is not None:
            headers["idempotency-key"] = _quoted(ask.change_id)
        if ask.body is not None:
            headers["content-type"] = JSON
        if ask.upload is not None:
            headers |= {"content-type": ask.upload.media, "content-length": str(ask.upload.length)}
        times = httpx2.Timeout(
            self._timeout,
            connect=min(self._timeout, _CONNECT_SECONDS),
            read=self._whole(ask) if silence is None else silence,
        )
        request = httpx2.Request(
            ask.method,
            self.address + ask.target,
            headers=headers,
            content=ask.body if ask.upload is None else ask.upload.pieces(),
            extensions={"timeout": times.as_dict()},
        )
        response = await self._wire.handle_async_request(request)
        if response.status_code < 300 or response.status_code == 304:
            return response
        async with contextlib.aclosing(response):
            raise _refused(response, await _read(response, _PROBLEM_BYTES))


def pause(tried: int, asked: float | None) -> float | None:
    """How long to wait before the next try, in seconds: twice as long each time, up to a bound, and not all at once.

    Args:
        asked: what the service asked for, which is waited out if it is no more than a minute.
    Returns:
        None: it is too long to wait.
    """
    if asked is not None and asked > _LONGEST_ASKED_PAUSE:
        return None
    own = min(_FIRST_PAUSE * 2.0 ** min(tried, 30), _LONGEST_PAUSE) * _chance.uniform(0.5, 1.0)
    return own if asked is None else max(own, asked + own)


def _give_up(failed: FailedError, ask: Ask, is_open: bool) -> NoReturn:
    """Tell the caller how it ended, and if nobody knows, with what to ask again."""
    error = failed.error
    if is_open and failed.outcome is Outcome.NOTHING and ask.method != "GET":
        error = ServiceError(f"The service did not answer, and then: {error}")  # the first try may have had its effect
    if is_open and ask.change_id is not None:
        error.change_id = ask.change_id
        error.add_note(f"Change id: {ask.change_id}")
    raise error from failed.__cause__


def _quoted(change_id: str) -> str:
    """A change id as a header keeps it: in quotes, if it begins or ends with what a header would lose."""
    is_bare = change_id == change_id.strip() and not (change_id[0] == change_id[-1] == '"')
    return change_id if is_bare else f'"{change_id}"'


@contextlib.contextmanager
def _mapped(address: str) -> Iterator[None]:
    """Failures of the connection, told apart by what may have come of the request."""
    import httpx2

    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        why = str(error) or type(error).__name__
        raise FailedError(UnreachableError(address, why), Outcome.NOTHING) from error
    except (httpx2.HTTPError, TimeoutError, OSError) as error:
        why = "not in time" if isinstance(error, TimeoutError | httpx2.TimeoutException) else type(error).__name__
        raise FailedError(ServiceError(f"{address} did not answer ({why})."), Outcome.OPEN) from error


async def _read(response: httpx2.Response, most: int) -> bytes:
    """The body of an answer, within a bound."""
    parts, got = list[bytes](), 0
    async for part in response.aiter_bytes():
        got += len(part)
        if got > most:
            raise FailedError(ServiceError(f"The answer is longer than {most:,} bytes."), Outcome.REFUSED)
        parts.append(part)
    return b"".join(parts)


def _refused(response: httpx2.Response, body: bytes) -> FailedError:
    """What an answer with an error means, and whether to ask again."""
    error = error_of(body, response.status_code)
    given = response.headers.get("retry-after", "")
    after = float(given) if given.isascii() and given.isdigit() and len(given) < 10 else None
    if isinstance(error, RateLimitedError | StoppingError | RequestTimeoutError):
        outcome = Outcome.NOTHING
    elif isinstance(error, ServiceError) and response.status_code not in (500, *_GATEWAY):
        outcome = Outcome.REFUSED  # a redirect, or a refusal that a newer service knows
    elif isinstance(error, UnavailableError) and error.code not in _NO_WAITING:
        outcome = Outcome.OPEN
    else:
        outcome = Outcome.REFUSED
    request = response.headers.get("x-request-id")
    if request is not None and request.isascii():
        error.add_note(f"Request: {request[:100]}")
    return FailedError(error, outcome, after)
