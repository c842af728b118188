"""Key-encryption keys from the environment."""

from __future__ import annotations

from holdfast.errors import ConfigurationError, WeakKeyError
from holdfast.ports.keys import Keys, KeySource
from holdfast.stores.keys.strength import check_keys, decode_key, is_default_secret

_WHERE = "HOLDFAST_KEYS"


class KeyEnvironment(KeySource):
    """Keys as ``id:base64`` with commas between; the first is active. Read-only: to rotate, set them anew."""

    writable = False

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "KeyEnvironment(***)"

    def read(self) -> Keys:
        if is_default_secret(self._text):
            raise WeakKeyError(f"{_WHERE} is a default secret; it holds id:base64, as `openssl rand -base64 32` makes.")
        keys: dict[str, bytes] = {}
        for number, part in enumerate(self._text.split(","), start=1):
            key_id, colon, encoded = part.strip().partition(":")
            if not colon:
                raise ConfigurationError(f"{_WHERE}: entry {number} is not id:base64.")
            if key_id in keys:
                raise ConfigurationError(f"{_WHERE}: there are two keys {key_id!r}.")
            keys[key_id] = decode_key(encoded, key_id, _WHERE)
        return check_keys(Keys(active=next(iter(keys)), keys=keys), _WHERE)

    def write(self, keys: Keys) -> None:
        raise ConfigurationError(
            f"Keys from {_WHERE} cannot be changed from here: put the new key first in it, keep the old ones behind it,"
            " start anew, and rotate."
        )
