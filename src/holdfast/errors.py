"""Every error Holdfast raises, grouped by what the caller does next.

::

    HoldfastError
    |- NotFoundError       nothing by that name
    |- ConflictError       read again, rebase, retry
    |- RefusedError        not you, or not now
    |- InvalidError        mend the input
    |- UnavailableError    wait; the outcome is open
    |- IntegrityError      stored bytes do not add up
    |- ConfigurationError  mend the settings

Each leaf carries a stable ``code``, keeps its facts as attributes and builds its own sentence. Codes are only ever
added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar


class HoldfastError(Exception):
    """The root of the tree; catch it to catch everything Holdfast raises on purpose."""

    code: ClassVar[str] = "error"
    change_id: str | None = None
    """Where the outcome of a write is open: what to ask again with. Of a change id in use: that one."""

    def facts(self) -> dict[str, Any]:
        """The attributes of the error, for programs; never item content except in a conflict's own items."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


# -- nothing by that name --------------------------------------------------------------------------------------------


class NotFoundError(HoldfastError):
    code = "not-found"


class SessionNotFoundError(NotFoundError):
    """No such session, or none that this principal may know of: the two look the same on purpose."""

    code = "session-not-found"

    def __init__(self, session: str) -> None:
        self.session = session
        super().__init__(f"There is no session {session!r} that you may see.")


class SessionGoneError(NotFoundError):
    """The session was discarded or has expired; a tombstone is left, and for a time it can be restored."""

    code = "session-gone"

    def __init__(self, session: str, status: str, restorable_until: datetime | None) -> None:
        self.session, self.status, self.restorable_until = session, status, restorable_until
        tail = f"; it can be restored until {restorable_until:%Y-%m-%d %H:%M:%S} UTC" if restorable_until else ""
        super().__init__(f"Session {session} is {status}{tail}.")


class ItemNotFoundError(NotFoundError):
    code = "item-not-found"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"There is no item {key!r} in this session.")


class VersionNotFoundError(NotFoundError):
    code = "version-not-found"

    def __init__(self, version: int, head: int) -> None:
        self.version, self.head = version, head
        super().__init__(f"There is no version {version}; this session has versions 0 to {head}.")


class LabelNotFoundError(NotFoundError):
    code = "label-not-found"

    def __init__(self, label: str) -> None:
        self.label = label
        super().__init__(f"There is no label {label!r} in this session.")


class ReceiptNotFoundError(NotFoundError):
    code = "receipt-not-found"

    def __init__(self, session: str) -> None:
        self.session = session
        super().__init__(f"Session {session} has no publication receipt.")


class RouteNotFoundError(NotFoundError):
    """The service has nothing at that address, or not for that method."""

    code = "route-not-found"

    def __init__(self, method: str, path: str, allowed: Iterable[str] = ()) -> None:
        self.method, self.path, self.allowed = method, path, tuple(allowed)
        if self.allowed:
            said = f"{path} does not take {method}; it takes {', '.join(self.allowed)}."
        else:
            said = f"There is nothing at {method} {path}; /openapi.json lists what there is."
        super().__init__(said)


class BlobNotFoundError(NotFoundError):
    code = "blob-not-found"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"There is no blob {key!r} in the cold tier.")


# -- read again, rebase, retry -----------------------------------------------------------------------------------------


class ConflictError(HoldfastError):
    code = "conflict"


class VersionConflictError(ConflictError):
    """The session moved on since the author read it.

    ``conflicts`` holds one ``Conflict`` (key, base, theirs, mine) for each item that stands in the way: enough to
    show a three-way merge.
    """

    code = "version-conflict"

    def __init__(self, session: str, expected: int, actual: int, conflicts: Sequence[Any] = ()) -> None:
        self.session, self.expected, self.actual, self.conflicts = session, expected, actual, tuple(conflicts)
        keys = ", ".join(conflict.key for conflict in self.conflicts[:5])
        tail = f" Items in conflict: {keys}." if keys else ""
        super().__init__(f"Session {session} is at version {actual}, not {expected}; read it again and retry.{tail}")


class LeaseHeldError(ConflictError):
    code = "lease-held"

    def __init__(self, holder: str, until: datetime) -> None:
        self.holder, self.until = holder, until
        super().__init__(f"{holder} holds the lease until {until:%H:%M:%S} UTC; wait, or take it over.")


class SessionBusyError(ConflictError):
    """The session is written to again and again, so that it does not come to rest; it is as it was."""

    code = "session-busy"

    def __init__(self, session: str) -> None:
        self.session = session
        super().__init__(f"Session {session} is being worked on and does not come to rest; try again later.")


class AlreadyExistsError(ConflictError):
    code = "already-exists"

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} exists already.")


class SealMismatchError(ConflictError):
    code = "seal-mismatch"

    def __init__(self, session: str) -> None:
        self.session = session
        super().__init__(f"That seal is not of the state session {session} is in now; preview it again.")


class LiveMovedError(ConflictError):
    code = "live-moved"

    def __init__(self, target: str, expected: str | None, actual: str | None) -> None:
        self.target, self.expected, self.actual = target, expected, actual
        super().__init__(
            f"What is live at {target!r} is {actual or 'nothing'}, not {expected or 'nothing'} as previewed;"
            " preview again."
        )


# -- not you, or not now -----------------------------------------------------------------------------------------------


class RefusedError(HoldfastError):
    code = "refused"


class PermissionDeniedError(RefusedError):
    code = "permission-denied"

    def __init__(self, principal: str, verb: str, roles: Iterable[str] = ()) -> None:
        self.principal, self.verb, self.roles = principal, verb, tuple(sorted(roles))
        tail = f": it is for the role {' or '.join(self.roles)}" if self.roles else ""
        super().__init__(f"{principal} may not use `{verb}` here{tail}.")


class UnauthenticatedError(RefusedError):
    """Nobody knows who asks: no token, or none that is believed. Never says which part of a token is wrong."""

    code = "unauthenticated"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Who asks? {reason}")


class RateLimitedError(RefusedError):
    """Too much at a time from one principal; nothing was done."""

    code = "rate-limited"

    def __init__(self, what: str, retry_after: float) -> None:
        self.what, self.retry_after = what, retry_after
        super().__init__(f"Too many {what}; nothing was done. Try again in {retry_after:.1f} seconds.")


class NotDraftError(RefusedError):
    """The lifecycle table has no such step from this status."""

    code = "not-draft"

    def __init__(
        self, session: str, status: str, verb: str, owner: str | None = None, until: datetime | None = None
    ) -> None:
        self.session, self.status, self.verb, self.owner, self.until = session, status, verb, owner, until
        held = f" by {owner} until {until:%Y-%m-%d %H:%M:%S} UTC" if owner is not None and until is not None else ""
        super().__init__(f"Session {session} is {status}{held}: {verb} is not possible in that status.")


class LockHeldError(RefusedError):
    code = "lock-held"

    def __init__(self, owner: str, until: datetime) -> None:
        self.owner, self.until = owner, until
        super().__init__(f"{owner} holds the lock until {until:%Y-%m-%d %H:%M:%S} UTC; wait, or take it over.")


class LeaseLostError(RefusedError):
    code = "lease-lost"

    def __init__(self, fence: int, actual: int) -> None:
        self.fence, self.actual = fence, actual
        super().__init__(f"The lease with fence {fence} is lost: fence {actual} has been granted since.")


class NothingToUndoError(RefusedError):
    code = "nothing-to-undo"

    def __init__(self, verb: str) -> None:
        self.verb = verb
        super().__init__(f"There is nothing to {verb}.")


class PublicationPendingError(RefusedError):
    code = "publication-pending"

    def __init__(self, session: str) -> None:
        self.session = session
        super().__init__(f"A publication of session {session} is under way; publish again to finish it.")


# -- mend the input ----------------------------------------------------------------------------------------------------


class InvalidError(HoldfastError, ValueError):
    code = "invalid"


class InvalidChangeError(InvalidError):
    code = "invalid-change"

    def __init__(self, reason: str, key: str | None = None) -> None:
        self.reason, self.key = reason, key
        super().__init__(f"{key}: {reason}" if key else reason)


class InvalidItemError(InvalidError):
    code = "invalid-item"

    def __init__(self, key: str, reason: str) -> None:
        self.key, self.reason = key, reason
        super().__init__(f"{key}: {reason}")


_SETTINGS: Mapping[str, str] = {
    "bytes in a session": "limits.session_bytes",
    "items in a session": "limits.items",
    "item bytes": "limits.item_bytes",
    "JSON depth": "limits.depth",
    "operations in one change-set": "limits.operations",
    "operations in a patch": "limits.operations",
    "items in a patch": "limits.operations",
    "sessions of one owner": "limits.sessions",
    "labels in a session": "limits.labels",
    "grants on a session": "limits.grants",
    "bytes of a source": "limits.source_bytes",
}
"""What is counted, and the setting that bounds it."""


class LimitExceededError(InvalidError):
    """More than there may be. ``figure`` is where the counting stopped: there may be more."""

    code = "limit-exceeded"

    def __init__(self, limit: str, figure: int, maximum: int) -> None:
        self.limit, self.figure, self.maximum = limit, figure, maximum
        setting = _SETTINGS.get(limit)
        advice = f"Make it smaller, or raise the setting `{setting}`" if setting else "Make it smaller"
        super().__init__(f"{limit}: more than {maximum:,}, which is the limit. {advice}. Nothing was changed.")


class InvalidRequestError(InvalidError):
    """A request that cannot be read: its JSON, a parameter, a header or a patch."""

    code = "invalid-request"

    def __init__(self, reason: str, where: str | None = None) -> None:
        self.reason, self.where = reason, where
        super().__init__(f"{where}: {reason}" if where else reason)


class RequestTooLargeError(InvalidError):
    code = "request-too-large"

    def __init__(self, what: str, maximum: int) -> None:
        self.what, self.maximum = what, maximum
        super().__init__(f"The {what} is larger than {maximum:,} bytes. Nothing was changed.")


class MediaTypeError(InvalidError):
    code = "media-type"

    def __init__(self, given: str, allowed: Iterable[str]) -> None:
        self.given, self.allowed = given, tuple(allowed)
        super().__init__(f"{given or 'No media type'} is not taken here; send {' or '.join(self.allowed)}.")


class VersionRequiredError(InvalidError):
    code = "version-required"

    def __init__(self, verb: str) -> None:
        self.verb = verb
        super().__init__(
            f"Say which version you saw (If-Match over HTTP, expected= in Python, --expected on the command line):"
            f" `{verb}` is not last-write-wins."
        )


class ChangeIdReusedError(InvalidError):
    code = "change-id-reused"

    def __init__(self, change_id: str) -> None:
        self.change_id = change_id
        super().__init__(f"Change id {change_id!r} was used before for another request; use a new one.")


class UnknownKindError(InvalidError):
    code = "unknown-kind"

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        self.kind, self.known = kind, sorted(known)
        super().__init__(f"There is no kind {kind!r}; there are: {', '.join(self.known)}.")


class UnknownOperationError(InvalidError):
    code = "unknown-operation"

    def __init__(self, operation: str, known: Iterable[str]) -> None:
        self.operation, self.known = operation, sorted(known)
        super().__init__(f"There is no operation {operation!r}; there are: {', '.join(self.known) or 'none'}.")


class InvalidCursorError(InvalidError):
    code = "invalid-cursor"

    def __init__(self) -> None:
        super().__init__("That cursor is not one Holdfast gave out; start again without it.")


# -- wait; the outcome is open -----------------------------------------------------------------------------------------


class UnavailableError(HoldfastError):
    """Something that is needed did not answer."""

    code = "unavailable"


class StoreUnavailableError(UnavailableError):
    """Nobody knows whether the write landed: send it again with the same change id."""

    code = "store-unavailable"

    def __init__(self, store: str, reason: str) -> None:
        self.store, self.reason = store, reason
        super().__init__(
            f"The {store} store did not answer ({reason}); the outcome is unknown, ask again with the same change id."
        )


class StoreDownError(StoreUnavailableError):
    """A store has failed several times in a row and is given a rest: nothing was sent to it."""

    code = "store-down"

    def __init__(self, store: str, retry_after: float) -> None:
        super().__init__(store, "it is down")
        self.retry_after = retry_after
        self.args = (
            f"The {store} store is down and was not asked. Try again with the same change id in"
            f" {max(1, round(retry_after))} s.",
        )


class FlushQueueFullError(UnavailableError):
    """The warm tier is so far behind the hot one that nothing more is taken; nothing was changed."""

    code = "flush-queue-full"

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        super().__init__(
            f"The warm tier is too far behind: {waiting:,} writes wait to be flushed. Nothing was changed;"
            " try again soon."
        )


class TierBehindError(UnavailableError):
    """The hot tier holds, or has let go of, another state of the session than the warm one has; nothing was changed."""

    code = "tier-behind"

    def __init__(self, session: str, hot: int, warm: int) -> None:
        self.session, self.hot, self.warm = session, hot, warm
        super().__init__(
            f"The hot tier tells another state of session {session} (step {hot}) than the warm tier does (step {warm}),"
            " as when one of them came back as it was before: it takes no writes until"
            f" `holdfast verify --repair {session}` has run. Nothing was changed."
        )


class StoppingError(UnavailableError):
    """The service is shutting down, or at its bound of connections; nothing was done."""

    code = "stopping"

    def __init__(self, reason: str = "it is shutting down") -> None:
        self.reason = reason
        super().__init__(f"The service takes no more requests just now: {reason}. Nothing was done; try again.")


class UnreachableError(StoppingError):
    """Nothing answers at the service's address; nothing was done. Raised by the client."""

    code = "unreachable"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(reason)
        self.address = address
        self.args = (
            f"{address} cannot be reached ({reason}): is the service running, and is the address (HOLDFAST_URL) right?"
            " Nothing was done.",
        )


class RequestTimeoutError(UnavailableError):
    """The request did not arrive whole in time; nothing was done."""

    code = "request-timeout"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"The request did not arrive whole within {seconds:g} seconds. Nothing was done.")


class ServiceError(UnavailableError):
    """The service failed in a way it does not know, or did not answer: the outcome of a write is unknown."""

    code = "service"

    def __init__(self, reason: str, request: str | None = None) -> None:
        self.reason, self.request = reason, request
        super().__init__(f"{reason} The outcome is unknown; ask again with the same change id.")


class StoreFullError(UnavailableError):
    """The store had no room and changed nothing."""

    code = "store-full"

    def __init__(self, store: str) -> None:
        self.store = store
        super().__init__(f"The {store} store has no room left; nothing was changed. Free some space and retry.")


class SinkUnavailableError(UnavailableError):
    code = "sink-unavailable"

    def __init__(self, sink: str, reason: str) -> None:
        self.sink, self.reason = sink, reason
        super().__init__(f"The publishing target {sink} did not answer ({reason}); publish again to finish or undo.")


# -- stored bytes do not add up --------------------------------------------------------------------------------------


class IntegrityError(HoldfastError):
    code = "integrity"


class TamperedError(IntegrityError):
    """Stored bytes fail their authentication: altered, swapped, rolled back or torn."""

    code = "tampered"

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"The stored bytes of {what} are not what Holdfast wrote; run `holdfast verify`.")


class ArchiveMissingError(TamperedError):
    """Objects of a session's archive are not in the cold tier."""

    code = "archive-missing"

    def __init__(self, session: str) -> None:
        self.session = session
        super().__init__(f"the archive of session {session}")
        self.args = (
            f"The archive of session {session} is not in the cold tier, or not whole: is HOLDFAST_COLD the one that it"
            " was archived to? Nothing was changed; with the objects back it opens again.",
        )


class UnreadableError(IntegrityError):
    """The key that seals this is not to be had: destroyed, or not in the key ring."""

    code = "unreadable"

    def __init__(self, what: str, key_id: str) -> None:
        self.what, self.key_id = what, key_id
        super().__init__(f"{what} is sealed under key {key_id!r}, which is destroyed or not in the key ring.")


class VerificationFailedError(IntegrityError):
    """A staged publication is not what was to be published; readers saw nothing of it."""

    code = "verification-failed"

    def __init__(self, revision: str, reason: str) -> None:
        self.revision, self.reason = revision, reason
        super().__init__(f"Nothing changed for readers. Revision {revision} failed its check: {reason}.")


# -- mend the settings -------------------------------------------------------------------------------------------------


class ConfigurationError(HoldfastError):
    """Raised before anything is opened."""

    code = "configuration"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class WeakKeyError(ConfigurationError):
    code = "weak-key"


class MissingExtraError(ConfigurationError):
    code = "missing-extra"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"This needs {package}: pip install 'holdfast[{extra}]'.")
        self.package, self.extra = package, extra
