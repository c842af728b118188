"""Who sent a request, and what an authenticator does to find out."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import msgspec

from holdfast.errors import UnauthenticatedError
from holdfast.model.access import Principal

MOST_TOKEN = 8_192
"""Bytes of a token; nothing of a longer one is looked at."""

# All a stranger is ever told. Which part of a token is wrong is nothing he should learn by trying.
NONE_SENT = "Send a bearer token."
ONE_WANTED = "Send one Authorization header."
NOT_VALID = "The token is not valid."
EXPIRED = "The token has expired."
REVOKED = "The token was revoked."

_SCHEME = "bearer "


class Caller(msgspec.Struct, frozen=True):
    """Who asks, by which token.

    Attributes:
        token: its id (``jti``), empty where it has none.
        issued: when it was issued (``iat``), in seconds since the epoch.
        expires: when it expires (``exp``), in seconds since the epoch; None: it does not.
    """

    principal: Principal
    token: str = ""
    issued: float = 0.0
    expires: float | None = None


class Authenticator(Protocol):
    """Knows callers by the ``Authorization`` header of their requests."""

    @abstractmethod
    async def authenticate(self, authorization: str | None) -> Caller:
        """Who asks.

        Raises:
            UnauthenticatedError: no token, or none that is believed.
            UnavailableError: it cannot be told just now, because the issuer's keys cannot be had.
        """

    @abstractmethod
    def stands(self, caller: Caller) -> bool:
        """Whether a caller's token has neither expired nor been revoked since; cheap enough to ask at every turn."""

    @property
    def is_ready(self) -> bool:
        """Whether a right token would be believed; False as long as an issuer's keys were never had, or not for so
        long that they do not hold.
        """
        return True

    @abstractmethod
    async def open(self) -> None:
        """Make ready; asked once, before the first request."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of what is held."""


def bearer(authorization: str | None) -> bytes:
    """The token of an ``Authorization`` header, ASCII and of bounded length (RFC 6750).

    Raises:
        UnauthenticatedError: there is none.
    """
    if authorization is None or authorization[:7].lower() != _SCHEME:
        raise UnauthenticatedError(NONE_SENT)
    token = authorization[7:]
    if not 0 < len(token) <= MOST_TOKEN or not token.isascii():
        raise UnauthenticatedError(NOT_VALID)
    return token.encode()
