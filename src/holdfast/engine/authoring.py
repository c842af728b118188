"""Everything an author does to items: an edit, an operation of the kind, an undo, a redo, a restore."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.engine.draft import DraftView
from holdfast.engine.editing import Committed, Decide, Decision, Editing, Request, conflicts
from holdfast.engine.gate import Asked, Gate
from holdfast.engine.history import History
from holdfast.engine.lifecycle import Lifecycle
from holdfast.engine.opened import Opened
from holdfast.engine.sealing import fingerprint
from holdfast.errors import InvalidChangeError, VersionConflictError, VersionRequiredError
from holdfast.model.access import Principal
from holdfast.model.cursor import Seen
from holdfast.model.item import Item, encode_body
from holdfast.model.limits import Limits
from holdfast.model.session import LIFECYCLE, Header
from holdfast.model.text import check_text
from holdfast.ports.clock import Chance
from holdfast.ports.kind import Kind

_MOST_NAME = 200
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_OTHER_VERBS = LIFECYCLE.keys() - {"edit"} | {"create", "undo", "redo", "restore"}
_OTHER_EVENTS = {"end", "reload", "open", "message", "error"}  # of the feed as a stream, where events are named alike


class Ask(msgspec.Struct, frozen=True):
    """What every writing verb takes beside its own arguments; see ``Engine.edit``."""

    session: str
    who: Principal
    verb: str
    expected: int | Seen | None
    rebase: bool = False
    change_id: str | None = None
    group: str | None = None
    fence: int | None = None

    @property
    def version(self) -> int | None:
        """The version its author saw."""
        return self.expected.version if isinstance(self.expected, Seen) else self.expected

    def is_beyond(self, opened: Opened) -> bool:
        """Whether its author has seen more of the session than this."""
        return isinstance(self.expected, Seen) and self.expected.step > opened.header.step


class Authoring:
    """Puts an author's request through the gate, onto a state, and into a commit."""

    def __init__(
        self,
        gate: Gate,
        editing: Editing,
        history: History,
        lifecycle: Lifecycle,
        kinds: Mapping[str, Kind],
        limits: Limits,
        chance: Chance,
    ) -> None:
        self._gate, self._editing, self._history, self._lifecycle = gate, editing, history, lifecycle
        self._kinds, self._limits, self._chance = kinds, limits, chance

    async def operate(self, ask: Ask, arguments: Mapping[str, Any]) -> Committed:
        """An operation that the session's kind declares."""
        with self._gate.asked(ask.who, ask.verb, ask.session):
            opened = await self._gate.enter(ask.session, ask.who, "edit", stale=False)
            declared = self._kinds[opened.header.kind].operation(ask.verb)
            limits = self._limits
            encode_body(ask.verb, dict(arguments), depth=limits.depth, size=limits.session_bytes)
            try:
                typed = msgspec.convert(dict(arguments), declared.arguments, strict=True)
            except msgspec.ValidationError as error:
                raise InvalidChangeError(f"{ask.verb}: {error}") from None
        asked = fingerprint(ask.verb, typed) if ask.change_id else b""
        if ask.expected is None and declared.commutative:
            return await self._apply(ask, lambda draft: declared.run(draft, typed), asked)
        async with Edit(self, ask, asked) as draft:
            with self._gate.asked(ask.who, ask.verb, ask.session):
                declared.run(draft, typed)
        return draft.result

    async def turn_back(self, ask: Ask, decide: Decide, asked: object = None) -> Committed:
        """Commit what history decides; ``asked`` is what it was asked beside the verb. Always strict."""
        with self._gate.asked(ask.who, ask.verb, ask.session) as noted:
            if ask.expected is None:
                raise VersionRequiredError(ask.verb)
            request = self.request(ask)
            if ask.change_id:
                request = replace(request, fingerprint=fingerprint(ask.verb, asked))
            opened = await self._gate.settled(ask.session, ask.who, ask.verb, load=True)
            await self._lifecycle.check_history(opened, ask.expected)

            async def strict(now: Opened) -> Decision:
                if now.header.version != ask.version:
                    raise VersionConflictError(ask.session, ask.version or 0, now.header.version)
                return await decide(now)

            return await self._commit(ask, opened, request, strict, noted)

    async def begin(self, ask: Ask) -> tuple[Opened, Request, DraftView]:
        """The draft an author works on: the state of the version the author saw."""
        with self._gate.asked(ask.who, ask.verb, ask.session):
            if ask.expected is None:
                raise VersionRequiredError(ask.verb)
            request = self.request(ask)
            opened, version = self._gate.recalled(ask.session, ask.who, "edit"), request.expected or 0
            if opened is None or version != opened.header.version or ask.is_beyond(opened):
                opened = await self._gate.settled(ask.session, ask.who, "edit", load=True)
            await self._lifecycle.check_history(opened, ask.expected)
            base: Mapping[str, Item] = opened.items
            if version != opened.header.version:
                if not 0 <= version <= opened.header.version:
                    raise VersionConflictError(ask.session, version, opened.header.version)
                base = await self._history.as_of(opened, version)
            return opened, request, DraftView(base, self._limits, request.change)

    async def land(self, ask: Ask, request: Request, opened: Opened, draft: DraftView) -> Committed:
        """Commit a draft: on the version its author saw, or on a newer one if nothing clashes and rebasing was
        asked.
        """

        async def decide(now: Opened) -> Decision:
            version, expected = now.header.version, request.expected or 0
            if expected == version:
                return Decision(draft.wanted)
            if expected > version:  # the history its author saw is not there any more
                raise VersionConflictError(ask.session, expected, version)
            theirs = await self._history.touched_since(now, expected)
            mine = draft.reads | draft.wanted.keys()
            clashing = {key for key in theirs if key in mine or key.partition("/")[0] in draft.collections}
            if ask.rebase and not clashing:
                return Decision(draft.wanted)
            keys = clashing if ask.rebase else clashing | draft.wanted.keys()
            found = conflicts(draft.base, now.items, draft.wanted, keys)
            raise VersionConflictError(ask.session, expected, version, found)

        with self._gate.asked(ask.who, ask.verb, ask.session) as noted:
            return await self._commit(ask, opened, request, decide, noted)

    def request(self, ask: Ask) -> Request:
        """What is asked, under a change id of ours where the author named none."""
        if ask.change_id is not None:
            check_text("a change id", ask.change_id, most=_MOST_NAME)
        if ask.group is not None:
            check_text("a group", ask.group, most=_MOST_NAME)
        change = ask.change_id or urlsafe_b64encode(self._chance.bytes(16))[:22].decode()
        return Request(ask.verb, ask.who.id, change, b"", ask.version, ask.group, ask.fence)

    async def _apply(self, ask: Ask, run: Callable[[DraftView], None], asked: bytes) -> Committed:
        """Commit what may be sent without a version: run on whichever state it lands on, and again if that moves."""
        with self._gate.asked(ask.who, ask.verb, ask.session) as noted:
            request = replace(self.request(ask), fingerprint=asked)
            opened = await self._gate.settled(ask.session, ask.who, "edit", load=True)

            async def decide(now: Opened) -> Decision:
                draft = DraftView(now.items, self._limits, request.change)
                run(draft)
                return Decision(draft.wanted)

            return await self._commit(ask, opened, request, decide, noted)

    async def _commit(self, ask: Ask, opened: Opened, request: Request, decide: Decide, noted: Asked) -> Committed:
        def check(header: Header) -> None:  # asked again for each state the commit is tried on
            self._gate.allow(ask.who, "edit", header)
            self._lifecycle.check(header, "edit")

        committed = await self._editing.commit(opened, request, decide, check)
        if committed.replayed or not committed.changes:
            noted.done(committed.version)  # nothing was written, so no log tells of it
        return committed


class Edit:
    """``async with`` this: the block changes a draft, and leaving it commits once.

    An exception rolls everything back.
    """

    __slots__ = ("_ask", "_asked", "_authoring", "_draft", "_opened", "_request")

    def __init__(self, authoring: Authoring, ask: Ask, asked: bytes | None = None) -> None:
        self._authoring, self._ask = authoring, ask
        self._asked = asked  # what tells a resend; None: the changes themselves

    async def __aenter__(self) -> DraftView:
        begun = await self._authoring.begin(self._ask)
        self._opened, self._request, self._draft = begun
        return self._draft

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        request, draft = self._request, self._draft
        if self._ask.change_id:
            asked = _fingerprint(self._ask.verb, draft) if self._asked is None else self._asked
            request = replace(request, fingerprint=asked)
        draft.committed = await self._authoring.land(self._ask, request, self._opened, draft)


def check_operation(name: str) -> None:
    """Raise unless an author may have the log tell of an edit by this name: one that nothing else in the feed has."""
    if name != "edit" and (_NAME.fullmatch(name) is None or name in _OTHER_VERBS | _OTHER_EVENTS):
        raise InvalidChangeError("an operation is named by a lower-case word that nothing else in the feed has")


def _fingerprint(verb: str, draft: DraftView) -> bytes:
    """What a draft asks for, whatever state it lands on."""
    asked = [
        (key, None if target is None else (target[0], msgspec.Raw(target[1]))) for key, target in draft.wanted.items()
    ]
    return fingerprint(verb, asked)
