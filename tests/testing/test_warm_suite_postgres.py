"""The warm tier's suite has teeth for PostgreSQL too: what can go wrong between two transactions is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest
from msgspec.structs import replace

from holdfast.drivers.postgres import Migration
from holdfast.errors import HoldfastError
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead
from holdfast.ports.warm import WarmStore
from holdfast.stores.warm.postgres import MIGRATIONS, PostgresWarmStore
from holdfast.testing import broken_warm
from holdfast.testing.broken_warm import on
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.teeth import otherwise, run
from holdfast.testing.warm import WarmStoreSuite

VALUES = {"at": 1, "limit": 3}


def edited(*edits: tuple[str, str]) -> list[Migration]:
    """The migrations with something else in place of something."""
    return [replace(MIGRATIONS[0], script=otherwise(MIGRATIONS[0].script, *edits)), *MIGRATIONS[1:]]


class TakesTheOldestHead(PostgresWarmStore):
    """Keeps whatever head comes last."""

    _migrations = edited(("ELSE excluded.step > s.step END", "ELSE true END"))


class PassesConflictsOver(PostgresWarmStore):
    """Takes another entry at a step for the same one."""

    _migrations = edited(("IF fresh < json_array_length(entries) THEN", "IF false THEN"))


class RefusesRepetitions(PostgresWarmStore):
    """Takes the same entry at a step for another one."""

    _migrations = edited(("WHERE kept.digest IS DISTINCT FROM", "WHERE '' IS DISTINCT FROM"))


class TakesLateMembers(PostgresWarmStore):
    """Keeps whatever members come last, with however old a head."""

    _migrations = edited((" AND h.id = ANY (taken)", ""), ("WHERE h.id = ANY (taken) AND", "WHERE"))


class KeepsFormerMembers(PostgresWarmStore):
    """Adds members, and takes none away."""

    _migrations = edited(("WHERE m.id = h.id AND", "WHERE false AND"))


class BringsKeysBack(PostgresWarmStore):
    """Takes the key that comes with a newer head."""

    _migrations = edited(("sealed = excluded.sealed", "sealed = excluded.sealed, key = excluded.key"))


class KeepsWhatIsLate(PostgresWarmStore):
    """Keeps the payloads that come after a purge."""

    _migrations = edited(("CASE WHEN s.purged THEN", "CASE WHEN false THEN"))


class KeepsLateMembers(PostgresWarmStore):
    """Lets a late head name members of a session that was purged."""

    _migrations = edited((" AND NOT s.purged", ""))


class PurgesWithoutWaiting(PostgresWarmStore):
    """Looks for the payloads before it waits for an append that is under way."""

    _migrations = edited(
        (
            "    SELECT purged INTO before FROM {schema}.session WHERE id = purging FOR UPDATE;\n",
            "    before := false;\n",
        ),
        ("    UPDATE {schema}.log SET payload", "    PERFORM pg_sleep(0.01); UPDATE {schema}.log SET payload"),
    )


class OrdersByLocale(PostgresWarmStore):
    """Leaves the order of names to the database's locale, or to another one."""

    _migrations = edited(('id        text COLLATE "C" PRIMARY KEY', 'id        text COLLATE "en-x-icu" PRIMARY KEY'))


class HashesTwice(PostgresWarmStore):
    """Purges what has been purged."""

    _migrations = edited(("IF NOT before THEN", "IF before IS NOT NULL THEN"))


class TakesPartedHeads(PostgresWarmStore):
    """Takes another history of as many steps for the same one."""

    _migrations = edited(("excluded.step = s.step AND excluded.digest <> s.digest", "false"))


class TakesAChangeTwice(PostgresWarmStore):
    """Keeps two entries under one change id."""

    _migrations = edited(("CREATE UNIQUE INDEX log_change", "CREATE INDEX log_change"))


class TakesOldSnapshots(PostgresWarmStore):
    """Keeps whatever snapshot comes last."""

    _migrations = edited(("        WHERE excluded.step >= kept.step;", "        ;"))


class SnapshotsThePurged(PostgresWarmStore):
    """Keeps items of a session that was purged."""

    _migrations = edited(("WHERE id = keeping AND NOT purged AND", "WHERE id = keeping AND"))


class SnapshotsWithoutWaiting(PostgresWarmStore):
    """Looks whether a session is purged, and keeps its items a little later, whatever has come in between."""

    _migrations = edited(
        (
            "WHERE id = keeping AND NOT purged AND archive IS NULL FOR UPDATE;",
            "WHERE id = keeping AND NOT purged AND archive IS NULL; PERFORM pg_sleep(CASE WHEN FOUND THEN 0.01 END);",
        ),
    )


class SnapshotsStubs(PostgresWarmStore):
    """Keeps items of a stub."""

    _migrations = edited(
        ("WHERE id = keeping AND NOT purged AND archive IS NULL FOR", "WHERE id = keeping AND NOT purged FOR")
    )


class LeavesItemsInAPurge(PostgresWarmStore):
    _migrations = edited(("    DELETE FROM {schema}.snapshot WHERE session = purging;\n", ""))


class LeavesStubsInAPurge(PostgresWarmStore):
    _migrations = edited(("due = NULL, archive = NULL, purged", "due = NULL, purged"))


class ArchivesAnyStep(PostgresWarmStore):
    """Makes a stub of a session that has moved on."""

    _migrations = edited(("WHERE id = archiving AND step = at AND NOT purged", "WHERE id = archiving AND NOT purged"))


class ArchivesStubs(PostgresWarmStore):
    """Makes a stub of a stub, whose object is then known to nobody."""

    _migrations = edited(("step = at AND NOT purged AND archive IS NULL;", "step = at AND NOT purged;"))


class ArchivesThePurged(PostgresWarmStore):
    _migrations = edited(("step = at AND NOT purged AND archive IS NULL;", "step = at AND archive IS NULL;"))


class LeavesTheLog(PostgresWarmStore):
    _migrations = edited(("    DELETE FROM {schema}.log WHERE session = archiving;\n", ""))


class LeavesTheItems(PostgresWarmStore):
    _migrations = edited(("    DELETE FROM {schema}.snapshot WHERE session = archiving;\n", ""))


class RestoresAnything(PostgresWarmStore):
    """Takes back what nobody has taken away."""

    _migrations = edited(("id = restoring AND archive = place FOR", "id = restoring FOR"))


class RestoresAnyArchive(PostgresWarmStore):
    """Asks not which object a stub is of."""

    _migrations = edited(("id = restoring AND archive = place FOR", "id = restoring AND archive IS NOT NULL FOR"))


class RestoresOverWhatCame(PostgresWarmStore):
    """Forgets what came to a stub."""

    _migrations = edited(
        (
            "        PERFORM {schema}.keep(entries, bytes);\n",
            "        DELETE FROM {schema}.log WHERE session = restoring; PERFORM {schema}.keep(entries, bytes);\n",
        )
    )


class RestoresNoItems(PostgresWarmStore):
    _migrations = edited(("        PERFORM {schema}.keep_items(restoring, snapped, packed);\n", ""))


class NumbersFromASequence(PostgresWarmStore):
    """Takes the number of a revocation as it comes; every other one is there to be read long after the next."""

    _migrations = edited(
        (
            "CREATE TABLE {schema}.revocation_last",
            "CREATE SEQUENCE {schema}.nos; CREATE TABLE {schema}.revocation_last",
        ),
        (
            "    UPDATE {schema}.revocation_last SET no = no + 1 RETURNING no INTO number;\n",
            "    number := nextval('{schema}.nos'); PERFORM pg_sleep(number % 2 / 4.0);\n",
        ),
    )


class RevokesWeaker(PostgresWarmStore):
    _migrations = edited(("greatest(r.until, excluded.until)", "excluded.until"))


class NeverForgetsRevocations(PostgresWarmStore):
    _migrations = edited(("    DELETE FROM {schema}.revocation WHERE until <= instant;\n", ""))


class LeavesWhoIsCancelled(PostgresWarmStore):
    """Lets a cancelled caller go, with what it sent on its way."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        await asyncio.shield(asyncio.ensure_future(super().append(head, entries, members=members)))


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (TakesTheOldestHead, "test_an_older_head_changes_nothing"),
        (TakesTheOldestHead, "test_entries_are_kept_in_any_order"),
        (PassesConflictsOver, "test_another_entry_at_a_step_is_refused_and_nothing_of_the_call_is_kept"),
        (PassesConflictsOver, "test_of_racing_entries_at_one_step_exactly_one_is_kept"),
        (RefusesRepetitions, "test_entries_that_are_there_already_change_nothing_any_number_of_times"),
        (broken_warm.AppendsOneByOne, "test_another_entry_at_a_step_is_refused_and_nothing_of_the_call_is_kept"),
        (TakesLateMembers, "test_members_change_with_a_newer_head_and_no_other"),
        (KeepsFormerMembers, "test_members_change_with_a_newer_head_and_no_other"),
        (broken_warm.SharesAcrossTenants, "test_a_principal_s_sessions_are_its_own_and_those_it_is_a_member_of"),
        (OrdersByLocale, "test_names_of_any_text_are_kept_apart_and_come_back"),
        (broken_warm.FillsNoRoom, "test_a_page_of_the_log_ends_with_the_entry_that_fills_its_room"),
        (broken_warm.NamesTheLastChange, "test_the_change_ids_of_a_log_are_read_up_to_a_step"),
        (BringsKeysBack, "test_the_data_key_is_kept_at_the_first_append_only"),
        (BringsKeysBack, "test_a_late_head_does_not_bring_back_a_key_that_was_replaced_or_destroyed"),
        (broken_warm.RewrapsWhateverIsThere, "test_a_wrapped_key_is_replaced_if_it_is_still_the_old_one"),
        (broken_warm.RewrapsWhateverIsThere, "test_of_racing_rewraps_exactly_one_succeeds"),
        (KeepsLateMembers, "test_of_what_comes_to_a_purged_session_only_the_hashes_are_kept"),
        (KeepsWhatIsLate, "test_of_what_comes_to_a_purged_session_only_the_hashes_are_kept"),
        (KeepsWhatIsLate, "test_of_appends_that_race_with_a_purge_no_payload_is_left"),
        (PurgesWithoutWaiting, "test_of_appends_that_race_with_a_purge_no_payload_is_left"),
        (HashesTwice, "test_a_purge_removes_the_content_and_leaves_head_and_headers"),
        (broken_warm.LooksThenRecords, "test_of_racing_lines_exactly_one_is_appended_at_each_number"),
        (TakesPartedHeads, "test_another_head_at_the_same_step_is_refused"),
        (TakesAChangeTwice, "test_a_change_id_stands_at_one_step_only"),
        (TakesOldSnapshots, "test_an_older_snapshot_changes_nothing"),
        (TakesOldSnapshots, "test_of_racing_snapshots_the_newest_is_kept_whole"),
        (SnapshotsThePurged, "test_nothing_is_kept_of_a_session_that_is_not_there_or_is_purged"),
        (SnapshotsWithoutWaiting, "test_of_snapshots_that_race_with_a_purge_none_is_left"),
        (SnapshotsStubs, "test_a_snapshot_that_comes_to_a_stub_is_not_kept"),
        (LeavesItemsInAPurge, "test_nothing_is_kept_of_a_session_that_is_not_there_or_is_purged"),
        (LeavesStubsInAPurge, "test_of_a_stub_that_was_purged_nothing_is_taken_back"),
        (ArchivesAnyStep, "test_what_stands_elsewhere_or_is_a_stub_is_not_archived_and_nothing_is_changed"),
        (ArchivesStubs, "test_what_stands_elsewhere_or_is_a_stub_is_not_archived_and_nothing_is_changed"),
        (ArchivesStubs, "test_of_racing_archivers_exactly_one_makes_the_stub"),
        (ArchivesThePurged, "test_what_stands_elsewhere_or_is_a_stub_is_not_archived_and_nothing_is_changed"),
        (LeavesTheLog, "test_of_a_stub_there_is_the_head_and_where_the_rest_is"),
        (LeavesTheItems, "test_of_a_stub_there_is_the_head_and_where_the_rest_is"),
        (RestoresAnything, "test_what_is_no_stub_takes_nothing_back"),
        (RestoresAnyArchive, "test_a_stub_of_another_object_takes_nothing_back"),
        (RestoresOverWhatCame, "test_what_came_to_a_stub_stays_when_it_is_restored"),
        (RestoresNoItems, "test_a_stub_that_is_restored_is_what_it_was"),
        (broken_warm.RestoresInTwoSteps, "test_making_a_stub_and_taking_it_back_are_one_step_each"),
        (broken_warm.DefersAnyStep, "test_a_session_is_deferred_if_it_still_stands_at_the_step"),
        (NumbersFromASequence, "test_of_racing_revocations_none_is_lost_and_every_reader_sees_each"),
        (RevokesWeaker, "test_of_two_for_the_same_the_later_times_stand"),
        (NeverForgetsRevocations, "test_a_revocation_that_has_lapsed_is_not_read_and_is_forgotten"),
        (broken_warm.SendsLate, "test_closing_finishes_the_writes_already_sent"),
        (LeavesWhoIsCancelled, "test_an_append_whose_caller_is_cancelled_is_awaited_to_its_outcome"),
    ],
)
async def test_a_store_that_breaks_a_promise_fails_its_test(
    broken: type[WarmStore], test: str, postgres: PostgresServer
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, HoldfastError)):
        await run(
            WarmStoreSuite, test, VALUES, connect=partial(on(PostgresWarmStore, broken).open, postgres.fresh_url())
        )
    await run(WarmStoreSuite, test, VALUES, connect=partial(PostgresWarmStore.open, postgres.fresh_url()))
