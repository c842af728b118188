"""R02: the version checker on histories at random. A simulated session, of which every order of events is known, gives
histories that must be taken, and the same with one thing made wrong that must not be.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.testing.linearizability import Op, check

pytestmark = pytest.mark.no_cover  # repeats what others measure once

Puts = dict[str, "str | None"]
START: Puts = {"a": "a0", "b": "b0"}


def read(invoked: int, version: int) -> Op:
    return Op(client=2, verb="read", outcome="ok", invoked=invoked, returned=invoked + 1, version=version)


class Simulation:
    """One session that answers one request at a time, and clients that see their requests begin earlier and end later.

    Between what happened and what clients were told stand lost answers, resends, and requests that never arrived.
    """

    def __init__(self, random: Random, *, losses: float) -> None:
        self.random, self.losses = random, losses
        create = Op(client=0, verb="create", outcome="ok", invoked=-50, returned=0, version=1, puts=START, digest="d1")
        self.history = [create]
        self.states: list[dict[str, str]] = [{}, {key: content or "" for key, content in START.items()}]
        self.touched: list[set[str]] = [set(), set(START)]
        self.undo: list[tuple[dict[str, str], dict[str, str]]] = []
        self.redo: list[tuple[dict[str, str], dict[str, str]]] = []
        self.now = 0

    @property
    def head(self) -> int:
        return len(self.states) - 1

    def run(self, count: int) -> list[Op]:
        for number in range(count):
            self.now += self.random.randrange(12)
            verb = self.random.choice(["read", "read", "edit", "edit", "edit", "undo", "redo"])
            if verb == "read":
                whole = self.random.random() < 0.7
                items = dict(self.states[-1]) if whole else None
                self._tell(self._op(number, "read", version=self.head, digest=f"d{self.head}", items=items))
            else:
                self._write(number, verb)
        return self.history

    def _op(self, number: int, verb: str, **more: object) -> Op:
        return Op(
            client=number % 8,
            verb=verb,  # type: ignore[arg-type]
            outcome="ok",
            invoked=self.now - self.random.randrange(40),
            returned=self.now + self.random.randrange(40),
            change="" if verb == "read" else f"c{number}",
            **more,  # type: ignore[arg-type]
        )

    def _write(self, number: int, verb: str) -> None:
        expected = max(1, self.head - self.random.choice([0, 0, 0, 0, 1, 3]))
        rebase = verb == "edit" and self.random.random() < 0.5
        keys = self.random.sample(["a", "b", "c", "d"], self.random.choice([1, 1, 2]))
        puts: Puts = {key: None if self.random.random() < 0.1 else f"{key}{number + 1}" for key in keys}
        asked = self._op(number, verb, expected=expected, rebase=rebase, puts=puts if verb == "edit" else {})
        if self.random.random() < self.losses / 4:  # it never arrived
            self._tell(replace(asked, outcome="unknown", returned=self.random.choice([None, asked.returned])))
            return
        since = set[str]().union(*self.touched[expected + 1 :])
        if expected != self.head and not (rebase and since.isdisjoint(keys)):
            answer = replace(asked, outcome="conflict", version=self.head)
        elif (verb == "undo" and not self.undo) or (verb == "redo" and not self.redo):
            answer = replace(asked, outcome="refused")
        else:
            self._apply(verb, puts)
            answer = replace(asked, version=self.head, digest=f"d{self.head}")
        lost = replace(asked, outcome="unknown", returned=self.random.choice([None, asked.returned]))
        if self.random.random() < self.losses:
            self._tell(lost)
            if self.random.random() < 0.5:
                return
        self._tell(answer)
        if answer.outcome == "ok" and self.random.random() < self.losses:  # sent again, answered as the first time
            later = self.now + self.random.randrange(100)
            self._tell(replace(answer, invoked=later, returned=later + self.random.randrange(100)))

    def _apply(self, verb: str, puts: Puts) -> None:
        before = self.states[-1]
        if verb == "edit":
            after = {key: content for key, content in {**before, **puts}.items() if content is not None}
            self.undo.append((before, after))
            self.redo.clear()
        else:
            here, there = (self.undo, self.redo) if verb == "undo" else (self.redo, self.undo)
            taken = here.pop()
            there.append(taken)
            after = taken[0] if verb == "undo" else taken[1]
        self.states.append(dict(after))
        self.touched.append({key for key in before.keys() | after.keys() if before.get(key) != after.get(key)})

    def _tell(self, op: Op) -> None:
        self.history.append(op)


def simulated(seed: int, *, losses: float = 0.2, count: int = 60) -> list[Op]:
    return Simulation(Random(seed), losses=losses).run(count)


seeds = st.integers(0, 2**32)
quick = settings(deadline=None, derandomize=True, max_examples=150, suppress_health_check=list(HealthCheck))


@quick
@given(seed=seeds, losses=st.sampled_from([0.0, 0.2, 0.6]))
def test_whatever_a_simulated_session_answers_is_taken(seed: int, losses: float) -> None:
    assert check(simulated(seed, losses=losses)) == []


Spoil = Callable[[list[Op], Random], "list[Op] | None"]
"""Makes one thing of a history wrong; None where it has nothing to make wrong."""


def _swap(history: list[Op], old: Op, new: Op) -> list[Op]:
    return [new if op is old else op for op in history]


def _acked(history: list[Op], verb: str = "edit") -> list[Op]:
    return [op for op in history if op.outcome == "ok" and op.verb == verb]


def stale_read(history: list[Op], random: Random) -> list[Op] | None:
    highest = max(op.version or 0 for op in history if op.outcome == "ok")
    late = max(op.end for op in history if op.returned is not None)
    return [*history, read(late + 1, random.randrange(1, highest))] if highest > 1 else None


def read_of_the_future(history: list[Op], random: Random) -> list[Op] | None:
    writes = [op for op in _acked(history) if history[0].end < op.invoked - 1]
    if not writes:
        return None
    write = random.choice(writes)
    first = min(op.invoked for op in history if op.change == write.change)
    return [*history, read(first - 2, write.version or 0)]


def two_at_one_version(history: list[Op], random: Random) -> list[Op] | None:
    writes = _acked(history)
    return [*history, replace(random.choice(writes), change="another", puts={})] if writes else None


def one_at_two_versions(history: list[Op], random: Random) -> list[Op] | None:
    writes = _acked(history)
    if not writes:
        return None
    write = random.choice(writes)
    return [*history, replace(write, version=(write.version or 0) + 1)]


def another_digest(history: list[Op], random: Random) -> list[Op] | None:
    made = {op.version for op in history if op.verb != "read" and op.outcome == "ok"}
    reads = [op for op in _acked(history, "read") if op.version in made]
    if not reads:
        return None
    spoilt = random.choice(reads)
    return _swap(history, spoilt, replace(spoilt, digest="spoilt"))


def lost_item(history: list[Op], random: Random) -> list[Op] | None:
    reads = [op for op in _acked(history, "read") if op.items]
    if not reads:
        return None
    spoilt = random.choice(reads)
    gone = random.choice(sorted(spoilt.items or ()))
    kept = {key: content for key, content in (spoilt.items or {}).items() if key != gone}
    return [*_swap(history, spoilt, replace(spoilt, items=kept)), spoilt]


def refused_all_the_same(history: list[Op], random: Random) -> list[Op] | None:
    writes = _acked(history)
    if not writes:
        return None
    write = random.choice(writes)
    return [*history, replace(write, outcome="conflict", version=(write.version or 0) + 1)]


def refused_for_its_own_version(history: list[Op], random: Random) -> list[Op] | None:
    conflicts = [op for op in history if op.outcome == "conflict"]
    if not conflicts:
        return None
    spoilt = random.choice(conflicts)
    return _swap(history, spoilt, replace(spoilt, version=spoilt.expected))


SPOILS: list[Spoil] = [
    stale_read,
    read_of_the_future,
    two_at_one_version,
    one_at_two_versions,
    another_digest,
    lost_item,
    refused_all_the_same,
    refused_for_its_own_version,
]


@pytest.mark.parametrize("spoil", SPOILS)
@settings(quick, max_examples=40)
@given(seed=seeds)
def test_a_simulated_history_with_one_thing_wrong_is_not_taken(spoil: Spoil, seed: int) -> None:
    spoilt = spoil(simulated(seed), Random(seed))
    assert spoilt is None or check(spoilt)


@settings(quick, max_examples=40)
@given(seed=seeds)
def test_an_acknowledged_write_left_out_is_a_version_that_nobody_made(seed: int) -> None:
    history = simulated(seed, losses=0.0)
    writes = [op for op in history if op.verb != "read" and op.outcome == "ok" and op.verb != "create"]
    if writes:
        left_out = Random(seed).choice(writes)
        seen = [op for op in history if (op.version or 0) >= (left_out.version or 0) and op is not left_out]
        found = {one.rule for one in check([op for op in history if op is not left_out])}
        assert ("gap" in found) == bool(seen)
