"""The contents a session should have, by its writes: a plain dict with two stacks, as far as it can be known."""

from __future__ import annotations

from collections.abc import Mapping

State = dict[str, str]
Turn = dict[str, "str | None"]
"""What an undo or a redo puts back, by key; None to delete."""


class Replay:
    """Replays writes in the order of their versions.

    Attributes:
        state: contents by key; None after a write of which nothing is known, until contents are ``adopt``-ed.
        touched: the version that last wrote each key, as far as known.
    """

    def __init__(self) -> None:
        self.state: State | None = {}
        self.touched: dict[str, int] = {}
        self._undo, self._redo = Stack(), Stack()
        self._lost = 0

    def put(self, version: int, puts: Mapping[str, str | None], *, undoable: bool = True) -> None:
        """An edit, or what a session is made with, which cannot be undone."""
        before = None if self.state is None else {key: self.state.get(key) for key in puts}
        self._write(version, puts)
        if undoable:
            self._undo.push(before)
            self._redo = Stack()

    def turn(self, version: int, *, redo: bool) -> bool:
        """An undo or a redo; False if there is nothing to."""
        here, there = (self._redo, self._undo) if redo else (self._undo, self._redo)
        if here.empty:
            return False
        turn = here.pop()
        if turn is None:
            there.push(None)
            self.state, self._lost = None, version
            return True
        there.push(None if self.state is None else {key: self.state.get(key) for key in turn})
        self._write(version, turn)
        return True

    def lose(self, version: int) -> None:
        """A write of which nothing is known but its version."""
        self.state, self._lost = None, version
        self._undo, self._redo = Stack(known=False), Stack(known=False)

    def adopt(self, items: Mapping[str, str]) -> None:
        """The contents are known again."""
        self.state = dict(items)

    def clashing(self, puts: Mapping[str, str | None], expected: int) -> int | None:
        """A version after ``expected`` that is known to have written one of the keys."""
        return next((self.touched[key] for key in puts if self.touched.get(key, 0) > expected), None)

    def may_clash(self, puts: Mapping[str, str | None], expected: int) -> bool:
        """Whether one of the keys may have been written after ``expected``."""
        return self._lost > expected or self.clashing(puts, expected) is not None

    def _write(self, version: int, puts: Mapping[str, str | None]) -> None:
        if self.state is None:
            self._lost = version  # a delete may have found nothing to delete
            self.touched |= {key: version for key, content in puts.items() if content is not None}
            return
        for key, content in puts.items():
            if self.state.get(key) == content:
                continue
            self.touched[key] = version
            if content is None:
                del self.state[key]
            else:
                self.state[key] = content


class Stack:
    """What can be undone, or redone. ``known``: what is beneath its bottom is nothing."""

    def __init__(self, *, known: bool = True) -> None:
        self._turns: list[Turn | None] = []
        self._known = known

    @property
    def empty(self) -> bool:
        return self._known and not self._turns

    def push(self, turn: Turn | None) -> None:
        self._turns.append(turn)

    def pop(self) -> Turn | None:
        """The topmost; None where it is not known what it puts back."""
        return self._turns.pop() if self._turns else None
