"""Whoever watches the engine is told of all that lands, and can do it no harm."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.errors import StoreUnavailableError, VersionConflictError
from holdfast.model.access import Principal
from holdfast.model.lease import Lease
from holdfast.model.session import Header, Write
from holdfast.ports.observer import Lags, Observer
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock

ANA = Principal("ana")
ADMIN = Principal("ada", roles=frozenset({"admin", "operator"}))
ITEMS = [("chunks/1", {"text": "one"})]


class Watcher(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, int, datetime]] = []
        self.leases: list[tuple[str, str, int]] = []
        self.calls: list[tuple[str, str]] = []
        self.failures: list[tuple[str, str, str]] = []
        self.breakers: list[tuple[str, str]] = []

    def appended(self, header: Header, operation: str, actor: str, at: datetime) -> None:
        self.entries.append((operation, actor, header.step, at))

    def leased(self, step: str, header: Header, actor: str, lease: Lease) -> None:
        self.leases.append((step, actor, lease.fence))

    def stored(self, tier: str, what: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((tier, what))

    def failed(self, what: str, code: str, session: str = "") -> None:
        self.failures.append((what, code, session))

    def broke(self, tier: str, state: str) -> None:
        self.breakers.append((tier, state))


class Raising(Observer):
    """Fails whatever it is told."""

    def appended(self, header: Header, operation: str, actor: str, at: datetime) -> None:
        raise RuntimeError

    def leased(self, step: str, header: Header, actor: str, lease: Lease) -> None:
        raise RuntimeError

    def stored(self, tier: str, what: str, seconds: float) -> None:
        raise RuntimeError

    def failed(self, what: str, code: str, session: str = "") -> None:
        raise RuntimeError

    def broke(self, tier: str, state: str) -> None:
        raise RuntimeError


async def made(engine: Engine) -> str:
    return str((await engine.create(ANA, kind="knowledge", items=ITEMS)).header.id)


async def work(engine: Engine) -> str:
    """A commit, a step, a lease and a refusal."""
    session = await made(engine)
    async with engine.edit(session, ANA, expected=1, change_id="c1") as draft:
        draft.put("chunks/1", {"text": "two"})
    async with engine.edit(session, ANA, expected=1, change_id="c1") as draft:  # sent again: no second effect
        draft.put("chunks/1", {"text": "two"})
    with pytest.raises(VersionConflictError):
        await engine.undo(session, ANA, expected=1)
    await engine.rename(session, ANA, "another")
    await engine.release(await engine.renew(await engine.lease(session, ANA, "tab"), ANA), ANA)
    return session


async def test_each_entry_that_lands_is_told_once_and_in_order(settings: Settings, clock: ManualClock) -> None:
    watcher = Watcher()
    async with open_engine(settings, clock=clock, observer=watcher) as engine:
        session = await work(engine)
        history = await engine.history(session, ANA)
        logged = [(entry.header.operation, entry.header.actor, entry.step, entry.header.at) for entry in history[::-1]]
    assert watcher.entries == logged
    assert [entry[0] for entry in watcher.entries] == ["create", "edit", "rename"]
    assert watcher.leases == [("taken", "ana", 1), ("renewed", "ana", 1), ("released", "ana", 1)]


async def test_what_the_sweeper_does_is_told_too(settings: Settings, clock: ManualClock) -> None:
    watcher = Watcher()
    async with open_engine(settings, clock=clock, observer=watcher) as engine:
        await made(engine)
        clock.advance(10 * 86_400)
        await engine.sweep(ADMIN)
        clock.advance(settings.grace + 1)
        await engine.sweep(ADMIN)
    assert [(operation, actor) for operation, actor, _, _ in watcher.entries] == [
        ("create", "ana"),
        ("expire", "holdfast"),
        ("purge", "holdfast"),
    ]


async def test_a_write_that_the_store_did_not_answer_is_not_told_of(settings: Settings, clock: ManualClock) -> None:
    class Silent:
        """A hot store whose answer to a write is lost."""

        def __init__(self, store: Any) -> None:
            self._store, self.lost = store, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def write(self, write: Write, *, now: datetime) -> bool:
            landed = await self._store.write(write, now=now)
            if self.lost:
                raise StoreUnavailableError("hot", "the answer was lost")
            return bool(landed)

    stores: list[Silent] = []

    def wrap(store: Any) -> Any:
        stores.append(Silent(store))
        return stores[0]

    watcher = Watcher()
    async with open_engine(settings, clock=clock, observer=watcher, wrap=wrap) as engine:
        session = await made(engine)
        stores[0].lost = True
        with pytest.raises(StoreUnavailableError):
            await engine.rename(session, ANA, "another")
        assert ("hot", "write") in watcher.calls
        assert watcher.calls.count(("hot", "write")) == 2
    assert [entry[0] for entry in watcher.entries] == ["create"]


async def test_every_tier_is_timed_and_a_failing_call_is_too(settings: Settings, clock: ManualClock) -> None:
    watcher = Watcher()
    async with open_engine(settings, clock=clock, observer=watcher) as engine:
        source = (await engine.ingest(ANA, b"# one\n\ntwo\n", "x.md")).header.id
        await engine.find(ANA)
        await engine.read(source, ANA)
        assert await engine.counts() == {("draft", "knowledge"): 1}
    assert {("hot", "head"), ("hot", "write"), ("warm", "find"), ("warm", "counts"), ("cold", "put")} <= {
        *watcher.calls
    }


async def test_an_observer_that_raises_changes_nothing(settings: Settings, clock: ManualClock) -> None:
    async with open_engine(settings, clock=clock, observer=Raising()) as engine:
        session = await work(engine)
        read = await engine.read(session, ANA)
    assert (read.header.version, read.header.title) == (2, "another")


async def test_without_an_observer_the_stores_are_asked_directly(settings: Settings, clock: ManualClock) -> None:
    seen: list[Any] = []

    def wrap(store: Any) -> Any:
        seen.append(store)
        return store

    async with open_engine(settings, clock=clock, wrap=wrap) as engine:
        assert engine._journal.hot is seen[0]


async def test_how_far_the_engine_is_behind_can_be_asked(engine: Engine, clock: ManualClock) -> None:
    session = await made(engine)
    assert engine.lags() == Lags(0, 0.0, 0, 0.0)
    await engine.read(session, ANA)
    clock.advance(5)
    await engine.read(session, ANA)  # the same line, counted
    await engine.header(session, ANA)
    assert engine.lags() == Lags(2, 5.0, 0, 5.0)
    await engine.audit(ADMIN)
    await engine.sweep(ADMIN)
    clock.advance(2)
    lags = engine.lags()
    assert (lags.audit, lags.audit_seconds, lags.sweep_seconds) == (
        2,
        2.0,
        2.0,
    )  # the audit's own line, and the sweep's


async def test_lines_that_could_not_be_written_go_on_waiting_from_when_they_were_noted(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine(settings, clock=clock) as engine:
        session = await made(engine)
        await engine.read(session, ANA)

        async def record(*_: Any, **__: Any) -> bool:
            raise StoreUnavailableError("warm", "busy")

        with monkeypatch.context() as broken:
            broken.setattr(engine._journal.warm, "record", record)
            clock.advance(4)
            await engine._audit.flush()
            assert engine.lags() == Lags(1, 4.0, 0, 4.0)
            clock.advance(1)
            await engine.header(session, ANA)
            assert engine.lags() == Lags(2, 5.0, 0, 5.0)
        await engine._audit.flush()
        assert engine.lags() == Lags(0, 0.0, 0, 5.0)
