"""What the engine should answer, worked out anew with plain dicts and lists: the other half of ``machine``.

It knows nothing of stores, logs, digests or seals. Each method is one verb: it changes the record and gives the answer,
or raises ``Refused`` with the code of the error that the engine should raise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from holdfast.model import order

State = dict[str, tuple[str, str]]
"""Position and text of each item by key."""

Op = tuple[str, str, str]
"""``put`` key text, ``delete`` key, ``move`` key after (empty: to the end)."""

ADMIN = "root"
READ = frozenset({"owner", "editor", "participant", "viewer"})
WRITE = READ - {"viewer"}
STEER = WRITE - {"participant"}
OWN = frozenset({"owner"})
_GONE = ("discarded", "expired")


class Refused(Exception):  # noqa: N818 - an answer like any other
    """The engine should refuse, with this code."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Answer(msgspec.Struct, frozen=True):
    """What a write comes to: the version after it, and the verb of each item that it changed."""

    version: int
    changes: dict[str, str]
    replayed: bool = False


class Lock(msgspec.Struct):
    """Who holds a draft still until when, under which seal, and what was live when that was made."""

    owner: str
    until: datetime
    live: str | None
    seal: str = ""


class Taken(msgspec.Struct, frozen=True):
    """One entry of an undo or redo stack: the states on its two sides."""

    group: str | None
    before: State
    after: State


class Kept(msgspec.Struct):
    """A session as a plain record."""

    id: str
    owner: str
    ttl: float | None
    sliding: bool
    target: str
    expires: datetime | None
    states: list[State]
    parent: str | None = None
    origin: str | None = None
    touched: list[frozenset[str]] = []
    status: str = "draft"
    lock: Lock | None = None
    restorable: datetime | None = None
    grants: dict[str, str] = {}
    labels: dict[str, int] = {}
    undo: list[Taken] = []
    redo: list[Taken] = []
    changes: dict[str, tuple[object, Answer]] = {}
    fence: int = 0
    holder: str | None = None
    leased: datetime | None = None
    lease_seconds: float = 0.0
    seal: str = ""
    previous: str | None = None
    rolled_back: bool = False

    @property
    def version(self) -> int:
        return len(self.states) - 1

    @property
    def state(self) -> State:
        return self.states[-1]


class Expectation:
    """Every session there should be, and every answer."""

    def __init__(self, now: datetime, *, grace: float, lock: float, items: int) -> None:
        self.now, self.grace, self.lock_seconds, self.items = now, grace, lock, items
        self.sessions: dict[str, Kept] = {}
        self.live: dict[str, str | None] = {}

    # -- who may, and in which status --------------------------------------------------------------------------------

    def role(self, kept: Kept, who: str) -> str | None:
        if who == ADMIN:
            return "admin"
        return "owner" if who == kept.owner else kept.grants.get(who)

    def status(self, kept: Kept) -> str:
        """The status as of now: time brings some about before anybody writes them down."""
        if kept.status in ("draft", "locked"):
            if kept.expires is not None and kept.expires <= self.now:
                return "expired"
            if kept.lock is not None and kept.lock.until <= self.now:
                return "draft"
        return kept.status

    def enter(self, session: str, who: str, roles: frozenset[str], *, gone: bool = False) -> Kept:
        kept = self.sessions.get(session)
        if kept is None:
            raise Refused("session-not-found")
        role = self.role(kept, who)
        if kept.status == "purged":
            raise Refused("session-gone" if role in ("owner", "admin") else "session-not-found")
        if role is None:
            raise Refused("session-not-found")
        if role != "admin" and role not in roles:
            raise Refused("permission-denied")
        if not gone and self.status(kept) in _GONE:
            raise Refused("session-gone")
        return kept

    def _settled(self, session: str, who: str, roles: frozenset[str]) -> Kept:
        kept = self.enter(session, who, roles)
        if kept.status == "locked" and self.status(kept) == "draft":
            kept.status, kept.lock = "draft", None
        return kept

    def _must_be(self, kept: Kept, *statuses: str) -> None:
        if self.status(kept) not in statuses:
            raise Refused("session-gone" if self.status(kept) in _GONE else "not-draft")

    # -- making and writing --------------------------------------------------------------------------------------------

    def create(
        self, session: str, who: str, texts: Sequence[tuple[str, str]], ttl: float | None, sliding: bool = True
    ) -> Kept:
        state: State = {}
        position = None
        for key, text in texts:
            position = order.between(position, None)
            state[key] = (position, text)
        expires = None if ttl is None else self.now + timedelta(seconds=ttl)
        kept = Kept(session, who, ttl, sliding, session, expires, [{}, state], touched=[frozenset(), frozenset(state)])
        self.sessions[session] = kept
        return kept

    def edit(
        self,
        session: str,
        who: str,
        expected: int,
        ops: Sequence[Op],
        *,
        rebase: bool = False,
        group: str | None = None,
        change: str | None = None,
        fence: int | None = None,
        verb: str = "edit",
    ) -> Answer:
        kept = self._settled(session, who, WRITE)
        if not 0 <= expected <= kept.version:
            raise Refused("version-conflict")
        wanted = wanted_by(kept.states[expected], ops)
        request = (verb, who, tuple(sorted(wanted.items(), key=lambda pair: pair[0])))
        replay = self._replay(kept, change, request)
        if replay is not None:
            return replay
        self._must_be(kept, "draft")
        if expected < kept.version:
            since = frozenset[str]().union(*kept.touched[expected + 1 :])
            if not rebase or since & wanted.keys():
                raise Refused("version-conflict")
        after = dict(kept.state)
        for key, target in wanted.items():
            if target is None:
                after.pop(key, None)
            else:
                after[key] = target
        if after == kept.state:
            nothing = Answer(kept.version, {})
            if change is not None:  # remembered too
                kept.changes[change] = (request, nothing)
            return nothing
        return self._commit(kept, after, fence, change, request, group=group)

    def turn(
        self, verb: str, session: str, who: str, expected: int, *, change: str | None = None, fence: int | None = None
    ) -> Answer:
        """An undo or a redo."""
        kept = self._settled(session, who, WRITE)
        replay = self._replay(kept, change, (verb, who))
        if replay is not None:
            return replay
        self._must_be(kept, "draft")
        if expected != kept.version:
            raise Refused("version-conflict")
        stack = kept.undo if verb == "undo" else kept.redo
        if not stack:
            raise Refused("nothing-to-undo")
        taken = [stack[-1]]
        while verb == "undo" and taken[-1].group is not None and len(stack) > len(taken):
            below = stack[-1 - len(taken)]
            if below.group != taken[-1].group:
                break
            taken.append(below)
        after = taken[-1].before
        return self._commit(kept, after, fence, change, (verb, who), taken=len(taken), verb=verb)

    def restore(self, session: str, who: str, to: int | str, expected: int, *, fence: int | None = None) -> Answer:
        kept = self._settled(session, who, STEER)
        self._must_be(kept, "draft")
        if expected != kept.version:
            raise Refused("version-conflict")
        if isinstance(to, str):
            if to not in kept.labels:
                raise Refused("label-not-found")
            to = kept.labels[to]
        if not 0 <= to <= kept.version:
            raise Refused("version-not-found")
        if kept.states[to] == kept.state:
            return Answer(kept.version, {})
        return self._commit(kept, dict(kept.states[to]), fence, None, ())

    def _replay(self, kept: Kept, change: str | None, request: object) -> Answer | None:
        if change is None or change not in kept.changes:
            return None
        first, answer = kept.changes[change]
        if first != request:
            raise Refused("change-id-reused")
        return msgspec.structs.replace(answer, replayed=True)

    def _commit(
        self,
        kept: Kept,
        after: State,
        fence: int | None,
        change: str | None,
        request: object,
        *,
        group: str | None = None,
        taken: int = 0,
        verb: str = "edit",
    ) -> Answer:
        if len(after) > len(kept.state) and len(after) > self.items:
            raise Refused("limit-exceeded")
        self._fenced(kept, fence)
        before = kept.state
        answer = Answer(kept.version + 1, differing(before, after))
        entry = Taken(group, before, after)
        if verb == "edit":
            kept.undo.append(entry)
            kept.redo.clear()
        elif verb == "undo":
            del kept.undo[-taken:]
            kept.redo.append(entry)
        else:
            del kept.redo[-taken:]
            kept.undo.append(entry)
        kept.states.append(after)
        kept.touched.append(frozenset(answer.changes))
        if change is not None:
            kept.changes[change] = (request, answer)
        if kept.sliding and kept.ttl is not None:
            kept.expires = self.now + timedelta(seconds=kept.ttl)
        return answer

    def _fenced(self, kept: Kept, fence: int | None) -> None:
        live = kept.holder is not None and kept.leased is not None and kept.leased > self.now
        if fence is None:
            if live:
                raise Refused("lease-held")
            return
        if fence != kept.fence:
            raise Refused("lease-lost")
        if live:
            kept.leased = self.now + timedelta(seconds=kept.lease_seconds)

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, session: str, who: str, version: int | None = None) -> list[tuple[str, str, str]]:
        """Key, position and text of each item, in order."""
        kept = self.enter(session, who, READ)
        if version is not None and not 0 <= version <= kept.version:
            raise Refused("version-not-found")
        return in_order(kept.state if version is None else kept.states[version])

    def header(self, session: str, who: str) -> tuple[str, int]:
        """The status as it is written down, and the version."""
        kept = self.enter(session, who, READ, gone=True)
        return kept.status, kept.version

    def find(self, who: str) -> set[str]:
        return {kept.id for kept in self.sessions.values() if kept.status != "purged" and self.role(kept, who)}

    # -- labels, titles, rights ----------------------------------------------------------------------------------------

    def label(self, session: str, who: str, name: str, version: int | None) -> int:
        kept = self._settled(session, who, STEER)
        if version is not None and not 0 <= version <= kept.version:
            raise Refused("version-not-found")
        kept.labels[name] = kept.version if version is None else version
        return kept.labels[name]

    def grant(self, session: str, who: str, principal: str, role: str | None) -> None:
        kept = self._settled(session, who, OWN)
        if role is None:
            kept.grants.pop(principal, None)
        else:
            kept.grants[principal] = role

    def rename(self, session: str, who: str) -> None:
        self._must_be(self._settled(session, who, STEER), "draft")

    # -- preview, publish ----------------------------------------------------------------------------------------------

    def preview(self, session: str, who: str) -> Lock:
        kept = self._settled(session, who, STEER)
        if kept.status == "locked" and kept.lock is not None and kept.lock.owner != who:
            raise Refused("lock-held")
        self._must_be(kept, "draft", "locked")
        until = self.now + timedelta(seconds=self.lock_seconds)
        kept.status, kept.lock = "locked", Lock(who, until, self.live.get(kept.target))
        return kept.lock

    def take_over(self, session: str, who: str) -> Lock:
        kept = self._settled(session, who, STEER)
        self._must_be(kept, "locked")
        if kept.lock is not None and kept.lock.owner != who:
            kept.labels[f"{kept.lock.owner} {self.now:%Y-%m-%d %H:%M:%S}"] = kept.version
            kept.lock.owner = who
        return self.preview(session, who)

    def unlock(self, session: str, who: str) -> None:
        kept = self._settled(session, who, STEER)
        self._must_be(kept, "locked")
        if kept.lock is not None and kept.lock.owner != who and who != ADMIN:
            raise Refused("lock-held")
        kept.status, kept.lock = "draft", None

    def publish(self, session: str, who: str, seal: str) -> str | None:
        """The session whose publication was live before."""
        kept = self._settled(session, who, STEER)
        live = self.live.get(kept.target)
        if live is not None and live != kept.id and who != ADMIN:
            first = self.sessions[live].origin or live  # the right to a target is its first session's
            if self.role(self.sessions[first], who) not in STEER:
                raise Refused("permission-denied")
        if kept.status == "published":
            if seal != kept.seal:
                raise Refused("not-draft")
            return kept.previous
        self._must_be(kept, "locked")
        if kept.lock is None or (kept.lock.owner != who and who != ADMIN):
            raise Refused("lock-held")
        if kept.lock.seal != seal:
            raise Refused("seal-mismatch")
        if kept.lock.live != live:
            raise Refused("live-moved")
        kept.status, kept.seal, kept.lock, kept.expires, kept.previous = "published", seal, None, None, live
        self.live[kept.target] = kept.id
        return live

    def rollback(self, session: str, who: str) -> None:
        kept = self.enter(session, who, OWN)
        self._must_be(kept, "published")
        if kept.rolled_back:
            return
        if self.live.get(kept.target) != kept.id:
            raise Refused("live-moved")
        kept.rolled_back = True
        self.live[kept.target] = kept.previous

    def reopen(self, session: str, who: str) -> Kept:
        """The published session that a new draft is made of."""
        kept = self.enter(session, who, STEER)
        self._must_be(kept, "published")
        return kept

    def reopened(self, session: str, who: str, parent: Kept) -> None:
        texts = [(key, text) for key, _, text in in_order(parent.state)]
        kept = self.create(session, who, texts, parent.ttl, parent.sliding)
        kept.target, kept.parent, kept.origin = parent.target, parent.id, parent.origin or parent.id

    # -- keeping and letting go ----------------------------------------------------------------------------------------

    def touch(self, session: str, who: str) -> None:
        kept = self._settled(session, who, WRITE)
        self._must_be(kept, "draft", "locked")
        if kept.sliding and kept.ttl is not None:
            kept.expires = self.now + timedelta(seconds=kept.ttl)

    def extend(self, session: str, who: str, seconds: float | None) -> None:
        kept = self._settled(session, who, STEER)
        self._must_be(kept, "draft", "locked")
        kept.ttl = seconds
        kept.expires = None if seconds is None else self.now + timedelta(seconds=seconds)

    def discard(self, session: str, who: str) -> None:
        kept = self._settled(session, who, OWN)
        self._must_be(kept, "draft", "locked")
        self._end(kept, "discarded", self.now)

    def revive(self, session: str, who: str) -> None:
        kept = self.enter(session, who, OWN, gone=True)
        if self.status(kept) not in _GONE:
            raise Refused("not-draft")
        if kept.status in _GONE and (kept.restorable is None or kept.restorable <= self.now):
            raise Refused("session-gone")
        kept.status, kept.lock, kept.restorable = "draft", None, None
        kept.expires = None if kept.ttl is None else self.now + timedelta(seconds=kept.ttl)

    def sweep(self) -> Mapping[str, int]:
        """What the sweeper does, warnings aside: how many sessions it expires, unlocks and purges."""
        done = {"expired": 0, "unlocked": 0, "purged": 0}
        for kept in self.sessions.values():
            if kept.status in ("draft", "locked") and self.status(kept) == "expired":
                self._end(kept, "expired", self.now)
                done["expired"] += 1
            elif kept.status == "locked" and self.status(kept) == "draft":
                kept.status, kept.lock = "draft", None
                done["unlocked"] += 1
            if kept.status in _GONE and kept.restorable is not None and kept.restorable <= self.now:
                kept.status = "purged"
                done["purged"] += 1
        return done

    def _end(self, kept: Kept, status: str, since: datetime) -> None:
        kept.status, kept.lock, kept.expires = status, None, None
        kept.restorable = since + timedelta(seconds=self.grace)

    # -- leases --------------------------------------------------------------------------------------------------------

    def lease(self, session: str, who: str, holder: str, seconds: float, force: bool) -> int:
        kept = self._settled(session, who, WRITE)
        self._must_be(kept, "draft")
        live = kept.holder is not None and kept.leased is not None and kept.leased > self.now
        if live and kept.holder != holder and not force:
            raise Refused("lease-held")
        kept.fence, kept.holder, kept.lease_seconds = kept.fence + 1, holder, seconds
        kept.leased = self.now + timedelta(seconds=seconds)
        return kept.fence

    def release(self, session: str, who: str, fence: int) -> None:
        kept = self.enter(session, who, WRITE, gone=True)
        if kept.fence == fence:
            kept.holder = None


def in_order(state: State) -> list[tuple[str, str, str]]:
    """Key, position and text of each item, in order."""
    return sorted(((key, *target) for key, target in state.items()), key=lambda item: (item[1], item[0]))


def differing(before: State, after: State) -> dict[str, str]:
    """The verb of each item that differs."""
    verbs = {}
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old is None or new is None:
            verbs[key] = "added" if old is None else "deleted"
        elif old[1] != new[1]:
            verbs[key] = "changed"
        elif old[0] != new[0]:
            verbs[key] = "moved"
    return verbs


def wanted_by(base: State, ops: Sequence[Op]) -> dict[str, tuple[str, str] | None]:
    """What an author who saw ``base`` wants of each item; operations on items that are not there are left out."""
    seen, wanted = dict(base), dict[str, "tuple[str, str] | None"]()
    for verb, key, more in ops:
        here = seen.get(key)
        others = sorted(position for name, (position, _) in seen.items() if name != key)
        if verb == "put":
            position = here[0] if here is not None else order.between(others[-1] if others else None, None)
            seen[key] = (position, more)
        elif here is None:
            continue
        elif verb == "delete":
            del seen[key]
        elif more and more != key and more in seen:
            low = seen[more][0]
            above = next((position for position in others if position > low), None)
            seen[key] = (order.between(low, above), here[1])
        else:
            seen[key] = (order.between(others[-1] if others else None, None), here[1])
        wanted[key] = seen.get(key)
    return wanted
