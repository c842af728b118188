"""A session as one process has it open."""

from __future__ import annotations

from datetime import datetime

from holdfast.engine.sealing import Cipher
from holdfast.model.item import Item
from holdfast.model.session import Header, SealedHead, Session


class Opened:
    """A session as this process last saw it. Its state is never altered: what follows it is another one.

    Its items and notes are there only once somebody needed them: ``loaded`` tells. Notes are a session's own
    records outside its history, such as labels and receipts.
    """

    __slots__ = ("_items", "_notes", "cipher", "data_key", "due", "generation", "header", "key", "seen")

    def __init__(
        self,
        header: Header,
        cipher: Cipher,
        key: bytes,
        due: float | None,
        items: dict[str, Item] | None = None,
        notes: dict[str, Item] | None = None,
    ) -> None:
        self.header, self.cipher, self.key, self.due = header, cipher, key, due
        self._items, self._notes = items, notes
        self.data_key: bytes | None = None  # only of a session that is not stored yet
        self.seen: datetime | None = None  # when the store last said that it stands so
        self.generation = 0  # of the hot store, when it was last held against the warm one

    @property
    def loaded(self) -> bool:
        return self._items is not None

    @property
    def items(self) -> dict[str, Item]:
        if self._items is None:
            raise LookupError(f"the items of session {self.header.id} are not loaded")
        return self._items

    @property
    def notes(self) -> dict[str, Item]:
        if self._notes is None:
            raise LookupError(f"the notes of session {self.header.id} are not loaded")
        return self._notes

    @property
    def session(self) -> Session:
        return Session(self.header, self.items)

    def follow(
        self, header: Header, due: float | None, items: dict[str, Item] | None, notes: dict[str, Item] | None
    ) -> Opened:
        """The session after a write; what the write did not touch (None) is as it was."""
        following = Opened(
            header,
            self.cipher,
            self.key,
            due,
            self._items if items is None else items,
            self._notes if notes is None else notes,
        )
        following.generation = self.generation
        return following

    def again(self, head: SealedHead) -> Opened:
        """The same session from a head that differs in its data key's wrapping alone."""
        same = Opened(self.header, self.cipher, head.key or b"", head.due, self._items, self._notes)
        same.generation = self.generation
        return same
