"""Writes that can be checked: what was acknowledged must be in the store, whole, in order, and nothing twice."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec

from holdfast.model.entry import GENESIS, SealedEntry, entry_digest
from holdfast.model.session import SealedHead, SealedItem, Write
from holdfast.ports.hot import HotStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ITEMS = (b"a", b"b", b"c")


class Findings(msgspec.Struct, frozen=True):
    """What a check found wrong: empty lists, if nothing.

    Attributes:
        lost: change ids that were acknowledged and are not there as they were sent.
        partial: sessions whose head, log and items are not of one write.
    """

    lost: list[str]
    partial: list[str]

    @property
    def clean(self) -> bool:
        return not self.lost and not self.partial

    @property
    def counts(self) -> str:
        """For the line a test prints."""
        return f"lost={len(self.lost)} partial={len(self.partial)}"

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.lost + other.lost, self.partial + other.partial)


class Ledger:
    """One session's writer, and its list of what the store acknowledged.

    Write number n appends one entry and puts one content, made from n, into three items: so a write that landed in part
    shows. ``acked`` maps change ids to steps.
    """

    def __init__(self, session: str, *, size: int = 400) -> None:
        self.session, self.size = session, size
        self.acked: dict[str, int] = {}

    async def write(self, store: HotStore, change: str) -> None:
        """Send one change, or send it again; the acknowledgement goes into the list.

        Raises:
            UnavailableError: as the store does; the change may have landed, and can be sent again.
        """
        while True:
            head = await store.head(self.session)
            step = 1 if head is None else head.step + 1
            if await store.write(self._write(step, change, head), now=NOW):
                self.acked[change] = step
                return
            landed = await store.change(self.session, change)
            if landed is not None:
                self.acked[change] = landed.step
                return

    def content(self, change: str) -> bytes:
        """What a change puts into each item and into its entry's payload."""
        seed = hashlib.sha256(f"{self.session}/{change}".encode()).digest()
        return (seed * (self.size // len(seed) + 1))[: self.size]

    async def check(self, store: HotStore, acked: dict[str, int] | None = None) -> Findings:
        """Compare the store with the list, or with the list as it was at some moment."""
        acked = self.acked if acked is None else acked
        loaded = await store.load(self.session)
        log = await store.entries(self.session, after=0, limit=1_000_000)
        by_change = {entry.change: entry for entry in log}
        lost = []
        for change, step in acked.items():
            entry = by_change.get(change)
            if entry is None or entry.step != step or entry.payload != self.content(change):
                lost.append(change)
        whole = self._whole(loaded, log)
        return Findings(lost, [] if whole else [self.session])

    def _whole(self, loaded: tuple[SealedHead, list[SealedItem]] | None, log: list[SealedEntry]) -> bool:
        if loaded is None:
            return not log
        head, items = loaded
        parent = GENESIS
        for number, entry in enumerate(log, 1):
            payload = self.content(entry.change)
            if entry.step != number or entry.payload != payload or entry.header != _header(number, parent):
                return False
            parent = entry_digest(entry.header, entry.payload)
            if entry.digest != parent:
                return False
        if not log or head.step != len(log) or head.digest != parent:
            return False
        content = self.content(log[-1].change)
        return head.sealed == content and [(item.id, item.sealed) for item in items] == [(id, content) for id in ITEMS]

    def _write(self, step: int, change: str, head: SealedHead | None) -> Write:
        content = self.content(change)
        header = _header(step, GENESIS if head is None else head.digest)
        digest = entry_digest(header, content)
        entry = SealedEntry(self.session, step, step, True, change, header, content, digest)
        after = SealedHead(
            id=self.session,
            tenant="t",
            owner="o",
            kind="k",
            status="draft",
            step=step,
            version=step,
            digest=digest,
            created=0.0,
            due=None,
            sealed=content,
            key=b"key",
        )
        items = tuple(SealedItem(id, step, content) for id in ITEMS)
        return Write(expected=step - 1, head=after, entry=entry, items=items)


def _header(step: int, parent: bytes) -> bytes:
    return b"%d:%s" % (step, parent.hex().encode())
