"""The hot tier's suite has teeth: a store that breaks one promise fails the test that is named after it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.drivers.sqlite import SqliteFile
from holdfast.errors import HoldfastError, LeaseLostError, LimitExceededError
from holdfast.model.entry import SealedEntry
from holdfast.model.lease import Lease
from holdfast.model.session import SealedHead, SealedItem, Write
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.testing.hot import HotStoreSuite
from holdfast.testing.teeth import run

VALUES = {"step": 2}


class FillsNoRoom(SqliteHotStore):
    """Reads as many entries as are asked for, however large."""

    async def recent(self, session: str, *, before: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        return await super().recent(session, before=before, limit=limit)


class LastWriteWins(SqliteHotStore):
    """Skips the compare: whatever step the author saw, the write lands on top."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        while True:
            head = await self.head(write.head.id)
            if head is None or await self.change(write.head.id, write.entry.change) is not None:
                return await super().write(write, now=now)
            step = head.step + 1
            on_top = replace(
                write, expected=head.step, head=replace(write.head, step=step), entry=replace(write.entry, step=step)
            )
            if await super().write(on_top, now=now):
                return True


class AsksForNoParent(SqliteHotStore):
    """Compares the step alone."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        return await super().write(replace(write, parent=b""), now=now)


class LeavesItemsBehind(SqliteHotStore):
    """Writes the items of a write that did not land."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        landed = await super().write(write, now=now)
        if not landed:
            await self._file.write(
                lambda connection: connection.executemany(
                    "INSERT INTO item SELECT no, ?, ?, ? FROM session WHERE id = ? ON CONFLICT DO NOTHING",
                    [(item.id, item.version, item.sealed or b"", write.head.id) for item in write.items],
                )
            )
        return landed


class ForgetsChangeIds(SqliteHotStore):
    """Takes the same change id again."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        change = f"{write.entry.change} {write.entry.step}"
        return await super().write(replace(write, entry=replace(write.entry, change=change)), now=now)


class ReadsInTwoMoments(SqliteHotStore):
    """Reads the header, and the items a little later."""

    async def load(self, session: str) -> tuple[SealedHead, list[SealedItem]] | None:
        before = await super().load(session)
        for _ in range(2_000):
            await asyncio.sleep(0)
        after = await super().load(session)
        return None if before is None or after is None else (before[0], after[1])


class AnswersFromMemory(SqliteHotStore):
    """Keeps the heads it has read, and does not see what others write."""

    def __init__(self, file: SqliteFile) -> None:
        super().__init__(file)
        self._heads: dict[str, SealedHead | None] = {}

    async def head(self, session: str) -> SealedHead | None:
        if session not in self._heads:
            self._heads[session] = await super().head(session)
        return self._heads[session]


class CountsFirst(SqliteHotStore):
    """Counts the owner's sessions in one transaction and creates in another."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        if write.quota is not None:
            count = await self._file.write(lambda connection: connection.execute("SELECT count(*) FROM session").get)
            if count >= write.quota:
                raise LimitExceededError("sessions of one owner", count + 1, write.quota)
        return await super().write(replace(write, quota=None), now=now)


class IgnoresFences(SqliteHotStore):
    """Lets a writer in whose lease was taken over."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        try:
            return await super().write(write, now=now)
        except LeaseLostError as lost:
            return await super().write(replace(write, fence=lost.actual), now=now)


class StartsFencesAnew(SqliteHotStore):
    """Counts the fences from 1 again when a lease is given back."""

    async def release(self, lease: Lease) -> None:
        await self._file.write(
            lambda connection: connection.execute(
                "UPDATE session SET fence = 0, holder = NULL, until = 0 WHERE id = ? AND fence = ?",
                (lease.session, lease.fence),
            )
        )


class RenewsAheadOfTheWrite(SqliteHotStore):
    """Renews the lease a write carries, whether the write lands or not."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        lease = await self.lease(write.head.id, now=now)
        if write.fence is not None and lease is not None:
            await self.renew(lease, seconds=10, now=now)
        return await super().write(write, now=now)


class LetsGoOfCancelledWrites(SqliteHotStore):
    """Goes on at once when its caller is cancelled, with the write still on its way."""

    def __init__(self, file: SqliteFile) -> None:
        super().__init__(file)
        self._late: set[asyncio.Task[bool]] = set()

    async def write(self, write: Write, *, now: datetime) -> bool:
        sending = asyncio.create_task(self._send(write, now))
        self._late.add(sending)
        return await asyncio.shield(sending)

    async def _send(self, write: Write, now: datetime) -> bool:
        await asyncio.sleep(0.002)  # a disk that takes its time
        return await super().write(write, now=now)


class SendsLate(SqliteHotStore):
    """Has writes wait a moment before they are sent, and forgets them when it is closed."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        await asyncio.sleep(0.01)
        return await super().write(write, now=now)


class PurgesInTwoSteps(SqliteHotStore):
    """Removes the items, and the key a little later."""

    async def purge(self, session: str) -> None:
        await self._file.write(
            lambda connection: connection.execute(
                "DELETE FROM item WHERE session = (SELECT no FROM session WHERE id = ?)", (session,)
            )
        )
        for _ in range(10):
            await asyncio.sleep(0)
        await super().purge(session)


class PutsKeysBack(SqliteHotStore):
    """Stores the key of every write."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        landed = await super().write(write, now=now)
        if landed:
            await self._file.write(
                lambda connection: connection.execute(
                    "UPDATE session SET key = ? WHERE id = ?", (write.head.key, write.head.id)
                )
            )
        return landed


class TakesEveryOffer(SqliteHotStore):
    """Believes whoever tells it the time."""

    async def epoch(self, boot: str, offer: datetime) -> datetime:
        await super().epoch(boot, offer)
        return offer


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (LastWriteWins, "test_a_write_that_expects_another_step_changes_nothing"),
        (AsksForNoParent, "test_a_write_on_another_history_changes_nothing"),
        (FillsNoRoom, "test_a_page_of_the_log_ends_with_the_entry_that_fills_its_room"),
        (LastWriteWins, "test_of_racing_writes_exactly_one_lands_at_each_step"),
        (LastWriteWins, "test_racing_writers_that_try_again_lose_nothing"),
        (LeavesItemsBehind, "test_of_racing_writes_exactly_one_lands_at_each_step"),
        (ForgetsChangeIds, "test_a_change_id_that_is_in_the_log_changes_nothing"),
        (ReadsInTwoMoments, "test_load_is_of_one_moment"),
        (AnswersFromMemory, "test_a_read_that_starts_after_a_write_returned_sees_that_write"),
        (CountsFirst, "test_a_quota_is_exact_under_racing_creations"),
        (IgnoresFences, "test_a_write_whose_fence_is_not_the_last_granted_is_refused"),
        (StartsFencesAnew, "test_each_grant_has_the_next_fence_on_every_handle"),
        (StartsFencesAnew, "test_a_grant_outlives_the_store_and_its_fence_is_not_given_again"),
        (RenewsAheadOfTheWrite, "test_a_write_that_does_not_land_renews_no_lease"),
        (LetsGoOfCancelledWrites, "test_a_write_whose_caller_is_cancelled_is_awaited_to_its_outcome"),
        (SendsLate, "test_closing_finishes_the_writes_already_sent"),
        (PurgesInTwoSteps, "test_a_purge_is_one_step"),
        (PutsKeysBack, "test_a_key_that_is_destroyed_stays_so"),
        (TakesEveryOffer, "test_the_epoch_of_a_boot_is_as_first_offered_and_the_same_for_all"),
    ],
)
async def test_a_store_that_breaks_a_promise_fails_its_test(
    broken: type[SqliteHotStore], test: str, tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, HoldfastError)):
        await run(HotStoreSuite, test, VALUES, connect=partial(broken.open, tmp_path / "broken.db"))
    await run(HotStoreSuite, test, VALUES, connect=partial(SqliteHotStore.open, tmp_path / "sound.db"))
