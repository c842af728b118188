"""The engine's clock: wall time that does not jump.

A wall clock may be set back an hour or forward ten years while leases and expiries wait on it. So time is counted
on the machine's steady clock from the instant it booted, and the store keeps what wall time that instant was, once
for each boot and for every process that opens it.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from holdfast.ports.clock import Chance, Clock
from holdfast.ports.hot import HotStore

_POOL, _SHORT = 4_096, 16
_pools: weakref.WeakSet[SystemChance] = weakref.WeakSet()


def wall() -> datetime:
    """The system's wall clock."""
    return datetime.now(UTC)


# Seconds since the machine booted, time asleep included where the system can tell.
steady: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


def boot() -> str:
    """What tells this boot of the machine from the next: a fresh name in every process where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return secrets.token_hex(16)


class SteadyClock(Clock):
    """Time since boot, counted from the instant the store agreed on."""

    def __init__(self, epoch: datetime, steady: Callable[[], float] = steady) -> None:
        self._epoch, self._steady = epoch, steady

    @classmethod
    async def on(
        cls,
        store: HotStore,
        *,
        wall: Callable[[], datetime] = wall,
        steady: Callable[[], float] = steady,
        boot: Callable[[], str] = boot,
    ) -> SteadyClock:
        """The clock shared by everyone on one machine who opens this store."""
        offer = wall() - timedelta(seconds=steady())
        return cls(await store.epoch(boot(), offer), steady)

    def now(self) -> datetime:
        return self._epoch + timedelta(seconds=self._steady())


class SystemChance(Chance):
    """The operating system's cryptographic source.

    Short runs of bytes are cut from a pool, because asking the system for each one lets go of the interpreter's
    lock. A forked process starts a pool of its own. A machine snapshot run twice would repeat the rest of a pool:
    ids and keys are never cut from it, and nonces allow for it (see ``sealing.hedged``).
    """

    def __init__(self) -> None:
        self._pool, self._at = b"", 0
        _pools.add(self)

    def token(self) -> str:
        return base64.b32encode(secrets.token_bytes(20)).decode().lower()

    def bytes(self, count: int) -> bytes:
        if count > _SHORT:
            return secrets.token_bytes(count)
        end = self._at + count
        if end > len(self._pool):
            self._pool, self._at, end = secrets.token_bytes(_POOL), 0, count
        cut = self._pool[self._at : end]
        self._at = end
        return cut

    def forget(self) -> None:
        """Start the pool anew."""
        self._pool, self._at = b"", 0


def _forget_all() -> None:
    for chance in _pools:
        chance.forget()


os.register_at_fork(after_in_child=_forget_all)
