"""R02: the version checker itself. It takes what could have been, and names the two answers that could not; each rule
has a history that it alone finds wrong.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from holdfast.testing.linearizability import Op, check

Puts = dict[str, "str | None"]
START: Puts = {"a": "a0", "b": "b0"}


def create(at: tuple[int, int | None] = (0, 5)) -> Op:
    return Op(
        client=0, verb="create", outcome="ok", invoked=at[0], returned=at[1], version=1, change="start", puts=START
    )


def write(change: str, at: tuple[int, int | None], expected: int | None, version: int | None, **more: object) -> Op:
    """An edit of item ``a``, unless it says otherwise; without a version its outcome is unknown."""
    given: dict[str, object] = {
        "client": 1,
        "verb": "edit",
        "outcome": "unknown" if version is None else "ok",
        "puts": {"a": change},
        "invoked": at[0],
        "returned": at[1],
        "expected": expected,
        "version": version,
        "change": change,
    }
    return Op(**{**given, **more})  # type: ignore[arg-type]


def read(at: tuple[int, int], version: int, items: dict[str, str] | None = None, **more: object) -> Op:
    given: dict[str, object] = {"client": 2, "verb": "read", "outcome": "ok", "items": items, "version": version}
    return Op(invoked=at[0], returned=at[1], **{**given, **more})  # type: ignore[arg-type]


def rules(*history: Op) -> set[str]:
    return {found.rule for found in check(history)}


# -- what could have been ----------------------------------------------------------------------------------------------


GOOD: dict[str, list[Op]] = {
    "nothing": [],
    "one after another": [
        create(),
        write("x", (10, 20), 1, 2),
        read((30, 40), 2, {"a": "x", "b": "b0"}),
        write("y", (50, 60), 2, 3, puts={"b": None}),
        read((70, 80), 3, {"a": "x"}),
    ],
    "a read beside a write sees either": [
        create(),
        write("x", (10, 50), 1, 2),
        read((20, 30), 2),
        read((20, 30), 1),
        read((35, 45), 2),
    ],
    "a refused writer is told what another made meanwhile": [
        create(),
        write("x", (10, 50), 1, 2),
        write("y", (12, 20), 1, 2, outcome="conflict"),
    ],
    "a rebase lands on a later version": [
        create(),
        write("x", (10, 20), 1, 2),
        write("y", (30, 40), 1, 3, rebase=True, puts={"b": "y"}),
        read((50, 60), 3, {"a": "x", "b": "y"}),
    ],
    "a rebase is refused where its item was touched": [
        create(),
        write("x", (10, 20), 1, 2),
        write("y", (30, 40), 1, 2, rebase=True, outcome="conflict"),
    ],
    "undo and redo": [
        create(),
        write("x", (10, 20), 1, 2),
        write("u", (30, 40), 2, 3, verb="undo", puts={}),
        read((50, 60), 3, {"a": "a0", "b": "b0"}),
        write("r", (70, 80), 3, 4, verb="redo", puts={}),
        read((90, 95), 4, {"a": "x", "b": "b0"}),
    ],
    "an unknown write happened": [create(), write("x", (10, None), 1, None), read((20, 30), 2, {"a": "x", "b": "b0"})],
    "an unknown write did not happen": [create(), write("x", (10, None), 1, None), write("y", (20, 30), 1, 2)],
    "an unknown write happened long after its connection was lost": [
        create(),
        write("x", (10, 20), 1, None),
        read((30, 40), 1, {"a": "a0", "b": "b0"}),
        write("y", (50, 60), 2, 3, puts={"b": "y"}),
        read((70, 80), 3, {"a": "x", "b": "y"}),
    ],
    "either of two unknown writes happened": [
        create(),
        write("x", (10, None), 1, None),
        write("y", (10, None), 1, None),
        write("z", (30, 40), 2, 3),
    ],
    "two unknown writes, each at the version it may have made": [
        create(),
        write("x", (10, None), 1, None, rebase=True, puts={"b": "x"}),
        write("y", (10, None), 1, None),
        read((30, 40), 3),
    ],
    "a resend is given the first answer": [
        create(),
        write("x", (10, 20), 1, None),
        write("x", (30, 40), 1, 2),
        write("y", (50, 60), 2, 3),
        write("x", (70, 80), 1, 2),
    ],
    "a resend is answered while the first is still under way": [
        create(),
        write("x", (10, 90), 1, 2),
        write("x", (20, 30), 1, 2),
        read((40, 50), 2),
    ],
    "a refused write is not there": [
        create(),
        write("x", (10, 20), 1, None, outcome="refused"),
        read((30, 40), 1, {"a": "a0", "b": "b0"}),
    ],
    "a refused write is sent again and taken": [
        create(),
        write("x", (10, 20), 1, None, outcome="refused"),
        write("x", (30, 40), 1, 2),
    ],
    "a write without a version lands anywhere": [create(), write("x", (10, 20), 1, 2), write("y", (30, 40), None, 3)],
    "after what nobody knows, contents are taken from the next read": [
        create(),
        write("x", (10, None), 1, None),
        write("y", (10, None), 1, None, puts={"b": "y"}),
        write("z", (30, 40), 2, 3, puts={"c": "z"}),
        write("u", (50, 60), 3, 4, verb="undo", puts={}),
        write("v", (70, 80), 4, 5, verb="undo", puts={}),
        write("w", (90, 95), 5, 6, puts={"c": "w"}),
        read((97, 99), 6, {"a": "a0", "b": "b0", "c": "w"}),
    ],
    "sessions have nothing to do with each other": [
        create(),
        write("x", (10, 20), 1, 2),
        replace(create((30, 40)), session="other"),
        read((50, 60), 1, session="other"),
    ],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_what_could_have_been_is_taken(history: list[Op]) -> None:
    assert check(history) == []


# -- what could not ----------------------------------------------------------------------------------------------------


BAD: dict[str, tuple[str, list[Op]]] = {
    "a read after an acknowledgement sees less": ("order", [create(), write("x", (10, 20), 1, 2), read((30, 40), 1)]),
    "a read sees what nobody had asked for yet": ("order", [create(), read((10, 20), 2), write("x", (30, 40), 1, 2)]),
    "two reads go back": (
        "order",
        [create(), write("x", (10, 90), 1, 2), read((20, 30), 2), read((40, 50), 1)],
    ),
    "a refusal names a version long gone": (
        "order",
        [
            create(),
            write("x", (10, 20), 1, 2),
            write("y", (30, 40), 2, 3),
            write("z", (50, 60), 1, 2, outcome="conflict"),
        ],
    ),
    "a later write makes the earlier version": (
        "order",
        [
            create(),
            write("x", (30, 40), 1, 3, rebase=True, puts={"b": "x"}),
            write("y", (50, 60), 1, 2),
        ],
    ),
    "what was refused at first had not happened when it was sent": (
        "order",
        [
            create(),
            write("x", (10, 20), 1, None, outcome="refused"),
            read((30, 40), 2),
            write("x", (50, 60), 1, 2),
        ],
    ),
    "what an unknown write made is seen before it was sent": (
        "gap",
        [create(), read((10, 20), 2), write("x", (30, None), 1, None)],
    ),
    "two were told saved, at one version": (
        "unique",
        [
            create(),
            write("x", (10, 20), 1, 2),
            write("y", (12, 22), 1, 2),
        ],
    ),
    "a resend lands a second time": (
        "once",
        [create(), write("x", (10, 20), 1, 2), write("y", (30, 40), 2, 3), write("x", (50, 60), 1, 4)],
    ),
    "a strict write lands two versions on": (
        "based",
        [create(), write("x", (10, 20), 1, 2), write("y", (30, 40), 1, 3)],
    ),
    "a rebased write lands where it stood": (
        "based",
        [create(), write("x", (10, 20), 1, 2), write("y", (30, 40), 3, 3, rebase=True)],
    ),
    "a version is missing": (
        "gap",
        [
            create(),
            write("x", (10, 20), 1, 3, rebase=True),
            write("y", (30, 40), 1, 4, rebase=True, puts={"b": "y"}),
            write("z", (30, 40), 9, None, outcome="refused"),
        ],
    ),
    "one unknown write is too few for two versions": (
        "gap",
        [
            create(),
            write("x", (10, None), 1, None, rebase=True),
            write("y", (30, 40), 3, 4),
            write("z", (30, 40), 9, None, outcome="refused"),
        ],
    ),
    "a version is seen that so many writes cannot make": ("gap", [create(), read((10, 20), 7)]),
    "an unknown write cannot make another version than the one after its own": (
        "gap",
        [create(), write("x", (10, 20), 1, 2), write("y", (10, None), 1, None), read((30, 40), 3)],
    ),
    "what was read is not what the unknown write wrote": (
        "gap",
        [create(), write("x", (10, None), 1, None), read((30, 40), 2, {"a": "a0", "b": "b0"})],
    ),
    "a writer is refused for the version it named": (
        "conflict",
        [create(), write("x", (10, 20), 1, 1, outcome="conflict")],
    ),
    "a rebase is refused though nobody touched its item": (
        "conflict",
        [
            create(),
            write("x", (10, 20), 1, 2),
            write("y", (30, 40), 1, 2, rebase=True, puts={"b": "y"}, outcome="conflict"),
        ],
    ),
    "a rebase lands over another's change": (
        "clash",
        [create(), write("x", (10, 20), 1, 2), write("y", (30, 40), 1, 3, rebase=True)],
    ),
    "a refused write is read": (
        "refused",
        [
            create(),
            write("x", (10, 20), 1, 2),
            write("y", (10, 20), 1, 2, puts={"b": "y"}, outcome="conflict"),
            read((30, 40), 2, {"a": "x", "b": "y"}),
        ],
    ),
    "one change is refused and acknowledged": (
        "refused",
        [
            create(),
            write("x", (10, 40), 1, 2, outcome="conflict"),
            write("x", (10, 50), 1, 2),
        ],
    ),
    "one version has two digests": (
        "same",
        [create(), write("x", (10, 20), 1, 2, digest="one"), read((30, 40), 2, digest="other")],
    ),
    "one version is read with two contents": (
        "same",
        [create(), read((10, 20), 1, {"a": "a0", "b": "b0"}), read((10, 20), 1, {"a": "a0"})],
    ),
    "an acknowledged write is not in the next version": (
        "content",
        [
            create(),
            write("x", (10, 20), 1, 2),
            write("y", (30, 40), 2, 3, puts={"b": "y"}),
            read((50, 60), 3, {"a": "a0", "b": "y"}),
        ],
    ),
    "a deleted item is read": (
        "content",
        [create(), write("x", (10, 20), 1, 2, puts={"b": None}), read((30, 40), 2, {"a": "a0", "b": "b0"})],
    ),
    "an undo takes too much back": (
        "content",
        [
            create(),
            write("x", (10, 20), 1, 2),
            write("y", (30, 40), 2, 3, puts={"b": "y"}),
            write("u", (50, 60), 3, 4, verb="undo", puts={}),
            read((70, 80), 4, {"a": "a0", "b": "b0"}),
        ],
    ),
    "there was nothing to undo": ("content", [create(), write("u", (10, 20), 1, 2, verb="undo", puts={})]),
    "there was nothing to redo after an edit": (
        "content",
        [
            create(),
            write("x", (10, 20), 1, 2),
            write("u", (30, 40), 2, 3, verb="undo", puts={}),
            write("y", (50, 60), 3, 4),
            write("r", (70, 80), 4, 5, verb="redo", puts={}),
        ],
    ),
    "nobody wrote what was read": ("content", [create(), read((10, 20), 1, {"a": "a0", "b": "what?"})]),
    "what was read was written by a later version": (
        "content",
        [create(), write("x", (10, 90), 1, 2), read((20, 30), 1, {"a": "x", "b": "b0"})],
    ),
}


@pytest.mark.parametrize(("rule", "history"), BAD.values(), ids=BAD.keys())
def test_what_could_not_have_been_is_found_by_one_rule_alone(rule: str, history: list[Op]) -> None:
    assert rules(*history) == {rule}


def test_every_rule_has_a_history_that_it_alone_finds() -> None:
    documented = {"order", "unique", "once", "based", "gap", "conflict", "clash", "refused", "same", "content"}
    assert {rule for rule, _ in BAD.values()} == documented


def test_a_finding_names_the_two_operations_that_contradict_each_other() -> None:
    acked, stale = write("x", (10_000_000, 20_000_000), 1, 2), read((30_500_000, 40_000_000), 1)
    (found,) = check([create(), acked, read((35_000_000, 36_000_000), 2), stale])
    assert found.ops == (stale, acked)
    assert str(found) == (
        "session s, order: the first comes before the second by version, and after it in time:"
        " client 2's read (ok at version 1; 30.500 to 40.000 ms)"
        " and client 1's edit x from 1 (ok at version 2; 10.000 to 20.000 ms)"
    )
