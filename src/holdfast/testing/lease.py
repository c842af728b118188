"""The part of the hot tier's suite that is about leases, and about writes while somebody holds one."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from holdfast.errors import LeaseHeldError, LeaseLostError
from holdfast.testing.handles import opened
from holdfast.testing.hot_handles import Connect, HotHandles, Pair, build, everything
from holdfast.testing.samples import NOW, later, write_at


class LeaseSuite(HotHandles):
    """``HotStoreSuite`` has all of it."""

    # -- leases ------------------------------------------------------------------------------------------------------

    async def test_each_grant_has_the_next_fence_on_every_handle(self, stores: Pair) -> None:
        await build(stores[0], 1)
        for fence in range(1, 9):
            store, holder = stores[fence % 2], f"h{fence % 3}"
            lease = await store.acquire("s", holder, seconds=10, now=later(fence), force=fence % 4 != 0)
            assert lease is not None
            assert (lease.session, lease.holder, lease.fence, lease.until) == ("s", holder, fence, later(fence + 10))
            for reader in stores:
                assert await reader.lease("s", now=later(fence)) == lease
            if fence % 4 == 3:
                await store.release(lease)

    async def test_a_grant_outlives_the_store_and_its_fence_is_not_given_again(self, connect: Connect) -> None:
        first = await opened(connect)
        await build(first, 1)
        lease = await first.acquire("s", "ana", seconds=10, now=NOW)
        await first.close()
        second = await opened(connect)
        assert await second.lease("s", now=NOW) == lease
        with pytest.raises(LeaseHeldError):
            await second.acquire("s", "ben", seconds=10, now=NOW)
        assert lease is not None
        await second.release(lease)
        await second.close()
        third = await opened(connect)
        following = await third.acquire("s", "ben", seconds=10, now=NOW)
        assert following is not None
        assert following.fence == lease.fence + 1
        await third.close()

    async def test_no_lease_is_granted_on_a_session_that_is_not_there(self, stores: Pair) -> None:
        one, other = stores
        assert await one.acquire("s", "ana", seconds=10, now=NOW) is None
        assert await one.acquire("s", "ana", seconds=10, now=NOW, force=True) is None
        assert await other.head("s") is None

    async def test_a_live_lease_is_refused_to_another_and_granted_anew_to_its_holder(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        with pytest.raises(LeaseHeldError) as held:
            await other.acquire("s", "ben", seconds=10, now=later(9.9))
        assert (held.value.holder, held.value.until) == ("ana", later(10))
        assert await other.lease("s", now=NOW) == lease
        again = await other.acquire("s", "ana", seconds=10, now=later(5))
        assert again is not None
        assert (again.fence, again.until) == (2, later(15))

    async def test_a_lease_can_be_taken_by_force(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lost = await one.acquire("s", "ana", seconds=10, now=NOW)
        taken = await other.acquire("s", "ben", seconds=10, now=NOW, force=True)
        assert lost is not None
        assert taken is not None
        assert taken.fence == lost.fence + 1
        assert await one.lease("s", now=NOW) == taken
        with pytest.raises(LeaseLostError):
            await one.renew(lost, seconds=10, now=NOW)

    async def test_a_lease_that_lapsed_or_was_released_is_granted_to_another(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lapsed = await one.acquire("s", "ana", seconds=10, now=NOW)
        taken = await other.acquire("s", "ben", seconds=10, now=later(10))
        assert lapsed is not None
        assert taken is not None
        assert (taken.holder, taken.fence) == ("ben", lapsed.fence + 1)
        await one.release(taken)
        again = await other.acquire("s", "ana", seconds=10, now=later(11))
        assert again is not None
        assert again.fence == taken.fence + 1

    async def test_of_racing_grants_exactly_one_is_given(self, stores: Pair) -> None:
        await build(stores[0], 1)
        outcomes = await asyncio.gather(
            *(stores[at % 2].acquire("s", f"h{at}", seconds=10, now=NOW) for at in range(12)), return_exceptions=True
        )
        leases = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(leases) == 1
        assert sum(isinstance(outcome, LeaseHeldError) for outcome in outcomes) == 11
        assert await stores[1].lease("s", now=NOW) == leases[0]

    async def test_no_two_racing_grants_have_the_same_fence(self, stores: Pair) -> None:
        await build(stores[0], 1)
        leases = await asyncio.gather(
            *(stores[at % 2].acquire("s", f"h{at}", seconds=10, now=NOW, force=True) for at in range(24))
        )
        by_fence = {lease.fence: lease for lease in leases if lease is not None}
        assert sorted(by_fence) == list(range(1, 25))
        assert await stores[1].lease("s", now=NOW) == by_fence[24]

    async def test_the_lease_that_is_live_is_shown_until_it_lapses(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        assert await one.lease("s", now=NOW) is None
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        assert await other.lease("s", now=later(9.999)) == lease
        assert await other.lease("s", now=later(10)) is None

    async def test_a_lease_is_renewed_by_its_holder_and_not_by_who_lost_it(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        assert lease is not None
        renewed = await other.renew(lease, seconds=20, now=later(5))
        assert renewed == replace(lease, until=later(25))
        assert await one.lease("s", now=later(24)) == renewed
        late = await one.renew(lease, seconds=20, now=later(60))  # lapsed, but nobody has taken it
        assert late.until == later(80)
        newer = await other.acquire("s", "ana", seconds=10, now=later(61))
        with pytest.raises(LeaseLostError) as lost:
            await one.renew(late, seconds=20, now=later(62))
        assert (lost.value.fence, lost.value.actual) == (1, 2)
        assert await one.lease("s", now=later(62)) == newer

    async def test_a_lease_that_was_released_is_not_renewed(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        assert lease is not None
        await other.release(lease)
        with pytest.raises(LeaseLostError):
            await one.renew(lease, seconds=10, now=NOW)
        with pytest.raises(LeaseLostError):
            await one.renew(replace(lease, session="never"), seconds=10, now=NOW)
        assert await one.lease("s", now=NOW) is None

    async def test_giving_back_a_lost_lease_leaves_everything_as_it_is(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lost = await one.acquire("s", "ana", seconds=10, now=NOW)
        taken = await other.acquire("s", "ben", seconds=10, now=NOW, force=True)
        assert lost is not None
        assert taken is not None
        await one.release(lost)
        assert await other.lease("s", now=NOW) == taken
        for _ in range(2):
            await other.release(taken)
            assert await one.lease("s", now=NOW) is None
        await other.release(replace(taken, session="never"))

    # -- leases and writes -------------------------------------------------------------------------------------------

    async def test_a_write_whose_fence_is_not_the_last_granted_is_refused(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        old = await one.acquire("s", "ana", seconds=10, now=NOW)
        new = await other.acquire("s", "ben", seconds=10, now=NOW, force=True)
        assert old is not None
        assert new is not None
        before = await everything(one)
        for fence in (old.fence, new.fence + 1):
            for commit in (True, False):
                refused = write_at("s", 2, "mine", items=[b"mine"], fence=fence, commit=commit, due=1.0)
                with pytest.raises(LeaseLostError) as lost:
                    await one.write(refused, now=later(1))
                assert (lost.value.fence, lost.value.actual) == (fence, new.fence)
        await other.release(new)  # giving it back does not bring the old one to life
        with pytest.raises(LeaseLostError):
            await one.write(write_at("s", 2, "mine", fence=old.fence), now=later(1))
        assert await everything(other) == before

    async def test_a_commit_without_a_fence_is_refused_while_somebodys_lease_is_live(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        await one.acquire("s", "ana", seconds=10, now=NOW)
        before = await everything(one)
        with pytest.raises(LeaseHeldError) as held:
            await other.write(write_at("s", 2, items=[b"mine"], due=1.0), now=later(9.9))
        assert (held.value.holder, held.value.until) == ("ana", later(10))
        assert await everything(other) == before
        assert await other.write(write_at("s", 2, items=[b"mine"]), now=later(10)) is True

    async def test_a_commit_without_a_fence_lands_when_the_lease_was_given_back(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        assert lease is not None
        await one.release(lease)
        assert await other.write(write_at("s", 2), now=NOW) is True

    async def test_a_lifecycle_step_needs_no_lease_and_renews_none(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        assert await other.write(write_at("s", 2, commit=False, version=1), now=later(5)) is True
        assert await one.lease("s", now=NOW) == lease

    async def test_a_lease_that_a_write_carries_is_renewed_by_its_own_length(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        assert lease is not None
        assert await other.write(write_at("s", 2, fence=lease.fence), now=later(7)) is True
        assert await one.lease("s", now=later(7)) == replace(lease, until=later(17))
        await one.renew(lease, seconds=40, now=later(8))
        assert await one.write(write_at("s", 3, fence=lease.fence, commit=False), now=later(9)) is True
        assert await other.lease("s", now=later(9)) == replace(lease, until=later(49))

    async def test_a_write_that_does_not_land_renews_no_lease(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        assert lease is not None
        assert await other.write(write_at("s", 9, fence=lease.fence), now=later(5)) is False
        assert await other.write(write_at("s", 2, "c1", fence=lease.fence), now=later(5)) is False
        assert await one.lease("s", now=NOW) == lease

    async def test_a_lapsed_lease_that_nobody_took_lets_a_write_in_and_is_not_renewed_by_it(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        assert lease is not None
        assert await one.write(write_at("s", 2, fence=lease.fence), now=later(11)) is True
        assert await other.lease("s", now=later(11)) is None

    async def test_a_write_whose_fence_was_released_or_never_granted_is_refused(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        for commit in (True, False):
            with pytest.raises(LeaseLostError):
                await one.write(write_at("s", 2, fence=0, commit=commit), now=NOW)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        assert lease is not None
        await one.release(lease)
        before = await everything(one)
        for commit in (True, False):
            with pytest.raises(LeaseLostError):
                await other.write(write_at("s", 2, fence=lease.fence, commit=commit, due=1.0), now=later(1))
        assert await everything(other) == before
        assert await other.write(write_at("s", 2), now=later(1)) is True
