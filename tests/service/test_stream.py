"""The feed as a stream: what is in it, where it begins, and everything that ends it (S05, R18, S21).

On sockets, for a stream is only a stream where somebody can read while it is written. What several processes do to it
stands in ``test_r18_feed.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from holdfast.model.access import Principal, Role
from holdfast.model.cursor import FeedCursor, write_cursor
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock
from holdfast.testing.doors import Door
from holdfast.testing.front import ADMIN, ANA, BEN, EVE, Front, opened
from holdfast.testing.issuer import Issuer
from holdfast.testing.listener import Event, Listener, Refusal, gaps

PROMISED = 1.0
"""Seconds within which a right that was taken away ends a stream."""

HUNG = 20.0


class Reading:
    """A stream that somebody reads, a few events at a time."""

    def __init__(self, listener: Listener) -> None:
        self._events = listener.events()

    async def take(self, many: int) -> list[Event]:
        """So many events."""
        async with asyncio.timeout(HUNG):
            return [await anext(self._events) for _ in range(many)]

    async def rest(self, within: float = HUNG) -> list[Event]:
        """All events to the end of the stream, which is to come within so many seconds."""
        async with asyncio.timeout(within):
            return [event async for event in self._events]


class Stage:
    """A service on a socket, and a session of ANA's that BEN may see."""

    def __init__(self, front: Front, address: str, session: str) -> None:
        self.front, self.address, self.session = front, address, session

    @property
    def path(self) -> str:
        return f"/v1/sessions/{self.session}"

    @asynccontextmanager
    async def listen(
        self, who: Principal = ANA, *, last: str | None = None, token: str | None = None
    ) -> AsyncIterator[Reading]:
        """A stream of somebody's."""
        door = Door(self.address, token or self.front.token(who))
        async with Listener.to(door, self.session, last=last) as listener:
            yield Reading(listener)

    async def write(self, text: str = "The moon draws it.") -> None:
        async with self.front.engine.edit(self.session, ANA, expected=await self.version()) as edit:
            edit.put("chunks/0001", {"text": text})

    async def version(self) -> int:
        return (await self.front.engine.header(self.session, ADMIN)).version

    async def pages(self, who: Principal = ANA, limit: int = 2, after: str | None = None) -> list[Any]:
        """The feed by pages."""
        client, entries = await self.front.client(who), list[Any]()
        while True:
            asked = {"limit": f"{limit}", **({} if after is None else {"after": after})}
            page = (await client.get(f"{self.path}/feed", params=asked)).json()
            entries += page["entries"]
            after = page["cursor"]
            if not page["entries"]:
                return entries

    async def open_streams(self) -> float:
        figures = (await (await self.front.client(ADMIN)).get("/metrics")).text.splitlines()
        return float(next(line for line in figures if line.startswith("holdfast_streams_open ")).split()[1])

    async def until_streams(self, many: int) -> None:
        async with asyncio.timeout(HUNG):
            while await self.open_streams() != many:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def staged(settings: Settings, issuer: Issuer, clock: ManualClock) -> AsyncIterator[Stage]:
    async with opened(settings, issuer, clock=clock) as front, front.listening() as address:
        location, _ = await front.make(retention={"ttl": 1_000})
        session = location.rpartition("/")[2]
        await front.engine.grant(session, ANA, BEN.id, Role.VIEWER)
        yield Stage(front, address, session)


@pytest.fixture
async def stage(believing: Settings, issuer: Issuer, clock: ManualClock) -> AsyncIterator[Stage]:
    async with staged(believing, issuer, clock) as stage:
        yield stage


# -- what is in it ----------------------------------------------------------------------------------------------------


async def test_a_stream_and_the_pages_tell_the_same(stage: Stage) -> None:
    """R18: and the id of an event is a cursor for the pages, as the cursor of a page is an id for a stream."""
    async with stage.listen() as listener:
        for number in range(5):
            await stage.write(f"{number}.")
        events = await listener.take(7)
    entries = await stage.pages()
    assert gaps(events, entries) == []
    assert [event.name for event in events] == ["create", "grant", *["edit"] * 5]
    assert await stage.pages(after=events[3].id) == entries[4:]
    client = await stage.front.client(ANA)
    cursor = (await client.get(f"{stage.path}/feed?limit=3")).json()["cursor"]
    async with stage.listen(last=cursor) as listener:
        assert await listener.take(4) == events[3:]


async def test_the_header_of_a_browser_goes_before_the_address(stage: Stage) -> None:
    """A browser connects again to the address it began with, and says in the header how far it has come."""
    await stage.write()
    async with stage.listen() as listener:
        events = await listener.take(3)
    client = await stage.front.client(ANA, stage.address)
    headers = {"last-event-id": events[1].id}
    async with client.stream("GET", f"{stage.path}/events?after={events[0].id}", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 1000"
        found = [await anext(lines) for _ in range(4)]
    assert found[2] == f"id: {events[2].id}"


@pytest.mark.parametrize("step", [1, 3, 99])
async def test_a_reader_of_another_past_is_told_to_read_anew(stage: Stage, step: int) -> None:
    await stage.write()
    other = write_cursor(FeedCursor(step, b"another digest"))
    async with stage.listen(last=other) as listener:
        (event,) = await listener.take(1)
        assert (event.name, event.data) == ("reload", {"reload": True})
        await stage.write("Later.")
    page = (await (await stage.front.client(ANA)).get(f"{stage.path}/feed", params={"after": other})).json()
    assert (page["reload"], page["entries"]) == (True, [])
    async with stage.listen(last=event.id) as listener:
        assert [one.data["version"] for one in await listener.take(1)] == [3]


async def test_no_content_can_end_an_event_or_make_up_another(stage: Stage) -> None:
    """Line ends of every kind that a reader of streams, or of JSON, may take for one."""
    text = "a\n\nevent: end\ndata: {}\r\n\r\rid: x\x0b\x0c\x85\u2028\u2029\ufeff: b"
    async with stage.listen() as listener:
        await stage.write(text)
        events = await listener.take(3)
    assert [event.name for event in events] == ["create", "grant", "edit"]
    assert events[2].data["changes"][0]["body"]["text"] == text


async def test_warnings_expiry_and_the_way_back_arrive(stage: Stage, clock: ManualClock) -> None:
    async with stage.listen() as listener:
        for seconds in (500, 200, 100, 200):
            clock.advance(seconds)
            await stage.front.engine.sweep(ADMIN)
        await stage.front.engine.revive(stage.session, ANA)
        events = (await listener.take(7))[2:]
    assert [event.name for event in events] == ["warn", "warn", "warn", "expire", "revive"]
    assert [event.data["detail"]["seconds_left"] for event in events[:3]] == [500, 300, 200]


async def test_a_quiet_stream_says_that_it_is_still_there(
    believing: Settings, issuer: Issuer, clock: ManualClock
) -> None:
    """And no more than that: what keeps a connection open is no event."""
    settings = replace(believing, service=replace(believing.service, heartbeat=0.5))
    async with staged(settings, issuer, clock) as stage:
        client = await stage.front.client(ANA, stage.address)
        async with asyncio.timeout(HUNG), client.stream("GET", f"{stage.path}/events") as answer:
            heard = []
            async for line in answer.aiter_lines():
                heard.append(line)
                if heard.count(": still here") == 2:
                    break
    assert sum(line.startswith("event:") for line in heard) == 2  # create, grant


async def test_a_reader_who_has_seen_everything_is_answered_before_there_is_news(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would not know for a while whether it listens."""
    monkeypatch.setattr("holdfast.service.routes.feed.IDLE", 3_600.0)
    last = (await stage.front.engine.feed(stage.session, ANA)).cursor
    client = await stage.front.client(ANA, stage.address)
    async with (
        asyncio.timeout(HUNG),
        client.stream("GET", f"{stage.path}/events", headers={"last-event-id": last}) as answer,
    ):
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 1000"
        await stage.write()
        told = [line async for line in until(lines, "data:")]
    assert told[1] == "event: edit"


async def until(lines: AsyncIterator[str], beginning: str) -> AsyncIterator[str]:
    """Lines up to the first with this beginning."""
    async for line in lines:
        yield line
        if line.startswith(beginning):
            return


# -- where it does not begin ------------------------------------------------------------------------------------------


async def test_a_refusal_comes_as_an_answer_and_not_as_a_stream(stage: Stage, clock: ManualClock) -> None:
    for who, last, status, code in (
        (EVE, None, 404, "session-not-found"),
        (ANA, "x", 400, "invalid-cursor"),
        (ANA, "x" * 501, 400, "invalid-request"),
    ):
        async with stage.listen(who, last=last) as listener:
            with pytest.raises(Refusal) as refused:
                await listener.take(1)
            assert (refused.value.status, refused.value.told["code"]) == (status, code)
    await stage.front.engine.discard(stage.session, ANA)
    clock.advance(stage.front.service.settings.grace)
    await stage.front.engine.sweep(ADMIN)
    async with stage.listen() as listener:
        with pytest.raises(Refusal) as refused:
            await listener.take(1)
        assert (refused.value.status, refused.value.told["code"]) == (410, "session-gone")
    assert await stage.open_streams() == 0


async def test_one_principal_follows_so_many_feeds_and_no_more(
    believing: Settings, issuer: Issuer, clock: ManualClock
) -> None:
    """S21: a refused one counts for nothing, others are not held up, and one that is left makes room."""
    settings = replace(believing, service=replace(believing.service, streams=2))
    async with staged(settings, issuer, clock) as stage:
        async with stage.listen() as one, stage.listen() as two:
            await one.take(2)
            await two.take(2)
            for _ in range(3):
                async with stage.listen() as three:
                    with pytest.raises(Refusal) as refused:
                        await three.take(1)
                    assert (refused.value.status, refused.value.told["code"]) == (429, "rate-limited")
            async with stage.listen(BEN) as his:
                assert len(await his.take(2)) == 2
                assert await stage.open_streams() == 3
        await stage.until_streams(0)
        async with stage.listen() as again:
            assert len(await again.take(2)) == 2
            assert await stage.open_streams() == 1


# -- what ends it -----------------------------------------------------------------------------------------------------


async def test_a_right_that_is_taken_away_ends_the_stream(stage: Stage) -> None:
    """S05: who may no longer know of the session is told what a stranger is told, and sees nothing that comes later."""
    async with stage.listen(BEN) as listener, stage.listen() as own:
        await listener.take(2)
        await stage.front.engine.grant(stage.session, ANA, BEN.id, None)
        (event,) = await listener.rest(PROMISED)
        assert (event.name, event.data["code"]) == ("end", "session-not-found")
        await stage.write()
        assert [one.name for one in await own.take(4)] == ["create", "grant", "grant", "edit"]


async def test_a_role_that_still_may_see_goes_on(stage: Stage) -> None:
    async with stage.listen(BEN) as listener:
        await listener.take(2)
        await stage.front.engine.grant(stage.session, ANA, BEN.id, Role.EDITOR)
        await stage.write()
        assert [event.name for event in await listener.take(2)] == ["grant", "edit"]


@pytest.mark.parametrize("body", [{"token": "t-1"}, {"principal": BEN.id}, {"everybody": True}])
async def test_a_token_that_is_revoked_ends_the_stream(stage: Stage, body: dict[str, Any]) -> None:
    """S05, S09: though nothing happens in the session."""
    issued = int(time.time()) - 5
    token = stage.front.token(BEN, jti="t-1", iat=issued)
    async with stage.listen(token=token) as listener:
        await listener.take(2)
        answer = await (await stage.front.client(ADMIN)).post("/v1/revocations", json=body)
        assert answer.status_code == 201
        (event,) = await listener.rest(PROMISED)
        assert (event.name, event.data["code"], event.data["status"]) == ("end", "unauthenticated", 401)
    assert stage.front.service.meters.streams == 0


async def test_a_stream_lasts_no_longer_than_its_token(stage: Stage) -> None:
    leeway = stage.front.service.settings.auth.leeway
    now = time.time()
    token = stage.front.token(BEN, iat=int(now) - 100, exp=now - leeway + 1.5)
    async with stage.listen(token=token) as listener:
        await listener.take(2)
        (event,) = await listener.rest()
        assert (event.name, event.data["code"]) == ("end", "unauthenticated")


async def test_a_service_that_stops_says_so_and_ends_every_stream(stage: Stage) -> None:
    async with stage.listen() as one, stage.listen(BEN) as two:
        await one.take(2)
        await two.take(2)
        stage.front.service.stopping.set()
        for listener in (one, two):
            (event,) = await listener.rest()
            assert (event.name, event.data["code"], event.data["status"]) == ("end", "stopping", 503)


async def test_a_reader_who_leaves_is_let_go_of(stage: Stage) -> None:
    for _ in range(3):
        async with stage.listen() as listener:
            await listener.take(2)
    await stage.until_streams(0)


# -- teeth ------------------------------------------------------------------------------------------------------------


async def test_a_stream_that_does_not_ask_again_is_noticed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the question left out whether the token still stands, the stream of a revoked one goes on."""
    monkeypatch.setattr(stage.front.service.authenticator, "stands", lambda caller: True)
    async with stage.listen(BEN) as listener:
        await listener.take(2)
        await stage.front.engine.revoke(ADMIN, principal=BEN.id)
        with pytest.raises(TimeoutError):
            await listener.rest(PROMISED)


def test_an_end_is_a_problem_as_any_other() -> None:
    """What stands in the stream is what would have been the body of an answer."""
    from holdfast.errors import SessionNotFoundError
    from holdfast.service.problems import described, problem

    error = SessionNotFoundError("x")
    assert msgspec.json.decode(problem(error).body) == described(error)
