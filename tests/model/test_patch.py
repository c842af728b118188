"""JSON Pointer, JSON Patch and JSON Merge Patch: the examples of the RFCs, a peer as oracle, and bombs (S20)."""

from __future__ import annotations

import copy
import itertools
import json
import os
from pathlib import Path
from typing import Any

import jsonpatch
import jsonpointer
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import InvalidChangeError, InvalidRequestError, LimitExceededError
from holdfast.model.patch import Patcher, PatchOperation, merged, patched, pointer, same
from holdfast.service import bodies

VECTORS = Path(__file__).parents[1] / "vectors"
ROOM, DEPTH = 1_000_000, 64
EXAMPLES = int(os.environ.get("HOLDFAST_TEST_PATCHES", "300"))


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text())["cases"]
    return found


def operations(*patch: dict[str, Any]) -> list[PatchOperation]:
    return msgspec.convert(patch, list[PatchOperation])


def run(document: Any, *patch: dict[str, Any], room: int = ROOM, depth: int = DEPTH) -> Any:
    return patched(document, operations(*patch), room=room, depth=depth)


# -- the RFCs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("json-patch"), ids=lambda case: case["name"])
def test_the_examples_of_rfc_6902(case: dict[str, Any]) -> None:
    def result() -> Any:
        asked = bodies.decode(case["patch"].encode(), list[PatchOperation])
        return patched(case["document"], asked, room=ROOM, depth=DEPTH)

    if case.get("refused"):
        with pytest.raises((InvalidChangeError, InvalidRequestError)):
            result()
    else:
        assert same(result(), case["result"])


@pytest.mark.parametrize("case", cases("merge-patch"))
def test_the_examples_of_rfc_7396(case: dict[str, Any]) -> None:
    assert same(merged(case["document"], case["patch"]), case["result"])


@pytest.mark.parametrize("case", cases("json-pointer"), ids=lambda case: case["pointer"])
def test_the_examples_of_rfc_6901(case: dict[str, Any]) -> None:
    document = json.loads((VECTORS / "json-pointer.json").read_text())["document"]
    for step in pointer(case["pointer"]):
        document = document[int(step) if isinstance(document, list) else step]
    assert same(document, case["value"])


# -- pointers ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=5) | st.sampled_from(["~", "/", "~1", "~0", "~01", "", "-"]), max_size=6))
def test_any_names_make_a_pointer_and_come_back_from_it(names: list[str]) -> None:
    written = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
    assert pointer(written) == tuple(names) == tuple(jsonpointer.JsonPointer(written).parts)


@pytest.mark.parametrize("text", ["a", "a/b", "#/a", " /a", "/~", "/~2", "/a~/b", "/~~0", "/" * 100_000])
def test_what_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(InvalidChangeError):
        pointer(text)


@pytest.mark.parametrize(
    "step", ["-1", "01", "+1", "1.0", "1e0", " 1", "１", "²", "-", "3", "99999999999999999999", ""]
)
def test_what_is_no_place_in_an_array_is_refused(step: str) -> None:
    for op in ("remove", "replace", "test"):
        with pytest.raises(InvalidChangeError):
            run({"a": [1, 2, 3]}, {"op": op, "path": f"/a/{step}", "value": 1})


# -- operations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ({"op": "add", "path": "/a"}, "no value"),
        ({"op": "move", "path": "/a"}, "no origin"),
        ({"op": "copy", "path": "/a"}, "no origin"),
        ({"op": "test", "path": "/a", "value": [1, 2]}, "another value"),
        ({"op": "test", "path": "/b", "value": None}, "nothing is there"),
        ({"op": "remove", "path": "/b"}, "nothing is there"),
        ({"op": "remove", "path": "/a/0/x"}, "nothing is there"),
        ({"op": "remove", "path": ""}, "cannot be removed"),
        ({"op": "replace", "path": "/b", "value": 1}, "nothing is there"),
        ({"op": "replace", "path": "/a/-", "value": 1}, "numbered places"),
        ({"op": "add", "path": "/a/4", "value": 1}, "shorter"),
        ({"op": "add", "path": "/a/0/x", "value": 1}, "no array and no object"),
        ({"op": "add", "path": "/b/x", "value": 1}, "nothing is there"),
        ({"op": "move", "from": "/a", "path": "/a/0"}, "into itself"),
        ({"op": "move", "from": "", "path": "/x"}, "into itself"),
        ({"op": "move", "from": "/b", "path": "/b"}, "nothing is there"),
        ({"op": "copy", "from": "/b", "path": "/c"}, "nothing is there"),
    ],
)
def test_what_cannot_be_done_is_refused_and_says_which_operation_and_where(patch: dict[str, Any], reason: str) -> None:
    document = {"a": [1, 2, 3]}
    with pytest.raises(InvalidChangeError) as refused:
        run(document, {"op": "add", "path": "/new", "value": 1}, patch)
    assert reason in refused.value.reason
    assert refused.value.reason.startswith(f"operation 1, {patch['op']} {patch['path'] or 'of the whole'}: ")
    assert document == {"a": [1, 2, 3]}


def test_null_is_a_value() -> None:
    assert run({"a": 1}, {"op": "add", "path": "/a", "value": None}, {"op": "test", "path": "/a", "value": None}) == {
        "a": None
    }


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (0, -0.0, True),
        (2**64 - 1, 2**64 - 1, True),
        (2**53 + 1, float(2**53), False),
        (1, True, False),
        (0, False, False),
        (False, 0, False),
        (None, False, False),
        ("1", 1, False),
        ("e\u0301", "é", False),
        ([1, [True]], [1, [1]], False),
        ([], {}, False),
        ({}, [], False),
        ({"a": 1, "b": None}, {"b": None, "a": 1}, True),
        ({"a": None}, {}, False),
        ({"a": None}, {"b": None}, False),
        ([1, 2], [1], False),
    ],
)
def test_values_are_compared_as_json_and_not_as_python(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal
    assert same(other, one) is equal
    assert same({"x": [one]}, {"x": [other]}) is equal


def test_the_patch_and_the_document_stay_as_they_are_whatever_later_operations_do() -> None:
    document = {"a": {"list": [1]}, "b": {}}
    patch = operations(
        {"op": "add", "path": "/c", "value": {"list": []}},
        {"op": "add", "path": "/c/list/-", "value": {"deep": [1]}},
        {"op": "add", "path": "/c/list/0/deep/-", "value": 2},
        {"op": "copy", "from": "/a", "path": "/b/a"},
        {"op": "add", "path": "/b/a/list/-", "value": 2},
        {"op": "replace", "path": "/a/list", "value": []},
    )
    before = copy.deepcopy((document, patch))
    first = patched(document, patch, room=ROOM, depth=DEPTH)
    assert (document, patch) == before
    assert first == {"a": {"list": []}, "b": {"a": {"list": [1, 2]}}, "c": {"list": [{"deep": [1, 2]}]}}
    assert patched(document, patch, room=ROOM, depth=DEPTH) == first


# -- a peer as oracle --------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "~", "/", "", "0", "-"]


def values(leaves: int = 8) -> st.SearchStrategy[Any]:
    leaf = st.sampled_from([None, True, False, 0, 1, 1.0, 2, "", "x", "0"])
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
        max_leaves=leaves,
    )


def places(value: Any, here: str = "") -> list[str]:
    """The pointers to everything in a document, and to places next to it."""
    found = [here]
    if isinstance(value, dict):
        for name, inner in value.items():
            found += places(inner, here + "/" + name.replace("~", "~0").replace("/", "~1"))
        found += [here + "/" + name for name in ("a", "b", "~0", "~1")]
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            found += places(inner, f"{here}/{at}")
        found += [f"{here}/{len(value)}", f"{here}/-"]
    else:
        found.append(here + "/a")
    return found


@st.composite
def patches(draw: st.DrawFn) -> tuple[Any, list[dict[str, Any]]]:
    """A document, and operations on it most of which can be done."""
    document = now = draw(values(12))
    patch: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 6))):
        op = draw(st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]))
        known = sorted(set(places(now)))
        operation: dict[str, Any] = {"op": op, "path": draw(st.sampled_from(known))}
        if op in ("move", "copy"):
            operation["from"] = draw(st.sampled_from(known))
        elif op == "test" and draw(st.booleans()):
            there = jsonpointer.resolve_pointer(now, operation["path"], default=draw(values(3)))
            operation["value"] = there if is_json(there) else None
        elif op != "remove":
            operation["value"] = draw(values(4))
        patch.append(operation)
        try:
            now = jsonpatch.apply_patch(now, [operation])
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException):
            break
    return document, patch


def is_json(value: Any) -> bool:
    return isinstance(value, dict | list | str | int | float | bool | None)


@pytest.mark.no_cover
@given(patches())
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_patch_does_what_the_peer_does(drawn: tuple[Any, list[dict[str, Any]]]) -> None:
    document, patch = drawn
    try:
        expected = jsonpatch.apply_patch(document, patch)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException):
        with pytest.raises(InvalidChangeError):
            run(document, *patch)
        return
    assert same(run(document, *patch), expected)


@given(values(12), values(12))
@settings(max_examples=EXAMPLES // 3, deadline=None)
def test_a_patch_that_the_peer_makes_of_two_documents_leads_from_one_to_the_other(one: Any, other: Any) -> None:
    patch = jsonpatch.make_patch(one, other).patch
    assert same(run(one, *patch), other)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return value


def merge_patch(one: Any, other: Any) -> Any:
    """The merge patch that makes ``other`` of ``one``."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    changed = {name: merge_patch(one.get(name), value) for name, value in other.items()}
    return {name: None for name in one if name not in other} | changed


@given(values(12), values(12))
@settings(max_examples=EXAMPLES // 3, deadline=None)
def test_a_merge_patch_leads_from_one_document_to_another(one: Any, other: Any) -> None:
    other = without_nulls(other)
    before = copy.deepcopy((one, other))
    assert same(merged(one, merge_patch(one, other)), other)
    assert (one, other) == before


@given(values(8), values(8))
@settings(max_examples=EXAMPLES // 3, deadline=None)
def test_a_merge_patch_leaves_no_null_that_it_brought(one: Any, patch: Any) -> None:
    once = merged(one, patch)
    assert same(merged(once, patch), once)
    assert not isinstance(patch, dict) or all(once.get(name) is not None for name in patch if patch[name] is not None)


# -- bombs -------------------------------------------------------------------------------------------------------------


def bomb(copies: int) -> list[dict[str, Any]]:
    """Each operation copies all there is into a new place beside it."""
    first = {"op": "add", "path": "/x", "value": {"y": "x" * 50}}
    return [first, *({"op": "copy", "from": "/x", "path": f"/x/{at}"} for at in range(copies))]


def test_s20_f19_a_copy_bomb_is_refused_once_it_has_copied_what_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """22 copies in some kilobyte ask for hundreds of megabytes. What is built is counted, not how long it takes."""
    built = 0
    copied = Patcher._copied

    def counting(self: Patcher, value: Any, steps: int, *, free: bool = False) -> Any:
        nonlocal built
        built += 1
        return copied(self, value, steps, free=free)

    monkeypatch.setattr(Patcher, "_copied", counting)
    patch = bomb(40)
    with pytest.raises(LimitExceededError) as refused:
        run({}, *patch)
    assert refused.value.limit == "bytes copied by a patch"
    assert refused.value.figure <= ROOM + 100
    assert built <= ROOM / 8 + 100


def test_the_bomb_is_one() -> None:
    """Teeth: the peer, which counts nothing, builds what the patch asks for; it doubles with each copy."""
    sizes = [len(json.dumps(jsonpatch.apply_patch({}, bomb(copies)))) for copies in (12, 13, 14)]
    assert sizes[0] > 40 * len(json.dumps(bomb(12)))
    assert all(1.9 < after / before < 2.1 for before, after in itertools.pairwise(sizes))


def test_what_is_copied_within_the_room_is_not_refused() -> None:
    assert len(json.dumps(run({}, *bomb(10), room=200_000))) > 50_000
    with pytest.raises(LimitExceededError):
        run({}, *bomb(10), room=50_000)


def test_room_given_back_does_not_count_so_that_work_is_bounded_too() -> None:
    """Copy and remove, over and over: nothing is left of it, but the work was done."""
    again = [{"op": "copy", "from": "/a", "path": "/b"}, {"op": "remove", "path": "/b"}] * 500
    with pytest.raises(LimitExceededError):
        run({"a": ["x" * 1_000] * 10}, *again)


def test_moving_to_and_fro_is_bounded_too() -> None:
    to, fro = {"op": "move", "from": "/a", "path": "/b/c"}, {"op": "move", "from": "/b/c", "path": "/a"}
    document = {"a": ["x" * 1_000] * 10, "b": {}}
    assert run(document, *[to, fro] * 20) == document
    with pytest.raises(LimitExceededError):
        run(document, *[to, fro] * 500)


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "copy", "from": "", "path": "/a" + "/a" * 9}],
        [{"op": "add", "path": "/a" * 10, "value": [[[[[[[]]]]]]]}],
        [{"op": "replace", "path": "/a" * 9, "value": [[[[[[[]]]]]]]}],
        [{"op": "add", "path": "/b", "value": [[[[[[[]]]]]]]}, {"op": "move", "from": "/b", "path": "/a" * 10}],
    ],
)
def test_s20_nesting_by_operations_is_bounded(patch: list[dict[str, Any]]) -> None:
    document: Any = {}
    for _ in range(9):
        document = {"a": document}
    with pytest.raises(LimitExceededError) as refused:
        run(document, *patch, depth=15)
    assert refused.value.limit == "JSON depth"
    run(document, *patch, depth=20)


def test_a_document_copied_into_its_own_depths_again_and_again_is_refused_and_not_a_crash() -> None:
    patch = [{"op": "copy", "from": "", "path": "/a" * (2**at)} for at in range(1, 12)]
    with pytest.raises(LimitExceededError):
        run({"a": {}}, *patch)
