"""How many sessions an owner has, exactly, though they lie in many partitions of a cluster.

Before a session is made its owner's partition counts it, under a token, and refuses what is beyond the quota; then the
session is made in its own partition. What is counted is therefore never less than what is there. It may be more: the
session was discarded since, has expired, or was never made because its author died. That is found out only when the
quota is reached: each session that is counted is looked at in its own partition, and those that need not count are
dropped. A session that was never made and is dropped has its token voided in its own partition, in the step that finds
it missing: if its author is alive after all, the write is refused and counted anew. One that is gone is marked as not
counted in the same way, and is counted again before it comes back. One that was evicted counts for as long as it is not
gone; once it is back its next write has it counted, whether it is already or not.
"""

from __future__ import annotations

import secrets

from holdfast.drivers.redis import Redis
from holdfast.errors import LimitExceededError
from holdfast.model.session import SealedHead
from holdfast.stores.hot.redis_keys import Keys
from holdfast.stores.hot.redis_rows import script

_UNDER_WAY = 5
"""Seconds for which a session that was counted is taken to be on its way. Only fairness hangs on it, not the bound."""

_REMEMBERED = 3_600_000
"""Milliseconds for which a voided token is known: far longer than a script can be under way."""


class Quota:
    """Counts the sessions of owners."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis, self._keys = redis, keys
        self._reserve, self._settle, self._drop = (script(name) for name in ("reserve", "settle", "drop"))

    async def reserve(self, head: SealedHead, quota: int | None, *, void: bytes = b"") -> bytes | None:
        """Count a session as its owner's; the token it is counted by.

        Args:
            quota: None for no bound.
            void: a token of it that was found to count no more.
        Returns:
            None if the quota is reached, and the session is there already or was evicted.
        Raises:
            LimitExceededError: the owner has as many that are not gone.
        """
        tag, owner = self._keys.owner(head.tenant, head.owner)
        bound = b"" if quota is None else quota
        while True:
            # 128 random bits, or one token might pass for another.
            given = (head.id, secrets.token_hex(16), bound, void)
            answer = await self._redis.run(self._reserve, tag, (owner,), given)
            if isinstance(answer, bytes):
                return answer
            count, second, counted = answer
            settled = await self._settled(dict(zip(counted[::2], counted[1::2], strict=True)), int(second))
            if settled:
                await self._redis.run(self._drop, tag, (owner,), settled)
                continue
            keys = self._keys.session(head.id)
            here, evicted = await self._redis.ask_all(
                [
                    (keys.tag, (b"EXISTS", keys.session)),
                    (keys.tag, (b"HEXISTS", keys.partition.evicted, head.id)),
                ]
            )
            if here or evicted:
                return None
            raise LimitExceededError("sessions of one owner", count + 1, quota or 0)

    async def _settled(self, counted: dict[bytes, bytes], second: int) -> list[bytes]:
        """Of sessions and the tokens they are counted by, those that need not be."""
        commands = []
        for id, token in counted.items():
            keys = self._keys.session(id.decode())
            young = second - int(token.partition(b":")[0]) < _UNDER_WAY
            names = (keys.session, self._keys.void(keys, token), keys.partition.evicted)
            commands.append((self._settle, keys.tag, names, (id, b"1" if young else b"0", _REMEMBERED)))
        answers = await self._redis.run_all(commands)
        pairs = zip(counted.items(), answers, strict=True)
        return [part for pair, answer in pairs if answer == 1 for part in pair]
