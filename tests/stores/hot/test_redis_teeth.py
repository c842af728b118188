"""The suite has teeth for Redis too: a script that leaves out one thing fails the test that is named after it."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import pytest
from msgspec.structs import replace

from holdfast.drivers.redis import Script
from holdfast.errors import HoldfastError
from holdfast.model.session import SealedHead, SealedItem, Write
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.hot import HotStoreSuite
from holdfast.testing.servers import RedisServer
from holdfast.testing.teeth import otherwise, run

VALUES = {"step": 2}


def without(script: Script, *edits: tuple[str, str]) -> Script:
    """A script with something in it put otherwise."""
    return Script.of(otherwise(script.source.decode(), *edits))


_WRITE, _PURGE = RedisHotStore.write_script, RedisHotStore.purge_script


class SkipsTheCompare(RedisHotStore):
    write_script = without(_WRITE, ("(step or '0') ~= ARGV[2]", "not step and ARGV[2] ~= '0'"))


class AsksForNoParent(RedisHotStore):
    write_script = without(_WRITE, (" or (ARGV[13] ~= '' and stands[9] ~= ARGV[13])", ""))


class ForgetsChangeIds(RedisHotStore):
    write_script = without(_WRITE, ("  return 0\nend\nif known[2]", "end\nif known[2]"))


class IgnoresFences(RedisHotStore):
    write_script = without(_WRITE, ("or fence ~= stands[3]", ""))


class IgnoresLeases(RedisHotStore):
    write_script = without(_WRITE, ("ARGV[5] == '1'", "false"))


class RenewsNoLease(RedisHotStore):
    write_script = without(_WRITE, ("now + tonumber(stands[6])", "tonumber(ends)"))


class LosesDigits(RedisHotStore):
    write_script = without(_WRITE, ("'%.17g'", "'%.9g'"))


class MarksNothingAsMoved(RedisHotStore):
    write_script = without(_WRITE, ("redis.call('INCR', KEYS[5])", "1"))


class LeavesDueBehind(RedisHotStore):
    write_script = without(_WRITE, ("redis.call('ZREM', KEYS[3], ARGV[1])", ""))


class KeepsTheKey(RedisHotStore):
    purge_script = without(_PURGE, ("'key', 'due'", "'due'"))


class KeepsTheItems(RedisHotStore):
    purge_script = without(_PURGE, ("== 'i:'", "== 'none'"))


class GivesFencesAgain(RedisHotStore):
    release_script = without(RedisHotStore.release_script, ("'holder',", "'fence', 'holder',"))


class PutsKeysBack(RedisHotStore):
    rewrap_script = without(RedisHotStore.rewrap_script, ("~= ARGV[1]", "== 'never'"))


class TakesEveryOffer(RedisHotStore):
    epoch_script = without(RedisHotStore.epoch_script, ("if known[1] then", "if false then"))


class TrimsOneTooMany(RedisHotStore):
    trim_script = without(RedisHotStore.trim_script, ("for at = first, upto - 1 do", "for at = first, upto do"))


class FillsNoRoom(RedisHotStore):
    page_script = without(RedisHotStore.page_script, ("and filled < room", ""))


class ReadsInTwoMoments(RedisHotStore):
    """Reads the header, and the items a little later."""

    async def load(self, session: str) -> tuple[SealedHead, list[SealedItem]] | None:
        head = await self.head(session)
        loaded = await super().load(session)
        return None if head is None or loaded is None else (head, loaded[1])


class CountsFirst(RedisHotStore):
    """Counts the owner's sessions in one step and makes one in another."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        if write.quota is not None:
            tag, owner = self.keys.owner(write.head.tenant, write.head.owner)
            if await self._redis.ask(tag, b"HLEN", owner) < write.quota:
                write = replace(write, quota=None)
        return await super().write(write, now=now)


class OnePartitionCounts(RedisHotStore):
    """Its mark is that of the first partition."""

    async def moved(self, since: int | None) -> tuple[int, set[str]]:
        mark, moved = await super().moved(since)
        return mark >> 64 * (len(self.keys.partitions) - 1), moved


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (SkipsTheCompare, "test_a_write_that_expects_another_step_changes_nothing"),
        (SkipsTheCompare, "test_of_racing_writes_exactly_one_lands_at_each_step"),
        (SkipsTheCompare, "test_racing_writers_that_try_again_lose_nothing"),
        (AsksForNoParent, "test_a_write_on_another_history_changes_nothing"),
        (ForgetsChangeIds, "test_a_change_id_that_is_in_the_log_changes_nothing"),
        (IgnoresFences, "test_a_write_whose_fence_is_not_the_last_granted_is_refused"),
        (IgnoresLeases, "test_a_commit_without_a_fence_is_refused_while_somebodys_lease_is_live"),
        (RenewsNoLease, "test_a_lease_that_a_write_carries_is_renewed_by_its_own_length"),
        (LosesDigits, "test_a_lease_that_a_write_carries_is_renewed_by_its_own_length"),
        (MarksNothingAsMoved, "test_sessions_whose_logs_have_grown_are_named_from_a_mark_on"),
        (OnePartitionCounts, "test_sessions_whose_logs_have_grown_are_named_from_a_mark_on"),
        (LeavesDueBehind, "test_a_write_sets_when_its_session_is_due"),
        (KeepsTheKey, "test_a_purge_removes_the_content_and_leaves_head_and_headers"),
        (KeepsTheItems, "test_a_purge_removes_the_content_and_leaves_head_and_headers"),
        (GivesFencesAgain, "test_a_grant_outlives_the_store_and_its_fence_is_not_given_again"),
        (PutsKeysBack, "test_a_wrapped_key_is_replaced_if_it_is_still_the_old_one"),
        (TakesEveryOffer, "test_the_epoch_of_a_boot_is_as_first_offered_and_the_same_for_all"),
        (TrimsOneTooMany, "test_what_is_trimmed_is_forgotten_and_no_more"),
        (FillsNoRoom, "test_a_page_of_the_log_ends_with_the_entry_that_fills_its_room"),
        (ReadsInTwoMoments, "test_load_is_of_one_moment"),
        (CountsFirst, "test_a_quota_is_exact_under_racing_creations"),
    ],
)
async def test_a_store_that_breaks_a_promise_fails_its_test(
    broken: type[RedisHotStore], test: str, redis: RedisServer, prefix: str
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, HoldfastError)):
        await run(HotStoreSuite, test, VALUES, connect=partial(broken.open, f"{redis.url}?prefix={prefix}"))
    sound = partial(RedisHotStore.open, f"{redis.url}?prefix={prefix}-sound")
    await run(HotStoreSuite, test, VALUES, connect=sound)
