"""Patches of sessions and of items, on a real draft and on a real engine (R04 where others write at the same time)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jsonpatch
import jsonpointer
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.engine.draft import DraftView
from holdfast.engine.engine import Engine
from holdfast.errors import (
    HoldfastError,
    InvalidChangeError,
    InvalidItemError,
    LimitExceededError,
    VersionConflictError,
)
from holdfast.model.access import Principal
from holdfast.model.item import Item, check_key
from holdfast.model.limits import Limits
from holdfast.model.patch import PatchOperation, merged, same
from holdfast.service import patching

ANA = Principal(id="ana")
LIMITS = Limits()
DOCUMENT: Mapping[str, Mapping[str, Any]] = {
    "chunks": {"1": {"text": "one", "tags": ["a"]}, "2": {"text": "two"}, "3": {"text": "three"}},
    "notes": {"a~b": {"by": {"ana": 1}}},
}


def draft_of(document: Mapping[str, Mapping[str, Any]] = DOCUMENT, limits: Limits = LIMITS) -> DraftView:
    keys = [(f"{collection}/{name}", body) for collection, items in document.items() for name, body in items.items()]
    items = [Item(key, f"b{at:02}", msgspec.json.encode(body), 1, 1) for at, (key, body) in enumerate(keys)]
    return DraftView({item.key: item for item in items}, limits, "change")


def document_of(draft: DraftView, *collections: str) -> dict[str, dict[str, Any]]:
    return {
        name: {item.key.partition("/")[2]: item.body for item in draft.collection(name)}
        for name in collections or ("chunks", "notes")
    }


def order(draft: DraftView) -> list[str]:
    return [item.key for item in draft._ordered()]


def operations(*patch: dict[str, Any]) -> list[PatchOperation]:
    return msgspec.convert(patch, list[PatchOperation])


def apply(draft: DraftView, *patch: dict[str, Any], limits: Limits = LIMITS) -> DraftView:
    patching.apply(draft, operations(*patch), limits)
    return draft


def merge(draft: DraftView, patch: Any, limits: Limits = LIMITS) -> DraftView:
    patching.merge(draft, patch, limits)
    return draft


# -- merge patches -----------------------------------------------------------------------------------------------------


def test_a_merge_patch_changes_adds_and_removes_items() -> None:
    draft = merge(
        draft_of(),
        {"chunks": {"1": {"text": "new", "tags": None}, "2": None, "9": {"text": "nine", "gone": None}}, "notes": None},
    )
    assert document_of(draft) == {
        "chunks": {"1": {"text": "new"}, "3": {"text": "three"}, "9": {"text": "nine"}},
        "notes": {},
    }
    assert order(draft) == ["chunks/1", "chunks/3", "chunks/9"]


def test_a_merge_patch_reads_and_writes_only_what_it_names() -> None:
    draft = merge(draft_of(), {"chunks": {"1": {"text": "new"}, "8": None}})
    assert draft.reads == {"chunks/1", "chunks/8"}
    assert draft.wanted.keys() == {"chunks/1"}
    assert not draft.collections


@pytest.mark.parametrize(
    "patch", [None, [], "x", 1, {"chunks": []}, {"chunks": 1}, {"chunks": {"1": None}, "notes": "x"}]
)
def test_a_merge_patch_that_leaves_no_session_is_refused_before_anything_is_done(patch: Any) -> None:
    draft = draft_of()
    with pytest.raises(InvalidChangeError):
        merge(draft, patch)
    assert not draft.wanted


@pytest.mark.parametrize(
    ("collection", "name"), [("Chunks", "1"), ("chunks", ""), ("chunks", "a/b"), ("a/b", "c"), ("", "x")]
)
def test_a_name_that_no_item_can_have_is_refused(collection: str, name: str) -> None:
    for body in ({"text": "x"}, None):
        with pytest.raises(InvalidItemError):
            merge(draft_of(), {collection: {name: body}})
    step = name.replace("/", "~1")
    with pytest.raises(InvalidItemError):
        apply(draft_of(), {"op": "add", "path": f"/{collection.replace('/', '~1')}/{step}", "value": {}})
    with pytest.raises(InvalidItemError):
        apply(draft_of(), {"op": "add", "path": f"/{collection.replace('/', '~1')}", "value": {name: {}}})


def test_a_merge_patch_of_more_items_than_a_change_set_may_have_is_refused_unread() -> None:
    draft = draft_of()
    with pytest.raises(LimitExceededError):
        merge(draft, {"chunks": {str(number): None for number in range(1_001)}})
    assert not draft.reads


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_merge_patch_of_a_session_does_what_rfc_7396_says_of_its_document(data: st.DataObject) -> None:
    body = st.dictionaries(st.sampled_from("xy"), st.sampled_from([None, 1, {"z": None}, {"z": 2}]), max_size=2)
    items = st.dictionaries(st.sampled_from(["1", "2", "9", "a~b"]), st.none() | body, max_size=4)
    patch = data.draw(st.dictionaries(st.sampled_from(["chunks", "notes"]), st.none() | items))
    expected = {"chunks": {}, "notes": {}} | merged(copy.deepcopy(dict(DOCUMENT)), patch)
    assert document_of(merge(draft_of(), patch)) == expected


# -- JSON patches ------------------------------------------------------------------------------------------------------


def test_a_patch_changes_what_its_pointers_name() -> None:
    draft = apply(
        draft_of(),
        {"op": "test", "path": "/chunks/1/text", "value": "one"},
        {"op": "replace", "path": "/chunks/1/text", "value": "new"},
        {"op": "add", "path": "/chunks/1/tags/0", "value": "b"},
        {"op": "remove", "path": "/chunks/2"},
        {"op": "add", "path": "/notes/a~0b/by/ben", "value": 2},
        {"op": "add", "path": "/notes/new", "value": {}},
        {"op": "copy", "from": "/chunks/3", "path": "/chunks/4"},
    )
    assert document_of(draft) == {
        "chunks": {"1": {"text": "new", "tags": ["b", "a"]}, "3": {"text": "three"}, "4": {"text": "three"}},
        "notes": {"a~b": {"by": {"ana": 1, "ben": 2}}, "new": {}},
    }


def test_a_patch_reads_only_what_it_names_and_writes_only_what_it_changes() -> None:
    draft = apply(
        draft_of(),
        {"op": "test", "path": "/chunks/2/text", "value": "two"},
        {"op": "replace", "path": "/chunks/1/text", "value": "new"},
        {"op": "replace", "path": "/chunks/3/text", "value": "three"},
    )
    assert draft.reads == {"chunks/1", "chunks/2", "chunks/3"}
    assert draft.wanted.keys() == {"chunks/1"}
    assert not draft.collections


def test_a_patch_that_looks_at_a_whole_collection_has_read_it() -> None:
    draft = apply(draft_of(), {"op": "test", "path": "/chunks", "value": dict(DOCUMENT["chunks"])})
    assert draft.collections == {"chunks"}
    assert not draft.wanted


def test_an_item_moved_to_another_name_stays_where_it_stands() -> None:
    draft = apply(
        draft_of(),
        {"op": "move", "from": "/chunks/1", "path": "/chunks/first"},
        {"op": "move", "from": "/chunks/first", "path": "/chunks/begin"},
        {"op": "move", "from": "/chunks/2", "path": "/notes/two"},
    )
    assert order(draft) == ["chunks/begin", "notes/two", "chunks/3", "notes/a~b"]
    assert draft.wanted.keys() == {"chunks/1", "chunks/begin", "chunks/2", "notes/two"}


def test_two_items_can_change_names() -> None:
    draft = apply(
        draft_of(),
        {"op": "move", "from": "/chunks/1", "path": "/chunks/tmp"},
        {"op": "move", "from": "/chunks/2", "path": "/chunks/1"},
        {"op": "move", "from": "/chunks/tmp", "path": "/chunks/2"},
    )
    assert document_of(draft)["chunks"] == {
        "1": {"text": "two"},
        "2": {"text": "one", "tags": ["a"]},
        "3": {"text": "three"},
    }
    assert order(draft) == ["chunks/1", "chunks/2", "chunks/3", "notes/a~b"]


def test_an_item_removed_and_added_again_is_written_once_in_its_place() -> None:
    draft = apply(
        draft_of(),
        {"op": "remove", "path": "/chunks/2"},
        {"op": "add", "path": "/chunks/2", "value": {"text": "again"}},
        {"op": "add", "path": "/chunks/9", "value": {}},
        {"op": "remove", "path": "/chunks/9"},
        {"op": "add", "path": "/chunks/3", "value": {"text": "never seen"}},
        {"op": "remove", "path": "/chunks/3"},
    )
    assert order(draft) == ["chunks/1", "chunks/2", "notes/a~b"]
    assert draft.wanted.keys() == {"chunks/2", "chunks/3"}


def test_a_collection_is_replaced_whole_and_what_is_in_both_keeps_its_place() -> None:
    draft = apply(
        draft_of(),
        {"op": "replace", "path": "/chunks", "value": {"9": {"text": "nine"}, "2": {"text": "two"}, "1": {}}},
    )
    assert order(draft) == ["chunks/1", "chunks/2", "notes/a~b", "chunks/9"]
    assert draft.wanted.keys() == {"chunks/1", "chunks/3", "chunks/9"}
    assert draft.collections == {"chunks"}


def test_a_collection_is_there_even_with_nothing_in_it() -> None:
    draft = apply(
        draft_of(),
        {"op": "remove", "path": "/chunks"},
        {"op": "test", "path": "/chunks", "value": {}},
        {"op": "add", "path": "/chunks/new", "value": {"text": "new"}},
        {"op": "test", "path": "/empty", "value": {}},
        {"op": "move", "from": "/notes", "path": "/empty"},
        {"op": "copy", "from": "/empty", "path": "/notes"},
    )
    assert document_of(draft, "chunks", "notes", "empty") == {
        "chunks": {"new": {"text": "new"}},
        "notes": DOCUMENT["notes"],
        "empty": DOCUMENT["notes"],
    }


@pytest.mark.parametrize(
    "patch",
    [
        {"op": "remove", "path": ""},
        {"op": "replace", "path": "", "value": {}},
        {"op": "test", "path": "", "value": {}},
        {"op": "copy", "from": "", "path": "/chunks/x"},
        {"op": "move", "from": "", "path": "/chunks/x"},
        {"op": "add", "path": "/chunks", "value": [1]},
        {"op": "copy", "from": "/chunks/1/tags", "path": "/chunks"},
        {"op": "test", "path": "/chunks/1/text", "value": "two"},
        {"op": "remove", "path": "/chunks/9"},
        {"op": "move", "from": "/chunks", "path": "/chunks/x"},
    ],
)
def test_a_patch_that_cannot_be_done_changes_nothing_and_says_which_operation(patch: dict[str, Any]) -> None:
    draft = draft_of()
    with pytest.raises(InvalidChangeError, match=r"^operation 1, "):
        apply(draft, {"op": "replace", "path": "/chunks/1/text", "value": "new"}, patch)
    assert not draft.wanted


def test_a_patch_of_too_many_operations_is_refused_unread() -> None:
    draft = draft_of()
    with pytest.raises(LimitExceededError):
        apply(draft, *[{"op": "test", "path": "/chunks/1/text", "value": "one"}] * 1_001)
    assert not draft.reads


def test_s20_a_copy_bomb_of_a_session_is_refused() -> None:
    first = {"op": "add", "path": "/chunks/x", "value": {"y": "x" * 50}}
    with pytest.raises(LimitExceededError) as refused:
        apply(draft_of(), first, *({"op": "copy", "from": "/chunks/x", "path": f"/chunks/x/{at}"} for at in range(40)))
    assert refused.value.limit == "bytes copied by a patch"
    assert refused.value.maximum == LIMITS.session_bytes


def test_s20_what_a_patch_makes_of_an_item_is_within_the_limits_of_an_item() -> None:
    text = "x" * 600_000
    doubling = [
        {"op": "add", "path": "/chunks/1/a", "value": text},
        {"op": "add", "path": "/chunks/1/b", "value": text},
    ]
    with pytest.raises(LimitExceededError):
        apply(draft_of(), *doubling)
    deep: Any = 1
    for _ in range(63):
        deep = [deep]
    assert apply(draft_of(), {"op": "add", "path": "/chunks/1/a", "value": deep}).wanted
    with pytest.raises(LimitExceededError):
        apply(draft_of(), {"op": "add", "path": "/chunks/1/a", "value": [deep]})
    with pytest.raises(LimitExceededError):
        merge(draft_of(), {"chunks": {"1": {"a": [deep]}}})


COLLECTIONS = ("chunks", "notes", "more")


def step(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """What an operation makes of a session's document, by the peer, and by what is said of sessions."""
    now: dict[str, Any] = jsonpatch.apply_patch(document, [operation])
    now = {name: now.get(name, {}) for name in COLLECTIONS}
    for name, items in now.items():
        if not isinstance(items, dict):
            raise jsonpatch.JsonPatchConflict("no collection")
        for item in items:
            check_key(f"{name}/{item}")
    return now


@st.composite
def patches(draw: st.DrawFn) -> list[dict[str, Any]]:
    paths = ["/chunks", "/notes", "/more", "/chunks/1", "/chunks/2", "/more/1", "/notes/a~0b", "/chunks/1/tags"]
    paths += [
        "/chunks/1/tags/0",
        "/chunks/1/tags/-",
        "/more/1/text",
        "/notes/a~0b/by",
        "/notes/a~0b/by/ana",
        "/more/x~1",
    ]
    patch = []
    for _ in range(draw(st.integers(1, 7))):
        op = draw(st.sampled_from(["add", "add", "remove", "replace", "move", "copy"]))
        operation: dict[str, Any] = {"op": op, "path": draw(st.sampled_from(paths))}
        if op in ("move", "copy"):
            operation["from"] = draw(st.sampled_from(paths))
        elif op != "remove":
            operation["value"] = draw(
                st.sampled_from([{}, {"1": {"text": "x"}}, {"tags": ["y"]}, {"text": {}}, 1, [], "z"])
            )
        patch.append(operation)
    return patch


@given(patches())
@settings(max_examples=400, deadline=None)
def test_a_patch_of_a_session_does_what_the_peer_does_to_its_document(patch: list[dict[str, Any]]) -> None:
    expected: dict[str, Any] | None = {**copy.deepcopy(dict(DOCUMENT)), "more": {}}
    try:
        for operation in patch:
            expected = step(expected or {}, operation)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, HoldfastError):
        expected = None
    draft = draft_of()
    before = order(draft)
    if expected is None:
        with pytest.raises((InvalidChangeError, InvalidItemError)):
            apply(draft, *patch)
        assert not draft.wanted
        return
    apply(draft, *patch)
    assert same(document_of(draft, *COLLECTIONS), expected)
    renamed = {operation["path"] for operation in patch if operation["op"] == "move"}
    after = [key for key in order(draft) if key in before and f"/{key.replace('~', '~0')}" not in renamed]
    assert after == [key for key in before if key in after]


# -- one item ----------------------------------------------------------------------------------------------------------


def test_the_body_of_an_item_is_merged_or_patched_and_the_one_that_was_stays_as_it_is() -> None:
    body = {"text": "one", "tags": ["a"]}
    assert merged(body, {"text": "new", "tags": None, "more": {"x": None}}) == {"text": "new", "more": {}}
    patch = operations(
        {"op": "add", "path": "/tags/-", "value": "b"}, {"op": "move", "from": "/text", "path": "/title"}
    )
    assert patching.patch_body(body, patch, LIMITS) == {"title": "one", "tags": ["a", "b"]}
    assert patching.patch_body(body, operations({"op": "replace", "path": "", "value": 1}), LIMITS) == 1
    assert body == {"text": "one", "tags": ["a"]}


def test_s20_a_patch_of_an_item_is_within_the_limits_of_an_item() -> None:
    first = {"op": "add", "path": "/x", "value": {"y": "x" * 50}}
    bomb = [first, *({"op": "copy", "from": "/x", "path": f"/x/{at}"} for at in range(40))]
    for patch in (bomb, [first] * 1_001, [{"op": "add", "path": "/x", "value": [[[[1]]]]}]):
        with pytest.raises(LimitExceededError):
            patching.patch_body({}, operations(*patch), Limits(depth=4))


# -- on an engine ------------------------------------------------------------------------------------------------------


async def session(engine: Engine) -> str:
    items: list[tuple[str, Any]] = [(f"chunks/{number}", {"text": f"Chunk {number}."}) for number in range(1, 4)]
    return str((await engine.create(ANA, kind="knowledge", items=items)).id)


async def text(engine: Engine, found: str, number: int) -> Any:
    return (await engine.read(found, ANA)).collection("chunks")[number - 1].body["text"]


async def test_a_patch_lands_as_one_commit_that_can_be_undone(engine: Engine) -> None:
    found = await session(engine)
    patch = operations(
        {"op": "replace", "path": "/chunks/1/text", "value": "New."},
        {"op": "move", "from": "/chunks/2", "path": "/chunks/b"},
    )
    async with engine.edit(found, ANA, expected=1) as draft:
        patching.apply(draft, patch, engine.policy.limits)
    assert draft.result.version == 2
    assert [item.key for item in (await engine.read(found, ANA)).items] == ["chunks/1", "chunks/b", "chunks/3"]
    await engine.undo(found, ANA, expected=2)
    assert [item.key for item in (await engine.read(found, ANA)).items] == ["chunks/1", "chunks/2", "chunks/3"]
    assert await text(engine, found, 1) == "Chunk 1."


async def test_a_patch_with_a_test_that_fails_commits_nothing(engine: Engine) -> None:
    found = await session(engine)
    patch = operations(
        {"op": "replace", "path": "/chunks/1/text", "value": "New."},
        {"op": "test", "path": "/chunks/2/text", "value": "What it is not."},
    )
    with pytest.raises(InvalidChangeError, match="operation 1, test /chunks/2/text: another value is there"):
        async with engine.edit(found, ANA, expected=1) as draft:
            patching.apply(draft, patch, engine.policy.limits)
    assert (await engine.read(found, ANA)).header.version == 1


async def test_a_patch_rebases_over_changes_of_items_it_does_not_name(engine: Engine) -> None:
    found = await session(engine)
    async with engine.edit(found, ANA, expected=1) as draft:
        patching.merge(draft, {"chunks": {"3": {"text": "Theirs."}}}, engine.policy.limits)
    async with engine.edit(found, ANA, expected=1, rebase=True) as draft:
        patching.merge(draft, {"chunks": {"1": {"text": "Mine."}}}, engine.policy.limits)
    assert draft.result.version == 3
    assert [await text(engine, found, number) for number in (1, 2, 3)] == ["Mine.", "Chunk 2.", "Theirs."]


async def test_a_patch_does_not_rebase_over_a_change_of_what_it_tested(engine: Engine) -> None:
    found = await session(engine)
    async with engine.edit(found, ANA, expected=1) as draft:
        patching.merge(draft, {"chunks": {"3": {"text": "Theirs."}}}, engine.policy.limits)
    patch = operations(
        {"op": "test", "path": "/chunks/3/text", "value": "Chunk 3."},
        {"op": "replace", "path": "/chunks/1/text", "value": "Mine."},
    )
    with pytest.raises(VersionConflictError) as refused:
        async with engine.edit(found, ANA, expected=1, rebase=True) as draft:
            patching.apply(draft, patch, engine.policy.limits)
    assert [conflict.key for conflict in refused.value.conflicts] == ["chunks/3"]
    assert await text(engine, found, 1) == "Chunk 1."


async def test_what_a_patch_makes_is_checked_by_the_kind(engine: Engine) -> None:
    found = await session(engine)
    patches: list[Any] = [{"chunks": {"1": "text"}}, {"chunks": {"1": {"spans": 3}}}, {"others": {"1": {}}}]
    for patch in patches:
        with pytest.raises(InvalidItemError):
            async with engine.edit(found, ANA, expected=1) as draft:
                patching.merge(draft, patch, engine.policy.limits)
    assert (await engine.read(found, ANA)).header.version == 1
