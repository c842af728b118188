"""The suite for adapters of the cold tier: every sentence of ``ports/cold.py`` has its test here."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from holdfast.errors import AlreadyExistsError, InvalidError
from holdfast.ports.cold import ColdStore
from holdfast.testing.handles import Connecting, Handles, opened

Connect = Connecting[ColdStore]


class ColdStoreSuite(Handles[ColdStore]):
    """Subclass it and give ``connect``: called twice, it gives two connections to the same, at first empty, data."""

    @pytest.mark.parametrize("size", [0, 1, 4_096, 5_000_000, 20_000_001])
    async def test_an_object_is_kept_whole_and_seen_by_all(self, stores: Any, size: int) -> None:
        one, other = stores
        data = hashlib.shake_256(b"%d" % size).digest(size)
        await one.put("blobs/ab/abcd", data)
        assert await one.get("blobs/ab/abcd") == data
        assert await other.get("blobs/ab/abcd") == data

    async def test_an_object_outlives_the_store_that_put_it(self, connect: Connect) -> None:
        first = await opened(connect)
        await first.put("blobs/ab/abcd", b"kept")
        await first.close()
        second = await opened(connect)
        assert await second.get("blobs/ab/abcd") == b"kept"
        await second.close()

    async def test_an_object_is_never_seen_half_written(self, stores: Any) -> None:
        one, other = stores
        data = {f"blobs/{n}": hashlib.shake_256(b"%d" % n).digest(3_000_000) for n in range(4)}
        writing = asyncio.ensure_future(asyncio.gather(*(one.put(key, whole) for key, whole in data.items())))
        looks = 0
        while not writing.done() or looks == 0:
            for key, whole in data.items():
                assert await other.get(key) in (None, whole)
                looks += 1
        await writing
        for key, whole in data.items():
            assert await other.get(key) == whole

    async def test_the_same_object_again_changes_nothing(self, stores: Any) -> None:
        one, other = stores
        await one.put("blobs/ab/abcd", b"once")
        await one.put("blobs/ab/abcd", b"once")
        await other.put("blobs/ab/abcd", b"once")
        assert await one.get("blobs/ab/abcd") == b"once"
        assert [key async for key in one.keys("blobs/")] == ["blobs/ab/abcd"]

    @pytest.mark.parametrize("another", [b"another", b"firs", b"first!", b""])
    async def test_another_object_under_a_key_is_refused_and_the_first_is_left(
        self, stores: Any, another: bytes
    ) -> None:
        one, other = stores
        await one.put("blobs/ab/abcd", b"first")
        with pytest.raises(AlreadyExistsError):
            await other.put("blobs/ab/abcd", another)
        assert await one.get("blobs/ab/abcd") == b"first"
        assert [key async for key in one.keys("blobs/")] == ["blobs/ab/abcd"]

    async def test_of_racing_objects_under_one_key_exactly_one_is_kept(self, stores: Any) -> None:
        for number in range(10):
            key = f"race/{number}"
            racers = [b"%d " % racer * 5_000 for racer in range(16)]
            outcomes = await asyncio.gather(
                *(stores[racer % 2].put(key, data) for racer, data in enumerate(racers)), return_exceptions=True
            )
            won = [data for data, outcome in zip(racers, outcomes, strict=True) if outcome is None]
            assert len(won) == 1
            assert sum(isinstance(outcome, AlreadyExistsError) for outcome in outcomes) == 15
            assert await stores[0].get(key) == await stores[1].get(key) == won[0]

    async def test_racing_puts_of_the_same_object_all_succeed(self, stores: Any) -> None:
        data = b"the same" * 1_000
        await asyncio.gather(*(stores[racer % 2].put("race/same", data) for racer in range(16)))
        assert await stores[0].get("race/same") == data

    async def test_a_large_object_again_changes_nothing_and_another_is_refused(self, stores: Any) -> None:
        one, other = stores
        first, second = large(1), large(2)
        await one.put("blobs/ab/abcd", first)
        await other.put("blobs/ab/abcd", first)
        for another in (second, first[:-1], b"small"):
            with pytest.raises(AlreadyExistsError):
                await other.put("blobs/ab/abcd", another)
        await one.put("blobs/ab/small", b"small")
        with pytest.raises(AlreadyExistsError):
            await other.put("blobs/ab/small", first)
        assert await one.get("blobs/ab/abcd") == first
        assert await one.get("blobs/ab/small") == b"small"
        assert {key async for key in one.keys("blobs/")} == {"blobs/ab/abcd", "blobs/ab/small"}

    async def test_of_racing_large_objects_exactly_one_is_kept(self, stores: Any) -> None:
        racers = [large(racer) for racer in range(4)]
        outcomes = await asyncio.gather(
            *(stores[racer % 2].put("race/large", data) for racer, data in enumerate(racers)), return_exceptions=True
        )
        won = [data for data, outcome in zip(racers, outcomes, strict=True) if outcome is None]
        assert len(won) == 1
        assert sum(isinstance(outcome, AlreadyExistsError) for outcome in outcomes) == 3
        assert await stores[0].get("race/large") == await stores[1].get("race/large") == won[0]

    async def test_no_refusal_shows_a_key_or_content(self, stores: Any) -> None:
        await stores[0].put("blobs/ab/abcd", b"the content")
        with pytest.raises(AlreadyExistsError) as caught:
            await stores[1].put("blobs/ab/abcd", b"the other")
        assert not [word for word in ("blobs", "abcd", "the content", "the other") if word in str(caught.value)]

    async def test_an_object_that_is_not_there_is_none(self, stores: Any) -> None:
        assert await stores[0].get("blobs/ab/abcd") is None

    async def test_a_removed_object_is_gone_for_all_and_its_key_is_free(self, stores: Any) -> None:
        one, other = stores
        await one.put("blobs/ab/abcd", b"first")
        await one.put("blobs/ab/abce", b"stays")
        await other.delete("blobs/ab/abcd")
        assert await one.get("blobs/ab/abcd") is None
        assert [key async for key in one.keys("blobs/")] == ["blobs/ab/abce"]
        await one.put("blobs/ab/abcd", b"second")
        assert await other.get("blobs/ab/abcd") == b"second"

    async def test_removing_what_is_not_there_is_no_error(self, stores: Any) -> None:
        await stores[0].delete("blobs/ab/abcd")
        await stores[0].put("blobs/ab/abcd", b"")
        await stores[0].delete("blobs/ab/abcd")
        await stores[1].delete("blobs/ab/abcd")
        assert await stores[0].get("blobs/ab/abcd") is None

    async def test_every_key_under_a_prefix_is_listed_and_no_other(self, stores: Any) -> None:
        one, other = stores
        wanted = {f"blobs/{number % 7}/{number:04}" for number in range(150)}
        elsewhere = {"blob/1", "blobsy/1", "bundles/a/b"}
        await asyncio.gather(*(one.put(key, key.encode()) for key in wanted | elsewhere))
        listed = [key async for key in other.keys("blobs/")]
        assert len(listed) == len(set(listed))
        assert set(listed) == wanted
        assert {key async for key in other.keys("blobs/3/")} == {key for key in wanted if key.startswith("blobs/3/")}
        assert [key async for key in other.keys("nothing/")] == []

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "/etc/passwd",
            "../out",
            "a/../../out",
            "a//b",
            "a/./b",
            "a/",
            ".hidden",
            "a/.staging/b",
            "a\\b",
            "a\0b",
            "ü",
        ],
    )
    async def test_a_key_that_could_lead_elsewhere_is_refused(self, stores: Any, key: str) -> None:
        store = stores[0]
        with pytest.raises(InvalidError):
            await store.put(key, b"data")
        with pytest.raises(InvalidError):
            await store.get(key)
        with pytest.raises(InvalidError):
            await store.delete(key)
        with pytest.raises(InvalidError):
            [found async for found in store.keys(f"{key}/")]

    async def test_a_prefix_ends_in_a_slash(self, stores: Any) -> None:
        with pytest.raises(InvalidError):
            [found async for found in stores[0].keys("blobs")]

    async def test_a_store_can_be_closed_twice(self, connect: Connect) -> None:
        store = await opened(connect)
        await store.close()
        await store.close()


def large(number: int) -> bytes:
    """Bytes that no adapter would send in one piece, others for each number."""
    return hashlib.shake_256(b"large %d" % number).digest(1 << 20) * 17
