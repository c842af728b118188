"""Entries of the log, and the digests that chain them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.change import Before, Change
from holdfast.model.entry import GENESIS, Entry, EntryHeader, Payload, entry_digest

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**53)
headers = st.builds(
    EntryHeader,
    step=counts,
    version=counts,
    operation=words,
    actor=words,
    at=st.integers(0, 10**15).map(lambda micros: NOW + timedelta(microseconds=micros)),
    change=words,
    fingerprint=st.binary(max_size=32),
    parent=st.binary(min_size=32, max_size=32),
    group=st.none() | words,
    beneath=counts,
    commit=st.booleans(),
)


@given(headers)
def test_a_header_comes_back_from_its_bytes(header: EntryHeader) -> None:
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(header), type=EntryHeader) == header


def test_a_payload_comes_back_from_its_bytes() -> None:
    payload = Payload(
        changes=(
            Change("c/1", "a0", (msgspec.Raw(b'{"text":"\xc3\xbc"}'),), None),
            Change("c/2", "a1", (), Before(3, 7, "a0")),
            Change("c/3", None, (), Before(1, 1, "a2")),
            Change("c/4", "a3", (msgspec.Raw(b"null"),), Before(1, 1, "a2")),
        ),
        detail={"label": "first", "count": 2},
    )
    again = msgspec.json.decode(msgspec.json.encode(payload), type=Payload)
    assert again == payload
    assert [change.verb for change in again.changes] == ["added", "moved", "deleted", "changed"]


def test_an_entry_gives_its_places_and_changes_directly() -> None:
    header = EntryHeader(9, 4, "edit", "ana", NOW, "c9", b"f", GENESIS)
    changes = (Change("c/2", "a1", (), Before(3, 7, "a0")),)
    entry = Entry("s", header, Payload(changes), b"digest", True)
    assert (entry.step, entry.version, entry.changes) == (9, 4, changes)


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_no_two_entries_have_the_same_digest(header: bytes, payload: bytes, other: bytes, another: bytes) -> None:
    assert len(entry_digest(header, payload)) == len(GENESIS) == 32
    same = entry_digest(header, payload) == entry_digest(other, another)
    assert same is ((header, payload) == (other, another))


@given(st.binary(max_size=20), st.binary(min_size=1, max_size=20))
def test_bytes_cannot_move_between_header_and_payload(header: bytes, payload: bytes) -> None:
    assert entry_digest(header + payload[:1], payload[1:]) != entry_digest(header, payload)
    assert entry_digest(header + payload, b"") != entry_digest(header, payload)
    assert entry_digest(b"", header + payload) != entry_digest(header, payload) or not header


@given(st.integers(0, 9), st.binary(min_size=1, max_size=8))
def test_a_change_anywhere_in_a_chain_shows_at_its_end(at: int, altered: bytes) -> None:
    def end_of(payloads: list[bytes]) -> bytes:
        parent = GENESIS
        for step, payload in enumerate(payloads, 1):
            header = EntryHeader(step, step, "edit", "ana", NOW, f"c{step}", b"f", parent)
            parent = entry_digest(msgspec.msgpack.encode(header), payload)
        return parent

    payloads = [b"payload %d" % step for step in range(10)]
    other = [*payloads[:at], payloads[at] + altered, *payloads[at + 1 :]]
    assert end_of(other) != end_of(payloads)
    assert end_of(payloads[:-1]) != end_of(payloads)
    assert end_of(payloads) == end_of(list(payloads))
