"""What makes a key acceptable."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigurationError, WeakKeyError
from holdfast.ports.keys import Keys
from holdfast.stores.keys.strength import check_keys, decode_key, encode_key

WEAK = {
    "empty": b"",
    "16 bytes": hashlib.sha256(b"key").digest()[:16],
    "31 bytes": hashlib.sha256(b"key").digest()[:31],
    "33 bytes": hashlib.sha256(b"key").digest() + b"x",
    "all zero": bytes(32),
    "one byte": b"\xaa" * 32,
    "two bytes by turns": b"\xde\xad" * 16,
    "eight bytes by turns": bytes.fromhex("deadbeefcafe0102") * 4,
    "counting up": bytes(range(32)),
    "counting down": bytes(range(255, 223, -1)),
    "counting by three": bytes(range(7, 103, 3)),
    "typed": b"this-is-a-32-byte-secret-key-ok!",
    "changeme": b"changeme" * 4,
    "changeme padded": b"changeme".ljust(32, b"\0"),
    "hash of changeme": hashlib.sha256(b"changeme").digest(),
    "hash of secret": hashlib.sha256(b"secret").digest(),
}


@pytest.mark.parametrize("key", WEAK.values(), ids=WEAK.keys())
def test_s27_a_guess_a_pattern_or_a_default_is_refused(key: bytes) -> None:
    with pytest.raises(WeakKeyError) as caught:
        check_keys(Keys(active="k1", keys={"k1": key}), "here")
    assert "'k1'" in str(caught.value)
    assert str(caught.value).startswith("here")


@given(st.integers())
def test_random_keys_are_accepted_and_survive_their_text(seed: int) -> None:
    key = hashlib.sha256(b"random %d" % seed).digest()
    assert check_keys(Keys(active="k", keys={"k": key}), "here").keys["k"] == key
    assert decode_key(encode_key(key), "k", "here") == key


@pytest.mark.parametrize("word", ["changeme", "ChangeMe", " secret ", "password", ""])
def test_s27_a_default_secret_in_the_place_of_a_key_is_named_as_one(word: str) -> None:
    with pytest.raises(WeakKeyError, match="default secret"):
        decode_key(word, "k1", "here")


@pytest.mark.parametrize("key_id", ["", "a b", "a:b", "a,b", ".a", "x" * 65, "a\n"])
def test_an_id_that_is_no_word_is_refused(key_id: str) -> None:
    with pytest.raises(ConfigurationError):
        check_keys(Keys(active=key_id, keys={key_id: hashlib.sha256(b"key").digest()}), "here")
