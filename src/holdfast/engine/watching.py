"""Who waits for news of which session, and how they are woken: by this process at once, by others' writes soon."""

from __future__ import annotations

import asyncio
import contextlib

from holdfast.errors import HoldfastError
from holdfast.ports.hot import HotStore

_POLL = 0.25
"""Seconds between two looks at what other processes have written; one look for all that wait."""


class Watching:
    """Wakes those who follow a session."""

    def __init__(self, hot: HotStore) -> None:
        self._hot = hot
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._looking: asyncio.Task[None] | None = None

    def watch(self, session: str) -> asyncio.Event:
        """An event that is set whenever the session's log grows; give it back with ``unwatch``."""
        event = asyncio.Event()
        self._watchers.setdefault(session, set()).add(event)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="holdfast-watching")
        return event

    def unwatch(self, session: str, event: asyncio.Event) -> None:
        """Wait for it no more."""
        watchers = self._watchers.get(session, set())
        watchers.discard(event)
        if not watchers:
            self._watchers.pop(session, None)

    def wake(self, session: str) -> None:
        """The session's log has grown."""
        for watcher in self._watchers.get(session, ()):
            watcher.set()

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
            self._looking = None

    async def _look(self) -> None:
        """While anybody waits, wake those whose sessions another process has written to.

        A store that does not answer wakes everybody once, so that they learn of it, and once more when it is back.
        """
        mark: int | None = None
        is_gone = False
        while self._watchers:
            begun, moved = mark is None, set[str]()
            try:
                mark, moved = await self._hot.moved(mark)
            except HoldfastError:
                mark, begun, is_gone = None, not is_gone, True
            else:
                is_gone = False
            if begun:  # of what was written after a follower's last reading and before the mark, nobody is told
                moved = set(self._watchers)
            for session in moved:
                self.wake(session)
            await asyncio.sleep(_POLL)
