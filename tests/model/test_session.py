"""Sessions: the lifecycle as one whole table, what is due when, and items in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.access import Role
from holdfast.model.item import Item
from holdfast.model.retention import Retention
from holdfast.model.session import GONE, LIFECYCLE, Header, Lock, Publication, Session, Status, Tier, in_order

NOW = datetime(2026, 1, 2, tzinfo=UTC)

TABLE = """
                    draft      locked     published  discarded  expired
    edit            draft      -          -          -          -
    lock            locked     -          -          -          -
    unlock          -          draft      -          -          -
    take-over       -          locked     -          -          -
    publish-begin   -          locked     -          -          -
    publish-failed  -          locked     -          -          -
    publish         -          published  -          -          -
    rollback        -          -          published  -          -
    reopen          -          -          published  -          -
    discard         discarded  discarded  -          -          -
    expire          expired    expired    -          -          -
    revive          -          -          -          draft      draft
    purge           -          -          -          discarded  expired
    label           draft      locked     published  -          -
    grant           draft      locked     published  -          -
    rename          draft      -          -          -          -
    touch           draft      locked     -          -          -
    extend          draft      locked     -          -          -
    suspend         draft      locked     published  -          -
    warn            draft      locked     -          -          -
"""
STATUSES = [Status(name) for name in TABLE.split("\n")[1].split()]
LEADS = {
    line.split()[0]: dict(zip(STATUSES, line.split()[1:], strict=True))
    for line in TABLE.split("\n")[2:]
    if line.strip()
}


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def header(status: Status = Status.DRAFT, **fields: Any) -> Header:
    return Header("s", "acme", "knowledge", 1, "ana", status, NOW, NOW, **fields)


def lasting(ttl: float) -> dict[str, Any]:
    return {"expires": after(ttl), "expiring_since": NOW}


LOCK = Lock("ben", after(50), "seal")
PUBLICATION = Publication("r1", "a1", "seal", "target", None, "ben", after(70))


# -- the lifecycle ---------------------------------------------------------------------------------------------------


def test_the_table_here_has_every_verb_and_every_status() -> None:
    assert set(LEADS) == set(LIFECYCLE)
    assert set(STATUSES) == set(Status)


@pytest.mark.parametrize(("verb", "status"), list(product(LIFECYCLE, Status)))
def test_each_verb_leads_where_the_table_says_or_nowhere(verb: str, status: Status) -> None:
    leads = LEADS[verb][status]
    assert LIFECYCLE[verb].get(status) == (None if leads == "-" else Status(leads))


def test_from_published_nothing_leads_away_and_from_gone_only_a_revival() -> None:
    for verb, steps in LIFECYCLE.items():
        assert steps.get(Status.PUBLISHED) in (None, Status.PUBLISHED)
        for status in GONE:
            assert steps.get(status) in (None, status) or verb == "revive"


def test_only_a_locked_session_is_published() -> None:
    assert {
        (verb, status)
        for verb, steps in LIFECYCLE.items()
        for status, leads in steps.items()
        if leads is Status.PUBLISHED and status is not Status.PUBLISHED
    } == {("publish", Status.LOCKED)}


# -- the status as of a time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.DRAFT, Status.LOCKED])
def test_a_session_past_its_expiry_is_expired_swept_or_not(status: Status) -> None:
    session = header(status, **lasting(100), lock=None if status is Status.DRAFT else Lock("ben", after(500), "seal"))
    assert session.status_at(after(99.9)) is status
    assert session.status_at(after(100)) is Status.EXPIRED


def test_a_lapsed_lock_is_no_lock() -> None:
    session = header(Status.LOCKED, lock=LOCK)
    assert session.status_at(after(49.9)) is Status.LOCKED
    assert session.status_at(after(50)) is Status.DRAFT
    assert header(Status.LOCKED, lock=LOCK, **lasting(60)).status_at(after(60)) is Status.EXPIRED


def test_what_is_being_published_neither_expires_nor_unlocks() -> None:
    session = header(Status.LOCKED, lock=LOCK, publication=PUBLICATION, **lasting(60))
    assert session.status_at(after(10**6)) is Status.LOCKED


@pytest.mark.parametrize("status", [Status.PUBLISHED, *sorted(GONE)])
def test_what_is_over_stays_as_it_is(status: Status) -> None:
    assert header(status, **lasting(1)).status_at(after(10**6)) is status


def test_a_permanent_session_never_expires() -> None:
    assert header(retention=Retention(None)).status_at(after(10**9)) is Status.DRAFT


# -- what is due -----------------------------------------------------------------------------------------------------


def test_a_permanent_draft_has_nothing_due() -> None:
    assert header().events() == []
    assert header().next_look(None) is None


def test_warnings_are_due_once_each_and_then_the_expiry() -> None:
    times = [after(seconds) for seconds in (43_200, 69_120, 86_100, 86_400)]
    for warned in range(4):
        session = header(**lasting(86_400), warned=warned)
        assert session.events() == times[warned:]
        assert session.next_look(None) == times[warned].timestamp()


def test_a_lock_is_due_when_it_lapses_unless_it_is_publishing() -> None:
    assert header(Status.LOCKED, lock=LOCK).events() == [LOCK.until]
    assert header(Status.LOCKED, lock=LOCK, publication=PUBLICATION).events() == [PUBLICATION.until]
    both = header(Status.LOCKED, lock=LOCK, **lasting(100))
    assert sorted(both.events()) == [after(50), after(50), after(80), after(100)]


@pytest.mark.parametrize("status", sorted(GONE))
def test_what_is_gone_is_due_to_be_purged_when_its_grace_is_over(status: Status) -> None:
    assert header(status, **lasting(9), restorable_until=after(500)).events() == [after(500)]
    assert header(status).events() == [NOW]  # without a grace, at once
    # The step that says so comes before the content is purged, and whoever took it may have died in between.
    assert header(status, restorable_until=after(500), purged=True).events() == [after(500)]


def test_a_published_session_does_not_expire() -> None:
    assert header(Status.PUBLISHED, **lasting(9)).events() == []


def test_a_planned_look_stands_while_it_is_early_by_a_tenth_of_the_time_to_live() -> None:
    session = header(**lasting(86_400))
    due = after(43_200).timestamp()
    assert session.next_look(due - 8_640) == due - 8_640
    assert session.next_look(due - 8_641) == due
    assert session.next_look(due + 1) == due


@given(
    st.sampled_from(list(Status)),
    st.none() | st.integers(1, 10**7),
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(0, 10**7),
)
def test_the_next_look_is_never_after_what_is_due_first(
    status: Status, ttl: int | None, warned: int, locked: bool, publishing: bool, planned: int | None
) -> None:
    session = header(
        status,
        warned=warned,
        lock=LOCK if locked else None,
        publication=PUBLICATION if publishing else None,
        **({} if ttl is None else lasting(ttl)),
    )
    events = session.events()
    look = session.next_look(None if planned is None else NOW.timestamp() + planned)
    if not events:
        assert look is None
        return
    assert look is not None
    due = min(events).timestamp()
    assert due - (ttl or 0) * 0.1 - 2e-6 <= look <= due + 2e-6
    assert session.next_look(None) == pytest.approx(due, abs=2e-6, rel=0)


# -- the values ------------------------------------------------------------------------------------------------------


def test_a_header_comes_back_from_its_bytes() -> None:
    whole = header(
        Status.LOCKED,
        **lasting(100),
        title="Ünï",
        tier=Tier.DORMANT,
        version=7,
        step=9,
        digest=b"\0\xff",
        state=b"s",
        undo=8,
        redo=3,
        retention=Retention(60, False, 90),
        warned=1,
        restorable_until=after(5),
        lock=LOCK,
        publication=PUBLICATION,
        failure="why",
        grants={"ben": Role.EDITOR},
        target="t",
        parent="p",
        source={"name": "x.md"},
        blobs=("b",),
        count=2,
        size=3,
        labels=1,
        root=b"r",
        sealed=11,
        purged=True,
    )
    for codec in (msgspec.json, msgspec.msgpack):
        for value in (whole, header()):
            assert codec.decode(codec.encode(value), type=Header) == value


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["a0", "a1", "a1V"])), unique_by=lambda pair: pair[0])
)
def test_items_come_by_position_and_ties_by_key(made: list[tuple[str, str]]) -> None:
    items = {f"c/{name}": Item(f"c/{name}", position, b"{}", 1, 1) for name, position in made}
    session = Session(header(), items)
    expected = [f"c/{name}" for position, name in sorted((position, name) for name, position in made)]
    assert [item.key for item in session.items] == expected
    assert [item.key for item in in_order(items)] == expected


def test_a_session_shows_its_items_by_key_and_by_collection_and_its_header() -> None:
    items = {key: Item(key, position, b"{}", 1, 1) for key, position in (("b/1", "a2"), ("a/1", "a1"), ("b/2", "a0"))}
    session = Session(header(version=4), items)
    assert session.get("a/1") is items["a/1"]
    assert session.get("a/2") is None
    assert session.by_key == items
    assert [item.key for item in session.collection("b")] == ["b/2", "b/1"]
    assert session.collection("none") == ()
    assert (session.version, session.owner) == (4, "ana")
    assert repr(session) == "<Session s knowledge draft v4>"
    with pytest.raises(AttributeError):
        session.nothing_of_the_kind  # noqa: B018
