"""R07: what may be done in which status, verb by verb; a verb of the engine without a row here fails."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError, LockHeldError, NotDraftError, SessionGoneError
from holdfast.model.access import Principal, Role
from holdfast.model.lease import Lease
from holdfast.model.retention import Retention
from holdfast.testing.clock import ManualClock

ANA, BEN = Principal("ana"), Principal("ben")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
WEEK = 604_800.0

OK, NOT, GONE = "ok", "not-draft", "session-gone"
STATUSES = ("draft", "locked", "published", "discarded", "expired", "swept", "purged")
"""``expired`` has not been swept yet, ``swept`` has."""


class Subject:
    """A session in some status, with what the verbs need to be tried on it."""

    def __init__(self, session: str) -> None:
        self.id = session
        self.seal = ""
        self.lease: Lease | None = None

    @property
    def held(self) -> Lease:
        assert self.lease is not None
        return self.lease


Call = Callable[[Engine, Subject], Awaitable[Any]]


async def edit(engine: Engine, on: Subject) -> None:
    async with engine.edit(on.id, ANA, expected=4, fence=on.held.fence) as draft:
        draft.put("chunks/1", {"text": "written"})


async def operate(engine: Engine, on: Subject) -> None:
    arguments = {"key": "chunks/1", "text": "written"}
    await engine.operate(on.id, ANA, "edit", arguments, expected=4, fence=on.held.fence)


async def follow(engine: Engine, on: Subject) -> None:
    async for page in engine.follow(on.id, ANA):
        assert page.entries
        return


async def suspend(engine: Engine, on: Subject) -> None:
    await engine.release(on.held, ANA)
    await engine.suspend(on.id, ANA)


async def archive(engine: Engine, on: Subject) -> None:
    await engine.release(on.held, ANA)
    await engine.archive(on.id, ANA)


EDITS = (OK, NOT, NOT, GONE, GONE, GONE, GONE)
STEERS = (OK, OK, NOT, GONE, GONE, GONE, GONE)
READS = (OK, OK, OK, GONE, GONE, GONE, GONE)
LASTS = (OK, OK, OK, OK, OK, OK, GONE)  # also within the grace

ON_A_SESSION: dict[str, tuple[Call, tuple[str, ...]]] = {
    "edit": (edit, EDITS),
    "operate": (operate, EDITS),
    "undo": (lambda engine, on: engine.undo(on.id, ANA, expected=4, fence=on.held.fence), EDITS),
    "redo": (lambda engine, on: engine.redo(on.id, ANA, expected=4, fence=on.held.fence), EDITS),
    "restore": (lambda engine, on: engine.restore(on.id, ANA, 1, expected=4, fence=on.held.fence), EDITS),
    "rename": (lambda engine, on: engine.rename(on.id, ANA, "renamed"), EDITS),
    "lease": (lambda engine, on: engine.lease(on.id, ANA, "tab"), EDITS),
    "renew": (lambda engine, on: engine.renew(on.held, ANA), EDITS),
    "label": (lambda engine, on: engine.label(on.id, ANA, "a name"), READS),
    "grant": (lambda engine, on: engine.grant(on.id, ANA, "ben", Role.VIEWER), READS),
    "preview": (lambda engine, on: engine.preview(on.id, ANA), STEERS),
    "touch": (lambda engine, on: engine.touch(on.id, ANA), STEERS),
    "extend": (lambda engine, on: engine.extend(on.id, ANA, seconds=50.0), STEERS),
    "discard": (lambda engine, on: engine.discard(on.id, ANA), STEERS),
    "suspend": (suspend, READS),
    "archive": (archive, LASTS),
    "rehydrate": (lambda engine, on: engine.rehydrate(on.id, ANA), LASTS),
    "unlock": (lambda engine, on: engine.unlock(on.id, ANA), (NOT, OK, NOT, GONE, GONE, GONE, GONE)),
    "take_over": (lambda engine, on: engine.take_over(on.id, ANA), (NOT, OK, NOT, GONE, GONE, GONE, GONE)),
    "publish": (lambda engine, on: engine.publish(on.id, ANA, seal=on.seal), (NOT, OK, OK, GONE, GONE, GONE, GONE)),
    "rollback": (lambda engine, on: engine.rollback(on.id, ANA), (NOT, NOT, OK, GONE, GONE, GONE, GONE)),
    "reopen": (lambda engine, on: engine.reopen(on.id, ANA), (NOT, NOT, OK, GONE, GONE, GONE, GONE)),
    "revive": (lambda engine, on: engine.revive(on.id, ANA), (NOT, NOT, NOT, OK, OK, OK, GONE)),
    "release": (lambda engine, on: engine.release(on.held, ANA), LASTS),
    "read": (lambda engine, on: engine.read(on.id, ANA), READS),
    "history": (lambda engine, on: engine.history(on.id, ANA), READS),
    "diff": (lambda engine, on: engine.diff(on.id, ANA, 1, 4), READS),
    "labels": (lambda engine, on: engine.labels(on.id, ANA), READS),
    "receipts": (lambda engine, on: engine.receipts(on.id, ANA), READS),
    "leased": (lambda engine, on: engine.leased(on.id, ANA), READS),
    "preview_undo": (lambda engine, on: engine.preview_undo(on.id, ANA), READS),
    "preview_redo": (lambda engine, on: engine.preview_redo(on.id, ANA), READS),
    "header": (lambda engine, on: engine.header(on.id, ANA), LASTS),
    "feed": (lambda engine, on: engine.feed(on.id, ANA), LASTS),
    "follow": (follow, LASTS),
    "export": (lambda engine, on: engine.export(on.id, ANA), LASTS),
}
CHANGES_NOTHING = {"read", "history", "diff", "labels", "receipts", "leased", "preview_undo", "preview_redo"} | {
    "header",
    "feed",
    "follow",
    "export",
    "archive",
    "rehydrate",
}
STANDS_ALONE = {"lease", "renew", "release", "reopen"}
"""Allowed, they leave the session's own step as it is."""
ON_NO_SESSION = {"create", "ingest", "find", "search", "sweep", "verify", "keys", "rotate_keys", "audit", "close"} | {
    "counts",
    "lags",
    "health",
    "revoke",
    "revocations",
    "tiers",
    "flush",
    "tier_state",
    "start",
}


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_r07_every_verb_of_the_engine_has_its_row() -> None:
    assert public(Engine) == ON_A_SESSION.keys() | ON_NO_SESSION


async def subject(engine: Engine, clock: ManualClock, status: str) -> Subject:
    """A session at version 4, with something to undo and something to redo, in a status."""
    ttl = 60.0 if status in ("expired", "swept") else None
    made = await engine.create(
        ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})], retention=Retention(ttl=ttl)
    )
    on = Subject(made.id)
    for version in (1, 2):
        async with engine.edit(on.id, ANA, expected=version) as draft:
            draft.put("chunks/1", {"text": f"{version}"})
    await engine.undo(on.id, ANA, expected=3)
    on.lease = await engine.lease(on.id, ANA, "tab")
    if status in ("locked", "published"):
        on.seal = (await engine.preview(on.id, ANA)).seal
    if status == "published":
        await engine.publish(on.id, ANA, seal=on.seal)
    if status in ("discarded", "purged"):
        await engine.discard(on.id, ANA)
    if status == "purged":
        clock.advance(WEEK + 1)
        await engine.sweep(ROOT)
    if status in ("expired", "swept"):
        clock.advance(61)
    if status == "swept":
        assert (await engine.sweep(ROOT)).expired >= 1
    return on


async def outcome(call: Call, engine: Engine, on: Subject) -> str:
    try:
        await call(engine, on)
    except HoldfastError as error:
        return error.code
    return OK


async def step(engine: Engine, on: Subject) -> int | None:
    try:
        return (await engine.header(on.id, ANA)).step
    except SessionGoneError:
        return None


@pytest.mark.parametrize("verb", ON_A_SESSION)
async def test_r07_each_verb_does_in_each_status_what_the_table_says(opens: Any, clock: ManualClock, verb: str) -> None:
    engine, other = await opens(), await opens()
    call, expected = ON_A_SESSION[verb]
    found = []
    for status in STATUSES:
        on = await subject(engine, clock, status)
        before = await step(engine, on)
        found.append(await outcome(call, other, on))  # the one that did not put it there
        after = await step(engine, on)
        if found[-1] != OK or verb in CHANGES_NOTHING | STANDS_ALONE:
            assert after == before, f"{verb} of a {status} session left a step behind"
        elif (verb, status) not in (("publish", "published"), ("touch", "draft"), ("touch", "locked")):
            assert after is not None
            assert before is not None
            assert after > before, f"{verb} of a {status} session left nothing behind"
    assert dict(zip(STATUSES, found, strict=True)) == dict(zip(STATUSES, expected, strict=True))


async def test_r07_a_lock_holds_for_its_owner_too_and_only_its_owner_or_an_admin_takes_it_down(engine: Engine) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    await engine.grant(session, ANA, "ben", Role.EDITOR)
    seal = (await engine.preview(session, BEN)).seal
    for who in (ANA, BEN):
        with pytest.raises(NotDraftError):
            async with engine.edit(session, who, expected=1) as draft:
                draft.put("chunks/1", {"text": "two"})
    for refused in (engine.preview(session, ANA), engine.unlock(session, ANA), engine.publish(session, ANA, seal=seal)):
        with pytest.raises(LockHeldError) as caught:
            await refused
        assert caught.value.owner == "ben"
    assert (await engine.unlock(session, ROOT)).status == "draft"


async def test_a_lock_that_has_lapsed_is_no_lock_and_the_log_tells_of_it(opens: Any, clock: ManualClock) -> None:
    engine, other = await opens(), await opens()
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    await engine.preview(session, ANA, seconds=100)
    clock.advance(99)
    with pytest.raises(NotDraftError):
        async with other.edit(session, ANA, expected=1) as draft:
            draft.put("chunks/1", {"text": "two"})
    clock.advance(1)
    async with other.edit(session, ANA, expected=1) as draft:
        draft.put("chunks/1", {"text": "two"})
    assert [entry.header.operation for entry in await engine.history(session, ANA)] == [
        "edit",
        "unlock",
        "lock",
        "create",
    ]
    header = await engine.header(session, ANA)
    assert (header.status, header.lock) == ("draft", None)


@pytest.mark.parametrize("verb", ["label", "grant", "touch", "extend", "rename", "lease", "discard"])
async def test_a_verb_after_a_lock_has_lapsed_leaves_no_lock_behind(
    engine: Engine, clock: ManualClock, verb: str
) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    await engine.preview(session, ANA, seconds=100)
    clock.advance(101)
    on = Subject(session)
    await ON_A_SESSION[verb][0](engine, on)
    header = await engine.header(session, ANA)
    assert header.lock is None
    assert header.status == ("discarded" if verb == "discard" else "draft")
    assert (await engine.sweep(ROOT)).total == 0
    looks = header.events()
    assert all(time > clock.now() for time in looks)


async def test_a_lapsed_lock_is_taken_down_by_the_sweeper(engine: Engine, clock: ManualClock) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    await engine.preview(session, ANA, seconds=100)
    clock.advance(99.5)
    assert (await engine.sweep(ROOT)).unlocked == 0
    clock.advance(0.5)
    assert (await engine.sweep(ROOT)).unlocked == 1
    header = await engine.header(session, ANA)
    assert (header.status, header.lock) == ("draft", None)


async def test_a_take_over_labels_what_its_owner_left_first(engine: Engine, clock: ManualClock) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    await engine.grant(session, ANA, "ben", Role.EDITOR)
    old = await engine.preview(session, BEN)
    taken = await engine.take_over(session, ANA)
    assert (taken.lock.owner, taken.seal) == ("ana", old.seal)
    (label,) = await engine.labels(session, ANA)
    assert label.version == 1
    assert label.name.startswith("ben")
    with pytest.raises(LockHeldError):
        await engine.publish(session, BEN, seal=old.seal)
    with pytest.raises(LockHeldError):
        await engine.unlock(session, BEN)
    await engine.unlock(session, ANA)
    await engine.restore(session, ANA, label.name, expected=1)


async def test_a_lock_lasts_a_time_that_makes_sense(engine: Engine) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    for seconds in (-1.0, float("nan"), float("inf"), 1e300):
        with pytest.raises(HoldfastError) as caught:
            await engine.preview(session, ANA, seconds=seconds)
        assert isinstance(caught.value, ValueError)
    assert (await engine.header(session, ANA)).status == "draft"


async def test_what_another_engine_did_is_seen_by_the_next_verb(opens: Any) -> None:
    """Two engines have the session at hand; a refusal must never come from what one of them remembers."""
    one, two = await opens(), await opens()
    session = (await one.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id

    async def edit_as(who: Principal, engine: Engine, text: str) -> None:
        version = (await one.header(session, ANA)).version
        async with engine.edit(session, who, expected=version) as draft:
            draft.put("chunks/1", {"text": text})

    await edit_as(ANA, two, "a")
    await two.preview(session, ANA)
    await one.unlock(session, ANA)
    await edit_as(ANA, two, "b")
    await two.discard(session, ANA)
    await one.revive(session, ANA)
    await edit_as(ANA, two, "c")
    with pytest.raises(HoldfastError):
        await edit_as(BEN, two, "no right")
    await one.grant(session, ANA, "ben", Role.EDITOR)
    await edit_as(BEN, two, "d")
    await one.grant(session, ANA, "ben", None)
    with pytest.raises(HoldfastError):
        await edit_as(BEN, two, "no right")
    await one.preview(session, ANA)
    with pytest.raises(NotDraftError):
        await edit_as(ANA, two, "locked")
    assert [item.body["text"] for item in (await two.read(session, ANA)).items] == ["d"]


async def test_an_edit_that_changes_nothing_is_still_held_against_the_newest_version(opens: Any) -> None:
    one, two = await opens(), await opens()
    session = (await one.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id
    await two.operate(session, ANA, "edit", {"key": "chunks/1", "text": "two"}, expected=1)
    await one.operate(session, ANA, "edit", {"key": "chunks/1", "text": "three"}, expected=2)
    with pytest.raises(HoldfastError) as caught:
        async with two.edit(session, ANA, expected=2) as draft:
            draft.put("chunks/1", {"text": "two"})  # as two remembers it; it is three by now
    assert caught.value.code == "version-conflict"
