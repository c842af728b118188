"""Where a service is and what opens it: both checked before anything is sent."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from holdfast.errors import ConfigurationError

_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")


def checked_address(text: str | None, *, insecure: bool) -> str:
    """The address that paths are put behind, without a slash at the end.

    Args:
        insecure: let a token travel in the clear to another machine.
    Raises:
        ConfigurationError: there is none, it is not http or https, it holds more than scheme, host, port and path, or
            it is plain http to another machine.
    """
    if not text:
        raise ConfigurationError("Which service? Give its address, or set HOLDFAST_URL to it.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"The address of the service cannot be read: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigurationError("The address of a service is http:// or https:// and a host.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            "The address of a service has no user, query or fragment: a token in it would be seen by others."
            " It goes into HOLDFAST_TOKEN."
        )
    if parts.scheme == "http" and not insecure and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"Plain http to {parts.hostname} would show the token to the network: use https, or insecure=True."
        )
    return SplitResult(parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "").geturl()


def checked_token(text: str | None) -> str:
    """A token that can stand in a header; what is wrong with one is said without showing it.

    Raises:
        ConfigurationError: there is none, or it holds what a token does not.
    """
    if not text:
        raise ConfigurationError("Who asks? Give a token, or set HOLDFAST_TOKEN to it.")
    if _TOKEN.fullmatch(text) is None:
        raise ConfigurationError("The token has blanks or other characters that no token has.")
    return text


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by a name that nobody else can give."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
