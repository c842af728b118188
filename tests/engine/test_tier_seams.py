"""Where two tiers meet: what is put back, what never stops, what has a gap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.engine import flushing
from holdfast.errors import TamperedError
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.tiers import ANA, ROOT, Apart, Idle, around, eventually, make, put


async def test_r16_an_old_head_put_back_beside_its_log_is_found(tiers: Apart) -> None:
    stores: list[RedisHotStore] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "hot":
            return store
        stores.append(store)
        return Idle(store)

    with around(wrap):
        engine, other = [await tiers.open(proxied=False) for _ in range(2)]
    session = await make(engine)
    keys, redis = stores[0].keys.session(session), stores[0]._redis
    was = await redis.ask(keys.tag, b"DUMP", keys.session)
    assert await put(engine, session, "two", expected=1) == 2
    await redis.ask(keys.tag, b"RESTORE", keys.session, 0, was, b"REPLACE")
    with pytest.raises(TamperedError):
        await other.read(session, ANA)


async def test_a_flush_asked_for_ends_while_others_go_on_writing(tiers: Apart) -> None:
    engine, other = [await tiers.open(proxied=False) for _ in range(2)]
    sessions = [await make(engine) for _ in range(6)]
    ended = asyncio.Event()

    async def write(session: str) -> None:
        version = 1
        while not ended.is_set():
            version = await put(engine, session, f"{version}", expected=version)

    writing = [asyncio.create_task(write(session)) for session in sessions]
    try:
        await asyncio.wait_for(other.flush(ROOT), 5)
    finally:
        ended.set()
        await asyncio.gather(*writing)


async def test_what_others_have_flushed_is_not_remembered_for_ever(
    tiers: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flushing, "_MOST_SETTLED", 5)
    with around(lambda store, tier: Idle(store) if tier == "hot" else store):
        engine = await tiers.open(proxied=False)
    other = await tiers.open(proxied=False)
    sessions = [await make(engine) for _ in range(12)]
    await other.flush(ROOT)
    assert list(engine._flushing._written) == sessions[-5:]  # type: ignore[union-attr]


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("is_new", [True, False])
async def test_f11_a_log_with_a_gap_is_no_log_to_be_flushed_and_holds_nobody_up(
    tiers: Apart, lost: int, is_new: bool
) -> None:
    stores: list[RedisHotStore] = []

    def wrap(store: Any, tier: str) -> Any:
        if tier != "hot":
            return store
        stores.append(store)
        return Idle(store)

    with around(wrap):
        engine = await tiers.open(proxied=False)
    session = await make(engine)
    if not is_new:
        await engine._tiering.flush(session)
    for version in (1, 2, 3):
        await put(engine, session, f"{version}", expected=version)
    keys, redis = stores[0].keys.session(session), stores[0]._redis
    await redis.ask(keys.tag, b"HDEL", keys.log, lost if is_new else lost + 1)
    sane = await make(engine)
    other = await tiers.open(proxied=False)
    await asyncio.wait_for(other.flush(ROOT), 5)
    assert (await other._journal.warm.head(sane)) is not None
    kept = await other._journal.warm.head(session)
    assert (kept is None) if is_new else (kept is not None and kept.step == 1)
    assert [letter.reason for letter in (await other.tiers(ROOT)).buried] == ["tampered"]


async def test_an_emptied_hot_tier_is_told_again_which_warm_tier_it_is_flushed_to(tiers: Apart) -> None:
    engine = await tiers.open(proxied=False)
    store: Any = engine._journal.hot
    named = await engine._journal.warm.identity()
    layout = store.keys.layout

    async def told() -> Any:
        return await store._redis.ask(store.keys.root, b"HGET", layout, b"warm")

    async def is_told() -> bool:
        return bool(await told() == named.encode())

    assert await is_told()
    tiers.redis.say("FLUSHALL")
    await eventually(is_told)
    tiers.redis.say("FLUSHALL")
    await store._redis.ask(store.keys.root, b"HSET", layout, b"warm", "another")
    await asyncio.sleep(2)  # it looks once a second
    session = await make(engine)
    await asyncio.sleep(1)
    assert await engine._journal.warm.head(session) is None
    assert await told() == b"another"
