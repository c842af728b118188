"""R18: the feed over HTTP. Each entry once and in order, whoever wrote it at whichever process; resumed by
``Last-Event-ID`` after a cut, a restart or a crash, at any process; ``reload`` where the past is another; a reader who
takes nothing is cut, and nobody else feels it.

``HOLDFAST_TEST_FEED_EVENTS`` says how many events readers get to see in all (1,500 here, 100,000 in
``make histories``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from holdfast.testing.broken import Around
from holdfast.testing.doors import BUSY, Caller, Door, Servers, callers, services
from holdfast.testing.listener import Event, Listener, Refusal, gaps

pytestmark = pytest.mark.no_cover  # repeats what others measure once

EVENTS = int(os.environ.get("HOLDFAST_TEST_FEED_EVENTS", "1500"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "1"))
READERS, WRITERS, SERVERS, STEPS = 6, 4, 2, 150
HUNG = 60.0
"""Seconds after which a test that waits for an event has failed."""


async def create(caller: Caller) -> str:
    items = [{"key": f"chunks/{n}", "body": {"text": "start"}} for n in range(WRITERS)]
    answer = await caller.ask("POST", "/v1/sessions", body={"kind": "knowledge", "items": items})
    assert answer.status == 201, answer.body
    return str(answer.json["id"])


async def put(caller: Caller, session: str, text: str = "x", key: str = "chunks/0") -> None:
    """One commit on whatever the session holds."""
    tag = (await caller.ask("GET", f"/v1/sessions/{session}/header")).headers["etag"]
    answer = await caller.ask(
        "PUT", f"/v1/sessions/{session}/items/{key}?rebase=true", f"If-Match: {tag}", body={"text": text}
    )
    assert answer.status == 200, answer.body


async def history(caller: Caller, session: str) -> list[Any]:
    """Every entry, the oldest first."""
    entries: list[Any] = []
    while not entries or entries[0]["step"] > 1:
        before = f"&before={entries[0]['step']}" if entries else ""
        page = await caller.ask("GET", f"/v1/sessions/{session}/history?limit=1000{before}")
        entries = page.json[::-1] + entries
    return entries


async def read(door: Door, session: str, many: int, *, last: str | None = None) -> list[Event]:
    """So many events of a feed."""
    events: list[Event] = []
    async with asyncio.timeout(HUNG), Listener.to(door, session, last=last) as stream:
        async for event in stream.events():
            events.append(event)
            if len(events) == many:
                break
    return events


class Reader:
    """Follows a session to a step, over whichever server, through cuts of its own and of theirs."""

    def __init__(self, doors: list[Door], random: Random) -> None:
        self._doors, self._random = doors, random
        self.events: list[Event] = []
        self.seen: Counter[str] = Counter()

    async def follow(self, session: str, until: int) -> None:
        while not self.events or self.events[-1].data["step"] < until:
            last = self.events[-1].id if self.events else None
            try:
                async with Listener.to(self._random.choice(self._doors), session, last=last) as stream:
                    await self._take(stream, until)
            except ConnectionError as error:
                self.seen[
                    "nobody there" if isinstance(error, ConnectionRefusedError) else "ended by a server's end"
                ] += 1
                await asyncio.sleep(0.05)
            except Refusal as refused:
                if refused.status != 503:
                    raise
                self.seen["refused, as it was stopping"] += 1
                await asyncio.sleep(0.05)

    async def _take(self, stream: Listener, until: int) -> None:
        async for event in stream.events():
            if event.name == "end":
                self.seen[event.data["code"]] += 1
                continue
            assert event.name != "reload"
            self.events.append(event)
            if event.data["step"] >= until:
                return
            if self._random.random() < 0.03:
                self.seen["cut by the reader"] += 1
                return


async def write(doors: list[Door], session: str, number: int, until: int, random: Random) -> None:
    """Write to an item of one's own until the session has so many steps, through ends of the servers."""
    step = 0
    while step < until:
        try:
            async with callers([random.choice(doors)]) as (caller,):
                while step < until:
                    head = await caller.ask("GET", f"/v1/sessions/{session}/header")
                    if head.status == 503:  # it is stopping
                        break
                    tag, step = f"If-Match: {head.headers['etag']}", head.json["step"]
                    place = f"/v1/sessions/{session}"
                    if random.random() < 0.1:
                        await caller.ask("PUT", f"{place}/labels/{number}")
                    elif random.random() < 0.1:
                        await caller.ask("POST", f"{place}/undo", tag)
                    else:
                        body = {"text": f"{step}"}
                        await caller.ask("PUT", f"{place}/items/chunks/{number}?rebase=true", tag, body=body)
                    await asyncio.sleep(random.random() * 0.01)
        except ConnectionError:
            pass
        await asyncio.sleep(0.05)


async def test_r18_every_reader_gets_every_entry_once_and_in_order(tmp_path: Path) -> None:
    random, total, rounds, seen = Random(SEED), 0, 0, Counter[str]()
    async with Servers.on(tmp_path / "home", SERVERS) as servers:
        while total < EVENTS:
            rounds += 1
            async with callers(servers.doors) as (caller,):
                session = await create(caller)
            readers = [Reader(servers.doors, Random(random.random())) for _ in range(READERS)]
            async with asyncio.timeout(HUNG), asyncio.TaskGroup() as group:
                for reader in readers:
                    group.create_task(reader.follow(session, STEPS))
                for number in range(WRITERS):
                    group.create_task(write(servers.doors, session, number, STEPS, Random(random.random())))
                group.create_task(restart_after(servers, readers, STEPS // 3, signal.SIGKILL))
                group.create_task(restart_after(servers, readers, STEPS * 2 // 3, signal.SIGTERM))
            async with callers(servers.doors) as (caller,):
                entries = await history(caller, session)
            for reader in readers:
                at = reader.events[-1].data["step"]
                assert gaps(reader.events, entries[:at]) == []
                total += len(reader.events)
                seen += reader.seen
    print(f"R18 seed={SEED} events={total} rounds={rounds} readers={READERS} processes={SERVERS} seen={dict(seen)}")
    assert seen.keys() >= {"cut by the reader", "ended by a server's end", "stopping"}


async def restart_after(servers: Servers, readers: list[Reader], step: int, how: signal.Signals) -> None:
    """End a server and start another once a reader has seen so much."""
    while not any(reader.events and reader.events[-1].data["step"] >= step for reader in readers):
        await asyncio.sleep(0.005)
    await servers.restart(0 if how == signal.SIGKILL else 1, how)


async def test_r18_steps_of_the_life_cycle_stand_among_the_commits(tmp_path: Path) -> None:
    async with services(tmp_path / "home", 2, Around) as doors, callers(doors, 2) as (here, there):
        session = await create(here)
        place = f"/v1/sessions/{session}"
        await put(there, session)
        await here.ask("PUT", f"{place}/labels/first")
        await there.ask("POST", f"{place}/preview")
        await here.ask("POST", f"{place}/unlock")
        await there.ask("PUT", f"{place}/title", body={"title": "Tides"})
        await here.ask("DELETE", place)
        await there.ask("POST", f"{place}/revive")
        names = ["create", "edit", "label", "lock", "unlock", "rename", "discard", "revive"]
        for door in doors:
            events = await read(door, session, len(names))
            assert [event.name for event in events] == names
            assert gaps(events, await history(here, session)) == []


async def test_r18_an_id_resumes_right_behind_its_event(tmp_path: Path) -> None:
    async with services(tmp_path / "home", 2, Around) as doors, callers(doors) as (caller,):
        session = await create(caller)
        for number in range(9):
            await put(caller, session, f"{number}")
        events = await read(doors[0], session, 10)
        for at, event in enumerate(events[:-1]):
            assert await read(doors[at % 2], session, 9 - at, last=event.id) == events[at + 1 :]
        following = asyncio.create_task(read(doors[1], session, 1, last=events[-1].id))
        await asyncio.sleep(0.1)
        await put(caller, session, "one more")
        assert [event.data["step"] for event in await following] == [11]


async def test_r18_a_past_that_was_replaced_or_is_anothers_says_reload(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with services(home, 1, Around) as doors, callers(doors) as (caller,):
        session, other = await create(caller), await create(caller)
        await put(caller, session)
        copy = copied(home, tmp_path / "copy.sqlite")
        for number in range(3):
            await put(caller, session, f"one past {number}")
        ahead = (await read(doors[0], session, 5))[-1].id
        foreign = (await read(doors[0], other, 1))[-1].id
    restored(home, copy)
    async with services(home, 1, Around) as doors, callers(doors) as (caller,):
        for last in (ahead, foreign):
            (event,) = await read(doors[0], session, 1, last=last)
            assert (event.name, event.data) == ("reload", {"reload": True})
        following = asyncio.create_task(read(doors[0], session, 1, last=event.id))
        for number in range(4):
            await put(caller, session, f"another past {number}")
        assert (await following)[0].data["step"] == 3  # what says reload also says where to go on
        (event,) = await read(doors[0], session, 1, last=ahead)  # there is such a step again, and it is another
        assert event.name == "reload"


def copied(home: Path, to: Path) -> Path:
    """A copy of the file of a home that is in use."""
    copy, source = apsw.Connection(str(to)), apsw.Connection(str(home / "holdfast.sqlite"))
    with copy.backup("main", source, "main") as backup:
        backup.step()
    source.close()
    copy.close()
    return to


def restored(home: Path, copy: Path) -> None:
    """Put a copy in place of the file of a home that is not in use."""
    for path in home.glob("holdfast.sqlite*"):
        path.unlink()
    copy.rename(home / "holdfast.sqlite")


class Late(Around):
    """It takes its time to say how far the logs have grown: as long as another process needs for a write."""

    async def moved(self, since: int | None) -> tuple[int, set[str]]:
        if since is None:
            await asyncio.sleep(0.5)
        return await self._store.moved(since)


async def test_r18_what_another_process_writes_while_a_reader_begins_is_not_missed(tmp_path: Path) -> None:
    async with services(tmp_path / "home", 2, Late) as doors, callers(doors[1:]) as (caller,):
        session = await create(caller)
        last = (await read(doors[1], session, 1))[0].id
        following = asyncio.create_task(read(doors[0], session, 1, last=last))
        await asyncio.sleep(0.1)
        await put(caller, session, "meanwhile")
        assert [event.data["step"] for event in await asyncio.wait_for(following, 10)] == [2]


@pytest.mark.parametrize("last", ["x", "a" * 400, "kqRwYWdlAaE"])
async def test_r18_an_id_that_nobody_gave_out_is_refused(tmp_path: Path, last: str) -> None:
    async with services(tmp_path / "home", 1, Around) as doors, callers(doors) as (caller,):
        session = await create(caller)
        with pytest.raises(Refusal) as refused:
            await read(doors[0], session, 1, last=last)
        assert (refused.value.status, refused.value.told["code"]) == (400, "invalid-cursor")


async def test_r18_a_reader_who_takes_nothing_is_cut_and_can_go_on_later(tmp_path: Path) -> None:
    """12 MB of entries for two readers, one of whom does not read; the service cuts that one after a second."""
    many, text = 120, "x" * 100_000
    service = replace(BUSY, send_seconds=1.0)
    async with Servers.on(tmp_path / "home", 1, service) as servers:
        (door,) = servers.doors
        async with (
            callers([door]) as (caller,),
            Listener.to(door, (session := await create(caller)), window=4096) as slow,
        ):
            reading = asyncio.create_task(read(door, session, many + 1))
            for number in range(many):
                await put(caller, session, f"{number} {text}")
            events = await reading
            assert gaps(events, await history(caller, session)) == []
            async with asyncio.timeout(HUNG):
                while await streams(caller):
                    await asyncio.sleep(0.1)
            taken: list[Event] = []
            with contextlib.suppress(ConnectionError):  # it was cut: there is no proper end
                async for event in slow.events():
                    taken.append(event)
            assert 0 < len(taken) < many // 2
            assert taken == events[: len(taken)]
            assert await read(door, session, many + 1 - len(taken), last=taken[-1].id) == events[len(taken) :]


async def test_r18_what_readers_do_not_take_is_not_held_for_them(tmp_path: Path) -> None:
    """Ten readers ask for 12 MB from the first entry on, and take nothing: what the service holds for them is no copy
    of the feed for each.
    """
    many, text, readers = 60, "x" * 200_000, 10
    async with Servers.on(tmp_path / "home", 1) as servers:
        (door,) = servers.doors
        async with callers([door]) as (caller,), contextlib.AsyncExitStack() as stack:
            session = await create(caller)
            for number in range(many):
                await put(caller, session, f"{number} {text}")
            await read(door, session, many + 1)  # what one reader takes is there before and after
            before = resident(servers.pids[0])
            for _ in range(readers):
                await stack.enter_async_context(Listener.to(door, session, window=4096))
            async with asyncio.timeout(HUNG):
                while await streams(caller) < readers:
                    await asyncio.sleep(0.1)
            grown = resident(servers.pids[0]) - before
            print(
                f"R18 memory: {readers} readers of {many * len(text):,} bytes that take nothing: {grown:,} bytes more"
            )
            assert grown < readers * many * len(text) // 2


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def streams(caller: Caller) -> float:
    """How many feeds the service says are being followed."""
    lines = (await caller.ask("GET", "/metrics")).body.decode().splitlines()
    return float(next(line for line in lines if line.startswith("holdfast_streams_open ")).split()[1])


# -- teeth -------------------------------------------------------------------------------------------------------------


async def test_teeth_a_gap_a_duplicate_and_a_swap_are_noticed(tmp_path: Path) -> None:
    async with services(tmp_path / "home", 1, Around) as doors, callers(doors) as (caller,):
        session = await create(caller)
        for number in range(5):
            await put(caller, session, f"{number}")
        events, entries = await read(doors[0], session, 6), await history(caller, session)
    assert gaps(events, entries) == []
    assert gaps(events[:2] + events[3:], entries)
    assert gaps(events[:3] + events[2:], entries)
    assert gaps([*events[:2], events[3], events[2], *events[4:]], entries)
    assert gaps(events[:-1], entries)
    changed = replace(events[2], data={**events[2].data, "actor": "somebody else"})
    assert gaps([*events[:2], changed, *events[3:]], entries)
