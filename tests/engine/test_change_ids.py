"""R05: the same change id and body give the first answer and have one effect; another body is refused."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest

from holdfast.engine.editing import Committed
from holdfast.engine.engine import Engine
from holdfast.errors import ChangeIdReusedError, InvalidChangeError, StoreUnavailableError, VersionConflictError
from holdfast.model.access import Principal, Role
from holdfast.model.retention import Retention
from holdfast.model.session import Write
from holdfast.ports.hot import HotStore

ANA, BEN = Principal("ana"), Principal("ben")
REPLAYS = int(os.environ.get("HOLDFAST_TEST_REPLAYS", "300"))
ITEMS = [("chunks/1", {"text": "one two"}), ("chunks/2", {"text": "second"})]


async def put(engine: Engine, session: str, key: str, text: str, **more: Any) -> Committed:
    async with engine.edit(session, ANA, **more) as draft:
        draft.put(key, {"text": text})
    assert draft.committed is not None
    return draft.committed


async def edit(engine: Engine, session: str, change_id: str, *, other: bool = False) -> Committed:
    return await put(engine, session, "chunks/1", "other" if other else "new", expected=2, change_id=change_id)


async def operate(engine: Engine, session: str, change_id: str, *, other: bool = False) -> Committed:
    arguments = {"key": "chunks/1", "at": 5 if other else 3}
    return await engine.operate(session, ANA, "split", arguments, expected=2, change_id=change_id)


async def undo(engine: Engine, session: str, change_id: str, *, other: bool = False) -> Committed:
    if other:
        return await engine.restore(session, ANA, 1, expected=2, change_id=change_id)
    return await engine.undo(session, ANA, expected=2, change_id=change_id)


async def restore(engine: Engine, session: str, change_id: str, *, other: bool = False) -> Committed:
    return await engine.restore(session, ANA, 0 if other else 1, expected=2, change_id=change_id)


VERBS = {"edit": edit, "operate": operate, "undo": undo, "restore": restore}


async def start(engine: Engine) -> str:
    session = await engine.create(ANA, kind="knowledge", items=ITEMS)
    await put(engine, session.id, "chunks/2", "changed", expected=1)
    return str(session.id)


@pytest.mark.parametrize("verb", VERBS)
async def test_r05_the_same_change_again_gives_the_first_answer(opens: Any, verb: str) -> None:
    engine = await opens()
    session = await start(engine)
    first = await VERBS[verb](engine, session, "c1")
    assert (first.version, first.replayed) == (3, False)
    again = [await VERBS[verb](engine, session, "c1"), await VERBS[verb](await opens(), session, "c1")]
    await put(engine, session, "chunks/2", "later", expected=3)
    again.append(await VERBS[verb](engine, session, "c1"))
    await engine.preview(session, ANA)  # locked: what was acknowledged before is told all the same
    again.append(await VERBS[verb](engine, session, "c1"))
    assert again == [msgspec.structs.replace(first, replayed=True)] * 4
    assert (await engine.header(session, ANA)).version == 4


@pytest.mark.parametrize("verb", VERBS)
async def test_r05_the_same_change_id_with_another_body_is_refused(opens: Any, verb: str) -> None:
    engine = await opens()
    session = await start(engine)
    await VERBS[verb](engine, session, "c1")
    for each in (engine, await opens()):
        with pytest.raises(ChangeIdReusedError):
            await VERBS[verb](each, session, "c1", other=True)
        for name, other in VERBS.items():
            if name != verb:
                with pytest.raises(ChangeIdReusedError):
                    await other(each, session, "c1")
    assert (await engine.header(session, ANA)).version == 3


@pytest.mark.parametrize("verb", VERBS)
async def test_r05_many_replays_at_once_have_one_effect(opens: Any, verb: str) -> None:
    engines = [await opens(), await opens()]
    session = await start(engines[0])
    answers = await asyncio.gather(*(VERBS[verb](engines[n % 2], session, "c1") for n in range(REPLAYS)))
    print(f"R05 {verb}: replays={REPLAYS} effects={sum(not answer.replayed for answer in answers)}")
    assert len({(answer.version, answer.digest) for answer in answers}) == 1
    assert (await engines[0].header(session, ANA)).version == 3
    assert sum(not answer.replayed for answer in answers) == 1


@pytest.mark.parametrize("verb", VERBS)
async def test_r05_a_lost_answer_is_had_by_asking_again(opens: Any, verb: str) -> None:
    class Deaf:
        """The write lands, and its answer is lost."""

        def __init__(self, store: HotStore) -> None:
            self._store = store
            self.deaf = False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def write(self, write: Write, **more: Any) -> bool:
            done = await self._store.write(write, **more)
            if self.deaf:
                raise StoreUnavailableError("hot", "the line is dead")
            return done

    deaf: list[Deaf] = []

    def wrap(store: HotStore) -> Any:
        deaf.append(Deaf(store))
        return deaf[-1]

    engine = await opens(wrap=wrap)
    session = await start(engine)
    deaf[0].deaf = True
    with pytest.raises(StoreUnavailableError):
        await VERBS[verb](engine, session, "c1")
    deaf[0].deaf = False
    again = await VERBS[verb](engine, session, "c1")
    assert (again.version, again.replayed) == (3, True)
    assert (await engine.header(session, ANA)).version == 3


async def test_r05_an_edit_at_the_newest_version_under_a_used_id_is_still_the_first(engine: Engine) -> None:
    session = await start(engine)
    first = await put(engine, session, "chunks/1", "new", expected=2, change_id="c1")
    again = await put(engine, session, "chunks/1", "new", expected=3, change_id="c1")
    assert (again.version, again.digest) == (3, first.digest)
    with pytest.raises(ChangeIdReusedError):
        await put(engine, session, "chunks/1", "other", expected=3, change_id="c1")
    with pytest.raises(ChangeIdReusedError):
        await put(
            engine, session, "chunks/2", "changed", expected=3, change_id="c1"
        )  # changes nothing, is another body
    assert (await engine.header(session, ANA)).version == 3


async def test_r05_creating_twice_makes_one_session(opens: Any) -> None:
    engine = await opens()

    async def make(engine: Engine, **more: Any) -> str:
        asked: dict[str, Any] = {"kind": "knowledge", "title": "t", "items": ITEMS, "change_id": "make", **more}
        return str((await engine.create(ANA, **asked)).id)

    first = await make(engine)
    assert await make(engine) == first
    assert set(await asyncio.gather(*[make(await opens()) for _ in range(8)])) == {first}
    for other in (
        {"title": "u"},
        {"items": ITEMS[:1]},
        {"target": "elsewhere"},
        {"retention": Retention(ttl=None)},
    ):
        with pytest.raises(ChangeIdReusedError):
            await make(engine, **other)
    assert len((await engine.find(ANA)).headers) == 1


async def test_r05_many_creations_at_once_make_one_session(opens: Any) -> None:
    engines = [await opens(), await opens()]
    made = await asyncio.gather(
        *(engines[n % 2].create(ANA, kind="knowledge", items=ITEMS, change_id="make") for n in range(64))
    )
    assert len({session.id for session in made}) == 1
    assert len((await engines[0].find(ANA)).headers) == 1


async def test_r05_creations_are_remembered_when_the_keys_are_rotated(opens: Any) -> None:
    engine = await opens()
    root = Principal("root", roles=frozenset({"admin", "operator"}))
    first = await engine.create(ANA, kind="knowledge", items=ITEMS, change_id="make")
    await engine.rotate_keys(root)
    assert (await engine.create(ANA, kind="knowledge", items=ITEMS, change_id="make")).id == first.id
    assert (await (await opens()).create(ANA, kind="knowledge", items=ITEMS, change_id="make")).id == first.id


async def test_r05_ingesting_and_reopening_twice_make_one_session_each(engine: Engine) -> None:
    text = b"# Title\n\nSome text to keep.\n"
    first = await engine.ingest(ANA, text, "a.md", change_id="in")
    assert (await engine.ingest(ANA, text, "a.md", change_id="in")).id == first.id
    with pytest.raises(ChangeIdReusedError):
        await engine.ingest(ANA, text + b"More.\n", "a.md", change_id="in")
    with pytest.raises(ChangeIdReusedError):
        await engine.ingest(ANA, text, "b.md", change_id="in")
    seal = (await engine.preview(first.id, ANA)).seal
    await engine.publish(first.id, ANA, seal=seal)
    again = await engine.reopen(first.id, ANA, change_id="re")
    assert (await engine.reopen(first.id, ANA, change_id="re")).id == again.id
    assert len((await engine.find(ANA)).headers) == 2


async def test_r05_two_people_may_use_the_same_change_id_for_sessions_of_their_own(engine: Engine) -> None:
    hers = await engine.create(ANA, kind="knowledge", items=ITEMS, change_id="make")
    his = await engine.create(BEN, kind="knowledge", items=ITEMS, change_id="make")
    other = await engine.create(Principal("ana", tenant="other"), kind="knowledge", items=ITEMS, change_id="make")
    assert len({hers.id, his.id, other.id}) == 3


async def test_r05_a_change_without_an_id_is_never_taken_for_another(engine: Engine) -> None:
    session = await start(engine)
    await put(engine, session, "chunks/1", "same", expected=2)
    with pytest.raises(VersionConflictError):
        await put(engine, session, "chunks/1", "same", expected=2)


@pytest.mark.parametrize("bad", ["", "x" * 201, "\ud800"])
@pytest.mark.parametrize("field", ["change_id", "group"])
async def test_r05_an_id_that_cannot_be_kept_is_refused(engine: Engine, field: str, bad: str) -> None:
    session = await start(engine)
    with pytest.raises(InvalidChangeError):
        await put(engine, session, "chunks/1", "x", expected=2, **{field: bad})
    assert (await engine.header(session, ANA)).version == 2


async def test_a_change_id_of_one_editor_is_not_another_s(engine: Engine) -> None:
    """Who is answered as if his own request had landed must be in the log with it."""
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    await engine.grant(session, ANA, "ben", Role.EDITOR)
    change = {"key": "chunks/1", "text": "two"}
    for who in (ANA, BEN, ANA):
        for again in (
            engine.operate(session, who, "edit", change, expected=1, change_id="e"),
            engine.rename(session, who, "a title", change_id="r"),
        ):
            if who is ANA:
                await again
            else:
                with pytest.raises(ChangeIdReusedError):
                    await again
    actors = {entry.header.operation: entry.header.actor for entry in await engine.history(session, ANA)}
    assert actors == {"create": "ana", "grant": "ana", "edit": "ana", "rename": "ana"}
