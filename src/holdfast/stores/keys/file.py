"""Key-encryption keys in a file of one's own."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from holdfast.errors import ConfigurationError
from holdfast.ports.clock import Chance
from holdfast.ports.keys import Keys, KeySource
from holdfast.stores.keys.strength import LENGTH, check_keys, decode_key, encode_key

_MOST = 1_000_000


class _Form(msgspec.Struct, forbid_unknown_fields=True):
    """What the file holds."""

    active: str
    keys: dict[str, str]


class KeyFile(KeySource):
    """A JSON file of mode 0600: the keys as base64 by id, and which of them is active."""

    writable = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: bytes | None = None

    @classmethod
    def open(cls, path: str | Path, chance: Chance) -> KeyFile:
        """The key file of a path; made with one random key if it is not there, once however many processes open it.

        Raises:
            ConfigurationError: the file cannot be made.
        """
        source = cls(Path(path))
        if not source._is_there():
            key_id = f"key-{chance.token()[:12]}"
            keys = Keys(active=key_id, keys={key_id: chance.bytes(LENGTH)})
            with source._alone():
                if not source._is_there():
                    source._replace(keys)
        return source

    @property
    def path(self) -> Path:
        return self._path

    def read(self) -> Keys:
        """The keys as they stand now.

        Raises:
            ConfigurationError: the file is not there, is no key file, or others than its owner may read it.
            WeakKeyError: a key in it is not fit for use.
        """
        raw = self._raw()
        where = f"The key file {self._path}"
        try:
            form = msgspec.json.decode(raw, type=_Form)
        except msgspec.DecodeError:
            # Not the decoder's own words: they may quote what is in the file.
            raise ConfigurationError(f"{where} is not of the form {{active: id, keys: {{id: base64}}}}.") from None
        keys = {key_id: decode_key(text, key_id, where) for key_id, text in form.keys.items()}
        checked = check_keys(Keys(active=form.active, keys=keys), where)
        self._seen = raw
        return checked

    def write(self, keys: Keys) -> None:
        """Replace the keys, atomically and durably.

        Raises:
            ConfigurationError: somebody else has changed the file since it was read here, and a key of theirs would be
                lost; or it cannot be written. Nothing is changed.
            WeakKeyError: a key is not fit for use.
        """
        check_keys(keys, "The keys to write")
        with self._alone():
            if self._seen is None or self._raw() != self._seen:
                raise ConfigurationError(
                    f"The key file {self._path} is not as it was last read here; read it again, then write."
                )
            self._replace(keys)

    def _is_there(self) -> bool:
        try:
            return self._path.exists()
        except OSError as error:
            raise ConfigurationError(f"The key file {self._path} cannot be read: {error.strerror}.") from None

    def _raw(self) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ConfigurationError(f"The key file {self._path} cannot be read: {error.strerror}.") from None
        try:
            # Of the descriptor, so that what is checked is what is read.
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigurationError(f"{self._path} is not a file and so no key file.")
            if mode & 0o077:
                raise ConfigurationError(f"Others may read the key file: chmod 600 {self._path}")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(_MOST)
        finally:
            os.close(descriptor)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no two processes write at once. The lock is the directory's, for the file itself is replaced."""
        folder = self._path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigurationError(f"There can be no key file in {folder}: {error.strerror}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _replace(self, keys: Keys) -> None:
        form = _Form(active=keys.active, keys={key_id: encode_key(key) for key_id, key in keys.keys.items()})
        raw = msgspec.json.format(msgspec.json.encode(form)) + b"\n"
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            # The lock is held, so a file of this name is what a crash left behind.
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - with the mode from its first moment
                file.write(raw)
                file.flush()
                os.fsync(descriptor)
            new.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise ConfigurationError(f"The key file {self._path} cannot be written: {error.strerror}.") from None
        self._seen = raw
