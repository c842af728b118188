"""What differs between two states, per item, and by words within text."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.difference import Difference, TextDifference, Word, differences, text_differences, word_differences
from holdfast.model.item import Item

texts = st.text(max_size=60) | st.lists(
    st.sampled_from(["a", "b", "the ", " ", "\n", ".", "ü", "word"]), max_size=40
).map("".join)


def item(key: str, body: Any, position: str = "a0") -> Item:
    return Item(key, position, msgspec.json.encode(body), 1, 1)


def state(*items: Item) -> dict[str, Item]:
    return {item.key: item for item in items}


@given(texts, texts)
def test_what_stayed_and_went_is_the_old_text_and_what_stayed_and_came_the_new(before: str, after: str) -> None:
    words = word_differences(before, after)
    assert "".join(word.text for word in words if word.op != "+") == before
    assert "".join(word.text for word in words if word.op != "-") == after
    assert {word.op for word in words} <= {"=", "+", "-"}
    assert all(word.text for word in words)
    assert all(one.op != other.op for one, other in pairwise(words))
    assert ("+", "-") not in [(one.op, other.op) for one, other in pairwise(words)]


@given(st.text(".,;", max_size=10), st.text(".,;", max_size=10))
def test_as_many_words_stay_as_can(before: str, after: str) -> None:
    most = [[0] * (len(after) + 1) for _ in range(len(before) + 1)]  # each sign is a word of its own
    for row, one in enumerate(before, 1):
        for column, other in enumerate(after, 1):
            both = most[row - 1][column - 1] + (one == other)
            most[row][column] = max(both, most[row - 1][column], most[row][column - 1])
    stayed = sum(len(word.text) for word in word_differences(before, after) if word.op == "=")
    assert stayed == most[-1][-1]


def test_the_same_text_stays_whole() -> None:
    assert word_differences("one two", "one two") == (Word("=", "one two"),)
    assert word_differences("", "") == ()


def test_a_text_differs_by_words_not_by_letters() -> None:
    assert word_differences("The cat sat, here.", "The dog sat, there.") == (
        Word("=", "The "),
        Word("-", "cat"),
        Word("+", "dog"),
        Word("=", " sat, "),
        Word("-", "here"),
        Word("+", "there"),
        Word("=", "."),
    )


def test_edits_far_apart_in_a_long_text_are_found_one_by_one() -> None:
    words = [f"w{number % 700}" for number in range(20_000)]
    changed = list(words)
    for at in (3, 9_000, 19_990):
        changed[at] = "changed"
    found = word_differences(" ".join(words), " ".join(changed))
    assert [(word.op, word.text) for word in found if word.op != "="] == [
        pair for at in (3, 9_000, 19_990) for pair in (("-", words[at]), ("+", "changed"))
    ]


def test_long_texts_with_little_in_common_are_replaced_whole_but_for_their_ends() -> None:
    chance = Random(7)
    before, after = (" ".join(str(chance.randrange(10**9)) for _ in range(4_000)) for _ in range(2))
    assert word_differences(f"same {before} end", f"same {after} end") == (
        Word("=", "same "),
        Word("-", before),
        Word("+", after),
        Word("=", " end"),
    )


def test_texts_at_the_same_place_in_both_bodies_are_compared() -> None:
    before = {"title": "old", "cells": [{"note": "a b"}, "same", "x"], "gone": "was here", "n": 1, "kind": "text"}
    after = {"title": "new", "cells": [{"note": "a c"}, "same"], "came": "is here", "n": "1", "kind": ["text"]}
    assert list(text_differences(before, after)) == [
        TextDifference("title", (Word("-", "old"), Word("+", "new"))),
        TextDifference("cells.0.note", (Word("=", "a "), Word("-", "b"), Word("+", "c"))),
    ]
    assert list(text_differences("a", "b")) == [TextDifference("", (Word("-", "a"), Word("+", "b")))]


def test_each_item_that_differs_has_its_verb_and_its_bodies() -> None:
    before = state(item("c/same", 1), item("c/changed", {"text": "a"}), item("c/moved", 3), item("c/deleted", 4))
    after = state(
        item("c/same", 1), item("c/changed", {"text": "b"}, "a1"), item("c/moved", 3, "a2"), item("c/added", 5, "a3")
    )
    keys = [*before, "c/added", "c/never"]
    text = TextDifference("text", (Word("-", "a"), Word("+", "b")))
    assert differences(before, after, keys) == [
        Difference("c/changed", "changed", {"text": "a"}, {"text": "b"}, (text,)),
        Difference("c/moved", "moved", 3, 3),
        Difference("c/added", "added", None, 5),
        Difference("c/deleted", "deleted", 4, None),
    ]


def test_only_the_keys_named_are_compared() -> None:
    assert differences(state(item("c/1", 1)), state(item("c/2", 2)), ["c/2"]) == [Difference("c/2", "added", None, 2)]


def test_an_item_whose_body_is_null_or_empty_is_still_there() -> None:
    bodies: list[Any] = [None, "", 0, False, [], {}]
    for body in bodies:
        assert differences({}, state(item("c/1", body)), ["c/1"]) == [Difference("c/1", "added", None, body)]
        assert differences(state(item("c/1", body)), {}, ["c/1"]) == [Difference("c/1", "deleted", body, None)]


@given(st.permutations(range(8)))
def test_differences_come_in_the_order_of_the_later_state_deleted_ones_last(order: list[int]) -> None:
    places = ["Zz", "a0", "a0V", "a1", "b00", "z" * 27]
    before = state(*(item(f"c/{number}", "old") for number in range(8)))
    after = state(*(item(f"c/{number}", "new", places[number]) for number in range(6)))
    found = differences(before, after, [f"c/{number}" for number in order])
    assert [difference.key for difference in found] == [f"c/{number}" for number in range(8)]
