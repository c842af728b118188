"""What a kind of session declares. The engine knows kinds only by this."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from holdfast.errors import UnknownOperationError
from holdfast.model.item import Item
from holdfast.model.session import Session
from holdfast.ports.sink import Record


class Draft(Protocol):
    """What an operation works on: reads see its own writes, and what it reads takes part in conflict detection."""

    def get(self, key: str) -> Item | None:
        """An item, None if there is none."""

    def body(self, key: str) -> Any:
        """The body of an item, decoded; raises ``ItemNotFoundError``."""

    def collection(self, name: str) -> list[Item]:
        """The items of a collection in order."""

    def put(self, key: str, body: Any, *, after: str | None = None, before: str | None = None) -> None:
        """Write an item: a new one goes to the end of the session, or next to the key named."""

    def delete(self, key: str) -> None:
        """Remove an item; raises ``ItemNotFoundError``."""

    def move(self, key: str, *, after: str | None = None, before: str | None = None) -> None:
        """Place an item next to another; with neither, at the end."""

    def new_key(self, collection: str) -> str:
        """A key not yet in use, the same one for the same change id, so that a resend makes the same items."""


class Ingested(msgspec.Struct, frozen=True):
    """What a kind makes of a source: a title, and the items to start with, in order."""

    title: str
    items: Sequence[tuple[str, Any]]
    source: Mapping[str, Any] = {}


class Ingest(Protocol):
    """Makes items of a source document."""

    def __call__(self, data: bytes, name: str, /, *, most: int = sys.maxsize) -> Ingested:
        """The items; runs in a thread, which ends with the process wherever it stands.

        Args:
            name: the file's name; its ending says what it is.
            most: items that there is room for. What would make more is refused as soon as that is known.
        Raises:
            InvalidChangeError: it is no source of this kind.
            LimitExceededError: more than ``most``.
        """


class Operation(msgspec.Struct, frozen=True):
    """A typed verb of a kind. Routes, commands and forms come from this declaration.

    Attributes:
        name: lower-case, with dashes.
        arguments: a msgspec Struct; its docstring and field types are the help.
        run: changes the draft; raises ``InvalidChangeError`` for arguments that make no sense.
        commutative: it may be sent without an expected version.
        summary: one line.
    """

    name: str
    arguments: type[msgspec.Struct]
    run: Callable[[Draft, Any], None]
    summary: str
    commutative: bool = False


class Kind(msgspec.Struct, frozen=True):
    """A kind of session.

    Attributes:
        schema: number of the body schema; it goes up when stored bodies change shape. bodies: the body type of each
        collection; a collection not named is refused. check_item: raises ``InvalidItemError`` for a body that its
        type admits but that makes no sense. check: raises for a session whose items contradict each other; runs on
        the resulting state before a commit, and is
            told which keys changed so that it need look at no more.
        operations: beyond put, delete and move.
        ingest: what a source document becomes, where the kind has sources.
        publish: what the session's items become in a sink.
        sink: name of the sink it publishes to unless settings say otherwise.
    """

    name: str
    schema: int
    summary: str
    bodies: Mapping[str, type]
    publish: Callable[[Session], list[Record]]
    sink: str
    check_item: Callable[[Item], None] = lambda item: None
    check: Callable[[Mapping[str, Item], frozenset[str]], None] = lambda items, touched: None
    operations: tuple[Operation, ...] = ()
    ingest: Ingest | None = None

    def operation(self, name: str) -> Operation:
        """The operation of a name, or ``UnknownOperationError``."""
        for operation in self.operations:
            if operation.name == name:
                return operation
        raise UnknownOperationError(name, (operation.name for operation in self.operations))
