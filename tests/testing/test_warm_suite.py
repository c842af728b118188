"""The warm tier's suite has teeth: a store that breaks one promise fails the test that is named after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from holdfast.errors import AlreadyExistsError, HoldfastError
from holdfast.model.cursor import PageCursor
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead
from holdfast.ports.warm import AuditRow, Query, Snapshot, WarmSize, WarmStore
from holdfast.stores.sqlite_rows import keep_items, keep_members
from holdfast.stores.warm.sqlite import SqliteWarmStore
from holdfast.testing import broken_warm
from holdfast.testing.broken_warm import on
from holdfast.testing.teeth import run
from holdfast.testing.warm import WarmStoreSuite

VALUES = {"at": 1, "limit": 3}


class TakesTheOldestHead(SqliteWarmStore):
    """Keeps whatever head comes last."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        await super().append(head, entries, members=members)
        await self._file.write(
            lambda connection: connection.execute(
                "UPDATE session SET step = ?, sealed = ? WHERE id = ?", (head.step, head.sealed, head.id)
            )
        )


class PassesConflictsOver(SqliteWarmStore):
    """Takes another entry at a step for the same one."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        try:
            await super().append(head, entries, members=members)
        except AlreadyExistsError:
            await super().append(head, [], members=members)


class PagesByTimeAlone(SqliteWarmStore):
    """Goes on beyond the creation time of a cursor, whatever its id."""

    async def find(self, query: Query, *, after: PageCursor | None, limit: int) -> list[SealedHead]:
        return await super().find(query, after=after and replace(after, id=""), limit=limit)


class TakesLateMembers(SqliteWarmStore):
    """Keeps whatever members come last, with however old a head."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        await super().append(head, entries)
        if members is not None:
            await self._file.write(lambda connection: keep_members(connection, head, members))


class CountsWhatIsGone(SqliteWarmStore):
    """Counts every session there ever was."""

    async def counts(self) -> dict[tuple[str, str], int]:
        rows: Any = self._file.read.execute("SELECT status, kind, count(*) FROM session GROUP BY status, kind")
        return {(status, kind): count for status, kind, count in rows}


class BringsKeysBack(SqliteWarmStore):
    """Takes the key that comes with a newer head."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        await super().append(head, entries, members=members)
        await self._file.write(
            lambda connection: connection.execute("UPDATE session SET key = ? WHERE id = ?", (head.key, head.id))
        )


class KeepsWhatIsLate(SqliteWarmStore):
    """Forgets that a session was purged."""

    async def purge(self, session: str) -> None:
        await super().purge(session)
        await self._file.write(
            lambda connection: connection.execute("UPDATE session SET purged = 0 WHERE id = ?", (session,))
        )


class PurgesInTwoSteps(SqliteWarmStore):
    """Destroys the key a little later than the content."""

    async def purge(self, session: str) -> None:
        head = await self.head(session)
        await super().purge(session)
        if head is None:
            return
        for row in ((head.key, head.due, session), (None, None, session)):
            await self._file.write(partial(_set_key, row=row))
            await asyncio.sleep(0.005)


def _set_key(connection: apsw.Connection, *, row: tuple[Any, ...]) -> None:
    connection.execute("UPDATE session SET key = ?, due = ? WHERE id = ?", row)


class RecordsEndsApart(SqliteWarmStore):
    """Keeps what vouches for a chain's end in another transaction than its lines."""

    async def record(self, rows: Sequence[AuditRow], *, end: bytes) -> bool:
        if not await super().record(rows, end=b""):
            return False
        await asyncio.sleep(0.005)
        await self._file.write(
            lambda connection: connection.execute(
                'UPDATE audit_chain SET "end" = ? WHERE chain = ?', (end, rows[0].chain)
            )
        )
        return True


class TakesPartedHeads(SqliteWarmStore):
    """Takes another history of as many steps for the same one."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        stands = await self.head(head.id)
        if stands is not None and stands.step == head.step:
            head = replace(head, digest=stands.digest)
        await super().append(head, entries, members=members)


class ForgetsWhen(SqliteWarmStore):
    """Tells of sessions that are due in whatever order."""

    async def due(self, *, now: datetime, limit: int) -> list[str]:
        return sorted(await super().due(now=now, limit=limit))


class FindsAnybodysChange(SqliteWarmStore):
    """Looks for a change id, and not in which session."""

    async def change(self, session: str, change: str) -> SealedEntry | None:
        rows: Any = self._file.read.execute(
            "SELECT s.id FROM log AS l JOIN session AS s ON s.no = l.session WHERE l.change = ?", (change,)
        )
        return next(iter([await super(FindsAnybodysChange, self).change(row[0], change) for row in list(rows)]), None)


class TakesOldSnapshots(SqliteWarmStore):
    """Keeps whatever snapshot comes last."""

    async def snapshot(self, session: str, snapshot: Snapshot) -> None:
        def job(connection: apsw.Connection) -> None:
            number = connection.execute("SELECT no FROM session WHERE id = ?", (session,)).get
            keep_items(connection, number, snapshot.step, snapshot.items)

        await self._file.write(job)


class MixesSnapshots(SqliteWarmStore):
    """Lays the items of a snapshot over those of the one before."""

    async def snapshot(self, session: str, snapshot: Snapshot) -> None:
        before = await self.items(session)
        over = {item.id: item for item in (*(before.items if before else ()), *snapshot.items)}
        await super().snapshot(session, replace(snapshot, items=tuple(over.values())))


class ArchivesAnyStep(SqliteWarmStore):
    """Makes a stub of a session that has moved on."""

    async def archive(self, session: str, *, step: int, key: str) -> bool:
        head = await self.head(session)
        return await super().archive(session, step=step if head is None else head.step, key=key)


class LooksThenArchives(SqliteWarmStore):
    """Looks whether a session stands at a step, and makes a stub a little later, whatever has come in between."""

    async def archive(self, session: str, *, step: int, key: str) -> bool:
        head = await self.head(session)
        await asyncio.sleep(0.005)
        if head is None or head.step != step or head.archive is not None:
            return head is not None and head.archive == key

        def job(connection: apsw.Connection) -> bool:
            connection.execute("DELETE FROM log WHERE session = (SELECT no FROM session WHERE id = ?)", (session,))
            connection.execute("UPDATE session SET archive = ?, snapped = NULL WHERE id = ?", (key, session))
            return True

        return await self._file.write(job)


class ArchivesInTwoSteps(SqliteWarmStore):
    """Says where the log is a little before it is gone, and forgets the half of it before that."""

    async def archive(self, session: str, *, step: int, key: str) -> bool:
        await self._file.write(
            lambda connection: connection.execute(
                "DELETE FROM log WHERE step > ? AND session = (SELECT no FROM session WHERE id = ?)",
                (step // 2, session),
            )
        )
        await asyncio.sleep(0.005)
        return await super().archive(session, step=step, key=key)


class ForgetsTheAnswer(SqliteWarmStore):
    """Says of a stub that it made itself that somebody else did."""

    async def archive(self, session: str, *, step: int, key: str) -> bool:
        head = await self.head(session)
        return head is not None and head.archive is None and await super().archive(session, step=step, key=key)


class RestoresAnything(SqliteWarmStore):
    """Takes back what nobody has taken away."""

    async def restore(self, session: str, entries: Sequence[SealedEntry], snapshot: Snapshot, *, key: str) -> None:
        await self._file.write(partial(_stub, session=session, key=key))
        await super().restore(session, entries, snapshot, key=key)


def _stub(connection: apsw.Connection, *, session: str, key: str) -> None:
    connection.execute("UPDATE session SET archive = ? WHERE id = ? AND archive IS NULL", (key, session))


class NamesItselfAnew(SqliteWarmStore):
    """Another name for each who opens it."""

    async def identity(self) -> str:
        return f"{await super().identity()} {id(self)}"


class RestoresAnyArchive(SqliteWarmStore):
    """Asks not which object a stub is of."""

    async def restore(self, session: str, entries: Sequence[SealedEntry], snapshot: Snapshot, *, key: str) -> None:
        head = await self.head(session)
        await super().restore(session, entries, snapshot, key=key if head is None else head.archive or key)


class RestoresOverWhatCame(SqliteWarmStore):
    """Forgets what came to a stub."""

    async def restore(self, session: str, entries: Sequence[SealedEntry], snapshot: Snapshot, *, key: str) -> None:
        await self._file.write(
            lambda connection: connection.execute(
                "DELETE FROM log WHERE session = (SELECT no FROM session WHERE id = ? AND archive IS NOT NULL)",
                (session,),
            )
        )
        await super().restore(session, entries, snapshot, key=key)


class CountsStubsApart(SqliteWarmStore):
    """Counts as sessions those that are no stubs."""

    async def size(self) -> WarmSize:
        size = await super().size()
        return replace(size, sessions=size.sessions - size.archived)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (TakesTheOldestHead, "test_an_older_head_changes_nothing"),
        (TakesTheOldestHead, "test_entries_are_kept_in_any_order"),
        (broken_warm.AppendsOneByOne, "test_another_entry_at_a_step_is_refused_and_nothing_of_the_call_is_kept"),
        (broken_warm.AppendsOneByOne, "test_an_append_whose_caller_is_cancelled_is_awaited_to_its_outcome"),
        (PassesConflictsOver, "test_of_racing_entries_at_one_step_exactly_one_is_kept"),
        (PagesByTimeAlone, "test_pages_go_on_beyond_a_cursor_and_miss_none_of_one_creation_time"),
        (TakesLateMembers, "test_members_change_with_a_newer_head_and_no_other"),
        (broken_warm.SharesAcrossTenants, "test_a_principal_s_sessions_are_its_own_and_those_it_is_a_member_of"),
        (broken_warm.FillsNoRoom, "test_a_page_of_the_log_ends_with_the_entry_that_fills_its_room"),
        (broken_warm.NamesTheLastChange, "test_the_change_ids_of_a_log_are_read_up_to_a_step"),
        (CountsWhatIsGone, "test_sessions_under_way_are_counted_by_status_and_kind_over_all_tenants"),
        (BringsKeysBack, "test_the_data_key_is_kept_at_the_first_append_only"),
        (BringsKeysBack, "test_a_late_head_does_not_bring_back_a_key_that_was_replaced_or_destroyed"),
        (broken_warm.RewrapsWhateverIsThere, "test_a_wrapped_key_is_replaced_if_it_is_still_the_old_one"),
        (KeepsWhatIsLate, "test_of_what_comes_to_a_purged_session_only_the_hashes_are_kept"),
        (KeepsWhatIsLate, "test_a_purge_removes_the_content_and_leaves_head_and_headers"),
        (PurgesInTwoSteps, "test_a_purge_is_one_step"),
        (broken_warm.LooksThenRecords, "test_of_racing_lines_exactly_one_is_appended_at_each_number"),
        (RecordsEndsApart, "test_a_chain_and_its_end_are_of_one_moment"),
        (TakesPartedHeads, "test_another_head_at_the_same_step_is_refused"),
        (ForgetsWhen, "test_sessions_come_when_they_are_due_the_longest_due_first"),
        (broken_warm.DefersAnyStep, "test_a_session_is_deferred_if_it_still_stands_at_the_step"),
        (FindsAnybodysChange, "test_an_entry_is_found_by_its_change_id"),
        (TakesOldSnapshots, "test_an_older_snapshot_changes_nothing"),
        (TakesOldSnapshots, "test_of_racing_snapshots_the_newest_is_kept_whole"),
        (MixesSnapshots, "test_a_snapshot_is_kept_in_place_of_an_older_one_and_seen_by_all"),
        (KeepsWhatIsLate, "test_nothing_is_kept_of_a_session_that_is_not_there_or_is_purged"),
        (KeepsWhatIsLate, "test_of_snapshots_that_race_with_a_purge_none_is_left"),
        (ArchivesAnyStep, "test_what_stands_elsewhere_or_is_a_stub_is_not_archived_and_nothing_is_changed"),
        (ForgetsTheAnswer, "test_what_stands_elsewhere_or_is_a_stub_is_not_archived_and_nothing_is_changed"),
        (LooksThenArchives, "test_of_racing_archivers_exactly_one_makes_the_stub"),
        (LooksThenArchives, "test_of_a_stub_and_an_append_that_race_nothing_is_lost"),
        (ArchivesInTwoSteps, "test_making_a_stub_and_taking_it_back_are_one_step_each"),
        (RestoresAnything, "test_what_is_no_stub_takes_nothing_back"),
        (RestoresAnything, "test_of_a_stub_that_was_purged_nothing_is_taken_back"),
        (NamesItselfAnew, "test_all_who_open_a_store_know_it_by_one_name"),
        (RestoresAnyArchive, "test_a_stub_of_another_object_takes_nothing_back"),
        (RestoresOverWhatCame, "test_what_came_to_a_stub_stays_when_it_is_restored"),
        (broken_warm.RestoresInTwoSteps, "test_making_a_stub_and_taking_it_back_are_one_step_each"),
        (CountsStubsApart, "test_how_much_is_held_is_known"),
        (broken_warm.SendsLate, "test_closing_finishes_the_writes_already_sent"),
    ],
)
async def test_a_store_that_breaks_a_promise_fails_its_test(broken: type[WarmStore], test: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, HoldfastError)):
        await run(
            WarmStoreSuite, test, VALUES, connect=partial(on(SqliteWarmStore, broken).open, tmp_path / "broken.db")
        )
    await run(WarmStoreSuite, test, VALUES, connect=partial(SqliteWarmStore.open, tmp_path / "sound.db"))
