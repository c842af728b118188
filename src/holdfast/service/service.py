"""What the routes of one process share."""

from __future__ import annotations

import asyncio
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from holdfast.engine.engine import Engine
from holdfast.errors import UnauthenticatedError
from holdfast.model.access import Principal
from holdfast.service import bodies
from holdfast.service.auth.caller import ONE_WANTED, Authenticator, Caller
from holdfast.service.logs import Logs
from holdfast.service.meters import Meters
from holdfast.service.rates import Rates
from holdfast.service.route import fields
from holdfast.service.wholes import Wholes
from holdfast.settings import Settings

T = TypeVar("T")

_KEPT_BYTES = 64_000_000
_CALLER = "holdfast.caller"


class Service:
    """The engine and what stands around it.

    Attributes:
        stopping: set once the service has been told to stop: streams end, and nothing new is begun.
        body_bytes: bytes a body may have; ``depth``: its levels, those of an item and what stands around it;
            ``room``: bytes it may take once decoded.
    """

    def __init__(self, settings: Settings, meters: Meters, logs: Logs, rates: Rates) -> None:
        self.settings, self.meters, self.logs, self.rates = settings, meters, logs, rates
        self.stopping = asyncio.Event()
        self.body_bytes = settings.service.body_bytes
        self.depth, self.room = settings.limits.depth + bodies.AROUND, bodies.room_of(self.body_bytes)
        self.wholes = Wholes(_KEPT_BYTES)
        self._opened: tuple[Engine, Authenticator] | None = None

    def open(self, engine: Engine, authenticator: Authenticator) -> None:
        """From here on requests are served."""
        self._opened = (engine, authenticator)

    @property
    def is_open(self) -> bool:
        return self._opened is not None and not self.stopping.is_set()

    @property
    def engine(self) -> Engine:
        return self._ready[0]

    @property
    def authenticator(self) -> Authenticator:
        return self._ready[1]

    async def take(self, request: Request, type: type[T], default: T | None = None) -> T:
        """The JSON body of a request as a value of a type, within the settings' bounds; see ``bodies.take``."""
        return await bodies.take(request, type, self.body_bytes, default=default, depth=self.depth)

    def decode(self, data: bodies.Body, type: type[T]) -> T:
        """JSON as a value of a type, within the settings' bounds; see ``bodies.decode``."""
        return bodies.decode(data, type, depth=self.depth, room=self.room)

    @property
    def _ready(self) -> tuple[Engine, Authenticator]:
        if self._opened is None:
            raise LookupError("the service is not open yet")
        return self._opened


def service_of(request: Request) -> Service:
    """The service a request came to."""
    return cast(Service, request.app.state["service"])


def caller_of(request: Request) -> Caller:
    """Who sent a request, with the token's own facts; known once ``principal`` was asked."""
    return cast(Caller, request.scope[_CALLER])


async def principal(request: Request) -> Principal:
    """Who asks: the one dependency of every route that is not open.

    Raises:
        UnauthenticatedError: nobody knows, or the request says so twice. RateLimitedError: the principal asks too much
            at a time.
    """
    service = service_of(request)
    given = fields(request, b"authorization")
    if len(given) > 1:  # which one counts, a proxy may see otherwise than this service
        raise UnauthenticatedError(ONE_WANTED)
    caller = await service.authenticator.authenticate(given[0] if given else None)
    request.scope[_CALLER] = caller
    service.rates.take(caller.principal)
    return caller.principal


Who = Annotated[Principal, Depends(principal)]
