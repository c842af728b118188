"""Items: their keys, and their bodies as the bytes that are stored."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidItemError, LimitExceededError
from holdfast.model.item import Item, check_key, encode_body

words = st.text(st.characters(exclude_categories=["Cs"]))
bodies = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


def encoded(body: Any, *, depth: int = 64, size: int = 1_000_000) -> bytes:
    return encode_body("chunks/1", body, depth=depth, size=size)


def nested(levels: int) -> Any:
    body: Any = []
    for level in range(levels - 1):
        body = [body] if level % 2 else {"inner": body}
    return body


class Color(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "key", ["chunks/1", "a/b", "a_b-c9/x", "c/" + "n" * 200, "a" * 64 + "/n", "c/ü ñ 世界 \U0001f600", "c/.."]
)
def test_a_collection_and_a_name_make_a_key(key: str) -> None:
    check_key(key)
    assert Item(key, "a0", b"{}", 1, 1).collection == key.split("/")[0]


@pytest.mark.parametrize(
    "key",
    [
        "", "/", "chunks", "chunks/", "/1", "Chunks/1", "1/1", "_a/1", "c/1/2", "c/1\n", "\nc/1", "c/\x00", "c/\x1f",
        "c/\x7f", "c/\ud800", "c/" + "n" * 201, "a" * 65 + "/n", "c d/1", "ü/1", None, 7, b"c/1",
    ],
)  # fmt: skip
def test_anything_else_is_refused_as_a_key(key: Any) -> None:
    with pytest.raises(InvalidItemError, match="collection/name"):
        check_key(key)


@given(bodies)
def test_a_body_comes_back_as_it_went_in(body: Any) -> None:
    raw = encoded(body)
    item = Item("chunks/1", "a0", raw, 1, 1)
    assert item.body == body
    assert json.loads(raw) == body
    assert type(item.body) is type(body)


def test_a_tuple_is_stored_as_a_list() -> None:
    assert encoded({"a": (1, (2,))}) == b'{"a":[1,[2]]}'


def test_no_two_readers_share_a_body() -> None:
    item = Item("chunks/1", "a0", b'{"tags":[]}', 1, 1)
    item.body["tags"].append("mine")
    assert item.body == {"tags": []}


@pytest.mark.parametrize(
    "body",
    [
        float("nan"), float("inf"), -float("inf"), [float("nan")], b"bytes", {1, 2}, object(), {1: "number"}, {None: 1},
        {("a",): 1}, "\ud800", {"\udfff": 1}, 2**64, -(2**63) - 1, Color.RED, {Color.RED: 1}, msgspec.Raw(b"{}"), 1j,
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(body: Any) -> None:
    for wrapped in (body, [body], {"in": {"side": body}}):
        with pytest.raises(InvalidItemError) as refused:
            encoded(wrapped)
        assert refused.value.key == "chunks/1"


@pytest.mark.parametrize("depth", [1, 2, 64])
def test_a_body_is_as_deep_as_the_limit_and_no_deeper(depth: int) -> None:
    assert json.loads(encoded(nested(depth), depth=depth)) == nested(depth)
    with pytest.raises(LimitExceededError) as refused:
        encoded(nested(depth + 1), depth=depth)
    assert (refused.value.limit, refused.value.figure, refused.value.maximum) == ("JSON depth", depth + 1, depth)


def test_scalars_have_no_depth() -> None:
    assert encoded("text", depth=0) == b'"text"'
    with pytest.raises(LimitExceededError):
        encoded([], depth=0)


def test_a_body_that_holds_itself_is_refused() -> None:
    body: list[Any] = []
    body.append(body)
    with pytest.raises(LimitExceededError):
        encoded(body)
    with pytest.raises(InvalidItemError):
        encoded(body, depth=10**9)


def test_a_body_is_as_long_as_the_limit_and_no_longer() -> None:
    assert len(encoded("ü" * 49, size=100)) == 100  # bytes, not characters
    with pytest.raises(LimitExceededError) as refused:
        encoded("ü" * 49 + "x", size=100)
    assert (refused.value.limit, refused.value.figure, refused.value.maximum) == ("item bytes", 101, 100)
