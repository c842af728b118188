"""Work on a thread aside: so much at a time, and nobody's end waits for it."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from holdfast.engine.aside import Aside

ENDLESS = """
import asyncio, threading
from holdfast.engine.aside import Aside

async def main():
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    def work():
        loop.call_soon_threadsafe(begun.set)
        threading.Event().wait()
    task = asyncio.create_task(Aside(1).run(work))
    await begun.wait()

asyncio.run(main())
"""


async def test_what_the_work_returns_or_raises_comes_back() -> None:
    aside = Aside(1)
    assert await aside.run(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        await aside.run(lambda: 1 // 0)
    assert await aside.run(lambda: "room again") == "room again"


async def test_no_more_runs_at_a_time_than_there_is_room_for() -> None:
    aside, go, lock = Aside(2), threading.Event(), threading.Lock()
    running, most = 0, 0
    two = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 2:
                loop.call_soon_threadsafe(two.set)
        go.wait()
        with lock:
            running -= 1

    tasks = [asyncio.create_task(aside.run(work)) for _ in range(6)]
    await two.wait()
    go.set()
    await asyncio.gather(*tasks)
    assert most == 2


async def test_work_whose_caller_is_gone_keeps_its_room_until_it_ends() -> None:
    aside, go, begun = Aside(1), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait()

    left = asyncio.create_task(aside.run(work))
    await begun.wait()
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    following = asyncio.create_task(aside.run(lambda: "after"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not following.done()
    go.set()
    assert await following == "after"


async def test_r17_a_process_ends_while_work_aside_goes_on() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ENDLESS)
    try:
        async with asyncio.timeout(60):  # it would never end otherwise
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
