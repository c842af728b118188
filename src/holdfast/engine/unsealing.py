"""What stores hold, opened: a head, the items that belong to it, and the items that a log makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.engine.opened import Opened
from holdfast.engine.sealing import Cipher, KeyRing, open_head, open_item
from holdfast.errors import SessionGoneError, TamperedError, UnreadableError
from holdfast.model.change import apply
from holdfast.model.entry import Entry
from holdfast.model.item import Item
from holdfast.model.session import GONE, SealedHead, SealedItem
from holdfast.ports.clock import Chance

Items = dict[str, Item]


class Unsealing:
    """Opens sessions from what a store gave."""

    def __init__(self, ring: KeyRing, chance: Chance) -> None:
        self.ring, self._chance = ring, chance

    def head(self, head: SealedHead, known: Opened | None = None) -> Opened:
        """A session from its head, without its items.

        Args:
            known: the same session as it was opened before, whose data key is at hand.
        Raises:
            SessionGoneError: it is purged; only a tombstone is left.
            UnreadableError, TamperedError: its key is destroyed, or its bytes are not what was written.
        """
        if head.key is None:
            if head.status in GONE:
                raise SessionGoneError(head.id, head.status, None)
            raise UnreadableError(f"Session {head.id}", "destroyed")
        if known is not None and known.key == head.key and known.header.tenant == head.tenant:
            cipher = known.cipher
        else:
            data_key = self.ring.unwrap(head.key, head.tenant, head.id)
            cipher = Cipher(data_key, head.tenant, head.id, self._chance)
        header = open_head(cipher, head)
        if known is not None and known.header.digest == header.digest:
            return known.again(head)
        return Opened(header, cipher, head.key, head.due)

    def items(self, opened: Opened, sealed: Sequence[SealedItem]) -> Opened:
        """The session with its items and notes, of the rows that a store gave of this very moment."""
        items, notes = self.rows(opened, sealed)
        return self.complete(opened, items, notes)

    def rows(self, opened: Opened, sealed: Iterable[SealedItem]) -> tuple[Items, Items]:
        """Items and notes of rows, each checked for itself."""
        items: Items = {}
        notes: Items = {}
        for row in sealed:
            item, is_note = open_item(opened.cipher, row)
            (notes if is_note else items)[item.key] = item
        return items, notes

    def complete(self, opened: Opened, items: Items, notes: Items) -> Opened:
        """The session with its items and notes, checked against the root: none missing, none extra, none of another
        version.
        """
        cipher, root = opened.cipher, 0
        for part in (items, notes):
            for item in part.values():
                root ^= cipher.root_part(cipher.item_id(item.key), item.version)
        if root.to_bytes(32, "big") != opened.header.root:
            raise TamperedError(f"the items of session {opened.header.id}")
        return opened.follow(opened.header, opened.due, items, notes)


def replay(items: Items, notes: Items, entries: Iterable[Entry]) -> None:
    """Bring items and notes on by entries of the log, in place."""
    for entry in entries:
        apply(items, entry.changes, entry.version, entry.step)
        for key, body in entry.payload.notes.items():
            raw = bytes(body)
            if raw == b"null":
                notes.pop(key, None)
            else:
                notes[key] = Item(key, "", raw, entry.step, entry.step)
