"""Leases: acquire, renew, release, take over."""

from __future__ import annotations

from holdfast.engine.lifecycle import Lifecycle
from holdfast.engine.opened import Opened
from holdfast.errors import InvalidChangeError, LeaseHeldError, SessionNotFoundError
from holdfast.model.lease import Lease
from holdfast.model.text import check_text
from holdfast.ports.clock import Clock
from holdfast.ports.hot import HotStore

_LONGEST = 86_400.0
_MOST_TRIES = 8
_MOST_NAME = 200
_BEYOND = 2**63
"""No fence is ever granted from here on, so a lease that names one was never held."""


class Leasing:
    """Grants the timed right to write. The store keeps the fences; who may ask, and for how long, is decided here."""

    def __init__(self, hot: HotStore, lifecycle: Lifecycle, clock: Clock, seconds: float) -> None:
        self._hot, self._lifecycle, self._clock, self._seconds = hot, lifecycle, clock, seconds

    async def acquire(self, opened: Opened, holder: str, seconds: float | None, *, force: bool) -> Lease:
        """Grant a lease on a draft; ``force`` takes it from whoever holds it."""
        self._lifecycle.check(opened.header, "edit")
        check_text("a holder's name", holder, most=_MOST_NAME)
        for _ in range(_MOST_TRIES):
            lease = await self._hot.acquire(
                opened.header.id, holder, seconds=self._length(seconds), now=self._clock.now(), force=force
            )
            if lease is not None:
                return lease
            opened = await self._lifecycle.again(opened)  # it was set to rest meanwhile
        raise SessionNotFoundError(opened.header.id)

    async def renew(self, opened: Opened, lease: Lease, seconds: float | None) -> Lease:
        """Hold a lease for longer."""
        self._lifecycle.check(opened.header, "edit")
        return await self._hot.renew(lease, seconds=self._length(seconds), now=self._clock.now())

    async def release(self, lease: Lease) -> None:
        """Give a lease back."""
        if lease.fence < _BEYOND:
            await self._hot.release(lease)

    async def live(self, opened: Opened) -> Lease | None:
        """The lease that is live, None if there is none."""
        return await self._hot.lease(opened.header.id, now=self._clock.now())

    async def check_free(self, opened: Opened) -> None:
        """Raise ``LeaseHeldError`` while somebody's lease is live."""
        lease = await self.live(opened)
        if lease is not None:
            raise LeaseHeldError(lease.holder, lease.until)

    def _length(self, seconds: float | None) -> float:
        asked = self._seconds if seconds is None else seconds
        if not 0 < asked <= _LONGEST:
            raise InvalidChangeError(f"a lease lasts up to {_LONGEST:,.0f} seconds, not {asked}")
        return asked
