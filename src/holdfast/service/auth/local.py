"""Local mode: no issuer, one person at one machine, and a token that only who may read the home can know.

The service then listens on the machine's own loopback interface only. A page of another origin cannot read the token,
and a name that is made to point at this machine (DNS rebinding) is no loopback name: see ``is_loopback``.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from holdfast.errors import ConfigurationError, UnauthenticatedError
from holdfast.model.access import Principal
from holdfast.service.auth.caller import NOT_VALID, Authenticator, Caller, bearer
from holdfast.settings.user import LOCAL_TENANT, system_user

NAME = "token"
"""The file in the home that holds the token."""

_BYTES = 32
_TOKEN = re.compile(rb"[A-Za-z0-9._~-]{43,200}")  # 43: what 32 bytes come to in base64url
_HOST = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([A-Za-z0-9.]+))(?::[0-9]{1,5})?")


class LocalAuthenticator(Authenticator):
    """Knows the one token of a home. Who has it is the operating-system user, admin of the tenant ``local``
    and operator.

    To take it back, delete the file and start the service again.
    """

    def __init__(self, home: Path) -> None:
        self._home, self._token = home, b""
        self._caller = Caller(Principal(system_user(), LOCAL_TENANT, frozenset({"admin", "operator"})))

    async def open(self) -> None:
        self._token = local_token(self._home).encode()

    async def authenticate(self, authorization: str | None) -> Caller:
        token = bearer(authorization)
        if not self._token or not hmac.compare_digest(token, self._token):
            raise UnauthenticatedError(NOT_VALID)
        return self._caller

    def stands(self, caller: Caller) -> bool:
        return True

    async def close(self) -> None:
        self._token = b""


def local_token(home: Path) -> str:
    """The token of a home: made on first use, the same one for every process.

    Raises:
        ConfigurationError: it cannot be made or read, others may read it, or it is not such a token.
    """
    path = home / NAME
    try:
        if not path.exists():
            _make(path)
        raw = _read(path)
    except OSError as error:
        raise ConfigurationError(f"The token file {path} cannot be used: {error.strerror}.") from None
    token = raw.removesuffix(b"\n")
    if _TOKEN.fullmatch(token) is None:
        raise ConfigurationError(f"The token file {path} holds no token of 43 characters or more: delete it.")
    return token.decode()


def check_loopback(host: str) -> None:
    """Raise ``ConfigurationError`` unless the service listens on this machine alone."""
    if not is_loopback(host):
        raise ConfigurationError(
            f"Without an issuer the service is for this machine alone, and {host!r} is not: set service.host to"
            " 127.0.0.1, or say who issues tokens with auth.issuer, auth.audience and auth.keys."
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by a name that nobody else can give: 127.0.0.0/8, ::1 or localhost.

    Args:
        host: as in a setting or a ``Host`` header: a port may follow, then an IPv6 address stands in brackets.
    """
    match = _HOST.fullmatch(host)
    name = match[1] or match[2] if match else host
    if name.lower() == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address == IPv6Address("::1") or (isinstance(address, IPv4Address) and address.is_loopback)


def _make(path: Path) -> None:
    """Make the token file, whole or not at all. If another process is first, its token counts."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{NAME}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - with the mode from its first moment
            file.write(secrets.token_urlsafe(_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            path.hardlink_to(new)  # replaces nothing, unlike a rename
    finally:
        new.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # Of the descriptor, so that what is checked is what is read.
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigurationError(f"{path} is not a file and so no token file.")
        if mode & 0o077:
            raise ConfigurationError(f"Others may read the token file: delete {path}, and a new one is made.")
        return os.read(descriptor, 1_000)
    finally:
        os.close(descriptor)
