"""The suite for tiers apart has teeth: a store that leaves out one thing fails the test that is named after it.

R10: taken off the queue when it is claimed, a queue that is cut short, and claims that never lapse are among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from holdfast.drivers.redis import Script
from holdfast.errors import HoldfastError
from holdfast.model.session import SealedHead, SealedItem, Write
from holdfast.ports.hot import Backlog, Buried, Queued
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.flushqueue import BOUND, Connect
from holdfast.testing.servers import RedisServer
from holdfast.testing.teeth import otherwise, run
from holdfast.testing.tiered import TieredHotStoreSuite

VALUES = {"status": "draft", "quota": None, "fence": 41}


def without(script: Script, *edits: tuple[str, str]) -> Script:
    """A script with something in it put otherwise."""
    return Script.of(otherwise(script.source.decode(), *edits))


_WRITE, _CLAIM, _BURY = RedisHotStore.write_script, RedisHotStore.claim_script, RedisHotStore.bury_script
_EVICT, _INSTALL, _EXHUME = RedisHotStore.evict_script, RedisHotStore.install_script, RedisHotStore.exhume_script
_ACKNOWLEDGE = RedisHotStore.acknowledge_script

# -- R10 -----------------------------------------------------------------------------------------------------------


class AcknowledgesFirst(RedisHotStore):
    """What is claimed is off the queue, before the warm tier has it."""

    async def claim(self, worker: str, *, limit: int, idle: float, everywhere: bool = True) -> list[Queued]:
        found = await super().claim(worker, limit=limit, idle=idle, everywhere=everywhere)
        await self.acknowledge([(one, 2**53) for one in found])
        return found


class CutsTheQueueShort(RedisHotStore):
    """Makes room in the queue by dropping what is oldest."""

    write_script = without(
        _WRITE, ("waiting >= tonumber(ARGV[12])", "false"), ("KEYS[6], '*'", "KEYS[6], 'MAXLEN', 1, '*'")
    )


class NeverClaimsAnew(RedisHotStore):
    """The claims of dead workers do not lapse."""

    claim_script = without(_CLAIM, ("worker, ARGV[3]", "worker, '99999999'"))


# -- the queue -----------------------------------------------------------------------------------------------------


class QueuesNothing(RedisHotStore):
    write_script = without(_WRITE, ("if not stands[8] then", "if false then"))


class QueuesByNameOnly(RedisHotStore):
    """Marks the session as queued, and it is not on the stream."""

    write_script = without(_WRITE, ("redis.call('XADD', KEYS[6]", "tostring('1-1'"))


class QueuesEachWrite(RedisHotStore):
    """An entry a commit: thousands of a session that is copied whole by the first of them."""

    write_script = without(_WRITE, ("if not stands[8] then", "if true then"))


class QueuesRefusedWrites(RedisHotStore):
    write_script = without(
        _WRITE,
        ("if known[1] then\n", "if known[1] then\n  redis.call('XADD', KEYS[6], '*', 's', ARGV[1], 'n', ARGV[7])\n"),
    )


class QueuesLater(RedisHotStore):
    """Writes, and queues in another step."""

    write_script = QueuesNothing.write_script

    async def write(self, write: Write, *, now: datetime) -> bool:
        partition = self.keys.partition(write.head.id.encode())
        fields = (b"s", write.head.id, b"n", write.head.step)
        await self._redis.ask(partition.tag, b"XADD", partition.queue, b"*", *fields)
        return await super().write(write, now=now)


class HasNoBound(RedisHotStore):
    write_script = without(_WRITE, ("waiting >= tonumber(ARGV[12])", "false"))


class ChangesAndThenRefuses(RedisHotStore):
    write_script = without(
        _WRITE,
        ("  return {'full', waiting}", "  redis.call('HSET', log, ARGV[7], ARGV[8])\n  return {'full', waiting}"),
    )


class ClaimsLapseAtOnce(RedisHotStore):
    claim_script = without(_CLAIM, ("worker, ARGV[3]", "worker, '0'"))


class CountsNoTries(RedisHotStore):
    claim_script = without(_CLAIM, ("take(entry, redis.call(", "take(entry, 1 or redis.call("))


class ClaimsOncePerPartition(RedisHotStore):
    """Gives of each partition its share and forgets that it has more."""

    async def claim(self, worker: str, *, limit: int, idle: float, everywhere: bool = True) -> list[Queued]:
        found = await super().claim(worker, limit=min(limit, 1), idle=idle, everywhere=everywhere)
        self._news.clear()
        return found


class LooksEverywhere(RedisHotStore):
    async def claim(self, worker: str, *, limit: int, idle: float, everywhere: bool = True) -> list[Queued]:
        return await super().claim(worker, limit=limit, idle=idle)


class LeavesWhatIsDone(RedisHotStore):
    """Nobody claims it any more, and it stays on the stream."""

    acknowledge_script = without(_ACKNOWLEDGE, ("redis.call('XDEL', queue, entry)", ""))


class LosesWhatMovedOn(RedisHotStore):
    """Takes the session off the queue, whatever has been written to it since it was copied."""

    acknowledge_script = without(_ACKNOWLEDGE, ("if following > step then", "if true then"))


class MarksWhatMovedOn(RedisHotStore):
    """Says that it is queued anew, and puts nothing on the stream."""

    acknowledge_script = without(_ACKNOWLEDGE, ("ticket = redis.call('XADD', queue,", "tostring('1-1',"))


class StaysQueued(RedisHotStore):
    """Never forgets that a session was queued, so that no later write queues it."""

    acknowledge_script = without(_ACKNOWLEDGE, ("redis.call('HDEL', session, 'queued')", ""))


class CountsTwice(RedisHotStore):
    """Counts as flushed whatever is acknowledged, again and again."""

    acknowledge_script = without(
        _ACKNOWLEDGE,
        (
            "if ticket == entry then",
            "redis.call('INCRBY', KEYS[2], ticket == entry and 0 or 1)\n  if ticket == entry then",
        ),
    )


class TakesAnyEntry(RedisHotStore):
    """An acknowledgement that comes late is taken for that of the entry there is now."""

    acknowledge_script = without(_ACKNOWLEDGE, ("if ticket == entry then", "if ticket then"))


class CountsWhatIsNotThere(RedisHotStore):
    acknowledge_script = without(_ACKNOWLEDGE, ("math.min(step, upto)", "upto"))


class GoesBack(RedisHotStore):
    """Takes the warm tier's word for what waits, though it tells of less than was there before."""

    acknowledge_script = without(_ACKNOWLEDGE, ("math.max(tonumber(first), math.min(step, upto) + 1)", "upto + 1"))


class BuriesACopy(RedisHotStore):
    bury_script = without(
        _BURY, ("redis.call('XDEL', KEYS[1], entry[1])", ""), ("redis.call('XACK'", "redis.pcall('ECHO'")
    )


class BuriesTheSession(RedisHotStore):
    """What is written to it later is never flushed."""

    bury_script = without(_BURY, ("redis.call('HDEL', session, 'queued')", ""))


class CountsTheBuried(RedisHotStore):
    """What is among the dead letters waits for ever."""

    bury_script = without(_BURY, ("redis.call('INCRBY', KEYS[3],", "redis.call('ECHO',"))


class BuriesForGood(RedisHotStore):
    exhume_script = without(_EXHUME, ("stands[1] and not stands[2]", "false"))


class ExhumesTwice(RedisHotStore):
    """Queues a session that is queued already."""

    exhume_script = without(_EXHUME, ("stands[1] and not stands[2]", "stands[1]"))


class ExhumesUncounted(RedisHotStore):
    exhume_script = without(_EXHUME, ("redis.call('INCRBY', KEYS[3],", "redis.call('ECHO',"))


class ForgetsTheReason(RedisHotStore):
    async def buried(self, *, limit: int) -> list[Buried]:
        return [Buried(one.session, one.step, "broken") for one in await super().buried(limit=limit)]


class ExhumesTheLatestFirst(RedisHotStore):
    exhume_script = without(_EXHUME, ("for at = 1, #ARGV do", "for at = #ARGV, 1, -1 do"))


class CountsOnlyWhatNobodyClaimed(RedisHotStore):
    async def backlog(self) -> Backlog:
        told = await super().backlog()
        pending = 0
        for one in self.keys.partitions:
            if await self._redis.ask(one.tag, b"EXISTS", one.queue):
                groups = await self._redis.ask(one.tag, b"XINFO", b"GROUPS", one.queue)
                pending += groups[0][5] if groups else 0
        return Backlog(told.entries - pending, told.waited, told.buried)


# -- what it is ----------------------------------------------------------------------------------------------------


class MarksAnew(RedisHotStore):
    """Whoever opens the store looks to the others like one who has emptied it."""

    async def _agree(self) -> list[bytes | None]:
        for one in self.keys.partitions[:1]:
            await self._redis.ask(one.tag, b"DEL", one.mark)
        return await super()._agree()


# -- eviction ------------------------------------------------------------------------------------------------------


class EvictsWhatMovedOn(RedisHotStore):
    evict_script = without(_EVICT, ("stands[1] ~= ARGV[2]", "false"))


class EvictsUnderALease(RedisHotStore):
    evict_script = without(_EVICT, ("ARGV[4] ~= '1' and stands[3]", "false"))


class LeavesTheLog(RedisHotStore):
    evict_script = without(_EVICT, ("'UNLINK', KEYS[1], KEYS[2]", "'UNLINK', KEYS[1]"))


class StaysDue(RedisHotStore):
    evict_script = without(_EVICT, ("redis.call('ZREM', KEYS[3], id)", ""))


class RemembersNoEvicted(RedisHotStore):
    evict_script = without(_EVICT, ("redis.call('HSET', KEYS[5]", "redis.call('HMGET', KEYS[5]"))


class EvictsTheFence(RedisHotStore):
    """The next one is whatever the clock of some machine says."""

    evict_script = without(_EVICT, ("stands[6] and ' ' .. stands[6] or ''", "''"))


class EvictsTheFenceByForce(RedisHotStore):
    evict_script = without(_EVICT, ("(string.gsub(was, '^(-?)%d+', '%10'))", "'0'"))


class CountsGoneSessions(RedisHotStore):
    evict_script = without(_EVICT, ("(gone and '-' or '')", "''"))


class EvictsAndStillCounts(RedisHotStore):
    """What was evicted waits for ever."""

    evict_script = without(_EVICT, ("redis.call('INCRBY', KEYS[8],", "redis.call('ECHO',"))


class MarksNoneThatWent(RedisHotStore):
    evict_script = without(_EVICT, ("redis.call('LPUSH', KEYS[6], id)", "redis.call('ZREM', KEYS[4], id)"))


# -- installing ----------------------------------------------------------------------------------------------------


class InstallsOverWhatIsThere(RedisHotStore):
    install_script = without(_INSTALL, ("redis.call('EXISTS', session) == 1", "false"))


class InstallsAnythingOlder(RedisHotStore):
    install_script = without(_INSTALL, ("if evicted and math.abs", "if false and math.abs"))


class QueuesWhatItInstalls(RedisHotStore):
    async def install(self, head: SealedHead, *given: Any, **more: Any) -> bool:
        partition = self.keys.partition(head.id.encode())
        await self._redis.ask(partition.tag, b"XADD", partition.queue, b"*", b"s", head.id, b"n", head.step)
        return await super().install(head, *given, **more)


class CountsWhatItInstalls(RedisHotStore):
    """What came from the warm tier waits to go there."""

    install_script = without(_INSTALL, ("redis.call('INCR', KEYS[8])", ""))


class IsNotDue(RedisHotStore):
    install_script = without(_INSTALL, ("redis.call('ZADD', KEYS[3], ARGV[3], id)", ""))


class ForgetsTheFence(RedisHotStore):
    async def install(self, *given: Any, **more: Any) -> bool:
        return await super().install(*given, **more | {"fence": 0})


class TakesTheFenceThatIsNamed(RedisHotStore):
    install_script = without(_INSTALL, ("if kept and", "if false and"))


class TakesTheFenceThatWasKept(RedisHotStore):
    """Though a greater one is named: what was evicted here may have been leased elsewhere since."""

    install_script = without(_INSTALL, ("tonumber(kept) > tonumber(redis.call('HGET', session, 'fence') or 0)", "true"))


class CountsNothingInstalled(RedisHotStore):
    """Takes what comes back for counted, though it was dropped when it was gone."""

    install_script = without(_INSTALL, ("redis.call('HSET', session, 'uncounted', '1')", ""))


class UnpacksAtOnce(RedisHotStore):
    install_script = without(_INSTALL, ("4000", "40000"), ("3999", "39999"))


class InstallsInTwoSteps(RedisHotStore):
    """The head, and the items a little later."""

    async def install(self, head: SealedHead, items: Sequence[SealedItem], *given: Any, **more: Any) -> bool:
        if not await super().install(head, (), *given, **more):
            return False
        keys = self.keys.session(head.id)
        for item in items:
            value = item.version.to_bytes(8, "big") + (item.sealed or b"")
            await self._redis.ask(keys.tag, b"HSET", keys.session, b"i:" + item.id, value)
        return True


class InstallsNoChangeIds(RedisHotStore):
    async def install(self, *given: Any, **more: Any) -> bool:
        return await super().install(*given, **more | {"changes": {}})


class TrimsChangeIds(RedisHotStore):
    """Lets go of them with their entries."""

    trim_script = without(
        RedisHotStore.trim_script,
        (
            "redis.call('HDEL', KEYS[2], string.format('%.0f', at))",
            "redis.call('HDEL', KEYS[2], string.format('%.0f', at), 'c:c' .. string.format('%.0f', at))",
        ),
    )


class KnowsWhatIsGone(RedisHotStore):
    """Says of a session that is not here that it has no such change id."""

    known_script = without(RedisHotStore.known_script, ("redis.call('EXISTS', KEYS[1]) == 1 and", ""))


class HashesHashes(RedisHotStore):
    install_script = without(
        _INSTALL,
        (
            "redis.call('HSET', session, 'uncounted', '1')",
            "redis.call('HSET', session, 'uncounted', '1')\nredis.call('HDEL', session, 'purged')",
        ),
    )


class BelongsToTheLast(RedisHotStore):
    """Keeps the warm tier that was named last."""

    async def bind(self, warm: str) -> str:
        await self._redis.ask(self.keys.root, b"HSET", self.keys.layout, b"warm", warm)
        return warm


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (BelongsToTheLast, "test_a_store_belongs_to_the_warm_tier_that_was_named_first"),
        (AcknowledgesFirst, "test_r10_workers_that_die_between_claim_and_acknowledgement_lose_nothing"),
        (AcknowledgesFirst, "test_what_is_queued_stays_until_it_is_acknowledged"),
        (CutsTheQueueShort, "test_beyond_the_bound_writes_are_refused_and_nothing_is_dropped"),
        (NeverClaimsAnew, "test_r10_workers_that_die_between_claim_and_acknowledgement_lose_nothing"),
        (NeverClaimsAnew, "test_a_claim_lapses_and_another_worker_or_the_same_gets_it"),
        (QueuesNothing, "test_a_session_is_queued_once_by_the_first_write_that_lands_and_by_no_other"),
        (QueuesByNameOnly, "test_a_session_is_queued_once_by_the_first_write_that_lands_and_by_no_other"),
        (QueuesEachWrite, "test_a_session_is_queued_once_by_the_first_write_that_lands_and_by_no_other"),
        (QueuesEachWrite, "test_of_each_session_there_is_one_entry_with_the_first_step_that_waits"),
        (QueuesRefusedWrites, "test_a_session_is_queued_once_by_the_first_write_that_lands_and_by_no_other"),
        (QueuesLater, "test_a_write_and_its_entry_in_the_queue_are_one_step"),
        (HasNoBound, "test_beyond_the_bound_writes_are_refused_and_nothing_is_dropped"),
        (ChangesAndThenRefuses, "test_beyond_the_bound_writes_are_refused_and_nothing_is_dropped"),
        (ClaimsLapseAtOnce, "test_what_one_worker_has_claimed_no_other_gets"),
        (ClaimsLapseAtOnce, "test_racing_workers_share_out_what_there_is"),
        (CountsNoTries, "test_a_claim_lapses_and_another_worker_or_the_same_gets_it"),
        (ClaimsOncePerPartition, "test_about_as_many_are_claimed_as_are_asked_for_and_none_is_left_out"),
        (ClaimsOncePerPartition, "test_a_quick_look_is_where_this_process_has_written_since_it_last_looked"),
        (LooksEverywhere, "test_a_quick_look_is_where_this_process_has_written_since_it_last_looked"),
        (LeavesWhatIsDone, "test_the_backlog_counts_all_that_is_not_acknowledged"),
        (LosesWhatMovedOn, "test_a_session_that_moved_on_meanwhile_is_queued_anew_from_there"),
        (LosesWhatMovedOn, "test_r10_workers_that_die_between_claim_and_acknowledgement_lose_nothing"),
        (MarksWhatMovedOn, "test_a_session_that_moved_on_meanwhile_is_queued_anew_from_there"),
        (StaysQueued, "test_once_it_is_off_the_queue_the_next_write_puts_it_there"),
        (CountsTwice, "test_a_session_that_moved_on_meanwhile_is_queued_anew_from_there"),
        (CountsTwice, "test_the_backlog_fits_whatever_happens_in_whatever_order"),
        (TakesAnyEntry, "test_a_session_that_moved_on_meanwhile_is_queued_anew_from_there"),
        (CountsWhatIsNotThere, "test_an_acknowledgement_of_more_or_less_than_there_is_counts_what_there_is"),
        (GoesBack, "test_an_acknowledgement_of_more_or_less_than_there_is_counts_what_there_is"),
        (BuriesACopy, "test_what_is_buried_is_off_the_queue_and_among_the_dead_letters"),
        (BuriesTheSession, "test_what_was_buried_is_queued_again_by_the_next_write"),
        (CountsTheBuried, "test_what_was_buried_is_queued_again_by_the_next_write"),
        (BuriesForGood, "test_dead_letters_outlive_the_store_and_are_put_back_on_the_queue"),
        (ExhumesTwice, "test_a_session_that_is_on_the_queue_is_not_put_there_once_more_by_its_dead_letters"),
        (ExhumesUncounted, "test_the_backlog_fits_whatever_happens_in_whatever_order"),
        (ExhumesTheLatestFirst, "test_a_session_that_is_on_the_queue_is_not_put_there_once_more_by_its_dead_letters"),
        (ForgetsTheReason, "test_what_is_buried_is_off_the_queue_and_among_the_dead_letters"),
        (CountsOnlyWhatNobodyClaimed, "test_the_backlog_counts_all_that_is_not_acknowledged"),
        (MarksAnew, "test_a_store_that_nobody_empties_is_whole"),
        (EvictsWhatMovedOn, "test_a_session_that_stands_elsewhere_is_not_evicted"),
        (EvictsWhatMovedOn, "test_of_an_eviction_and_a_write_that_race_one_is_refused"),
        (EvictsUnderALease, "test_a_session_with_a_live_lease_is_evicted_by_force_only"),
        (LeavesTheLog, "test_what_is_evicted_is_forgotten_and_no_other_session"),
        (StaysDue, "test_what_is_evicted_is_forgotten_and_no_other_session"),
        (RemembersNoEvicted, "test_an_evicted_session_counts_towards_its_owners_quota"),
        (RemembersNoEvicted, "test_no_creation_lands_under_the_id_of_an_evicted_session"),
        (CountsGoneSessions, "test_an_evicted_session_that_is_gone_counts_no_more"),
        (EvictsAndStillCounts, "test_an_evicted_session_waits_no_more_and_hides_no_write_from_who_follows"),
        (MarksNoneThatWent, "test_an_evicted_session_waits_no_more_and_hides_no_write_from_who_follows"),
        (InstallsOverWhatIsThere, "test_a_session_that_is_here_is_left_as_it_is"),
        (InstallsOverWhatIsThere, "test_of_racing_installs_one_lands"),
        (InstallsAnythingOlder, "test_an_older_state_than_was_evicted_is_not_installed"),
        (QueuesWhatItInstalls, "test_what_is_installed_is_not_queued"),
        (CountsWhatItInstalls, "test_what_is_installed_is_not_queued"),
        (InstallsNoChangeIds, "test_change_ids_come_back_with_a_session"),
        (TrimsChangeIds, "test_the_change_ids_of_what_is_trimmed_stay_known_and_no_write_lands_under_them"),
        (KnowsWhatIsGone, "test_what_is_evicted_is_forgotten_and_no_other_session"),
        (IsNotDue, "test_when_an_installed_session_is_due_counts"),
        (ForgetsTheFence, "test_the_next_lease_has_a_fence_above_the_one_that_is_named"),
        *(
            (fences, "test_r08_fences_grow_though_whoever_brings_a_session_back_names_a_smaller_one")
            for fences in (
                EvictsTheFence,
                EvictsTheFenceByForce,
                TakesTheFenceThatIsNamed,
                TakesTheFenceThatWasKept,
            )
        ),
        (CountsNothingInstalled, "test_an_evicted_session_that_is_gone_counts_no_more"),
        (UnpacksAtOnce, "test_a_session_that_is_being_installed_is_there_whole_or_not_at_all"),
        (InstallsInTwoSteps, "test_a_session_that_is_being_installed_is_there_whole_or_not_at_all"),
        (HashesHashes, "test_a_session_that_was_purged_is_hashed_no_second_time"),
    ],
)
async def test_a_store_that_breaks_a_promise_fails_its_test(
    broken: type[RedisHotStore], test: str, redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.stores.hot.redis_quota._UNDER_WAY", 0)  # or what is not there counts for a while
    with monkeypatch.context() as hurried:
        hurried.setattr("holdfast.testing.flushqueue.PATIENCE", 3.0)
        with pytest.raises((AssertionError, pytest.fail.Exception, HoldfastError, TimeoutError)):
            await run(TieredHotStoreSuite, test, VALUES, **gives(broken, f"{redis.url}?prefix={prefix}"))
    await run(TieredHotStoreSuite, test, VALUES, **gives(RedisHotStore, f"{redis.url}?prefix={prefix}-sound"))


def gives(store: type[RedisHotStore], url: str) -> dict[str, Connect]:
    connect = partial(store.open, url, timeout=10.0)
    return {"connect": connect, "narrow": partial(connect, bound=BOUND)}
