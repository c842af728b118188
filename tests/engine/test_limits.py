"""S20: over a limit nothing is changed, and the refusal names the limit and its setting; bombs cost no memory."""

# ruff: noqa: PT012 - an edit is a block

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError, InvalidError, InvalidItemError, LimitExceededError
from holdfast.model.access import Principal, Role
from holdfast.model.limits import Limits
from holdfast.settings import Settings

ANA = Principal("ana")
SMALL = Limits(
    session_bytes=2_000,
    items=5,
    item_bytes=600,
    depth=8,
    operations=4,
    sessions=3,
    labels=3,
    grants=2,
    source_bytes=5_000,
)


def body(size: int) -> dict[str, str]:
    """A body of exactly so many bytes."""
    return {"text": "x" * (size - len('{"text":""}'))}


@pytest.fixture
async def small(opens: Any, settings: Settings) -> Engine:
    return await opens(Settings(home=settings.home, limits=SMALL))  # type: ignore[no-any-return]


async def start(engine: Engine, count: int = 1) -> str:
    items = [(f"chunks/{n}", {"text": "x"}) for n in range(count)]
    return str((await engine.create(ANA, kind="knowledge", items=items)).id)


async def unchanged(
    engine: Engine, session: str, error: LimitExceededError, limit: str, figure: int, most: int
) -> None:
    assert (error.limit, error.figure, error.maximum) == (limit, figure, most)
    assert limit in str(error)
    assert "raise the setting `limits." in str(error)
    assert f"{most:,}" in str(error)
    assert (await engine.header(session, ANA)).step == 1


async def test_s20_items_in_a_session(small: Engine) -> None:
    session = await start(small, 5)
    with pytest.raises(LimitExceededError) as caught:
        async with small.edit(session, ANA, expected=1) as draft:
            draft.put("chunks/a", {"text": "x"})
    await unchanged(small, session, caught.value, "items in a session", 6, 5)
    with pytest.raises(LimitExceededError) as caught:
        await start(small, 6)
    assert caught.value.limit == "items in a session"
    async with small.edit(session, ANA, expected=1) as draft:
        draft.delete("chunks/0")
        draft.put("chunks/a", {"text": "x"})
    assert draft.committed is not None


async def test_s20_bytes_of_an_item(small: Engine) -> None:
    session = await start(small)
    with pytest.raises(LimitExceededError) as caught:
        async with small.edit(session, ANA, expected=1) as draft:
            draft.put("chunks/0", body(601))
    await unchanged(small, session, caught.value, "item bytes", 601, 600)
    async with small.edit(session, ANA, expected=1) as draft:
        draft.put("chunks/0", body(600))
    assert draft.committed is not None


async def test_s20_bytes_in_a_session(small: Engine) -> None:
    session = await start(small)
    with pytest.raises(LimitExceededError) as caught:
        async with small.edit(session, ANA, expected=1) as draft:
            for n, size in enumerate((600, 600, 600, 201)):
                draft.put(f"chunks/{n}", body(size))
    await unchanged(small, session, caught.value, "bytes in a session", 2001, 2000)
    async with small.edit(session, ANA, expected=1) as draft:
        for n, size in enumerate((600, 600, 600, 200)):
            draft.put(f"chunks/{n}", body(size))
    assert (await small.header(session, ANA)).size == 2000
    async with small.edit(session, ANA, expected=2) as draft:
        draft.put("chunks/0", body(500))
    assert (await small.header(session, ANA)).size == 1900


async def test_s20_operations_in_one_change_set(small: Engine) -> None:
    session = await start(small, 5)
    with pytest.raises(LimitExceededError) as caught:
        async with small.edit(session, ANA, expected=1) as draft:
            for n in range(5):
                draft.delete(f"chunks/{n}")
    await unchanged(small, session, caught.value, "operations in one change-set", 5, 4)


async def test_s20_depth_of_a_body(small: Engine) -> None:
    session = await start(small)

    def nested(levels: int) -> Any:
        value: Any = {}
        for _ in range(levels - 1):
            value = {"a": value}
        return value

    for levels in (9, 100_000):
        with pytest.raises(LimitExceededError) as caught:
            async with small.edit(session, ANA, expected=1) as draft:
                draft.put("chunks/0", nested(levels))
        await unchanged(small, session, caught.value, "JSON depth", 9, 8)
        with pytest.raises(LimitExceededError):
            await small.operate(session, ANA, "metadata", {"key": "chunks/0", "patch": nested(levels)}, expected=1)
    async with small.edit(session, ANA, expected=1) as draft:
        draft.put("chunks/0", {"text": "x", "metadata": nested(7)})
    assert draft.committed is not None


async def test_s20_sessions_of_one_owner(small: Engine) -> None:
    sessions = [await start(small) for _ in range(3)]
    with pytest.raises(LimitExceededError) as caught:
        await start(small)
    await unchanged(small, sessions[0], caught.value, "sessions of one owner", 4, 3)
    await small.create(Principal("ben"), kind="knowledge")
    await small.create(Principal("ana", tenant="other"), kind="knowledge")
    await small.discard(sessions[0], ANA)
    await start(small)


async def test_s20_labels_and_grants(small: Engine) -> None:
    session = await start(small)
    for n in range(3):
        await small.label(session, ANA, f"label {n}")
    with pytest.raises(LimitExceededError) as caught:
        await small.label(session, ANA, "one more")
    assert (caught.value.limit, caught.value.figure, caught.value.maximum) == ("labels in a session", 4, 3)
    await small.label(session, ANA, "label 1")
    for n in range(2):
        await small.grant(session, ANA, f"p{n}", Role.VIEWER)
    with pytest.raises(LimitExceededError) as caught:
        await small.grant(session, ANA, "p2", Role.VIEWER)
    assert (caught.value.limit, caught.value.figure, caught.value.maximum) == ("grants on a session", 3, 2)
    await small.grant(session, ANA, "p1", Role.EDITOR)
    assert (await small.header(session, ANA)).labels == 3


async def test_s20_bytes_of_a_source(small: Engine) -> None:
    with pytest.raises(LimitExceededError) as caught:
        await small.ingest(ANA, b"x" * 5_001, "a.md")
    assert (caught.value.limit, caught.value.figure) == ("bytes of a source", 5_001)
    assert (await small.find(ANA)).headers == ()


async def test_s20_a_refused_creation_leaves_nothing_behind(small: Engine, settings: Settings) -> None:
    with pytest.raises(LimitExceededError):
        await small.ingest(ANA, b"# T\n\n" + b"word " * 900, "a.md")
    assert (await small.find(ANA)).headers == ()
    assert [path for path in (settings.home / "cold").rglob("*") if path.is_file()] == []


BAD: dict[str, Any] = {
    "a number that is none": float("nan"),
    "infinity": float("inf"),
    "a huge integer": 10**400,
    "a lone surrogate": "\ud800",
    "a key that is a lone surrogate": {"\ud800": 1},
    "a key that is a number": {1: 1},
    "bytes": b"x",
    "a set": {1},
    "an object": object(),
    "a date": __import__("datetime").datetime(2026, 1, 1),
}


@pytest.mark.parametrize("what", BAD)
async def test_s20_what_is_not_json_is_refused(engine: Engine, what: str) -> None:
    session = await start(engine)
    with pytest.raises(InvalidItemError):
        async with engine.edit(session, ANA, expected=1) as draft:
            draft.put("chunks/0", {"text": "x", "metadata": {"a": BAD[what]}})
    with pytest.raises(InvalidError):
        arguments = {"key": "chunks/0", "patch": {"a": BAD[what]}}
        await engine.operate(session, ANA, "metadata", arguments, expected=1)
    with pytest.raises(InvalidError):
        await engine.create(ANA, kind="knowledge", items=[("chunks/0", {"text": "x", "metadata": {"a": BAD[what]}})])
    assert (await engine.header(session, ANA)).step == 1


@pytest.mark.parametrize("field", ["title", "target"])
@pytest.mark.parametrize("text", ["\ud800", "x" * 501])
async def test_s20_names_are_text_of_a_sensible_length(engine: Engine, field: str, text: str) -> None:
    given: dict[str, Any] = {field: text}
    with pytest.raises(InvalidError):
        await engine.create(ANA, kind="knowledge", **given)
    if field == "title":
        session = await start(engine)
        with pytest.raises(InvalidError):
            await engine.rename(session, ANA, text)
    with pytest.raises(HoldfastError):
        await engine.ingest(ANA, b"# T\n\ntext\n", "\ud800.md")


async def test_s20_filters_of_any_text_find_nothing_and_break_nothing(engine: Engine) -> None:
    await start(engine)
    for text in ("\ud800", "x" * 100_000, "a\0b"):
        for field in ("kind", "status", "owner", "text"):
            given: dict[str, Any] = {field: text}
            assert (await engine.find(ANA, **given)).headers == ()


BOMB = """
import asyncio, resource, sys, tempfile
from pathlib import Path
from holdfast.compose import open_engine
from holdfast.errors import InvalidError
from holdfast.model.access import Principal
from holdfast.settings import Settings

ANA = Principal("ana")

def doubled(levels):
    value = ["x" * 10]
    for _ in range(levels):
        value = [value, value]
    return value

BOMBS = {
    "doubled": doubled(60),
    "a long text, many times over": ["x" * 100_000] * 10_000,
    "wide": [0] * 5_000_000,
    "deep": None,
}
deep = []
for _ in range(200_000):
    deep = [deep]
BOMBS["deep"] = deep

async def main(home):
    async with open_engine(Settings(home=home)) as engine:
        session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "x"})])).id
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for bomb in BOMBS.values():
            for refused in ("edit", "operate"):
                try:
                    if refused == "edit":
                        async with engine.edit(session, ANA, expected=1) as draft:
                            draft.put("chunks/1", {"text": "x", "metadata": {"a": bomb}})
                    else:
                        arguments = {"key": "chunks/1", "patch": {"a": bomb}}
                        await engine.operate(session, ANA, "metadata", arguments, expected=1)
                except InvalidError:
                    continue
                sys.exit("a bomb was let in")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(grown)

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.no_cover
def test_s20_bombs_are_refused_and_cost_no_memory(settings: Settings) -> None:
    """At most three times the 10 MB of the largest session may be taken by a refusal."""
    code = textwrap.dedent(BOMB)
    done = subprocess.run(
        [sys.executable, "-c", code, str(settings.home)], capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kib = int(done.stdout)
    print(f"S20 bombs=8 accepted=0 memory grown by {kib} KiB")
    assert kib < 3 * 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


async def test_s20_a_session_at_the_default_limits_is_taken(engine: Engine) -> None:
    items = [(f"chunks/{n}", {"text": "x" * 99_000}) for n in range(100)]
    session = await engine.create(ANA, kind="knowledge", items=items)
    assert (session.header.count, len((await engine.read(session.id, ANA)).items)) == (100, 100)
    with pytest.raises(LimitExceededError) as caught:
        async with engine.edit(session.id, ANA, expected=1) as draft:
            draft.put("chunks/0", {"text": "x" * 999_000})
    assert caught.value.limit == "bytes in a session"
