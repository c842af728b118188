"""The state machine on tiers that are apart: Redis over PostgreSQL, with sessions resting and archived at random."""

from __future__ import annotations

import itertools
import os
from typing import Any, ClassVar

from holdfast.testing.expectation import ADMIN, Kept
from holdfast.testing.machine import Machine, principal
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer

_numbers = itertools.count(1)


class TieredMachine(Machine):
    """The same script and the same answers; ``redis`` and ``postgres`` are set by whoever plays it."""

    redis: ClassVar[RedisServer]
    postgres: ClassVar[PostgresServer]

    def __init__(self) -> None:
        super().__init__()
        self._hot = f"{self.redis.url}?prefix=machine-{os.getpid()}-{next(_numbers)}&partitions=4&durability=hot"
        self._warm = self.postgres.fresh_url()

    def _where(self) -> dict[str, Any]:
        return {"hot": self._hot, "warm": self._warm, "suspend_after": None}

    def _settle(self) -> None:
        for engine in self._engines:
            self._run(engine.flush(principal(ADMIN)))

    def _sunk(self, kept: Kept) -> None:
        kept.holder = None  # a lease that had lapsed is gone with the hot tier's copy; its fence is never taken again

    def _granted(self, kept: Kept, fence: int, wanted: int) -> None:
        assert fence >= wanted
        kept.fence = fence
