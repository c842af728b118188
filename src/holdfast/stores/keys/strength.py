"""What makes a key-encryption key acceptable: 32 bytes that no person typed and no example shows."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from itertools import pairwise

from holdfast.errors import ConfigurationError, WeakKeyError
from holdfast.ports.keys import Keys

LENGTH = 32

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_DEFAULTS = (
    "", "0", "1234", "12345678", "admin", "change-me", "change_me", "changeit", "changeme", "default", "dev", "example",
    "foobar", "holdfast", "insecure", "key", "letmein", "master", "my-secret", "mysecret", "pass", "password", "qwerty",
    "root", "s3cr3t", "secret", "secret-key", "secret_key", "secretkey", "supersecret", "test", "todo", "xxx",
)  # fmt: skip
_DIGESTS = frozenset(hashlib.sha256(word.encode()).digest() for word in _DEFAULTS)
_FEWEST_DISTINCT = 16
"""Of 32 random bytes about 30 are distinct; fewer than 16 come about by chance less than once in 10**20 keys."""


def check_keys(keys: Keys, where: str) -> Keys:
    """The keys, if each of them is fit for use.

    Raises:
        ConfigurationError: there is none, the active one is missing, or an id is not a word.
        WeakKeyError: a key has a wrong length or is a guess, a pattern or a default. It is never shown.
    """
    if keys.active not in keys.keys:
        raise ConfigurationError(f"{where}: the active key {keys.active!r} is not among the keys.")
    for key_id, key in keys.keys.items():
        if _ID.fullmatch(key_id) is None:
            raise ConfigurationError(f"{where}: {key_id[:80]!r} is not a key id: letters, digits, and . _ - within.")
        weakness = _weakness(key)
        if weakness is not None:
            raise WeakKeyError(f"{where}: key {key_id!r} {weakness}; make one with `openssl rand -base64 32`.")
    return keys


def is_default_secret(text: str) -> bool:
    """Whether a text is one of the secrets that everybody tries first."""
    return text.strip().lower() in _DEFAULTS


def decode_key(text: str, key_id: str, where: str) -> bytes:
    """A key from base64, standard or URL-safe.

    Raises:
        ConfigurationError: it is not base64.
        WeakKeyError: it is a default secret.
    """
    if is_default_secret(text):
        raise WeakKeyError(f"{where}: key {key_id!r} is a default secret; make one with `openssl rand -base64 32`.")
    try:
        return base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"{where}: key {key_id!r} is not base64 of {LENGTH} bytes.") from None


def encode_key(key: bytes) -> str:
    """A key as base64."""
    return base64.b64encode(key).decode()


def _weakness(key: bytes) -> str | None:
    if len(key) != LENGTH:
        return f"has {len(key)} bytes and not {LENGTH}"
    if len(set(key)) < _FEWEST_DISTINCT:
        return "repeats itself"
    if len({(after - before) % 256 for before, after in pairwise(key)}) == 1:
        return "is a plain sequence"
    if all(0x20 <= byte < 0x7F for byte in key):
        return "is typed text and not random bytes"
    if key in _DIGESTS:
        return "is the hash of a default secret"
    return None
