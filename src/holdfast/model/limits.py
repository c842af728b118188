"""How much is too much. All of these are settings."""

from __future__ import annotations

import msgspec

from holdfast.errors import LimitExceededError


class Limits(msgspec.Struct, frozen=True):
    """Bounds on a session and on one change-set.

    Attributes:
        session_bytes: bodies of all items together.
        items: items in a session.
        item_bytes: the body of one item.
        depth: nesting of a JSON body.
        operations: items changed by one change-set.
        sessions: sessions of one owner that are not gone.
        labels, grants: per session.
        source_bytes: a document handed to ingest.
    """

    session_bytes: int = 10_000_000
    items: int = 100
    item_bytes: int = 1_000_000
    depth: int = 64
    operations: int = 1_000
    sessions: int = 1_000
    labels: int = 1_000
    grants: int = 100
    source_bytes: int = 10_000_000


def check_limit(limit: str, figure: int, maximum: int) -> None:
    """Raise unless ``figure`` is within ``maximum``; ``limit`` names what was counted."""
    if figure > maximum:
        raise LimitExceededError(limit, figure, maximum)
