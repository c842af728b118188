"""Everything an author does to items: an edit, an operation of the kind, an undo, a redo, a restore."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.engine.draft import DraftView, Edit
from holdfast.engine.editing import Committed, Decide, Decision, Editing, Request, conflicts
from holdfast.engine.gate import Gate
from holdfast.engine.history import History
from holdfast.engine.journal import Opened
from holdfast.engine.lifecycle import Lifecycle
from holdfast.engine.sealing import fingerprint
from holdfast.errors import InvalidChangeError, VersionConflictError, VersionRequiredError
from holdfast.model.access import Principal
from holdfast.model.item import encode_body
from holdfast.model.limits import Limits
from holdfast.model.session import LIFECYCLE, Header
from holdfast.model.text import check_text
from holdfast.ports.clock import Chance
from holdfast.ports.kind import Kind

_MOST_NAME = 200
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_OTHER_VERBS = LIFECYCLE.keys() - {"edit"} | {"create", "undo", "redo", "restore"}


class Ask(msgspec.Struct, frozen=True):
    """What every writing verb takes beside its own arguments; see ``Engine.edit``."""

    session: str
    who: Principal
    verb: str
    expected: int | None
    rebase: bool = False
    change_id: str | None = None
    group: str | None = None
    fence: int | None = None


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

    def edit(self, ask: Ask) -> Edit:
        """An edit of the author's own; the log tells it by a name that no other verb has."""
        with self._gate.asked(ask.who, ask.verb, ask.session):
            if _NAME.fullmatch(ask.verb) is None or ask.verb in _OTHER_VERBS:
                raise InvalidChangeError("an operation is named by a lower-case word that is no other verb's name")
            request = self._request(ask)

        def finish(opened: Opened, draft: DraftView) -> Awaitable[Committed]:
            named = replace(request, fingerprint=_fingerprint(ask.verb, draft)) if ask.change_id else request
            return self._land(ask, named, opened, draft)

        return self._edit(ask, request, finish, versioned=True)

    async def operate(self, ask: Ask, arguments: Mapping[str, Any]) -> Committed:
        """An operation that the session's kind declares."""
        with self._gate.asked(ask.who, ask.verb, ask.session):
            opened = await self._gate.enter(ask.session, ask.who, "edit")
            declared = self._kinds[opened.header.kind].operation(ask.verb)
            limits = self._limits
            encode_body(ask.verb, dict(arguments), depth=limits.depth, size=limits.session_bytes)
            try:
                typed = msgspec.convert(dict(arguments), declared.arguments, strict=True)
            except msgspec.ValidationError as error:
                raise InvalidChangeError(f"{ask.verb}: {error}") from None
            request = self._request(ask)
        if ask.change_id:
            request = replace(request, fingerprint=fingerprint(ask.verb, typed))
        edit = self._edit(
            ask,
            request,
            lambda opened, draft: self._land(ask, request, opened, draft),
            versioned=not declared.commutative,
        )
        async with edit as draft:
            with self._gate.asked(ask.who, ask.verb, ask.session):
                declared.run(draft, typed)
        return draft.result

    async def turn_back(self, ask: Ask, decide: Decide, asked: object = None) -> Committed:
        """Commit what history decides; ``asked`` is what it was asked beside the verb. Always strict."""
        with self._gate.asked(ask.who, ask.verb, ask.session) as noted:
            if ask.expected is None:
                raise VersionRequiredError(ask.verb)
            request = self._request(ask)
            if ask.change_id:
                request = replace(request, fingerprint=fingerprint(ask.verb, asked))
            opened = await self._gate.settled(ask.session, ask.who, ask.verb, load=True)

            async def strict(now: Opened) -> Decision:
                if now.header.version != ask.expected:
                    raise VersionConflictError(ask.session, ask.expected or 0, now.header.version)
                return await decide(now)

            committed = await self._editing.commit(opened, request, strict, lambda header: self._check(ask, header))
            if committed.replayed or not committed.changes:
                noted.done(committed.version)
            return committed

    def _edit(
        self,
        ask: Ask,
        request: Request,
        finish: Callable[[Opened, DraftView], Awaitable[Committed]],
        *,
        versioned: bool,
    ) -> Edit:
        async def begin() -> tuple[Opened, DraftView]:
            with self._gate.asked(ask.who, ask.verb, ask.session):
                if ask.expected is None and versioned:
                    raise VersionRequiredError(ask.verb)
                opened = await self._gate.settled(ask.session, ask.who, "edit", recall=True)
                base: Mapping[str, Any] = opened.items
                if ask.expected is not None and ask.expected != opened.header.version:
                    opened = await self._gate.settled(ask.session, ask.who, "edit", load=True)
                    if not 0 <= ask.expected <= opened.header.version:
                        raise VersionConflictError(ask.session, ask.expected, opened.header.version)
                    base = await self._history.as_of(opened, ask.expected)
                return opened, DraftView(base, self._limits, request.change)

        return Edit(begin, finish)

    async def _land(self, ask: Ask, request: Request, opened: Opened, draft: DraftView) -> Committed:
        """Commit a draft: on the version its author saw, or on a newer one if nothing clashes and rebasing was
        asked.
        """

        async def decide(now: Opened) -> Decision:
            version = now.header.version
            if ask.expected is None or ask.expected == version:
                return Decision(draft.wanted)
            theirs = await self._history.touched_since(now, ask.expected)
            mine = draft.reads | draft.wanted.keys()
            clashing = {key for key in theirs if key in mine or key.partition("/")[0] in draft.collections}
            if ask.rebase and not clashing:
                return Decision(draft.wanted)
            keys = clashing if ask.rebase else clashing | draft.wanted.keys()
            found = conflicts(draft.base, now.items, draft.wanted, keys)
            raise VersionConflictError(ask.session, ask.expected, version, found)

        with self._gate.asked(ask.who, ask.verb, ask.session) as asked:
            committed = await self._editing.commit(opened, request, decide, lambda header: self._check(ask, header))
            if committed.replayed or not committed.changes:
                asked.done(committed.version)  # nothing was written, so no log tells of it
            return committed

    def _request(self, ask: Ask) -> Request:
        for what, name in (("a change id", ask.change_id), ("a group", ask.group)):
            if name is not None:
                check_text(what, name, most=_MOST_NAME)
        change = ask.change_id or urlsafe_b64encode(self._chance.bytes(16))[:22].decode()
        return Request(ask.verb, ask.who.id, change, b"", ask.expected, ask.group, ask.fence)

    def _check(self, ask: Ask, header: Header) -> None:
        """Raise unless the author may write the session as it stands: asked again for each state a commit is tried
        on.
        """
        self._gate.allow(ask.who, "edit", header)
        self._lifecycle.check(header, "edit")


def _fingerprint(verb: str, draft: DraftView) -> bytes:
    """What a draft asks for, whatever state it lands on."""
    asked = [
        (key, None if target is None else (target[0], msgspec.Raw(target[1]))) for key, target in draft.wanted.items()
    ]
    return fingerprint(verb, asked)
