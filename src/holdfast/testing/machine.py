"""Random verbs by several actors, on two engines that share a file, against a record of plain dicts.

Hypothesis chooses verbs, actors, versions and times; ``Expectation`` says what each answer must be. Engines are closed
and opened again in between, the clock is moved, and the sweeper comes by. In the end every chain and digest is checked.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from holdfast.compose import open_engine
from holdfast.engine.editing import Committed
from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError
from holdfast.model.access import Principal, Role
from holdfast.model.lease import Lease
from holdfast.model.limits import Limits
from holdfast.model.retention import Retention
from holdfast.model.session import Session
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock
from holdfast.testing.expectation import ADMIN, Answer, Expectation, Kept, Op, Refused, wanted_by

T = TypeVar("T")

ACTORS = ("ana", "ben", "pat", "vic", "eve", ADMIN)
ROLES = ("editor", "participant", "viewer")
_GRACE, _LOCK, _ITEMS = 5_000.0, 900.0, 6
_SESSIONS = 8
_NO_SESSION = "a" * 32

actors = st.sampled_from(("ana", "ana", "ana", *ACTORS))
owners = st.sampled_from(("ana", "ana", "ana", "ana", "ben", ADMIN))
which = st.integers(0, 8)
engines = st.integers(0, 1)
keys = st.sampled_from([f"chunks/{n}" for n in range(7)])
texts = st.sampled_from(["one", "two", "three", "four two"])
behind = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 5, -1])
groups = st.sampled_from([None, None, "g", "h"])
changes = st.sampled_from([None, None, None, "c1", "c2", "c3"])
fences = st.sampled_from(["held", "held", "none", "old"])
ttls = st.sampled_from([None, None, 1_000.0, 4_000.0])
put = st.tuples(st.just("put"), keys, texts)
delete = st.tuples(st.just("delete"), keys, st.just(""))
move = st.tuples(st.just("move"), keys, st.one_of(st.just(""), keys))
op_lists = st.lists(st.one_of(put, put, delete, move), min_size=1, max_size=3)


class Machine(RuleBasedStateMachine):
    """The state machine. ``wrap`` may put something around the hot stores, to see whether it is noticed."""

    wrap: ClassVar[Any] = staticmethod(lambda store: store)
    steps: ClassVar[Counter[str]] = Counter()
    """How often each verb was played, and how often each answer came."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-machine-"))
        self._clock = ManualClock()
        self._stacks: list[AsyncExitStack] = []
        self._engines: list[Engine] = []
        self.expected = Expectation(self._clock.now(), grace=_GRACE, lock=_LOCK, items=_ITEMS)
        self._ids: list[str] = []
        self._leases: dict[str, Lease] = {}

    @initialize()
    def open(self) -> None:
        for _ in range(2):
            stack, engine = self._run(self._open())
            self._stacks.append(stack)
            self._engines.append(engine)
        for who, ttl in (("ana", None), ("ben", 4_000.0)):
            self.create(0, who, ttl, True, ["one", "two"])
            for whom, role in (("ana", "editor"), ("ben", "editor"), ("pat", "participant"), ("vic", "viewer")):
                if whom != who:
                    self.grant(0, who, len(self._ids) - 1, whom, role)

    def teardown(self) -> None:
        try:
            if self._engines:
                self._verify(self._engines[0])
        finally:
            for stack in self._stacks:
                self._run(stack.aclose())
            self._runner.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- the verbs -----------------------------------------------------------------------------------------------------

    @rule(at=engines, who=owners, ttl=ttls, sliding=st.booleans(), bodies=st.lists(texts, max_size=4))
    def create(self, at: int, who: str, ttl: float | None, sliding: bool, bodies: list[str]) -> None:
        if len(self._ids) >= 5:
            return
        items = [(f"chunks/{n}", text) for n, text in enumerate(bodies)]
        made: Session = self._run(
            self._engines[at].create(
                principal(who),
                kind="knowledge",
                items=[(key, {"text": text}) for key, text in items],
                retention=Retention(ttl=ttl, sliding=sliding),
            )
        )
        self._ids.append(made.id)
        self.expected.create(made.id, who, items, ttl, sliding)
        self._count("create", "ok")

    @rule(
        at=engines,
        who=actors,
        on=which,
        back=behind,
        ops=op_lists,
        rebase=st.booleans(),
        group=groups,
        change=changes,
        fence=fences,
    )
    def edit(
        self,
        at: int,
        who: str,
        on: int,
        back: int,
        ops: list[Op],
        rebase: bool,
        group: str | None,
        change: str | None,
        fence: str,
    ) -> None:
        session, kept = self._pick(on)
        expected = (kept.version if kept else 1) - back
        base = kept.states[expected] if kept and 0 <= expected <= kept.version else {}
        if rebase:  # where a new or a moved item lands among others' is for the order's own tests
            ops = [op for op in ops if op[0] != "move" and (op[0] != "put" or op[1] in base)]
        number = self._fence(session, fence)

        async def ask() -> Committed:
            edit = self._engines[at].edit(
                session, principal(who), expected=expected, rebase=rebase, group=group, change_id=change, fence=number
            )
            async with edit as draft:
                seen = dict(base)
                for verb, key, more in ops:
                    if verb == "put":
                        draft.put(key, {"text": more})
                    elif key not in seen:
                        continue
                    elif verb == "delete":
                        draft.delete(key)
                    else:
                        draft.move(key, after=more if more and more != key and more in seen else None)
                    seen = {**base, **wanted_by(base, ops[: ops.index((verb, key, more)) + 1])}  # type: ignore[dict-item]
                    seen = {name: target for name, target in seen.items() if target is not None}
            return draft.result

        self._commit(
            "edit",
            lambda: self.expected.edit(
                session, who, expected, ops, rebase=rebase, group=group, change=change, fence=number
            ),
            ask(),
        )

    @rule(at=engines, on=which, ops=op_lists, group=groups)
    def write(self, at: int, on: int, ops: list[Op], group: str | None) -> None:
        """An edit as most are: by who may, on the newest version."""
        self.edit(at, ADMIN, on, 0, ops, False, group, None, "held")

    @rule(at=engines, on=which, ops=op_lists, back=behind)
    def rebase(self, at: int, on: int, ops: list[Op], back: int) -> None:
        self.edit(at, ADMIN, on, back, ops, True, None, None, "held")

    @rule(at=engines, on=which, redo=st.booleans())
    def turn(self, at: int, on: int, redo: bool) -> None:
        self.undo_or_redo(at, ADMIN, on, 0, redo, None, "held")

    @rule(at=engines, who=actors, on=which, back=behind, redo=st.booleans(), change=changes, fence=fences)
    def undo_or_redo(self, at: int, who: str, on: int, back: int, redo: bool, change: str | None, fence: str) -> None:
        session, kept = self._pick(on)
        verb, expected = "redo" if redo else "undo", (kept.version if kept else 1) - back
        number = self._fence(session, fence)
        engine = self._engines[at]
        asked = (engine.redo if redo else engine.undo)(
            session, principal(who), expected=expected, change_id=change, fence=number
        )
        self._commit(verb, lambda: self.expected.turn(verb, session, who, expected, change=change, fence=number), asked)

    @rule(
        at=engines, who=actors, on=which, back=behind, to=st.one_of(st.integers(-1, 8), st.sampled_from(["l1", "l2"]))
    )
    def restore(self, at: int, who: str, on: int, back: int, to: int | str) -> None:
        session, kept = self._pick(on)
        expected, number = (kept.version if kept else 1) - back, self._fence(session, "held")
        asked = self._engines[at].restore(session, principal(who), to, expected=expected, fence=number)
        self._commit("restore", lambda: self.expected.restore(session, who, to, expected, fence=number), asked)

    @rule(at=engines, who=actors, on=which, version=st.one_of(st.none(), st.integers(-1, 12)))
    def read(self, at: int, who: str, on: int, version: int | None) -> None:
        session, _ = self._pick(on)
        wanted, got = self._compare(
            "read",
            lambda: self.expected.read(session, who, version),
            self._engines[at].read(session, principal(who), version=version),
        )
        if wanted is not None and got is not None:
            assert [(item.key, item.position, item.body["text"]) for item in got.items] == wanted

    @rule(at=engines, who=actors, on=which)
    def header(self, at: int, who: str, on: int) -> None:
        session, _ = self._pick(on)
        wanted, got = self._compare(
            "header", lambda: self.expected.header(session, who), self._engines[at].header(session, principal(who))
        )
        if wanted is not None and got is not None:
            assert (got.status.value, got.version) == wanted

    @rule(at=engines, who=actors)
    def find(self, at: int, who: str) -> None:
        self._settle()
        page = self._run(self._engines[at].find(principal(who)))
        assert {header.id for header in page.headers} == self.expected.find(who)
        self._count("find", "ok")

    @rule(
        at=engines,
        who=actors,
        on=which,
        name=st.sampled_from(["l1", "l2"]),
        version=st.one_of(st.none(), st.integers(-1, 6)),
    )
    def label(self, at: int, who: str, on: int, name: str, version: int | None) -> None:
        session, _ = self._pick(on)
        wanted, got = self._compare(
            "label",
            lambda: self.expected.label(session, who, name, version),
            self._engines[at].label(session, principal(who), name, version=version),
        )
        assert got is None or got.version == wanted

    @rule(
        at=engines, who=owners, on=which, whom=st.sampled_from(ACTORS[:5]), role=st.sampled_from([*ROLES, *ROLES, None])
    )
    def grant(self, at: int, who: str, on: int, whom: str, role: str | None) -> None:
        session, _ = self._pick(on)
        asked = self._engines[at].grant(session, principal(who), whom, None if role is None else Role(role))
        self._compare("grant", lambda: self.expected.grant(session, who, whom, role), asked)

    @rule(at=engines, who=actors, on=which)
    def rename(self, at: int, who: str, on: int) -> None:
        session, _ = self._pick(on)
        asked = self._engines[at].rename(session, principal(who), "a title")
        self._compare("rename", lambda: self.expected.rename(session, who), asked)

    @rule(at=engines, who=owners, on=which, over=st.booleans())
    def preview(self, at: int, who: str, on: int, over: bool) -> None:
        session, kept = self._pick(on)
        engine, verb = self._engines[at], "take_over" if over else "preview"
        predicted = self.expected.take_over if over else self.expected.preview
        asked = (engine.take_over if over else engine.preview)(session, principal(who))
        wanted, got = self._compare(verb, lambda: predicted(session, who), asked)
        if wanted is not None and got is not None and kept is not None:
            assert (got.lock.owner, got.lock.until, got.version) == (wanted.owner, wanted.until, kept.version)
            if got.live is not None and got.live.rolls_back is not None:  # its receipt is of who rolled back to it
                assert wanted.live is not None
            else:
                assert (got.live.session if got.live else None) == wanted.live
            assert got.counts["total"] == len(kept.state)
            wanted.seal = got.seal

    @rule(at=engines, who=owners, on=which)
    def unlock(self, at: int, who: str, on: int) -> None:
        session, _ = self._pick(on)
        asked = self._engines[at].unlock(session, principal(who))
        self._compare("unlock", lambda: self.expected.unlock(session, who), asked)

    @rule(at=engines, who=owners, on=which, right=st.sampled_from([True, True, True, False]))
    def publish(self, at: int, who: str, on: int, right: bool) -> None:
        session, kept = self._pick(on)
        seal = "0" * 64
        if right and kept is not None:
            seal = kept.lock.seal if kept.lock is not None else kept.seal or seal
        asked = self._engines[at].publish(session, principal(who), seal=seal)
        _, got = self._compare("publish", lambda: self.expected.publish(session, who, seal), asked)
        if got is not None and kept is not None:
            assert (got.session, got.version, got.manifest.count) == (session, kept.version, len(kept.state))

    @rule(at=engines, who=owners, on=which)
    def rollback(self, at: int, who: str, on: int) -> None:
        session, _ = self._pick(on)
        asked = self._engines[at].rollback(session, principal(who))
        self._compare("rollback", lambda: self.expected.rollback(session, who), asked)

    @rule(at=engines, on=which)
    def go_live(self, at: int, on: int) -> None:
        """A preview and its publication, as most are."""
        self.preview(at, ADMIN, on, False)
        self.publish(1 - at, ADMIN, on, True)

    @rule(at=engines, on=which, whole=st.booleans())
    def go_on(self, at: int, on: int, whole: bool) -> None:
        """A new draft of something published, and it is published too, or only previewed."""
        published = [number for number, session in enumerate(self._ids) if self.expected.sessions[session].seal]
        if not published or len(self._ids) >= _SESSIONS:
            return
        self.reopen(at, ADMIN, published[on % len(published)])
        if whole:
            self.go_live(at, len(self._ids) - 1)
        else:
            self.preview(at, ADMIN, len(self._ids) - 1, False)

    @rule(at=engines, on=which)
    def overtake(self, at: int, on: int) -> None:
        """Two new drafts of one publication, both previewed: the second to go live finds something else there."""
        published = [number for number, session in enumerate(self._ids) if self.expected.sessions[session].seal]
        if not published or len(self._ids) > _SESSIONS - 2:
            return
        drafts = []
        for _ in range(2):
            self.reopen(at, ADMIN, published[on % len(published)])
            drafts.append(len(self._ids) - 1)
            self.preview(at, ADMIN, drafts[-1], False)
        for draft in drafts:
            self.publish(1 - at, ADMIN, draft, True)

    @rule(at=engines, who=owners, on=which)
    def reopen(self, at: int, who: str, on: int) -> None:
        if len(self._ids) >= _SESSIONS:
            return
        session, _ = self._pick(on)
        asked = self._engines[at].reopen(session, principal(who))
        parent, made = self._compare("reopen", lambda: self.expected.reopen(session, who), asked)
        if parent is not None and made is not None:
            self._ids.append(made.id)
            self.expected.reopened(made.id, who, parent)

    @rule(at=engines, who=actors, on=which)
    def touch(self, at: int, who: str, on: int) -> None:
        session, _ = self._pick(on)
        asked = self._engines[at].touch(session, principal(who))
        self._compare("touch", lambda: self.expected.touch(session, who), asked)

    @rule(at=engines, who=actors, on=which, seconds=ttls)
    def extend(self, at: int, who: str, on: int, seconds: float | None) -> None:
        session, _ = self._pick(on)
        asked = self._engines[at].extend(session, principal(who), seconds=seconds)
        self._compare("extend", lambda: self.expected.extend(session, who, seconds), asked)

    @rule(at=engines, who=owners, on=which, back=st.booleans())
    def discard_or_revive(self, at: int, who: str, on: int, back: bool) -> None:
        session, _ = self._pick(on)
        engine = self._engines[at]
        if back:
            self._compare("revive", lambda: self.expected.revive(session, who), engine.revive(session, principal(who)))
        else:
            self._compare(
                "discard", lambda: self.expected.discard(session, who), engine.discard(session, principal(who))
            )

    @rule(at=engines, who=actors, on=which, seconds=st.sampled_from([30.0, 600.0]), force=st.booleans())
    def lease(self, at: int, who: str, on: int, seconds: float, force: bool) -> None:
        session, _ = self._pick(on)
        asked = self._engines[at].lease(session, principal(who), who, seconds=seconds, force=force)
        wanted, got = self._compare("lease", lambda: self.expected.lease(session, who, who, seconds, force), asked)
        if got is not None and wanted is not None:
            self._granted(self.expected.sessions[session], got.fence, wanted)
            self._leases[session] = got

    @rule(at=engines, who=actors, on=which)
    def release(self, at: int, who: str, on: int) -> None:
        session, _ = self._pick(on)
        lease = self._leases.get(session)
        if lease is not None:
            asked = self._engines[at].release(lease, principal(who))
            self._compare("release", lambda: self.expected.release(session, who, lease.fence), asked)

    # -- time, sweeps and restarts -------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 29.0, 300.0, 899.0, 901.0, 3_000.0, 5_001.0]))
    def wait(self, seconds: float) -> None:
        self._clock.advance(seconds)
        self.expected.now = self._clock.now()
        self._count("wait", "ok")

    @rule(at=engines)
    def sweep(self, at: int) -> None:
        swept = self._run(self._engines[at].sweep(principal(ADMIN)))
        wanted = self.expected.sweep()
        assert {"expired": swept.expired, "unlocked": swept.unlocked, "purged": swept.purged} == wanted
        assert (swept.recovered, swept.failed) == (0, {})
        self._count("sweep", "ok")

    @rule(at=engines, on=which, deep=st.booleans())
    def sink(self, at: int, on: int, deep: bool) -> None:
        """Move a session down a tier or two under the players' feet: nobody may notice."""
        session, kept = self._pick(on)
        if kept is None or kept.status == "purged" or kept.lock is not None:
            return
        if kept.holder is not None and kept.leased is not None and kept.leased > self._clock.now():
            return
        tiering = self._engines[at]._tiering
        if deep:
            self._run(tiering.archive(session))
        else:
            self._run(tiering.rest(session))
        self._sunk(kept)
        self._count("sink", "ok")

    @rule(at=engines)
    def restart(self, at: int) -> None:
        self._run(self._stacks[at].aclose())
        self._stacks[at], self._engines[at] = self._run(self._open())
        self._count("restart", "ok")

    @rule(at=engines)
    def verify(self, at: int) -> None:
        self._verify(self._engines[at])
        self._count("verify", "ok")

    # -- how they are played -----------------------------------------------------------------------------------------

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    async def _open(self) -> tuple[AsyncExitStack, Engine]:
        stack = AsyncExitStack()
        given = Settings(home=self._folder, grace=_GRACE, lock=_LOCK, limits=Limits(items=_ITEMS), **self._where())
        engine = await stack.enter_async_context(open_engine(given, clock=self._clock, wrap=type(self).wrap))
        return stack, engine

    def _where(self) -> dict[str, Any]:
        """The settings that say where the tiers are."""
        return {}

    def _settle(self) -> None:
        """Wait for what comes late by promise: listings, where tiers are apart."""

    def _sunk(self, kept: Kept) -> None:
        """A session has left the hot tier, where that is apart."""

    def _granted(self, kept: Kept, fence: int, wanted: int) -> None:
        assert fence == wanted

    def _pick(self, on: int) -> tuple[str, Kept | None]:
        """A session of those there are; now and then one that there is not."""
        session = self._ids[on % len(self._ids)] if self._ids and on < _SESSIONS else _NO_SESSION
        return session, self.expected.sessions.get(session)

    def _fence(self, session: str, kind: str) -> int | None:
        lease, kept = self._leases.get(session), self.expected.sessions.get(session)
        if lease is None or kept is None or kind == "none":
            return None
        if kind == "held" and kept.holder is None:
            return None
        return kept.fence if kind == "held" else lease.fence - 1

    def _compare(self, verb: str, predicted: Callable[[], T], asked: Coroutine[Any, Any, Any]) -> tuple[T | None, Any]:
        """Ask both; they must agree on whether it is refused, and with which code."""
        wanted: T | None = None
        want = got = "ok"
        answer = None
        try:
            wanted = predicted()
        except Refused as refused:
            want = refused.code
        try:
            answer = self._run(asked)
        except HoldfastError as error:
            got = error.code
        assert got == want, f"{verb}: the engine says {got}, expected was {want}"
        self._count(verb, got)
        return wanted, answer

    def _commit(self, verb: str, predicted: Callable[[], Answer], asked: Coroutine[Any, Any, Committed]) -> None:
        wanted, got = self._compare(verb, predicted, asked)
        if wanted is not None and got is not None:
            assert Answer(got.version, got.changes, got.replayed) == wanted

    def _verify(self, engine: Engine) -> None:
        async def ask() -> list[Any]:
            return [verified.problems async for verified in engine.verify(principal(ADMIN)) if not verified.ok]

        assert self._run(ask()) == []

    def _count(self, verb: str, outcome: str) -> None:
        self.steps[verb] += 1
        self.steps[outcome] += outcome != "ok"


def principal(who: str) -> Principal:
    return Principal(who, roles=frozenset({"admin", "operator"}) if who == ADMIN else frozenset())


def play(machine: type[Machine], steps: int, *, number: int | None = None, shrink: bool = True) -> Counter[str]:
    """Play so many steps, in runs of 50.

    Args:
        number: the seed; None is the fixed one of each run of the tests.
        shrink: whether a difference is brought down to the fewest steps that show it.
    Returns:
        How often each verb was played and each refusal was given.
    """
    machine.steps = Counter()
    given = settings(
        max_examples=max(1, steps // 50),
        stateful_step_count=50,
        deadline=None,
        derandomize=number is None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
    )
    if number is not None:
        machine = seed(number)(machine)
    run_state_machine_as_test(machine, settings=given)
    return machine.steps


__all__ = ["Machine", "play", "principal"]
