"""Authors of so many sessions: each reads and edits his own, now and then does something else, and keeps what was
acknowledged. Afterwards the histories are held against that.

Each author makes one request at a time and pauses before the next, so that the rate is bounded by the authors' pace and
not by what the machine can do; how often they would ask if every answer came at once is the offered rate. Requests go
to any replica, as behind a balancer. A write that got no answer is sent again under its change id, elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

import msgspec

from holdfast.bench.connection import Answer, Connection, request
from holdfast.bench.figures import Tally
from holdfast.testing.doors import Door

ITEMS, TEXT = 10, 500
"""Items of a session at its start, and characters of each."""
OWNED = 10
"""Sessions of one principal."""
MIX: Mapping[str, float] = {
    "read": 0.60,
    "header": 0.05,
    "read if changed": 0.05,
    "edit": 0.25,
    "create": 0.005,
    "undo": 0.01,
    "history": 0.01,
    "list": 0.004,
    "preview, unlock": 0.01,
    "suspend": 0.01,
    "archive": 0.001,
}
"""The share of each verb: 70 % reads, 25 % edits, 5 % others."""

LATE_SECONDS = 10.0
"""How long a client waits for one answer."""
GIVE_UP_SECONDS = 60.0
"""How long it goes on asking."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_DOWN_SECONDS = 0.5
_IDLE_SECONDS = 30.0  # a service ends a connection that lies idle for longer than 75
_CHECKED = 8
_PAGE = 200
_AT_ONCE = 32
_JSON = "content-type: application/json"

_encode = msgspec.json.Encoder().encode


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A load.

    Attributes:
        sessions: each with its author; pace: seconds from one request of an author to the next, on the average.
        kill_every: seconds between two ends of a replica, each in turn; None: nobody is killed. A second later another
            is started in its place.
    """

    sessions: int = 1_000
    seconds: float = 300.0
    pace: float = 3.0
    kill_every: float | None = None
    seed: int = 1

    @property
    def offered(self) -> float:
        """Requests a second, if each were answered at once."""
        return self.sessions / self.pace


class Findings(msgspec.Struct):
    """What the histories say of what was acknowledged; empty lists, if nothing.

    Attributes:
        lost: acknowledged, and not there as it was; twice: there more than once; gaps: versions that are not there.
        wrong: answers that were not as the author's own record.
    """

    lost: list[str] = []
    twice: list[str] = []
    gaps: list[str] = []
    wrong: list[str] = []
    changes: int = 0

    @property
    def clean(self) -> bool:
        return not (self.lost or self.twice or self.gaps or self.wrong)


class Unanswered(Exception):  # noqa: N818 - it is nobody's fault in particular
    """Nobody answered for so long that the client gave up."""


class Pool:
    """Connections to the replicas, kept open. One that is down is left alone for a while, as a balancer would."""

    def __init__(self, doors: Sequence[Door], random: Random) -> None:
        self._doors, self._random = doors, random
        self._idle: dict[str, deque[tuple[float, Connection]]] = {}
        self._down: dict[str, float] = {}

    def choose(self) -> str:
        """The address of a replica, of one that is not known to be down if there is one."""
        now = time.monotonic()
        up = [door.address for door in self._doors if self._down.get(door.address, 0.0) <= now]
        return self._random.choice(up or [door.address for door in self._doors])

    async def take(self, address: str) -> Connection:
        """A connection that nobody uses. ``OSError``: there is nobody."""
        idle = self._idle.setdefault(address, deque())
        while idle:
            since, connection = idle.pop()
            if time.monotonic() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        try:
            return await Connection.to(int(address.rpartition(":")[2]))
        except OSError:
            self.down(address)
            raise

    def give(self, address: str, connection: Connection) -> None:
        self._idle[address].append((time.monotonic(), connection))

    def down(self, address: str) -> None:
        """It does not answer: what is open to it is closed."""
        self._down[address] = time.monotonic() + _DOWN_SECONDS
        for _, connection in self._idle.pop(address, ()):
            connection.close()
        self._idle[address] = deque()

    def close(self) -> None:
        for address in list(self._idle):
            self.down(address)


class Crowd:
    """All authors, and what they share."""

    def __init__(self, doors: Sequence[Door], plan: Plan, token: Callable[[str], str]) -> None:
        self.plan, self.tally, self.findings = plan, Tally(), Findings()
        self.random = Random(plan.seed)  # noqa: S311 - to come out the same is the point
        self.pool = Pool(doors, self.random)
        self.given_up = self.stale = 0
        self.refused: dict[str, int] = {}
        tokens = [token(f"author-{number}") for number in range(-(-plan.sessions // OWNED))]
        self.authors = [Author(self, number, tokens[number // OWNED]) for number in range(plan.sessions)]

    async def come(self) -> None:
        """Everybody makes his session."""
        await at_most(_AT_ONCE, [author.come for author in self.authors])

    async def live(self) -> float:
        """Everybody works for as long as the plan says; the seconds it took."""
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for author in self.authors:
                group.create_task(author.live(begun, begun + self.plan.seconds))
        return time.perf_counter() - begun

    async def check(self) -> Findings:
        """Hold every history against what its author was told."""
        await at_most(_AT_ONCE, [author.check for author in self.authors])
        return self.findings

    def wrong(self, what: str) -> None:
        if len(self.findings.wrong) < 100:
            self.findings.wrong.append(what)


class Author:
    """One session's author.

    Attributes:
        acked: the version that each acknowledged change was told to have made, or to have found.
    """

    def __init__(self, crowd: Crowd, number: int, token: str) -> None:
        self._crowd, self._number, self._token = crowd, number, f"authorization: Bearer {token}"
        self._random = Random(crowd.random.getrandbits(64))  # noqa: S311
        self._changes = itertools.count(1)
        self.session, self.acked = "", dict[str, int]()
        self._tag = b""
        self._items: dict[str, str] = {}
        self._undo: list[tuple[str, str | None]] = []
        self._verbs: dict[str, Callable[[], Awaitable[object]]] = {
            "read": self._read,
            "header": self._header,
            "read if changed": self._poll,
            "edit": self._edit,
            "create": self._create,
            "undo": self._take_back,
            "history": self._history,
            "list": self._list,
            "preview, unlock": self._preview,
            "suspend": self._suspend,
            "archive": self._archive,
        }

    async def come(self) -> None:
        """Make the session."""
        answer = await self._create()
        self.session, self._tag = msgspec.json.decode(answer.body)["id"], answer.tag
        self._items = {f"chunks/{at:03}": self._text(at) for at in range(ITEMS)}

    async def live(self, begun: float, until: float) -> None:
        """Ask, pause, and so on."""
        pace, tally = self._crowd.plan.pace, self._crowd.tally
        names, weights = list(MIX), list(MIX.values())
        due = begun + self._random.random() * pace
        while due < until:
            await asyncio.sleep(due - time.perf_counter())
            name = self._random.choices(names, weights)[0]
            start = time.perf_counter()
            tally.late.append(start - due)
            with contextlib.suppress(Unanswered):
                await self._verbs[name]()
                tally.took.setdefault(name, []).append(time.perf_counter() - start)
            due = max(time.perf_counter(), due + pace * self._random.uniform(0.5, 1.5))

    async def check(self) -> None:
        """Read the whole history, and hold it against what was acknowledged."""
        entries: list[dict[str, Any]] = []
        page: list[dict[str, Any]] = []
        before = ""
        while page or not before:
            path = f"/v1/sessions/{self.session}/history?limit={_PAGE}{before}"
            answer = await self._insist("GET", path)
            page = msgspec.json.decode(answer.body) if answer.status == 200 else []
            entries += page
            before = f"&before={page[-1]['step']}" if page else "&"
        judge(self.session, entries, self.acked, self._crowd.findings)
        await self._read(checked=True)

    # -- what an author does -------------------------------------------------------------------------------------------

    async def _read(self, *, checked: bool = False) -> None:
        answer = await self._insist("GET", f"/v1/sessions/{self.session}")
        if not self._fits(answer):
            return
        if checked or self._random.randrange(_CHECKED) == 0:
            told = {item["key"]: item["body"]["text"] for item in msgspec.json.decode(answer.body)["items"]}
            if told != self._items:
                self._crowd.wrong(f"{self.session} {answer.tag!r} has other items than were acknowledged")

    async def _header(self) -> None:
        self._fits(await self._insist("GET", f"/v1/sessions/{self.session}/header"))

    async def _poll(self) -> None:
        fields = (f"if-none-match: {self._tag.decode()}",)
        self._fits(await self._insist("GET", f"/v1/sessions/{self.session}", fields))

    async def _edit(self) -> None:
        number = self._random.randrange(2 * ITEMS)
        key, text = f"chunks/{number:03}", self._text(self._random.getrandbits(32))
        body = _encode({"changes": [{"put": key, "body": {"text": text}}]})
        if await self._write("PATCH", "", body):
            self._undo.append((key, self._items.get(key)))
            self._items[key] = text

    async def _take_back(self) -> None:
        if not self._undo:
            return await self._edit()
        if await self._write("POST", "/undo"):
            key, text = self._undo.pop()
            if text is None:
                del self._items[key]
            else:
                self._items[key] = text
        return None

    async def _create(self) -> Answer:
        items = [{"key": f"chunks/{at:03}", "body": {"text": self._text(at)}} for at in range(ITEMS)]
        body = _encode({"kind": "knowledge", "title": f"Load {self._number}", "items": items})
        return await self._insist("POST", "/v1/sessions", (self._change(), _JSON), body)

    async def _history(self) -> None:
        await self._insist("GET", f"/v1/sessions/{self.session}/history?limit=20")

    async def _list(self) -> None:
        await self._insist("GET", "/v1/sessions?limit=20")

    async def _preview(self) -> None:
        """Lock, look, and unlock: two requests."""
        seconds = _encode({"seconds": 900})
        answer = await self._insist("POST", f"/v1/sessions/{self.session}/preview", (_JSON,), seconds)
        self._tag = answer.tag or self._tag
        await self._write("POST", "/unlock")

    async def _suspend(self) -> None:
        await self._write("POST", "/suspend")

    async def _archive(self) -> None:
        """Send it to the cold tier: the next request brings it back."""
        self._fits(await self._insist("POST", f"/v1/sessions/{self.session}/archive"))

    async def _write(self, method: str, path: str, body: bytes = b"") -> bool:
        """A change of the session as it was last seen; whether it landed."""
        change = self._change()
        fields = (change, f"if-match: {self._tag.decode()}", *((_JSON,) if body else ()))
        answer = await self._insist(method, f"/v1/sessions/{self.session}{path}", fields, body)
        if answer.status != 200:
            return False
        self._tag = answer.tag
        self.acked[change.partition(": ")[2]] = version_of(answer.tag)
        return True

    # -- one request ---------------------------------------------------------------------------------------------------

    async def _insist(self, method: str, path: str, fields: Sequence[str] = (), body: bytes = b"") -> Answer:
        """Ask, at one replica after the other, until somebody answers.

        Raises:
            Unanswered: nobody has for ``GIVE_UP_SECONDS``.
        """
        said = request(method, path, self._token, *fields, body=body)
        crowd, pause = self._crowd, _FIRST_PAUSE
        until = time.monotonic() + GIVE_UP_SECONDS
        while True:
            answer = await self._try(said)
            if answer is not None and answer.status not in (429, 500, 503):
                if answer.status >= 400:
                    what = f"{answer.status} {code_of(answer)} {method} {path.replace(self.session, '…')}"
                    crowd.refused[what] = crowd.refused.get(what, 0) + 1
                return answer
            if time.monotonic() > until:
                crowd.given_up += 1
                raise Unanswered
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _try(self, said: bytes) -> Answer | None:
        """One try; None if there was no answer."""
        tally, pool = self._crowd.tally, self._crowd.pool
        tally.tries += 1
        address = pool.choose()
        try:
            connection = await pool.take(address)
        except OSError:
            tally.answers["unreachable"] += 1
            return None
        try:
            async with asyncio.timeout(LATE_SECONDS):
                answer = await connection.ask(said)
        except (OSError, TimeoutError) as error:
            tally.answers["late" if isinstance(error, TimeoutError) else "lost"] += 1
            connection.close()
            return None
        pool.give(address, connection)
        tally.answers[f"{answer.status} {code_of(answer)}".strip()] += 1
        return answer

    def _fits(self, answer: Answer) -> bool:
        """Whether a read is of the state that was last acknowledged to its only author."""
        if answer.status not in (200, 304):
            return False
        if not answer.tag:  # the mark of an answer that may be old: it has no tag
            self._crowd.stale += 1
            return False
        if answer.tag != self._tag:
            self._crowd.wrong(f"{self.session} is at {self._tag!r}, and was read at {answer.tag!r}")
            return False
        return True

    def _change(self) -> str:
        return f"idempotency-key: {self._number}.{next(self._changes)}"

    def _text(self, number: int) -> str:
        words = f"{self._number} {number} the sea rises twice a day "
        return (words * (TEXT // len(words) + 1))[:TEXT]


def judge(session: str, entries: Sequence[Mapping[str, Any]], acked: Mapping[str, int], findings: Findings) -> None:
    """Hold a history, newest first, against what was acknowledged: all of it once, and versions without a gap."""
    found: dict[str, list[int]] = {}
    for entry in entries:
        found.setdefault(entry["change"], []).append(entry["version"])
    findings.changes += len(acked)
    findings.lost += [
        f"{session} {change}" for change, version in acked.items() if version not in found.get(change, ())
    ]
    findings.twice += [f"{session} {change}" for change, versions in found.items() if len(versions) > 1]
    steps = [entry["step"] for entry in entries]
    versions = [entry["version"] for entry in entries if entry["commit"]]
    if steps != list(range(len(steps), 0, -1)) or versions != list(range(len(versions), 0, -1)):
        findings.gaps.append(session)


async def at_most(many: int, jobs: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Do all of them, so many at a time."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    async with asyncio.TaskGroup() as group:
        for _ in range(many):
            group.create_task(work())


def version_of(tag: bytes) -> int:
    """The version that a tag names, ``"7.9-0123456789abcdef"``."""
    return int(tag[1:].partition(b".")[0])


def code_of(answer: Answer) -> str:
    """The code of a problem, empty where there is none."""
    if answer.status < 400:
        return ""
    with contextlib.suppress(msgspec.DecodeError, TypeError, AttributeError):
        return str(msgspec.json.decode(answer.body).get("code", ""))
    return "?"


__all__ = ["MIX", "Crowd", "Findings", "Plan", "judge"]
