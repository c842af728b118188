"""The URL of a Redis hot tier: where its servers are and what is promised with them.

``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS, ``redis+sentinel://host[:port],host…/service[/db]``
and ``redis+cluster://host[:port],host…``. The query may name:

* ``prefix``: what every key begins with, ``holdfast`` if not named;
* ``partitions``: how many hash tags the keys are spread over, 64; fixed once a prefix is in use;
* ``durability``: ``disk`` (the default: ``appendfsync always``), or ``hot``: survives a crash of Holdfast's processes;
* ``timeout``: seconds a reply may take, 0.7; ``connect``: seconds a connection may take, 0.4;
* ``lanes``: connections to each server, 16;
* ``tls``: ``true`` for TLS to sentinel or cluster servers; ``ca``: a file of the authorities to trust with TLS;
* ``checks``: ``off`` where a server will not tell its settings, and its keeper answers for them;
* ``sentinel_password``: where the sentinels ask for one.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

from holdfast.drivers.store_url import StoreUrl
from holdfast.errors import ConfigurationError

SCHEMES = ("redis", "rediss", "redis+sentinel", "redis+cluster")

_PORT = 6379
_SENTINEL_PORT = 26379
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")  # no braces: what stands in them decides the slot of a cluster
_KNOWN = frozenset(
    {
        *("prefix", "partitions", "durability", "timeout", "connect", "lanes"),
        *("tls", "ca", "checks", "sentinel_password"),
    }
)
_MOST_PARTITIONS = 4096


class Address(msgspec.Struct, frozen=True):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class RedisUrl(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL says, with the defaults. Times are in seconds. Its text shows no password."""

    scheme: str
    addresses: tuple[Address, ...]
    username: str | None = None
    password: str | None = None
    sentinel_password: str | None = None
    service: str | None = None
    db: int = 0
    tls: bool = False
    ca: str | None = None
    prefix: str = "holdfast"
    partitions: int = 64
    durability: str = "disk"
    timeout: float = 0.7
    connect: float = 0.4
    lanes: int = 16
    checks: bool = True

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Read a URL.

        Raises:
            ConfigurationError: it cannot be; says what is allowed, and shows nothing of the URL but its scheme and the
                names in its query.
        """
        read = StoreUrl(url, "The Redis URL of the hot tier", where=" in a Redis URL")
        parts, given = read.parts, read.query
        scheme = parts.scheme
        if scheme not in SCHEMES:
            raise ConfigurationError(f"{scheme}:// is no Redis URL; there are: {', '.join(SCHEMES)}.")
        read.check_known("A Redis URL", _KNOWN)
        who, _, where = parts.netloc.rpartition("@")
        username, colon, password = who.partition(":")
        usual = _SENTINEL_PORT if scheme == "redis+sentinel" else _PORT
        addresses = tuple(_address(one, usual) for one in where.split(","))
        if len(addresses) > 1 and "+" not in scheme:
            raise ConfigurationError(f"{scheme}:// names one server; several are for redis+sentinel or redis+cluster.")
        service, db = _path(scheme, [unquote(part) for part in parts.path.split("/") if part])
        prefix = given.get("prefix", "holdfast")
        if _PREFIX.fullmatch(prefix) is None:
            raise ConfigurationError("prefix in a Redis URL has 1 to 64 letters, digits, dots, dashes and underscores.")
        durability = given.get("durability", "disk")
        if durability not in ("disk", "hot"):
            raise ConfigurationError("durability in a Redis URL is disk or hot.")
        return cls(
            scheme=scheme,
            addresses=addresses,
            username=unquote(username) or None,
            password=unquote(password) if colon else None,
            sentinel_password=given.get("sentinel_password"),
            service=service,
            db=db,
            tls=scheme == "rediss" or read.flag("tls", False),
            ca=given.get("ca"),
            prefix=prefix,
            partitions=read.count("partitions", 64, 1, _MOST_PARTITIONS),
            durability=durability,
            timeout=read.number("timeout", 0.7, 0.01, 600),
            connect=read.number("connect", 0.4, 0.01, 600),
            lanes=read.count("lanes", 16, 1, 64),
            checks=read.flag("checks", True),
        )

    @property
    def clustered(self) -> bool:
        return self.scheme == "redis+cluster"

    def __repr__(self) -> str:
        return f"<RedisUrl {self.scheme} {', '.join(map(str, self.addresses))}>"


def _address(text: str, usual: int) -> Address:
    host, port = text, ""
    if not text.endswith("]"):
        host, colon, port = text.rpartition(":")
        if not colon:
            host, port = text, ""
    host = unquote(host.strip("[]"))
    if not host or (port and not port.isascii()) or (port and not port.isdigit()) or int(port or usual) > 65_535:
        raise ConfigurationError("A Redis URL names its servers as host or host:port, with commas between.")
    return Address(host, int(port or usual))


def _path(scheme: str, parts: list[str]) -> tuple[str | None, int]:
    """The sentinels' name for the service, and the database."""
    service = None
    if scheme == "redis+sentinel":
        if not parts:
            raise ConfigurationError("redis+sentinel:// names the service after the servers: …:26379/mymaster.")
        service, *parts = parts
    if scheme == "redis+cluster" and parts:
        raise ConfigurationError("redis+cluster:// takes no database: a cluster has only one.")
    if len(parts) > 1 or (parts and not (parts[0].isascii() and parts[0].isdigit())):
        raise ConfigurationError("What follows the servers in a Redis URL is the number of a database.")
    return service, int(parts[0]) if parts else 0
