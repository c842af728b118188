"""R15: a session goes to the cold tier whole, and comes back with identical bytes and history; until what was written
has been read back, the warm copy stays. ``HOLDFAST_TEST_ARCHIVES`` says how many round trips (10 here).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.compose import open_engine
from holdfast.engine.archiving import Archiving
from holdfast.engine.engine import Engine
from holdfast.errors import (
    HoldfastError,
    IntegrityError,
    SessionGoneError,
    StoreUnavailableError,
    TamperedError,
)
from holdfast.model.session import Tier
from holdfast.settings import Settings
from holdfast.testing.broken import Around
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer
from holdfast.testing.tiers import ANA, ROOT, Apart, Tripping, around, log, make, put, sound, stepping

TRIPS = int(os.environ.get("HOLDFAST_TEST_ARCHIVES", "10"))

Open = Callable[[], contextlib.AbstractAsyncContextManager[Engine]]


@pytest.fixture(params=["embedded", "apart"])
async def opening(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens engines on a home nobody has used, with the tiers in one file or apart."""
    if request.param == "embedded":
        yield lambda: open_engine(Settings(home=tmp_path / "home"))
        return
    redis: RedisServer = request.getfixturevalue("redis")
    postgres: PostgresServer = request.getfixturevalue("postgres")
    async with Apart.on(tmp_path / "home", redis, postgres) as tiers:
        yield lambda: open_engine(tiers.direct)


def objects(home: Path, session: str) -> list[Path]:
    """The files of a session in the cold tier."""
    return sorted(path for path in (home / "cold").rglob("*") if path.is_file() and session in path.parts)


async def is_stub(engine: Engine, session: str) -> bool:
    """Whether nothing of a session but its head is above the cold tier."""
    hot, warm = await engine._journal.hot.head(session), await engine._journal.warm.head(session)
    assert warm is not None
    if warm.archive is None:
        return False
    assert hot is None or hot.archive is not None
    assert not await engine._journal.warm.entries(session, after=0, limit=10)
    assert not await engine._journal.hot.entries(session, after=0, limit=10)
    return True


async def whole(engine: Engine, session: str) -> Any:
    return await engine.export(session, ANA), await log(engine, session)


# -- there and back ----------------------------------------------------------------------------------------------------


async def test_r15_a_session_comes_back_with_identical_bytes_and_history(opening: Open, tmp_path: Path) -> None:
    async with opening() as engine, opening() as other:
        session = await make(engine, 25, items=5)
        await engine.label(session, ANA, "good", version=3)
        version = 26
        for trip in range(TRIPS):
            version = await put(engine, session, f"trip {trip}", expected=version)
            if trip % 3 == 0:
                version = (await engine.undo(session, ANA, expected=version)).version
            was = await whole(engine, session)
            assert (await engine.archive(session, ANA)).tier is Tier.ARCHIVED
            assert await is_stub(other, session)
            assert objects(tmp_path / "home", session)
            assert [one.id for one in (await other.find(ANA, tier=Tier.ARCHIVED)).headers] == [session]
            if trip % 4 == 0:
                assert not await sound(engine)
                assert await is_stub(engine, session)  # to verify it does not bring it back
            assert await whole(other if trip % 2 else engine, session) == was
            assert not objects(tmp_path / "home", session)
        assert not await sound(engine)
    print(f"R15 round trips={TRIPS}")


async def test_an_archive_asked_for_twice_is_one(opening: Open) -> None:
    async with opening() as engine:
        session = await make(engine, 3)
        await engine.archive(session, ANA)
        await engine.archive(session, ANA)  # it is brought back for the asking, and goes again
        assert await is_stub(engine, session)
        assert (await engine.read(session, ANA)).header.version == 4


async def test_several_who_archive_a_session_at_once_make_one_archive(opening: Open, tmp_path: Path) -> None:
    async with opening() as engine, opening() as other:
        session = await make(engine, 30)
        was = await whole(engine, session)
        for _ in range(10):
            made = await asyncio.gather(*((engine, other)[n % 2]._tiering.archive(session) for n in range(4)))
            assert {one.header.tier for one in made} == {Tier.ARCHIVED}
            assert await is_stub(other, session)
            assert len(objects(tmp_path / "home", session)) == 3
            assert await whole(engine, session) == was
        assert not await sound(engine)


async def test_a_large_session_is_archived_in_parts(opening: Open, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("holdfast.engine.archiving.ROOM", 3_000)
    async with opening() as engine:
        session = await make(engine, 40, items=30, text="x" * 200)
        was = await whole(engine, session)
        await engine.archive(session, ANA)
        assert len(objects(tmp_path / "home", session)) > 6
        assert await whole(engine, session) == was
        assert not objects(tmp_path / "home", session)


async def test_keys_rotate_for_a_session_in_the_cold_tier(opening: Open) -> None:
    async with opening() as engine:
        session = await make(engine, 5)
        was = await whole(engine, session)
        await engine.archive(session, ANA)
        rotated = await engine.rotate_keys(ROOT, drop=True)
        assert rotated.dropped
        assert await is_stub(engine, session)
    async with opening() as other:
        assert await whole(other, session) == was
        assert not await sound(other)


async def test_what_is_discarded_from_the_cold_tier_leaves_no_object(opening: Open, tmp_path: Path) -> None:
    async with opening() as engine:
        session = await make(engine, 5)
        await engine.archive(session, ANA)
        assert objects(tmp_path / "home", session)
        header = await engine.discard(session, ANA)
        assert (await engine.archive(session, ANA)).tier is Tier.ARCHIVED  # within its grace it may rest there too
        opened = await engine._journal.open(session)
        assert opened.header.status == header.status
        await engine._retaining.purge(opened)
        assert not objects(tmp_path / "home", session)
        with pytest.raises(SessionGoneError):
            await engine.read(session, ANA)
        assert not await sound(engine)


# -- at each step ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["archive", "restore", "suspend"])
async def test_r15_a_store_that_fails_at_any_step_leaves_the_session_whole(verb: str, opening: Open) -> None:
    tripping = Tripping(("hot", "warm", "cold"))
    with stepping(tripping.passed):
        tripping.arm(None)
        async with opening() as engine, opening() as other:
            session = await make(engine, 30)
            was = await whole(engine, session)
            nth, failed, steps = 0, 0, set[str]()
            while True:
                nth += 1
                if verb == "restore":
                    await engine.archive(session, ANA)
                tripping.arm(nth)
                done = False
                with contextlib.suppress(StoreUnavailableError):
                    if verb == "archive":
                        await engine._tiering.archive(session)
                    elif verb == "suspend":
                        await engine._tiering.rest(session)
                    else:
                        await engine._journal.load(session)
                    done = True
                tripped = len(tripping.steps) >= nth
                steps.update(tripping.steps[nth - 1 : nth])
                tripping.arm(None)
                failed += not done
                assert await whole(other if nth % 2 else engine, session) == was
                if not tripped:
                    break
            assert not await sound(engine)
    print(f"R15 {verb}: failed at {failed} steps of {sorted(steps)}")
    assert done
    if verb != "suspend":
        assert {"before cold.get", "after cold.get", f"before warm.{verb}", f"after warm.{verb}"} <= steps


class Between(Around):
    """At the n-th call of one verb something else happens, once, before whoever called goes on; or before the call."""

    def __init__(
        self, store: Any, verb: str, nth: int, happens: Callable[[], Awaitable[None]], *, before: bool = False
    ) -> None:
        super().__init__(store)
        self._verb, self._left, self._happens, self._before = verb, nth, happens, before

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name != self._verb:
            return method

        async def call(*given: Any, **more: Any) -> Any:
            if self._before and self._is_it():
                await self._happens()
            answer = await method(*given, **more)
            if not self._before and self._is_it():
                await self._happens()
            return answer

        return call

    def _is_it(self) -> bool:
        self._left -= 1
        return self._left == 0


async def anew(engine: Engine, session: str) -> None:
    """Somebody writes to a session in the cold tier, which then goes there again."""
    await put(engine, session, "later", expected=11)
    await engine.archive(session, ANA)


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_r15_an_archive_that_is_restored_and_made_anew_while_it_is_read_is_read_anew(
    nth: int, opening: Open
) -> None:
    async with opening() as engine:
        session = await make(engine, 10)
        await engine.archive(session, ANA)
        meanwhile = partial(anew, engine, session)
        with around(lambda store, tier: Between(store, "get", nth, meanwhile) if tier == "cold" else store):
            async with opening() as slow:
                assert (await slow.read(session, ANA)).header.version == 12
                assert [entry.version for entry in await log(slow, session)] == list(range(1, 13))
                assert await put(slow, session, "and later", expected=12) == 13
        assert not await sound(engine)


@pytest.mark.parametrize("verb", ["history", "read", "undo"])
async def test_who_reads_a_session_while_it_goes_to_the_cold_tier_is_served(verb: str, opening: Open) -> None:
    async with opening() as engine:
        session = await make(engine, 30)

        async def meanwhile() -> None:
            await engine.archive(session, ANA)

        for step in ("head", "recent", "at", "load"):
            with around(lambda store, tier, step=step: Between(store, step, 1, meanwhile) if tier == "hot" else store):  # type: ignore[misc]
                async with opening() as slow:
                    if verb == "history":
                        assert len(await log(slow, session)) >= 31
                    elif verb == "read":
                        assert (await slow.read(session, ANA, version=5)).get("chunks/1") is not None
                    else:
                        version = (await slow.header(session, ANA)).version
                        assert (await slow.undo(session, ANA, expected=version)).version == version + 1
        assert not await sound(engine)


# -- what the cold tier does to it -------------------------------------------------------------------------------------


class Spoiling(Around):
    """A cold store that keeps other bytes than it was given: cut short, altered, or none."""

    def __init__(self, store: Any, how: str) -> None:
        super().__init__(store)
        self.how = how

    async def put(self, key: str, data: bytes) -> None:
        if self.how == "cut":
            data = data[:-7]
        elif self.how == "altered":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if self.how != "nothing":
            await self._store.put(key, data)  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["cut", "altered", "nothing"])
async def test_r15_what_is_not_read_back_as_it_was_written_makes_no_stub(how: str, opening: Open) -> None:
    async with opening() as engine:
        session = await make(engine, 10)
        was = await whole(engine, session)
        with around(lambda store, tier: Spoiling(store, how) if tier == "cold" else store):
            async with opening() as spoilt:
                with pytest.raises(TamperedError):
                    await spoilt.archive(session, ANA)
                assert not await is_stub(engine, session)
        assert await whole(engine, session) == was


async def test_teeth_an_archive_that_is_not_read_back_is_caught(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opening() as engine:
        session = await make(engine, 10)
        rows = (await engine._journal.hot.load(session))[1]  # type: ignore[index]

        async def believed(self: Archiving, opened: Any, name: str) -> Any:
            from holdfast.ports.warm import Snapshot

            return [], Snapshot(0, tuple(rows))

        with (
            around(lambda store, tier: Spoiling(store, "cut") if tier == "cold" else store),
            monkeypatch.context() as broken,
        ):
            broken.setattr(Archiving, "read", believed)
            async with opening() as spoilt:
                with contextlib.suppress(HoldfastError):
                    await spoilt.archive(session, ANA)
        with pytest.raises(IntegrityError):
            await engine.read(session, ANA)


@pytest.mark.parametrize("how", ["cut", "altered", "missing", "swapped"])
async def test_r15_a_spoilt_archive_is_told_of_and_is_whole_once_it_is_put_right(
    how: str, opening: Open, tmp_path: Path
) -> None:
    async with opening() as engine:
        session, well, third = await make(engine, 10), await make(engine, 3), await make(engine)
        was = await whole(engine, session)
        for one in (session, well):
            await engine.archive(one, ANA)
        files = objects(tmp_path / "home", session)
        assert len(files) == 3  # a part of the log, a part of the items, and the one that names both
        for number, file in enumerate(files):
            kept = file.read_bytes()
            if how == "cut":
                file.write_bytes(kept[:-7])
            elif how == "altered":
                file.write_bytes(kept[:20] + bytes([kept[20] ^ 1]) + kept[21:])
            elif how == "swapped":
                file.write_bytes(files[number - 1].read_bytes())
            else:
                file.unlink()
            with pytest.raises(TamperedError):
                await engine.read(session, ANA)
            (found,) = await sound(engine)
            assert found.session == session
            assert await is_stub(engine, session)
            assert session in {one.id for one in (await engine.find(ANA)).headers}
            assert (await engine.read(third, ANA)).header.version == 1
            file.write_bytes(kept)
        assert await whole(engine, session) == was
        assert (await engine.read(well, ANA)).header.version == 4
        assert not await sound(engine)


async def test_while_the_cold_tier_is_gone_only_what_is_archived_is(opening: Open, tmp_path: Path) -> None:
    class Gone(Around):
        async def get(self, key: str) -> bytes | None:
            raise StoreUnavailableError("cold", "it is gone")

        async def put(self, key: str, data: bytes) -> None:
            raise StoreUnavailableError("cold", "it is gone")

    async with opening() as engine:
        session, well = await make(engine, 10), await make(engine, 3)
        await engine.archive(session, ANA)
        with around(lambda store, tier: Gone(store) if tier == "cold" else store):
            async with opening() as without:
                for _ in range(5):
                    with pytest.raises(StoreUnavailableError):
                        await without.read(session, ANA)
                await put(without, well, "at work", expected=4)
                with pytest.raises(StoreUnavailableError):
                    await without.archive(well, ANA)
                assert (await without.read(well, ANA)).header.version == 5
                assert len((await without.find(ANA)).headers) == 2
        assert (await engine.read(session, ANA)).header.version == 11


async def test_an_archive_that_was_read_is_not_restored_over_a_newer_one(opening: Open) -> None:
    async with opening() as engine:
        session = await make(engine, 10)
        await engine.archive(session, ANA)
        meanwhile = partial(anew, engine, session)
        with around(
            lambda store, tier: Between(store, "restore", 1, meanwhile, before=True) if tier == "warm" else store
        ):
            async with opening() as slow:
                assert (await slow.read(session, ANA)).header.version == 12
        async with opening() as third:
            assert (await third.read(session, ANA)).header.version == 12
            assert len(await log(third, session)) == 12
            assert not await sound(third)
