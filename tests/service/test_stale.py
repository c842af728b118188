"""R11 over HTTP: while Redis is gone the service reads from PostgreSQL and says so, refuses writes with a time to wait,
and goes on by itself.

The feed neither ends nor goes back meanwhile. What the warm tier has is held behind the hot one by hand, as a crash may
find it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from holdfast.engine.feed import Feed
from holdfast.engine.opened import Opened
from holdfast.settings import Settings
from holdfast.testing.doors import Door
from holdfast.testing.front import ADMIN, ANA, Front, opened
from holdfast.testing.issuer import Issuer
from holdfast.testing.listener import Event, Listener
from holdfast.testing.postgres import PostgresServer, postgres_server
from holdfast.testing.servers import RedisServer

READ_ONLY, BACK = 2.0, 5.0  # promised is 1 s; the rest is for a machine that is busy with other tests
"""Seconds within which it reads on, and within which it writes again (R11)."""
QUIET = 1.5
HUNG = 30.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server of this file's own: a test kills it."""
    with postgres_server() as server:
        yield server


@pytest.fixture
async def apart(
    believing: Settings, issuer: Issuer, redis: RedisServer, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Front]:
    """A service whose tiers are apart; what is written is flushed when a test says so, and not before."""
    monkeypatch.setattr("holdfast.engine.flushing._GATHER", 3_600.0)
    hot = f"{redis.url}?prefix=stale-{time.monotonic_ns()}&timeout=5"  # on a disk that others keep busy
    async with opened(replace(believing, hot=hot, warm=postgres.fresh_url()), issuer) as front:
        yield front


async def write(front: Front, address: str, text: str, version: int) -> httpx2.Response:
    client, tag = await front.client(ANA), {"if-match": f'"{version}"'}
    return await client.put(f"{address}/items/chunks/0001", json={"text": text}, headers=tag)


async def back(front: Front, address: str, version: int) -> None:
    """Write as soon as that works."""
    begun = time.monotonic()
    while (answer := await write(front, address, "Back.", version)).status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1
        await asyncio.sleep(0.05)
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - begun < BACK


# -- reading and writing ----------------------------------------------------------------------------------------------


async def test_r11_what_is_read_while_redis_is_gone_is_marked_and_goes_to_no_cache(
    apart: Front, redis: RedisServer
) -> None:
    """The tag of the very same state gives no 304, for nobody knows whether it is the newest."""
    client = await apart.client(ANA)
    address, tag = await apart.make()
    await apart.engine.flush(ADMIN)
    fresh = await client.get(address)  # whose bytes the service keeps
    assert (fresh.json()["stale"], fresh.headers["etag"]) == (False, tag)
    assert "holdfast-stale" not in fresh.headers
    redis.kill()
    begun = time.monotonic()
    for path, held in (
        ("", False),
        ("", True),
        ("/header", True),
        ("/items", False),
        ("/items/chunks/0001", False),
        ("/versions/1", False),
        ("/history", False),
        ("/labels", False),
        ("/receipts", False),
        ("/feed", False),
        ("/export", False),
        ("/diff?before=0&after=1", False),
    ):
        answer = await client.get(address + path, headers={"if-none-match": tag} if held else {})
        assert answer.status_code == 200, (path, answer.text)
        assert answer.headers["holdfast-stale"] == "true", path
        assert answer.headers["cache-control"] == "no-store", path
        assert "etag" not in answer.headers, path
        told = answer.json()
        if path in ("", "/header"):
            assert told["stale"] is True
        if not path:
            assert {**fresh.json(), "stale": True} == told
            assert time.monotonic() - begun < READ_ONLY
    assert "holdfast-stale" not in (await client.get("/v1/whoami")).headers
    assert (await client.get(f"/v1/sessions/{'a' * 32}")).json()["code"] in (
        "session-not-found",
        "store-unavailable",
        "store-down",
    )
    redis.start()
    await back(apart, address, 1)
    answer = await client.get(address, headers={"if-none-match": tag})
    assert (answer.status_code, answer.json()["version"], answer.json()["stale"]) == (200, 2, False)
    assert "etag" in answer.headers
    assert "holdfast-stale" not in answer.headers


async def test_r11_writes_are_refused_with_a_time_to_wait_and_land_afterwards(apart: Front, redis: RedisServer) -> None:
    client = await apart.client(ANA)
    address, _ = await apart.make()
    await apart.engine.flush(ADMIN)
    redis.kill()
    codes = set()
    for _ in range(5):
        for answer in (
            await write(apart, address, "No.", 1),
            await client.put(f"{address}/title", json={"title": "No"}),
            await client.post(f"{address}/archive"),
            await client.post("/v1/sessions", json={"kind": "knowledge"}),
        ):
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            codes.add(answer.json()["code"])
    assert codes <= {"store-unavailable", "store-down"}
    assert "store-down" in codes
    told = (await (await apart.client(ADMIN)).get("/v1/tiers")).json()
    assert (told["tiered"], told["flush"], told["hot"]) == (True, None, None)
    assert told["warm"]["sessions"] == 1
    assert (await client.get("/health")).json()["tiers"]["hot"] in codes
    redis.start()
    await back(apart, address, 1)
    assert (await client.get(address)).json()["version"] == 2


@pytest.mark.parametrize(
    ("set_to", "options", "durability"),
    [({}, "", "disk"), ({"acknowledge": "warm"}, "", "warm"), ({}, "&durability=hot", "hot")],
)
async def test_each_write_says_what_it_survives(
    believing: Settings,
    issuer: Issuer,
    redis: RedisServer,
    postgres: PostgresServer,
    set_to: dict[str, str],
    options: str,
    durability: str,
) -> None:
    """DESIGN 2: what the settings have made of it, and not a word that is always the same."""
    hot = f"{redis.url}?prefix=stale-{time.monotonic_ns()}&timeout=5{options}"
    asked = replace(believing, hot=hot, warm=postgres.fresh_url(), **set_to)
    async with opened(asked, issuer) as front:
        client = await front.client(ANA)
        address, _ = await front.make()
        tag = {"if-match": '"1"'}
        item = f"{address}/items/chunks/0001"
        answers = [
            await client.post("/v1/sessions", json={"kind": "knowledge"}),
            await client.put(item, json={"text": "one"}, headers=tag),
            await client.put(item, json={"text": "2"}, headers={"if-match": '"2"', "prefer": "return=minimal"}),
            await client.put(item, json={"text": "3"}, headers={"if-match": '"3"', "prefer": "return=representation"}),
            await client.put(f"{address}/title", json={"title": "Moons"}),
            await client.put(f"{address}/labels/good"),
            await client.post(f"{address}/leases", json={"holder": "a tab"}),
            await client.delete(f"{address}/leases/1"),
        ]
        for answer in answers:
            assert answer.status_code < 300, answer.text
            assert answer.headers["holdfast-durability"] == durability, answer.request.url
        assert answers[1].json()["durability"] == durability


# -- the feed ---------------------------------------------------------------------------------------------------------


class Ears:
    """Listeners to the feed of a session, each with what it has heard."""

    def __init__(self, address: str, token: str, session: str, stack: AsyncExitStack) -> None:
        self._door, self._session, self._stack = Door(address, token), session, stack
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, last: str | None = None) -> list[Event]:
        """One more; what it hears is put into the list."""
        heard: list[Event] = []
        listener = await self._stack.enter_async_context(Listener.to(self._door, self._session, last=last))

        async def hear() -> None:
            async for event in listener.events():
                heard.append(event)

        task = asyncio.create_task(hear())
        self._tasks.append(task)
        self._stack.callback(task.cancel)
        return heard

    async def until(self, heard: list[Event], many: int) -> None:
        async with asyncio.timeout(HUNG):
            while len(heard) < many:
                await asyncio.sleep(0.02)

    @property
    def open_still(self) -> int:
        """How many streams have not ended."""
        return sum(not task.done() for task in self._tasks)


@pytest.fixture
async def behind(apart: Front) -> AsyncIterator[tuple[Front, Ears, str]]:
    """A session of two steps, of which the warm tier has one, and its feed on a socket."""
    async with apart.listening() as url, AsyncExitStack() as stack:
        address, _ = await apart.make()
        await apart.engine.flush(ADMIN)
        assert (await write(apart, address, "Not flushed yet.", 1)).status_code == 200
        yield apart, Ears(url, apart.token(ANA), address.rpartition("/")[2], stack), address


def steps(heard: list[Event]) -> list[Any]:
    return [(event.name, event.data.get("step")) for event in heard]


async def test_r11_a_feed_waits_while_redis_is_gone_and_goes_on_without_gap_or_repeat(
    behind: tuple[Front, Ears, str], redis: RedisServer
) -> None:
    """R18: neither an end nor a reload; who comes meanwhile is told what the warm tier has, and no more."""
    front, ears, address = behind
    first = await ears.open()
    await ears.until(first, 2)
    redis.kill()
    await asyncio.sleep(QUIET)
    fresh, returned = await ears.open(), await ears.open(last=first[-1].id)
    await asyncio.sleep(QUIET)
    assert (steps(first), steps(fresh), steps(returned)) == ([("create", 1), ("edit", 2)], [("create", 1)], [])
    assert ears.open_still == 3
    redis.start()
    await back(front, address, 2)
    for heard, many in ((first, 3), (fresh, 3), (returned, 1)):
        await ears.until(heard, many)
    assert first == fresh
    assert steps(first) == [("create", 1), ("edit", 2), ("edit", 3)]
    assert first[2:] == returned
    assert ears.open_still == 3


async def test_r11_pages_of_the_feed_do_not_go_back_either(behind: tuple[Front, Ears, str], redis: RedisServer) -> None:
    front, _, address = behind
    client = await front.client(ANA)
    seen = (await client.get(f"{address}/feed")).json()
    redis.kill()
    page = (await client.get(f"{address}/feed", params={"after": seen["cursor"]})).json()
    assert page == {"entries": [], "cursor": seen["cursor"], "reload": False}
    page = (await client.get(f"{address}/feed")).json()
    assert [entry["step"] for entry in page["entries"]] == [1]
    redis.start()
    await back(front, address, 2)
    rest = (await client.get(f"{address}/feed", params={"after": page["cursor"]})).json()
    assert [entry["step"] for entry in rest["entries"]] == [2, 3]


async def test_a_feed_ends_with_a_503_where_no_tier_answers(
    behind: tuple[Front, Ears, str], redis: RedisServer, postgres: PostgresServer
) -> None:
    """Its reader is told to come back with the last id."""
    front, ears, address = behind
    heard = await ears.open()
    await ears.until(heard, 2)
    postgres.kill()
    try:
        redis.kill()
        await ears.until(heard, 3)
        assert (heard[2].name, heard[2].data["status"]) == ("end", 503)
        assert heard[2].data["code"] in ("store-unavailable", "store-down")
    finally:
        postgres.start()
    redis.start()
    await back(front, address, 2)
    again = await ears.open(last=heard[1].id)
    await ears.until(again, 1)
    assert steps(again) == [("edit", 3)]


async def test_a_feed_that_took_the_warm_tier_s_word_for_the_newest_would_be_caught(
    behind: tuple[Front, Ears, str], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would tell a reader who has seen more that the past is gone."""
    page = Feed.page

    async def trusting(self: Feed, opened: Opened, *given: Any) -> Any:
        trusted = opened.follow(replace(opened.header, stale=False), opened.due, None, None)
        return await page(self, trusted, *given)

    monkeypatch.setattr(Feed, "page", trusting)
    _, ears, _ = behind
    heard = await ears.open()
    await ears.until(heard, 2)
    redis.kill()
    await ears.until(heard, 3)
    assert heard[2].name == "reload"
