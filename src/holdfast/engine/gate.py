"""The way into a session: who asks, whether they may, and the line it leaves in the audit."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType

from holdfast.engine.audit import Audit
from holdfast.engine.journal import Journal
from holdfast.engine.lifecycle import Lifecycle
from holdfast.engine.opened import Opened
from holdfast.engine.rehydrating import UNKNOWN
from holdfast.errors import (
    HoldfastError,
    IntegrityError,
    PermissionDeniedError,
    SessionGoneError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from holdfast.model.access import SERVICE_VERBS, VERBS, Principal, may, may_know
from holdfast.model.session import GONE, Header, SealedHead, Status
from holdfast.ports.clock import Clock

STALE: ContextVar[bool] = ContextVar("holdfast_stale", default=False)
"""Set once a verb of this task has been let in to a stale session, for whoever tells of it beside an answer that has no
header of it, such as a page of its history. It is never set back here.
"""


class Gate:
    """Asks about a principal before any item is touched; somebody else's session and a missing one look the same."""

    def __init__(self, journal: Journal, lifecycle: Lifecycle, audit: Audit, clock: Clock) -> None:
        self._journal, self._lifecycle, self._audit, self._clock = journal, lifecycle, audit, clock

    def asked(self, who: Principal, verb: str, session: str = "") -> Asked:
        """Around a verb, so that a refusal is audited."""
        return Asked(self._audit, who, verb, session)

    async def enter(
        self,
        session: str,
        who: Principal,
        verb: str,
        *,
        load: bool = False,
        gone: bool = False,
        stale: bool = True,
    ) -> Opened:
        """Open a session for a verb.

        Args:
            load: with its items.
            gone: also a session that is discarded or expired.
            stale: whether what the warm tier has will do, where the hot one does not answer; see ``Journal.open``.
        Raises:
            SessionNotFoundError: there is none that this principal may know of.
            PermissionDeniedError: the principal may know of it, and may not do this.
            SessionGoneError: it is discarded, expired or purged.
        """
        try:
            opened = await self._journal.open(session, stale=stale)
        except (SessionGoneError, IntegrityError):
            await self.check_tombstone(session, who)
            raise
        header = opened.header
        if header.stale:
            STALE.set(True)
        self.allow(who, verb, header)
        if not gone:
            status = header.status_at(self._clock.now())
            if status in GONE:
                raise SessionGoneError(session, status.value, header.restorable_until)
        if load and not opened.loaded:
            opened = await self._journal.load(session, stale=stale)
            if opened.header.stale:
                STALE.set(True)
        return opened

    def recalled(self, session: str, who: Principal, verb: str) -> Opened | None:
        """A draft with its items as seen here a moment ago, if that admits the principal (see ``Journal.recalled``).

        It refuses nobody: whoever it does not admit is answered by how the session stands now.
        """
        now = self._clock.now()
        opened = self._journal.recalled(session, now)
        if opened is None or not may(who, verb, opened.header):
            return None
        header = opened.header
        draft = header.status is Status.DRAFT and header.status_at(now) is Status.DRAFT
        return opened if draft else None

    async def settled(
        self, session: str, who: Principal, verb: str, *, load: bool = False, gone: bool = False
    ) -> Opened:
        """Enter for a change: a lock that has lapsed is taken down first."""
        entered = await self.enter(session, who, verb, load=load, gone=gone, stale=False)
        opened = await self._lifecycle.settle(entered)
        return await self._journal.load(session) if entered.loaded and not opened.loaded else opened

    def allow(self, who: Principal, verb: str, header: Header) -> None:
        """Raise unless a principal may use a verb on a session."""
        if may(who, verb, header):
            return
        if may_know(who, header):
            raise PermissionDeniedError(who.id, verb, VERBS.get(verb, ()))
        if header.stale:  # as whoever asks for one that is not in the warm tier is told while the hot one is gone
            raise StoreUnavailableError("hot", UNKNOWN)
        raise hidden(header.id)

    async def check_tombstone(self, session: str, who: Principal) -> None:
        """Who may not know of a purged session is told what a stranger is told of any."""
        head = await self._journal.head(session)
        if head is None or who.tenant != head.tenant or (who.id != head.owner and not who.roles & {"admin", "auditor"}):
            raise hidden(session)

    def serve(self, who: Principal, verb: str) -> None:
        """Raise unless a principal may use a verb on the whole service."""
        if not who.roles & SERVICE_VERBS[verb]:
            raise PermissionDeniedError(who.id, verb, SERVICE_VERBS[verb])

    def seen(self, who: Principal, head: SealedHead) -> Header | None:
        """A listed session's header, None if it is not for this principal or cannot be read."""
        try:
            header = self._journal.unseal(head).header
        except HoldfastError:
            return None
        return header if may_know(who, header) else None


class Asked:
    """Around a verb: a refusal leaves its line in the audit; so does, once ``done``, what no session's log tells."""

    __slots__ = ("_audit", "_done", "_session", "_verb", "_version", "_who")

    def __init__(self, audit: Audit, who: Principal, verb: str, session: str) -> None:
        self._audit, self._who, self._verb, self._session = audit, who, verb, session
        self._version, self._done = 0, False

    def __enter__(self) -> Asked:
        return self

    def done(self, version: int = 0) -> None:
        """The verb has worked and leaves no entry in a log: note it here."""
        self._version, self._done = version, True

    def begun(self, version: int) -> None:
        """The verb has begun to work and may go on for hours, or be left by whoever asked: it is noted now, once."""
        if not self._version:
            self._version = version
            self._audit.note(self._who, self._verb, self._session, version)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if self._done:
                self._audit.note(self._who, self._verb, self._session, self._version)
        elif isinstance(error, HoldfastError):
            code = PermissionDeniedError.code if isinstance(error, _HiddenError) else error.code
            self._audit.note(self._who, self._verb, self._session, self._version, code)
            if isinstance(error, _HiddenError):
                raise SessionNotFoundError(error.session) from None


class _HiddenError(SessionNotFoundError):
    """A session that is there and not for this principal: the audit is told so, the principal is not."""


def hidden(session: str) -> SessionNotFoundError:
    """What a stranger is told of a session that is there."""
    return _HiddenError(session)
