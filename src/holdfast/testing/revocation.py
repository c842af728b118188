"""The part of the warm tier's suite that is about revocations."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from holdfast.model.revocation import Revocation
from holdfast.testing.handles import opened
from holdfast.testing.samples import NOW, later
from holdfast.testing.warm_handles import Connect, Pair, WarmHandles

START = NOW.timestamp()


def revocation(token: str = "", principal: str = "", **other: Any) -> Revocation:
    """One that lapses a minute after ``NOW``; ``other`` names the fields that matter to a test."""
    before = 0.0 if token else START
    return replace(Revocation("acme", token, principal, before, START + 60, "ana"), **other)


class RevocationSuite(WarmHandles):
    """``WarmStoreSuite`` has all of it."""

    # -- revocations -------------------------------------------------------------------------------------------------

    async def test_where_nothing_was_revoked_there_is_nothing(self, stores: Pair) -> None:
        for store in stores:
            assert await store.revoked(after=0, now=NOW) == ([], 0)

    async def test_a_read_that_starts_after_revoke_returned_sees_that_revocation(self, stores: Pair) -> None:
        after = [0, 0]
        for number in range(20):
            made = revocation(f"t{number}", until=START + 60 + number / 7)
            assert await stores[number % 2].revoke(made, now=NOW) == made
            for at, store in enumerate(stores):
                found, after[at] = await store.revoked(after=after[at], now=NOW)
                assert found == [made]

    async def test_a_revocation_comes_back_as_it_was_made(self, stores: Pair) -> None:
        one, other = stores
        made = [
            revocation("t", "ana"),
            revocation("", "ana", before=0.1),
            revocation("", "", before=1_767_323_045.678901, until=2.0**40),
            revocation("ténant's\n\0%_*", "o\U0001f600", tenant="'", by="x" * 200),
        ]
        for each in made:
            await one.revoke(each, now=NOW)
        assert (await other.revoked(after=0, now=NOW))[0] == made

    async def test_tokens_principals_and_tenants_do_not_touch_each_other(self, stores: Pair) -> None:
        one, other = stores
        made = {
            revocation(token, principal, tenant=tenant, before=0.0)
            for tenant in ("acme", "Acme", "acme ")
            for token in ("", "a", "A", "a ", "a:b", "b")
            for principal in ("", "a", "a:b", "b")
        }
        for each in made:
            assert await one.revoke(each, now=NOW) == each
        found = (await other.revoked(after=0, now=NOW))[0]
        assert len(found) == len(made) == 72
        assert set(found) == made

    async def test_after_a_number_only_what_is_new_or_changed_is_read(self, stores: Pair) -> None:
        one, other = stores
        for number in range(5):
            await one.revoke(revocation(f"t{number}"), now=NOW)
        found, after = await other.revoked(after=0, now=NOW)
        assert len(found) == 5
        assert await other.revoked(after=after, now=NOW) == ([], after)
        assert await one.revoked(after=after, now=NOW) == ([], after)
        longer = await one.revoke(revocation("t2", until=START + 99), now=NOW)
        new = await other.revoke(revocation("", "ben"), now=NOW)
        assert (await one.revoked(after=after, now=NOW))[0] == [longer, new]
        assert len((await one.revoked(after=0, now=NOW))[0]) == 6

    async def test_of_two_for_the_same_the_later_times_stand(self, stores: Pair) -> None:
        one, other = stores
        await one.revoke(revocation("", "ana", before=START - 10, until=START + 60), now=NOW)
        weaker = revocation("", "ana", before=START - 20, until=START + 30, by="ben")
        kept = replace(weaker, before=START - 10, until=START + 60)
        assert await other.revoke(weaker, now=NOW) == kept
        assert (await one.revoked(after=0, now=NOW))[0] == [kept]
        later_before = revocation("", "ana", before=START, until=START + 30)
        kept = replace(later_before, until=START + 60)
        assert await one.revoke(later_before, now=NOW) == kept
        assert (await other.revoked(after=0, now=NOW))[0] == [kept]

    async def test_a_revocation_that_has_lapsed_is_not_read_and_is_forgotten(self, stores: Pair) -> None:
        one, other = stores
        await one.revoke(revocation("short", until=START + 10), now=NOW)
        await one.revoke(revocation("", "ana", before=START, until=START + 10), now=NOW)
        await one.revoke(revocation("long"), now=NOW)
        assert len((await other.revoked(after=0, now=later(9.9)))[0]) == 3
        assert (await other.revoked(after=0, now=later(10)))[0] == [revocation("long")]
        assert len((await other.revoked(after=0, now=NOW))[0]) == 3  # it is the reader's now that counts
        weaker = revocation("", "ana", before=START - 10, until=START + 90)
        assert await other.revoke(weaker, now=later(10)) == weaker  # nothing was left to merge with
        assert (await one.revoked(after=0, now=NOW))[0] == [revocation("long"), weaker]

    async def test_numbers_are_not_given_again_once_all_has_lapsed(self, stores: Pair) -> None:
        one, other = stores
        for number in range(3):
            await one.revoke(revocation(f"t{number}"), now=NOW)
        _, after = await other.revoked(after=0, now=NOW)
        made = revocation("new", until=START + 999)
        await one.revoke(made, now=later(100))
        assert (await other.revoked(after=after, now=later(100)))[0] == [made]

    async def test_of_racing_revocations_none_is_lost_and_every_reader_sees_each(self, stores: Pair) -> None:
        made = [revocation(f"t{number}") for number in range(40)]
        seen: list[Revocation] = []
        over = asyncio.Event()

        async def read() -> None:
            after, last = 0, False
            while not last:
                last = over.is_set()
                found, after = await stores[1].revoked(after=after, now=NOW)
                seen.extend(found)
                await asyncio.sleep(0)

        reading = asyncio.ensure_future(read())
        await asyncio.gather(*(stores[at % 2].revoke(each, now=NOW) for at, each in enumerate(made)))
        over.set()
        await reading
        assert sorted(seen, key=str) == sorted(made, key=str)

    async def test_a_revocation_outlives_the_store(self, connect: Connect) -> None:
        first = await opened(connect)
        await first.revoke(revocation("t"), now=NOW)
        _, after = await first.revoked(after=0, now=NOW)
        await first.close()
        second = await opened(connect)
        assert await second.revoked(after=0, now=NOW) == ([revocation("t")], after)
        await second.revoke(revocation("u"), now=NOW)
        assert (await second.revoked(after=after, now=NOW))[0] == [revocation("u")]
        await second.close()
