"""The part of the suite for hot tiers apart from the warm one that is about dead letters, and what waits in all."""

from __future__ import annotations

import asyncio
import random

from holdfast.ports.hot import Buried, Queued
from holdfast.testing.flushqueue import Connect, FlushQueueSuite, Pair, claimed, firsts, waiting
from holdfast.testing.handles import opened
from holdfast.testing.hot_handles import build
from holdfast.testing.samples import NOW, entry_at, head_at, write_at


class DeadLetterSuite(FlushQueueSuite):
    """``TieredHotStoreSuite`` has all of it."""

    async def test_what_is_buried_is_off_the_queue_and_among_the_dead_letters(self, stores: Pair) -> None:
        one, other = stores
        for session, length in (("s", 3), ("t", 1), ("u", 2)):
            await build(one, length, session=session)
        dead = [entry for entry in await claimed(one) if entry.session != "u"]
        for store in (one, other):  # and once more changes nothing
            await store.bury(dead, "torn")
            found = await store.buried(limit=9)
            assert sorted((letter.session, letter.step, letter.reason) for letter in found) == [
                ("s", 1, "torn"),
                ("t", 1, "torn"),
            ]
            backlog = await store.backlog()
            assert (backlog.entries, backlog.buried) == (2, 2)
        assert firsts(await claimed(other, idle=0)) == {"u": 1}
        await one.bury([], "torn")
        assert len(await one.buried(limit=1)) == 1

    async def test_what_was_buried_is_queued_again_by_the_next_write(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3)
        dead = await claimed(one)
        await one.bury(dead, "torn")
        assert await other.write(write_at("s", 4), now=NOW)
        assert await waiting(one) == 1
        assert firsts(await claimed(other)) == {"s": 4}
        await one.bury(dead, "torn")
        await one.acknowledge([(entry, 3) for entry in dead])
        assert await waiting(one) == 1
        assert firsts(await claimed(other, idle=0)) == {"s": 4}

    async def test_what_was_acknowledged_cannot_be_buried(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 2)
        await build(one, 2, session="t")
        queued = sorted(await claimed(one), key=lambda entry: entry.session)
        assert await other.write(write_at("s", 3), now=NOW)
        await one.acknowledge([(queued[0], 2)])
        await other.bury(queued, "torn")
        assert await one.buried(limit=9) == [Buried("t", 1, "torn")]
        assert firsts(await claimed(other, idle=0)) == {"s": 3}
        assert await waiting(one) == 1

    async def test_dead_letters_outlive_the_store_and_are_put_back_on_the_queue(self, connect: Connect) -> None:
        first = await opened(connect)
        names = [f"s{number}" for number in range(12)]
        for name in names:
            await build(first, 2, session=name)
        await first.bury(await claimed(first), "torn")
        assert await first.write(write_at("s0", 3), now=NOW)
        await first.acknowledge([(entry, 3) for entry in await claimed(first)])
        await first.close()
        second = await opened(connect)
        assert len(await second.buried(limit=99)) == 12
        assert await second.exhume() == 12
        assert await second.buried(limit=99) == []
        backlog = await second.backlog()
        assert (backlog.entries, backlog.buried) == (25, 0)
        assert await second.exhume() == 0
        queued = await claimed(second)
        assert firsts(queued) == dict.fromkeys(names, 1)
        await second.acknowledge([(entry, 3) for entry in queued])
        assert await waiting(second) == 0
        await second.close()

    async def test_a_session_that_is_on_the_queue_is_not_put_there_once_more_by_its_dead_letters(
        self, stores: Pair
    ) -> None:
        one, other = stores
        await build(one, 3)
        await one.bury(await claimed(one), "torn")
        assert await other.write(write_at("s", 4), now=NOW)
        assert await one.exhume() == 1
        assert await waiting(one) == 1
        queued = await claimed(one)
        assert firsts(queued) == {"s": 4}
        await one.bury(queued, "torn")
        assert await other.write(write_at("s", 5), now=NOW)
        await one.bury(await claimed(one), "torn")
        assert len(await one.buried(limit=9)) == 2
        assert await other.exhume() == 2
        assert await waiting(one) == 2
        assert firsts(await claimed(one)) == {"s": 4}  # the first of what they are of

    async def test_a_dead_letter_of_a_session_that_is_not_here_any_more_queues_nothing(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3)
        await one.bury(await claimed(one), "torn")
        assert await one.evict("s", step=3, now=NOW)
        assert await other.exhume() == 1
        assert await waiting(one) == 0
        assert await other.install(head_at("s", 3), [], [entry_at("s", 3)], changes={}, fence=0)
        assert await one.write(write_at("s", 4), now=NOW)
        assert await waiting(one) == 1
        await one.acknowledge([(entry, 4) for entry in await claimed(one)])
        assert await waiting(one) == 0

    # -- what waits in all -------------------------------------------------------------------------------------------

    async def test_the_backlog_counts_all_that_is_not_acknowledged(self, stores: Pair) -> None:
        one, other = stores
        backlog = await one.backlog()
        assert (backlog.entries, backlog.waited, backlog.buried) == (0, 0.0, 0)
        await build(one, 2)
        await asyncio.sleep(0.05)
        await build(one, 3, session="t")
        before = await other.backlog()
        assert before.entries == 5
        assert 0.04 <= before.waited < 30
        queued = await claimed(one)
        assert await waiting(other) == 5
        await one.acknowledge([(entry, 2) for entry in queued if entry.session == "s"])
        assert await waiting(other) == 3
        await one.acknowledge([(entry, 3) for entry in queued])
        backlog = await other.backlog()
        assert (backlog.entries, backlog.waited) == (0, 0.0)

    async def test_the_backlog_fits_whatever_happens_in_whatever_order(self, stores: Pair) -> None:
        """Held against what a dictionary says; each step of it again, too, as when its answer was lost."""
        chance = random.Random(7)  # noqa: S311 - it hides nothing
        names = [f"s{number}" for number in range(5)]
        made, first, letters = dict.fromkeys(names, 0), dict[str, int](), list[tuple[str, int]]()
        held: dict[str, Queued] = {}
        old: list[Queued] = []
        for _ in range(400):
            store, name = chance.choice(stores), chance.choice(names)
            match chance.choice(("write", "write", "write", "acknowledge", "acknowledge", "bury", "exhume", "rest")):
                case "write":
                    made[name] += 1
                    for again in (False, True):
                        assert await store.write(write_at(name, made[name]), now=NOW) is not again
                    first.setdefault(name, made[name])
                case "acknowledge" if name in held:
                    upto = chance.randint(first[name] - 1, made[name] + 1)
                    for _ in range(chance.randint(1, 2)):
                        await store.acknowledge([(held[name], upto), *((entry, upto + 5) for entry in old[-3:])])
                    first[name] = upto + 1
                    old.append(held.pop(name))
                    if upto >= made[name]:
                        del first[name]
                case "bury" if name in held:
                    for _ in range(chance.randint(1, 2)):
                        await store.bury([held[name], *old[-3:]], "torn")
                    letters.append((name, first.pop(name)))
                    old.append(held.pop(name))
                case "exhume" if chance.random() < 0.3:
                    assert await store.exhume() == len(letters)
                    for session, step in letters:
                        first.setdefault(session, step)
                    letters.clear()
                case "rest" if made[name]:
                    assert await store.evict(name, step=made[name], now=NOW)
                    log = [entry_at(name, made[name])]
                    letters = [letter for letter in letters if letter[0] != name]
                    await store.exhume()
                    for session, step in letters:
                        first.setdefault(session, step)
                    letters.clear()
                    first.pop(name, None)
                    assert await store.install(head_at(name, made[name]), [], log, changes={}, fence=0)
                    if name in held:
                        old.append(held.pop(name))
                case _:
                    continue
            assert await waiting(store) == sum(made[session] - step + 1 for session, step in first.items())
            for entry in await claimed(chance.choice(stores)):
                held[entry.session] = entry
            assert {session: entry.step for session, entry in held.items()} == first
