"""New sessions: empty, from a source document, or from a published revision."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b32encode
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.engine.blobs import Blobs
from holdfast.engine.editing import Editing
from holdfast.engine.journal import Journal, Step
from holdfast.engine.lifecycle import check_title
from holdfast.engine.opened import Opened
from holdfast.engine.sealing import KeyRing, fingerprint, framed
from holdfast.errors import AlreadyExistsError, ChangeIdReusedError, InvalidChangeError, UnknownKindError
from holdfast.model import order
from holdfast.model.access import Principal
from holdfast.model.change import net
from holdfast.model.item import check_key, encode_body
from holdfast.model.limits import Limits, check_limit
from holdfast.model.retention import Retention, within
from holdfast.model.session import Header, Status
from holdfast.model.text import check_text
from holdfast.ports.clock import Chance, Clock
from holdfast.ports.kind import Kind

_MOST_TARGET = 500


class Start(msgspec.Struct, frozen=True):
    """What a session begins with.

    Attributes:
        items: keys and bodies, in order.
        target: what it will be published as, within the tenant; None for a name of its own.
        parent: the session whose publication it goes on from; origin: the one whose target that was.
        blob: the source document, kept in the cold tier.
    """

    kind: str
    title: str
    items: Iterable[tuple[str, Any]]
    retention: Retention
    target: str | None = None
    parent: str | None = None
    origin: str | None = None
    source: Mapping[str, Any] = {}
    blob: bytes | None = None


class Creating:
    """Makes sessions."""

    def __init__(
        self,
        journal: Journal,
        editing: Editing,
        blobs: Blobs,
        ring: KeyRing,
        kinds: Mapping[str, Kind],
        limits: Limits,
        clock: Clock,
        chance: Chance,
        *,
        longest: float | None,
    ) -> None:
        self._journal, self._editing, self._blobs, self._ring = journal, editing, blobs, ring
        self._kinds, self._limits, self._clock, self._chance = kinds, limits, clock, chance
        self._longest = longest

    async def create(self, who: Principal, start: Start, change_id: str | None) -> Opened:
        """Make a session at version 1; the same change id again gives the session it made.

        Raises:
            LimitExceededError, InvalidItemError, UnknownKindError: what it begins with is refused; nothing is made.
            ChangeIdReusedError: the change id made another session.
        """
        if start.kind not in self._kinds:
            raise UnknownKindError(start.kind, self._kinds)
        check_title(start.title)
        wanted = self._wanted(start.items)
        retention = within(start.retention, self._longest)
        if start.target is not None:
            check_text("a target", start.target, most=_MOST_TARGET)
        bodies = [(key, msgspec.Raw(raw)) for key, (_, raw) in wanted.items()]
        asked = [start.kind, start.title, bodies, start.target, retention, start.parent, start.source]
        request = fingerprint("create", asked) if change_id is not None else b""
        if change_id is not None:
            made = await self._made_before(who, change_id, request)
            if made is not None:
                return made
            session = self._id(who, change_id, self._ring.active)
        else:
            session = self._chance.token()
        now = self._clock.now()
        expires = retention.until(now, now)
        header = Header(
            id=session,
            tenant=who.tenant,
            kind=start.kind,
            schema=self._kinds[start.kind].schema,
            owner=who.id,
            status=Status.DRAFT,
            created=now,
            updated=now,
            title=start.title,
            retention=retention,
            expires=expires,
            expiring_since=None if expires is None else now,
            target=f"{who.tenant}/{start.target or session}",
            parent=start.parent,
            origin=start.origin,
            source=dict(start.source),
        )
        opened = self._journal.begin(header)
        if start.blob is not None:
            check_limit("bytes of a source", len(start.blob), self._limits.source_bytes)
            name = await self._blobs.put(opened, start.blob)
            header = replace(header, blobs=(name,), source={**header.source, "blob": name})
        changes = net({}, wanted)
        check_limit("items in a session", len(changes), self._limits.items)
        items = self._editing.applied({}, changes, version=1, step=1)
        header = self._editing.sized(header, items, sum(len(item.raw) for item in items.values()))
        self._editing.check_items(self._kinds[start.kind], items, frozenset(items))
        step = Step(
            header,
            "create",
            who.id,
            change_id or self._chance.token(),
            opened.cipher.request_id(request, who.id) if request else b"",
            items=items,
            changes=changes,
        )
        created = await self._journal.append(opened, step, quota=self._limits.sessions)
        if created is None:  # the same creation, sent twice at once
            made = await self._made_before(who, change_id or "", request)
            if made is None:
                raise AlreadyExistsError(f"session {session}")
            return made
        return created

    def _wanted(self, items: Iterable[tuple[str, Any]]) -> dict[str, tuple[str, bytes]]:
        wanted: dict[str, tuple[str, bytes]] = {}
        position = None
        for key, body in items:
            check_key(key)
            if key in wanted:
                raise InvalidChangeError("the key is given twice", key)
            check_limit("items in a session", len(wanted) + 1, self._limits.items)
            position = order.between(position, None)
            raw = encode_body(key, body, depth=self._limits.depth, size=self._limits.item_bytes)
            wanted[key] = (position, raw)
        return wanted

    async def _made_before(self, who: Principal, change_id: str, request: bytes) -> Opened | None:
        """The session a change id has made, under whichever of the keys was the active one then."""
        for key_id in self._ring.ids:
            session = self._id(who, change_id, key_id)
            if not await self._journal.is_known(session):
                continue
            opened = await self._journal.load(session)
            first = (await self._journal.log.at(opened, [1]))[1]
            if first.header.fingerprint != opened.cipher.request_id(request, who.id):
                raise ChangeIdReusedError(change_id)
            await self._journal.confirm(session, 1, first.digest)
            return opened
        return None

    def _id(self, who: Principal, change_id: str, key_id: str) -> str:
        """The id of the session that a change id makes: 160 bits of a keyed hash, so that nobody can guess or
        choose it.
        """
        secret = self._ring.secret(b"session ids", key_id)
        asked = framed(who.tenant.encode(), who.id.encode(), change_id.encode())
        return b32encode(hmac.digest(secret, asked, hashlib.sha256)[:20]).decode().lower()
