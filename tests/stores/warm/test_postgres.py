"""The warm store in a PostgreSQL database keeps the port's promises."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from holdfast.errors import AlreadyExistsError, TamperedError
from holdfast.model.cursor import PageCursor
from holdfast.ports.warm import ChainEnd, Query
from holdfast.stores.warm.postgres import (
    _CHANGES,
    _DUE,
    _FEW,
    _ITEMS,
    _REVOKED,
    _SIZE,
    _UNDER_CHANGE,
    PostgresWarmStore,
)
from holdfast.stores.warm.postgres_queries import found, lines_of
from holdfast.testing.postgres import PostgresServer, pooler
from holdfast.testing.revocation import revocation
from holdfast.testing.samples import NOW, content, entry_at, head_at
from holdfast.testing.servers import needed
from holdfast.testing.warm import WarmStoreSuite
from holdfast.testing.warm_handles import Connect, log, snapshot_at, snapshot_of

Race = Callable[..., dict[str, Any]]

ROUNDS = 40
ROWS = 20_000


class TestPostgresWarmStore(WarmStoreSuite):
    @pytest.fixture
    def connect(self, postgres: PostgresServer) -> Connect:
        return partial(PostgresWarmStore.open, postgres.fresh_url())


class TestPostgresWarmStoreBehindAPooler(WarmStoreSuite):
    """In transaction mode, with two server connections for all: each statement may find itself on another one."""

    @pytest.fixture
    def connect(self, postgres: PostgresServer, pooled: str) -> Connect:
        return partial(PostgresWarmStore.open, f"{pooled}?{postgres.fresh_url().partition('?')[2]}")


@pytest.fixture(scope="module")
def pooled(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a pooler before the server."""
    needed("pgbouncer")
    with pooler(postgres) as url:
        yield url


@pytest.fixture
async def store(postgres: PostgresServer) -> AsyncIterator[PostgresWarmStore]:
    store = await PostgresWarmStore.open(postgres.fresh_url())
    yield store
    await store.close()


# -- several at once ---------------------------------------------------------------------------------------------------


async def test_a_chain_that_racing_processes_extend_has_every_line_once(postgres: PostgresServer, race: Race) -> None:
    url = postgres.fresh_url()
    told = race("audit", url, rounds=ROUNDS)
    store = await PostgresWarmStore.open(url)
    chain = await store.audit(chain="acme", limit=9_999)
    assert [row.seq for row in chain] == list(range(1, 4 * ROUNDS + 1))
    assert sorted(row.line.decode() for row in chain) == sorted(line for made in told.values() for line in made)
    assert (await store.chains())["acme"] == ChainEnd(4 * ROUNDS, chain[-1].mac, chain[-1].line)
    await store.close()


async def test_a_log_that_racing_processes_append_is_kept_once(postgres: PostgresServer, race: Race) -> None:
    url = postgres.fresh_url()
    race("appends", url, rounds=ROUNDS)
    store = await PostgresWarmStore.open(url)
    assert await store.entries("s", after=0, limit=9_999) == log("s", 1, ROUNDS)
    assert await store.head("s") == head_at("s", ROUNDS)
    await store.close()


async def test_batches_of_racing_processes_do_not_wait_for_each_other_for_ever(
    postgres: PostgresServer, race: Race
) -> None:
    url = postgres.fresh_url()
    race("batches", url, rounds=ROUNDS)
    store = await PostgresWarmStore.open(url)
    for number in range(30):
        assert await store.entries(f"s{number}", after=0, limit=99) == log(f"s{number}", 1, ROUNDS)
    # The members of each session are those of one of the four that brought its last head, and of nobody else.
    seen = {name: len(await store.find(Query("acme", member=name), after=None, limit=99)) for name in names(4)}
    assert sum(seen.values()) == 30
    assert len(await store.find(Query("acme", member=f"at {ROUNDS}"), after=None, limit=99)) == 30
    assert await store.find(Query("acme", member=f"at {ROUNDS - 1}"), after=None, limit=99) == []
    await store.close()


async def test_tables_that_racing_processes_make_are_made_once(postgres: PostgresServer, race: Race) -> None:
    for _ in range(3):
        url = postgres.fresh_url()
        race("openings", url, rounds=1, processes=4)
        store = await PostgresWarmStore.open(url)
        assert {head.id for head in await store.find(Query(), after=None, limit=9)} == set(names(4))
        await store.close()


def names(count: int) -> list[str]:
    """What the ``race`` fixture calls its processes."""
    return ["p" * (number + 1) for number in range(count)]


async def test_appends_that_are_ready_together_are_one_statement(postgres: PostgresServer) -> None:
    url = postgres.fresh_url()
    store = await PostgresWarmStore.open(url)
    schema = url.rpartition("=")[2]

    def transactions() -> int:
        return int(postgres.run(f"SELECT count(DISTINCT xmin::text) FROM {schema}.log"))

    await asyncio.gather(*(store.append(head_at(f"s{n}", 3), log(f"s{n}", 1, 3)) for n in range(500)))
    assert transactions() == 1
    await asyncio.gather(
        *(store.append(head_at("s", n), log("s", n, n)) for n in range(1, 6))
    )  # one of a session in each
    assert transactions() == 6
    await store.close()


async def test_a_refused_append_takes_none_of_its_batch_with_it(store: PostgresWarmStore) -> None:
    for number in range(0, 40, 8):
        await store.append(head_at(f"s{number}", 1), log(f"s{number}", 1, 1))
    outcomes = await asyncio.gather(
        *(
            store.append(head_at(f"s{n}", 2), [entry_at(f"s{n}", 1, "mine", digest=b"mine"), entry_at(f"s{n}", 2)])
            for n in range(40)
        ),
        return_exceptions=True,
    )
    assert [at for at, outcome in enumerate(outcomes) if outcome is not None] == list(range(0, 40, 8))
    assert all(isinstance(outcome, AlreadyExistsError) for outcome in outcomes[::8])
    for number in range(40):
        head = await store.head(f"s{number}")
        assert head is not None
        assert head.step == (1 if number % 8 == 0 else 2)


async def test_an_append_of_many_megabytes_goes_through(store: PostgresWarmStore) -> None:
    large = [entry_at("s", step, payload=content(f"{step}", 6_000_000)) for step in range(1, 5)]
    await asyncio.gather(store.append(head_at("s", 4), large), store.append(head_at("t", 1), log("t", 1, 1)))
    assert await store.entries("s", after=0, limit=9) == large
    assert await store.entries("s", after=1, limit=9, room=7_000_000) == large[1:3]


async def test_what_a_large_stub_was_made_of_comes_back_within_the_time_it_is_given(store: PostgresWarmStore) -> None:
    """Fifty megabytes of log and ten of items, at once with what others append."""
    whole = [entry_at("s", step, payload=content(f"{step}", 10_000)) for step in range(1, 5_001)]
    snapshot = snapshot_at(5_000, [b"%04d" % number for number in range(2_000)], 5_000)
    await store.append(head_at("s", 5_000), whole)
    await store.snapshot("s", snapshot)
    assert await store.archive("s", step=5_000, key="k") is True
    await asyncio.gather(
        store.restore("s", whole, snapshot, key="k"),
        *(store.append(head_at(f"t{n}", 1), log(f"t{n}", 1, 1)) for n in range(50)),
    )
    assert await store.entries("s", after=0, limit=9_999) == whole
    assert await snapshot_of(store) == snapshot
    assert await store.change("s", "c4321") == whole[4_320]


async def test_a_snapshot_that_cannot_be_unpacked_is_said_to_be_tampered_with(store: PostgresWarmStore) -> None:
    await store.append(head_at("s", 1), [])
    await store.snapshot("s", snapshot_at(1))
    for damaged in (b"", b"\xc1", b"\x91\x01"):
        await store._pool.write(store._pool.sql("UPDATE {schema}.snapshot SET items = $1"), damaged)
        with pytest.raises(TamperedError, match="snapshot of session s"):
            await store.items("s")


async def test_a_number_of_revocations_is_not_passed_over_by_one_that_takes_its_time(
    postgres: PostgresServer, store: PostgresWarmStore
) -> None:
    """Who has read up to a number sees all that was given a lower one, though it was committed later."""
    schema = store._pool.place.schema
    slow = asyncio.create_task(
        asyncio.to_thread(
            postgres.run,
            f"BEGIN; SELECT {schema}.revoke('acme', 'slow', '', 0, 1e12, 'ana', 0); SELECT pg_sleep(1); COMMIT",
        )
    )
    await asyncio.sleep(0.4)
    quick = asyncio.create_task(store.revoke(revocation("quick"), now=NOW))
    seen, after = await store.revoked(after=0, now=NOW)
    assert seen == []
    await asyncio.gather(slow, quick)
    seen, _ = await store.revoked(after=after, now=NOW)
    assert [one.token for one in seen] == ["slow", "quick"]


# -- plans -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowded(postgres: PostgresServer) -> str:
    """The URL of tables with so many rows that a plan which reads them all would be noticed."""
    url = postgres.fresh_url()
    schema = url.rpartition("=")[2]

    async def make() -> None:
        await (await PostgresWarmStore.open(url)).close()

    asyncio.run(make())
    postgres.run(
        f"""
        INSERT INTO {schema}.session
        SELECT 's' || n, 'tenant ' || n / 2000, 'owner ' || n % 50,
            (ARRAY['agent', 'graph', 'dataset'])[1 + n / 700 % 3],
            (ARRAY['published', 'discarded'])[1 + n / 400 % 2], 1, 1, '', n,
            CASE WHEN n % 100 = 0 THEN n END, '', NULL, false, CASE WHEN n % 20 = 0 THEN 'object ' || n END
        FROM generate_series(1, {ROWS}) AS n;
        UPDATE {schema}.session SET status = 'draft' WHERE created IN (2100, 2107, 2150, 2157);
        INSERT INTO {schema}.member SELECT tenant, 'member ' || created::bigint % 70, created, id
        FROM {schema}.session;
        INSERT INTO {schema}.log SELECT 's' || n % 200, n / 200, 1, true, 'c' || n, '', '', ''
        FROM generate_series(0, {ROWS}) AS n;
        INSERT INTO {schema}.audit SELECT 'chain ' || n / 1000, n % 1000, 'tenant ' || n / 1000, 's' || n % 1000, '', ''
        FROM generate_series(0, {ROWS}) AS n;
        INSERT INTO {schema}.snapshot SELECT 's' || n, 1, '' FROM generate_series(1, {ROWS}) AS n;
        INSERT INTO {schema}.revocation SELECT n, 'acme', 't' || n, '', 0, n, '' FROM generate_series(1, {ROWS}) AS n;
        ANALYZE {schema}.session, {schema}.snapshot, {schema}.revocation, {schema}.member, {schema}.log, {schema}.audit
        """
    )
    return url


PLACE = PageCursor(3_200.0, "s")
FINDS = [
    (Query(), ["session_all"]),
    (Query("tenant 1"), ["session_newest"]),
    (Query("tenant 1", "owner 7"), ["session_owner"]),
    (Query("tenant 1", kind="graph"), ["session_kind"]),
    (Query("tenant 1", kind="none"), ["session_kind"]),
    (Query("tenant 1", status="draft"), ["session_status"]),
    (Query("tenant 1", status="published"), ["session_status"]),
    (Query("tenant 1", kind="graph", status="draft"), ["session_kind_status"]),
    (Query("tenant 1", "owner 7", "graph", "draft"), ["session_owner"]),
    (Query("tenant 1", member="member 1"), ["session_owner", "member_pkey"]),
    (Query("tenant 1", member="owner 7"), ["session_owner", "member_pkey"]),
    (Query("tenant 1", "owner 7", member="member 1"), ["member_pkey"]),
]


@pytest.mark.parametrize("after", [None, PLACE])
@pytest.mark.parametrize(("query", "indexes"), FINDS)
async def test_what_is_looked_for_is_read_along_an_index(
    crowded: str, query: Query, indexes: list[str], after: PageCursor | None
) -> None:
    sql, bound = found(query, after, 10)
    plan = await planned(crowded, sql, bound)
    used = re.findall(r"Index (?:Only )?Scan(?: Backward)? using (\w+) on (?:session|member)", plan)
    assert set(indexes) == set(used) - {"session_pkey"}, plan
    assert "Seq Scan" not in plan, plan
    assert pages_of(plan) <= 150, plan  # of some 600: one owner's or one member's forty, each looked up


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"chain": "chain 7"}, "audit_pkey"),
        ({"tenant": "tenant 7"}, "audit_tenant"),
        ({"session": "s7"}, "audit_session"),
        ({"tenant": "tenant 7", "session": "s7"}, "audit_session"),
        ({}, "audit_pkey"),
    ],
)
@pytest.mark.parametrize("after", [None, ("chain 6", 500)])
async def test_audit_lines_are_read_along_an_index(
    crowded: str, asked: dict[str, str], index: str, after: tuple[str, int] | None
) -> None:
    wanted = [asked.get(name) for name in ("tenant", "session", "chain")]
    sql, bound = lines_of(wanted[0], wanted[1], wanted[2], after, 10)
    plan = await planned(crowded, sql, bound)
    assert "Seq Scan" not in plan, plan
    assert re.search(rf"(using|on) {index}\b", plan), plan
    assert pages_of(plan) < 60, plan


async def test_what_is_under_way_is_counted_from_an_index_of_that_alone(crowded: str) -> None:
    store = await PostgresWarmStore.open(crowded)
    assert sum((await store.counts()).values()) == 4
    await store.close()
    counts = "SELECT status, kind, count(*) FROM {schema}.session WHERE status IN ('draft', 'locked') GROUP BY 1, 2"
    plan = await planned(crowded, counts, [])
    assert "session_under_way" in plan, plan
    assert pages_of(plan) < 20, plan


async def test_a_page_of_the_log_is_read_along_its_key(crowded: str) -> None:
    for sql, bound in (
        ("SELECT * FROM {schema}.log WHERE session = $1 AND step > $2 ORDER BY step LIMIT $3", ["s7", 50, 10]),
        ("SELECT * FROM {schema}.log WHERE session = $1 AND step = ANY ($2::text[]::bigint[])", ["s7", ["3", "9"]]),
    ):
        plan = await planned(crowded, sql, bound)
        assert "using log_pkey" in plan or "on log_pkey" in plan, plan
        assert pages_of(plan) < 60, plan


@pytest.mark.parametrize(
    ("sql", "bound", "index"),
    [
        (_UNDER_CHANGE, ["s7", "c407"], "log_change"),
        (_CHANGES, ["s7", 9], "log_pkey"),
        (_DUE, [3_000.0, 10], "session_due"),
        (_ITEMS, ["s7"], "snapshot_pkey"),
        ("SELECT count(*) FROM {schema}.session WHERE archive IS NOT NULL", [], "session_archived"),
        (_REVOKED, [ROWS - 10, 0.0], "revocation_no"),
    ],
)
async def test_what_is_asked_for_often_is_read_along_an_index(
    crowded: str, sql: str, bound: list[Any], index: str
) -> None:
    plan = await planned(crowded, sql, bound)
    assert re.search(rf"(using|on) {index}\b", plan), plan
    assert "Seq Scan" not in plan, plan
    assert pages_of(plan) < 60 or index == "session_archived", plan


async def test_many_sessions_are_counted_by_what_the_server_remembers(crowded: str) -> None:
    store = await PostgresWarmStore.open(crowded)
    exact = await store.size()
    assert (exact.sessions, exact.archived) == (ROWS, ROWS // 20)
    estimating = store._pool.sql(_SIZE.replace(str(_FEW), "500"))
    sessions, archived, held = (await store._pool.fetch(estimating))[0]
    assert abs(sessions - ROWS) < ROWS / 10
    assert abs(archived - ROWS / 20) < ROWS / 100
    assert held == exact.bytes > 5_000_000
    plan = await planned(crowded, _SIZE.replace(str(_FEW), "500"), [])
    assert pages_of(plan) < 400, plan  # of the catalogue, which says how large each table is
    await store.close()


async def planned(url: str, sql: str, bound: list[Any]) -> str:
    """How the server runs a statement, and how many pages it looks at."""
    store = await PostgresWarmStore.open(url)
    pool = store._pool
    await pool.fetch(pool.sql(sql), *bound)  # what the catalogue is asked for the first time is not counted
    rows = await pool.fetch(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {pool.sql(sql)}", *bound)
    await store.close()
    return "\n".join(row[0] for row in rows)


def pages_of(plan: str) -> int:
    """The pages that the topmost step of a plan, and so all of it, looked at."""
    counted = re.search(r"Buffers: shared (?:hit=(\d+))?(?: ?read=(\d+))?", plan)
    assert counted is not None, plan
    return sum(int(count or 0) for count in counted.groups())
