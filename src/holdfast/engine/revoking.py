"""Taking tokens back before they expire: one of them, or all that were issued before a time.

The engine sees no tokens. It keeps what was revoked and tells it to whoever verifies tokens, in every process. The
times here are the wall clock's and not the engine's own, because those in a token are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime

from holdfast.engine.clock import wall
from holdfast.errors import InvalidChangeError, LimitExceededError, PermissionDeniedError
from holdfast.model.access import MOST_ID, SERVICE_VERBS, Principal
from holdfast.model.revocation import Revocation
from holdfast.model.text import check_text
from holdfast.ports.warm import WarmStore

MOST_OWN = 100
"""Single tokens that somebody who is no admin may have revoked at a time; all at once is one revocation."""

_AHEAD = 60.0
"""Seconds by which the issuer's clock may be ahead, and a revocation before a time name one that is yet to come."""


class Revoking:
    """Decides who may take which tokens back, and keeps those revocations as long as such tokens could live."""

    def __init__(self, warm: WarmStore, longest: float, now: Callable[[], datetime] = wall) -> None:
        self._warm, self._longest, self._now = warm, longest, now
        self._heard: list[Callable[[Revocation], None]] = []

    def listen(self, hear: Callable[[Revocation], None]) -> None:
        """Be told of each revocation made in this process before whoever made it is."""
        self._heard.append(hear)

    async def since(self, after: int) -> tuple[list[Revocation], int]:
        """Every tenant's revocations; see ``WarmStore.revoked``."""
        return await self._warm.revoked(after=after, now=self._now())

    async def revoke(
        self,
        who: Principal,
        token: str | None,
        principal: str | None,
        *,
        everybody: bool,
        before: float | None,
        until: float | None,
    ) -> Revocation:
        """Revoke, if this principal may; see ``Engine.revoke``."""
        now = self._now()
        instant = now.timestamp()
        admin = bool(who.roles & SERVICE_VERBS["revoke"])
        if everybody == (token is not None or principal is not None):
            raise InvalidChangeError("name a token, a principal, or everybody")
        if not admin and (everybody or principal not in (None, who.id)):
            raise PermissionDeniedError(who.id, "revoke", SERVICE_VERBS["revoke"])
        if principal is not None:
            check_text("a principal's id", principal, most=MOST_ID)
        if token is not None:
            check_text("a token's id", token, most=MOST_ID)
            if before is not None:
                raise InvalidChangeError("one token is revoked whenever it was issued: leave 'before' out")
            latest = instant + self._longest
            if until is not None and not (math.isfinite(until) and until > instant):
                raise InvalidChangeError("'until' is the expiry of the token, in seconds since the epoch, and to come")
            # Of somebody who is no admin only his own token, whatever id he names.
            owner = principal or ("" if admin else who.id)
            made = Revocation(who.tenant, token, owner, 0.0, latest if until is None else min(until, latest), who.id)
        else:
            if until is not None:
                raise InvalidChangeError("'until' is for one token; tokens before a time are revoked until they expire")
            from_now = instant if before is None else before
            if not 0 < from_now <= instant + _AHEAD:  # also refuses what is no number
                raise InvalidChangeError("'before' is a time in seconds since the epoch, and not one to come")
            made = Revocation(who.tenant, "", principal or "", from_now, instant + self._longest, who.id)
        if not admin and token is not None:
            await self._check_own(who, token)
        kept = await self._warm.revoke(made, now=now)
        for hear in self._heard:
            hear(kept)
        return kept

    async def standing(self, who: Principal) -> list[Revocation]:
        """What stands revoked: an admin is told all of the tenant, others what they are concerned by themselves."""
        found, _ = await self.since(0)
        admin = bool(who.roles & SERVICE_VERBS["revocations"])
        return [one for one in found if one.tenant == who.tenant and (admin or one.principal == who.id)]

    async def _check_own(self, who: Principal, token: str) -> None:
        """Anybody may revoke any number of tokens of his own, real or not, so that has an end."""
        own = {one.token for one in await self.standing(Principal(who.id, who.tenant)) if one.token}
        if token not in own and len(own) >= MOST_OWN:
            raise LimitExceededError("revoked tokens of one principal", len(own) + 1, MOST_OWN)
