"""R18: a feed followed through a service has no gap and no duplicate, however often the connection is cut.

S05: it ends when the right to it does. ``HOLDFAST_TEST_FEED_EVENTS`` says how many events the long test looks at.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.client import Client, following
from holdfast.client.transport import Ask, Transport
from holdfast.engine.feed import FeedPage
from holdfast.errors import (
    HoldfastError,
    InvalidCursorError,
    PermissionDeniedError,
    ServiceError,
    SessionNotFoundError,
    StoppingError,
    UnauthenticatedError,
    UnavailableError,
)
from holdfast.model.access import Role
from holdfast.model.cursor import FeedCursor, write_cursor
from holdfast.model.entry import Entry
from holdfast.service.problems import described
from holdfast.settings import Settings
from holdfast.testing.issuer import Issuer
from holdfast.testing.serving import Served, served
from holdfast.testing.wires import Scripted, proxy
from holdfast.wire import forms

EVENTS = int(os.environ.get("HOLDFAST_TEST_FEED_EVENTS", "200"))

Connect = Callable[..., Any]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "pause", lambda tried, asked: 0.001)


async def entries(pages: AsyncIterator[FeedPage], upto: int) -> list[Entry]:
    """What a feed says, up to a step, or until it has said so much that it must have said things twice."""
    found: list[Entry] = []
    async for page in pages:
        found += page.entries
        assert page.cursor == page.cursors[-1]
        if len(found) > 2 * upto or (found and found[-1].step >= upto):
            break
    return found


async def write(client: Client, session: str, number: int) -> None:
    version = (await client.header(session)).version
    for at in range(version, version + number):
        async with client.edit(session, expected=at) as draft:
            draft.put("chunks/1", {"text": f"line {at}"})


async def followed(service: Served, connect: Connect) -> list[Entry]:
    """What is heard of a session over connections that are cut again and again, while somebody writes."""
    client = await connect()
    session = (await client.create(kind="knowledge", title="Tides")).id
    chance = random.Random(11)

    def cut(line: str) -> int | None:
        return chance.randrange(200, 6_000) if "/events" in line else None

    async with proxy(service.address, cut) as address:
        reader = await connect(address=address, retries=20)
        writing = asyncio.create_task(write(client, session, EVENTS - 1))
        async with asyncio.timeout(60 + EVENTS / 20):
            found = await entries(reader.follow(session), EVENTS)
            await writing
    return found


async def test_cut_connections_leave_no_gap_and_no_duplicate(service: Served, connect: Connect) -> None:
    found = await followed(service, connect)
    assert [entry.step for entry in found] == list(range(1, EVENTS + 1))
    assert all(after.header.parent == before.digest for before, after in pairwise(found))
    told = (await (await connect()).feed(found[0].session, limit=1_000)).entries
    assert tuple(found[: len(told)]) == told


async def test_a_reader_that_forgets_where_it_stood_is_caught(
    service: Served, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Transport._exchange

    async def wrong(self: Transport, ask: Ask, silence: float | None = None) -> Any:
        headers = {name: value for name, value in ask.headers.items() if name != "last-event-id"}
        return await right(self, msgspec.structs.replace(ask, headers=headers), silence)

    monkeypatch.setattr(Transport, "_exchange", wrong)
    steps = [entry.step for entry in await followed(service, connect)]
    assert len(steps) > len(set(steps))


async def test_it_goes_on_from_a_cursor_and_says_when_there_is_nothing_to_say(client: Client, session: str) -> None:
    await write(client, session, 3)
    cursor = (await client.feed(session, limit=2)).cursor
    async with aclosing(client.follow(session, after=cursor, idle=0.05)) as pages:
        steps, page = list[int](), FeedPage((), cursor)
        while steps != [3, 4]:
            page = await anext(pages)
            steps += [entry.step for entry in page.entries]
        for _ in range(3):
            assert await anext(pages) == FeedPage((), page.cursor)
        await client.touch(session)
        while not (page := await anext(pages)).entries:
            pass
        assert [entry.header.operation for entry in page.entries] == ["touch"]


async def test_a_past_that_is_not_this_one_says_to_read_anew(client: Client, session: str) -> None:
    await write(client, session, 2)
    other = write_cursor(FeedCursor(2, b"of another history"))
    async with aclosing(client.follow(session, after=other)) as pages:
        page = await anext(pages)
        assert (page.entries, page.reload) == ((), True)
        assert page.cursor == (await client.feed(session)).cursor
        await client.touch(session)
        assert [entry.step for entry in (await anext(pages)).entries] == [4]


@pytest.mark.parametrize("cursor", ["nonsense", "line\nbreak", "Ü", ""])
async def test_a_cursor_that_is_none_is_refused(client: Client, session: str, cursor: str) -> None:
    with pytest.raises(InvalidCursorError):
        await anext(client.follow(session, after=cursor))


async def test_it_ends_with_the_right_to_it(connect: Connect, client: Client, session: str) -> None:
    await client.grant(session, "ben", Role.VIEWER)
    async with aclosing((await connect("ben")).follow(session)) as pages:
        assert (await anext(pages)).entries
        await client.grant(session, "ben", None)
        with pytest.raises((PermissionDeniedError, SessionNotFoundError)):
            await asyncio.wait_for(entries(pages, 10**6), 10)


async def test_it_ends_with_the_token(service: Served, session: str, token_of: Callable[..., str]) -> None:
    now = int(time.time())
    token = token_of("ana", iat=now - 600, exp=now - 58)  # within the leeway of a minute, for two seconds more
    async with Client(service.address, token=token) as brief, aclosing(brief.follow(session)) as pages:
        assert (await anext(pages)).entries
        with pytest.raises(UnauthenticatedError):
            await asyncio.wait_for(anext(pages), 20)


async def test_whoever_may_not_is_told_at_once(connect: Connect, session: str) -> None:
    with pytest.raises(SessionNotFoundError):
        await anext((await connect("ben")).follow(session))
    with pytest.raises(SessionNotFoundError):
        await anext((await connect("ben")).follow("../keys"))


async def test_a_service_that_is_killed_and_comes_back_is_followed_on(
    tmp_path: Path, issuer: Issuer, token_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "pause", lambda tried, asked: 0.2)
    settings, home = Settings(home=tmp_path, auth=issuer.auth()), tmp_path / "home"
    async with (
        served(settings, home=home) as first,
        Client(first.address, token=token_of("ana"), retries=60) as client,
    ):
        session = (await client.create(kind="knowledge")).id
        port = int(first.address.rpartition(":")[2])
        async with aclosing(client.follow(session)) as pages:
            assert [entry.step for entry in (await anext(pages)).entries] == [1]
            await write(client, session, 2)
            first.kill()
            await first.process.wait()
            async with served(settings, home=home, port=port):
                await write(client, session, 2)
                assert [entry.step for entry in await entries(pages, 5)] == [2, 3, 4, 5]


# -- what only a service of our own can say ----------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 0\n\n"


def ending(error: HoldfastError) -> bytes:
    return HEAD + b"event: end\ndata: " + msgspec.json.encode(described(error)) + b"\n\n"


@pytest.fixture
async def entry(client: Client, session: str) -> Entry:
    return (await client.history(session))[0]


def event(entry: Entry, name: str = "create", id: str = "c1") -> bytes:
    return f"event: {name}\nid: {id}\ndata: {forms.encode(entry).decode()}\n\n".encode()


async def test_a_service_that_stops_is_asked_again_and_one_that_refuses_is_not(entry: Entry) -> None:
    service = Scripted(HEAD + event(entry), ending(StoppingError()), ending(PermissionDeniedError("ana", "feed")))
    async with service.open() as address, Client(address, token="t", retries=5) as client:
        pages = client.follow("s")
        assert (await anext(pages)).entries == (entry,)
        with pytest.raises(PermissionDeniedError):
            await anext(pages)
    assert [one.headers.get("last-event-id") for one in service.asked] == [None, "c1", "c1"]


async def test_it_gives_up_after_so_many_failures_in_a_row(entry: Entry) -> None:
    service = Scripted(None, None, HEAD + event(entry), None, ending(StoppingError()), None)
    async with service.open() as address, Client(address, token="t", retries=2) as client:
        pages = client.follow("s")
        assert (await anext(pages)).entries == (entry,)
        with pytest.raises(UnavailableError):
            await anext(pages)
    assert len(service.asked) == 5  # the first that came to something began the count anew


async def test_an_event_that_was_cut_off_has_not_happened(entry: Entry) -> None:
    whole = event(entry)
    for cut in (1, len(whole) // 2, len(whole) - 1):
        service = Scripted(HEAD + whole[:-cut], ending(PermissionDeniedError("ana", "feed")))
        async with service.open() as address, Client(address, token="t") as client:
            with pytest.raises(PermissionDeniedError):
                await anext(client.follow("s"))
        assert "last-event-id" not in service.asked[1].headers


@pytest.mark.parametrize("name", ["end", "reload", "message"])
async def test_an_operation_may_have_the_name_of_an_event(entry: Entry, name: str) -> None:
    service = Scripted(HEAD + event(entry, name))
    async with (
        service.open() as address,
        Client(address, token="t") as client,
        aclosing(client.follow("s")) as pages,
    ):
        assert (await anext(pages)).entries == (entry,)


async def test_entries_before_the_end_are_given_first(entry: Entry) -> None:
    end = ending(PermissionDeniedError("ana", "feed")).removeprefix(HEAD)
    service = Scripted(HEAD + event(entry) + event(entry, id="c2") + b"event: reload\nid: c3\ndata: {}\n\n" + end)
    async with service.open() as address, Client(address, token="t") as client:
        pages = client.follow("s")
        assert await anext(pages) == FeedPage((entry, entry), "c2")
        assert await anext(pages) == FeedPage((), "c3", reload=True)
        with pytest.raises(PermissionDeniedError):
            await anext(pages)


async def test_silence_counts_as_a_lost_connection(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SILENCE", 0.1)
    never = asyncio.Event()
    service = Scripted(never.wait(), HEAD + event(entry))  # type: ignore[arg-type]
    async with (
        service.open() as address,
        Client(address, token="t", timeout=0.1) as client,
        aclosing(client.follow("s")) as pages,
    ):
        assert (await anext(pages)).entries == (entry,)
    assert len(service.asked) == 2


async def test_something_else_at_that_address_is_an_error() -> None:
    service = Scripted(HEAD + b"data: hello\n\n")
    async with service.open() as address, Client(address, token="t", retries=0) as client:
        with pytest.raises(ServiceError, match="not one of Holdfast's"):
            await anext(client.follow("s"))
