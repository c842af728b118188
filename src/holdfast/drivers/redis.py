"""Redis as the stores see it: scripts and commands that find their server, and errors that are ours.

Behind ``redis://`` and ``redis+sentinel://`` there is one server, behind ``redis+cluster://`` several: a call names a
key, and goes to whichever keeps its hash slot. A redirection (MOVED, ASK) or an unknown script (NOSCRIPT) says that a
command was not executed; only then does it go out once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.asyncio.connection import Connection, RedisSSLContext, SSLConnection
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from holdfast.drivers.redis_checks import ask, check, fields, readable, refusal
from holdfast.drivers.redis_lane import Argument, Command, Sent, packed
from holdfast.drivers.redis_server import Server
from holdfast.drivers.redis_url import Address, RedisUrl
from holdfast.errors import (
    ConfigurationError,
    HoldfastError,
    StoreFullError,
    StoreUnavailableError,
    TamperedError,
)

_SLOTS = 16_384
_REDIRECTIONS = 6
_PAUSE = 0.02  # seconds, before what a server cannot do yet is asked of it again
_ASKING = packed((b"ASKING",))


class Script(msgspec.Struct, frozen=True):
    """A Lua script: its source, and the SHA-1 it is called by."""

    source: bytes
    sha: bytes

    @classmethod
    def of(cls, source: str) -> Script:
        return cls(source.encode(), hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest().encode())


class Redis:
    """The servers behind a URL. ``name`` stands in error messages. It belongs to one event loop.

    Attributes:
        generation: grows whenever a server may have come back as it was before: with a new connection to one that has
            been started or made a master since the last (with each where ``checks`` are off, and nothing tells), and
            when keys have got another server.
    """

    def __init__(self, url: RedisUrl, name: str) -> None:
        self.url, self.name = url, name
        self.generation = 0
        self._lives: dict[Address | None, str] = {}  # of each server, as of the last connection
        self._servers: dict[Address | None, Server] = {}
        self._slots: list[Server] = []  # by hash slot, of a cluster
        self._slot_of: dict[bytes, int] = {}  # by hash tag, of which there are few
        self._surveying: asyncio.Task[None] | None = None
        self._stale = False
        self._one: Server | None = None
        self._tls: RedisSSLContext | None = None

    @classmethod
    async def connect(cls, url: RedisUrl, *, name: str) -> Redis:
        """Find the servers and hold their settings against the promise.

        Raises:
            ConfigurationError: a server contradicts the promise, or does not let us in; says what to set.
            StoreUnavailableError: there is nobody.
        """
        redis = cls(url, name)
        if url.ca is not None:
            readable(url.ca)
        try:
            if url.clustered:
                await redis._survey()
                addresses = [address for address in redis._servers if address is not None]
                for address in addresses:
                    await redis._try(address)
            else:
                await redis._try(None)
                redis._one = redis._server(None)
            redis.generation = 0
        except BaseException:
            await redis.close()
            raise
        return redis

    async def run(self, script: Script, tag: bytes, keys: Sequence[bytes], arguments: Sequence[Argument] = ()) -> Any:
        """Run a script, all of whose keys carry a hash tag.

        Raises:
            StoreFullError: the server has no memory left; nothing was changed.
            StoreUnavailableError: nobody knows whether it ran.
            TamperedError: a key holds what we never wrote there.
        """
        return await self._outcome(self._send(tag, _call(script, keys, arguments)), script)

    async def run_all(self, calls: Sequence[tuple[Script, bytes, Sequence[bytes], Sequence[Argument]]]) -> list[Any]:
        """Several scripts, each as of ``run``, in one pipeline to each server; no order is promised."""
        sent = [(self._send(tag, _call(script, keys, given)), script) for script, tag, keys, given in calls]
        return [await self._outcome(one, script) for one, script in sent]

    async def run_each(
        self, calls: Sequence[tuple[Script, bytes, Sequence[bytes], Sequence[Argument]]]
    ) -> list[Any | HoldfastError]:
        """As ``run_all``, with the errors among the answers: one server that is gone does not hide what others say."""
        sent = [(self._send(tag, _call(script, keys, given)), script) for script, tag, keys, given in calls]
        answers: list[Any | HoldfastError] = []
        for one, script in sent:
            try:
                answers.append(await self._outcome(one, script))
            except HoldfastError as error:
                answers.append(error)
        return answers

    async def ask(self, tag: bytes, *command: Argument) -> Any:
        """One command, whose key carries a hash tag; raises as ``run``."""
        return await self._outcome(self._send(tag, command))

    async def ask_all(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        """Several commands, each with the hash tag of its key, in one pipeline to each server; raises as ``run``."""
        sent = [self._send(tag, command) for tag, command in commands]
        return [await self._outcome(one) for one in sent]

    async def gets(self, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """The values of keys, each with its hash tag: one command where there is one server."""
        if self._one is None:
            return await self.ask_all([(tag, (b"GET", key)) for tag, key in keys])
        values: list[bytes | None] = await self.ask(b"", b"MGET", *(key for _, key in keys))
        return values

    async def memory(self) -> int:
        """Bytes of memory that the servers use."""
        servers = dict.fromkeys(self._slots) if self._one is None else [self._one]
        sent = [server.send(Sent(packed((b"INFO", b"memory")))) for server in servers]
        told = [await self._outcome((one, b"", (b"INFO", b"memory"))) for one in sent]
        return sum(int(fields(info).get("used_memory", 0)) for info in told)

    async def close(self) -> None:
        """Finish what was sent, then let go of every connection; closing again does nothing."""
        for server in self._servers.values():
            await server.close()
        if self._surveying is not None:
            self._surveying.cancel()
            with contextlib.suppress(asyncio.CancelledError, HoldfastError):
                await self._surveying

    # -- where a key lives -----------------------------------------------------------------------------------------

    def _server_of(self, tag: bytes) -> Server:
        if self._one is not None:
            return self._one
        slot = self._slot_of.get(tag)
        if slot is None:
            slot = self._slot_of[tag] = key_slot(tag)
        if self._stale and (self._surveying is None or self._surveying.done()):
            self._surveying = asyncio.create_task(self._resurvey(), name=f"holdfast-{self.name}-survey")
        return self._slots[slot]

    def _server(self, address: Address | None) -> Server:
        server = self._servers.get(address)
        if server is None:
            url = self.url
            server = Server(self.name, lambda: self._dial(address), timeout=url.timeout, lanes=url.lanes)
            self._servers[address] = server
        return server

    def _send(self, tag: bytes, command: Command) -> tuple[Sent, bytes, Command]:
        return self._server_of(tag).send(Sent(packed(command))), tag, command

    async def _outcome(self, sent: tuple[Sent, bytes, Command], script: Script | None = None) -> Any:
        """What came of a command. One that was surely not executed is sent to where it belongs, with what it needs."""
        one, tag, command = sent
        server, asking, patience = self._server_of(tag), False, self.url.timeout
        redirected = 0
        while redirected < _REDIRECTIONS:
            redirected += 1
            try:
                return await one.answer()
            except NoScriptError:
                if script is None:
                    raise
                command = (b"EVAL", script.source, *command[2:])
            except AskError as error:  # the slot is on its way there; only this command goes after it
                server, asking = self._server(Address(error.host, int(error.port))), True
            except MovedError as error:
                if not self.url.clustered:
                    raise StoreUnavailableError(self.name, "that server is part of a cluster now") from None
                server, asking = self._server(Address(error.host, int(error.port))), False
                self._slots[error.slot_id], self._stale = server, True
                self.generation += 1
            except TryAgainError:  # some of the keys of its slot are on their way to another server
                if patience <= 0:
                    raise StoreUnavailableError(self.name, "its slot is on its way to another server") from None
                await asyncio.sleep(_PAUSE)
                patience, redirected = patience - _PAUSE, 0
                server, asking = self._server_of(tag), False
            except (RedisError, StoreUnavailableError) as error:
                self._stale = self._stale or self.url.clustered
                raise _ours(error, self.name) from None
            one = server.send(Sent(_ASKING + packed(command), 2) if asking else Sent(packed(command)))
        raise StoreUnavailableError(self.name, "its servers send each to another")

    async def _resurvey(self) -> None:
        with contextlib.suppress(HoldfastError):  # the next call that goes amiss asks for it again
            await self._survey()

    async def _survey(self) -> None:
        """Ask the servers of a cluster who keeps which slots, until one answers."""
        known = [address for address in self._servers if address is not None]
        failure: Exception = StoreUnavailableError(self.name, "no server of the cluster answers")
        for address in dict.fromkeys((*known, *self.url.addresses)):
            try:
                async with asyncio.timeout(self.url.timeout):
                    connection = await self._opened(address)
                    try:
                        ranges = await ask(connection, "CLUSTER", "SLOTS")
                    finally:
                        await connection.disconnect(nowait=True)
            except (RedisError, OSError, TimeoutError) as error:
                failure = refusal(error) or failure
                continue
            slots: list[Server | None] = [None] * _SLOTS
            for first, last, (host, port, *_), *_ in ranges:
                server = self._server(Address(host.decode() or address.host, port))
                slots[first : last + 1] = [server] * (last + 1 - first)
            if None in slots:
                failure = StoreUnavailableError(self.name, "nobody keeps some of the slots of the cluster")
                continue
            found = [server for server in slots if server is not None]
            self.generation += found != self._slots
            self._slots, self._stale = found, False
            return
        raise failure

    # -- connections -------------------------------------------------------------------------------------------------

    async def _try(self, address: Address | None) -> None:
        """Whether a server can be spoken to and keeps the promise, in words for whoever starts us."""
        try:
            async with asyncio.timeout(self.url.connect + self.url.timeout):
                connection = await self._dial(address)
        except (RedisError, OSError, TimeoutError) as error:
            raise refusal(error) or StoreUnavailableError(self.name, type(error).__name__) from None
        await connection.disconnect(nowait=True)

    async def _dial(self, address: Address | None) -> Connection:
        """A connection to a server, or to whichever the URL means; one that keeps the promise."""
        connection = await self._opened(address or await self._master())
        try:
            life = await check(connection, self.url, self.name) if self.url.checks else ""
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        if not life or self._lives.get(address) != life:
            self._lives[address] = life
            self.generation += 1
        return connection

    async def _master(self) -> Address:
        """Where the server is: as the URL says, or as the first sentinel says that knows."""
        url = self.url
        if url.service is None:
            return url.addresses[0]
        for address in url.addresses:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                connection = await self._opened(address, sentinel=True)
                try:
                    found = await ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
                finally:
                    await connection.disconnect(nowait=True)
                if found is not None:
                    return Address(found[0].decode(), int(found[1]))
        raise StoreUnavailableError(self.name, f"no sentinel knows a master of {url.service}")

    async def _opened(self, address: Address, *, sentinel: bool = False) -> Connection:
        url = self.url
        given: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "db": 0 if sentinel else url.db,
            "username": None if sentinel else url.username,
            "password": url.sentinel_password if sentinel else url.password,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,  # the lane times a whole exchange
            "socket_connect_timeout": url.connect,
            "driver_info": None,
        }
        if url.tls:
            given |= {"ssl_ca_certs": url.ca, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
        connection = self._secure(given) if url.tls else Connection(**given)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _secure(self, given: dict[str, Any]) -> Connection:
        """All connections share what they trust: to read it takes milliseconds, in which nothing else happens."""
        connection = SSLConnection(**given)
        connection.ssl_context = self._tls = self._tls or connection.ssl_context
        return connection


def _call(script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Command:
    return (b"EVALSHA", script.sha, len(keys), *keys, *arguments)


def _ours(error: Exception, name: str) -> HoldfastError:
    """Our error for one of the driver's. Of what the server says only its code is kept: the rest may name a key."""
    if isinstance(error, StoreUnavailableError | ConfigurationError):
        return error
    if isinstance(error, OutOfMemoryError):
        return StoreFullError(name)
    code = str(error).partition(" ")[0] if isinstance(error, ResponseError) else ""
    if code == "MISCONF":  # it cannot write to its disk, and refuses every write until it can
        return StoreFullError(name)
    if code == "WRONGTYPE":
        return TamperedError(f"a key of the {name} store")
    return StoreUnavailableError(name, f"{type(error).__name__} {code}".strip())
