"""The rows of Redis and of the tiers: that both sides do the same, and that what is not there is left out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from holdfast.bench import measure, report, rounds, servers
from holdfast.bench.redis import opened, settings_of
from holdfast.bench.redis_floor import BareRedis, BareSession, Sizes
from holdfast.bench.tiers import BareTiers, Tiers
from holdfast.bench.workloads import ITEM_BYTES, Writer
from holdfast.settings import Settings
from holdfast.testing.proxy import Proxy
from holdfast.testing.servers import RedisServer, needed, program

SIZES = Sizes((1_000, 1_001, 1_002), 1_200)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    needed("redis-server", "valkey-server")
    with servers.redis(tmp_path, "always") as url:
        yield url


@pytest.fixture
async def bare(url: str) -> AsyncIterator[BareRedis]:
    async with contextlib.aclosing(BareRedis(url)) as bare:
        yield bare


# -- the floor ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [BareSession.commit, BareSession.watched])
async def test_the_floor_writes_a_field_and_an_entry_and_only_from_where_its_session_stands(
    bare: BareRedis, way: Callable[[BareSession], Awaitable[None]]
) -> None:
    (session,) = await bare.sessions([SIZES])
    before = await session.load()
    for _ in range(4):
        await way(session)
    after = await session.load()
    assert (after.pop(b"step"), before.pop(b"step")) == (b"4", b"0")
    assert {name: len(value) for name, value in after.items()} == {b"i:0": 1_000, b"i:1": 1_001, b"i:2": 1_002}
    assert await session.length() == 4
    session.step = 2
    with pytest.raises(LookupError, match="stands elsewhere"):
        await way(session)
    assert await session.length() == 4


async def test_the_floor_has_the_sizes_of_a_session_of_ours(url: str, bare: BareRedis, tmp_path: Path) -> None:
    async with opened(settings_of(tmp_path, url)) as (engine, store):
        writer = await Writer.create(engine, 5)
        await writer.commit()
        sizes = await Sizes.of(store, writer.session)
        loaded = await store.load(writer.session)
        assert loaded is not None
        (session,) = await bare.sessions([sizes])
        fields = await session.load()
        del fields[b"step"]
        assert sorted(map(len, fields.values())) == sorted(len(item.sealed or b"") for item in loaded[1])
        assert ITEM_BYTES < sizes.entry < 2 * ITEM_BYTES, "an entry holds the item, once"
        with pytest.raises(LookupError):
            await Sizes.of(store, "nothing")


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_the_server_syncs_its_file_as_the_row_says(tmp_path: Path, fsync: str) -> None:
    needed("redis-server", "valkey-server")
    with servers.redis(tmp_path, fsync) as url:
        server = RedisServer(tmp_path)
        server.port = int(url.partition("?")[0].rpartition(":")[2])
        assert fsync.encode() in server.say("CONFIG", "GET", "appendfsync")
        assert f"durability={'disk' if fsync == 'always' else 'hot'}" in url


# -- the tiers ---------------------------------------------------------------------------------------------------------


async def test_the_floor_of_the_tiers_goes_the_same_way_as_ours(url: str, tmp_path: Path) -> None:
    needed("postgres")
    with servers.postgresql() as server:
        async with Proxy("127.0.0.1", server.port).listening() as way:
            warm = server.url.replace(f":{server.port}/", f":{way.port}/")
            tiers = Tiers(Settings(home=tmp_path, hot=url, warm=warm), [way])
            async with BareTiers.on(tiers) as bare:
                await bare.keep("one", SIZES)
                start = time.perf_counter()
                with tiers.away(0.2):
                    await bare.bring("one")
                assert time.perf_counter() - start >= 0.2
                assert way.delay == 0.0


# -- what is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "missing", "gone"),
    [
        ("redis", "redis-server", {"redis_commits", "redis_commits_everysec", "redis_load20", "redis_growth"}),
        ("postgresql", "initdb", {"tiers_rehydrate", "tiers_restore"}),
    ],
)
def test_without_a_server_its_rows_are_left_out_and_it_is_said(
    server: str, missing: str, gone: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(servers, "program", lambda *names: None if missing in names else program(*names))
    assert gone.isdisjoint(work.__name__ for work in measure.possible())
    told = dict(report.described(report.machine(tmp_path, quick=True)))
    assert told[server] == f"left out: {missing} not on this machine"


def test_with_the_servers_their_rows_are_there_and_it_is_said_which_they_are(tmp_path: Path) -> None:
    needed("redis-server", "valkey-server")
    needed("postgres")
    names = {work.__name__ for work in measure.possible()}
    assert {"redis_commits", "redis_growth", "tiers_rehydrate", "tiers_restore", "over_http"} <= names
    told = dict(report.described(report.machine(tmp_path, quick=True)))
    assert "redis-py" in told["redis"]
    assert told["postgresql"].startswith("postgres 1")
    assert told["s3"].startswith("moto")


# -- rounds and reach --------------------------------------------------------------------------------------------------


async def test_of_several_sides_each_is_first_as_often_and_has_a_row_beside_the_one_floor() -> None:
    order: list[str] = []

    def side(name: str, figure: float) -> rounds.Side:
        async def one(seconds: float) -> float:
            order.append(name)
            return figure

        return one

    sides = {"a": side("a", 30.0), "b": side("b", 20.0)}
    rows = await rounds.beside(sides, "µs", side("floor", 10.0), 3, 0.0)
    assert [(row.name, row.ratio) for row in rows] == [("a", 3.0), ("b", 2.0)]
    assert {row.floor for row in rows} == {10.0}
    assert order[::3] == ["a", "b", "floor"]
    assert all(sorted(order[at : at + 3]) == ["a", "b", "floor"] for at in range(0, 9, 3))


def test_a_bound_in_milliseconds_is_held_against_ours_and_not_against_the_ratio() -> None:
    told = report.cells(
        [
            report.row("tiers.rehydrate.50ms", "ms", [199.0], [1.0]),
            report.row("tiers.restore", "ms", [2_001.0], [2_001.0]),
        ]
    )
    met, reach = report.COLUMNS.index("met"), report.COLUMNS.index("reach")
    assert [(row[reach], row[met]) for row in told] == [("<= 200 ms", "yes"), ("<= 2000 ms", "no")]
