"""R04: one version, many writers: one wins, the others are told by whom and where. Rebase lands what does not clash."""

# ruff: noqa: PT012 - an edit is a block

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdfast.engine.editing import Committed
from holdfast.engine.engine import Engine
from holdfast.errors import VersionConflictError, VersionRequiredError
from holdfast.model.access import Principal, Role
from holdfast.model.change import Conflict
from holdfast.model.cursor import Seen
from holdfast.model.session import Write
from holdfast.ports.hot import HotStore

ANA = Principal("ana")
WRITERS = 64
ROUNDS = int(os.environ.get("HOLDFAST_TEST_CONFLICT_ROUNDS", "12"))


async def start(engine: Engine, count: int = 3) -> str:
    items = [(f"chunks/{n}", {"text": f"chunk {n}"}) for n in range(1, count + 1)]
    return str((await engine.create(ANA, kind="knowledge", items=items)).id)


async def put(engine: Engine, session: str, key: str, text: str, **more: Any) -> Committed:
    async with engine.edit(session, ANA, **more) as draft:
        draft.put(key, {"text": text})
    assert draft.committed is not None
    return draft.committed


async def race(engines: list[Engine], session: str, rounds: int) -> tuple[list[int], list[VersionConflictError]]:
    """Every writer from the same version, round after round: how many won each round, and what the others were told."""
    winners, losers = [], []
    for _ in range(rounds):
        version = (await engines[0].header(session, ANA)).version
        tries = [
            put(engines[n % len(engines)], session, "chunks/1", f"{version}:{n}", expected=version)
            for n in range(WRITERS)
        ]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        winners.append(sum(isinstance(outcome, Committed) for outcome in outcomes))
        losers += [outcome for outcome in outcomes if isinstance(outcome, VersionConflictError)]
    return winners, losers


async def test_r04_of_64_writers_from_one_version_exactly_one_wins(opens: Any) -> None:
    engines = [await opens(), await opens()]
    session = await start(engines[0])
    winners, losers = await race(engines, session, ROUNDS)
    print(f"R04 writers={WRITERS} rounds={ROUNDS} winners={sum(winners)} conflicts={len(losers)}")
    assert winners == [1] * ROUNDS
    assert len(losers) == ROUNDS * (WRITERS - 1)
    assert all(error.actual == error.expected + 1 for error in losers)
    log = await engines[0].history(session, ANA, limit=1000)
    assert [entry.version for entry in log] == list(range(ROUNDS + 1, 0, -1))


async def test_r04_teeth_a_store_that_does_not_compare_is_caught(opens: Any) -> None:
    class Agreeable:
        """Broken on purpose: every write that comes too late is acknowledged and thrown away."""

        def __init__(self, store: HotStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def write(self, write: Write, **more: Any) -> bool:
            await self._store.write(write, **more)
            return True

    engine = await opens(wrap=Agreeable)
    session = await start(engine)
    winners, _ = await race([engine], session, 1)
    assert winners[0] > 1


async def test_r04_a_conflict_carries_the_version_and_base_theirs_and_mine(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/1", "theirs", expected=1)
    with pytest.raises(VersionConflictError) as caught:
        async with engine.edit(session, ANA, expected=1) as draft:
            draft.put("chunks/1", {"text": "mine"})
            draft.put("chunks/9", {"text": "new"})
            draft.delete("chunks/2")
    error = caught.value
    assert (error.expected, error.actual) == (1, 2)
    assert {conflict.key: conflict for conflict in error.conflicts} == {
        "chunks/1": Conflict("chunks/1", {"text": "chunk 1"}, {"text": "theirs"}, {"text": "mine"}),
        "chunks/2": Conflict("chunks/2", {"text": "chunk 2"}, {"text": "chunk 2"}, None),
        "chunks/9": Conflict("chunks/9", None, None, {"text": "new"}),
    }
    assert "theirs" not in str(error)
    assert "mine" not in str(error)


@pytest.mark.parametrize("verb", ["edit", "operate", "undo", "redo", "restore"])
async def test_r04_a_write_without_a_version_is_refused(engine: Engine, verb: str) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/1", "x", expected=1)
    with pytest.raises(VersionRequiredError):
        if verb == "edit":
            async with engine.edit(session, ANA) as draft:
                draft.put("chunks/1", {"text": "y"})
        elif verb == "operate":
            await engine.operate(session, ANA, "edit", {"key": "chunks/1", "text": "y"})
        elif verb == "restore":
            await engine.restore(session, ANA, 1, expected=None)
        else:
            await getattr(engine, verb)(session, ANA, expected=None)
    assert (await engine.header(session, ANA)).version == 2


@pytest.mark.parametrize("verb", ["edit", "operate", "undo", "restore"])
@pytest.mark.parametrize("expected", [1, 7, 2**70, -1])
async def test_r04_every_verb_refuses_every_other_version_as_a_conflict(
    engine: Engine, verb: str, expected: int
) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/1", "x", expected=1)
    with pytest.raises(VersionConflictError) as caught:
        if verb == "edit":
            await put(engine, session, "chunks/1", "y", expected=expected)
        elif verb == "operate":
            await engine.operate(session, ANA, "edit", {"key": "chunks/1", "text": "y"}, expected=expected)
        elif verb == "restore":
            await engine.restore(session, ANA, 1, expected=expected)
        else:
            await engine.undo(session, ANA, expected=expected)
    assert (caught.value.expected, caught.value.actual) == (expected, 2)


# -- rebase ------------------------------------------------------------------------------------------------------------


async def test_a_rebased_edit_of_another_item_lands_on_the_newer_version(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/1", "theirs", expected=1)
    committed = await put(engine, session, "chunks/2", "mine", expected=1, rebase=True)
    assert committed.version == 3
    assert [item.body["text"] for item in (await engine.read(session, ANA)).items] == ["theirs", "mine", "chunk 3"]


async def test_a_rebased_edit_of_the_same_item_is_a_conflict_of_that_item_alone(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/1", "theirs", expected=1)
    with pytest.raises(VersionConflictError) as caught:
        async with engine.edit(session, ANA, expected=1, rebase=True) as draft:
            draft.put("chunks/1", {"text": "mine"})
            draft.put("chunks/2", {"text": "fine"})
    assert caught.value.conflicts == (Conflict("chunks/1", {"text": "chunk 1"}, {"text": "theirs"}, {"text": "mine"}),)


async def test_a_rebased_edit_conflicts_by_what_it_read(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/1", "theirs", expected=1)
    with pytest.raises(VersionConflictError) as caught:
        async with engine.edit(session, ANA, expected=1, rebase=True) as draft:
            draft.put("chunks/2", {"text": draft.body("chunks/1")["text"] + ", copied"})
    assert [conflict.key for conflict in caught.value.conflicts] == ["chunks/1"]


async def test_a_rebased_edit_conflicts_by_the_absence_it_read(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/new", "theirs", expected=1)
    with pytest.raises(VersionConflictError):
        async with engine.edit(session, ANA, expected=1, rebase=True) as draft:
            if draft.get("chunks/new") is None:
                draft.put("chunks/2", {"text": "nobody has made it yet"})


async def test_a_rebased_edit_conflicts_by_the_collection_it_read(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/new", "theirs", expected=1)
    with pytest.raises(VersionConflictError) as caught:
        async with engine.edit(session, ANA, expected=1, rebase=True) as draft:
            draft.put("chunks/2", {"text": f"{len(draft.collection('chunks'))} chunks"})
    assert [conflict.key for conflict in caught.value.conflicts] == ["chunks/new"]


async def test_a_rebased_delete_of_an_item_changed_since_is_a_conflict(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/1", "theirs", expected=1)
    with pytest.raises(VersionConflictError):
        async with engine.edit(session, ANA, expected=1, rebase=True) as draft:
            draft.delete("chunks/1")


async def test_many_rebased_writers_of_different_items_all_land(opens: Any) -> None:
    engines = [await opens(), await opens()]
    session = await start(engines[0], 32)
    tries = [put(engines[n % 2], session, f"chunks/{n}", f"mine {n}", expected=1, rebase=True) for n in range(1, 33)]
    versions = [committed.version for committed in await asyncio.gather(*tries)]
    assert sorted(versions) == list(range(2, 34))
    assert [item.body["text"] for item in (await engines[0].read(session, ANA)).items] == [
        f"mine {n}" for n in range(1, 33)
    ]


async def test_a_rebase_sees_through_lifecycle_steps_and_long_histories(engine: Engine) -> None:
    session = await start(engine)
    for version in range(1, 301):
        await put(engine, session, "chunks/1", f"{version}", expected=version)
        if version % 50 == 0:
            await engine.label(session, ANA, f"at {version}")
    assert (await put(engine, session, "chunks/2", "mine", expected=1, rebase=True)).version == 302
    with pytest.raises(VersionConflictError):
        await put(engine, session, "chunks/2", "again", expected=1, rebase=True)


async def test_two_rebased_items_at_the_end_have_an_order_and_can_be_set_apart(engine: Engine) -> None:
    session = await start(engine, 1)
    await put(engine, session, "chunks/b", "b", expected=1)
    await put(engine, session, "chunks/a", "a", expected=1, rebase=True)
    assert [item.key for item in (await engine.read(session, ANA)).items] == ["chunks/1", "chunks/a", "chunks/b"]
    async with engine.edit(session, ANA, expected=3) as draft:
        draft.put("chunks/m", {"text": "between the two"}, after="chunks/a")
    assert [item.key for item in (await engine.read(session, ANA)).items] == [
        "chunks/1",
        "chunks/a",
        "chunks/m",
        "chunks/b",
    ]


LIFE: dict[str, Callable[..., Awaitable[Any]]] = {
    "label": lambda engine, session, **seen: engine.label(session, ANA, "a name", **seen),
    "rename": lambda engine, session, **seen: engine.rename(session, ANA, "a title", **seen),
    "grant": lambda engine, session, **seen: engine.grant(session, ANA, "eve", Role.VIEWER, **seen),
    "extend": lambda engine, session, **seen: engine.extend(session, ANA, seconds=99.0, **seen),
    "touch": lambda engine, session, **seen: engine.touch(session, ANA, **seen),
    "suspend": lambda engine, session, **seen: engine.suspend(session, ANA, **seen),
    "preview": lambda engine, session, **seen: engine.preview(session, ANA, **seen),
    "unlock": lambda engine, session, **seen: engine.unlock(session, ANA, **seen),
    "discard": lambda engine, session, **seen: engine.discard(session, ANA, **seen),
    "revive": lambda engine, session, **seen: engine.revive(session, ANA, **seen),
}


async def test_a_step_of_the_life_can_be_for_the_version_its_author_saw_and_no_other(engine: Engine) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    await put(engine, session, "chunks/1", "two", expected=1)
    for verb, step in LIFE.items():
        header = await engine.header(session, ANA)
        elsewhere = Seen(2, header.step, b"another's")
        for stale in (1, 3, Seen(1, 1, b""), elsewhere):
            with pytest.raises(VersionConflictError):
                await step(engine, session, expected=stale)
            assert (await engine.header(session, ANA)).step == header.step, verb
        before = Seen(2, header.step - 1, b"")  # other steps of the life are no conflict
        await step(engine, session, expected=Seen(2, header.step, header.digest) if verb == "label" else before)
    await put(engine, session, "chunks/1", "three", expected=2)
    with pytest.raises(VersionConflictError):
        await engine.rename(session, ANA, "resent", expected=2, change_id="c")
    await engine.rename(session, ANA, "resent", expected=3, change_id="c")
    await put(engine, session, "chunks/1", "four", expected=3)
    await engine.rename(session, ANA, "resent", expected=3, change_id="c")  # sent again: it had landed
