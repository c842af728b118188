"""JSON Patch and JSON Merge Patch onto a session, or onto the body of one item.

To a patch a session is ``{collection: {name: body}}``, so that ``/chunks/0001/text`` is the text of the item
``chunks/0001``. Every collection is there, if only as an empty object. A patch reads what it names and no more: what it
reads takes part in the detection of conflicts. The order of items is not part of the document: what a patch adds stands
at the end, what it changes stays where it is, and so does what it moves to another name.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import msgspec

from holdfast.errors import InvalidChangeError
from holdfast.model.item import Item, check_key
from holdfast.model.limits import Limits, check_limit
from holdfast.model.patch import Patcher, PatchOperation, merged, patched, pointer
from holdfast.ports.kind import Draft

_encode = msgspec.json.Encoder().encode

_NO_COLLECTION = "a collection is an object of items by their names"
_NOT_WHOLE = "a patch of a session names a collection or what is in it, not the session itself"


def merge(draft: Draft, patch: Any, limits: Limits) -> None:
    """Change a draft by a merge patch (RFC 7396): null removes an item, or all items of a collection.

    Raises:
        InvalidChangeError: it is no object of objects. InvalidItemError: a name no item can have.
        LimitExceededError: it names more items than one change-set may change, or a body is too large or too deep.
    """
    if type(patch) is not dict:
        raise InvalidChangeError("a merge patch of a session is an object of collections")
    for items in patch.values():
        if items is not None and type(items) is not dict:
            raise InvalidChangeError(_NO_COLLECTION)
    check_limit("items in a patch", sum(len(items) for items in patch.values() if items), limits.operations)
    for collection, items in patch.items():
        if items is None:
            for item in draft.collection(collection):
                draft.delete(item.key)
            continue
        for name, body in items.items():
            key = f"{collection}/{name}"
            check_key(key)
            here = draft.get(key)
            if body is not None:
                draft.put(key, merged(None if here is None else here.body, body))
            elif here is not None:
                draft.delete(key)


def apply(draft: Draft, operations: Sequence[PatchOperation], limits: Limits) -> None:
    """Change a draft by a JSON Patch (RFC 6902), whole or, by raising, not at all.

    Raises:
        InvalidChangeError: an operation that cannot be done, or a test that fails; says which.
        InvalidItemError: a name no item can have.
        LimitExceededError: more operations than ``limits.operations``; more copied than a session may hold; a body too
            large or too deep.
    """
    check_limit("operations in a patch", len(operations), limits.operations)
    for number, operation in enumerate(operations):
        if operation.path == "" or operation.origin == "":
            raise InvalidChangeError(f"operation {number}, {operation.op}: {_NOT_WHOLE}")
    document = _Collections(draft)
    patcher = Patcher(document, room=limits.session_bytes, depth=limits.depth + 2)
    patcher.run(operations)
    document.write(_renamed(operations))


def patch_body(body: Any, operations: Sequence[PatchOperation], limits: Limits) -> Any:
    """What a JSON Patch (RFC 6902) makes of an item's body. Raises as ``apply`` does."""
    check_limit("operations in a patch", len(operations), limits.operations)
    return patched(body, operations, room=limits.item_bytes, depth=limits.depth)


class _Collections(MutableMapping[str, "_Collection"]):
    """A draft as the document that patches see."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._seen: dict[str, _Collection] = {}

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> _Collection:
        found = self._seen.get(name)
        if found is None:
            found = self._seen[name] = _Collection(self._draft, name)
        return found

    def __setitem__(self, name: str, items: Any) -> None:
        if type(items) is not dict:
            raise InvalidChangeError(_NO_COLLECTION)
        self[name].replace(items)

    def __delitem__(self, name: str) -> None:
        self[name].replace({})

    def __iter__(self) -> Iterator[str]:
        raise InvalidChangeError(_NOT_WHOLE)

    def __len__(self) -> int:
        raise InvalidChangeError(_NOT_WHOLE)

    def write(self, renamed: dict[str, str]) -> None:
        """Make the draft what the document has become; ``renamed`` says which key an item had before."""
        for found in self._seen.values():
            found.put(renamed)
        for found in self._seen.values():
            found.delete()


class _Collection(MutableMapping[str, Any]):
    """The items of a collection by their names. An item is read when it is named, and written once, at the end."""

    def __init__(self, draft: Draft, name: str) -> None:
        self._draft, self._name = draft, name
        self._bodies: dict[str, Any] = {}
        self._known: dict[str, bytes | None] = {}  # what was there of the names met so far
        self._whole = False

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._meet(name)

    def __getitem__(self, name: str) -> Any:
        if not self._meet(name):
            raise KeyError(name)
        return self._bodies[name]

    def __setitem__(self, name: str, body: Any) -> None:
        check_key(self._key(name))
        self._meet(name)
        self._bodies[name] = body

    def __delitem__(self, name: str) -> None:
        if not self._meet(name):
            raise KeyError(name)
        del self._bodies[name]

    def __iter__(self) -> Iterator[str]:
        self._meet_all()
        return iter(self._bodies)

    def __len__(self) -> int:
        self._meet_all()
        return len(self._bodies)

    def replace(self, bodies: dict[str, Any]) -> None:
        """Have these items in place of all there are."""
        for name in bodies:
            check_key(self._key(name))
            self._known.setdefault(name, None)
        for item in self._draft.collection(self._name):
            self._known[_name(item)] = item.raw
        self._whole, self._bodies = True, bodies

    def put(self, renamed: dict[str, str]) -> None:
        """Write the items that are new, and those that have changed."""
        for name, body in self._bodies.items():
            key, before = self._key(name), self._known[name]
            if before is None:
                after = renamed.get(key)
                there = after is not None and self._draft.get(after) is not None
                self._draft.put(key, body, after=after if there else None)
            elif _encode(body) != before:
                self._draft.put(key, body)

    def delete(self) -> None:
        """Remove the items that were there and are no more."""
        for name, before in self._known.items():
            if before is not None and name not in self._bodies:
                self._draft.delete(self._key(name))

    def _key(self, name: str) -> str:
        return f"{self._name}/{name}"

    def _meet(self, name: str) -> bool:
        """Whether an item is there; reads it if it has not been met."""
        if name not in self._known:
            item = None if self._whole else self._draft.get(self._key(name))
            self._known[name] = None if item is None else item.raw
            if item is not None:
                self._bodies[name] = item.body
        return name in self._bodies

    def _meet_all(self) -> None:
        if self._whole:
            return
        ordered = {}
        for item in self._draft.collection(self._name):
            name = _name(item)
            if name not in self._known:
                self._known[name], self._bodies[name] = item.raw, item.body
            if name in self._bodies:
                ordered[name] = self._bodies[name]
        self._whole, self._bodies = True, ordered | self._bodies


def _name(item: Item) -> str:
    return item.key.partition("/")[2]


def _renamed(operations: Sequence[PatchOperation]) -> dict[str, str]:
    """The key that each item had which a patch moves to another name."""
    renamed: dict[str, str] = {}
    for operation in operations:
        if operation.op == "move" and isinstance(operation.origin, str):
            origin, path = pointer(operation.origin), pointer(operation.path)
            if len(origin) == len(path) == 2:
                before = "/".join(origin)
                renamed["/".join(path)] = renamed.get(before, before)
    return renamed
