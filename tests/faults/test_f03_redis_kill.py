"""F03, F04: Redis is killed (SIGKILL) and comes back with all that was acknowledged; and it syncs before it answers.

A killed process leaves its writes in the system's page cache, so the kills alone say nothing about syncing: that is
seen from the order of the server's system calls. ``HOLDFAST_TEST_REDIS_KILLS`` says how many kills (5 here).
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from pathlib import Path

import pytest

from holdfast.stores.hot.redis import RedisHotStore
from holdfast.testing.authors import Author, effects
from holdfast.testing.samples import NOW, write_at
from holdfast.testing.servers import RedisServer, needed, redis_server

KILLS = int(os.environ.get("HOLDFAST_TEST_REDIS_KILLS", "5"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "1"))
AUTHORS = 8


async def kill(server: RedisServer, query: str, kills: int) -> tuple[int, int, int]:
    """Kill a server again and again while authors write; how many changes were acknowledged, how many of them are lost,
    and how many are there that nobody was told of.
    """
    chance = random.Random(SEED)
    store = await RedisHotStore.open(f"{server.url}?{query}", bound=2**40)  # nobody flushes what is written here
    authors = [Author(store, f"s{number}") for number in range(AUTHORS)]
    for author in authors:
        await author.create()
    stopped = False

    async def write(author: Author) -> None:
        number = 0
        while not stopped:
            number += 1
            await author.send(f"c{number + 1}")

    writing = [asyncio.create_task(write(author)) for author in authors]
    for _ in range(kills):
        told = sum(len(author.told) for author in authors)
        while sum(len(author.told) for author in authors) < told + 5 * AUTHORS:  # it is back, and at work
            for task in writing:
                if task.done():
                    task.result()  # whoever writes no more says why
            await asyncio.sleep(0.005)
        await asyncio.sleep(chance.random() / 10)
        server.kill()
        lost_all = server.settings["appendonly"] == "no"
        await asyncio.to_thread(server.start)
        if lost_all:
            break
    await asyncio.sleep(0.1)
    stopped = True
    await asyncio.gather(*writing, return_exceptions=True)
    lost = untold = 0
    for author in authors:
        found = await effects(store, author) if await store.head(author.name) is not None else {}
        lost += len(set(author.told) - set(found))
        untold += len(set(found) - set(author.told))
    await store.close()
    return sum(len(author.told) for author in authors), lost, untold


async def test_f03_a_kill_of_redis_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        told, lost, untold = await kill(server, "", KILLS)
    print(f"F03 seed={SEED} kills={KILLS} acknowledged={told} lost={lost} there without an answer={untold}")
    assert told >= KILLS * 5 * AUTHORS
    assert lost == 0


async def test_teeth_a_server_that_keeps_no_file_loses_what_was_acknowledged(tmp_path: Path) -> None:
    with redis_server(tmp_path, appendonly="no") as server:
        _, lost, _ = await kill(server, "durability=hot", 1)
    assert lost > 0


async def test_what_was_acknowledged_is_whole_after_a_kill_in_the_middle_of_large_writes(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = await RedisHotStore.open(server.url)
        names = [b"%d" % number for number in range(200)]
        assert await store.write(write_at("s", 1, items=names), now=NOW)
        for _ in range(3):
            head = await store.head("s")
            assert head is not None
            step = head.step + 1
            sending = asyncio.ensure_future(
                asyncio.gather(
                    *(store.write(write_at("s", step + more, items=names), now=NOW) for more in range(20)),
                    return_exceptions=True,
                )
            )
            await asyncio.sleep(0.004)
            server.kill()
            told = await sending
            await asyncio.to_thread(server.start)
            loaded = await store.load("s")
            assert loaded is not None
            assert loaded[0].step >= step - 1 + sum(answer is True for answer in told)
            assert {(item.id, item.version) for item in loaded[1]} == {(name, loaded[0].step) for name in names}
        await store.close()


# -- F04 -----------------------------------------------------------------------------------------------------------

_CALL = re.compile(rb"^\d+ +(\w+)\((.*)$")
_LANDED = b'":1\\r\\n'


async def replies(folder: Path, appendfsync: str, commits: int) -> tuple[int, int]:
    """How many acknowledgements a server has sent, and how many of them before it had synced what they acknowledge."""
    strace = needed("strace")
    trace = folder / "trace.txt"
    server = RedisServer(folder / "redis", appendfsync=appendfsync).start()
    assert server.process is not None
    watching = await asyncio.create_subprocess_exec(
        *(strace, "-f", "-s", "16", "-y", "-e", "trace=write,writev,fdatasync,fsync"),
        *("-o", str(trace), "-p", str(server.process.pid)),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert watching.stderr is not None
        said = await asyncio.wait_for(watching.stderr.readline(), 10)
        if b"attached" not in said:
            pytest.skip("strace may not look into processes here")
        durability = "disk" if appendfsync == "always" else "hot"
        store = await RedisHotStore.open(f"{server.url}?durability={durability}")
        await asyncio.gather(*(_write(store, f"s{number}", commits // 4) for number in range(4)))
        await store.close()
    finally:
        if watching.returncode is None:
            watching.send_signal(signal.SIGINT)
        await watching.communicate()
        server.kill()
    return _judge(trace.read_bytes().splitlines())


async def _write(store: RedisHotStore, session: str, commits: int) -> None:
    for step in range(1, commits + 1):
        assert await store.write(write_at(session, step, items=[b"i"]), now=NOW)


def _judge(lines: list[bytes]) -> tuple[int, int]:
    sent = early = 0
    dirty = False
    for line in lines:
        found = _CALL.match(line)
        if found is None:
            continue
        call, given = found.groups()
        if b"appendonly" in given.partition(b",")[0]:
            dirty = call in (b"write", b"writev")
        elif call in (b"write", b"writev") and _LANDED in given:
            sent += 1
            early += dirty
    return sent, early


async def test_f04_redis_syncs_its_file_between_each_write_and_its_reply(tmp_path: Path) -> None:
    sent, early = await replies(tmp_path, "always", 200)
    print(f"F04 acknowledgements={sent} before the sync={early}")
    assert sent > 20
    assert early == 0


async def test_teeth_a_server_that_syncs_every_second_is_seen_to_answer_first(tmp_path: Path) -> None:
    _, early = await replies(tmp_path, "everysec", 200)
    assert early > 0
