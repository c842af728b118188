"""A recorder: clients of several services on one home, and what each of them was told, for ``linearizability.check``.

The clients read, edit, rebase, run operations, undo and redo at once on one session, over whichever service. Now and
then one drops its connection with a request under way, and so does not know what came of it: some send it again under
the same change id, elsewhere. Services may be killed and started again meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from random import Random
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from holdfast.testing.doors import Door
from holdfast.testing.linearizability import Op
from holdfast.testing.peers import Answer, Peer

START = {f"chunks/{n}": f"start {n}" for n in range(4)}
KEYS = [f"chunks/{n}" for n in range(6)]
_DROP_SECONDS = 0.006
_DOWN_SECONDS = 0.05
_LATE_SECONDS = 30.0
"""How long an answer may take before its client gives up."""

_FORMS = ("changes", "changes", "changes", "merge", "item", "operation", "undo", "undo", "redo")
Verb = Literal["create", "read", "edit", "undo", "redo"]


class Asked(msgspec.Struct, frozen=True):
    """A request, and what it is to the checker."""

    method: str
    target: str
    fields: tuple[str, ...]
    body: bytes
    op: Op


class Dropped(Exception):  # noqa: N818 - it happened, and nobody is at fault
    """The connection ended before the answer. ``sent``: the request, or part of it, had gone out."""

    def __init__(self, sent: bool) -> None:
        self.sent = sent
        super().__init__("the connection ended")


class Unanswered(Exception):  # noqa: N818 - whose fault it is, is not known here
    """Nobody took a request for longer than its client has patience. ``code``: of the last refusal."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"nobody takes the request: {code or 'no answer'}")


class Recorder:
    """Records histories; a seed gives the same choices, if not the same times.

    ``asked`` counts the requests so far, ``suspended`` the answers to those that suspend, ``stale`` the reads that were
    marked as such; ``counts`` the answers by verb and outcome, once a history is done. ``forks``: steps with two tags.

    Args:
        drops: the share of requests whose connection is dropped; as many are sent twice although they were answered.
        suspends: the share of requests that set the session to rest, or send it to the archive; whoever opens it next
            brings it back.
        patience: seconds for which a request is sent again to services that do not take it; then ``Unanswered`` ends
            the history.
    """

    def __init__(
        self,
        doors: Sequence[Door],
        seed: int,
        *,
        drops: float = 0.08,
        suspends: float = 0.0,
        patience: float = 60.0,
    ) -> None:
        self.doors, self.drops, self.suspends, self.patience = doors, drops, suspends, patience
        self.counts: Counter[str] = Counter()
        self.asked = self.suspended = self.stale = 0
        self.forks: list[str] = []
        self._tags: dict[tuple[str, str], str] = {}
        self._random = Random(seed)  # noqa: S311 - to come out the same is the point

    async def record(self, *, clients: int = 8, count: int = 200) -> list[Op]:
        """A new session, so many requests by so many clients at once, and a read at every door in the end."""
        ops: list[Op] = []
        async with contextlib.AsyncExitStack() as stack:
            maker = await stack.enter_async_context(Client.of(self, 0, "", ops))
            session = await maker.create()
            everyone = [maker] + [
                await stack.enter_async_context(Client.of(self, number, session, ops)) for number in range(1, clients)
            ]
            async with asyncio.TaskGroup() as group:
                for client in everyone:
                    group.create_task(client.work(count // clients))
            for door in range(len(self.doors)):
                await maker.read(door)
        for op in ops:
            self.counts[f"{op.verb} {op.outcome}"] += 1
        return ops

    def tagged(self, session: str, tag: str) -> None:
        """A tag was seen: a step of a session has one, for all time."""
        step = tag.strip('"').partition("-")[0]
        if (known := self._tags.setdefault((session, step), tag)) != tag:
            self.forks.append(f"session {session} was {known}, and {tag}")

    def random(self) -> Random:
        """Choices of its own for one client."""
        return Random(self._random.getrandbits(64))  # noqa: S311


class Client:
    """One client: it makes one request at a time, and goes by what it last saw."""

    def __init__(self, recorder: Recorder, number: int, session: str, ops: list[Op]) -> None:
        self._recorder, self._number, self._ops = recorder, number, ops
        self.session, self._random = session, recorder.random()
        self._lines: dict[str, tuple[Peer, contextlib.AsyncExitStack]] = {}
        self._changes = 0
        self._last: Op | None = None
        self._tag, self._version = "", 0
        self._items: dict[str, str] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, recorder: Recorder, number: int, session: str, ops: list[Op]) -> AsyncIterator[Client]:
        client = cls(recorder, number, session, ops)
        try:
            yield client
        finally:
            for address in list(client._lines):
                await client._hang_up(address)

    async def create(self) -> str:
        """Make the session of this history."""
        items = [{"key": key, "body": {"text": text}} for key, text in START.items()]
        body = msgspec.json.encode({"kind": "knowledge", "items": items})
        op = self._op("create", change="start", puts=START)
        fields = (f"Idempotency-Key: {self._random.getrandbits(64):x}",)
        asked = Asked("POST", "/v1/sessions", fields, body, op)
        answer = await self._ask(self._recorder.doors[0], asked)
        assert answer.status == 201, answer.body
        self.session = msgspec.json.decode(answer.body)["id"]
        self._ops[-1] = replace(self._ops[-1], session=self.session)
        return self.session

    async def work(self, count: int) -> None:
        """Make so many requests."""
        await self.read(None)
        suspends = self._recorder.suspends
        for _ in range(count - 1):
            if suspends and self._random.random() < suspends:
                await self._suspend()
                continue
            choice = self._random.random()
            if choice < 0.35:
                await self.read(None)
            elif self._last is not None and self._last.verb == "undo" and choice < 0.7:
                await self._write("redo")
            else:
                await self._write(self._random.choice(_FORMS))

    async def read(self, door: int | None) -> None:
        """Read the session whole, or its version alone; at a door, or at any."""
        how = self._random.choice(["whole", "whole", "whole", "header", "if changed"]) if door is None else "whole"
        target = f"/v1/sessions/{self.session}" + ("/header" if how == "header" else "")
        fields = (f"If-None-Match: {self._tag}",) if how == "if changed" and self._tag else ()
        asked = Asked("GET", target, fields, b"", self._op("read"))
        patience = Patience(self._recorder.patience)
        while True:
            where = self._recorder.doors[door] if door is not None else self._any()
            with contextlib.suppress(Dropped):
                answer = await self._ask(where, asked)
                if answer.status != 503:
                    return
                patience.told(answer)
            await patience.wait()

    async def _suspend(self) -> None:
        """Set the session to rest, or send it to the archive, once: what is answered is the version it rests at, which
        is as good as a read.
        """
        verb = self._random.choice(("suspend", "suspend", "archive"))
        fields = () if verb == "archive" else (f"Idempotency-Key: {self._random.getrandbits(64):x}",)
        asked = Asked("POST", f"/v1/sessions/{self.session}/{verb}", fields, b"", self._op("read"))
        with contextlib.suppress(Dropped):
            answer = await self._ask(self._any(), asked)
            self._recorder.suspended += answer.status == 200

    async def _write(self, form: str) -> None:
        """Make a change; where its outcome is not known, send it again, or leave it at that."""
        if form == "undo":  # which is for what one sees
            await self.read(None)
        asked, drops = self._change(form), self._recorder.drops
        patience = Patience(self._recorder.patience)
        while True:
            drop = self._random.random() * _DROP_SECONDS if self._random.random() < drops else None
            try:
                answer = await self._ask(self._any(), asked, drop)
            except Dropped as dropped:
                if not dropped.sent:
                    await patience.wait()
                elif self._random.random() < 0.3:
                    return
                continue
            if answer.status in (429, 503):
                patience.told(answer)
                await patience.wait()
            elif self._random.random() >= drops:
                return

    def _change(self, form: str) -> Asked:
        """An edit in one of its forms, an operation of the kind, an undo or a redo, on the state last seen."""
        self._changes += 1
        change = f"{self._number}.{self._changes}"
        if form == "operation" and not self._items:
            form = "changes"
        rebase = form not in ("undo", "redo") and self._random.random() < 0.4
        puts = self._puts(form, change)
        op = self._op("edit", change=change, expected=self._version, rebase=rebase, puts=puts)
        if form in ("undo", "redo"):
            op = replace(op, verb=form)
        method, target, media, body = _formed(form, puts)
        seen = self._tag if self._tag and self._random.random() < 0.8 else f'"{self._version}"'
        fields = (f"If-Match: {seen}", f"Idempotency-Key: {self.session}.{change}", f"Content-Type: {media}")
        query = "?rebase=true" if rebase else ""
        return Asked(method, f"/v1/sessions/{self.session}{target}{query}", fields, body, op)

    def _puts(self, form: str, change: str) -> dict[str, str | None]:
        """What a form of an edit writes. Only what is known to be there is deleted, or edited by an operation."""
        if form in ("undo", "redo"):
            return {}
        many = self._random.choice([1, 1, 2]) if form in ("changes", "merge") else 1
        there = sorted(self._items or ())
        keys = self._random.sample(there if form == "operation" else KEYS, many)
        if form == "operation":
            return {keys[0]: f"{change} {keys[0]}"}
        gone = {key for key in keys if key in there and form != "item" and self._random.random() < 0.15}
        return {key: None if key in gone else f"{change} {key}" for key in keys}

    def _op(self, verb: Verb, **more: Any) -> Op:
        return Op(
            client=self._number, verb=verb, outcome="unknown", invoked=0, returned=None, session=self.session, **more
        )

    def _any(self) -> Door:
        return self._random.choice(self._recorder.doors)

    # -- one request ---------------------------------------------------------------------------------------------------

    async def _ask(self, door: Door, asked: Asked, drop: float | None = None) -> Answer:
        """Send a request, and record what came of it; with ``drop``, end the connection after so many seconds.

        Raises:
            Dropped: no answer came.
        """
        address = door.address
        try:
            line = await self._line(address)
        except OSError:
            raise Dropped(sent=False) from None
        said = door.request(asked.method, asked.target, *asked.fields, body=asked.body)
        if drop is not None and self._random.random() < 0.2:
            said = said[: -len(asked.body) // 2]
        self._recorder.asked += 1
        invoked = time.perf_counter_ns()
        try:
            await line.send(said)
            async with asyncio.timeout(_LATE_SECONDS if drop is None else drop):
                answer = await line.answer()
        except (ConnectionError, TimeoutError) as error:
            late = isinstance(error, TimeoutError) and drop is None
            returned = time.perf_counter_ns()
            await self._hang_up(address)
            self._ops.append(replace(asked.op, invoked=invoked, returned=returned))
            if late:
                raise
            raise Dropped(sent=True) from None
        returned = time.perf_counter_ns()
        self._ops.append(self._told(replace(asked.op, invoked=invoked, returned=returned), answer))
        return answer

    async def _line(self, address: str) -> Peer:
        if address not in self._lines:
            stack = contextlib.AsyncExitStack()
            self._lines[address] = await stack.enter_async_context(Peer.to(address)), stack
        return self._lines[address][0]

    async def _hang_up(self, address: str) -> None:
        _, stack = self._lines.pop(address)
        await stack.aclose()

    def _told(self, op: Op, answer: Answer) -> Op:
        """An operation with its answer; what it says of the session is what its client goes by from now on."""
        tag = answer.headers.get("etag", "")
        if answer.status == 412:
            self._tag, self._items = "", None
            self._version = answer.json["actual"]
            return replace(op, outcome="conflict", version=self._version)
        if answer.status in (404, 410) and op.verb == "read":
            return replace(op, outcome="ok", version=0)  # it is as if it had never been made
        if answer.status >= 500 and not (answer.status == 503 and answer.json.get("code") == "stopping"):
            return op
        if not (answer.status < 300 or answer.status == 304):
            return replace(op, outcome="refused")
        if "holdfast-stale" in answer.headers:
            self._recorder.stale += 1
            return op
        if op.session:  # which a creation does not know yet
            self._recorder.tagged(op.session, tag)
        version = int(tag.strip('"').partition(".")[0])
        op = replace(op, outcome="ok", version=version, digest=_state(op, answer) if self._recorder.suspends else tag)
        self._last = op
        if version < self._version:  # the answer of the first time, given again
            return op
        if op.verb == "read":
            if answer.status == 200 and "items" in answer.json:
                op = replace(op, items={item["key"]: item["body"]["text"] for item in answer.json["items"]})
            self._items = dict(op.items) if op.items is not None else self._items if tag == self._tag else None
        else:
            self._items = _after(self._items if version == self._version + 1 else None, op.puts) if op.puts else None
        self._tag, self._version = tag, version
        return op


class Patience:
    """How long a client goes on with one request."""

    def __init__(self, seconds: float) -> None:
        self._until, self._code = time.monotonic() + seconds, ""

    def told(self, answer: Answer) -> None:
        """It was not taken."""
        self._code = str(answer.json.get("code", answer.status))

    async def wait(self) -> None:
        """Wait a moment before it is sent again; ``Unanswered`` once that has gone on for too long."""
        if time.monotonic() > self._until:
            raise Unanswered(self._code)
        await asyncio.sleep(_DOWN_SECONDS)


def _state(op: Op, answer: Answer) -> str | None:
    """The name of a version, where steps in between give it several tags: the end of its commit's own tag."""
    if op.verb != "read":
        return answer.headers["etag"].strip('"').partition("-")[2]
    return str(answer.json["state"])[:16] if answer.status == 200 else None


def _after(items: Mapping[str, str] | None, puts: Mapping[str, str | None]) -> dict[str, str] | None:
    """The items after an edit, None where those before it are not known."""
    if items is None:
        return None
    return {key: text for key, text in {**items, **puts}.items() if text is not None}


def _formed(form: str, puts: Mapping[str, str | None]) -> tuple[str, str, str, bytes]:
    """Method, end of the address, media type and body of a change."""
    json = "application/json"
    if form in ("undo", "redo"):
        return "POST", f"/{form}", json, b""
    if form == "merge":
        names = {key.partition("/")[2]: None if text is None else {"text": text} for key, text in puts.items()}
        return "PATCH", "", "application/merge-patch+json", msgspec.json.encode({"chunks": names})
    if form == "item":
        ((key, text),) = puts.items()
        return "PUT", f"/items/{key}", json, msgspec.json.encode({"text": text})
    if form == "operation":
        ((key, text),) = puts.items()
        return "POST", "/operations/edit", json, msgspec.json.encode({"key": key, "text": text})
    changes = [{"delete": key} if text is None else {"put": key, "body": {"text": text}} for key, text in puts.items()]
    return "PATCH", "", json, msgspec.json.encode({"changes": changes})


__all__ = ["Recorder", "Unanswered"]
