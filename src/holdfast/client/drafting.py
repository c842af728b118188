"""An edit through a service: the block works on the session as this client has read it, and leaving it sends the steps.

The service makes the same steps on the same version, checks them, and commits; see ``Engine.edit``.
"""

from __future__ import annotations

import secrets
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

import msgspec

from holdfast.client.transport import Ask, Transport
from holdfast.engine.draft import DraftView
from holdfast.engine.editing import Committed
from holdfast.errors import InvalidChangeError, VersionConflictError, VersionNotFoundError, VersionRequiredError
from holdfast.model.change import net
from holdfast.model.cursor import Seen
from holdfast.model.item import Item
from holdfast.model.limits import Limits
from holdfast.model.session import Header, Session
from holdfast.wire import forms
from holdfast.wire.changes import Step

UNBOUND = Limits(item_bytes=sys.maxsize, depth=900, operations=sys.maxsize)
"""How much is too much is for the service to say; the depth is what JSON can be encoded to here."""

_DIGEST_BYTES = 8
_KEPT, _KEPT_BYTES, _ITEM_BYTES = 64, 32_000_000, 500
_encode = msgspec.json.Encoder().encode

Load = Callable[[int], Awaitable[Session]]


def seen(state: Session | Header | Committed) -> Seen:
    """The state that was read, or that a write led to, as what ``expected`` takes: unlike a bare version, it is of one
    history, and refused by one that was put back from an older copy.
    """
    said = state.header if isinstance(state, Session) else state
    return Seen(said.version, said.step, said.digest[:_DIGEST_BYTES])


def tag(expected: int | Seen) -> str:
    """What a service calls a state, for ``If-Match`` and ``If-None-Match``."""
    if isinstance(expected, Seen):
        return f'"{expected.version}.{expected.step}-{expected.digest[:_DIGEST_BYTES].hex()}"'
    return f'"{expected}"'


class Kept:
    """Sessions as they were last read whole, few and within a bound on bytes, the longest unused let go first.

    An edit works on what its author has read; so that is not sent twice.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, tuple[Session, int]] = OrderedDict()
        self._bytes = 0

    def keep(self, session: Session) -> Session:
        """Keep a session that stands at the version its items are of; gives it back. One that is stale is not kept:
        there may be a newer state, and the service is to be asked again.
        """
        header = session.header
        if header.stale:
            return session
        size = header.size + _ITEM_BYTES * header.count
        self._drop(header.id)
        if size <= _KEPT_BYTES:
            self._sessions[header.id] = (session, size)
            self._bytes += size
        while self._bytes > _KEPT_BYTES or len(self._sessions) > _KEPT:
            self._drop(next(iter(self._sessions)))
        return session

    def get(self, session: str, version: int | None = None) -> Session | None:
        """A session, if it is kept, at that version."""
        kept = self._sessions.get(session)
        if kept is None or version not in (None, kept[0].header.version):
            return None
        self._sessions.move_to_end(session)
        return kept[0]

    def _drop(self, session: str) -> None:
        _, size = self._sessions.pop(session, (None, 0))
        self._bytes -= size


class RecordingDraft(DraftView):
    """A draft that remembers the steps made on it, in order, as they were made."""

    __slots__ = ("steps",)

    def __init__(self, base: Mapping[str, Item], change: str) -> None:
        super().__init__(base, UNBOUND, change)
        self.steps: list[Step] = []

    def put(self, key: str, body: Any, *, after: str | None = None, before: str | None = None) -> None:
        super().put(key, body, after=after, before=before)
        wanted = self.wanted[key]
        if wanted is not None:  # as it was encoded: the author may go on changing the body
            self.steps.append(Step(put=key, body=msgspec.Raw(wanted[1]), after=after, before=before))

    def delete(self, key: str) -> None:
        super().delete(key)
        self.steps.append(Step(delete=key))

    def move(self, key: str, *, after: str | None = None, before: str | None = None) -> None:
        super().move(key, after=after, before=before)
        self.steps.append(Step(move=key, after=after, before=before))


class RemoteEdit:
    """``async with`` this: the block changes a draft, and leaving it sends the steps once. An exception sends nothing.

    Args:
        path: of the session.
        change_id: the one its author gave, if any.
        load: reads the session as of a version.
    """

    def __init__(
        self,
        transport: Transport,
        session: str,
        path: str,
        load: Load,
        expected: int | Seen | None,
        change_id: str | None,
        query: Mapping[str, str | int | bool | None],
    ) -> None:
        self._transport, self._session, self._path, self._load = transport, session, path, load
        self._expected, self._query = expected, query
        self._is_named, self._change = change_id is not None, change_id_of(change_id)

    async def __aenter__(self) -> RecordingDraft:
        if self._expected is None:
            raise VersionRequiredError("edit")
        self._state: int | Seen = self._expected
        version = self._expected if isinstance(self._expected, int) else self._expected.version
        try:
            session = await self._load(version)
        except VersionNotFoundError as error:
            raise VersionConflictError(self._session, version, error.head) from None
        if isinstance(self._expected, int) and session.header.version == version:
            self._state = seen(session)  # what the block decides by is of this history and no other
        self._draft = RecordingDraft(session.by_key, self._change)
        return self._draft

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        draft = self._draft
        # Without a name and without an effect it is not to be remembered; so nothing is lost by sending it again.
        is_remembered = self._is_named or net(draft.base, draft.wanted)
        said = {"changes": draft.steps, "reads": sorted(draft.reads), "collections": sorted(draft.collections)}
        ask = Ask(
            method="PATCH",
            path=self._path,
            query=self._query,
            headers={"if-match": tag(self._state)},
            body=_encode(said),
            change_id=self._change if is_remembered else None,
        )
        draft.committed = forms.decode((await self._transport.answer(ask)).body, Committed)


def change_id_of(given: str | None) -> str:
    """The change id of one call: the one given, or a new one.

    Raises:
        InvalidChangeError: it cannot stand in a header.
    """
    if given is None:
        return secrets.token_urlsafe(16)
    if not (given and given.isascii() and given.isprintable()):
        raise InvalidChangeError("through a service, a change id is of printable ASCII characters")
    return given
