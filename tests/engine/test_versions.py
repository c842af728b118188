"""Any version can be read back, any two compared, any of them named, and any gone back to."""

from __future__ import annotations

from random import Random

import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import (
    InvalidChangeError,
    LabelNotFoundError,
    VersionNotFoundError,
)
from holdfast.model.access import Principal
from holdfast.model.difference import Difference
from holdfast.model.session import Session

ANA = Principal("ana")
Bodies = list[tuple[str, str]]


def bodies(session: Session) -> Bodies:
    return [(item.key, item.body["text"]) for item in session.items]


async def long_history(engine: Engine, commits: int, seed: int = 20261120) -> tuple[str, dict[int, Bodies]]:
    """Random edits, undos, redos, restores and steps, with the state of each version as the reader saw it then."""
    random = Random(seed)
    session = str((await engine.create(ANA, kind="knowledge", items=[("chunks/0", {"text": "zero"})])).id)
    record = {1: bodies(await engine.read(session, ANA))}
    version = 1
    while version < commits:
        header = await engine.header(session, ANA)
        verb = random.choice(["edit", "edit", "edit", "undo", "redo", "restore", "label", "lock"])
        if verb == "undo" and header.undo:
            await engine.undo(session, ANA, expected=version)
        elif verb == "redo" and header.redo:
            await engine.redo(session, ANA, expected=version)
        elif verb == "restore":
            await engine.restore(session, ANA, random.randint(0, version), expected=version)
        elif verb == "label":
            await engine.label(session, ANA, f"label {random.randint(1, 9)}", version=random.randint(0, version))
        elif verb == "lock":
            await engine.preview(session, ANA)
            await engine.unlock(session, ANA)
        else:
            async with engine.edit(session, ANA, expected=version) as draft:
                for _ in range(random.randint(1, 3)):
                    key = f"chunks/{random.randint(0, 6)}"
                    if draft.get(key) is None or random.random() < 0.5:
                        draft.put(key, {"text": f"{random.randint(0, 99)}"})
                    elif random.random() < 0.5:
                        draft.delete(key)
                    else:
                        draft.move(key)
        now = await engine.read(session, ANA)
        version = now.version
        record.setdefault(version, bodies(now))
        assert record[version] == bodies(now)
    return session, record


async def test_r06_every_version_reads_back_as_it_was(opens: object, engine: Engine) -> None:
    session, record = await long_history(engine, 80)
    for version, then in record.items():
        assert bodies(await engine.read(session, ANA, version=version)) == then, version
    assert bodies(await engine.read(session, ANA, version=0)) == []


async def test_any_two_versions_can_be_compared_either_way(engine: Engine) -> None:
    session, record = await long_history(engine, 30, seed=7)
    random = Random(7)
    for _ in range(60):
        a, b = random.randint(1, len(record)), random.randint(1, len(record))
        found = {one.key: one for one in await engine.diff(session, ANA, a, b)}
        old, new = dict(record[a]), dict(record[b])
        for key in old.keys() | new.keys():
            verb = found[key].verb if key in found else None
            if key not in old:
                assert verb == "added"
            elif key not in new:
                assert verb == "deleted"
            elif old[key] != new[key]:
                assert verb == "changed"
                assert (found[key].before, found[key].after) == ({"text": old[key]}, {"text": new[key]})
            else:
                assert verb in (None, "moved")
        assert not (found.keys() - old.keys() - new.keys())


async def test_a_difference_within_text_is_told_by_words(engine: Engine) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "the old lamp burns"})])).id
    async with engine.edit(session, ANA, expected=1) as draft:
        draft.put("chunks/1", {"text": "the new lamp burns"})
    (difference,) = await engine.diff(session, ANA, 1, 2)
    assert isinstance(difference, Difference)
    words = [(word.op, word.text) for word in difference.texts[0].words]
    assert words == [("=", "the "), ("-", "old"), ("+", "new"), ("=", " lamp burns")]


@pytest.mark.parametrize("version", [-1, 3, 2**70])
async def test_a_version_that_is_not_there_is_named_in_the_refusal(engine: Engine, version: int) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "x"})])).id
    await engine.operate(session, ANA, "edit", {"key": "chunks/1", "text": "y"}, expected=1)
    with pytest.raises(VersionNotFoundError) as caught:
        await engine.read(session, ANA, version=version)
    assert (caught.value.version, caught.value.head) == (version, 2)
    with pytest.raises(VersionNotFoundError):
        await engine.diff(session, ANA, 1, version)
    with pytest.raises(VersionNotFoundError):
        await engine.label(session, ANA, "there", version=version)
    with pytest.raises(VersionNotFoundError):
        await engine.restore(session, ANA, version, expected=2)
    assert (await engine.header(session, ANA)).step == 2


async def test_a_label_names_a_version_moves_and_is_gone_back_to(engine: Engine) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    await engine.label(session, ANA, "first")
    await engine.operate(session, ANA, "edit", {"key": "chunks/1", "text": "two"}, expected=1)
    await engine.label(session, ANA, "second")
    await engine.operate(session, ANA, "edit", {"key": "chunks/1", "text": "three"}, expected=2)
    labels = await engine.labels(session, ANA)
    assert [(label.name, label.version, label.actor) for label in labels] == [("second", 2, "ana"), ("first", 1, "ana")]
    await engine.restore(session, ANA, "first", expected=3)
    assert bodies(await engine.read(session, ANA)) == [("chunks/1", "one")]
    await engine.label(session, ANA, "first", version=3)
    await engine.restore(session, ANA, "first", expected=4)
    assert bodies(await engine.read(session, ANA)) == [("chunks/1", "three")]
    assert (await engine.header(session, ANA)).labels == 2
    with pytest.raises(LabelNotFoundError):
        await engine.restore(session, ANA, "third", expected=5)


@pytest.mark.parametrize("name", ["", "x" * 201, "12", "a\nb", "\ud800", "\x00"])
async def test_a_label_that_nobody_could_use_is_refused(engine: Engine, name: str) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    with pytest.raises(InvalidChangeError):
        await engine.label(session, ANA, name)
    assert (await engine.header(session, ANA)).step == 1


async def test_a_restore_to_the_state_it_is_in_commits_nothing(engine: Engine) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    committed = await engine.restore(session, ANA, 1, expected=1)
    assert (committed.version, committed.changes) == (1, {})
    async with engine.edit(session, ANA, expected=1) as draft:
        draft.put("chunks/1", {"text": "one"})
    assert draft.committed is not None
    assert (draft.committed.version, draft.committed.changes) == (1, {})
    assert (await engine.header(session, ANA)).step == 1


async def test_history_is_paged_from_the_newest_down(engine: Engine) -> None:
    session, _ = await long_history(engine, 25)
    whole = await engine.history(session, ANA, limit=1000)
    pages, before = [], None
    while page := await engine.history(session, ANA, before=before, limit=7):
        assert len(page) <= 7
        pages += page
        before = page[-1].step
    assert pages == whole
    assert [entry.step for entry in whole] == list(range(len(whole), 0, -1))
    assert await engine.history(session, ANA, before=2**70, limit=3) == whole[:3]
    assert await engine.history(session, ANA, before=1) == []
    assert await engine.history(session, ANA, before=-5) == []
