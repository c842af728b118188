"""Whether each tier answers, and why one does not."""

from __future__ import annotations

import asyncio

from holdfast.engine.blobs import Blobs
from holdfast.errors import StoreDownError, StoreUnavailableError
from holdfast.ports.hot import HotStore
from holdfast.ports.warm import WarmStore

OK = "ok"
_NOBODY = "-"
"""A name that no session has."""


class Answering:
    """Asks every tier for something that is not there: whoever says so has been reached and lets itself be read."""

    def __init__(self, hot: HotStore, warm: WarmStore, blobs: Blobs) -> None:
        self._hot, self._warm, self._blobs = hot, warm, blobs
        self._reasons: dict[str, str] = {}

    async def codes(self) -> dict[str, str]:
        """``ok``, or the code of the error, by tier."""
        found = await self._asked()
        return {
            tier: OK if said is None else getattr(said, "code", type(said).__name__) for tier, said in found.items()
        }

    async def troubles(self, within: float | None = None) -> dict[str, str]:
        """Why a tier does not answer, be it within so many seconds, by tier, in few words; nothing of one that does.

        Of a store that is given a rest after several failures it is what was last heard of it here.
        """
        told: dict[str, str] = {}
        for tier, said in (await self._asked(within)).items():
            if said is None:
                self._reasons.pop(tier, None)
                continue
            if not isinstance(said, StoreDownError):
                self._reasons[tier] = said.reason if isinstance(said, StoreUnavailableError) else str(said)
            told[tier] = self._reasons.get(tier, getattr(said, "reason", ""))
        return told

    async def _asked(self, within: float | None = None) -> dict[str, Exception | None]:
        """What each has said, None if it answers."""
        asked = self._hot.head(_NOBODY), self._warm.head(_NOBODY), self._blobs.answers()
        found = await asyncio.gather(*(asyncio.wait_for(one, within) for one in asked), return_exceptions=True)
        told: dict[str, Exception | None] = {}
        for tier, said in zip(("hot", "warm", "cold"), found, strict=True):
            if isinstance(said, BaseException) and not isinstance(said, Exception):
                raise said
            if isinstance(said, TimeoutError):
                said = StoreUnavailableError(tier, f"no answer within {within:g} s")
            told[tier] = said if isinstance(said, Exception) else None
        return told
