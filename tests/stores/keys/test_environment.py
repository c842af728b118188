"""Keys from the environment."""

from __future__ import annotations

import base64
import hashlib

import pytest

from holdfast.errors import ConfigurationError, WeakKeyError
from holdfast.ports.keys import Keys
from holdfast.stores.keys.environment import KeyEnvironment

ONE, TWO = hashlib.sha256(b"one").digest(), hashlib.sha256(b"two").digest()


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_the_first_key_is_active_and_the_others_unwrap() -> None:
    keys = KeyEnvironment(f"k2:{text(TWO)},k1:{text(ONE)}").read()
    assert keys == Keys(active="k2", keys={"k2": TWO, "k1": ONE})


def test_spaces_and_url_safe_base64_are_understood() -> None:
    keys = KeyEnvironment(f" k2:{base64.urlsafe_b64encode(TWO).decode()} , k1:{text(ONE)}\n").read()
    assert keys.keys == {"k2": TWO, "k1": ONE}


@pytest.mark.parametrize(
    "given",
    [text(ONE), f"k1={text(ONE)}", f"k1:{text(ONE)},", "k1:***", f":{text(ONE)}", f"k1:{text(ONE)},k1:{text(TWO)}"],
)
def test_what_is_not_a_list_of_keys_is_refused_without_showing_it(given: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KeyEnvironment(given).read()
    assert "HOLDFAST_KEYS" in str(caught.value)
    assert text(ONE) not in str(caught.value)


@pytest.mark.parametrize("given", ["changeme", "secret", "", "k1:changeme", "k1:", f"k1:{text(b'short')}"])
def test_s27_default_secrets_are_refused(given: str) -> None:
    with pytest.raises(WeakKeyError):
        KeyEnvironment(given).read()


def test_the_environment_cannot_be_written() -> None:
    source = KeyEnvironment(f"k1:{text(ONE)}")
    with pytest.raises(ConfigurationError, match="cannot be changed from here"):
        source.write(Keys(active="k2", keys={"k2": TWO}))
    assert source.read().active == "k1"


def test_the_keys_do_not_show_in_its_representation() -> None:
    assert text(ONE) not in repr(KeyEnvironment(f"k1:{text(ONE)}"))
