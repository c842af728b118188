"""A process that holds a lease and writes under it for as long as it may; started, stopped and let go on by
``test_f17_pause.py``. It prints the session's fence, then each version it was told of, and at last why it ended.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.compose import open_engine
from holdfast.errors import HoldfastError, LeaseLostError, StoreUnavailableError, VersionConflictError
from holdfast.model.session import Write
from holdfast.settings import Settings
from holdfast.testing.broken import Around
from holdfast.testing.tiers import ANA, put


class Unfenced(Around):
    """Broken on purpose: a write that is refused for its lease is sent again without one."""

    async def write(self, write: Write, **more: Any) -> bool:
        try:
            return await self._store.write(write, **more)
        except LeaseLostError:
            return await self._store.write(replace(write, fence=None), **more)


async def main(settings: Settings, session: str, seconds: float, broken: bool) -> None:
    wrap: Any = Unfenced if broken else (lambda store: store)
    async with open_engine(settings, wrap=wrap) as engine:
        lease = await engine.lease(session, ANA, "first", seconds=seconds)
        print("fence", lease.fence, flush=True)
        try:
            number = 0
            while True:
                change = {"change_id": f"first {number}", "fence": lease.fence}
                try:
                    version = await put(engine, session, f"first {number}", key="chunks/1", **change)
                except (StoreUnavailableError, VersionConflictError):
                    await asyncio.sleep(0.02)
                    continue  # it was stopped on its way, and does not know: it asks again, on what is there now
                print("told", version, flush=True)
                number += 1
                await asyncio.sleep(0.005)
        except HoldfastError as error:
            print("ended", error.code, flush=True)


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1])
    asyncio.run(
        main(
            Settings(home=Path(given["home"]), hot=given["hot"], warm=given["warm"]),
            given["session"],
            given["seconds"],
            given["broken"],
        )
    )
