"""The PostgreSQL driver: URLs, what a server must promise, migrations, and its errors as ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from holdfast.drivers.postgres import Migration, Place, PostgresPool, as_ours, as_text, migrations, of_text
from holdfast.errors import ConfigurationError, HoldfastError, StoreFullError, StoreUnavailableError, TamperedError
from holdfast.testing.postgres import PostgresServer, pooler, postgres_server
from holdfast.testing.servers import free_port, needed

STEPS = [
    Migration(1, "a table", "CREATE TABLE {schema}.t (a bigint PRIMARY KEY);"),
    Migration(2, "a column", "ALTER TABLE {schema}.t ADD COLUMN b text; INSERT INTO {schema}.t VALUES (1, 'one');"),
]


@pytest.fixture
async def pool(postgres: PostgresServer) -> AsyncIterator[PostgresPool]:
    pool = await PostgresPool.open(postgres.fresh_url(), name="test", steps=STEPS)
    yield pool
    await pool.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that may be harmed."""
    with postgres_server() as server:
        yield server


# -- the URL -----------------------------------------------------------------------------------------------------------


def test_what_is_ours_is_taken_out_of_the_url() -> None:
    url = "postgresql://ana:se%40cret@db:5433/work?sslmode=require&schema=drafts&connections=3&prepared=50"
    place = Place.of(url)
    assert place == Place("postgresql://ana:se%40cret@db:5433/work?sslmode=require", "drafts", 3, 50)
    assert Place.of("postgresql:///?host=/run/postgresql").schema == "holdfast"
    assert Place.of("postgresql://db/work").prepared == 0  # a pooler may stand between


@pytest.mark.parametrize(
    "query",
    [
        "schema=Drafts",
        "schema=a.b",
        "schema=",
        "schema=pg_mine",
        'schema=a"b',
        "schema=" + "x" * 60,
        "connections=0",
        "connections=many",
        "connections=-1",
        "connections=²",
        "prepared=",
        "search_path=drafts",
        "jit=off",
        "=",
        "nonsense",
    ],
)
def test_a_url_that_says_what_is_not_understood_is_refused_without_its_secrets(query: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Place.of(f"postgresql://ana:secret@db/work?{query}")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://ana:secret@[::1/work", "postgresql://ana:secret@db:port/work"])
async def test_a_url_that_is_none_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await PostgresPool.open(url, name="test")
    assert "secret" not in str(refused.value)


async def test_a_server_is_reached_over_its_socket_too(postgres: PostgresServer) -> None:
    parts = urlsplit(postgres.url)
    url = f"postgresql:///postgres?host={postgres.home}&port={parts.port}&user={parts.username}&schema=sockets"
    pool = await PostgresPool.open(f"{url}&password={parts.password}", name="test", steps=STEPS)
    assert await pool.fetch("SELECT inet_client_addr() IS NULL") == [(True,)]
    assert (parts.password or "") not in repr(pool.place)
    await pool.close()


# -- text --------------------------------------------------------------------------------------------------------------


def test_text_with_nul_characters_comes_back_and_keeps_its_order() -> None:
    parts = ["", "\0", "\1", "\2", "a"]
    texts = sorted(a + b + c + d for a in parts for b in parts for c in parts for d in parts)
    kept = [as_text(text) for text in texts]
    assert not any("\0" in text for text in kept)
    assert [of_text(text) for text in kept] == texts
    assert sorted(kept) == kept
    assert as_text("plain") == "plain"


# -- migrations --------------------------------------------------------------------------------------------------------


def test_a_file_of_migrations_is_taken_apart() -> None:
    text = "-- about\n\n-- migration 1: a table\nCREATE;\n-- a comment\n\n-- migration 2: more\nALTER;\n"
    assert migrations(text) == [
        Migration(1, "a table", "\nCREATE;\n-- a comment\n\n"),
        Migration(2, "more", "\nALTER;\n"),
    ]
    with pytest.raises(ValueError, match="numbered from 1"):
        migrations("-- migration 2: more\n")


async def test_each_migration_is_made_once_and_those_that_are_new_are_added(postgres: PostgresServer) -> None:
    url = postgres.fresh_url()
    for steps in (STEPS[:1], STEPS, STEPS):
        pool = await PostgresPool.open(url, name="test", steps=steps)
        titles = await pool.fetch(pool.sql("SELECT number, title FROM {schema}.migration ORDER BY number"))
        assert [tuple(row) for row in titles] == [(step.number, step.title) for step in steps]
        await pool.close()
    assert postgres.run(f"SELECT * FROM {url.rpartition('=')[2]}.t") == "1|one"


async def test_tables_of_a_newer_holdfast_are_left_alone_and_refused(postgres: PostgresServer) -> None:
    url = postgres.fresh_url()
    await (await PostgresPool.open(url, name="test", steps=STEPS)).close()
    with pytest.raises(ConfigurationError, match=r"version 2 by a newer Holdfast.*up to version 1: upgrade"):
        await PostgresPool.open(url, name="test", steps=STEPS[:1])


async def test_a_migration_that_fails_leaves_nothing_behind(postgres: PostgresServer) -> None:
    url = postgres.fresh_url()
    broken = [*STEPS, Migration(3, "broken", "CREATE TABLE {schema}.u (); SELECT 1 / 0;")]
    with pytest.raises(StoreUnavailableError, match="DivisionByZero"):
        await PostgresPool.open(url, name="test", steps=broken)
    assert postgres.run(f"SELECT count(*) FROM pg_namespace WHERE nspname = '{url.rpartition('=')[2]}'") == "0"


async def test_who_may_only_read_and_write_can_open_tables_that_are_up_to_date(postgres: PostgresServer) -> None:
    url = postgres.fresh_url()
    schema = url.rpartition("=")[2]
    postgres.run(f"CREATE ROLE {schema} LOGIN PASSWORD 'weak'")
    parts = urlsplit(url)
    theirs = f"postgresql://{schema}:weak@127.0.0.1:{postgres.port}/postgres?{parts.query}"
    with pytest.raises(ConfigurationError, match="does not let the test store be opened"):
        await PostgresPool.open(theirs, name="test", steps=STEPS)
    await (await PostgresPool.open(url, name="test", steps=STEPS)).close()
    postgres.run(f"GRANT USAGE ON SCHEMA {schema} TO {schema}")
    postgres.run(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {schema} TO {schema}")
    pool = await PostgresPool.open(theirs, name="test", steps=STEPS)
    assert await pool.write(pool.sql("INSERT INTO {schema}.t VALUES (2, 'two') RETURNING a")) == [(2,)]
    await pool.close()


# -- what a server must promise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("synchronous_commit", "off"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_isolation", "repeatable read"),
    ],
)
async def test_a_server_that_would_lose_what_it_acknowledges_is_refused(
    postgres: PostgresServer, setting: str, value: str
) -> None:
    url = postgres.fresh_url()
    role = url.rpartition("=")[2]
    postgres.run(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'weak'")
    postgres.run(f"ALTER ROLE {role} SET {setting} = '{value}'")
    theirs = f"postgresql://{role}:weak@127.0.0.1:{postgres.port}/postgres"
    with pytest.raises(ConfigurationError, match=f"{setting} is"):
        await PostgresPool.open(theirs, name="test")


async def test_a_server_without_fsync_is_refused(own_server: PostgresServer) -> None:
    own_server.stop()
    own_server.start(fsync="off")
    with pytest.raises(ConfigurationError, match="set fsync = on"):
        await PostgresPool.open(own_server.url, name="test")


async def test_a_database_that_does_not_hold_any_text_is_refused(own_server: PostgresServer) -> None:
    own_server.run("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(ConfigurationError, match="encoding is not UTF8"):
        await PostgresPool.open(own_server.url.replace("/postgres", "/latin"), name="test")


async def test_a_server_whose_settings_have_become_worse_is_not_written_to(own_server: PostgresServer) -> None:
    pool = await PostgresPool.open(own_server.url, name="test", steps=STEPS)
    own_server.run("ALTER SYSTEM SET synchronous_commit = off")
    own_server.kill()
    own_server.start()
    with pytest.raises(StoreUnavailableError, match="synchronous_commit is off"):
        await eventually(pool, "SELECT 1", "synchronous_commit")
    await pool.close()


async def eventually(pool: PostgresPool, sql: str, reason: str) -> None:
    """Ask until the answer is an error for a reason: a connection that has just been lost has its own first."""
    for _ in range(20):
        try:
            await pool.fetch(sql)
        except StoreUnavailableError as error:
            if reason in error.reason:
                raise


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [None, "free"])
async def test_who_cannot_be_let_in_is_told_what_to_mend_and_no_secret(
    postgres: PostgresServer, port: str | None
) -> None:
    for url in (
        f"postgresql://holdfast:not-the-secret@127.0.0.1:{postgres.port}/postgres",
        postgres.url.replace("/postgres", "/nowhere"),
    ):
        secret = urlsplit(url).password or ""
        if port == "free":
            url = url.replace(str(postgres.port), str(free_port()))
        with pytest.raises(ConfigurationError if port is None else StoreUnavailableError) as refused:
            await PostgresPool.open(url, name="test")
        assert secret not in str(refused.value)
        assert refused.value.__cause__ is None
        assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        ("53100", StoreFullError),
        ("XX001", TamperedError),
        ("XX002", TamperedError),
        ("57P01", StoreUnavailableError),
        ("08006", StoreUnavailableError),
        ("40P01", StoreUnavailableError),
        ("53300", StoreUnavailableError),
        ("25006", StoreUnavailableError),
        ("23505", StoreUnavailableError),
    ],
)
async def test_each_error_of_the_server_has_its_place(pool: PostgresPool, code: str, ours: type[HoldfastError]) -> None:
    with pytest.raises(ours) as told:
        await pool.fetch(f"DO $$ BEGIN RAISE EXCEPTION 'canary' USING ERRCODE = '{code}', DETAIL = 'canary'; END $$")
    assert "canary" not in str(told.value)
    assert told.value.__suppress_context__
    assert len(await pool.fetch("SELECT 1")) == 1


def test_what_is_no_error_of_the_server_stays_what_it_is() -> None:
    error = ValueError("ours")
    assert as_ours(error, "test") is error
    assert isinstance(as_ours(asyncpg.InterfaceError("closed"), "test"), StoreUnavailableError)
    assert isinstance(as_ours(TimeoutError(), "test"), StoreUnavailableError)
    assert isinstance(as_ours(ConnectionResetError(), "test"), StoreUnavailableError)


async def test_a_closed_pool_says_so(postgres: PostgresServer) -> None:
    pool = await PostgresPool.open(postgres.fresh_url(), name="test", steps=STEPS)
    await pool.close()
    await pool.close()
    for ask in (pool.fetch, pool.write):
        with pytest.raises(StoreUnavailableError, match="closed"):
            await ask("SELECT 1")


# -- connections -------------------------------------------------------------------------------------------------------


async def test_a_write_whose_caller_is_cancelled_is_awaited(pool: PostgresPool) -> None:
    writing = asyncio.create_task(pool.write(pool.sql("INSERT INTO {schema}.t SELECT 9 FROM pg_sleep(0.2)")))
    await asyncio.sleep(0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert len(await pool.fetch(pool.sql("SELECT FROM {schema}.t WHERE a = 9"))) == 1


async def test_a_read_whose_caller_is_cancelled_ends_at_once(pool: PostgresPool) -> None:
    reading = asyncio.create_task(pool.fetch("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.1)
    start = time.monotonic()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert time.monotonic() - start < 2
    assert len(await pool.fetch("SELECT 1")) == 1


async def test_more_statements_than_connections_wait_for_each_other(postgres: PostgresServer) -> None:
    pool = await PostgresPool.open(f"{postgres.fresh_url()}&connections=2", name="test", steps=STEPS)
    await asyncio.gather(*(pool.fetch("SELECT pg_sleep(0.01)") for _ in range(40)))
    used = postgres.run("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast'")
    assert int(used) >= 2
    await pool.close()


async def test_a_server_that_does_not_answer_is_given_up_in_time_and_found_again(own_server: PostgresServer) -> None:
    pool = await PostgresPool.open(own_server.url, name="test", steps=STEPS)
    own_server.pause()
    start = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="no answer in time"):
        await pool.fetch("SELECT 1", seconds=0.5)
    assert time.monotonic() - start < 4
    start = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="no answer in time"):  # a new connection is not had either
        await pool.fetch("SELECT 1", seconds=0.5)
    assert time.monotonic() - start < 4
    own_server.resume()
    assert await pool.fetch("SELECT 1") == [(1,)]
    await pool.close()


async def test_closing_does_not_wait_for_a_server_that_does_not_answer(own_server: PostgresServer) -> None:
    pool = await PostgresPool.open(own_server.url, name="test", steps=STEPS)
    own_server.pause()
    start = time.monotonic()
    await pool.close()
    assert time.monotonic() - start < 4
    own_server.resume()


@pytest.mark.parametrize("end", [PostgresServer.kill, PostgresServer.stop])
async def test_a_server_that_was_started_again_is_found_again(
    own_server: PostgresServer, end: Callable[[PostgresServer], None]
) -> None:
    pool = await PostgresPool.open(own_server.url, name="test", steps=STEPS)
    for _ in range(3):
        await asyncio.gather(*(pool.fetch("SELECT pg_sleep(0.02)") for _ in range(8)))
        await asyncio.to_thread(end, own_server)
        with pytest.raises(StoreUnavailableError):
            await pool.fetch("SELECT 1")
        await asyncio.to_thread(own_server.start)
        assert await pool.fetch("SELECT 1") == [(1,)]
    await pool.close()


async def test_nothing_is_left_in_a_session_that_a_pooler_shares(postgres: PostgresServer) -> None:
    needed("pgbouncer")
    with pooler(postgres, default_pool_size="1") as url:
        pools = [await PostgresPool.open(f"{url}?schema=shared", name="test", steps=STEPS) for _ in range(3)]
        for round in range(20):
            rows = await asyncio.gather(
                *(pool.fetch("SELECT $1::text, $2::bigint", f"{at}", round) for at, pool in enumerate(pools))
            )
            assert [tuple(row[0]) for row in rows] == [(f"{at}", round) for at in range(3)]
        left = await pools[0].fetch(
            "SELECT count(*), current_setting('jit') FROM pg_prepared_statements WHERE name <> ''"
        )
        assert [tuple(row) for row in left] == [(0, "on")]
        for pool in pools:
            await pool.close()


async def test_statements_kept_prepared_behind_a_pooler_are_noticed(postgres: PostgresServer) -> None:
    """What ``prepared`` is 0 for."""
    needed("pgbouncer")
    with pooler(postgres, default_pool_size="2") as url:
        pools = [await PostgresPool.open(f"{url}?prepared=50&schema=shared_too", name="test") for _ in range(3)]
        outcomes = [
            outcome
            for round in range(20)
            for outcome in await asyncio.gather(
                *(pool.fetch(f"SELECT {round % 3} FROM pg_sleep(0.001)") for pool in pools), return_exceptions=True
            )
        ]
        assert any(isinstance(outcome, StoreUnavailableError) for outcome in outcomes)
        for pool in pools:
            await pool.close()


async def test_a_write_that_was_sent_is_finished_when_the_pool_is_closed(postgres: PostgresServer) -> None:
    url = postgres.fresh_url()
    pool = await PostgresPool.open(url, name="test", steps=STEPS)
    writing = asyncio.create_task(pool.write(pool.sql("INSERT INTO {schema}.t VALUES (5, 'five') RETURNING a")))
    await asyncio.sleep(0)
    await pool.close()
    assert await writing == [(5,)]
