"""Who did what, when, to which version, and what came of it.

What a session's log says of a commit or a step is its audit already, chained and authenticated. This is the rest:
reads, and everything refused. Such lines are collected and written within a second, a burst of equal ones as one
line with a count, so that a read never waits for the disk; a process that is killed can lose that second of them,
never a line about a change.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from hashlib import blake2b

import msgspec

from holdfast.engine.sealing import KeyRing, framed
from holdfast.errors import HoldfastError, IntegrityError, TamperedError
from holdfast.model.access import SYSTEM, Principal
from holdfast.model.audit import AuditLine
from holdfast.ports.clock import Chance, Clock
from holdfast.ports.warm import AuditRow, ChainEnd, WarmStore

_WITHIN = 1.0
_MOST = 4_096
_MOST_WORD = 100
_PAGE = 1_000
_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(AuditLine)
_encode_end = msgspec.msgpack.Encoder().encode
_decode_end = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_CHAIN = "audit chain"

Collected = tuple[str, str, str, str, int, str, str]


class Audit:
    """Keeps the audit chains, one a tenant."""

    def __init__(self, warm: WarmStore, ring: KeyRing, clock: Clock, chance: Chance) -> None:
        self._warm, self._ring, self._clock, self._chance = warm, ring, clock, chance
        self._counts: dict[Collected, int] = {}
        self._timer: asyncio.Task[None] | None = None
        self._writing, self._full = asyncio.Lock(), asyncio.Event()
        self._under_way = 0
        self._noted = self._since = clock.now()  # when the oldest was noted: of those collected, of those under way
        self.lost = 0

    @property
    def pending(self) -> tuple[int, datetime | None]:
        """How many lines are not written yet, and since when the oldest of them waits."""
        count = len(self._counts) + self._under_way
        return count, (self._since if self._under_way else self._noted) if count else None

    def note(
        self, who: Principal, verb: str, session: str = "", version: int = 0, outcome: str = "ok", proof: str = ""
    ) -> None:
        """Take a line down; it is written within a second."""
        line = (who.tenant, who.id, _fit(verb), _fit(session), version, outcome, proof)
        if not self._counts:
            self._noted = self._clock.now()
        self._counts[line] = self._counts.get(line, 0) + 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().create_task(self._later())
        if len(self._counts) == _MOST:
            self._full.set()

    async def flush(self) -> None:
        """Write what has been taken down; durable on return. Lines of a store that is gone for good are counted in
        ``lost``.
        """
        async with self._writing:
            counts, self._counts = self._counts, {}
            if not counts:
                return
            self._under_way, self._since = len(counts), self._noted
            try:
                await self._write(counts)
            finally:
                self._under_way = 0

    async def close(self) -> None:
        """Write what has been taken down, and take no more."""
        if self._timer is not None:
            self._timer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._timer
            self._timer = None
        await self.flush()

    async def lines(self, tenant: str, session: str | None = None) -> AsyncIterator[AuditLine]:
        """The lines of a tenant, or of one session, in the order of the chain."""
        after: tuple[str, int] | None = None
        while True:
            rows = await self._warm.audit(tenant=tenant, session=session, after=after, limit=_PAGE)
            for row in rows:
                yield _decoder.decode(row.line)
            if len(rows) < _PAGE:
                return
            after = (rows[-1].chain, rows[-1].seq)

    async def page(self, tenant: str, *, after: int, limit: int) -> list[AuditLine] | None:
        """The lines of a tenant beyond a number, in order; None where they are of more than one chain, so that they
        have no numbers of their own.
        """
        chains = [chain for chain in await self._warm.chains() if _tenant_of(chain) == tenant]
        if len(chains) > 1:
            return None
        chain = chains[0] if chains else tenant
        rows = await self._warm.audit(tenant=tenant, after=(chain, after), limit=limit)
        return [_decoder.decode(row.line) for row in rows]

    async def check(self, tenant: str) -> AsyncIterator[tuple[str, str | None]]:
        """Each of a tenant's chains, and what is wrong with it: None, or a sentence.

        An edit, a deletion, a reorder and a truncation all show. There is more than one chain only where the key of
        the first was lost.
        """
        ends = {chain: end for chain, end in (await self._warm.chains()).items() if _tenant_of(chain) == tenant}
        for chain, end in ends.items():
            yield chain, await self._check_chain(chain, end)
        after: tuple[str, int] | None = None
        while rows := await self._warm.audit(tenant=tenant, after=after, limit=1):
            chain = rows[0].chain
            if chain not in ends and _tenant_of(chain) == tenant:
                begun = (await self._warm.chains()).get(chain)  # it may have begun meanwhile
                missing = "the record of where the chain ends is missing"
                yield chain, missing if begun is None else await self._check_chain(chain, begun)
            after = (chain, 2**62)

    async def rewrap(self) -> list[str]:
        """Wrap every chain's key under the active key-encryption key; the chains whose key could not be unwrapped."""
        failed = []
        for chain in await self._warm.chains():
            try:
                tenant = _tenant_of(chain)
                await self._append(tenant, [_rotated(self._clock.now(), tenant)], chain=chain, rewrap=True)
            except IntegrityError:
                failed.append(f"audit chain {chain}")
        return failed

    async def _write(self, counts: Mapping[Collected, int]) -> None:
        now = self._clock.now()
        by_tenant: dict[str, list[AuditLine]] = {}
        for (tenant, actor, verb, session, version, outcome, proof), count in counts.items():
            line = AuditLine(now, actor, tenant, verb, session, version, outcome, count, proof)
            by_tenant.setdefault(tenant, []).append(line)
        for tenant, lines in by_tenant.items():
            try:
                await self._append(tenant, lines)
            except HoldfastError:
                if len(self._counts) >= _MOST:
                    self.lost += len(lines)
                else:  # kept for the next try while there is room
                    self._noted = self._since
                    for line in lines:
                        kept = (tenant, line.actor, line.verb, line.session, line.version, line.outcome, line.proof)
                        self._counts[kept] = self._counts.get(kept, 0) + line.count

    async def _append(
        self,
        tenant: str,
        lines: list[AuditLine],
        *,
        chain: str | None = None,
        rewrap: bool = False,
        held: bytes | None = None,
    ) -> None:
        """Append lines to a tenant's chain.

        Args:
            chain: one of its chains, the first by default. Where the key of that is lost, the lines go to another one,
                named after the key-encryption key there is now, so that nothing goes unrecorded.
            rewrap: wrap the chain's key anew.
            held: the chain's key, where it may be wrapped under one that was dropped a moment ago.
        """
        named, chain = chain, chain or tenant
        while True:
            last = (await self._warm.chains()).get(chain)
            if last is None:
                seq, mac, key, wrapped = 0, b"", *self._new_key(chain)
            else:
                seq, mac = last.seq, last.mac
                try:
                    key, wrapped = self._key(chain, last) if held is None else (held, b"")
                except IntegrityError:
                    if named is not None or chain != tenant:
                        raise
                    chain = f"{tenant}/{self._ring.active}"
                    continue
            if rewrap:
                wrapped = self._ring.wrap(key, chain, _CHAIN)
            rows = []
            for line in lines:
                seq += 1
                data = _encode(line)
                mac = _mac(key, mac, data)
                rows.append(AuditRow(chain, seq, tenant, line.session, data, mac))
            if await self._warm.record(rows, end=_encode_end((wrapped, _end(key, seq, mac)))):
                if last is None and self._ring.is_stale(wrapped):  # rotated between wrapping and landing
                    line = _rotated(self._clock.now(), tenant)
                    await self._append(tenant, [line], chain=chain, rewrap=True, held=key)
                return

    async def _check_chain(self, chain: str, end: ChainEnd) -> str | None:
        try:
            key, _ = self._key(chain, end)
        except IntegrityError as error:
            return str(error)
        seq, mac = 0, b""
        while True:
            rows = await self._warm.audit(chain=chain, after=(chain, seq), limit=_PAGE)
            for row in rows:
                if row.seq != seq + 1:
                    return f"line {seq + 1} is missing"
                if _mac(key, mac, row.line) != row.mac:
                    return f"line {row.seq} is not what was written there"
                seq, mac = row.seq, row.mac
                line = _decoder.decode(row.line)
                if (line.session, line.tenant) != (row.session, row.tenant):
                    return f"line {row.seq} is filed under something else"
            if len(rows) == _PAGE:
                continue
            if seq <= end.seq:
                break
            newer = (await self._warm.chains()).get(chain)  # lines have come meanwhile: its end has moved too
            if newer is None or newer.seq <= end.seq:
                break
            end = newer
        if (seq, mac) != (end.seq, end.mac):
            return f"it ends at line {seq}, and {end.seq} were written"
        if _end(key, seq, mac) != _decode_end(end.end)[1]:
            return "the record of where it ends is not what was written"
        return None

    def _new_key(self, chain: str) -> tuple[bytes, bytes]:
        key = self._chance.bytes(32)
        return key, self._ring.wrap(key, chain, _CHAIN)

    def _key(self, chain: str, end: ChainEnd) -> tuple[bytes, bytes]:
        """The key that a chain's lines are hashed with, and the same wrapped: it outlives any key-encryption key."""
        try:
            wrapped = _decode_end(end.end)[0]
        except msgspec.MsgspecError:
            raise TamperedError(f"the end of audit chain {chain}") from None
        return self._ring.unwrap(wrapped, chain, _CHAIN), wrapped

    async def _later(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._full.wait(), _WITHIN)
        self._full.clear()
        self._timer = None
        await self.flush()


def _fit(word: str) -> str:
    """A verb or an id as it was asked for, unless it is none that could be: then not a word of it is kept."""
    return word if len(word) <= _MOST_WORD and word.isascii() and word.isprintable() else "?"


def _tenant_of(chain: str) -> str:
    """The tenant of a chain: a tenant has no slash in its name."""
    return chain.partition("/")[0]


def _rotated(at: datetime, tenant: str) -> AuditLine:
    return AuditLine(at, SYSTEM, tenant, "rotate-keys")


def _mac(key: bytes, before: bytes, line: bytes) -> bytes:
    return blake2b(framed(before, line), key=key, digest_size=32).digest()


def _end(key: bytes, seq: int, mac: bytes) -> bytes:
    return blake2b(framed(b"end", b"%d" % seq, mac), key=key, digest_size=32).digest()
