"""The version checker: could one session, answering one request at a time, have given these answers?

General checkers search for an order of the operations (Wing and Gong 1993; porcupine). Here every answer names its
version, and that is the order: the write that made version 1, whatever saw version 1, the write that made version 2,
and so on. What is left to do is to compare this order with the clock, and the contents with a replay: one sort and one
pass. A write whose outcome is unknown may have happened at any time after it was sent, or never; it is used where a
version was seen that nobody was told to have made. Where several may have made such a version, it is enough that they
can be shared out, by version and by the clock; contents are then held to no account until they are read again. That
is the one thing for which this takes histories that a search refuses; it refuses none that a search takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Literal

import msgspec

from holdfast.testing.replay import Replay

FOREVER = 1 << 62
"""When an operation returned that never did."""


class Op(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as its client saw it.

    Attributes:
        verb: ``create`` makes version 1 of a session, which history begins with.
        outcome: ``conflict``: refused, for the session is at ``version``; ``refused``: for another reason, and nothing
            was changed; ``unknown``: it may have happened, or may yet.
        invoked, returned: nanoseconds of one clock; None where there was no answer.
        version: the version that was made or seen; None where the answer named none.
        expected: the version its author named; None for a write that needs none.
        rebase: whether it may land on a later one.
        change: the change id; every sending of one change has the same.
        puts: what it writes by key, None to delete. No content is written twice to one key.
        items: what was read by key; None where it was a read of the version alone.
        digest: the name of the state that was made or seen, in whatever form, one form to a history.
    """

    client: int
    verb: Literal["create", "read", "edit", "undo", "redo"]
    outcome: Literal["ok", "conflict", "refused", "unknown"]
    invoked: int
    returned: int | None
    session: str = "s"
    version: int | None = None
    expected: int | None = None
    rebase: bool = False
    change: str = ""
    puts: Mapping[str, str | None] = {}
    items: Mapping[str, str] | None = None
    digest: str | None = None

    @property
    def end(self) -> int:
        return FOREVER if self.returned is None else self.returned

    def __str__(self) -> str:
        what = f"{self.verb} {self.change}".strip() + (f" from {self.expected}" if self.expected is not None else "")
        how = self.outcome if self.version is None else f"{self.outcome} at version {self.version}"
        end = "never" if self.returned is None else f"{self.returned / 1e6:.3f}"
        return f"client {self.client}'s {what} ({how}; {self.invoked / 1e6:.3f} to {end} ms)"


class Contradiction(msgspec.Struct, frozen=True):
    """A rule that a history breaks, and the operations that cannot both be as they say.

    The rules, of which each finds what no other does:

    * ``order``: what returned before another began does not come after it. No stale read, no version from the future.
    * ``unique``: two changes did not make one version. ``once``: one change did not make two.
    * ``based``: a strict write makes the version after the one it names, a rebased one a later one.
    * ``gap``: every version below one that was seen was made, by a write that may have made it.
    * ``conflict``: a write is not refused for a version that it named, nor a rebase for items nobody has touched.
    * ``clash``: a rebase does not land over a change to the same item.
    * ``refused``: what was refused is not there.
    * ``same``: a version has one digest and one content. ``content``: it is what the writes come to.
    """

    rule: str
    session: str
    ops: tuple[Op, ...]
    why: str

    def __str__(self) -> str:
        return f"session {self.session}, {self.rule}: {self.why}: " + " and ".join(map(str, self.ops))


class Change:
    """A write, however often it was sent."""

    def __init__(self, ops: list[Op]) -> None:
        self.ops = sorted(ops, key=lambda op: op.invoked)
        effective = [op for op in self.ops if op.outcome in ("ok", "unknown")]
        self.sent = (effective or self.ops)[0]  # what was refused has done nothing, and can have made nothing
        self.acked = sorted((op for op in ops if op.outcome == "ok" and op.version is not None), key=lambda op: op.end)
        self.conflicts = [op for op in self.ops if op.outcome == "conflict"]
        self.version = self.acked[0].version if self.acked else None
        self.end = self.acked[0].end if self.acked else FOREVER
        self.open = not self.acked and not self.conflicts and any(op.outcome == "unknown" for op in ops)

    @property
    def told(self) -> Op:
        """The operation to name: the first that was answered, else the first that was sent."""
        return self.acked[0] if self.acked else self.sent

    def may_make(self, version: int) -> bool:
        """Whether it can have made a version, by the one it names."""
        expected = self.sent.expected
        if expected is None:
            return version > 0
        return version > expected if self.sent.rebase else version == expected + 1


def check(history: Iterable[Op]) -> list[Contradiction]:
    """What in a history cannot be, of each session by itself; empty if all of it can.

    Reads and writes without an outcome may be left in: of the former nothing follows. Takes time in proportion to
    n log n, and to the cube of the versions that nobody was told to have made.
    """
    sessions: dict[str, list[Op]] = defaultdict(list)
    for op in history:
        sessions[op.session].append(op)
    return [found for name in sessions for found in Checker(name, sessions[name]).check()]


class Checker:
    """The history of one session."""

    def __init__(self, session: str, ops: list[Op]) -> None:
        self._session, self._found = session, list[Contradiction]()
        sendings: dict[str, list[Op]] = defaultdict(list)
        for op in ops:
            if op.verb != "read":
                sendings[op.change].append(op)
        self._changes = [Change(sent) for sent in sendings.values()]
        self._seen: dict[int, list[Op]] = defaultdict(list)  # reads and conflicts by the version they saw
        for op in ops:
            if op.version is not None and (op.outcome == "conflict" or (op.verb == "read" and op.outcome == "ok")):
                self._seen[op.version].append(op)
        self._made: dict[int, Change] = {}
        self._authors = {
            (key, content): change for change in self._changes for key, content in change.sent.puts.items() if content
        }

    def check(self) -> list[Contradiction]:
        self._check_writes()
        self._head = max([*self._made, *self._seen], default=0)
        if self._head > len(self._changes):
            self._say("gap", "a version is higher than there are writes", self._first(self._head))
            self._check_order()
            return self._found
        self._fill_gaps()
        self._check_order()
        self._check_versions()
        self._check_contents()
        return self._found

    def _say(self, rule: str, why: str, *ops: Op) -> None:
        self._found.append(Contradiction(rule, self._session, ops, why))

    # -- each write by itself ------------------------------------------------------------------------------------------

    def _check_writes(self) -> None:
        for change in self._changes:
            for op in change.acked[:1]:
                if op.version is not None and not change.may_make(op.version):
                    after = "a later one than" if op.rebase else "the version after"
                    self._say("based", f"it should make {after} the one it names", op)
            for op in change.acked[1:]:
                if op.version != change.version:
                    self._say("once", "one change made two versions", change.acked[0], op)
            for op in change.conflicts:
                if change.acked:
                    self._say("refused", "one change was refused and made a version", op, change.acked[0])
                elif op.version is not None and op.version == op.expected:
                    self._say("conflict", "it was refused for the version it named", op)
            if change.version is not None:
                other = self._made.setdefault(change.version, change)
                if other is not change:
                    self._say("unique", "two changes made one version", other.told, change.told)

    # -- versions that nobody was told to have made --------------------------------------------------------------------

    def _fill_gaps(self) -> None:
        """Find who may have made each of them: a matching of versions and writes of unknown outcome."""
        gaps = [version for version in range(1, self._head + 1) if version not in self._made]
        if not gaps:
            return
        soonest = self._soonest(gaps)
        able = {version: self._able(version, soonest[version]) for version in gaps}
        maker: dict[int, int] = {}  # the version that a write, by its number, is taken for

        def settle(version: int, tried: set[int]) -> bool:
            for number in able[version]:
                if number not in tried:
                    tried.add(number)
                    if number not in maker or settle(maker[number], tried):
                        maker[number] = version
                        return True
            return False

        for version in gaps:
            if not settle(version, set()):
                self._say_gap(version)
        while alone := [version for version in gaps if version not in self._made and len(able[version]) == 1]:
            for version in alone:  # there is one write it can be, so it is
                for number in list(able[version]):
                    self._made[version] = self._changes[number]
                    able = {other: numbers - {number} for other, numbers in able.items()}

    def _able(self, version: int, soonest: int) -> set[int]:
        """Numbers of the writes that may have made a version which was first seen by what returned at ``soonest``."""
        items = [op.items for op in self._seen.get(version, ()) if op.items is not None]
        return {
            number
            for number, change in enumerate(self._changes)
            if change.open
            and change.sent.invoked <= soonest
            and change.may_make(version)
            and all(content == shown.get(key) for shown in items for key, content in change.sent.puts.items())
        }

    def _soonest(self, gaps: list[int]) -> dict[int, int]:
        """The first return of anything that came after each of the gaps."""
        ends: dict[int, int] = {}
        least = FOREVER
        for version in range(self._head, 0, -1):
            if version in self._made:
                least = min(least, self._made[version].end)
            least = min([least, *(op.end for op in self._seen.get(version, ()))])
            ends[version] = least
        return {version: ends[version] for version in gaps}

    def _say_gap(self, version: int) -> None:
        below = max((at for at in self._made if at < version), default=0)
        before = [self._made[below].told] if below else []
        self._say("gap", f"no write can have made version {version}", *before, self._first(version))

    def _first(self, version: int) -> Op:
        """Whatever saw or made a version first, or the one above it that was seen."""
        at = min(seen for seen in [*self._made, *self._seen] if seen >= version)
        ops: list[Op] = [*self._seen.get(at, ()), *(self._made[at].acked if at in self._made else ())]
        return min(ops, key=lambda op: op.end)

    # -- the order of versions and that of the clock -------------------------------------------------------------------

    def _check_order(self) -> None:
        """Nothing comes before what had begun only after it returned: neither versions nor time go back."""
        points: list[tuple[int, int, int, int, Op]] = []  # version, write before reads, begin, end
        for version, change in self._made.items():
            points.append((version, 0, change.sent.invoked, change.end, change.told))
        points += [(version, 1, op.invoked, op.end, op) for version, ops in self._seen.items() for op in ops]
        points.sort(key=lambda point: point[:2])
        latest, last = -FOREVER, None
        for _, together in groupby(points, key=lambda point: point[:2]):
            here = list(together)
            for *_, end, op in here:
                if end < latest and last is not None:
                    self._say("order", "the first comes before the second by version, and after it in time", last, op)
            begun = max(here, key=lambda point: point[2])
            if begun[2] > latest:
                latest, last = begun[2], begun[4]

    # -- what the versions hold ----------------------------------------------------------------------------------------

    def _check_versions(self) -> None:
        """One version, one digest, one content; and nothing in it that nobody wrote by then."""
        for version in range(1, self._head + 1):
            made = self._made.get(version)
            reads = [op for op in self._seen.get(version, ()) if op.outcome == "ok"]
            named = [op for op in [*(made.acked if made else ()), *reads] if op.digest is not None]
            self._all_alike("digests", named, lambda op: op.digest)
            self._all_alike("contents", [op for op in reads if op.items is not None], lambda op: op.items)

    def _all_alike(self, what: str, ops: list[Op], of: Callable[[Op], object]) -> None:
        for op in ops[1:]:
            if of(op) != of(ops[0]):
                self._say("same", f"one version has two {what}", ops[0], op)
                return

    def _check_contents(self) -> None:
        """Replay the writes, and hold each version that was read beside what they come to."""
        replay = Replay()
        for version in range(0, self._head + 1):
            change = self._made.get(version)
            if change is not None:
                self._replay(replay, version, change)
            elif version:
                replay.lose(version)
            read = next((op for op in self._seen.get(version, ()) if op.items is not None), None)
            if read is not None and self._is_written(read, version):
                self._compare(replay, read)
            for op in self._seen.get(version, ()):
                behind = op.outcome == "conflict" and op.expected is not None and op.expected < version
                if behind and op.rebase and not replay.may_clash(op.puts, op.expected or 0):
                    self._say("conflict", "it was refused, and nobody had touched what it writes", op)

    def _replay(self, replay: Replay, version: int, change: Change) -> None:
        sent = change.sent
        if sent.verb in ("undo", "redo"):
            if not replay.turn(version, redo=sent.verb == "redo"):
                self._say("content", f"there was nothing to {sent.verb}", change.told)
            return
        over = replay.clashing(sent.puts, sent.expected) if sent.rebase and sent.expected is not None else None
        if over is not None:
            other = self._made.get(over)
            self._say("clash", "a rebase landed over a change to its item", *_told(other), change.told)
        replay.put(version, sent.puts, undoable=sent.verb == "edit")

    def _is_written(self, read: Op, version: int) -> bool:
        """Whether all that was read may have been written by then."""
        for key, content in (read.items or {}).items():
            author = self._authors.get((key, content))
            if author is None:
                self._say("content", f"nobody wrote what was read in {key}", read)
            elif author.version is None and not author.open:
                self._say("refused", f"what was refused was read in {key}", author.ops[-1], read)
            elif author.version is not None and author.version > version:
                self._say("content", f"what a later version wrote was read in {key}", author.told, read)
            else:
                continue
            return False
        return True

    def _compare(self, replay: Replay, read: Op) -> None:
        items = read.items or {}
        if replay.state is None:
            replay.adopt(items)
            return
        for key in sorted(replay.state.keys() | items.keys()):
            if replay.state.get(key) != items.get(key):
                wrote = self._made.get(replay.touched.get(key, 0))
                why = f"{key} holds {items.get(key)!r}, and by the writes before it {replay.state.get(key)!r}"
                self._say("content", why, *_told(wrote), read)
                return


def _told(change: Change | None) -> tuple[Op, ...]:
    return () if change is None else (change.told,)


__all__ = ["Contradiction", "Op", "check"]
