"""An edit through a service: what the block sees, what is sent, and what is not sent twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.client import Client, seen
from holdfast.client.drafting import _KEPT, _KEPT_BYTES, Kept
from holdfast.errors import (
    InvalidChangeError,
    InvalidItemError,
    ItemNotFoundError,
    LimitExceededError,
    RateLimitedError,
    SessionGoneError,
    SessionNotFoundError,
    VersionConflictError,
)
from holdfast.model.change import Conflict
from holdfast.model.session import Session
from holdfast.testing.serving import Served
from holdfast.testing.wires import Scripted, proxy, refusing
from holdfast.wire.changes import Step, make

Connect = Callable[..., Any]


@asynccontextmanager
async def watched(service: Served, connect: Connect) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client of ana's, and the methods of what it asks as it asks it."""
    asked: list[str] = []

    def watch(line: str) -> None:
        asked.append(line.partition(" ")[0])

    async with proxy(service.address, watch) as address:
        yield await connect(address=address), asked


async def test_a_draft_shows_its_own_changes_in_order(client: Client, session: str) -> None:
    async with client.edit(session, expected=1) as draft:
        first = draft.new_key("chunks")
        draft.put(first, {"text": "new"}, after="chunks/1")
        draft.move("chunks/3", before="chunks/1")
        draft.delete("chunks/2")
        assert [item.key for item in draft.collection("chunks")] == ["chunks/3", "chunks/1", first]
        assert draft.body(first) == {"text": "new"}
        assert draft.get("chunks/2") is None
        with pytest.raises(ItemNotFoundError):
            draft.body("chunks/2")
        with pytest.raises(LookupError):
            _ = draft.result
    assert draft.result.changes == {first: "added", "chunks/3": "moved", "chunks/2": "deleted"}
    assert [item.key for item in (await client.read(session)).items] == ["chunks/3", "chunks/1", first]


async def test_steps_that_take_each_other_back_land_as_they_were_made(client: Client, session: str) -> None:
    async with client.edit(session, expected=1) as draft:
        draft.delete("chunks/1")
        draft.put("chunks/1", {"text": "at the end now"})
        draft.put("chunks/4", {"text": "for a moment"})
        draft.delete("chunks/4")
    assert draft.result.changes == {"chunks/1": "changed"}
    assert [item.key for item in (await client.read(session)).items] == [
        item.key for item in draft.collection("chunks")
    ]


async def test_a_body_is_sent_as_it_was_when_it_was_put(client: Client, session: str) -> None:
    body = {"text": "as it was", "metadata": {"n": 1}}
    async with client.edit(session, expected=1) as draft:
        draft.put("chunks/1", body)
        body["text"] = "as it became"
        draft.put("chunks/2", body)
    texts = [item.body["text"] for item in (await client.read(session)).items]
    assert texts == ["as it was", "as it became", "three"]


async def test_an_exception_sends_nothing(service: Served, connect: Connect) -> None:
    async with watched(service, connect) as (client, asked):
        session = (await client.create(kind="knowledge")).id
        with pytest.raises(ZeroDivisionError):
            async with client.edit(session, expected=1) as draft:
                draft.put("chunks/1", {"text": str(1 / 0)})
        assert asked == ["POST", "GET"]
        assert (await client.header(session)).version == 1


async def test_what_was_read_is_not_sent_again(service: Served, connect: Connect) -> None:
    """The service says that it still stands (304), and does not send it."""
    async with watched(service, connect) as (client, asked):
        session = await client.create(kind="knowledge", items=[("chunks/1", {"text": "x" * 100_000})])
        read = await client.read(session.id)
        assert read is session
        async with client.edit(session.id, expected=1) as draft:
            assert draft.body("chunks/1")["text"] == "x" * 100_000
            draft.put("chunks/1", {"text": "y"})
        after = await client.read(session.id)
        assert after is not session
        assert [item.body for item in after.items] == [{"text": "y"}]
        assert asked == ["POST", "GET", "GET", "PATCH", "GET"]


async def test_what_is_at_hand_does_not_hide_that_it_is_gone_or_closed(connect: Connect, client: Client) -> None:
    session = (await client.create(kind="knowledge", items=[("chunks/1", {"text": "x"})])).id
    other = await connect("ada")
    assert (await other.read(session)).version == 1
    await client.discard(session)
    for reader in (client, other):
        with pytest.raises(SessionGoneError):
            await reader.read(session)
        with pytest.raises(SessionGoneError):
            async with reader.edit(session, expected=1):
                pass
    with pytest.raises(SessionNotFoundError):
        await (await connect("ben")).read(session)


async def test_a_conflict_has_what_a_merge_needs(connect: Connect, client: Client, session: str) -> None:
    other = await connect()
    async with other.edit(session, expected=1) as theirs:
        theirs.put("chunks/1", {"text": "theirs"})
    with pytest.raises(VersionConflictError) as raised:
        async with client.edit(session, expected=1) as mine:
            mine.put("chunks/1", {"text": "mine"})
    assert (raised.value.expected, raised.value.actual) == (1, 2)
    assert raised.value.conflicts == (Conflict("chunks/1", {"text": "one"}, {"text": "theirs"}, {"text": "mine"}),)


async def test_what_a_block_looked_at_counts_for_a_rebase(connect: Connect, client: Client, session: str) -> None:
    other = await connect()
    async with other.edit(session, expected=1) as theirs:
        theirs.put("chunks/1", {"text": "theirs"})
    async with client.edit(session, expected=1, rebase=True) as blind:
        blind.put("chunks/2", {"text": "by itself"})
    assert blind.result.version == 3
    with pytest.raises(VersionConflictError) as raised:
        async with client.edit(session, expected=1, rebase=True) as looking:
            looking.put("chunks/3", {"text": f"after {looking.body('chunks/1')['text']}"})
    assert [conflict.key for conflict in raised.value.conflicts] == ["chunks/1"]
    with pytest.raises(VersionConflictError):
        async with client.edit(session, expected=1, rebase=True) as counting:
            counting.put("chunks/3", {"text": f"of {len(counting.collection('chunks'))}"})


async def test_a_state_that_was_seen_is_of_one_history(client: Client, session: str) -> None:
    state = seen(await client.read(session))
    assert state == seen(await client.header(session))
    async with client.edit(session, expected=state) as draft:
        draft.put("chunks/1", {"text": "mine"})
    assert (await client.undo(session, expected=seen(draft.result))).version == 3
    forged = replace(seen(await client.header(session)), digest=b"another!")
    with pytest.raises(VersionConflictError):
        async with client.edit(session, expected=forged) as draft:
            draft.put("chunks/1", {"text": "mine"})
    with pytest.raises(VersionConflictError):
        await client.undo(session, expected=forged)


async def test_a_block_over_a_state_of_another_history_does_not_land(client: Client, session: str) -> None:
    """A bare version is of whatever history; what the block decides by is of the one that this client has read."""
    kept = client._kept.get(session)
    assert kept is not None
    client._kept.keep(Session(replace(kept.header, digest=b"another!" * 4), kept.by_key))
    with pytest.raises(VersionConflictError):
        async with client.edit(session, expected=1) as draft:
            draft.put("chunks/1", {"text": draft.body("chunks/2")["text"]})


async def test_the_same_id_makes_the_same_keys_and_is_answered_once(connect: Connect, session: str) -> None:
    keys = set()
    for at in range(2):
        client = await connect()
        async with client.edit(session, expected=1, change_id="form-42") as draft:
            keys.add(key := draft.new_key("chunks"))
            draft.put(key, {"text": "new"})
        assert draft.result.replayed is bool(at)
    assert len(keys) == 1


@pytest.mark.parametrize("body", [{"text": float("nan")}, {"text": "\ud800"}, {1: 2}, {"text": object()}])
async def test_what_is_no_json_is_refused_before_it_is_sent(client: Client, session: str, body: Any) -> None:
    async with client.edit(session, expected=1) as draft:
        with pytest.raises(InvalidItemError):
            draft.put("chunks/1", body)
    with pytest.raises(InvalidItemError):
        await client.create(kind="knowledge", items=[("chunks/1", body)])
    with pytest.raises((InvalidItemError, InvalidChangeError)):
        await client.operate(session, "metadata", {"key": "chunks/1", "set": body}, expected=1)


async def test_how_much_is_too_much_the_service_says(client: Client, session: str) -> None:
    with pytest.raises(LimitExceededError) as raised:
        async with client.edit(session, expected=1) as draft:
            make(draft, [Step(put=f"chunks/more-{number}", body={"text": "x"}) for number in range(200)])
    assert (raised.value.limit, raised.value.maximum) == ("items in a session", 100)


@pytest.mark.parametrize("name", ["", "é", "two\nlines", "\x7f"])
async def test_a_change_id_that_no_header_holds_is_refused(client: Client, session: str, name: str) -> None:
    with pytest.raises(InvalidChangeError):
        await client.touch(session, change_id=name)


@pytest.mark.parametrize("name", [" edges ", '"quoted"', '"', "a,b;c=d"])
async def test_any_printable_change_id_arrives_as_it_is(client: Client, session: str, name: str) -> None:
    await client.rename(session, "Named", change_id=name)
    assert (await client.history(session, limit=1))[0].header.change == name


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a b?c#d%e", "ünï", "%2e"])
async def test_any_name_can_be_a_label_or_a_principal(client: Client, session: str, name: str) -> None:
    assert (await client.label(session, name)).name == name
    assert name in (await client.grant(session, name, None if name == "." else "viewer")).grants or name == "."  # type: ignore[arg-type]
    assert [label.name for label in await client.labels(session)] == [name]


@pytest.mark.parametrize("name", ['a "q" b.md', "a\\b.md", "ü %22.md", "a;b=c.md"])
async def test_a_document_keeps_its_name(client: Client, name: str) -> None:
    made = await client.ingest(b"# A\n\ntext", name)
    assert made.source["name"] == name
    with pytest.raises(InvalidChangeError):
        await client.ingest(b"# A\n\ntext", f"{name}\r\nX: y")


async def test_half_a_character_is_refused_and_not_sent(client: Client, session: str) -> None:
    for asked in (client.rename(session, "\ud800"), client.label(session, "\ud800"), client.ingest(b"# A", "\ud800")):
        with pytest.raises(InvalidChangeError):
            await asked


async def test_an_upload_is_sent_again_whole() -> None:
    busy = refusing(RateLimitedError("requests", 0.0), "Retry-After: 0")
    service = Scripted(busy, busy)
    async with service.open() as address, Client(address, token="t", retries=1) as client:
        with pytest.raises(RateLimitedError):
            await client.ingest(b"x" * 1_000_000, "a.md", title="T")
    first, second = service.asked
    assert first == second
    assert first.body.count(b"x" * 1_000_000) == 1


def test_few_sessions_are_kept_and_not_much_of_them(session_of: Callable[[str, int], Session]) -> None:
    kept = Kept()
    for number in range(200):
        kept.keep(session_of(str(number), 1_000))
    assert kept.get("0") is None
    assert sum(kept.get(str(number)) is not None for number in range(200)) == _KEPT
    for number in range(10):
        kept.keep(session_of(f"big {number}", 10_000_000))
    held = [kept.get(f"big {number}") for number in range(10)]
    assert 0 < sum(one.header.size for one in held if one is not None) <= _KEPT_BYTES
    kept.keep(session_of("huge", _KEPT_BYTES + 1))
    assert kept.get("huge") is None
    assert kept.get("big 9", 2) is None


@pytest.fixture
async def session_of(client: Client) -> Callable[[str, int], Session]:
    """Makes a session of an id and a size."""
    header = (await client.create(kind="knowledge")).header
    return lambda id, size: Session(replace(header, id=id, size=size), {})


async def test_what_may_not_be_the_newest_is_not_kept(client: Client, session: str) -> None:
    """Else a session that was read while the hot tier was gone would be taken for the one that stands."""
    found, kept = await client.read(session), Kept()
    stale = Session(replace(found.header, stale=True), found.by_key)
    kept.keep(found)
    assert kept.keep(stale) is stale
    assert kept.get(session) is found
