"""Handles on a warm store, and what its suites do with them again and again."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from holdfast.model.entry import SealedEntry
from holdfast.model.session import SealedItem
from holdfast.ports.warm import AuditRow, Snapshot, WarmStore
from holdfast.testing.handles import Connecting, Handles
from holdfast.testing.samples import content, entry_at

Connect = Connecting[WarmStore]
Pair = tuple[WarmStore, WarmStore]
WarmHandles = Handles[WarmStore]


def log(session: str, first: int, last: int) -> list[SealedEntry]:
    """The entries of some steps, the last one included."""
    return [entry_at(session, step) for step in range(first, last + 1)]


def snapshot_at(step: int, names: Iterable[bytes] = (b"i", b"j"), size: int = 200) -> Snapshot:
    """The items of some names as they stood at a step."""
    return Snapshot(step, tuple(SealedItem(name, step, content(f"{name!r} {step}", size)) for name in names))


async def snapshot_of(store: WarmStore, session: str = "s") -> Snapshot | None:
    """The snapshot kept of a session, its items in the order of their ids: a store may give them in any."""
    kept = await store.items(session)
    return kept and replace(kept, items=tuple(sorted(kept.items, key=lambda item: item.id)))


def lines(chain: str, first: int, last: int) -> list[AuditRow]:
    """Lines of a chain, the last one included."""
    return [
        AuditRow(
            chain, seq, tenant=chain, session=f"s{seq % 3}", line=content(f"{chain}/{seq} line"), mac=mac(chain, seq)
        )
        for seq in range(first, last + 1)
    ]


def mac(chain: str, seq: int) -> bytes:
    return content(f"{chain}/{seq} mac", 32)
