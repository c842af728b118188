"""Changes to JSON that are written as JSON: JSON Pointer, JSON Patch and JSON Merge Patch (RFC 6901, 6902, 7396).

A patch of a kilobyte can ask for gigabytes: twenty copies of the document into itself. So what operations copy is
counted while they run, and how deep they nest; the rest is bounded by the size of the patch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Literal

import msgspec

from holdfast.errors import InvalidChangeError, LimitExceededError

Pointer = tuple[str, ...]

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_BAD_ESCAPE = re.compile(r"~(?![01])")
_MOST_STEPS = 1_000
_SHOWN = 200
_VALUE_BYTES = 8
_CONTAINER_BYTES = 64
_SCALARS = frozenset({str, int, float, bool, type(None)})


class PatchOperation(msgspec.Struct, frozen=True, rename={"origin": "from"}):
    """One operation of a JSON Patch. Members that RFC 6902 does not define are ignored, as it demands.

    Attributes:
        path: a JSON Pointer to what is changed or tested.
        origin: ``from``: a JSON Pointer to what is moved or copied.
        value: what is added, put in place, or expected; may be null, but must be there.
    """

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str
    origin: str | msgspec.UnsetType = msgspec.UNSET
    value: Any = msgspec.UNSET


def pointer(text: str) -> Pointer:
    """The names and indices a JSON Pointer is made of; none for the whole document.

    Raises:
        InvalidChangeError: it is no pointer.
    """
    if not text:
        return ()
    if text[0] != "/":
        raise InvalidChangeError("a JSON Pointer is empty or begins with a slash")
    if text.count("/") > _MOST_STEPS:
        raise InvalidChangeError(f"a JSON Pointer of more than {_MOST_STEPS:,} steps leads nowhere")
    if "~" not in text:
        return tuple(text[1:].split("/"))
    if _BAD_ESCAPE.search(text):
        raise InvalidChangeError("in a JSON Pointer ~ is written ~0, and / in a name ~1")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/"))


def merged(target: Any, patch: Any) -> Any:
    """What a merge patch makes of a value (RFC 7396, section 2). Neither is changed; the result has parts of both."""
    if type(patch) is not dict:
        return patch
    result = dict(target) if type(target) is dict else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def patched(document: Any, operations: Sequence[PatchOperation], *, room: int, depth: int) -> Any:
    """What a JSON Patch makes of a document, which is left as it is. See ``Patcher``."""
    patcher = Patcher(_copy(document), room=room, depth=depth)
    patcher.run(operations)
    return patcher.document


class Patcher:
    """Runs the operations of a JSON Patch on a document that it may change.

    The document is of dicts and lists; the outer levels of it may be other mutable mappings, so that they need not be
    read whole.

    Args:
        room: bytes that all operations together may copy, about as they are written in JSON. ``move`` counts where it
            nests deeper.
        depth: levels of arrays and objects in the document.
    """

    def __init__(self, document: Any, *, room: int, depth: int) -> None:
        self._root: dict[str, Any] = {"": document}  # so that the document, too, has a parent
        self._most = self._room = room
        self._depth = depth

    @property
    def document(self) -> Any:
        return self._root[""]

    def run(self, operations: Sequence[PatchOperation]) -> None:
        """Run them in order.

        Raises:
            InvalidChangeError: one of them cannot be done, or is a test that fails; says which, counted from 0. What
                those before it did is done.
            LimitExceededError: they copy more than there is room for, or nest too deep.
        """
        for number, operation in enumerate(operations):
            try:
                self._run(operation)
            except InvalidChangeError as error:
                where = operation.path if len(operation.path) <= _SHOWN else operation.path[:_SHOWN] + "…"
                said = f"operation {number}, {operation.op} {where or 'of the whole'}: {error.reason}"
                raise InvalidChangeError(said, error.key) from None

    def _run(self, operation: PatchOperation) -> None:
        op = operation.op
        path = ("", *pointer(operation.path))
        if op in ("move", "copy"):
            if operation.origin is msgspec.UNSET:
                raise InvalidChangeError("it names no origin in `from`")
            origin = ("", *pointer(operation.origin))
            if op == "move":
                self._move(origin, path)
            else:
                self._add(path, self._copied(self._find(origin), len(path)))
        elif op == "remove":
            self._remove(path)
        elif operation.value is msgspec.UNSET:
            raise InvalidChangeError("it has no value")
        elif op == "test":
            if not same(self._find(path), operation.value):
                raise InvalidChangeError("another value is there")
        else:
            if op == "replace":
                self._find(path)
            value = self._copied(operation.value, len(path), free=True)  # the patch may be run again
            self._add(path, value, instead=op == "replace")

    def _find(self, path: Pointer) -> Any:
        here: Any = self._root
        for step in path:
            if type(here) is list:
                here = here[_index(step, len(here) - 1)]
            elif not isinstance(here, Mapping):
                raise InvalidChangeError("nothing is there")
            elif step in here:
                here = here[step]
            else:
                raise InvalidChangeError("nothing is there")
        return here

    def _add(self, path: Pointer, value: Any, *, instead: bool = False) -> None:
        parent, last = self._find(path[:-1]), path[-1]
        if type(parent) is list:
            if instead:
                parent[_index(last, len(parent) - 1)] = value
            else:
                parent.insert(len(parent) if last == "-" else _index(last, len(parent)), value)
        elif isinstance(parent, MutableMapping):
            parent[last] = value
        else:
            raise InvalidChangeError("its parent is no array and no object")

    def _remove(self, path: Pointer) -> None:
        if len(path) == 1:
            raise InvalidChangeError("the whole document cannot be removed")
        self._find(path)
        parent, last = self._find(path[:-1]), path[-1]
        del parent[int(last) if type(parent) is list else last]

    def _move(self, origin: Pointer, path: Pointer) -> None:
        value = self._find(origin)
        if origin == path:
            return
        if path[: len(origin)] == origin:
            raise InvalidChangeError("a value cannot be moved into itself")
        if len(path) > len(origin):
            value = self._copied(value, len(path))  # for the depth, and so that doing it over and over is bounded
        elif type(value) is not dict and isinstance(value, Mapping):
            value = dict(value)
        self._remove(origin)
        self._add(path, value)

    def _copied(self, value: Any, steps: int, *, free: bool = False) -> Any:
        """A copy to stand ``steps`` deep, paid for before it is made."""
        kind = type(value)
        if kind in _SCALARS:
            if not free:
                self._pay(_price(value))
            return value
        if steps > self._depth:
            raise LimitExceededError("JSON depth", self._depth + 1, self._depth)
        inner = value if kind is list else value.values()
        if not free:
            self._pay(_CONTAINER_BYTES + (0 if kind is list else sum(map(_price, value))))
        kinds = set(map(type, inner))
        if kinds <= _SCALARS:  # the quick way, since much may be copied many times
            if not free:
                self._pay(sum(map(_price, inner)) if str in kinds else _VALUE_BYTES * len(inner))
            return value.copy() if kind is list else dict(value)
        if kind is list:
            return [self._copied(each, steps + 1, free=free) for each in value]
        return {name: self._copied(each, steps + 1, free=free) for name, each in value.items()}

    def _pay(self, figure: int) -> None:
        self._room -= figure
        if self._room < 0:
            raise LimitExceededError("bytes copied by a patch", self._most - self._room, self._most)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal (RFC 6902, section 4.6): 1 is 1.0, but not true."""
    if type(one) is list:
        return type(other) is list and len(one) == len(other) and all(map(same, one, other))
    if type(one) is bool or type(other) is bool:
        return one is other
    if isinstance(one, Mapping):
        return (
            type(other) is dict
            and len(one) == len(other)
            and all(name in other and same(inner, other[name]) for name, inner in one.items())
        )
    return bool(one == other)


def _price(value: Any) -> int:
    """What a scalar or a name costs to copy."""
    return _VALUE_BYTES + (len(value) if type(value) is str else 0)


def _index(step: str, last: int) -> int:
    """The index a step of a pointer names, ``last`` at most."""
    if _INDEX.fullmatch(step) is None:
        raise InvalidChangeError("an array has numbered places, and - for the end where something is added")
    if int(step) > last:
        raise InvalidChangeError("the array is shorter than that")
    return int(step)


def _copy(value: Any) -> Any:
    if type(value) is list:
        return [_copy(inner) for inner in value]
    if type(value) is dict:
        return {name: _copy(inner) for name, inner in value.items()}
    return value
