"""The part of the warm tier's suite about revocations has teeth: a store that breaks a promise fails its test."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace

from holdfast.errors import HoldfastError
from holdfast.model.revocation import Revocation
from holdfast.stores.warm.sqlite import SqliteWarmStore
from holdfast.testing.teeth import run
from holdfast.testing.warm import WarmStoreSuite

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class LastWins(SqliteWarmStore):
    """Keeps the revocation it was told of last, be it the weaker one."""

    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        await self._file.write(
            lambda connection: connection.execute(
                "DELETE FROM revocation WHERE tenant = ? AND token = ? AND principal = ?",
                (revocation.tenant, revocation.token, revocation.principal),
            )
        )
        return await super().revoke(revocation, now=now)


class KeepsItToItself(SqliteWarmStore):
    """Writes it down only on closing."""

    _made: tuple[Revocation, ...] = ()

    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        self._made += (revocation,)
        return revocation

    async def revoked(self, *, after: int, now: datetime) -> tuple[list[Revocation], int]:
        return list(self._made[after:]), len(self._made)


class LeavesChangesUnnumbered(SqliteWarmStore):
    """A revocation that becomes stronger keeps its number, so that readers do not see it again."""

    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        before, _ = await super().revoked(after=0, now=LONG_AGO)
        about = (revocation.tenant, revocation.token, revocation.principal)
        if not any((one.tenant, one.token, one.principal) == about for one in before):
            return await super().revoke(revocation, now=now)
        await self._file.write(
            lambda connection: connection.execute(
                "UPDATE revocation SET until = ? WHERE tenant = ? AND token = ? AND principal = ?",
                (revocation.until, *about),
            )
        )
        return revocation


class CountsFromOneAgain(SqliteWarmStore):
    """Gives the number of what has lapsed to the next."""

    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        def forget(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM revocation WHERE until <= ?", (now.timestamp(),))
            connection.execute("UPDATE sqlite_sequence SET seq = (SELECT coalesce(max(no), 0) FROM revocation)")

        await self._file.write(forget)
        return await super().revoke(revocation, now=now)


class NeverForgets(SqliteWarmStore):
    """Merges with what has lapsed, and tells of it."""

    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        return await super().revoke(revocation, now=LONG_AGO)


class ReadsLapsed(SqliteWarmStore):
    async def revoked(self, *, after: int, now: datetime) -> tuple[list[Revocation], int]:
        return await super().revoked(after=after, now=LONG_AGO)


class FoldsCase(SqliteWarmStore):
    """Takes names for the same that differ in case."""

    async def revoke(self, revocation: Revocation, *, now: datetime) -> Revocation:
        await super().revoke(replace(revocation, token=revocation.token.lower()), now=now)
        return revocation


class SkipsAhead(SqliteWarmStore):
    """Gives a number that is beyond what was read."""

    async def revoked(self, *, after: int, now: datetime) -> tuple[list[Revocation], int]:
        found, number = await super().revoked(after=after, now=now)
        return found, number + len(found)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (LastWins, "test_of_two_for_the_same_the_later_times_stand"),
        (KeepsItToItself, "test_a_read_that_starts_after_revoke_returned_sees_that_revocation"),
        (KeepsItToItself, "test_a_revocation_outlives_the_store"),
        (LeavesChangesUnnumbered, "test_after_a_number_only_what_is_new_or_changed_is_read"),
        (CountsFromOneAgain, "test_numbers_are_not_given_again_once_all_has_lapsed"),
        (NeverForgets, "test_a_revocation_that_has_lapsed_is_not_read_and_is_forgotten"),
        (ReadsLapsed, "test_a_revocation_that_has_lapsed_is_not_read_and_is_forgotten"),
        (FoldsCase, "test_tokens_principals_and_tenants_do_not_touch_each_other"),
        (SkipsAhead, "test_a_read_that_starts_after_revoke_returned_sees_that_revocation"),
    ],
)
async def test_a_store_that_breaks_a_promise_fails_its_test(
    broken: type[SqliteWarmStore], test: str, tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, HoldfastError)):
        await run(WarmStoreSuite, test, connect=partial(broken.open, tmp_path / "broken.db"))
    await run(WarmStoreSuite, test, connect=partial(SqliteWarmStore.open, tmp_path / "sound.db"))
