"""What breaks a promise in a warm store of any adapter, for the tests of its suite: ``on(SomeWarmStore, SendsLate)``.

What can only be broken within an adapter, such as in its statements, is beside that adapter's own tests.
"""

# mypy: disable-error-code="safe-super"
# What comes after these in the order of classes is an adapter.

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from holdfast.model.cursor import PageCursor
from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedHead
from holdfast.ports.warm import AuditRow, Query, Snapshot, WarmStore


def on(store: type[WarmStore], broken: type[WarmStore]) -> Any:
    """An adapter with something of this file broken in it; one that is broken by itself is given back."""
    return broken if issubclass(broken, store) else type(broken.__name__, (broken, store), {})


class AppendsOneByOne(WarmStore):
    """Keeps each entry in a transaction of its own."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        for entry in entries:
            await super().append(replace(head, step=0), [entry])
        await super().append(head, [], members=members)


class SendsLate(WarmStore):
    """Has appends wait a moment before they are sent, and forgets them when it is closed."""

    async def append(
        self, head: SealedHead, entries: Sequence[SealedEntry], *, members: Sequence[str] | None = None
    ) -> None:
        await asyncio.sleep(0.01)
        await super().append(head, entries, members=members)


class FillsNoRoom(WarmStore):
    """Reads as many entries as are asked for, however large."""

    async def entries(self, session: str, *, after: int, limit: int, room: int | None = None) -> list[SealedEntry]:
        return await super().entries(session, after=after, limit=limit)


class NamesTheLastChange(WarmStore):
    """Of the change ids it tells the last one only."""

    async def changes(self, session: str, *, below: int) -> dict[str, int]:
        return dict([*(await super().changes(session, below=below)).items()][-1:])


class SharesAcrossTenants(WarmStore):
    """Asks whose member a principal of that name is, and not in which tenant."""

    async def find(self, query: Query, *, after: PageCursor | None, limit: int) -> list[SealedHead]:
        return await super().find(replace(query, tenant=None) if query.member else query, after=after, limit=limit)


class DefersAnyStep(WarmStore):
    """Does not look at which step the session stands."""

    async def defer(self, session: str, *, step: int, due: datetime | None) -> None:
        head = await self.head(session)
        await super().defer(session, step=step if head is None else head.step, due=due)


class RewrapsWhateverIsThere(WarmStore):
    """Does not look which key it replaces."""

    async def rewrap(self, session: str, *, old: bytes, new: bytes | None) -> bool:
        head = await self.head(session)
        await asyncio.sleep(0.005)
        return head is not None and await super().rewrap(session, old=head.key or b"", new=new)


class LooksThenRecords(WarmStore):
    """Looks where a chain ends, and appends a little later, whatever has come in between."""

    async def record(self, rows: Sequence[AuditRow], *, end: bytes) -> bool:
        ends = await self.chains()
        follows = rows[0].seq == (ends[rows[0].chain].seq if rows[0].chain in ends else 0) + 1
        await asyncio.sleep(0.005)
        return follows and (await super().record(rows, end=end) or True)


class RestoresInTwoSteps(WarmStore):
    """Takes back the half of the log, and the rest a little later."""

    async def restore(self, session: str, entries: Sequence[SealedEntry], snapshot: Snapshot, *, key: str) -> None:
        head = await self.head(session)
        if head is not None and head.archive is not None:
            await self.append(replace(head, step=0), entries[: len(entries) // 2])
            await asyncio.sleep(0.005)
        await super().restore(session, entries, snapshot, key=key)
