"""The client: each verb of the engine, asked of a service. Who asks is in the token."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from holdfast.client.drafting import UNBOUND, Kept, RemoteEdit, change_id_of, seen, tag
from holdfast.client.following import follow
from holdfast.client.transport import Answer, Ask, Transport
from holdfast.client.uploading import Upload
from holdfast.engine.catalogue import Page
from holdfast.engine.editing import Committed
from holdfast.engine.feed import FeedPage
from holdfast.engine.labels import Label
from holdfast.engine.publishing import Preview, Progress
from holdfast.engine.retention import Swept
from holdfast.engine.rotation import KeyIds, Rotated
from holdfast.engine.tiering import Flushed, Tiers
from holdfast.engine.verification import Verified
from holdfast.errors import (
    InvalidChangeError,
    RouteNotFoundError,
    ServiceError,
    SessionNotFoundError,
    UnknownOperationError,
)
from holdfast.model.access import Principal, Role
from holdfast.model.audit import AuditLine
from holdfast.model.cursor import Seen
from holdfast.model.difference import Difference
from holdfast.model.entry import Entry
from holdfast.model.item import encode_body
from holdfast.model.lease import Lease
from holdfast.model.retention import Retention
from holdfast.model.revocation import Revocation
from holdfast.model.session import Header, Session, Tier
from holdfast.model.text import check_text
from holdfast.ports.sink import Hit, Receipt
from holdfast.wire import forms

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]

_SESSION = re.compile(r"[A-Za-z0-9_-]{1,200}")
_MOST_PER_PAGE, _MOST_NAME = 1_000, 1_000
_MOST_LINE = 64_000_000
_encode = msgspec.json.Encoder().encode


class Client:
    """The engine's verbs over HTTP: ``async with Client(address, token=...) as client``.

    The methods are the engine's without ``who``: same names, arguments, results and errors. One client serves one event
    loop, any number of tasks and sessions.

    A request that failed without an effect (nothing could be reached, the service was stopping, too much was asked at a
    time) is sent again, after a pause that doubles and that the service may lengthen. One that may have had its effect
    is sent again only where that is safe: what reads; what writes under a change id, which is made once a call and is
    the same on every try; and the verbs that say so below. When the tries are used up, a ``StoreUnavailableError`` or
    ``ServiceError`` says that the outcome is unknown, and its facts have the ``change_id`` to ask again with.

    Args:
        address: of the service; ``HOLDFAST_URL`` by default.
        token: who asks; ``HOLDFAST_TOKEN`` by default. Or a function that gives it, asked before each request, for
            tokens that expire.
        timeout: seconds that one try of a request may take, or that may pass without a byte of a stream. What may take
            a service longer (ingest, preview, publish, rollback, archive, rehydrate, sweep, verify, flush, rotate_keys)
            has 300 at least.
        retries: how often a request is tried again.
        insecure: let the token travel over plain http to another machine.
    Raises:
        ConfigurationError: no address or token, or one that cannot be. MissingExtraError: on entering the block, if the
            [client] extra is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | Callable[[], str] | None = None,
        timeout: float = 30.0,
        retries: int = 6,
        insecure: bool = False,
    ) -> None:
        self._transport = Transport(
            address or os.environ.get("HOLDFAST_URL"),
            token or os.environ.get("HOLDFAST_TOKEN"),
            timeout=timeout,
            retries=retries,
            insecure=insecure,
        )
        self._kept = Kept()

    def __repr__(self) -> str:
        return f"<Client {self._transport.address}>"

    async def __aenter__(self) -> Client:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    # -- making and finding ------------------------------------------------------------------------------------------

    async def create(
        self,
        *,
        kind: str,
        title: str = "",
        items: Iterable[tuple[str, Any]] = (),
        retention: Retention | None = None,
        target: str | None = None,
        change_id: str | None = None,
    ) -> Session:
        """Make a draft of a kind, at version 1; ``items`` are keys and bodies in order."""
        asked = {
            "kind": kind,
            "title": title,
            "items": [{"key": key, "body": _raw(key, body)} for key, body in items],
            "retention": retention,
            "target": target,
        }
        return self._kept.keep(await self._write("POST", "/v1/sessions", Session, asked, change_id))

    async def ingest(
        self,
        data: bytes,
        name: str,
        *,
        kind: str = "knowledge",
        title: str | None = None,
        retention: Retention | None = None,
        target: str | None = None,
        change_id: str | None = None,
    ) -> Session:
        """Make a draft from a source document, which is kept sealed in the cold tier."""
        form = {"kind": kind, "title": title, "target": target}
        if retention is not None:
            form["retention"] = _encode(retention).decode()
        ask = Ask(
            method="POST",
            path="/v1/ingest",
            upload=Upload({field: value for field, value in form.items() if value is not None}, name, data),
            change_id=change_id_of(change_id),
            long=True,
        )
        return self._kept.keep(forms.decode((await self._transport.answer(ask)).body, Session))

    async def find(
        self,
        *,
        kind: str | None = None,
        status: str | None = None,
        tier: Tier | None = None,
        owner: str | None = None,
        text: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Sessions this principal may see, newest first; ``text`` is looked for in the title.

        While the hot tier is gone the page and its headers are marked as stale.
        """
        query = {"kind": kind, "status": status, "tier": tier, "owner": owner, "text": text, "after": after}
        return await self._get("/v1/sessions", Page, {**query, "limit": _bounded(limit)})

    # -- reading -----------------------------------------------------------------------------------------------------

    async def read(self, session_id: str, *, version: int | None = None) -> Session:
        """A session with its items, as it stands or as it was at a version."""
        if version is not None:
            return await self._get(_path(session_id), Session, {"version": version})
        kept = self._kept.get(session_id)
        headers = {} if kept is None else {"if-none-match": tag(seen(kept))}
        answer = await self._transport.answer(Ask(method="GET", path=_path(session_id), headers=headers))
        if kept is not None and answer.status == 304:
            return kept
        return self._kept.keep(forms.decode(answer.body, Session))

    async def header(self, session_id: str) -> Header:
        """A session's header; also of one that is gone and can still be had back."""
        return await self._get(_path(session_id, "header"), Header)

    async def history(self, session_id: str, *, before: int | None = None, limit: int = 50) -> list[Entry]:
        """Commits and steps, newest first, below a step. A page of large entries ends early; the last is empty."""
        query = {"before": before, "limit": _bounded(limit)}
        return await self._list(_path(session_id, "history"), Entry, query)

    async def diff(self, session_id: str, before: int, after: int) -> list[Difference]:
        """What differs between two versions."""
        return await self._list(_path(session_id, "diff"), Difference, {"before": before, "after": after})

    async def feed(self, session_id: str, *, after: str | None = None, limit: int = 100) -> FeedPage:
        """Commits and steps in order, beyond a cursor; from the first without one."""
        return await self._get(_path(session_id, "feed"), FeedPage, {"after": after, "limit": _bounded(limit)})

    async def follow(
        self, session_id: str, *, after: str | None = None, idle: float | None = None
    ) -> AsyncGenerator[FeedPage]:
        """The feed as it grows: a page whenever there is more. It ends, with the error, once the right to it does.

        It connects anew where a connection ends, and goes on from the last entry it gave, with nothing left out and
        nothing twice; after too many failures in a row it ends with the last of them. Whoever takes pages slower than
        they come loses the connection, not the entries.

        Args:
            idle: after so many seconds without news comes a page without entries.
        """
        async for page in follow(self._transport, _path(session_id, "events"), after, idle):
            yield page

    async def export(self, session_id: str) -> dict[str, Any]:
        """A session whole, as plain data: header, items, history, labels, receipts."""
        return await self._get(_path(session_id, "export"), dict)

    # -- editing -----------------------------------------------------------------------------------------------------

    def edit(
        self,
        session_id: str,
        *,
        expected: int | Seen | None = None,
        rebase: bool = False,
        change_id: str | None = None,
        group: str | None = None,
        operation: str = "edit",
        fence: int | None = None,
    ) -> RemoteEdit:
        """The one way to change a session: ``async with client.edit(...) as draft``.

        The block works on the session as this client has read it, at the version expected; what is not at hand is read
        on entering. Leaving it sends the steps once.

        Args:
            expected: the version its author saw; as ``Seen``, it is also checked to be of this history.
            rebase: land on a newer version if nothing read or written here has changed since; else any newer version is
                a conflict.
            change_id: the same id again with the same changes gives the first answer.
            group: commits that share it undo as one.
            operation: what history calls the edit.
            fence: number of the lease held.
        """
        named = None if operation == "edit" else operation
        query = {"rebase": rebase or None, "group": group, "operation": named, "fence": fence}
        return RemoteEdit(
            self._transport,
            session_id,
            _path(session_id),
            lambda version: self._base(session_id, version),
            expected,
            change_id,
            query,
        )

    async def operate(
        self,
        session_id: str,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        expected: int | Seen | None = None,
        rebase: bool = False,
        change_id: str | None = None,
        group: str | None = None,
        fence: int | None = None,
    ) -> Committed:
        """Run an operation of the session's kind; its arguments are checked against its declaration."""
        path = _path(session_id, "operations", operation)
        query = {"rebase": rebase or None, "group": group, "fence": fence}
        try:
            return await self._commit(path, _raw(operation, dict(arguments or {})), expected, change_id, query)
        except RouteNotFoundError:
            raise UnknownOperationError(operation, await self._operations(session_id)) from None

    async def undo(
        self,
        session_id: str,
        *,
        expected: int | Seen | None,
        change_id: str | None = None,
        fence: int | None = None,
    ) -> Committed:
        """Take the last commit back, or the last group of them, with a new commit."""
        return await self._commit(_path(session_id, "undo"), None, expected, change_id, {"fence": fence})

    async def redo(
        self,
        session_id: str,
        *,
        expected: int | Seen | None,
        change_id: str | None = None,
        fence: int | None = None,
    ) -> Committed:
        """Do again what the last undo took back."""
        return await self._commit(_path(session_id, "redo"), None, expected, change_id, {"fence": fence})

    async def preview_undo(self, session_id: str) -> list[Difference]:
        """What an undo would change, without doing it."""
        return await self._list(_path(session_id, "undo"), Difference)

    async def preview_redo(self, session_id: str) -> list[Difference]:
        """What a redo would change, without doing it."""
        return await self._list(_path(session_id, "redo"), Difference)

    async def restore(
        self,
        session_id: str,
        to: int | str,
        *,
        expected: int | Seen | None,
        change_id: str | None = None,
        fence: int | None = None,
    ) -> Committed:
        """Take the session back to a version, or to the one a label names, with a new commit."""
        return await self._commit(_path(session_id, "restore"), {"to": to}, expected, change_id, {"fence": fence})

    # -- labels, names, rights ---------------------------------------------------------------------------------------

    async def label(
        self,
        session_id: str,
        name: str,
        *,
        version: int | None = None,
        expected: int | Seen | None = None,
        change_id: str | None = None,
    ) -> Label:
        """Name a version, the newest by default; a name used before moves."""
        return await self._write(
            "PUT", _path(session_id, "labels", name), Label, {"version": version}, change_id, expected
        )

    async def labels(self, session_id: str) -> list[Label]:
        """The session's labels, newest version first."""
        return await self._list(_path(session_id, "labels"), Label)

    async def rename(
        self, session_id: str, title: str, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Give a session another title."""
        return await self._write("PUT", _path(session_id, "title"), Header, {"title": title}, change_id, expected)

    async def grant(
        self,
        session_id: str,
        principal: str,
        role: Role | None,
        *,
        expected: int | Seen | None = None,
        change_id: str | None = None,
    ) -> Header:
        """Give a principal a role on a session, or take it away."""
        path = _path(session_id, "grants", principal)
        if role is None:
            return await self._write("DELETE", path, Header, None, change_id, expected)
        return await self._write("PUT", path, Header, {"role": role}, change_id, expected)

    # -- preview, publish --------------------------------------------------------------------------------------------

    async def preview(
        self, session_id: str, *, seconds: float | None = None, expected: int | Seen | None = None
    ) -> Preview:
        """Show what publishing would do, and lock the draft under a seal of exactly that.

        Sent again if need be: a lock of one's own is renewed, and the answer tells what it holds.
        """
        return await self._do(
            "POST", _path(session_id, "preview"), Preview, {"seconds": seconds}, long=True, expected=expected
        )

    async def unlock(
        self, session_id: str, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Make a locked session a draft again; an admin may unlock anybody's."""
        return await self._write("POST", _path(session_id, "unlock"), Header, None, change_id, expected)

    async def take_over(self, session_id: str, *, seconds: float | None = None) -> Preview:
        """Take somebody's lock over; the state its owner left is labelled first.

        Sent again if need be: who has taken it over already does so once.
        """
        return await self._do("POST", _path(session_id, "take-over"), Preview, {"seconds": seconds}, long=True)

    async def publish(
        self, session_id: str, *, seal: str, progress: Progress = lambda step, done, total: None
    ) -> Receipt:
        """Publish the state a preview sealed. The same publication asked for again gives the same receipt, so it is
        sent again if need be. ``progress`` is told the end alone.
        """
        receipt = await self._do("POST", _path(session_id, "publish"), Receipt, {"seal": seal}, long=True)
        progress("done", receipt.manifest.count, receipt.manifest.count)
        return receipt

    async def receipts(self, session_id: str) -> list[Receipt]:
        """The session's receipts, newest first."""
        return await self._list(_path(session_id, "receipts"), Receipt)

    async def rollback(self, session_id: str) -> Receipt:
        """Make what was live before this session's publication live again. Asked again it gives the same receipt, so it
        is sent again if need be.
        """
        return await self._do("POST", _path(session_id, "rollback"), Receipt, long=True)

    async def reopen(self, session_id: str, *, change_id: str | None = None) -> Session:
        """Edit again: a new draft of what a session published, to be published in its place."""
        return self._kept.keep(await self._write("POST", _path(session_id, "reopen"), Session, None, change_id))

    async def search(self, query: str, *, kind: str = "knowledge", limit: int = 10) -> list[Hit]:
        """What is live and fits a query best. Drafts are never searched."""
        return await self._list("/v1/search", Hit, {"q": query, "kind": kind, "limit": _bounded(limit)})

    # -- keeping and letting go --------------------------------------------------------------------------------------

    async def discard(
        self, session_id: str, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Throw a session away; within its grace it can be had back."""
        return await self._write("DELETE", _path(session_id), Header, None, change_id, expected)

    async def revive(
        self, session_id: str, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Take a discarded or expired session back within its grace."""
        return await self._write("POST", _path(session_id, "revive"), Header, None, change_id, expected)

    async def touch(
        self, session_id: str, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Start a sliding time to live anew."""
        return await self._write("POST", _path(session_id, "touch"), Header, None, change_id, expected)

    async def extend(
        self,
        session_id: str,
        *,
        seconds: float | None,
        expected: int | Seen | None = None,
        change_id: str | None = None,
    ) -> Header:
        """Keep a session for that long from now, None for good."""
        return await self._write("POST", _path(session_id, "extend"), Header, {"seconds": seconds}, change_id, expected)

    async def suspend(
        self, session_id: str, *, expected: int | Seen | None = None, change_id: str | None = None
    ) -> Header:
        """Set a session to rest until it is next written.

        Raises:
            LeaseHeldError: somebody's lease on it is live.
        """
        return await self._write("POST", _path(session_id, "suspend"), Header, None, change_id, expected)

    async def archive(self, session_id: str) -> Header:
        """Move a session to the cold tier, written whole and read back before the warm tier lets go of it. Whoever
        opens it next brings it back.

        Sent again if need be: what is archived stays so.

        Raises:
            LeaseHeldError: somebody's lease on it is live.
            PublicationPendingError: a publication of it is under way.
        """
        return await self._do("POST", _path(session_id, "archive"), Header, long=True)

    async def rehydrate(self, session_id: str) -> Header:
        """Bring a session back to the hot tier, from wherever it rests, before somebody has to wait for it. Sent again
        if need be.
        """
        return await self._do("POST", _path(session_id, "rehydrate"), Header, long=True)

    async def sweep(self) -> Swept:
        """Do what is due: warn, expire, take down lapsed locks, finish or undo publications, purge.

        Sent again if need be: what is done is no longer due; the answer tells of the last time alone.
        """
        return await self._do("POST", "/v1/sweep", Swept, long=True)

    # -- leases ------------------------------------------------------------------------------------------------------

    async def lease(self, session_id: str, holder: str, *, seconds: float | None = None, force: bool = False) -> Lease:
        """Take the timed right to write; while it is live only who names its fence may commit. ``force`` takes it
        over.

        Sent again if need be: its holder is granted a newer fence, and the answer names it.
        """
        asked = {"holder": holder, "seconds": seconds, "force": force}
        return await self._do("POST", _path(session_id, "leases"), Lease, asked)

    async def renew(self, lease: Lease, *, seconds: float | None = None) -> Lease:
        """Hold a lease for longer; refused once a newer fence has been granted. Sent again if need be: the fence stays
        the same.
        """
        path = _path(lease.session, "leases", str(lease.fence))
        return await self._do("PUT", path, Lease, {"seconds": seconds})

    async def release(self, lease: Lease) -> None:
        """Give a lease back. Sent again if need be: one that is lost already is left as it is."""
        path = _path(lease.session, "leases", str(lease.fence))
        await self._transport.answer(Ask(method="DELETE", path=path))

    async def leased(self, session_id: str) -> Lease | None:
        """Who holds the lease now."""
        return (await self._get(_path(session_id, "participants"), _Participants)).lease

    # -- the service as a whole --------------------------------------------------------------------------------------

    async def audit(self, *, session_id: str | None = None, after: int = 0, limit: int = 100) -> list[AuditLine]:
        """Who did what, oldest first: of one session, or (admin, auditor) of the tenant's refusals, reads and
        service verbs.

        Args:
            after: how many lines to skip.
        """
        path = "/v1/audit" if session_id is None else _path(session_id, "audit")
        lines: list[AuditLine] = []
        while (left := max(1, limit) - len(lines)) > 0:
            page = min(left, _MOST_PER_PAGE)
            more = await self._list(path, AuditLine, {"after": after + len(lines), "limit": page})
            lines += more
            if len(more) < page:
                break
        return lines

    async def verify(self, session_id: str | None = None, *, repair: bool = False) -> AsyncIterator[Verified]:
        """Read everything of the tenant back and compare, one finding a session and one an audit chain.

        Args:
            session_id: only this session.
            repair: where the hot and the warm tier differ, keep the newer; where each has what the other has not, keep
                both, the hot tier's as a session of its own. Only an admin may.
        Raises:
            SessionNotFoundError: the tenant has no such session.
        """
        query = {"session": session_id, "repair": repair or None}
        ask = Ask(method="POST", path="/v1/verify", query=query, long=True)
        rest = b""
        async with self._transport.stream(ask) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield forms.decode(line, Verified)
                if len(rest) > _MOST_LINE:
                    raise ServiceError(f"The service sent a line of more than {_MOST_LINE:,} bytes.")

    async def tiers(self) -> Tiers:
        """How far each tier is: what it holds, what is on its way between them, and why one does not answer."""
        return await self._get("/v1/tiers", Tiers)

    async def flush(self, *, retry: bool = False) -> Flushed:
        """Copy to the warm tier, now, what it does not have yet; how many writes that was, and what dead letters are
        left.

        Sent again if need be: what is there already is not copied twice; the answer tells of the last time alone.

        Args:
            retry: try the dead letters again too.
        """
        return await self._do("POST", "/v1/tiers/flush", Flushed, {"retry": retry}, long=True)

    async def keys(self) -> KeyIds:
        """Which key-encryption keys there are."""
        return await self._get("/v1/keys", KeyIds)

    async def rotate_keys(self, progress: Callable[[int], None] = lambda done: None, *, drop: bool = False) -> Rotated:
        """Make a new key-encryption key and wrap every data key under it, while work goes on.

        Not sent again once it may have begun: that would make one more key. ``progress`` is told the end alone.

        Args:
            drop: forget the older keys, once nothing is wrapped under them any more.
        """
        rotated = await self._do("POST", "/v1/keys/rotate", Rotated, {"drop": drop}, again=False, long=True)
        progress(rotated.sessions)
        return rotated

    async def revoke(
        self,
        *,
        token: str | None = None,
        principal: str | None = None,
        everybody: bool = False,
        before: float | None = None,
        until: float | None = None,
    ) -> Revocation:
        """Take tokens back before they expire: one of them, or all that were issued before a time.

        An admin may for anybody in the tenant, everybody for himself. It is in force in the process that answered when
        it returns, and in every other within a second.

        Sent again if need be: without ``before``, that takes back what was issued up to the last try.

        Args:
            token: the id (``jti``) of one token; who is no admin reaches only his own by it.
            principal: whose tokens.
            everybody: those of the whole tenant, whoever asks included.
            before: seconds since the epoch, on the issuer's clock; now by default. Not with a ``token``.
            until: when that ``token`` expires, leeway included, if known: from then on the revocation is forgotten.
        Raises:
            LimitExceededError: too many single tokens of one's own.
        """
        asked = {"token": token, "principal": principal, "before": before, "until": until}
        if everybody:
            asked["everybody"] = True
        return await self._do("POST", "/v1/revocations", Revocation, asked)

    async def revocations(self) -> list[Revocation]:
        """What stands revoked and has not lapsed: to an admin all of the tenant, to others their own."""
        return await self._list("/v1/revocations", Revocation)

    async def whoami(self) -> Principal:
        """Who asks, as the service knows it."""
        return await self._get("/v1/whoami", Principal)

    async def health(self) -> dict[str, str]:
        """Each tier asked whether it answers: ``ok``, or the code of the error."""
        return (await self._get("/health", _Health)).tiers

    # -- how they are asked ------------------------------------------------------------------------------------------

    async def _get(self, path: str, kind: type[T], query: Query | None = None) -> T:
        return forms.decode((await self._transport.answer(Ask(method="GET", path=path, query=query or {}))).body, kind)

    async def _list(self, path: str, kind: type[T], query: Query | None = None) -> list[T]:
        answer = await self._transport.answer(Ask(method="GET", path=path, query=query or {}))
        return forms.decode_list(answer.body, kind)

    async def _write(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: Any,
        change_id: str | None,
        expected: int | Seen | None = None,
    ) -> T:
        """What has one effect however often it is sent, by its change id."""
        ask = Ask(
            method=method, path=path, headers=_matching(expected), body=_body(body), change_id=change_id_of(change_id)
        )
        return forms.decode((await self._transport.answer(ask)).body, kind)

    async def _do(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: Any = None,
        *,
        again: bool = True,
        long: bool = False,
        expected: int | Seen | None = None,
    ) -> T:
        """What takes no change id; ``again`` says whether it may be sent again all the same."""
        ask = Ask(method=method, path=path, headers=_matching(expected), body=_body(body), again=again, long=long)
        return forms.decode((await self._transport.answer(ask)).body, kind)

    async def _commit(
        self, path: str, body: Any, expected: int | Seen | None, change_id: str | None, query: Query
    ) -> Committed:
        ask = Ask(
            method="POST",
            path=path,
            query=query,
            headers=_matching(expected),
            body=_body(body),
            change_id=change_id_of(change_id),
        )
        answer: Answer = await self._transport.answer(ask)
        return forms.decode(answer.body, Committed)

    async def _base(self, session_id: str, version: int) -> Session:
        """A session as of a version: what is at hand if the service says that it still stands, else as it is sent."""
        kept = self._kept.get(session_id, version)
        if kept is None:
            session = await self.read(session_id, version=version)
            return self._kept.keep(session) if session.header.version == version else session
        await self.read(session_id)  # raises if the session is gone, or closed to who asks
        return kept

    async def _operations(self, session_id: str) -> list[str]:
        """The operations of a session's kind."""
        kind = (await self.header(session_id)).kind
        kinds = await self._list("/v1/kinds", _Kind)
        return [operation.name for one in kinds if one.name == kind for operation in one.operations]


class _Participants(msgspec.Struct):
    lease: Lease | None


class _Health(msgspec.Struct):
    tiers: dict[str, str]


class _Operation(msgspec.Struct):
    name: str


class _Kind(msgspec.Struct):
    name: str
    operations: list[_Operation]


def _path(session_id: str, *rest: str) -> str:
    """The path of a session, or of something below it. What cannot be an id names no session."""
    if not isinstance(session_id, str) or _SESSION.fullmatch(session_id) is None:
        raise SessionNotFoundError(str(session_id)[:200])
    return "/".join(("/v1/sessions", session_id, *map(_part, rest)))


def _part(text: str) -> str:
    """A name as one part of a path; one of dots alone would be a step in it."""
    check_text("a name", text, most=_MOST_NAME)
    return quote(text, safe="").replace(".", "%2E") if not text.strip(".") else quote(text, safe="")


def _body(value: Any) -> bytes | None:
    try:
        return None if value is None else _encode(value)
    except UnicodeEncodeError:
        raise InvalidChangeError("a text holds half a surrogate pair, which is no text") from None


def _raw(key: str, body: Any) -> msgspec.Raw:
    """A body as JSON; raises ``InvalidItemError`` where it is none."""
    return msgspec.Raw(encode_body(key, body, depth=UNBOUND.depth, size=UNBOUND.item_bytes))


def _matching(expected: int | Seen | None) -> dict[str, str]:
    return {} if expected is None else {"if-match": tag(expected)}


def _bounded(limit: int) -> int:
    """How many of a page: 1 to 1,000."""
    return max(1, min(limit, _MOST_PER_PAGE))
