"""The suite for hot tiers apart from the warm one: every sentence of ``TieredHotStore`` has its test here.

What an adapter owes as a ``HotStore`` is in ``testing/hot.py``, what is about the flush queue in
``testing/flushqueue.py`` and ``testing/deadletters.py``. That ``generation`` grows, and that a store is not ``whole``
any more, needs a fault, and is an adapter's own to test.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.errors import LeaseLostError, LimitExceededError
from holdfast.model.entry import SealedEntry, purged_payload
from holdfast.model.session import SealedHead, SealedItem
from holdfast.ports.hot import TieredHotStore
from holdfast.testing.deadletters import DeadLetterSuite
from holdfast.testing.flushqueue import PATIENCE, Connect, Pair, claimed, firsts, waiting
from holdfast.testing.handles import opened
from holdfast.testing.hot_handles import build, everything, items_of
from holdfast.testing.samples import NOW, content, entry_at, head_at, later, purged, write_at

Whole = tuple[SealedHead, list[SealedItem], list[SealedEntry]]


async def whole(store: TieredHotStore, session: str = "s") -> Whole:
    """What the warm tier would hold of a session."""
    head, items, log, _ = await everything(store, session)
    return head, sorted(items, key=lambda item: item.id), log


def state(session: str = "s", step: int = 3, *, tail: int = 2, **head: Any) -> Whole:
    """A session as it may come from the warm tier."""
    items = [SealedItem(b"%d" % number, step, content(f"{number}")) for number in range(3)]
    log = [entry_at(session, at) for at in range(step - tail + 1, step + 1)]
    return head_at(session, step, **head), items, log


class TieredHotStoreSuite(DeadLetterSuite):
    """Subclass it and give ``connect`` and ``narrow``, see ``TieredHandles``."""

    # -- what it is --------------------------------------------------------------------------------------------------

    async def test_it_says_what_an_acknowledged_write_survives(self, stores: Pair) -> None:
        for store in stores:
            assert store.durability in ("disk", "hot")

    async def test_its_generation_stays_while_nothing_happens_to_it(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3)
        before = (one.generation, other.generation)
        await asyncio.gather(*(one.head("s") for _ in range(50)))
        assert (one.generation, other.generation) == before

    async def test_a_store_belongs_to_the_warm_tier_that_was_named_first(self, stores: Pair, connect: Connect) -> None:
        one, other = stores
        assert await one.bind("first") == "first"
        assert await other.bind("second") == "first"
        third = await opened(connect)
        assert await third.bind("third") == "first"
        await third.close()

    async def test_a_store_that_nobody_empties_is_whole(self, stores: Pair, connect: Connect) -> None:
        one, other = stores
        before = (one.generation, other.generation)
        assert await one.whole()
        await build(one, 3)
        third = await opened(connect)
        for store in (one, other, third) * 2:
            assert await store.whole()
        await third.close()
        assert await one.evict("s", step=3, now=NOW)
        assert await one.install(*state(), changes={}, fence=0)
        for store in stores:
            assert await store.whole()
        assert (one.generation, other.generation) == before

    async def test_its_size_is_about_what_it_holds(self, stores: Pair) -> None:
        one, other = stores
        assert (await one.size()).sessions == 0
        for number in range(20):
            await one.write(write_at(f"s{number}", 1, items={b"i": content("i", 20_000)}), now=NOW)
            await one.write(write_at(f"s{number}", 2), now=NOW)
        size = await other.size()
        assert 10 <= size.sessions <= 40
        assert size.bytes >= 400_000
        for number in range(20):
            assert await one.evict(f"s{number}", step=2, now=NOW)
        assert (await other.size()).sessions <= 10
        for number in range(20):
            assert await one.install(*state(f"s{number}"), changes={}, fence=0)
        assert 10 <= (await other.size()).sessions <= 40

    # -- evicting ----------------------------------------------------------------------------------------------------

    async def test_what_is_evicted_is_forgotten_and_no_other_session(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3, due=1.0)
        await build(one, 2, session="t", due=1.0)
        theirs = await everything(other, "t")
        assert await one.evict("s", step=3, now=NOW) is True
        for store in stores:
            assert await store.head("s") is None
            assert await store.load("s") is None
            assert await store.entries("s", after=0, limit=9) == []
            assert await store.recent("s", before=9, limit=9) == []
            assert await store.at("s", [1, 2, 3]) == {}
            assert await store.change("s", "c2") is None
            assert await store.known("s", "c2") is None
            assert await store.rested("s") == 3
            assert await store.rested("t") is None
            assert await store.due(now=NOW, limit=9) == ["t"]
            assert (await everything(store, "t"))[:3] == theirs[:3]
        assert await one.acquire("s", "ana", seconds=30, now=NOW) is None
        assert await one.write(write_at("s", 4), now=NOW) is False
        await one.trim("s", below=9)
        await one.purge("s")
        assert await one.head("s") is None

    async def test_the_step_that_a_session_was_evicted_at_is_known_until_any_state_may_come(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3)
        assert await other.rested("s") is None
        assert await one.evict("s", step=3, now=NOW)
        assert await other.rested("s") == 3
        assert await one.evict("s", step=3, now=NOW, force=True) is False
        assert await other.rested("s") == 0
        await build(one, 2, session="t")
        assert await one.write(write_at("t", 3, commit=False, version=2, status="discarded"), now=NOW)
        assert await one.evict("t", step=3, now=NOW)
        assert await other.rested("t") == 3

    async def test_a_session_that_stands_elsewhere_is_not_evicted(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3, due=1.0)
        before = await everything(one)
        for step in (0, 2, 4):
            for force in (False, True):
                assert await other.evict("s", step=step, now=NOW, force=force) is False
        assert await everything(one) == before
        assert await one.evict("never", step=0, now=NOW) is False
        assert await one.evict("s", step=3, now=NOW) is True
        assert await other.evict("s", step=3, now=NOW) is False  # it is not there any more

    async def test_a_session_with_a_live_lease_is_evicted_by_force_only(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 2)
        await one.acquire("s", "ana", seconds=30, now=NOW)
        before = await everything(one)
        assert await other.evict("s", step=2, now=later(29)) is False
        assert await everything(one) == before
        assert await other.evict("s", step=2, now=later(29), force=True) is True
        assert await one.lease("s", now=NOW) is None

    @pytest.mark.parametrize("how", ["lapsed", "released"])
    async def test_a_lease_that_is_not_live_keeps_nobody(self, stores: Pair, how: str) -> None:
        one, other = stores
        await build(one, 2)
        lease = await one.acquire("s", "ana", seconds=30, now=NOW)
        assert lease is not None
        if how == "released":
            await one.release(lease)
        assert await other.evict("s", step=2, now=later(30 if how == "lapsed" else 1)) is True

    async def test_an_evicted_session_counts_towards_its_owners_quota(self, stores: Pair) -> None:
        one, other = stores
        for number in range(3):
            assert await one.write(write_at(f"s{number}", 1, quota=3), now=NOW)
        for number in range(2):
            assert await one.evict(f"s{number}", step=1, now=NOW)
        with pytest.raises(LimitExceededError):
            await other.write(write_at("more", 1, quota=3), now=NOW)
        assert await one.install(*state("s0", 1, tail=1), changes={}, fence=0)
        with pytest.raises(LimitExceededError):  # nor once it is back, nor once it has been written to
            await other.write(write_at("more", 1, quota=3), now=NOW)
        assert await one.write(write_at("s0", 2, quota=0), now=NOW)
        with pytest.raises(LimitExceededError):
            await other.write(write_at("more", 1, quota=3), now=NOW)
        assert await one.write(write_at("s0", 3, commit=False, status="discarded"), now=NOW)
        assert await other.write(write_at("more", 1, quota=3), now=NOW)

    async def test_an_evicted_session_that_is_gone_counts_no_more(self, stores: Pair) -> None:
        one, other = stores
        for number, status in enumerate(("discarded", "expired", "published")):
            assert await one.write(write_at(f"s{number}", 1, quota=3), now=NOW)
            assert await one.write(write_at(f"s{number}", 2, commit=False, status=status), now=NOW)
            assert await one.evict(f"s{number}", step=2, now=NOW)
        for name in ("a", "b"):
            assert await other.write(write_at(name, 1, quota=3), now=NOW)
        with pytest.raises(LimitExceededError):
            await other.write(write_at("c", 1, quota=3), now=NOW)
        assert await one.install(*state("s0", 2, tail=1, status="discarded"), changes={}, fence=0)
        assert await one.write(write_at("s0", 3, commit=False), now=NOW)  # it comes back, and is bound by no quota
        assert await one.write(write_at("a", 2, commit=False, status="discarded"), now=NOW)
        with pytest.raises(LimitExceededError):
            await other.write(write_at("c", 1, quota=3), now=NOW)

    @pytest.mark.parametrize("status", ["draft", "discarded"])
    @pytest.mark.parametrize("quota", [None, 1, 99])
    async def test_no_creation_lands_under_the_id_of_an_evicted_session(
        self, stores: Pair, status: str, quota: int | None
    ) -> None:
        one, other = stores
        await build(one, 2)
        await one.write(write_at("s", 3, commit=False, status=status), now=NOW)
        assert await one.evict("s", step=3, now=NOW)
        for store in stores:
            assert await store.write(write_at("s", 1, "mine", items=[b"i"], quota=quota), now=NOW) is False
            assert await store.load("s") is None
        assert await other.install(*state("s", 3), changes={}, fence=0)
        assert await one.write(write_at("s", 1, quota=quota), now=NOW) is False

    async def test_an_evicted_session_waits_no_more_and_hides_no_write_from_who_follows(self, stores: Pair) -> None:
        one, other = stores
        mark, _ = await other.moved(None)
        await build(one, 3)
        await one.write(write_at("t", 1), now=NOW)
        await one.write(write_at("t", 2, commit=False, status="discarded"), now=NOW)
        late = await claimed(other)
        assert await one.evict("s", step=3, now=NOW)
        assert await one.evict("t", step=2, now=NOW)
        assert (await other.moved(mark))[1] >= {"s", "t"}
        assert await waiting(other) == 0
        assert await one.install(*state("s", 3), changes={}, fence=0)
        assert await one.write(write_at("s", 4), now=NOW)
        assert await waiting(other) == 1
        for _ in range(2):  # whoever has claimed it before comes too late
            await other.acknowledge([(entry, 9) for entry in late])
            assert await waiting(other) == 1
        await one.bury(late, "torn")
        assert await one.buried(limit=9) == []
        assert firsts(await claimed(other, idle=0)) == {"s": 4}

    async def test_an_eviction_outlives_the_store(self, connect: Connect) -> None:
        first = await opened(connect)
        await build(first, 2)
        assert await first.evict("s", step=2, now=NOW)
        await first.close()
        second = await opened(connect)
        assert await second.head("s") is None
        assert await second.write(write_at("s", 1), now=NOW) is False
        await second.close()

    async def test_of_an_eviction_and_a_write_that_race_one_is_refused(self, stores: Pair) -> None:
        one, other = stores
        for number in range(30):
            session = f"s{number}"
            await build(one, 1, session=session)
            racing = [one.evict(session, step=1, now=NOW), other.write(write_at(session, 2), now=NOW)]
            told = await asyncio.gather(*(racing if number % 2 else racing[::-1]))
            evicted, landed = told if number % 2 else told[::-1]
            assert evicted is not landed
            head = await one.head(session)
            assert (head is None) is evicted

    # -- installing --------------------------------------------------------------------------------------------------

    async def test_a_session_comes_back_as_it_was(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3, due=later(60).timestamp())
        names = {content(f"id {number}", 16): content(f"item {number}", number) for number in range(300)}
        fields: dict[str, Any] = {"due": later(60).timestamp(), "status": "locked", "version": 3}
        assert await one.write(write_at("s", 4, commit=False, items=names, **fields), now=NOW)
        before, told = await whole(one), await everything(one)
        assert await one.evict("s", step=4, now=NOW)
        assert await other.install(*before, changes={}, fence=0) is True
        assert await everything(one) == told
        assert await whole(one) == before
        for step in range(1, 5):
            assert await one.change("s", f"c{step}") == before[2][step - 1]
        assert await one.write(write_at("s", 5, "c2"), now=NOW) is False  # the change is in its log
        assert await one.write(write_at("s", 5, items=[b"new"]), now=NOW) is True
        assert (await items_of(other))[b"new"] == 5

    async def test_a_session_that_was_never_here_can_be_installed(self, stores: Pair) -> None:
        one, other = stores
        head, items, log = state(key=None, sealed=b"", due=0.0)
        assert await one.install(head, items, log, changes={}, fence=0)
        assert await whole(other) == (head, items, log)

    async def test_what_lies_before_its_entries_counts_as_trimmed(self, stores: Pair) -> None:
        one, other = stores
        head, items, log = state(step=40, tail=20)
        assert await one.install(head, items, log, changes={}, fence=0)
        assert await other.entries("s", after=0, limit=99) == log
        assert await other.entries("s", after=30, limit=99) == log[10:]
        assert await other.recent("s", before=41, limit=99) == log[::-1]
        assert await other.at("s", [20, 21]) == {21: log[0]}
        assert await other.change("s", "c20") is None
        assert await other.known("s", "c40") == 40
        await other.trim("s", below=31)
        assert await one.entries("s", after=0, limit=99) == log[10:]
        assert await one.write(write_at("s", 41), now=NOW)
        assert await other.entries("s", after=39, limit=99) == [log[-1], entry_at("s", 41)]

    async def test_the_change_ids_of_what_is_trimmed_stay_known_and_no_write_lands_under_them(
        self, stores: Pair
    ) -> None:
        one, other = stores
        await build(one, 60)
        await one.trim("s", below=41)
        for store in stores:
            for step in (1, 40, 41, 60):
                assert await store.known("s", f"c{step}") == step
            assert await store.known("s", "c61") == 0
            assert await store.known("never", "c1") is None
            assert await store.change("s", "c40") is None
        for change in ("c1", "c40", "c60"):
            assert await other.write(write_at("s", 61, change), now=NOW) is False
        assert await other.write(write_at("s", 61), now=NOW) is True

    async def test_change_ids_come_back_with_a_session(self, stores: Pair) -> None:
        one, other = stores
        head, items, log = state(step=3_000, tail=2)
        trimmed = {f"of step {step}": step for step in range(1, 2_999)}
        assert await one.install(head, items, log, fence=0, changes=trimmed)
        assert await other.entries("s", after=0, limit=99) == log
        for step in (1, 1_999, 2_000, 2_998):
            assert await other.known("s", f"of step {step}") == step
            assert await other.write(write_at("s", 3_001, f"of step {step}"), now=NOW) is False
        assert [await other.known("s", change) for change in ("c2999", "c3000", "c3001")] == [2_999, 3_000, 0]
        assert await other.write(write_at("s", 3_001), now=NOW) is True

    async def test_a_session_may_come_without_entries_and_without_items(self, stores: Pair) -> None:
        one, other = stores
        head = head_at("s", 7)
        assert await one.install(head, [], [], changes={}, fence=0)
        assert await other.load("s") == (head, [])
        assert await other.entries("s", after=0, limit=9) == []
        assert await one.write(write_at("s", 8, items=[b"i"]), now=NOW)
        assert await other.entries("s", after=0, limit=9) == [entry_at("s", 8)]

    async def test_a_session_that_is_here_is_left_as_it_is(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 5, due=1.0)
        lease = await one.acquire("s", "ana", seconds=30, now=NOW)
        before = await everything(one)
        for step in (3, 5, 9):
            head, items, log = state(step=step, sealed=b"mine", due=later(-9).timestamp())
            assert await other.install(head, items, log, changes={}, fence=99) is False
            assert await everything(one) == before
            assert await one.lease("s", now=NOW) == lease
        assert await one.install(*state("t"), changes={}, fence=0) is True
        assert await other.install(*state("t"), changes={}, fence=0) is False  # as when the answer was lost
        assert await whole(other, "t") == state("t")

    async def test_of_racing_installs_one_lands(self, stores: Pair) -> None:
        for number in range(5):
            name = f"s{number}"
            landed = await asyncio.gather(
                *(stores[at % 2].install(*state(name, sealed=b"%d" % at), changes={}, fence=0) for at in range(8))
            )
            assert landed.count(True) == 1
            head = await stores[0].head(name)
            assert head is not None
            assert head.sealed == b"%d" % landed.index(True)

    async def test_an_older_state_than_was_evicted_is_not_installed(self, stores: Pair) -> None:
        """Whoever read the warm tier before others wrote and evicted comes too late."""
        one, other = stores
        for session, status in (("s", "draft"), ("t", "discarded")):
            await build(one, 3, session=session)
            stale = await whole(one, session)
            await one.write(write_at(session, 4, commit=False, status=status), now=NOW)
            newest = await whole(one, session)
            assert await one.evict(session, step=4, now=NOW)
            assert await other.install(*stale, changes={}, fence=0) is False
            assert await other.head(session) is None
            assert await other.install(*newest, changes={}, fence=0) is True

    @pytest.mark.parametrize("here", [True, False])
    async def test_an_eviction_by_force_lets_any_state_come_after_it(self, stores: Pair, here: bool) -> None:
        one, other = stores
        await build(one, 3)
        stale = await whole(one)
        assert await one.write(write_at("s", 4), now=NOW)
        if not here:
            assert await one.evict("s", step=4, now=NOW)
        assert await one.evict("s", step=4, now=NOW, force=True) is here
        assert await other.write(write_at("s", 1, "mine"), now=NOW) is False
        assert await other.install(*stale, changes={}, fence=0) is True

    async def test_what_is_installed_is_not_queued(self, stores: Pair) -> None:
        one, other = stores
        assert await one.install(*state(), changes={}, fence=0)
        assert await waiting(other) == 0
        assert await one.write(write_at("s", 4), now=NOW)
        assert await waiting(other) == 1
        assert firsts(await claimed(other)) == {"s": 4}
        assert await one.install(*state("t"), changes={}, fence=0)
        assert await claimed(one) == []
        assert await waiting(other) == 1

    async def test_when_an_installed_session_is_due_counts(self, stores: Pair) -> None:
        one, other = stores
        assert await one.install(*state("s", due=later(-1).timestamp()), changes={}, fence=0)
        assert await one.install(*state("t", due=later(60).timestamp()), changes={}, fence=0)
        assert await one.install(*state("u"), changes={}, fence=0)
        assert await other.due(now=NOW, limit=9) == ["s"]
        assert await other.due(now=later(60), limit=9) == ["s", "t"]
        await other.defer("s", step=3, due=None)
        assert await one.due(now=later(60), limit=9) == ["t"]

    @pytest.mark.parametrize("fence", [0, 41, 1_767_323_045_678, 2**53 - 10])
    async def test_the_next_lease_has_a_fence_above_the_one_that_is_named(self, stores: Pair, fence: int) -> None:
        one, other = stores
        assert await one.install(*state(), changes={}, fence=fence)
        assert await other.lease("s", now=NOW) is None
        if fence:
            with pytest.raises(LeaseLostError):
                await other.write(write_at("s", 4, fence=fence), now=NOW)
        lease = await one.acquire("s", "ana", seconds=30, now=NOW)
        assert lease is not None
        assert lease.fence > fence
        assert await other.lease("s", now=NOW) == lease
        assert await other.write(write_at("s", 4, fence=lease.fence), now=NOW)
        following = await other.acquire("s", "ben", seconds=30, now=NOW, force=True)
        assert following is not None
        assert following.fence > lease.fence
        with pytest.raises(LeaseLostError):
            await one.write(write_at("s", 5, fence=lease.fence), now=NOW)

    async def test_r08_fences_grow_though_whoever_brings_a_session_back_names_a_smaller_one(self, stores: Pair) -> None:
        """R08: a fence that is made of a clock falls where the next machine's clock is behind."""
        one, other = stores
        for name, status, ways in (
            ("s", "draft", [False]),
            ("t", "discarded", [False]),
            ("u", "draft", [True]),
            ("v", "draft", [False, True]),  # the second where it is not here any more
        ):
            assert await one.install(*state(name), changes={}, fence=2**52)
            lease = await one.acquire(name, "ana", seconds=30, now=NOW)
            assert lease is not None
            assert await one.write(write_at(name, 4, commit=False, fence=lease.fence, status=status), now=NOW)
            read = await whole(one, name)
            for named in (2**52 - 2_000_000, 0, 2**52 + 2_000_000):
                for _ in range(2):  # nobody is granted a lease in between
                    for force in ways:
                        await one.evict(name, step=4, now=later(60), force=force)
                    assert await other.install(*read, changes={}, fence=named)
                following = await other.acquire(name, "ben", seconds=30, now=later(60))
                assert following is not None
                assert following.fence > max(named, lease.fence)
                with pytest.raises(LeaseLostError):
                    await one.write(write_at(name, 5, fence=lease.fence), now=later(60))
                await other.release(following)
                lease = following

    async def test_an_installed_session_can_be_purged_and_rewrapped_like_any_other(self, stores: Pair) -> None:
        one, other = stores
        head, items, log = state(step=9, tail=4, due=1.0, key=b"old")
        assert await one.install(head, items, log, changes={}, fence=0)
        assert await other.rewrap("s", old=b"old", new=b"new") is True
        for _ in range(2):
            await other.purge("s")
            assert await one.load("s") == (head_at("s", 9, key=None), [])
            assert await one.entries("s", after=0, limit=9) == [purged(entry) for entry in log]
            assert await one.due(now=NOW, limit=9) == []

    async def test_a_session_that_was_purged_is_hashed_no_second_time(self, stores: Pair) -> None:
        one, other = stores
        left = [entry_at("s", step, payload=purged_payload(b"%d" % step)) for step in (2, 3)]
        assert await one.install(head_at("s", 3, key=None, status="discarded", due=1.0), [], left, changes={}, fence=0)
        await other.purge("s")
        assert await one.entries("s", after=0, limit=9) == left
        assert await one.due(now=NOW, limit=9) == []

    async def test_where_the_log_is_archived_is_not_kept(self, stores: Pair) -> None:
        one, other = stores
        head, items, log = state(archive="object")
        assert await one.install(head, items, log, changes={}, fence=0)
        assert await other.head("s") == head_at("s", 3)

    async def test_what_was_installed_outlives_the_store(self, connect: Connect) -> None:
        first = await opened(connect)
        assert await first.install(*state(due=1.0), changes={}, fence=7)
        before = await everything(first)
        await first.close()
        second = await opened(connect)
        assert await everything(second) == before
        await second.close()

    async def test_a_session_of_ten_megabytes_and_two_thousand_items_moves_whole(self, stores: Pair) -> None:
        one, other = stores
        items = [SealedItem(b"%d" % number, 20, content(f"{number}", 5_000)) for number in range(2_000)]
        log = [entry_at("s", step, payload=content(f"{step}", 50_000)) for step in range(1, 21)]
        assert await one.install(head_at("s", 20), items, log, changes={}, fence=0)
        loaded = await other.load("s")
        assert loaded is not None
        assert sorted(loaded[1], key=lambda item: int(item.id)) == items
        assert await other.entries("s", after=0, limit=99) == log
        assert await one.evict("s", step=20, now=NOW)
        assert await other.load("s") is None

    async def test_a_session_that_is_being_installed_is_there_whole_or_not_at_all(self, stores: Pair) -> None:
        one, other = stores
        items = [SealedItem(b"%d" % number, 3, content(f"{number}")) for number in range(5_000)]
        for number in range(4):
            head = head_at(f"s{number}", 3, due=1.0)
            log = [entry_at(head.id, step) for step in (2, 3)]
            installing = asyncio.ensure_future(one.install(head, items, log, changes={}, fence=0))
            while not installing.done():
                loaded = await other.load(head.id)
                assert loaded is None or (loaded[0], len(loaded[1])) == (head, 5_000)
                await asyncio.sleep(0)
            assert await installing

    async def test_sessions_may_move_up_and_down_while_they_are_written_to_and_lose_nothing(self, stores: Pair) -> None:
        """Writers, and one that evicts and another that installs, as the tiers would."""
        one, other = stores
        warm: dict[str, Whole] = {}
        made = {"s": 0, "t": 0}
        moved = 0

        async def write(name: str) -> None:
            while made[name] < 40 or moved < 20:
                step = made[name] + 1
                if await one.write(write_at(name, step, items=[b"%d" % step]), now=NOW):
                    made[name] = step
                await asyncio.sleep(0.001)

        writing = [asyncio.ensure_future(write(name)) for name in made]

        async def suspend() -> None:
            nonlocal moved
            while not all(one.done() for one in writing):
                for name in made:
                    loaded = await other.load(name)
                    log = await other.entries(name, after=0, limit=9_999)
                    if loaded is not None and log and log[-1].step == loaded[0].step:
                        warm[name] = (*loaded, log)
                        moved += await other.evict(name, step=loaded[0].step, now=NOW)
                await asyncio.sleep(0.002)

        async def rehydrate() -> None:
            while not all(one.done() for one in writing):
                read = dict(warm)
                await asyncio.sleep(0.001)  # and what it has read may be old by now
                for name in read:
                    if await one.head(name) is None:
                        await one.install(*read[name], changes={}, fence=0)

        await asyncio.wait_for(asyncio.gather(suspend(), rehydrate(), *writing), PATIENCE)
        for name, step in made.items():
            await one.install(*warm[name], changes={}, fence=0)
            log = await other.entries(name, after=0, limit=9_999)
            assert [entry.step for entry in log] == list(range(1, step + 1))
            assert await items_of(other, name) == {b"%d" % at: at for at in range(1, step + 1)}
