"""Promises that a review found broken, each with the story that broke it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.errors import ChangeIdReusedError, LimitExceededError, PermissionDeniedError, TamperedError
from holdfast.kinds.knowledge import KIND
from holdfast.model.access import Principal, Role
from holdfast.model.limits import Limits
from holdfast.ports.kind import Draft, Operation
from holdfast.settings import Settings

ANA, BEN = Principal("ana"), Principal("ben")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))


class Count(msgspec.Struct, frozen=True):
    """Count one up."""


def count(draft: Draft, arguments: Count) -> None:
    body = draft.body("chunks/counter")
    draft.put("chunks/counter", {**body, "text": str(int(body["text"]) + 1)})


async def test_a_commutative_operation_is_run_on_the_state_it_lands_on(tmp_path: Path) -> None:
    counting = Operation("count", Count, count, "Count one up.", commutative=True)
    kind = msgspec.structs.replace(KIND, operations=(*KIND.operations, counting))
    async with open_engine(Settings(home=tmp_path)) as one, open_engine(Settings(home=tmp_path)) as other:
        for engine in (one, other):
            engine.kinds["knowledge"] = kind  # type: ignore[index]
        session = await one.create(ANA, kind="knowledge", items=[("chunks/counter", {"text": "0"})])
        engines = [one, other] * 6
        done = await asyncio.gather(*(engine.operate(session.id, ANA, "count") for engine in engines))
        assert sorted(committed.version for committed in done) == list(range(2, 14))
        assert (await one.read(session.id, ANA)).items[0].body["text"] == "12"


async def test_r05_that_there_was_nothing_to_do_is_remembered_under_the_change_id(engine: Engine) -> None:
    session = await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])

    async def edit(text: str, change: str, expected: int) -> Any:
        async with engine.edit(session.id, ANA, expected=expected, change_id=change) as draft:
            draft.put("chunks/1", {"text": text})
        return draft.committed

    first = await edit("one", "c1", 1)
    assert (first.version, first.changes) == (1, {})
    await edit("two", "c2", 1)
    again = await edit("one", "c1", 1)
    assert (again.version, again.changes, again.replayed) == (1, {}, True)
    with pytest.raises(ChangeIdReusedError):
        await edit("three", "c1", 2)


async def test_undo_and_restore_take_back_more_items_than_one_change_set_may_change(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, limits=Limits(items=40, operations=20))
    async with open_engine(settings) as engine:
        items = [(f"chunks/{number}", {"text": f"text {number}"}) for number in range(40)]
        session = await engine.create(ANA, kind="knowledge", items=items)
        for version, half in ((1, items[:20]), (2, items[20:])):
            async with engine.edit(session.id, ANA, expected=version, group="clear") as draft:
                for key, _ in half:
                    draft.delete(key)
        assert len((await engine.undo(session.id, ANA, expected=3)).changes) == 40
        assert len((await engine.read(session.id, ANA)).items) == 40


async def test_what_could_not_be_opened_again_is_not_sealed(tmp_path: Path) -> None:
    limits = Limits(item_bytes=100_000_000, session_bytes=200_000_000)
    async with open_engine(Settings(home=tmp_path, limits=limits)) as engine:
        with pytest.raises(LimitExceededError, match="sealed in one piece"):
            await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "x" * 68_000_000})])
        assert not (await engine.find(ANA)).headers


async def publish(engine: Engine, session: str, who: Principal) -> None:
    preview = await engine.preview(session, who)
    await engine.publish(session, who, seal=preview.seal)


async def again(engine: Engine, session: str, who: Principal, text: str) -> str:
    draft = await engine.reopen(session, who)
    async with engine.edit(draft.id, who, expected=1) as changes:
        changes.put("chunks/1", {"text": text})
    return draft.header.id


async def test_the_right_to_a_target_is_its_first_session_s(engine: Engine) -> None:
    session = await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])
    await publish(engine, session.id, ANA)
    await engine.grant(session.id, ANA, "ben", Role.EDITOR)
    bens = await again(engine, session.id, BEN, "two, by ben")
    await publish(engine, bens, BEN)
    await publish(engine, await again(engine, session.id, ANA, "three, by ana"), ANA)  # not locked out by ben
    await engine.grant(session.id, ANA, "ben", None)
    late = await again(engine, bens, BEN, "four, by ben")
    preview = await engine.preview(late, BEN)
    with pytest.raises(PermissionDeniedError):
        await engine.publish(late, BEN, seal=preview.seal)


@pytest.mark.parametrize("purged", [False, True])
async def test_s19_an_actor_altered_in_the_log_shows_in_the_audit_and_to_verify(tmp_path: Path, purged: bool) -> None:
    async with open_engine(Settings(home=tmp_path, grace=0.0)) as engine:
        session = await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])
        if purged:
            await engine.discard(session.id, ANA)
        assert all([found.ok async for found in engine.verify(ROOT)])
    database = apsw.Connection(str(tmp_path / "holdfast.sqlite"))
    database.execute("UPDATE log SET header = CAST(replace(CAST(header AS TEXT), 'ana', 'eve') AS BLOB) WHERE step = 1")
    database.close()
    async with open_engine(Settings(home=tmp_path, grace=0.0)) as engine:
        with pytest.raises(TamperedError):
            await engine.audit(ANA, session_id=session.id)
        assert not all([found.ok async for found in engine.verify(ROOT)])


async def test_s19_a_purged_log_chained_anew_is_not_what_the_audit_vouches_for(tmp_path: Path) -> None:
    async with open_engine(Settings(home=tmp_path, grace=0.0)) as engine:
        session = await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])
        await engine.discard(session.id, ANA)
        assert all([found.ok async for found in engine.verify(ROOT)])
    database = apsw.Connection(str(tmp_path / "holdfast.sqlite"))
    last = database.execute("SELECT max(step) FROM log").get
    database.execute("DELETE FROM log WHERE step = ?", (last,))
    database.execute(
        "UPDATE session SET step = step - 1, digest = (SELECT digest FROM log WHERE step = ?)", (last - 1,)
    )
    database.close()
    async with open_engine(Settings(home=tmp_path, grace=0.0)) as engine:
        assert [found.ok async for found in engine.verify(ROOT, session.id)] == [False]
