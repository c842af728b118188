"""R03: a change-set is there whole or not at all, whoever looks and whenever."""

# ruff: noqa: PT012 - an edit is a block

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.errors import InvalidItemError, ItemNotFoundError, NotDraftError
from holdfast.model.access import Principal
from holdfast.model.session import Session, Write
from holdfast.ports.hot import HotStore
from holdfast.settings import Settings

ANA = Principal("ana")
KEYS = ("chunks/a", "chunks/b", "chunks/c")
ROUNDS = int(os.environ.get("HOLDFAST_TEST_ATOMIC_ROUNDS", "60"))


def three(text: str) -> list[tuple[str, dict[str, str]]]:
    return [(key, {"text": text}) for key in KEYS]


def texts(session: Session) -> set[str]:
    return {item.body["text"] for item in session.items}


async def write_rounds(engine: Engine, session_id: str, rounds: int) -> None:
    for version in range(1, rounds + 1):
        async with engine.edit(session_id, ANA, expected=version) as draft:
            for key in KEYS:
                draft.put(key, {"text": f"{version}"})


async def read_until(engine: Engine, session_id: str, last: int) -> list[str]:
    """Read until a version is reached; what was seen that no writer wrote."""
    wrong, seen = [], 0
    while seen < last:
        session = await engine.read(session_id, ANA)
        if len(session.items) != 3 or len(texts(session)) != 1:
            wrong.append(f"version {session.version}: {texts(session)}")
        elif session.version > 1 and texts(session) != {f"{session.version - 1}"}:
            wrong.append(f"version {session.version} shows {texts(session)}")
        if session.version < seen:
            wrong.append(f"version {session.version} after {seen}")
        seen = session.version
        await asyncio.sleep(0)
    return wrong


async def test_r03_readers_never_see_half_a_change_set(opens: Any) -> None:
    writer, other = await opens(), await opens()
    session = await writer.create(ANA, kind="knowledge", items=three("0"))
    readers = [asyncio.create_task(read_until(each, session.id, ROUNDS + 1)) for each in (writer, other, other)]
    await write_rounds(writer, session.id, ROUNDS)
    assert await asyncio.gather(*readers) == [[], [], []]


async def test_r03_a_reader_in_another_process_never_sees_half_a_change_set(opens: Any, settings: Settings) -> None:
    engine = await opens(clock=None)
    session = await engine.create(ANA, kind="knowledge", items=three("0"))
    command = [sys.executable, __file__, str(settings.home), session.id, str(ROUNDS + 1)]
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"reading\n"
    await write_rounds(engine, session.id, ROUNDS)
    out, _ = await child.communicate()
    assert (child.returncode, out.decode().strip()) == (0, "[]")


async def test_r03_teeth_a_store_that_writes_items_one_by_one_is_caught(opens: Any) -> None:
    class Piecemeal:
        """Broken on purpose: it loads the items in two reads, so that a commit comes between."""

        def __init__(self, store: HotStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def load(self, session: str) -> Any:
            first = await self._store.load(session)
            await asyncio.sleep(0.005)
            second = await self._store.load(session)
            assert first
            assert second
            return second[0], first[1][:1] + second[1][1:]

    writer, reader = await opens(), await opens(wrap=Piecemeal)
    session = await writer.create(ANA, kind="knowledge", items=three("0"))
    reading = asyncio.create_task(read_until(reader, session.id, ROUNDS + 1))
    await write_rounds(writer, session.id, ROUNDS)
    with pytest.raises(Exception, match="not what Holdfast wrote"):  # the root of the items does not add up
        await reading


async def test_r03_a_block_that_raises_changes_nothing(engine: Engine) -> None:
    session = await engine.create(ANA, kind="knowledge", items=three("0"))
    with pytest.raises(ItemNotFoundError):
        async with engine.edit(session.id, ANA, expected=1) as draft:
            draft.put(KEYS[0], {"text": "x"})
            draft.delete("chunks/none")
    with pytest.raises(InvalidItemError):
        async with engine.edit(session.id, ANA, expected=1) as draft:
            draft.put(KEYS[0], {"text": "x"})
            draft.put("pages/1", {"text": "no such collection"})
    after = await engine.read(session.id, ANA)
    assert (after.version, after.step, texts(after)) == (1, 1, {"0"})


async def test_r07_a_write_in_flight_when_the_lock_lands_is_refused_whole(opens: Any) -> None:
    """The lock goes in between the decision and the write: the write finds another step and is decided anew."""
    other = await opens()
    locked: list[str] = []

    class Late:
        def __init__(self, store: HotStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def write(self, write: Write, **more: Any) -> bool:
            if write.entry.commit and write.expected and not locked:
                locked.append(write.head.id)
                await other.preview(write.head.id, ANA)
            return await self._store.write(write, **more)

    engine = await opens(wrap=Late)
    session = await engine.create(ANA, kind="knowledge", items=three("0"))
    with pytest.raises(NotDraftError):
        async with engine.edit(session.id, ANA, expected=1) as draft:
            draft.put(KEYS[0], {"text": "late"})
    after = await engine.read(session.id, ANA)
    assert (after.status, after.version, texts(after)) == ("locked", 1, {"0"})


async def _main(home: Path, session_id: str, last: int) -> None:
    async with open_engine(Settings(home=home)) as engine:
        print("reading", flush=True)
        print(await read_until(engine, session_id, last))


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
