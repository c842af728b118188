"""Whether a Redis server keeps what is promised with it: asked of every connection before it is used.

Asked each time and not only at the start: after a failover, or when a server comes back with another configuration,
the promise would become weaker without a word.
"""

from __future__ import annotations

import ssl
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError

from holdfast.drivers.redis_url import RedisUrl
from holdfast.errors import ConfigurationError, StoreUnavailableError

_ASKED = ("maxmemory-policy", "appendonly", "appendfsync")
_OLDEST = 7
_WITHOUT = "or set checks=off in the URL of the hot tier if whoever keeps the server answers for it"


async def check(connection: Connection, url: RedisUrl, name: str) -> str:
    """Refuse a server that may lose what it acknowledged: for the durability ``disk`` it must have an append-only file
    that is synced before each reply.

    Returns:
        The name of the life it leads: another one once it has been started or made a master again, and may have come
        back as it was before.
    Raises:
        ConfigurationError: its settings contradict the promise; says what to set.
        StoreUnavailableError: it is a replica, or still loading.
    """
    role, info, told = await ask_all(connection, ("ROLE",), ("INFO",), ("CONFIG", "GET", *_ASKED))
    if isinstance(role, ResponseError) or isinstance(info, ResponseError):
        raise role if isinstance(role, ResponseError) else info
    if role[0] != b"master":
        raise StoreUnavailableError(name, "that server is a replica, which takes no writes")
    about = fields(info)
    if (about.get("redis_mode") == "cluster") is not url.clustered:
        raise ConfigurationError(
            "The Redis server of the hot tier "
            + (
                "is no part of a cluster: name it with redis://."
                if url.clustered
                else "is part of a cluster: name it with redis+cluster://."
            )
        )
    version = about.get("valkey_version") or about.get("redis_version", "0")
    if int(version.split(".")[0]) < _OLDEST:
        raise ConfigurationError(f"The hot tier needs Redis {_OLDEST} or newer, or Valkey; this server is {version}.")
    if isinstance(told, ResponseError):
        raise ConfigurationError(
            "The Redis server of the hot tier does not tell its settings: allow CONFIG GET to this user"
            f" (ACL +config|get), {_WITHOUT}."
        )
    settings = {str(one, "ascii"): str(other, "ascii") for one, other in zip(told[::2], told[1::2], strict=True)}
    judge(settings, durability=url.durability)
    return f"{about.get('run_id')} {about.get('master_replid')}"


def judge(settings: dict[str, str], *, durability: str) -> None:
    """Hold the settings of a server against what is promised; ``ConfigurationError`` if they contradict it."""
    policy = settings.get("maxmemory-policy", "unknown")
    if policy != "noeviction":
        raise ConfigurationError(
            f"The Redis server of the hot tier would evict sessions (maxmemory-policy is {policy}):"
            " set maxmemory-policy noeviction."
        )
    if durability != "disk":
        return
    if settings.get("appendonly") != "yes":
        raise ConfigurationError(
            "The Redis server of the hot tier keeps nothing on disk (appendonly is"
            f" {settings.get('appendonly', 'unknown')}), and disk is promised: set appendonly yes and appendfsync"
            " always, or durability=hot in the URL of the hot tier."
        )
    fsync = settings.get("appendfsync", "unknown")
    if fsync != "always":
        raise ConfigurationError(
            f"The Redis server of the hot tier acknowledges before it syncs (appendfsync is {fsync}), and disk is"
            " promised: set appendfsync always, or durability=hot in the URL of the hot tier."
        )


async def ask(connection: Connection, *command: str) -> Any:
    """One command and its reply, on a connection that nobody else uses."""
    await connection.send_command(*command, check_health=False)
    return await connection.read_response(disable_decoding=True)


async def ask_all(connection: Connection, *commands: tuple[str, ...]) -> list[Any]:
    """Several commands in one go and their replies, errors among them."""
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except ResponseError as refused:
            replies.append(refused)
    return replies


def readable(ca: str) -> None:
    """Refuse a file of authorities that cannot be read as such (``ConfigurationError``)."""
    try:
        ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigurationError(
            f"The file that ca in the URL of the hot tier names cannot be read as certificates"
            f" ({type(error).__name__})."
        ) from None


def fields(info: bytes) -> dict[str, str]:
    """The lines of ``INFO`` by name."""
    lines = info.decode(errors="replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def refusal(error: BaseException) -> ConfigurationError | None:
    """What a server's refusal to let us in, or ours of its certificate, says about the settings; None if it is nothing
    of the kind.
    """
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return ConfigurationError(
            "The Redis server of the hot tier does not let Holdfast in: mend the user name and the password in its URL."
        )
    cause = error.__context__  # redis-py puts its own error in the place of the system's
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"The certificate of the Redis server of the hot tier is not accepted ({cause.verify_message}): name"
            " the file of the authority that has signed it with ca in the URL, and the server as the certificate does."
        )
    return None
