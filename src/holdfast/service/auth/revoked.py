"""What is revoked, as one process knows it: a few dictionaries, and the task that keeps them up to date.

The store is read four times a second, so that a revocation made in any process is known in every one within a second;
one made here is known at once. A store that does not answer changes nothing about what is known: who watches is told,
and the last list holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from holdfast.engine.revoking import Revoking
from holdfast.errors import HoldfastError
from holdfast.model.revocation import Revocation
from holdfast.ports.observer import Observer
from holdfast.service.auth.caller import Caller

EVERY = 0.25
"""Seconds between two reads of what is new."""
ANEW = 10.0
"""Seconds after which all is read, and not only what is new: a store that was put back counts from a lower number."""
STALE = 5.0
"""Seconds without an answer after which whoever watches is told, and again as long as it lasts."""
ANSWER = 2.0
"""Seconds after which a read is given up."""


class Revoked:
    """Knows whether a caller's token is revoked."""

    def __init__(
        self,
        revoking: Revoking,
        observer: Observer | None = None,
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._revoking, self._observer, self._now, self._steady = revoking, observer, now, steady
        # Until when, by tenant, principal (empty: whoever) and token; before when, by tenant and principal.
        self._tokens: dict[tuple[str, str, str], float] = {}
        self._before: dict[tuple[str, str], tuple[float, float]] = {}
        self._after = 0
        self._read = self._whole = self._told = self._steady()
        self._task: asyncio.Task[None] | None = None
        revoking.listen(self.add)

    @property
    def age(self) -> float:
        """Seconds since the store was read last."""
        return self._steady() - self._read

    def __contains__(self, caller: Caller) -> bool:
        """Whether a caller's token is revoked."""
        principal = caller.principal
        tenant = principal.tenant
        if self._before:
            for name in (principal.id, ""):
                found = self._before.get((tenant, name))
                if found is not None and caller.issued < found[0]:
                    return True
        if self._tokens and caller.token:
            return (tenant, principal.id, caller.token) in self._tokens or (tenant, "", caller.token) in self._tokens
        return False

    def add(self, revocation: Revocation) -> None:
        """Know of a revocation from now on."""
        about = (revocation.tenant, revocation.principal)
        if revocation.token:
            self._tokens[(*about, revocation.token)] = revocation.until
        else:
            before, until = self._before.get(about, (0.0, 0.0))
            self._before[about] = max(before, revocation.before), max(until, revocation.until)

    async def open(self) -> None:
        """Read what is revoked, and go on doing so.

        Raises:
            StoreUnavailableError: nothing is known yet, so nobody can be let in.
        """
        await self.read()
        self._task = asyncio.create_task(self._watch(), name="holdfast-revoked")

    async def read(self) -> None:
        """Read what is new, or everything where that was long ago."""
        now = self._steady()
        if now - self._whole >= ANEW:
            self._after, self._whole = 0, now
            self._forget()
        found, self._after = await self._revoking.since(self._after)
        for revocation in found:
            self.add(revocation)
        self._read = self._told = self._steady()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                async with asyncio.timeout(ANSWER):
                    await self.read()
            except Exception as error:  # whatever it is: the last list holds, and the next read comes
                self._tell(error.code if isinstance(error, HoldfastError) else type(error).__name__)

    def _tell(self, code: str) -> None:
        if self._steady() - self._told >= STALE:
            self._told = self._steady()
            if self._observer is not None:
                self._observer.failed("revocations", code)

    def _forget(self) -> None:
        """Let go of what has lapsed: what it took back has expired."""
        now = self._now()
        self._tokens = {key: until for key, until in self._tokens.items() if until > now}
        self._before = {key: found for key, found in self._before.items() if found[1] > now}
