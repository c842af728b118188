"""PostgreSQL: a pool of connections, short timeouts, numbered migrations, and its errors as ours.

A pooler in transaction mode may stand between, which gives each transaction another server connection. So nothing is
kept in a session: no prepared statement outlives its transaction, and there is no SET, no session lock, no LISTEN and
no temporary table. For the same reason parameters and results are only of types that asyncpg knows by itself (text,
json, bytea, bigint, double precision, boolean, text[]): to learn of another one it asks the catalogue, and switches the
session's ``jit`` off and on around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlunsplit

import asyncpg
import msgspec

from holdfast.drivers.batches import outcome
from holdfast.drivers.store_url import StoreUrl
from holdfast.errors import ConfigurationError, HoldfastError, StoreFullError, StoreUnavailableError, TamperedError

CONNECT = 2.0
"""Seconds to make a connection, or to wait for one of the pool."""
ANSWER = 5.0
"""Seconds to wait for the answer to a statement."""
PATIENT = 60.0
"""Seconds to wait where a statement may have much to do: a migration, a purge."""

_CONNECTIONS = 8
_MOST = 1_000
_OWN = frozenset({"schema", "connections", "prepared"})
_LIBPQ = frozenset(
    {"host", "port", "user", "password", "passfile", "dbname", "database", "service", "servicefile"}
    | {"sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"}
    | {"ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib"}
)
"""What the driver makes nothing of it sends the server as a setting of the session, which a pooler refuses."""
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,49}")
_FIT = """
    SELECT current_setting('fsync') = 'on', current_setting('synchronous_commit') <> 'off',
           current_setting('default_transaction_isolation') = 'read committed',
           current_setting('server_encoding') = 'UTF8'
"""
_UNFIT = (
    "fsync is off: what it acknowledges would not survive a power cut; set fsync = on",
    "synchronous_commit is off: what it acknowledges would not survive a crash; set it to on, for the role or for all",
    "default_transaction_isolation is not what Holdfast's statements are made for; set it to 'read committed'",
    "the database's encoding is not UTF8; create the database with ENCODING 'UTF8'",
)
_FULL = ("53100",)
_DAMAGED = ("XX001", "XX002")
_MENDED = ("28", "3D", "3F", "42")
"""Classes of errors that somebody must mend before a store opens: who may, which database, what is in it."""
_RAISED = "ZH"
"""The class of errors that the functions of our own schemas raise."""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('holdfast migrations of ' || $1, 0))"
# Asked of the catalogue's tables: to_regclass and its like may answer from a cache of before the lock was had.
_SCHEMA_THERE = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
_TABLE_THERE = "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'migration')"
_MIGRATIONS = "CREATE TABLE {schema}.migration (number bigint PRIMARY KEY, title text NOT NULL)"
_VERSION = "SELECT coalesce(max(number), 0) FROM {schema}.migration"
_APPLIED = "INSERT INTO {schema}.migration (number, title) VALUES ($1, $2)"


class Migration(msgspec.Struct, frozen=True):
    """A step from one version of the tables to the next, numbered from 1."""

    number: int
    title: str
    script: str


def migrations(text: str) -> list[Migration]:
    """The migrations of a file, each begun by a line such as ``-- migration 2: an index of owners``."""
    parts = re.split(r"^-- migration (\d+): (.+)$", text, flags=re.MULTILINE)[1:]
    found = [Migration(int(parts[at]), parts[at + 1], parts[at + 2]) for at in range(0, len(parts), 3)]
    if [step.number for step in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations are numbered from 1, without a gap")
    return found


class Place(msgspec.Struct, frozen=True):
    """Where a store is, as its URL says.

    Attributes:
        url: what the driver is given; it may hold a password.
        schema: the schema of the tables.
        connections: how many at most.
        prepared: how many statements a connection keeps prepared. 0, the default, is for poolers in transaction mode;
            more save a round trip where none stands between.
    """

    url: str
    schema: str
    connections: int
    prepared: int

    def __repr__(self) -> str:
        return f"<Place {self.schema}>"

    @classmethod
    def of(cls, url: str) -> Place:
        """Read a URL, ``postgresql://user@host/database?schema=holdfast``.

        Raises:
            ConfigurationError: it says something that is not understood. The URL is not in the message.
        """
        read = StoreUrl(url, "The URL of the PostgreSQL server", where=" in the PostgreSQL URL")
        libpq = {name: value for name, value in read.query.items() if name not in _OWN}
        for name in libpq:
            if name not in _LIBPQ:
                known = ", ".join(sorted(_OWN))
                raise ConfigurationError(
                    f"The URL of the PostgreSQL server asks for {name!r}, which is neither libpq's nor ours ({known})."
                )
        schema = read.query.get("schema", "holdfast")
        if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
            raise ConfigurationError("The schema in the PostgreSQL URL is small letters, digits and underscores.")
        connections = read.count("connections", _CONNECTIONS, 1, _MOST)
        prepared = read.count("prepared", 0, 0, _MOST)
        driver = urlunsplit(("postgresql", *read.parts[1:3], urlencode(libpq), ""))
        return cls(driver, schema, connections, prepared)


class RaisedError(Exception):
    """A function of our own schema refused a row; ``detail`` says which. For the store to put into words."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class _UnfitError(Exception):
    """The server's settings contradict what a store promises."""


class PostgresPool:
    """Connections to one database, for one event loop. ``name`` stands in error messages."""

    def __init__(self, pool: Any, place: Place, name: str) -> None:
        self._pool, self.place, self.name = pool, place, name
        self._mapped = Mapped(name)
        self._writing: set[asyncio.Future[Any]] = set()
        self._closed = False

    @classmethod
    async def open(cls, url: str, *, name: str, steps: Sequence[Migration] = ()) -> PostgresPool:
        """Connect, look whether the server can keep what is promised, and bring the tables up to date.

        Raises:
            ConfigurationError: the URL, the server's settings, the rights of the role, or tables that a newer Holdfast
                has made; says what to do.
            StoreUnavailableError, StoreFullError, TamperedError: the server, as for any statement.
        """
        place = Place.of(url)
        pool = asyncpg.create_pool(
            place.url,
            min_size=0,
            max_size=place.connections,
            statement_cache_size=place.prepared,
            timeout=CONNECT,
            command_timeout=ANSWER,
            init=_fit,
            reset=_keep,
            server_settings={"application_name": "holdfast"},
        )
        made = cls(pool, place, name)
        try:
            with _opening(name):
                await pool
                await made._migrate(steps)
        except BaseException:
            await made.close()
            raise
        return made

    def sql(self, text: str) -> str:
        """A statement with the schema's name in it, in place of ``{schema}``."""
        return text.replace("{schema}", self.place.schema)

    async def fetch(self, sql: str, *bound: Any, seconds: float = ANSWER) -> list[Any]:
        """The rows of one statement, which is a transaction of its own.

        Args:
            seconds: how long to wait for the answer.
        Raises:
            RaisedError: a function of our schema refused something; nothing was changed.
        """
        self._check_open()
        return await self._fetch(sql, bound, seconds)

    async def write(self, sql: str, *bound: Any, seconds: float = ANSWER) -> list[Any]:
        """As ``fetch``; a caller that is cancelled waits for the outcome, and then the cancellation goes on."""
        self._check_open()
        sent = asyncio.ensure_future(self._fetch(sql, bound, seconds))
        self._writing.add(sent)
        sent.add_done_callback(self._writing.discard)
        return await outcome(sent)

    async def close(self) -> None:
        """Wait for the writes that were sent, then close; closing again does nothing."""
        self._closed = True
        while self._writing:
            await asyncio.wait(self._writing)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CONNECT):
                await self._pool.close()
        self._pool.terminate()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError(self.name, "it is closed")

    async def _fetch(self, sql: str, bound: Sequence[Any], seconds: float) -> list[Any]:
        with self._mapped:
            async with self._connection() as connection:
                return list(await connection.fetch(sql, *bound, timeout=seconds))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """A connection of the pool. One that did not answer in time, or was left in the middle, is not used again."""
        connection = await self._pool.acquire(timeout=CONNECT)
        try:
            yield connection
        except BaseException as error:
            # What the server says of a statement leaves the connection fit; with a FATAL error it is going to close it.
            if not isinstance(error, asyncpg.PostgresError) or error.severity in ("FATAL", "PANIC"):
                connection.terminate()
            raise
        finally:
            await self._pool.release(connection, timeout=CONNECT)

    async def _migrate(self, steps: Sequence[Migration]) -> None:
        """Apply the migrations that are missing; writes nothing where none is."""
        schema, known = self.place.schema, len(steps)
        async with self._connection() as connection:
            at = await self._version(connection)
            if at < known:
                async with connection.transaction():
                    await connection.execute(_LOCK, schema, timeout=PATIENT)
                    at = await self._version(connection)  # another process may have been here
                    if at == 0 and not await connection.fetchval(_SCHEMA_THERE, schema):
                        await connection.execute(self.sql("CREATE SCHEMA {schema}"))
                    if at == 0:
                        await connection.execute(self.sql(_MIGRATIONS))
                    for step in steps[at:]:
                        await connection.execute(self.sql(step.script), timeout=PATIENT)
                        await connection.execute(self.sql(_APPLIED), step.number, step.title)
                    at = max(at, known)
        if at > known:
            raise ConfigurationError(
                f"The tables of the {self.name} store (schema {schema}) have been brought to version {at} by a newer"
                f" Holdfast; this one knows them up to version {known}: upgrade it."
            )

    async def _version(self, connection: Any) -> int:
        """How many migrations the tables have had."""
        if not await connection.fetchval(_TABLE_THERE, self.place.schema):
            return 0
        return int(await connection.fetchval(self.sql(_VERSION)))


class Mapped:
    """Around what speaks to the server: turns its errors and the driver's into ours, at the one edge where they appear.

    The cause is not kept: what a server says of a row may quote the row.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        ours = as_ours(error, self._name)
        if ours is not error:
            raise ours from None


@contextlib.contextmanager
def _opening(name: str) -> Iterator[None]:
    """As ``Mapped``, while a store is opened: what somebody must mend first is told as such."""
    try:
        yield
    except HoldfastError:
        raise
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        raise ConfigurationError(f"The URL of the {name} store is not understood ({type(error).__name__}).") from None
    except _UnfitError as error:
        raise ConfigurationError(f"The PostgreSQL server cannot serve as {name} store: {error}.") from None
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith(_MENDED):
            raise ConfigurationError(
                f"The PostgreSQL server does not let the {name} store be opened ({_said(error)}): check user, password,"
                " database, and that the role may create in it."
            ) from None
        raise as_ours(error, name) from None
    except Exception as error:
        ours = as_ours(error, name)
        if ours is error:
            raise
        raise ours from None


def as_ours(error: BaseException, name: str) -> BaseException:
    """Our error for one of the server's or the driver's; anything else stays what it is."""
    if isinstance(error, HoldfastError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        if code.startswith(_RAISED):
            return RaisedError(error.detail or "")
        if code in _FULL:
            return StoreFullError(name)
        if code in _DAMAGED:
            return TamperedError(f"the {name} store's tables")
        return StoreUnavailableError(name, _said(error))
    if isinstance(error, TimeoutError):
        return StoreUnavailableError(name, "no answer in time")
    if isinstance(error, _UnfitError):
        return StoreUnavailableError(name, str(error))
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError):
        return StoreUnavailableError(name, type(error).__name__)
    return error


def as_text(text: str) -> str:
    """Text as it is kept: PostgreSQL has no NUL character, so that is written as two others. The order stays."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\1\2").replace("\0", "\1\1")
    return text


def of_text(kept: str) -> str:
    """The text that ``as_text`` wrote."""
    return kept.replace("\1\1", "\0").replace("\1\2", "\1") if "\1" in kept else kept


def _said(error: asyncpg.PostgresError) -> str:
    """The kind of an error and its code, never its message: that may quote what is stored."""
    return f"{type(error).__name__} {error.sqlstate}"


async def _fit(connection: Any) -> None:
    """Told of each new connection: refuse one that acknowledges what it would lose."""
    for fits, why in zip((await connection.fetch(_FIT))[0], _UNFIT, strict=True):
        if not fits:
            raise _UnfitError(why)


async def _keep(connection: Any) -> None:
    """Told before a connection goes back to the pool: nothing was kept in the session, so there is nothing to reset."""
