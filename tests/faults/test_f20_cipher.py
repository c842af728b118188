"""F20, R16, S13, S14: sealed bytes that were altered, cut or put elsewhere do not open, whichever bit it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import permutations
from random import Random
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher as Raw
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from holdfast.engine.sealing import (
    Cipher,
    KeyRing,
    open_head,
    open_item,
    open_payload,
    seal_head,
    seal_item,
    seal_payload,
)
from holdfast.errors import TamperedError, UnreadableError
from holdfast.model.change import Change
from holdfast.model.entry import Payload
from holdfast.model.item import Item
from holdfast.model.session import Header, SealedHead, SealedItem, Status
from holdfast.ports.keys import Keys, KeySource
from holdfast.testing.clock import START, SeededChance

pytestmark = pytest.mark.no_cover  # repeats what others measure once

FLIPS = int(os.environ.get("HOLDFAST_TEST_FLIPS", "10000"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "20261120"))
KEY = bytes(range(32))

Opened = Callable[[bytes], Any]


class MemoryKeys(KeySource):
    """A key ring that is not kept."""

    writable = True

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def read(self) -> Keys:
        return self.keys

    def write(self, keys: Keys) -> None:
        self.keys = keys


def header(session: str, *, version: int = 3, **more: Any) -> Header:
    return Header(
        id=session,
        tenant="t",
        kind="knowledge",
        schema=1,
        owner="ana",
        status=Status.DRAFT,
        created=START,
        updated=START,
        title="A title",
        version=version,
        step=version,
        digest=bytes(32),
        **more,
    )


def item(key: str = "chunks/1", *, version: int = 3, size: int = 200) -> Item:
    return Item(key, "a0", msgspec.json.encode({"text": "x" * size}), version, version)


def samples(cipher: Cipher) -> Iterator[tuple[str, bytes, Opened]]:
    """One of everything sealed under a data key: its name, its bytes, and how they are opened in their place."""
    for size in (10, 400, 6_000):
        sealed = seal_item(cipher, item(size=size))
        yield f"item of {size}", sealed.sealed or b"", partial(as_item, cipher, sealed)
    head = seal_head(cipher, header("s"), None, b"key")
    yield "head", head.sealed, partial(as_head, cipher, head)
    payload = seal_payload(cipher, b"{}", Payload((Change("chunks/1", "a0", (msgspec.Raw(b'"x"'),), None),)))
    yield "entry", payload, partial(as_payload, cipher, b"{}")


def as_item(cipher: Cipher, place: SealedItem, data: bytes) -> object:
    return open_item(cipher, msgspec.structs.replace(place, sealed=data))


def as_head(cipher: Cipher, place: SealedHead, data: bytes) -> object:
    return open_head(cipher, msgspec.structs.replace(place, sealed=data))


def as_payload(cipher: Cipher, place: bytes, data: bytes) -> object:
    return open_payload(cipher, place, data, "an entry")


def accepted(cases: Iterable[tuple[str, bytes]], open_it: Opened) -> list[str]:
    """Which of the altered bytes were not refused in one of our two ways."""
    let_in = []
    for name, data in cases:
        try:
            open_it(data)
        except (TamperedError, UnreadableError):
            continue
        except Exception:  # it was opened, and what came out was nonsense
            let_in.append(f"{name}, and nonsense came out")
            continue
        let_in.append(name)
    return let_in


def flips(name: str, data: bytes, random: Random, count: int) -> Iterator[tuple[str, bytes]]:
    bits = random.sample(range(len(data) * 8), min(count, len(data) * 8))
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"{name} bit {bit}", bytes(changed)


def cuts(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    for length in sorted({*range(40), len(data) // 2, len(data) - 16, len(data) - 1}):
        if length < len(data):
            yield f"{name} cut to {length}", data[:length]
    yield f"{name} and a byte", data + b"\0"
    yield f"{name} twice", data + data


class StreamCipher(Cipher):
    """Broken on purpose: it encrypts and does not authenticate."""

    def seal(self, data: bytes, aad: bytes) -> bytes:
        return b"\x01" + bytes(12) + self._crypt(data)

    def open(self, sealed: bytes, aad: bytes, what: str) -> bytes:
        return self._crypt(sealed[13:])

    def _crypt(self, data: bytes) -> bytes:
        crypt = Raw(algorithms.AES(KEY), modes.CTR(bytes(16))).encryptor()
        return crypt.update(data) + crypt.finalize()


class UnboundCipher(Cipher):
    """Broken on purpose: it authenticates the bytes and not where they belong."""

    def __init__(self, key: bytes, tenant: str, session: str, chance: SeededChance) -> None:
        super().__init__(key, "", "", chance)

    def seal(self, data: bytes, aad: bytes) -> bytes:
        return super().seal(data, b"")

    def open(self, sealed: bytes, aad: bytes, what: str) -> bytes:
        return super().open(sealed, b"", what)


def try_flips(cipher: Cipher, count: int) -> tuple[int, list[str]]:
    """Alter each sample in single bits, and cut it; returns how many were tried and which opened."""
    random, tried, let_in = Random(SEED), 0, []
    while tried < count:
        for name, data, open_it in samples(cipher):
            open_it(data)
            for cases in (flips(name, data, random, max(1, count // 4)), cuts(name, data)):
                listed = list(cases)
                tried += len(listed)
                let_in += accepted(listed, open_it)
    return tried, let_in


def test_f20_r16_no_flipped_bit_and_no_cut_is_accepted() -> None:
    tried, let_in = try_flips(Cipher(KEY, "t", "s", SeededChance(SEED)), FLIPS)
    print(f"F20 flips and cuts seed={SEED} tried={tried} accepted={len(let_in)}")
    assert tried >= FLIPS
    assert not let_in, let_in[:5]


def test_f20_teeth_a_cipher_that_does_not_authenticate_is_found() -> None:
    tried, let_in = try_flips(StreamCipher(KEY, "t", "s", SeededChance(SEED)), 1_000)
    print(f"F20 broken cipher tried={tried} accepted={len(let_in)}")
    assert len(let_in) > 500


def test_f20_no_flipped_bit_in_a_wrapped_key_is_accepted() -> None:
    ring = KeyRing(MemoryKeys(Keys("k1", {"k1": KEY, "k0": bytes(32)})), SeededChance(SEED))
    wrapped = ring.wrap(b"d" * 32, "t", "s")
    assert ring.unwrap(wrapped, "t", "s") == b"d" * 32
    cases = [*flips("wrapped key", wrapped, Random(SEED), len(wrapped) * 8), *cuts("wrapped key", wrapped)]
    let_in = accepted(cases, lambda data: ring.unwrap(data, "t", "s"))
    print(f"F20 wrapped key: every bit and cut, tried={len(cases)} accepted={len(let_in)}")
    assert not let_in, let_in


def try_swaps(cipher_class: type[Cipher]) -> tuple[int, list[str]]:
    """Put everything sealed into every other place: item, version, kind of row, session, tenant, column beside it."""
    chance = SeededChance(SEED)
    places: dict[str, tuple[bytes, Opened]] = {}
    for tenant, session in (("t", "s"), ("t", "s2"), ("t2", "s"), ("ts", "")):
        # The same key everywhere: only what it is bound to keeps one apart from the other.
        cipher = cipher_class(KEY, tenant, session, chance)
        for key, version in (("chunks/1", 3), ("chunks/1", 4), ("chunks/2", 3)):
            sealed = seal_item(cipher, item(key, version=version))
            places[f"{tenant}/{session} {key}@{version}"] = (
                sealed.sealed or b"",
                partial(as_item, cipher, sealed),
            )
        for version in (3, 4):
            head = seal_head(cipher, header(session or "none", version=version), None, b"k")
            places[f"{tenant}/{session} head@{version}"] = (
                head.sealed,
                partial(as_head, cipher, head),
            )
        for number in (b"1", b"2"):
            payload = seal_payload(cipher, number, Payload(detail={"n": number.decode()}))
            places[f"{tenant}/{session} entry {number.decode()}"] = (
                payload,
                partial(as_payload, cipher, number),
            )
    for data, open_it in places.values():
        open_it(data)
    pairs = list(permutations(places, 2))
    let_in = []
    for there, here in pairs:
        let_in += accepted([(f"{there} put at {here}", places[there][0])], places[here][1])
    return len(pairs), let_in


def test_f20_s13_nothing_sealed_opens_in_another_place() -> None:
    tried, let_in = try_swaps(Cipher)
    print(f"F20/S13 swaps of rows, versions, sessions, tenants: tried={tried} accepted={len(let_in)}")
    assert not let_in, let_in[:5]


def test_f20_s13_teeth_a_cipher_that_binds_nothing_is_found() -> None:
    tried, let_in = try_swaps(UnboundCipher)
    print(f"F20/S13 broken cipher: tried={tried} accepted={len(let_in)}")
    assert let_in


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "s2"),
        ("owner", "eve"),
        ("kind", "graph"),
        ("status", "published"),
        ("step", 9),
        ("version", 9),
        ("digest", b"x" * 32),
    ],
)
def test_f20_s13_a_column_beside_the_sealed_head_cannot_be_altered_alone(column: str, value: object) -> None:
    cipher = Cipher(KEY, "t", "s", SeededChance(SEED))
    head = seal_head(cipher, header("s"), None, b"key")
    with pytest.raises(TamperedError):
        open_head(cipher, msgspec.structs.replace(head, **{column: value}))


def test_f20_s15_a_wrong_a_missing_and_a_destroyed_key_open_nothing() -> None:
    source = MemoryKeys(Keys("k1", {"k1": KEY}))
    ring = KeyRing(source, SeededChance(SEED))
    wrapped = ring.wrap(b"d" * 32, "t", "s")
    with pytest.raises(TamperedError):
        ring.unwrap(wrapped, "t", "s2")
    with pytest.raises(TamperedError):
        ring.unwrap(wrapped, "t2", "s")
    with pytest.raises(UnreadableError):
        ring.unwrap(None, "t", "s")
    with pytest.raises(TamperedError):
        KeyRing(MemoryKeys(Keys("k1", {"k1": bytes(32)})), SeededChance(SEED)).unwrap(wrapped, "t", "s")
    with pytest.raises(UnreadableError):
        KeyRing(MemoryKeys(Keys("k2", {"k2": KEY})), SeededChance(SEED)).unwrap(wrapped, "t", "s")
    ring.rotate()
    assert ring.unwrap(wrapped, "t", "s") == b"d" * 32
    ring.drop("k1")
    with pytest.raises(UnreadableError):
        ring.unwrap(wrapped, "t", "s")


def repeats(cipher_class: type[Cipher], count: int) -> int:
    """How many of some messages share a nonce with another one, when the randomness itself comes twice."""
    seen = set()
    for copy in range(2):  # a forked process, or a machine started twice from one snapshot: the same chance again
        cipher = cipher_class(KEY, "t", "s", SeededChance(SEED))
        for number in range(count):
            seen.add(cipher.seal(b"%d of copy %d" % (number, copy), b"")[1:13])
    return 2 * count - len(seen)


class RandomNonceCipher(Cipher):
    """Broken on purpose: the nonce is the randomness as it came."""

    def seal(self, data: bytes, aad: bytes) -> bytes:
        return b"\x01" + self.chance.bytes(12) + data


def test_s14_no_nonce_repeats_even_when_the_randomness_does() -> None:
    count = int(os.environ.get("HOLDFAST_TEST_NONCES", "100000"))
    found = repeats(Cipher, count)
    print(f"S14 nonces={2 * count} repeats={found} (the same random source, twice)")
    assert found == 0


def test_s14_teeth_a_nonce_of_nothing_but_randomness_repeats() -> None:
    assert repeats(RandomNonceCipher, 1_000) == 1_000
