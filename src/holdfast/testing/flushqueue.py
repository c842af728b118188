"""The part of the suite for hot tiers apart from the warm one that is about the flush queue."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable

import pytest

from holdfast.errors import FlushQueueFullError, LeaseHeldError, LimitExceededError
from holdfast.ports.hot import Queued, TieredHotStore
from holdfast.testing.handles import Connecting, Handles, opened
from holdfast.testing.hot_handles import build, everything
from holdfast.testing.samples import NOW, write_at

Connect = Connecting[TieredHotStore]
Pair = tuple[TieredHotStore, TieredHotStore]

BOUND = 6
"""How many writes of one session may wait in a store of ``narrow``."""

LONG = 60.0
"""Seconds for which no claim of these tests lapses."""

LAPSED = 0.05
"""Seconds after which one does."""

ROUNDS = 500
"""Claims after which there should be nothing left."""

PATIENCE = 60.0
"""Seconds until what should have come about is given up."""


class TieredHandles(Handles[TieredHotStore]):
    """A handle stands for a process. Give ``narrow`` too: as ``connect``, with room in the queue for ``BOUND`` writes
    of one session.
    """

    @pytest.fixture
    def narrow(self) -> Connect:
        raise NotImplementedError("the binding of the suite gives `narrow`")


def steps(queued: Iterable[Queued], session: str = "s") -> list[int]:
    """The steps of a session among entries of the queue, in the order they came in."""
    return [one.step for one in queued if one.session == session]


def firsts(queued: Iterable[Queued]) -> dict[str, int]:
    """The step that each session is queued with; each is there once."""
    listed = list(queued)
    found = {one.session: one.step for one in listed}
    assert len(found) == len(listed)
    return found


async def claimed(store: TieredHotStore, idle: float = LONG, *, limit: int = 1_000, **more: bool) -> list[Queued]:
    """All that there is to claim, or with ``idle`` 0 what one claim of everything gives."""
    found: list[Queued] = []
    for _ in range(ROUNDS):
        part = await store.claim("worker", limit=limit, idle=idle, **more)
        found += part
        if not part or not idle:
            return found
    raise AssertionError("there is no end of what can be claimed")


async def waiting(store: TieredHotStore) -> int:
    return (await store.backlog()).entries


class FlushQueueSuite(TieredHandles):
    """``TieredHotStoreSuite`` has all of it."""

    # -- what is queued ----------------------------------------------------------------------------------------------

    async def test_a_session_is_queued_once_by_the_first_write_that_lands_and_by_no_other(self, stores: Pair) -> None:
        one, other = stores

        async def refused(step: int) -> None:
            assert await other.write(write_at("s", step), now=NOW) is False  # it stands elsewhere
            assert await other.write(write_at("s", step + 1, "c2"), now=NOW) is False  # the change is in the log
            assert await other.write(write_at("s", 1), now=NOW) is False  # it is there already
            with pytest.raises(LimitExceededError):
                await one.write(write_at("t", 1, quota=1), now=NOW)
            lease = await one.acquire("s", "ana", seconds=30, now=NOW)
            assert lease is not None
            with pytest.raises(LeaseHeldError):
                await other.write(write_at("s", step + 1), now=NOW)
            await one.release(lease)
            await one.defer("s", step=step, due=NOW)
            await one.rewrap("s", old=b"key of s", new=b"key of s")

        await build(one, 3)
        assert await one.write(write_at("s", 4, commit=False, status="locked"), now=NOW)
        await refused(4)
        assert await waiting(one) == 4
        queued = await claimed(other)
        assert [(entry.session, entry.step) for entry in queued] == [("s", 1)]
        await one.acknowledge([(queued[0], 4)])
        await refused(4)
        assert await waiting(one) == 0
        assert await claimed(other, idle=0) == []

    async def test_a_write_and_its_entry_in_the_queue_are_one_step(self, stores: Pair) -> None:
        one, other = stores
        seen: set[str] = set()

        async def look() -> None:
            while len(seen) < 60:
                for queued in await other.claim("worker", limit=100, idle=LONG):
                    head = await other.head(queued.session)
                    assert head is not None
                    assert head.step >= queued.step
                    seen.add(queued.session)

        looking = asyncio.ensure_future(look())
        for number in range(60):
            assert await one.write(write_at(f"s{number}", 1), now=NOW)
            assert await waiting(one) == number + 1  # it is queued when the write returns
        await asyncio.wait_for(looking, PATIENCE)

    async def test_what_is_queued_stays_until_it_is_acknowledged(self, connect: Connect) -> None:
        first = await opened(connect)
        await build(first, 3)
        assert len(await first.claim("worker", limit=9, idle=LONG)) == 1
        await build(first, 2, session="t")
        await first.close()
        second = await opened(connect)
        assert await waiting(second) == 5
        queued = await claimed(second, idle=0)
        assert firsts(queued) == {"s": 1, "t": 1}
        await second.acknowledge([(entry, 3 if entry.session == "s" else 2) for entry in queued])
        await second.close()
        third = await opened(connect)
        assert await waiting(third) == 0
        await third.close()

    async def test_beyond_the_bound_writes_are_refused_and_nothing_is_dropped(self, narrow: Connect) -> None:
        store = await opened(narrow)
        await build(store, BOUND, due=1.0)
        before = await everything(store)
        for _ in range(2):
            with pytest.raises(FlushQueueFullError) as refused:
                await store.write(write_at("s", BOUND + 1, "mine", items=[b"mine"], due=2.0), now=NOW)
            assert refused.value.waiting == BOUND
        with pytest.raises(FlushQueueFullError):
            await store.write(write_at("s", BOUND + 1, commit=False, status="locked"), now=NOW)
        assert await everything(store) == before
        assert await store.change("s", "mine") is None
        queued = await claimed(store)
        assert steps(queued) == [1]
        with pytest.raises(FlushQueueFullError):  # what is claimed is not in the warm tier yet
            await store.write(write_at("s", BOUND + 1), now=NOW)
        await store.acknowledge([(queued[0], 1)])
        assert await store.write(write_at("s", BOUND + 1), now=NOW)
        with pytest.raises(FlushQueueFullError):
            await store.write(write_at("s", BOUND + 2), now=NOW)
        queued = await claimed(store)
        assert steps(queued) == [2]
        await store.bury(queued, "broken")
        for step in range(BOUND + 2, 2 * BOUND + 2):
            assert await store.write(write_at("s", step), now=NOW)
        with pytest.raises(FlushQueueFullError):
            await store.write(write_at("s", 2 * BOUND + 2), now=NOW)
        assert steps(await claimed(store)) == [BOUND + 2]
        await store.close()

    # -- claiming ----------------------------------------------------------------------------------------------------

    async def test_where_nothing_waits_there_is_nothing_to_claim(self, stores: Pair) -> None:
        for store in stores:
            for everywhere in (True, False):
                assert await store.claim("worker", limit=9, idle=0, everywhere=everywhere) == []

    async def test_of_each_session_there_is_one_entry_with_the_first_step_that_waits(self, stores: Pair) -> None:
        one, other = stores
        for step in range(1, 31):
            for session in ("s", "t", "u"):
                assert await stores[step % 2].write(write_at(session, step), now=NOW)
        queued = await one.claim("worker", limit=1_000, idle=LONG)
        assert firsts(queued) == {"s": 1, "t": 1, "u": 1}
        upto = {"s": 10, "t": 30, "u": 29}
        await one.acknowledge([(entry, upto[entry.session]) for entry in queued])
        await build(other, 2, session="v")
        for _ in range(2):
            assert firsts(await other.claim("another", limit=1_000, idle=0)) == {"s": 11, "u": 30, "v": 1}
        assert await waiting(one) == 20 + 1 + 2

    async def test_what_one_worker_has_claimed_no_other_gets(self, stores: Pair) -> None:
        one, other = stores
        for number in range(5):
            await build(one, 2, session=f"s{number}")
        assert len(await one.claim("a", limit=99, idle=LONG)) == 5
        assert await other.write(write_at("s0", 3), now=NOW)  # nor if it is written to meanwhile
        assert await one.claim("a", limit=99, idle=LONG) == []
        assert await other.claim("b", limit=99, idle=LONG) == []
        assert await waiting(other) == 11

    async def test_racing_workers_share_out_what_there_is(self, stores: Pair) -> None:
        names = [f"s{number}" for number in range(100)]
        await asyncio.gather(*(build(stores[0], 2, session=name) for name in names))
        parts = await asyncio.gather(
            *(stores[at % 2].claim(f"w{at}", limit=30, idle=LONG) for at in range(6)),
        )
        found = Counter(one.session for part in [*parts, await claimed(stores[0])] for one in part)
        assert found == Counter(names)

    async def test_a_claim_lapses_and_another_worker_or_the_same_gets_it(self, stores: Pair) -> None:
        one, other = stores
        for session in ("s", "t", "u"):
            await build(one, 1, session=session)
        first = await one.claim("a", limit=99, idle=LONG)
        assert [queued.tries for queued in first] == [1, 1, 1]
        await one.acknowledge([(first[0], 1)])
        left = {queued.session: queued.ticket for queued in first[1:]}
        await asyncio.sleep(2 * LAPSED)
        second = await other.claim("b", limit=99, idle=LAPSED)
        assert {queued.session: queued.tries for queued in second} == dict.fromkeys(left, 2)
        assert await one.claim("a", limit=99, idle=LONG) == []  # the other one's now
        await asyncio.sleep(2 * LAPSED)
        third = await other.claim("b", limit=99, idle=LAPSED)
        assert {queued.session: queued.tries for queued in third} == dict.fromkeys(left, 3)
        assert {queued.session: queued.ticket for queued in third} == left

    async def test_what_lapsed_is_got_beside_what_is_new(self, stores: Pair) -> None:
        one, _ = stores
        for session in ("s", "t", "u"):
            await build(one, 2, session=session)
        await one.claim("dead", limit=99, idle=LONG)
        for session in ("v", "w"):
            await build(one, 2, session=session)
        found = {queued.session: queued.tries for queued in await one.claim("a", limit=99, idle=0)}
        assert found == {"s": 2, "t": 2, "u": 2, "v": 1, "w": 1}

    async def test_an_entry_says_how_long_it_has_waited(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        await asyncio.sleep(0.2)
        await build(one, 1, session="t")
        waited = {queued.session: queued.waited for queued in await other.claim("a", limit=99, idle=LONG)}
        assert 0.19 <= waited["s"] < 30
        assert 0 <= waited["t"] < waited["s"]
        assert waited["s"] <= (await other.backlog()).waited < 30

    async def test_about_as_many_are_claimed_as_are_asked_for_and_none_is_left_out(self, stores: Pair) -> None:
        one, other = stores
        names = [f"s{number}" for number in range(400)]
        await asyncio.gather(*(build(one, 1, session=name) for name in names))
        found = await other.claim("a", limit=20, idle=LONG)
        assert 0 < len(found) <= 200
        found += await claimed(other, limit=20)
        assert Counter(queued.session for queued in found) == Counter(names)
        assert len(await other.claim("b", limit=500, idle=0)) > 300

    async def test_a_quick_look_is_where_this_process_has_written_since_it_last_looked(self, stores: Pair) -> None:
        one, other = stores

        async def quick(store: TieredHotStore) -> list[Queued]:
            return await store.claim("a", limit=99, idle=LONG, everywhere=False)

        await build(one, 3)
        assert await quick(other) == []
        assert steps(await quick(one)) == [1]
        assert await quick(one) == []
        names = [f"t{number}" for number in range(90)]
        await asyncio.gather(*(build(one, 1, session=name) for name in names))
        found = await claimed(one, limit=4, everywhere=False)  # what was left is looked for again
        assert firsts(found) == dict.fromkeys(names, 1)
        await build(other, 1, session="u")
        assert await quick(one) == []
        assert firsts(await one.claim("a", limit=99, idle=LONG)) == {"u": 1}

    # -- acknowledging -----------------------------------------------------------------------------------------------

    async def test_what_is_acknowledged_is_off_the_queue_and_nothing_else(self, stores: Pair) -> None:
        one, other = stores
        for session, length in (("s", 4), ("t", 2), ("u", 3)):
            await build(one, length, session=session)
        queued = await claimed(one)
        mine = [(entry, 4) for entry in queued if entry.session == "s"]
        for store in (other, one, other):  # any number of times
            await store.acknowledge(mine)
            assert await waiting(store) == 5
        await one.acknowledge([])
        assert firsts(await claimed(other, idle=0)) == {"t": 1, "u": 1}
        await other.acknowledge([(entry, 4) for entry in queued])
        assert await claimed(one, idle=0) == []
        assert await waiting(one) == 0
        assert await everything(one) is not None

    async def test_a_session_that_moved_on_meanwhile_is_queued_anew_from_there(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3)
        (first,) = await claimed(one)
        for step in (4, 5):
            assert await other.write(write_at("s", step), now=NOW)
        await one.acknowledge([(first, 3)])
        assert await waiting(other) == 2
        (second,) = await claimed(other)
        assert (second.session, second.step, second.tries) == ("s", 4, 1)
        for upto in (3, 5, 9, 0):  # it is another entry now, whoever acknowledges the one before
            await one.acknowledge([(first, upto)])
            assert await waiting(other) == 2
            assert [entry.ticket for entry in await claimed(other, idle=0)] == [second.ticket]
        await other.acknowledge([(second, 4), (first, 5)])
        assert await waiting(other) == 1
        (third,) = await claimed(other)
        assert third.step == 5
        await other.acknowledge([(third, 5)])
        assert await waiting(one) == 0
        assert await claimed(one, idle=0) == []

    async def test_once_it_is_off_the_queue_the_next_write_puts_it_there(self, stores: Pair) -> None:
        one, other = stores
        for step in range(1, 10):
            assert await one.write(write_at("s", step), now=NOW)
            assert await waiting(other) == 1
            (queued,) = await claimed(other)
            assert queued.step == step
            for store in stores:
                await store.acknowledge([(queued, step)])
                assert await waiting(store) == 0

    async def test_an_acknowledgement_of_more_or_less_than_there_is_counts_what_there_is(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 5)
        await build(one, 2, session="t")
        entries = {entry.session: entry for entry in await claimed(one)}
        await one.acknowledge([(entries["t"], 99)])  # the warm tier is ahead: this one has come back as it was before
        assert await waiting(other) == 5
        assert await one.write(write_at("t", 3), now=NOW)
        assert await waiting(other) == 6
        await one.acknowledge([(entries["s"], 2)])
        assert await waiting(other) == 4
        queued = await claimed(other)
        assert firsts(queued) == {"s": 3, "t": 3}
        await other.acknowledge([(entry, 1) for entry in queued])  # and here it is behind what it was
        assert await waiting(other) == 4
        assert firsts(await claimed(other)) == {"s": 3, "t": 3}

    async def test_a_worker_that_was_taken_for_dead_may_acknowledge_after_all(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 2)
        first = await one.claim("a", limit=9, idle=LONG)
        again = await other.claim("b", limit=9, idle=0)
        await one.acknowledge([(entry, 2) for entry in first])
        assert await one.write(write_at("s", 3), now=NOW)
        await other.acknowledge([(entry, 2) for entry in again])
        assert firsts(await claimed(other, idle=0)) == {"s": 3}
        assert await waiting(other) == 1

    async def test_r10_workers_that_die_between_claim_and_acknowledgement_lose_nothing(self, stores: Pair) -> None:
        """R10: here a worker that dies forgets what it claimed, before or after the warm tier has it."""
        chance = random.Random(1)  # noqa: S311 - it hides nothing
        sessions = ("s", "t", "u")
        warm = dict.fromkeys(sessions, 0)

        async def write(store: TieredHotStore, session: str) -> None:
            for step in range(1, 61):
                assert await store.write(write_at(session, step), now=NOW)
                await asyncio.sleep(0.005)

        writing = [asyncio.ensure_future(write(stores[at % 2], name)) for at, name in enumerate(sessions)]

        async def work(number: int) -> None:
            store, life = stores[number % 2], 0
            while not all(one.done() for one in writing) or await waiting(store):
                queued = await store.claim(f"w{number}-{life}", limit=7, idle=LAPSED)
                fate, done = chance.random(), []
                for entry in queued if fate > 0.3 else ():
                    head = await store.head(entry.session)
                    assert head is not None
                    assert entry.step <= warm[entry.session] + 1  # or one before has been let go of too early
                    warm[entry.session] = max(warm[entry.session], head.step)
                    done.append((entry, head.step))
                    await asyncio.sleep(0.002)  # so that it is written to before it is acknowledged
                if fate > 0.5:
                    await store.acknowledge(done)
                else:
                    life += 1
                if not queued:
                    await asyncio.sleep(LAPSED / 5)

        await asyncio.wait_for(asyncio.gather(*(work(number) for number in range(4))), PATIENCE)
        await asyncio.gather(*writing)
        assert warm == dict.fromkeys(sessions, 60)
        assert await claimed(stores[0], idle=0) == []
