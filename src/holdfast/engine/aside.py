"""Work that keeps a core for a while, on threads that the end of the process does not wait for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """Room for so much work at a time; what comes beyond that waits its turn.

    ``asyncio.to_thread`` will not do: at its end the process waits for that pool's threads, however long they take. The
    work must leave nothing half done behind, for it ends with the process wherever it stands.
    """

    def __init__(self, most: int) -> None:
        self._room = asyncio.Semaphore(most)

    async def run(self, work: Callable[[], T]) -> T:
        """What the work returns or raises. Of a caller that is cancelled the work goes on, and keeps its room."""
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(tell: Callable[[], None]) -> None:
            self._room.release()
            if not answer.done():  # somebody still waits
                tell()

        def run() -> None:
            tell: Callable[[], None]
            try:
                result = work()
            except BaseException as error:
                raised = error
                tell = lambda: answer.set_exception(raised)  # noqa: E731
            else:
                tell = lambda: answer.set_result(result)  # noqa: E731
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, tell)

        try:
            threading.Thread(target=run, name="holdfast-aside", daemon=True).start()
        except BaseException:
            self._room.release()
            raise
        return await answer
