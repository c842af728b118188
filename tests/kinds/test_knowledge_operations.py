"""The operations of ``knowledge`` on a real engine and its embedded stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.errors import InvalidChangeError, InvalidError, InvalidItemError, ItemNotFoundError
from holdfast.model.access import Principal
from holdfast.settings import Settings

ANA = Principal(id="ana")
SOURCE = "# Guide\n\n" + "\n\n".join(
    f"Paragraph {n} says things. " + "It goes on about them. " * 25 for n in range(1, 5)
)


class Desk:
    """One session of one author, who always sees the newest version."""

    def __init__(self, engine: Engine, session: str) -> None:
        self.engine, self.session = engine, session

    async def do(self, operation: str, **arguments: Any) -> None:
        header = await self.engine.header(self.session, ANA)
        await self.engine.operate(self.session, ANA, operation, arguments, expected=header.version)

    async def chunks(self) -> dict[str, Any]:
        session = await self.engine.read(self.session, ANA)
        return {item.key: item.body for item in session.collection("chunks")}

    async def keys(self) -> list[str]:
        return list(await self.chunks())


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_engine(Settings(home=tmp_path)) as engine:
        session = await engine.ingest(ANA, SOURCE.encode(), "guide.md")
        yield Desk(engine, session.id)


def cited(body: Any) -> bool:
    """Whether each span of a chunk says what stands in the source."""
    return all(
        body["text"][span.get("at", 0) :][: span["end"] - span["start"]] == SOURCE[span["start"] : span["end"]]
        for span in body.get("spans", [])
    )


async def test_a_document_is_ingested_in_order_under_its_heading(desk: Desk) -> None:
    session = await desk.engine.read(desk.session, ANA)
    assert session.title == "Guide"
    assert await desk.keys() == [f"chunks/000{n}" for n in range(1, 5)]
    assert all(cited(body) and body["headings"] == ["Guide"] for body in (await desk.chunks()).values())


async def test_a_split_makes_two_cited_halves_and_a_merge_makes_the_whole_again(desk: Desk) -> None:
    before = await desk.chunks()
    at = before["chunks/0002"]["text"].index("It goes")
    await desk.do("split", key="chunks/0002", at=at)
    keys = await desk.keys()
    halves = [(await desk.chunks())[key] for key in keys[1:3]]
    assert keys[:2] + keys[3:] == list(before)
    assert halves[0]["text"] + halves[1]["text"] == before["chunks/0002"]["text"]
    assert all(cited(half) and half["origin"] == "parsed" for half in halves)
    assert halves[0]["spans"][0]["end"] == halves[1]["spans"][0]["start"]
    await desk.do("merge", keys=[keys[2], keys[1]], separator="")
    assert await desk.chunks() == before


@pytest.mark.parametrize("at", [-3, 0, 1_000_000])
async def test_a_split_that_leaves_an_empty_half_is_refused(desk: Desk, at: int) -> None:
    before = await desk.chunks()
    with pytest.raises(InvalidChangeError):
        await desk.do("split", key="chunks/0001", at=at)
    assert await desk.chunks() == before


async def test_a_merge_keeps_order_spans_and_metadata(desk: Desk) -> None:
    before = await desk.chunks()
    await desk.do("metadata", key="chunks/0002", patch={"page": 2, "only": "first"})
    await desk.do("metadata", key="chunks/0003", patch={"page": 3, "more": "second"})
    await desk.do("merge", keys=["chunks/0003", "chunks/0002", "chunks/0004"])
    after = await desk.chunks()
    assert list(after) == ["chunks/0001", "chunks/0002"]
    merged = after["chunks/0002"]
    assert merged["text"] == "\n\n".join(before[f"chunks/000{n}"]["text"] for n in (2, 3, 4))
    assert merged["metadata"] == {"page": 2, "only": "first", "more": "second"}
    assert cited(merged)
    assert len(merged["spans"]) == 3


async def test_a_merge_that_makes_no_sense_is_refused_and_says_why(desk: Desk) -> None:
    before = await desk.chunks()
    for keys, error in [
        (["chunks/0001", "chunks/0003"], InvalidChangeError),
        (["chunks/0001", "chunks/0001"], InvalidChangeError),
        (["chunks/0001"], InvalidError),
        (["chunks/0001", "chunks/9999"], ItemNotFoundError),
    ]:
        with pytest.raises(error):
            await desk.do("merge", keys=keys)
    assert await desk.chunks() == before
    await desk.do("disable", keys=["chunks/0002"])
    with pytest.raises(InvalidChangeError, match="disabled"):
        await desk.do("merge", keys=["chunks/0001", "chunks/0002"])


async def test_an_edit_keeps_the_citations_of_what_it_did_not_touch(desk: Desk) -> None:
    text = (await desk.chunks())["chunks/0001"]["text"]
    edited = text.replace("says things", "states its matter")
    await desk.do("edit", key="chunks/0001", text=edited)
    body = (await desk.chunks())["chunks/0001"]
    assert (body["text"], body["origin"]) == (edited, "edited")
    assert cited(body)
    assert sum(span["end"] - span["start"] for span in body["spans"]) >= len(text) - len("says things")


async def test_an_edit_that_changes_nothing_makes_no_version(desk: Desk) -> None:
    version = (await desk.engine.header(desk.session, ANA)).version
    await desk.do("edit", key="chunks/0001", text=(await desk.chunks())["chunks/0001"]["text"])
    assert (await desk.engine.header(desk.session, ANA)).version == version


async def test_a_chunk_without_text_is_refused(desk: Desk) -> None:
    before = await desk.chunks()
    with pytest.raises(InvalidItemError):
        await desk.do("edit", key="chunks/0001", text=" \n")
    with pytest.raises(InvalidItemError):
        await desk.do("insert", text="")
    assert await desk.chunks() == before


async def test_a_chunk_can_be_inserted_anywhere_and_is_known_as_typed_in(desk: Desk) -> None:
    await desk.do("insert", text="after the first", after="chunks/0001")
    await desk.do("insert", text="before the first", before="chunks/0001")
    await desk.do("insert", text="at the end")
    bodies = list((await desk.chunks()).values())
    assert [bodies[at]["text"] for at in (0, 2, -1)] == ["before the first", "after the first", "at the end"]
    assert bodies[0]["headings"] == ["Guide"]
    assert all("spans" not in body for body in (bodies[0], bodies[2], bodies[-1]))
    with pytest.raises(InvalidChangeError):
        await desk.do("insert", text="both", after="chunks/0001", before="chunks/0002")
    with pytest.raises(ItemNotFoundError):
        await desk.do("insert", text="nowhere", after="chunks/none")


async def test_inserts_sent_again_with_their_change_id_are_made_once(desk: Desk) -> None:
    for _ in range(2):
        await desk.engine.operate(
            desk.session, ANA, "insert", {"text": "once"}, expected=1, change_id="a-change-of-one-insert"
        )
    assert [body["text"] for body in (await desk.chunks()).values()].count("once") == 1


async def test_chunks_are_disabled_and_enabled_together(desk: Desk) -> None:
    await desk.do("disable", keys=["chunks/0001", "chunks/0003"])
    assert [body.get("enabled", True) for body in (await desk.chunks()).values()] == [False, True, False, True]
    with pytest.raises(ItemNotFoundError):
        await desk.do("enable", keys=["chunks/0001", "chunks/none"])
    assert not (await desk.chunks())["chunks/0001"].get("enabled", True)
    await desk.do("enable", keys=["chunks/0001", "chunks/0003", "chunks/0004"])
    assert all(body.get("enabled", True) for body in (await desk.chunks()).values())


async def test_a_chunk_can_be_moved_anywhere(desk: Desk) -> None:
    await desk.do("move", key="chunks/0004", before="chunks/0001")
    await desk.do("move", key="chunks/0001", after="chunks/0002")
    assert [key[-1] for key in await desk.keys()] == ["4", "2", "1", "3"]
    await desk.do("move", key="chunks/0004")
    assert [key[-1] for key in await desk.keys()] == ["2", "1", "3", "4"]
    for arguments in ({"after": "chunks/0004"}, {"after": "chunks/0001", "before": "chunks/0002"}):
        with pytest.raises(InvalidChangeError):
            await desk.do("move", key="chunks/0004", **arguments)
    with pytest.raises(ItemNotFoundError):
        await desk.do("move", key="chunks/0004", after="chunks/none")
    with pytest.raises(InvalidChangeError):
        await desk.do("move", key="pages/1")


async def test_metadata_is_patched_as_rfc_7396_says(desk: Desk) -> None:
    patches: list[dict[str, Any]] = [
        {"a": 1, "deep": {"x": 1, "y": [1, 2]}},
        {"a": None, "deep": {"x": None, "z": {}}},
        {"deep": {"y": 3}},
    ]
    for patch in patches:
        await desk.do("metadata", key="chunks/0001", patch=patch)
    assert (await desk.chunks())["chunks/0001"]["metadata"] == {"deep": {"y": 3, "z": {}}}


async def test_every_operation_is_undone_and_redone_whole(desk: Desk) -> None:
    states = [await desk.chunks()]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("split", {"key": "chunks/0001", "at": 40}),
        ("merge", {"keys": ["chunks/0002", "chunks/0003"]}),
        ("edit", {"key": "chunks/0004", "text": "quite another text"}),
        ("insert", {"text": "typed in", "after": "chunks/0002"}),
        ("disable", {"keys": ["chunks/0002", "chunks/0004"]}),
        ("enable", {"keys": ["chunks/0004"]}),
        ("move", {"key": "chunks/0004", "before": "chunks/0001"}),
        ("metadata", {"key": "chunks/0001", "patch": {"k": "v"}}),
    ]
    for operation, arguments in steps:
        await desk.do(operation, **arguments)
        states.append(await desk.chunks())
    for state in reversed(states[:-1]):
        version = (await desk.engine.header(desk.session, ANA)).version
        await desk.engine.undo(desk.session, ANA, expected=version)
        assert list((await desk.chunks()).items()) == list(state.items())
    for state in states[1:]:
        version = (await desk.engine.header(desk.session, ANA)).version
        await desk.engine.redo(desk.session, ANA, expected=version)
        assert list((await desk.chunks()).items()) == list(state.items())


async def test_publishing_embeds_only_what_changed_since_the_last_time(desk: Desk) -> None:
    engine = desk.engine
    first = await engine.preview(desk.session, ANA)
    assert (first.forecast.records, first.forecast.embeds) == (4, 4)
    await engine.publish(desk.session, ANA, seal=first.seal)
    assert (await engine.search(ANA, "paragraph says things", limit=9))[0].body["title"] == "Guide"
    again = Desk(engine, (await engine.reopen(desk.session, ANA)).id)
    await again.do("edit", key="chunks/0002", text="An entirely new statement about herons.")
    await again.do("metadata", key="chunks/0003", patch={"reviewed": True})
    await again.do("disable", keys=["chunks/0004"])
    second = await engine.preview(again.session, ANA)
    assert (second.forecast.records, second.forecast.new, second.forecast.embeds) == (3, 2, 1)
    assert second.counts["deleted"] == 1
    assert all("herons" not in hit.text for hit in await engine.search(ANA, "herons", limit=9))
    receipt = await engine.publish(again.session, ANA, seal=second.seal)
    hits = await engine.search(ANA, "herons", limit=9)
    assert "herons" in hits[0].text
    assert {hit.revision for hit in hits} == {receipt.revision}
