"""The cold tier's suite has teeth: a store that breaks a promise fails the test of that promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError as ObjectExists
from obstore.store import MemoryStore

from holdfast.errors import AlreadyExistsError, HoldfastError, InvalidError
from holdfast.stores.cold.objects import ObjectColdStore
from holdfast.testing.cold import ColdStoreSuite
from holdfast.testing.teeth import run

VALUES = {"size": 20_000_001, "another": b"another", "key": "ü"}


class Overwrites(ObjectColdStore):
    """Puts an object wherever it is told to."""

    async def put(self, key: str, data: bytes) -> None:
        await self.get(key)  # checks the key
        await obstore.put_async(self._store, key, data)


class LooksThenPuts(ObjectColdStore):
    """Looks whether the key is free, and puts a little later, whatever has come in between."""

    async def put(self, key: str, data: bytes) -> None:
        kept = await self.get(key)
        if kept not in (None, data):
            raise AlreadyExistsError("Another object")
        await asyncio.sleep(0.005)
        await obstore.put_async(self._store, key, data)


class RefusesRepetitions(ObjectColdStore):
    """Takes the same object for another one."""

    async def _put(self, key: str, data: bytes) -> None:
        try:
            await obstore.put_async(self._store, key, data, mode="create")
        except ObjectExists:
            raise AlreadyExistsError("An object") from None


class PassesConflictsOver(ObjectColdStore):
    """Takes another object for the same one."""

    async def put(self, key: str, data: bytes) -> None:
        try:
            await super().put(key, data)
        except AlreadyExistsError:
            return


class ComparesSizes(ObjectColdStore):
    """Takes another object of the same size for the same one."""

    async def put(self, key: str, data: bytes) -> None:
        try:
            await super().put(key, data)
        except AlreadyExistsError:
            kept = await self.get(key)
            if kept is None or len(kept) != len(data):
                raise


class OverwritesTheLarge(Overwrites):
    """Sends large objects in parts, which obstore sends without a condition."""

    async def put(self, key: str, data: bytes) -> None:
        await (super().put(key, data) if len(data) > 16 << 20 else ObjectColdStore.put(self, key, data))


class ShowsHalf(ObjectColdStore):
    """Gives an object its name before it is whole."""

    async def put(self, key: str, data: bytes) -> None:
        await obstore.put_async(self._store, key, data[: len(data) // 2])
        await asyncio.sleep(0.005)
        await obstore.put_async(self._store, key, data)


class KeepsTheBeginning(ObjectColdStore):
    """Keeps no more of an object than goes into one part."""

    async def put(self, key: str, data: bytes) -> None:
        await super().put(key, data[: 5 << 20])


class KeepsForItself(ObjectColdStore):
    """Keeps what it was given where only it finds it."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(MemoryStore())


class MissesWhatIsGone(ObjectColdStore):
    """Takes the removal of what is not there for an error."""

    async def delete(self, key: str) -> None:
        if await self.get(key) is None:
            raise AlreadyExistsError("Nothing")
        await super().delete(key)


class KeepsWhatIsRemoved(ObjectColdStore):
    """Removes nothing."""

    async def delete(self, key: str) -> None:
        await self.get(key)


class ListsTheFirst(ObjectColdStore):
    """Gives the first page of a listing for all of it."""

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        number = 0
        async for key in super().keys(prefix):
            number += 1
            if number <= 100:
                yield key


class ListsByLetters(ObjectColdStore):
    """Takes a prefix for letters, and not for names."""

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        if not prefix.endswith("/"):
            raise InvalidError("no slash")
        async for page in obstore.list(self._store):
            for found in page:
                if found["path"].startswith(prefix[:-1]):
                    yield found["path"]


class TakesAnyKey(ObjectColdStore):
    """Leaves it to obstore what a key is."""

    async def get(self, key: str) -> bytes | None:
        try:
            return bytes((await obstore.get_async(self._store, key)).bytes())
        except FileNotFoundError:
            return None


class ShowsKeys(ObjectColdStore):
    """Names the key in its refusals."""

    async def put(self, key: str, data: bytes) -> None:
        try:
            await super().put(key, data)
        except AlreadyExistsError:
            raise AlreadyExistsError(key) from None


class ClosesOnce(ObjectColdStore):
    """Cannot be closed again."""

    async def close(self) -> None:
        del self._store


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Overwrites, "test_another_object_under_a_key_is_refused_and_the_first_is_left"),
        (OverwritesTheLarge, "test_a_large_object_again_changes_nothing_and_another_is_refused"),
        (OverwritesTheLarge, "test_of_racing_large_objects_exactly_one_is_kept"),
        (PassesConflictsOver, "test_another_object_under_a_key_is_refused_and_the_first_is_left"),
        (ComparesSizes, "test_of_racing_objects_under_one_key_exactly_one_is_kept"),
        (LooksThenPuts, "test_of_racing_objects_under_one_key_exactly_one_is_kept"),
        (LooksThenPuts, "test_of_racing_large_objects_exactly_one_is_kept"),
        (RefusesRepetitions, "test_the_same_object_again_changes_nothing"),
        (RefusesRepetitions, "test_racing_puts_of_the_same_object_all_succeed"),
        (ShowsHalf, "test_an_object_is_never_seen_half_written"),
        (KeepsTheBeginning, "test_an_object_is_kept_whole_and_seen_by_all"),
        (KeepsForItself, "test_an_object_is_kept_whole_and_seen_by_all"),
        (KeepsForItself, "test_an_object_outlives_the_store_that_put_it"),
        (MissesWhatIsGone, "test_removing_what_is_not_there_is_no_error"),
        (KeepsWhatIsRemoved, "test_a_removed_object_is_gone_for_all_and_its_key_is_free"),
        (ListsTheFirst, "test_every_key_under_a_prefix_is_listed_and_no_other"),
        (ListsByLetters, "test_every_key_under_a_prefix_is_listed_and_no_other"),
        (TakesAnyKey, "test_a_key_that_could_lead_elsewhere_is_refused"),
        (ShowsKeys, "test_no_refusal_shows_a_key_or_content"),
        (ClosesOnce, "test_a_store_can_be_closed_twice"),
    ],
)
async def test_a_store_that_breaks_a_promise_fails_its_test(broken: type[ObjectColdStore], test: str) -> None:
    with pytest.raises((AssertionError, AttributeError, pytest.fail.Exception, HoldfastError)):
        await run(ColdStoreSuite, test, VALUES, connect=partial(broken, MemoryStore()))
    await run(ColdStoreSuite, test, VALUES, connect=partial(ObjectColdStore, MemoryStore()))
