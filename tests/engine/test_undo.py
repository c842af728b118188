"""R06: versions are contiguous and never reused; undo and redo are new versions, and give the bytes back."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.compose import open_engine
from holdfast.engine.editing import Committed
from holdfast.engine.engine import Engine
from holdfast.errors import NothingToUndoError, VersionConflictError
from holdfast.model.access import Principal
from holdfast.model.session import Session
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock

ANA = Principal("ana")
EXAMPLES = int(os.environ.get("HOLDFAST_TEST_UNDO_EXAMPLES", "15"))
State = list[tuple[str, str, bytes]]

KEYS = st.sampled_from([f"chunks/{n}" for n in range(5)])
CHANGE = st.one_of(
    st.tuples(st.just("put"), KEYS, st.text("abc ", min_size=1, max_size=8).filter(str.strip)),
    st.tuples(st.just("delete"), KEYS, st.just("")),
    st.tuples(st.just("move"), KEYS, KEYS),
)
CHANGE_SET = st.tuples(st.lists(CHANGE, min_size=1, max_size=4), st.sampled_from([None, None, "g", "h"]))


def state(session: Session) -> State:
    return [(item.key, item.position, item.raw) for item in session.items]


async def start(engine: Engine, count: int = 3) -> str:
    items = [(f"chunks/{n}", {"text": f"chunk {n}"}) for n in range(count)]
    return str((await engine.create(ANA, kind="knowledge", items=items)).id)


async def put(engine: Engine, session: str, text: str, expected: int, **more: Any) -> Committed:
    async with engine.edit(session, ANA, expected=expected, **more) as draft:
        draft.put("chunks/0", {"text": text})
    assert draft.committed is not None
    return draft.committed


async def seen(engine: Engine, session: str) -> State:
    return state(await engine.read(session, ANA))


async def apply(engine: Engine, session: str, version: int, changes: Any, group: str | None) -> Committed:
    async with engine.edit(session, ANA, expected=version, group=group) as draft:
        for verb, key, text in changes:
            if verb == "put":
                draft.put(key, {"text": text})
            elif draft.get(key) is not None:
                if verb == "delete":
                    draft.delete(key)
                elif text != key and draft.get(text) is not None:
                    draft.move(key, after=text)
                else:
                    draft.move(key)
    assert draft.committed is not None
    return draft.committed


async def there_and_back(folder: Path, change_sets: Any) -> None:
    """Apply change-sets, undo all of them and redo all of them: each state comes back byte for byte."""
    clock = ManualClock()
    async with open_engine(Settings(home=folder), clock=clock) as engine:
        session = await start(engine)
        groups: list[str | None] = [None]
        states = [await seen(engine, session)]
        record = {1: states[0]}
        version = 1
        for changes, group in change_sets:
            committed = await apply(engine, session, version, changes, group)
            if committed.version == version:
                assert committed.changes == {}
                continue
            assert committed.version == version + 1
            version += 1
            record[version] = await seen(engine, session)
            if group is not None and group == groups[-1]:
                states[-1] = record[version]  # it undoes together with the one before
            else:
                groups.append(group)
                states.append(record[version])
        for at in range(len(states) - 1, 0, -1):
            committed = await engine.undo(session, ANA, expected=version)
            version += 1
            assert committed.version == version
            record[version] = await seen(engine, session)
            assert record[version] == states[at - 1]
        with pytest.raises(NothingToUndoError):
            await engine.undo(session, ANA, expected=version)
    async with open_engine(Settings(home=folder), clock=clock) as engine:  # and across a restart
        for at in range(1, len(states)):
            committed = await engine.redo(session, ANA, expected=version)
            version += 1
            assert committed.version == version
            record[version] = await seen(engine, session)
            assert record[version] == states[at]
        with pytest.raises(NothingToUndoError):
            await engine.redo(session, ANA, expected=version)
        for old, kept in record.items():
            assert state(await engine.read(session, ANA, version=old)) == kept
        log = await engine.history(session, ANA, limit=1000)
        assert [entry.version for entry in log] == list(range(version, 0, -1))
        async for verified in engine.verify(Principal("root", roles=frozenset({"admin", "operator"}))):
            assert verified.ok, verified.problems


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES < 100)
@given(st.lists(CHANGE_SET, min_size=1, max_size=12))
def test_r06_undo_n_times_then_redo_n_times_gives_the_bytes_back(change_sets: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(there_and_back(Path(folder), change_sets))


async def test_r06_a_group_undoes_and_redoes_as_one(engine: Engine) -> None:
    session = await start(engine)
    before = await seen(engine, session)
    for version in range(1, 6):
        await put(engine, session, f"burst {version}", version, group="burst")
    after = await seen(engine, session)
    assert (await engine.undo(session, ANA, expected=6)).version == 7
    assert await seen(engine, session) == before
    assert (await engine.redo(session, ANA, expected=7)).version == 8
    assert await seen(engine, session) == after
    assert (await engine.undo(session, ANA, expected=8)).version == 9
    assert await seen(engine, session) == before
    with pytest.raises(NothingToUndoError):
        await engine.undo(session, ANA, expected=9)


async def test_r06_two_groups_one_after_the_other_undo_one_by_one(engine: Engine) -> None:
    session = await start(engine)
    for version, group in enumerate(["a", "a", "b", "b", "a"], 1):
        await put(engine, session, f"{group}{version}", version, group=group)
    texts = []
    for version in range(6, 9):
        await engine.undo(session, ANA, expected=version)
        texts.append((await engine.read(session, ANA)).items[0].body["text"])
    assert texts == ["b4", "a2", "chunk 0"]


async def test_r06_a_group_that_comes_to_nothing_can_be_undone_past(engine: Engine) -> None:
    """There and back within one group: its undo changes nothing, and still takes it from the stack."""
    session = await start(engine)
    await put(engine, session, "kept", 1)
    await put(engine, session, "there", 2, group="g")
    await put(engine, session, "kept", 3, group="g")
    assert await engine.preview_undo(session, ANA) == []
    assert (await engine.undo(session, ANA, expected=4)).version == 5
    assert (await engine.undo(session, ANA, expected=5)).changes == {"chunks/0": "changed"}
    assert (await engine.read(session, ANA)).items[0].body["text"] == "chunk 0"
    await engine.redo(session, ANA, expected=6)
    await engine.redo(session, ANA, expected=7)
    with pytest.raises(NothingToUndoError):
        await engine.redo(session, ANA, expected=8)
    assert (await engine.read(session, ANA)).items[0].body["text"] == "kept"


async def test_r06_an_edit_after_an_undo_forgets_what_could_be_redone(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, "one", 1)
    await engine.undo(session, ANA, expected=2)
    await put(engine, session, "two", 3)
    with pytest.raises(NothingToUndoError):
        await engine.redo(session, ANA, expected=4)
    await engine.undo(session, ANA, expected=4)
    assert (await engine.read(session, ANA)).items[0].body["text"] == "chunk 0"


async def test_r06_a_restore_is_undone_like_any_commit(engine: Engine) -> None:
    session = await start(engine)
    for version in range(1, 5):
        await put(engine, session, f"{version}", version)
    states = {version: state(await engine.read(session, ANA, version=version)) for version in range(1, 6)}
    assert (await engine.restore(session, ANA, 2, expected=5)).version == 6
    assert await seen(engine, session) == states[2]
    await engine.undo(session, ANA, expected=6)
    assert await seen(engine, session) == states[5]
    await engine.undo(session, ANA, expected=7)
    assert await seen(engine, session) == states[4]


async def test_r06_the_creation_itself_is_not_undone(engine: Engine) -> None:
    session = await start(engine)
    with pytest.raises(NothingToUndoError):
        await engine.undo(session, ANA, expected=1)
    with pytest.raises(NothingToUndoError):
        await engine.preview_undo(session, ANA)
    with pytest.raises(NothingToUndoError):
        await engine.preview_redo(session, ANA)


async def test_r06_versions_are_not_reused_after_a_restart_a_lock_or_a_refusal(opens: Any, settings: Settings) -> None:
    engine = await opens()
    session = await start(engine)
    await put(engine, session, "one", 1)
    with pytest.raises(VersionConflictError):
        await put(engine, session, "late", 1)
    await engine.preview(session, ANA)
    await engine.unlock(session, ANA)
    other = await opens()
    assert (await put(other, session, "two", 2)).version == 3
    assert (await engine.undo(session, ANA, expected=3)).version == 4
    assert (await engine.restore(session, ANA, 1, expected=4)).version == 5
    log = await engine.history(session, ANA)
    assert [entry.step for entry in log] == list(range(7, 0, -1))
    assert [entry.version for entry in log if entry.commit] == [5, 4, 3, 2, 1]


async def test_a_preview_of_an_undo_and_of_a_redo_is_what_they_do(engine: Engine) -> None:
    session = await start(engine)
    async with engine.edit(session, ANA, expected=1) as draft:
        draft.put("chunks/0", {"text": "changed words"})
        draft.put("chunks/9", {"text": "added"})
        draft.delete("chunks/1")
        draft.move("chunks/2", before="chunks/0")
    for version, preview, verb in (
        (2, engine.preview_undo, engine.undo),
        (3, engine.preview_redo, engine.redo),
        (4, engine.preview_undo, engine.undo),
    ):
        shown = await preview(session, ANA)
        assert (await engine.header(session, ANA)).version == version
        committed = await verb(session, ANA, expected=version)
        assert {difference.key: difference.verb for difference in shown} == committed.changes
        assert shown == await engine.diff(session, ANA, version, version + 1)
        assert len(shown) == 4


async def test_a_thousand_undos_deep_is_as_deep_as_the_history(engine: Engine) -> None:
    session = await start(engine)
    count = int(os.environ.get("HOLDFAST_TEST_UNDO_DEPTH", "250"))
    for version in range(1, count + 1):
        await put(engine, session, f"{version}", version)
    for version in range(count + 1, 2 * count + 1):
        await engine.undo(session, ANA, expected=version)
    assert (await engine.read(session, ANA)).items[0].body["text"] == "chunk 0"
    with pytest.raises(NothingToUndoError):
        await engine.undo(session, ANA, expected=2 * count + 1)
