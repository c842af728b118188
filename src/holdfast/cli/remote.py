"""The engine of a command that asks a service: its methods are the engine's, and the client does the work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from holdfast.errors import ConfigurationError, UnknownKindError
from holdfast.model.access import Principal

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.ports.kind import Kind


_RETRIES = 4
"""How often a command asks again: for a second or so, as somebody waits for it."""


class Remote:
    """Drops who asks, which the token says, and passes the rest on."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        method = getattr(self._client, verb)
        return lambda *given, **named: method(*(one for one in given if not isinstance(one, Principal)), **named)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The kinds as they are declared here: how the words of a command become an operation's typed arguments. The
        service goes by its own declarations, and checks what it is sent.
        """
        from holdfast.compose import kinds

        return _Known(kinds())


class _Known(dict[str, "Kind"]):
    def __missing__(self, kind: str) -> Kind:
        raise UnknownKindError(kind, self)


@contextlib.asynccontextmanager
async def remote(address: str, token: str | None) -> AsyncIterator[Remote]:
    """A service, spoken to in the name of a token, or of that in ``HOLDFAST_TOKEN``.

    Raises:
        ConfigurationError: there is no token, or the address cannot be. MissingExtraError: the [client] extra is not
            installed.
    """
    from holdfast.client import Client

    token = os.environ.get("HOLDFAST_TOKEN") if token is None else token
    if not token:
        raise ConfigurationError("Who asks the service? Set HOLDFAST_TOKEN, or name a file with --token-file.")
    async with Client(address, token=token, retries=_RETRIES) as client:
        yield Remote(client)
