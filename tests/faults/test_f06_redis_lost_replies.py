"""F06: Redis does what it was asked, and the reply is lost. Sent again under its change id, it has exactly one effect.

``HOLDFAST_TEST_LOST_REPLIES`` says how many replies are lost (500 here, 10,000 in the long run).
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest
import redis.asyncio as driver

from holdfast.drivers.redis import Redis, Script
from holdfast.drivers.redis_url import RedisUrl
from holdfast.errors import LimitExceededError, StoreUnavailableError
from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.authors import Author, effects
from holdfast.testing.proxy import Proxy
from holdfast.testing.samples import NOW, write_at
from holdfast.testing.servers import RedisServer

REPLIES = int(os.environ.get("HOLDFAST_TEST_LOST_REPLIES", "500"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "1"))
AUTHORS = 16
LANDED = b":1\r\n"
"""What the write script answers to a write that landed; nothing else in these tests is answered like this."""


class ForgetsChangeIds(RedisHotStore):
    """Broken: it does not look for the change id."""

    write_script = Script.of(
        RedisHotStore.write_script.source.decode().replace("  return 0\nend\nif known[2]", "end\nif known[2]")
    )


async def lose(redis: RedisServer, kind: type[RedisHotStore], prefix: str, replies: int) -> tuple[int, list[int]]:
    """Lose so many replies to writes that landed; how many, and how often each acknowledged change had its effect."""
    chance, lost = random.Random(SEED), 0

    def drop(piece: bytes) -> bool:
        nonlocal lost
        dropped = piece.startswith(LANDED) and chance.random() < 0.5
        lost += piece.count(LANDED) if dropped else 0
        return dropped

    async with Proxy(*redis.address).listening() as proxy:
        store = await kind.open(f"redis://127.0.0.1:{proxy.port}?prefix={prefix}")
        authors = [Author(store, f"s{number}") for number in range(AUTHORS)]
        for author in authors:
            await author.create()
        proxy.drop = drop

        async def write(author: Author) -> None:
            number = 0
            while lost < replies:
                number += 1
                await author.commit(f"c{number + 1}")

        await asyncio.gather(*(write(author) for author in authors))
        proxy.heal()
        times = []
        for author in authors:
            found = await effects(store, author)
            times += [found[change] for change in author.told]
            assert set(found) == set(author.told)
        await store.close()
    return lost, times


async def test_f06_a_write_whose_reply_is_lost_has_exactly_one_effect(redis: RedisServer) -> None:
    lost, times = await lose(redis, RedisHotStore, "sound", REPLIES)
    print(f"F06 seed={SEED} replies lost={lost} changes={len(times)} with one effect={times.count(1)}")
    assert lost >= REPLIES
    assert set(times) == {1}


async def test_teeth_a_script_that_does_not_look_for_the_change_id_has_two_effects(redis: RedisServer) -> None:
    _, times = await lose(redis, ForgetsChangeIds, "broken", 20)
    assert max(times) > 1


async def test_the_driver_sends_nothing_twice_which_redis_py_does_by_itself(redis: RedisServer) -> None:
    async with Proxy(*redis.address).listening() as proxy:
        ours = await Redis.connect(RedisUrl.parse(f"redis://127.0.0.1:{proxy.port}"), name="hot")
        theirs = driver.Redis(host="127.0.0.1", port=proxy.port)
        await theirs.ping()
        left = 1

        def once(piece: bytes) -> bool:
            nonlocal left
            left -= piece.startswith(b":")
            return left == 0 and piece.startswith(b":")

        proxy.drop = once
        with pytest.raises(StoreUnavailableError, match="unknown"):
            await ours.ask(b"", b"INCR", b"ours")
        left = 1
        await theirs.incr("theirs")
        proxy.heal()
        assert await ours.ask(b"", b"GET", b"ours") == b"1"
        assert await ours.ask(b"", b"GET", b"theirs") == b"2"  # it was told of one
        await theirs.aclose()
        await ours.close()


async def test_a_creation_whose_replies_are_lost_is_counted_once(redis: RedisServer) -> None:
    """Its two scripts, to count and to make the session, may each be lost."""
    async with Proxy(*redis.address).listening() as proxy:
        store = await RedisHotStore.open(f"redis://127.0.0.1:{proxy.port}?prefix=counted")
        chance = random.Random(SEED)
        proxy.drop = lambda piece: piece[:1] in (b":", b"$") and b":" in piece and chance.random() < 0.4
        made = refused = 0
        for number in range(30):
            while True:
                try:
                    made += await store.write(write_at(f"s{number}", 1, quota=20), now=NOW) or (
                        await store.head(f"s{number}") is not None
                    )
                except StoreUnavailableError:
                    continue
                except LimitExceededError:
                    refused += 1
                break
        proxy.heal()
        assert (made, refused) == (20, 10)
        await store.close()
