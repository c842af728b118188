"""Change-sets: net, apply and invert take a session there and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.change import Before, Change, ChangeSet, apply, changed_item, first_before, invert, net
from holdfast.model.item import Item

KEYS = [f"chunks/{number}" for number in range(6)]
POSITIONS = ["a0", "a1", "a1V", "b00"]
RAWS = [b"{}", b'{"text":"one"}', b'{"text":"two"}', b"null"]

targets = st.none() | st.tuples(st.sampled_from(POSITIONS), st.sampled_from(RAWS))
wanteds = st.dictionaries(st.sampled_from(KEYS), targets)


class History:
    """Commits one after another, and where each body was written: what an engine's log knows."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.log: list[ChangeSet] = []
        self.written: dict[tuple[str, int], bytes] = {}

    def commit(self, wanted: dict[str, tuple[str, bytes] | None]) -> ChangeSet:
        changes = net(self.items, wanted)
        step = len(self.log) * 3 + 5  # steps run ahead of versions
        self.log.append(changes)
        apply(self.items, changes, len(self.log), step)
        for change in changes:
            if change.body is not None:
                self.written[change.key, step] = bytes(change.body)
        return changes

    def body(self, key: str, written: int) -> bytes:
        return self.written[key, written]

    def state(self) -> dict[str, tuple[str, bytes]]:
        return {key: (item.position, item.raw) for key, item in self.items.items()}


@given(st.lists(wanteds, max_size=6), wanteds)
def test_the_net_changes_lead_to_what_is_wanted_and_touch_no_more(
    before: list[dict[str, Any]], wanted: dict[str, Any]
) -> None:
    history = History()
    for earlier in before:
        history.commit(earlier)
    items, state = dict(history.items), history.state()
    changes = history.commit(wanted)
    after = {key: target for key, target in (state | wanted).items() if target is not None}
    assert history.state() == after
    assert {change.key for change in changes} == {key for key in wanted if state.get(key) != after.get(key)}
    for key in set(items) - {change.key for change in changes}:
        assert history.items[key] is items[key]
    assert net(history.items, wanted) == ()


@given(st.lists(wanteds, max_size=6), st.lists(wanteds, min_size=1, max_size=6))
def test_an_undo_of_commits_in_a_row_leads_back_and_a_redo_there_again(
    before: list[dict[str, Any]], group: list[dict[str, Any]]
) -> None:
    history = History()
    for earlier in before:
        history.commit(earlier)
    start = history.state()
    made = [history.commit(wanted) for wanted in group]
    end = history.state()
    undone = history.commit(invert(first_before(made), history.body))
    assert history.state() == start
    redone = history.commit(invert(first_before([undone]), history.body))
    assert history.state() == end
    history.commit(invert(first_before([redone]), history.body))
    assert history.state() == start


@given(st.lists(wanteds, min_size=1, max_size=8))
def test_items_say_which_version_changed_them_and_which_step_wrote_them(commits: list[dict[str, Any]]) -> None:
    history = History()
    for wanted in commits:
        history.commit(wanted)
    for key, item in history.items.items():
        touching = [at for at, changes in enumerate(history.log, 1) if key in {change.key for change in changes}]
        assert item.version == touching[-1]
        assert history.body(key, item.written) == item.raw
        assert item.written == max(step for name, step in history.written if name == key)


@given(st.lists(wanteds, min_size=1, max_size=4))
def test_a_change_set_comes_back_from_its_bytes(commits: list[dict[str, Any]]) -> None:
    history = History()
    for wanted in commits:
        changes = history.commit(wanted)
        again = msgspec.json.decode(msgspec.json.encode(changes), type=ChangeSet)
        assert again == changes
        assert [bytes(change.body or b"") for change in again] == [bytes(change.body or b"") for change in changes]


def test_each_change_has_its_verb_and_says_what_was_before() -> None:
    items = {key: Item(key, "a0", b"{}", 3, 7) for key in ("c/changed", "c/moved", "c/deleted", "c/both", "c/same")}
    before = Before(3, 7, "a0")
    changes = net(
        items,
        {
            "c/changed": ("a0", b"1"),
            "c/moved": ("a1", b"{}"),
            "c/both": ("a1", b"1"),
            "c/deleted": None,
            "c/same": ("a0", b"{}"),
            "c/added": ("a2", b"2"),
            "c/never": None,
        },
    )
    assert {change.key: (change.verb, change.body and bytes(change.body), change.before) for change in changes} == {
        "c/changed": ("changed", b"1", before),
        "c/moved": ("moved", None, before),
        "c/both": ("changed", b"1", before),
        "c/deleted": ("deleted", None, before),
        "c/added": ("added", b"2", None),
    }


def test_a_move_keeps_the_body_and_where_it_was_written() -> None:
    item = Item("c/1", "a0", b'"body"', 3, 7)
    assert changed_item(Change("c/1", "a5", (), Before(3, 7, "a0")), item, 4, 9) == Item("c/1", "a5", b'"body"', 4, 7)


def test_a_move_of_what_is_not_there_is_an_error_and_a_delete_is_not() -> None:
    with pytest.raises(ValueError, match="not there"):
        changed_item(Change("c/1", "a5", (), None), None, 4, 9)
    items: dict[str, Item] = {}
    apply(items, (Change("c/1", None, (), None),), 4, 9)
    assert items == {}


def test_the_first_change_of_a_key_says_where_it_stood() -> None:
    first, second = Before(1, 1, "a0"), Before(2, 2, "a1")
    sets = [
        (Change("c/1", "a1", (), first), Change("c/2", "a1", (msgspec.Raw(b"1"),), None)),
        (Change("c/1", None, (), second), Change("c/2", None, (), second)),
    ]
    assert first_before(sets) == {"c/1": first, "c/2": None}
