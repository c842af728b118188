"""The warm tier's suite has teeth: a store that breaks one promise fails the test that is named after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from holdfast.errors import AlreadyExistsError, HoldfastError
from holdfast.model.cursor import PageCursor
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead
from holdfast.ports.warm import AuditRow, Query
from holdfast.stores.sqlite_rows import keep_members
from holdfast.stores.warm.sqlite import SqliteWarmStore
from holdfast.testing.warm import WarmStoreSuite


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


class AppendsOneByOne(SqliteWarmStore):
    """Keeps each entry in a transaction of its own."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        for entry in entries:
            await super().append(replace(head, step=0), [entry])
        await super().append(head, [], members=members)


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


class SharesAcrossTenants(SqliteWarmStore):
    """Asks whose member a principal of that name is, and not in which tenant."""

    async def find(self, query: Query, *, after: PageCursor | None, limit: int) -> list[SealedHead]:
        return await super().find(replace(query, tenant=None) if query.member else query, after=after, limit=limit)


class FillsNoRoom(SqliteWarmStore):
    """Reads as many entries as are asked for, however large."""

    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        return await super().entries(session, after=after, limit=limit)


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


class RewrapsWhateverIsThere(SqliteWarmStore):
    """Does not look which key it replaces."""

    async def rewrap(self, session: str, *, old: bytes, new: bytes | None) -> bool:
        head = await self.head(session)
        return head is not None and await super().rewrap(session, old=head.key or b"", new=new)


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


class LooksThenRecords(SqliteWarmStore):
    """Looks where a chain ends, and appends a little later, whatever has come in between."""

    async def record(self, rows: Sequence[AuditRow], *, end: bytes) -> bool:
        ends = await self.chains()
        follows = rows[0].seq == (ends[rows[0].chain].seq if rows[0].chain in ends else 0) + 1
        await asyncio.sleep(0.005)
        return follows and (await super().record(rows, end=end) or True)


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


class SendsLate(SqliteWarmStore):
    """Has appends wait a moment before they are sent, and forgets them when it is closed."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        await asyncio.sleep(0.01)
        await super().append(head, entries, members=members)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (TakesTheOldestHead, "test_an_older_head_changes_nothing"),
        (TakesTheOldestHead, "test_entries_are_kept_in_any_order"),
        (AppendsOneByOne, "test_another_entry_at_a_step_is_refused_and_nothing_of_the_call_is_kept"),
        (AppendsOneByOne, "test_an_append_whose_caller_is_cancelled_is_awaited_to_its_outcome"),
        (PassesConflictsOver, "test_of_racing_entries_at_one_step_exactly_one_is_kept"),
        (PagesByTimeAlone, "test_pages_go_on_beyond_a_cursor_and_miss_none_of_one_creation_time"),
        (TakesLateMembers, "test_members_change_with_a_newer_head_and_no_other"),
        (SharesAcrossTenants, "test_a_principal_s_sessions_are_its_own_and_those_it_is_a_member_of"),
        (FillsNoRoom, "test_a_page_of_the_log_ends_with_the_entry_that_fills_its_room"),
        (CountsWhatIsGone, "test_sessions_under_way_are_counted_by_status_and_kind_over_all_tenants"),
        (BringsKeysBack, "test_the_data_key_is_kept_at_the_first_append_only"),
        (BringsKeysBack, "test_a_late_head_does_not_bring_back_a_key_that_was_replaced_or_destroyed"),
        (RewrapsWhateverIsThere, "test_a_wrapped_key_is_replaced_if_it_is_still_the_old_one"),
        (KeepsWhatIsLate, "test_of_what_comes_to_a_purged_session_only_the_hashes_are_kept"),
        (KeepsWhatIsLate, "test_a_purge_removes_the_content_and_leaves_head_and_headers"),
        (PurgesInTwoSteps, "test_a_purge_is_one_step"),
        (LooksThenRecords, "test_of_racing_lines_exactly_one_is_appended_at_each_number"),
        (RecordsEndsApart, "test_a_chain_and_its_end_are_of_one_moment"),
        (SendsLate, "test_closing_finishes_the_writes_already_sent"),
    ],
)
async def test_a_store_that_breaks_a_promise_fails_its_test(
    broken: type[SqliteWarmStore], test: str, tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, HoldfastError)):
        await run(broken, test, tmp_path / "broken.db")
    await run(SqliteWarmStore, test, tmp_path / "sound.db")


async def run(store: type[SqliteWarmStore], test: str, path: Path) -> None:
    """Run a test of the suite as pytest would."""
    method = getattr(WarmStoreSuite(), test)
    wanted = signature(method).parameters
    given: dict[str, Any] = {name: value for name, value in {"at": 1, "limit": 3}.items() if name in wanted}
    if "connect" in wanted:
        await method(connect=partial(store.open, path), **given)
        return
    pair = (store.open(path), store.open(path))
    try:
        await method(stores=pair, **given)
    finally:
        for handle in pair:
            await handle.close()
