"""Holdfast keeps work in progress safe until it becomes official. Here are the public names, and nothing else.

``import holdfast`` stays light: the engine and what it needs are loaded when they are first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast.errors import (
    AlreadyExistsError,
    ArchiveMissingError,
    BlobNotFoundError,
    ChangeIdReusedError,
    ConfigurationError,
    ConflictError,
    FlushQueueFullError,
    HoldfastError,
    IntegrityError,
    InvalidChangeError,
    InvalidCursorError,
    InvalidError,
    InvalidItemError,
    InvalidRequestError,
    ItemNotFoundError,
    LabelNotFoundError,
    LeaseHeldError,
    LeaseLostError,
    LimitExceededError,
    LiveMovedError,
    LockHeldError,
    MediaTypeError,
    MissingExtraError,
    NotDraftError,
    NotFoundError,
    NothingToUndoError,
    PermissionDeniedError,
    PublicationPendingError,
    RateLimitedError,
    ReceiptNotFoundError,
    RefusedError,
    RequestTimeoutError,
    RequestTooLargeError,
    RouteNotFoundError,
    SealMismatchError,
    ServiceError,
    SessionBusyError,
    SessionGoneError,
    SessionNotFoundError,
    SinkUnavailableError,
    StoppingError,
    StoreDownError,
    StoreFullError,
    StoreUnavailableError,
    TamperedError,
    TierBehindError,
    UnauthenticatedError,
    UnavailableError,
    UnknownKindError,
    UnknownOperationError,
    UnreachableError,
    UnreadableError,
    VerificationFailedError,
    VersionConflictError,
    VersionNotFoundError,
    VersionRequiredError,
    WeakKeyError,
)
from holdfast.model.access import Principal, Role
from holdfast.model.change import Conflict
from holdfast.model.difference import Difference, Word
from holdfast.model.entry import Entry
from holdfast.model.item import Item
from holdfast.model.lease import Lease
from holdfast.model.limits import Limits
from holdfast.model.retention import Retention
from holdfast.model.session import Header, Lock, Session, Status, Tier

if TYPE_CHECKING:
    from holdfast.compose import open_engine
    from holdfast.engine.engine import Engine
    from holdfast.settings import Settings

    __version__: str

__all__ = [
    "AlreadyExistsError",
    "ArchiveMissingError",
    "BlobNotFoundError",
    "ChangeIdReusedError",
    "ConfigurationError",
    "Conflict",
    "ConflictError",
    "Difference",
    "Engine",
    "Entry",
    "FlushQueueFullError",
    "Header",
    "HoldfastError",
    "IntegrityError",
    "InvalidChangeError",
    "InvalidCursorError",
    "InvalidError",
    "InvalidItemError",
    "InvalidRequestError",
    "Item",
    "ItemNotFoundError",
    "LabelNotFoundError",
    "Lease",
    "LeaseHeldError",
    "LeaseLostError",
    "LimitExceededError",
    "Limits",
    "LiveMovedError",
    "Lock",
    "LockHeldError",
    "MediaTypeError",
    "MissingExtraError",
    "NotDraftError",
    "NotFoundError",
    "NothingToUndoError",
    "PermissionDeniedError",
    "Principal",
    "PublicationPendingError",
    "RateLimitedError",
    "ReceiptNotFoundError",
    "RefusedError",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "Retention",
    "Role",
    "RouteNotFoundError",
    "SealMismatchError",
    "ServiceError",
    "Session",
    "SessionBusyError",
    "SessionGoneError",
    "SessionNotFoundError",
    "Settings",
    "SinkUnavailableError",
    "Status",
    "StoppingError",
    "StoreDownError",
    "StoreFullError",
    "StoreUnavailableError",
    "TamperedError",
    "Tier",
    "TierBehindError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnknownKindError",
    "UnknownOperationError",
    "UnreachableError",
    "UnreadableError",
    "VerificationFailedError",
    "VersionConflictError",
    "VersionNotFoundError",
    "VersionRequiredError",
    "WeakKeyError",
    "Word",
    "__version__",
    "open_engine",
]

_LOADED_WHEN_NAMED = {
    "Engine": "holdfast.engine.engine",
    "Settings": "holdfast.settings",
    "open_engine": "holdfast.compose",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("holdfast")
    elif name in _LOADED_WHEN_NAMED:
        value = getattr(import_module(_LOADED_WHEN_NAMED[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
