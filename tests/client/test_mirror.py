"""The client is the engine with the principal left out: the same names, arguments and results, and the same answers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, cast

import pytest
from msgspec.structs import replace

from holdfast.client import Client
from holdfast.engine.engine import Engine
from holdfast.engine.tiering import Tiers
from holdfast.errors import HoldfastError
from holdfast.model.access import Principal, Role
from holdfast.model.audit import AuditLine
from holdfast.model.change import Change
from holdfast.model.retention import Retention
from holdfast.model.session import Session
from holdfast.wire.values import plain

ENGINE_ALONE = {
    "counts": "for the metrics of the process the engine is in",
    "lags": "for the metrics of the process the engine is in",
    "tier_state": "for the metrics of the process the engine is in",
    "start": "the client is opened by entering its block",
    "close": "the client is closed by leaving its block",
}
CLIENT_ALONE = {"whoami": "only a service knows who a token is; whoever calls the engine says who asks"}
OTHERWISE = {
    "edit": {"return": "another object, whose draft is the same to its author"},
    "read": {
        "unless": "the client names the state it has kept by itself, and gives that where it still stands",
        "return": "a session always, for that reason",
    },
}


def public(kind: type) -> dict[str, Callable[..., Any]]:
    return {name: made for name, made in vars(kind).items() if inspect.isfunction(made) and name[0] != "_"}


def described(made: Callable[..., Any]) -> dict[str, Any]:
    """Everything about a signature: names in order, sorts, defaults and types, and whether it is a coroutine."""
    signature = inspect.signature(made)
    told: dict[str, Any] = {
        name: (one.kind, _default(one.default), one.annotation)
        for name, one in signature.parameters.items()
        if name not in ("self", "who")
    }
    return {**told, "return": signature.return_annotation, "(order)": list(told), "(sort)": _sort(made)}


def _default(value: Any) -> Any:
    return (value.__code__.co_code, value.__code__.co_varnames) if inspect.isfunction(value) else value


def _sort(made: Callable[..., Any]) -> tuple[bool, bool]:
    return inspect.iscoroutinefunction(made), inspect.isasyncgenfunction(made)


def test_every_verb_of_the_engine_is_there_and_no_other() -> None:
    engine, client = set(public(Engine)), set(public(Client))
    assert engine - client == set(ENGINE_ALONE)
    assert client - engine == set(CLIENT_ALONE)


@pytest.mark.parametrize("name", sorted(set(public(Engine)) & set(public(Client))))
def test_a_verb_has_the_same_signature(name: str) -> None:
    ours, theirs = described(public(Client)[name]), described(public(Engine)[name])
    for other in OTHERWISE.get(name, {}):
        ours.pop(other, None)
        assert theirs.pop(other, None), f"{name}: {other} is no longer an exception"
        for told in (ours, theirs):
            told["(order)"] = [one for one in told["(order)"] if one != other]
    assert ours == theirs


# -- the same story, told to both --------------------------------------------------------------------------------------


class Bound:
    """An engine as one principal sees it: the methods without ``who``."""

    def __init__(self, engine: Engine, who: Principal) -> None:
        self._engine, self._who = engine, who

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._engine, name)
        names = list(inspect.signature(method).parameters)
        if "who" not in names:
            return cast(Callable[..., Any], method)
        at = names.index("who")
        return lambda *given, **named: method(*given[:at], self._who, *given[at:], **named)


class Told:
    """Everything that came of a story, with what differs from run to run taken out of it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []
        self._names: dict[str, str] = {}

    async def __call__(self, what: str, asked: Awaitable[Any]) -> Any:
        try:
            came = await asked
        except HoldfastError as error:
            self.lines.append((what, [type(error).__name__, self._same(str(error)), self._same(error.facts())]))
            return None
        self.lines.append((what, self._same(came)))
        return came

    def _same(self, value: Any) -> Any:
        if isinstance(value, Session):
            return {"header": self._same(value.header), "items": self._same(value.items)}
        if isinstance(value, Change):
            return [value.key, value.verb, value.position, self._same(value.bodies)]
        if hasattr(value, "__struct_fields__"):
            value = {name: getattr(value, name) for name in value.__struct_fields__ if name not in _HIDDEN}
        if isinstance(value, datetime | bytes) or (isinstance(value, float) and value > 1e9):
            return type(value).__name__
        if isinstance(value, Mapping):
            return {self._same(name): self._same(inner) for name, inner in value.items() if name not in _HIDDEN}
        if isinstance(value, list | tuple):
            return [type(value).__name__, *map(self._same, value)]
        return self._named(value) if isinstance(value, str) else plain(value)

    def _named(self, text: str) -> str:
        text = re.sub(r"(\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(\.\d+)?", "<time>", text)
        return _RANDOM.sub(lambda found: self._names.setdefault(found[0], f"<{len(self._names)}>"), text)


_HIDDEN = {"schema", "expiring_since", "warned", "blobs", "root", "sealed", "written", "beneath", "fingerprint"}
"""What only the engine has a use for, and is not sent."""
_RANDOM = re.compile(r"[A-Za-z0-9_/+-]{22,}=*|key-[a-z2-7]{12}")


async def steps(draft: Any, *made: tuple[Any, ...]) -> None:
    for name, *given in made:
        getattr(draft, name)(*given)


async def story(ana: Any, ben: Any, ada: Any) -> list[tuple[str, Any]]:
    """A session's life with everything in it that a caller may meet, in code that knows neither engine nor client."""
    tell = Told()
    items = [("chunks/1", {"text": "one ✓"}), ("chunks/2", {"text": "two"}), ("chunks/3", {"text": "three"})]
    first = await tell("create", ana.create(kind="knowledge", title="Tides", items=items, change_id="make-1"))
    s = first.id
    await tell("create again", ana.create(kind="knowledge", title="Tides", items=items, change_id="make-1"))
    await tell("id reused", ana.create(kind="knowledge", title="Other", items=items, change_id="make-1"))
    await tell("no kind", ana.create(kind="poem"))
    await tell("no field", ana.create(kind="knowledge", items=[("chunks/1", {"txt": 1})]))
    await tell("kept", ana.create(kind="knowledge", retention=Retention(ttl=60, sliding=False), target="here"))
    await tell("header", ana.header(s))
    for nobody in ("", "../v1/keys", "missing", "a" * 32):
        await tell("no session", ana.header(nobody))
    await tell("not yours", ben.read(s))
    await tell("grant", ana.grant(s, "ben", Role.VIEWER, change_id="g-1"))
    await tell("grant owner", ana.grant(s, "ben", Role.OWNER))
    await tell("read", ben.read(s))

    async def edit(who: Any, *made: tuple[Any, ...], reading: tuple[str, ...] = (), **named: Any) -> Any:
        async with who.edit(s, **named) as draft:
            for key in reading:
                draft.get(key)
            await steps(draft, *made)
        return draft.result

    await tell("edit", edit(ana, ("put", "chunks/4", {"text": "four"}), ("move", "chunks/1"), expected=1, group="g"))
    again = (("delete", "chunks/2"), ("put", "chunks/2", {"text": "2"}))
    await tell("edit 2", edit(ana, *again, expected=2, group="g", operation="reword"))
    await tell("may not", edit(ben, ("delete", "chunks/2"), expected=3))
    await tell("no version", edit(ana, ("delete", "chunks/2")))
    await tell("stale", edit(ana, ("put", "chunks/2", {"text": "mine"}), expected=2))
    await tell("to come", edit(ana, ("put", "chunks/2", {"text": "mine"}), expected=9))
    await tell("rebase", edit(ana, ("put", "chunks/3", {"text": "III"}), expected=2, rebase=True, change_id="e-1"))
    await tell("again", edit(ana, ("put", "chunks/3", {"text": "III"}), expected=2, rebase=True, change_id="e-1"))
    await tell("other", edit(ana, ("put", "chunks/3", {"text": "iii"}), expected=2, rebase=True, change_id="e-1"))
    await tell("clash", edit(ana, ("delete", "chunks/4"), reading=("chunks/2",), expected=2, rebase=True))
    await tell("nothing", edit(ana, expected=4))
    await tell("another's name", edit(ana, ("delete", "chunks/4"), expected=4, operation="publish"))
    await tell("no name", edit(ana, ("delete", "chunks/4"), expected=4, operation="No name"))
    await tell("none such", edit(ana, ("delete", "chunks/99"), expected=4))
    await tell("no key", edit(ana, ("put", "Chunks", {}), expected=4))
    await tell("no body", edit(ana, ("put", "chunks/5", {"text": ""}), expected=4))
    await tell("history", ana.history(s, limit=3))
    await tell("history below", ana.history(s, before=2))
    await tell("diff", ana.diff(s, 1, 4))
    await tell("no diff", ana.diff(s, 1, 40))
    await tell("as of", ana.read(s, version=2))
    await tell("as of never", ana.read(s, version=40))
    await tell("feed", ana.feed(s, limit=2))
    await tell("no cursor", ana.feed(s, after="not a cursor"))
    await tell("what undo would", ana.preview_undo(s))
    await tell("undo", ana.undo(s, expected=4, change_id="u-1"))
    await tell("undo again", ana.undo(s, expected=4, change_id="u-1"))
    await tell("undo the group", ana.undo(s, expected=5))
    await tell("undo stale", ana.undo(s, expected=5))
    await tell("undo blindly", ana.undo(s, expected=None))
    await tell("nothing to undo", ana.undo(s, expected=6))
    await tell("what redo would", ana.preview_redo(s))
    await tell("redo", ana.redo(s, expected=6))
    await tell("label", ana.label(s, "good", version=4))
    await tell("label ü", ana.label(s, "so gut wie ü?", change_id="l-1"))
    await tell("no label", ana.label(s, "v3"))
    await tell("labels", ana.labels(s))
    await tell("restore", ana.restore(s, "good", expected=7))
    await tell("restore never", ana.restore(s, "bad", expected=8))
    await tell("restore 1", ana.restore(s, 1, expected=8))
    await tell("run", ana.operate(s, "disable", {"keys": ["chunks/3"]}, expected=9, change_id="o-1"))
    await tell("run again", ana.operate(s, "disable", {"keys": ["chunks/3"]}, expected=9, change_id="o-1"))
    await tell("run nothing", ana.operate(s, "sing", {}, expected=10))
    await tell("run wrongly", ana.operate(s, "disable", {"keys": 7}, expected=10))
    await tell("rename", ana.rename(s, "Tides and moons", change_id="r-1"))
    lease = await tell("lease", ana.lease(s, "tab 1", seconds=20))
    await tell("held", ana.lease(s, "tab 2"))
    await tell("leased", ana.leased(s))
    await tell("renew", ana.renew(lease, seconds=30))
    await tell("write without", edit(ana, ("delete", "chunks/3"), expected=10))
    taken = await tell("forced", ana.lease(s, "tab 2", force=True))
    await tell("renew lost", ana.renew(lease))
    await tell("write lost", edit(ana, ("delete", "chunks/3"), expected=10, fence=lease.fence))
    await tell("suspend held", ana.suspend(s))
    await tell("release", ana.release(taken))
    await tell("leased by none", ana.leased(s))
    await tell("suspend", ana.suspend(s))
    await tell("archive", ana.archive(s))
    await tell("archive again", ana.archive(s))
    await tell("archive may not", ben.archive(s))
    await tell("rehydrate", ana.rehydrate(s))
    await tell("rehydrate may not", ben.rehydrate(s))
    await tell("archive nothing", ana.archive("a" * 32))
    await tell("touch", ana.touch(s, change_id="t-1"))
    await tell("extend", ana.extend(s, seconds=1000.5))
    await tell("extend too far", ana.extend(s, seconds=-1.5))
    await tell("keep", ana.extend(s, seconds=None))
    preview = await tell("preview", ana.preview(s, seconds=60))
    await tell("locked", edit(ana, ("delete", "chunks/3"), expected=10))
    await tell("grant", ana.grant(s, "ben", Role.EDITOR))
    await tell("lock held", ben.unlock(s))
    await tell("taken over", ben.take_over(s))
    await tell("taken back", ana.take_over(s, seconds=90))
    await tell("other seal", ana.publish(s, seal="0" * 64))
    reached: list[tuple[str, int, int]] = []
    seal = preview.seal
    await tell("publish", ana.publish(s, seal=seal, progress=lambda *told: reached.append(told)))
    assert reached[-1] == ("done", 2, 2)
    await tell("publish again", ana.publish(s, seal=seal))
    await tell("receipts", ana.receipts(s))
    await tell("search", ana.search("three", limit=1))
    await tell("search in nothing", ana.search("three", kind="poem"))
    again = await tell("reopen", ana.reopen(s, change_id="ro-1"))
    await tell("rollback", ana.rollback(s))
    await tell("rollback again", ana.rollback(s))
    await tell("published", ana.discard(s))
    await tell("discard", ana.discard(again.id, change_id="d-1"))
    await tell("gone", ana.read(again.id))
    await tell("header of gone", ana.header(again.id))
    await tell("revive", ana.revive(again.id))
    source = await tell("ingest", ana.ingest("# A\n\nText ü.".encode(), "a file.md", title="T", change_id="i-1"))
    await tell("ingest again", ana.ingest("# A\n\nText ü.".encode(), "a file.md", title="T", change_id="i-1"))
    await tell("export", ana.export(source.id))
    await tell("find", ana.find(text="tides", limit=1))
    await tell("find the next", ana.find(after="nonsense"))
    await tell("find drafts", ana.find(status="draft", kind="knowledge"))
    await tell("find ben's", ben.find(owner="ben"))
    await tell("audit of it", kinds_of(ana.audit(session_id=s, limit=2_500)))
    await tell("audit of it, below", counted(ana.audit(session_id=s, after=3, limit=5)))
    await tell("audit", ana.audit())
    await tell("audit of all", kinds_of(ada.audit(limit=2_500)))
    await tell("sweep", ana.sweep())
    await tell("sweep", ada.sweep())
    await tell("keys", ada.keys())
    await tell("rotate", ada.rotate_keys())
    await tell("verify", collected(ada.verify(s)))
    await tell("verify may not", collected(ana.verify()))
    await tell("repair", collected(ada.verify(s, repair=True)))
    await tell("repair may not", collected(ana.verify(s, repair=True)))
    await tell("tiers", held(ada.tiers()))
    await tell("tiers may not", ana.tiers())
    await tell("flush", ada.flush(retry=True))
    await tell("flush may not", ana.flush())
    await tell("revoke", ada.revoke(token="a-token"))
    await tell("revoke nothing", ana.revoke())
    await tell("revoke another", ana.revoke(principal="ben"))
    await tell("revocations", ada.revocations())
    await tell("health", ana.health())
    return tell.lines


async def kinds_of(lines: Awaitable[list[AuditLine]]) -> list[tuple[str, ...]]:
    """What was done, but for reads: the client makes some by itself, and the service reads the tag of what a preview
    has locked. It refuses some things by itself too.
    """
    unasked = {"read", "header"}
    return sorted(
        {(line.actor, line.verb) for line in await lines if line.outcome == "ok" and line.verb not in unasked}
    )


async def held(tiers: Awaitable[Tiers]) -> Tiers:
    """Without how many bytes that takes on the disk, which is another on each."""
    told = await tiers
    assert told.warm is not None
    assert told.warm.bytes > 0
    return replace(told, warm=replace(told.warm, bytes=0))


async def counted(many: Awaitable[list[Any]]) -> int:
    return len(await many)


async def collected(many: Any) -> list[Any]:
    return [one async for one in many]


async def test_a_story_goes_the_same_way_with_either(opens: Any, connect: Any) -> None:
    engine = await opens(clock=None)
    people = (Principal("ana"), Principal("ben"), Principal("ada", roles=frozenset({"admin", "operator"})))
    with_engine = await story(*(Bound(engine, who) for who in people))
    with_client = await story(*[await connect(who.id) for who in people])
    assert [both for both in zip(with_client, with_engine, strict=True) if both[0] != both[1]] == []
    errors = {told[1][0] for told in with_engine if isinstance(told[1], list) and str(told[1][0]).endswith("Error")}
    assert len(errors) >= 20, "the story meets fewer errors than it did"


async def test_the_story_sees_a_difference(opens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that dropped a word of an answer would not pass."""
    engine = await opens(clock=None)
    tell = Told()
    await tell("header", engine.create(Principal("ana"), kind="knowledge", title="Tides"))
    other = Told()
    await other("header", engine.create(Principal("ana"), kind="knowledge", title="Tide"))
    assert tell.lines != other.lines
