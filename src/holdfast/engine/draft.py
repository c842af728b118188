"""What an author works on: a state, the author's changes over it, and a record of what the author looked at."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from holdfast.engine.editing import Committed
from holdfast.errors import InvalidChangeError, ItemNotFoundError
from holdfast.model import order
from holdfast.model.item import Item, check_key, encode_body
from holdfast.model.limits import Limits, check_limit
from holdfast.model.session import in_order
from holdfast.ports.kind import Draft


class DraftView(Draft):
    """A state with one writer's changes over it, and a record of what the writer looked at."""

    __slots__ = ("_change", "_limits", "_names", "base", "collections", "committed", "reads", "wanted")

    def __init__(self, base: Mapping[str, Item], limits: Limits, change: str) -> None:
        self.base, self._limits, self._change = base, limits, change
        self._names = 0
        self.committed: Committed | None = None
        self.wanted: dict[str, tuple[str, bytes] | None] = {}
        self.reads: set[str] = set()
        self.collections: set[str] = set()

    @property
    def result(self) -> Committed:
        """What the commit came to; only once the block has been left."""
        if self.committed is None:
            raise LookupError("the draft is not committed yet")
        return self.committed

    def get(self, key: str) -> Item | None:
        self.reads.add(key)
        return self._see(key)

    def body(self, key: str) -> Any:
        item = self.get(key)
        if item is None:
            raise ItemNotFoundError(key)
        return item.body

    def collection(self, name: str) -> list[Item]:
        self.collections.add(name)
        return [item for item in self._ordered() if item.collection == name]

    def put(self, key: str, body: Any, *, after: str | None = None, before: str | None = None) -> None:
        check_key(key)
        limits = self._limits
        raw = encode_body(key, body, depth=limits.depth, size=limits.item_bytes)
        here = self._see(key)
        if after is None and before is None and here is not None:
            position = here.position
        else:
            position = self._place(key, after, before)
        self._want(key, (position, raw))

    def delete(self, key: str) -> None:
        if self._see(key) is None:
            raise ItemNotFoundError(key)
        self._want(key, None)

    def move(self, key: str, *, after: str | None = None, before: str | None = None) -> None:
        item = self._see(key)
        if item is None:
            raise ItemNotFoundError(key)
        if key in (after, before):
            raise InvalidChangeError("an item cannot be placed next to itself", key)
        self._want(key, (self._place(key, after, before), item.raw))

    def new_key(self, collection: str) -> str:
        while True:
            self._names += 1
            name = blake2b(f"{self._change} {self._names}".encode(), digest_size=8).digest()
            key = f"{collection}/{base64.b32encode(name).decode().lower().rstrip('=')}"
            if key not in self.base and key not in self.wanted:
                return key

    def _see(self, key: str) -> Item | None:
        item = self.base.get(key)
        if key not in self.wanted:
            return item
        target = self.wanted[key]
        if target is None:
            return None
        return Item(key, target[0], target[1], item.version if item else 0, item.written if item else 0)

    def _want(self, key: str, target: tuple[str, bytes] | None) -> None:
        self.wanted[key] = target
        check_limit("operations in one change-set", len(self.wanted), self._limits.operations)

    def _ordered(self) -> list[Item]:
        if not self.wanted:
            return in_order(self.base)
        seen = dict(self.base)
        for key in self.wanted:
            item = self._see(key)
            if item is None:
                seen.pop(key, None)
            else:
                seen[key] = item
        return in_order(seen)

    def _place(self, key: str, after: str | None, before: str | None) -> str:
        """A position next to a neighbour, or at the end; neighbours that share a position are set apart first."""
        if after is not None and before is not None:
            raise InvalidChangeError("name the item to place it after, or the one to place it before, not both", key)
        neighbour = after if after is not None else before
        if neighbour is None:
            last = self._last(key)
            return order.between(last, None)
        rest = [item for item in self._ordered() if item.key != key]
        at = next((at for at, item in enumerate(rest) if item.key == neighbour), None)
        if at is None:
            raise ItemNotFoundError(neighbour)
        if before is not None:
            at -= 1
        low = rest[at].position if at >= 0 else None
        tied = [item for item in rest[at + 1 :] if item.position == low]
        above = rest[at + 1 + len(tied)].position if at + 1 + len(tied) < len(rest) else None
        first, *others = order.spread(low, above, len(tied) + 1)
        for item, position in zip(tied, others, strict=True):
            self._want(item.key, (position, item.raw))
        return first

    def _last(self, key: str) -> str | None:
        positions = [item.position for item in self.base.values() if item.key != key and item.key not in self.wanted]
        positions += [target[0] for name, target in self.wanted.items() if target is not None and name != key]
        return max(positions, default=None)
