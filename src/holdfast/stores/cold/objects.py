"""The cold tier in an object store: a local directory, S3, GCS, Azure, or memory."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError as ObjectExists
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, from_url

from holdfast.errors import (
    AlreadyExistsError,
    ConfigurationError,
    InvalidError,
    StoreFullError,
    StoreUnavailableError,
)
from holdfast.ports.cold import ColdStore

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_STAGING = ".staging"
_ABANDONED = 86_400.0
"""Seconds after which a file in staging is nobody's: no put takes a day."""

_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._=-]{0,199}"
_KEY = re.compile(f"{_SEGMENT}(/{_SEGMENT}){{0,15}}")
_NO_ROOM = re.compile(r"os error (28|122|27)\b")
"""obstore gives no error number, but its text ends in the system's: no space, over quota, file too large."""

_NO_ROOM_NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TRIES = 3


class ObjectColdStore(ColdStore):
    """Immutable objects through obstore; the same code for each of its stores, but for what a local directory needs.

    obstore syncs nothing to disk and gives a new file its name before its bytes are safe, so that a power cut could
    leave an empty file under a key. In a directory the bytes are therefore written under a name in ``.staging``,
    synced, linked to the key (which fails if the key is taken), and the directories synced, before ``put`` returns.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._root: Path | None = None
        self._known: set[Path] = set()
        if isinstance(store, LocalStore):
            if store.prefix is None:
                raise ConfigurationError("A cold store in a directory needs the directory.")
            self._root = Path(store.prefix)
            _remove_abandoned(self._root / _STAGING)

    @classmethod
    def open(cls, url: str) -> ObjectColdStore:
        """Open the store of a URL: ``file:///srv/cold``, ``memory://``, ``s3://bucket/prefix``, ``gs://…``, ``az://…``.

        A directory is made, with mode 0700, if it is not there. Credentials come from where the provider's own tools
        look for them (``AWS_ACCESS_KEY_ID`` and so on). No request is sent yet.

        Raises:
            ConfigurationError: the URL is not one of these, or the directory cannot be made.
        """
        scheme = urlsplit(url).scheme
        try:
            if scheme == "file":
                root = Path(unquote(urlsplit(url).path))
                _make_directory(root)
                return cls(LocalStore(prefix=root))
            if scheme == "memory":
                return cls(MemoryStore())
            return cls(
                from_url(
                    url,
                    client_options={"connect_timeout": timedelta(seconds=2), "timeout": timedelta(seconds=30)},
                    # obstore's own default goes on for minutes; whoever asked can ask again.
                    retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
                )
            )
        except (BaseError, OSError, ValueError) as error:
            raise ConfigurationError(f"The cold store cannot be opened: {_reason(error)}.") from None

    async def put(self, key: str, data: bytes) -> None:
        _check(key)
        with _mapped():
            # Whoever finds the key taken looks at what is there. It may be gone again by then: hence another try.
            for _ in range(_TRIES):
                if await self._create(key, data):
                    return
                kept = await self._read(key)
                if kept is not None:
                    if kept != data:
                        raise AlreadyExistsError(f"Another object under {key}")
                    if self._root is not None:
                        # It may be a racer's, who has not come to sync it yet.
                        await asyncio.to_thread(self._sync, self._root / key)
                    return
        raise StoreUnavailableError("cold", f"{key} is neither to be made nor to be read")

    async def get(self, key: str) -> bytes | None:
        _check(key)
        with _mapped():
            return await self._read(key)

    async def delete(self, key: str) -> None:
        _check(key)
        with _mapped():
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)
            if self._root is not None:
                with suppress(FileNotFoundError):
                    await asyncio.to_thread(_sync_path, (self._root / key).parent)

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        if not prefix.endswith("/"):
            raise InvalidError(f"{prefix!r} is not a prefix of the cold tier: it ends in a slash.")
        _check(prefix[:-1])
        with _mapped():
            async for page in obstore.list(self._store, prefix):
                for found in page:
                    yield found["path"]

    async def close(self) -> None:
        """obstore holds nothing that outlives a call but pooled connections, which go with it."""

    # -- one create-only put -----------------------------------------------------------------------------------------

    async def _create(self, key: str, data: bytes) -> bool:
        """Make the object; False if the key is taken."""
        if self._root is not None:
            # One hop to a thread for all of it: a cancelled caller leaves no put half done.
            return await asyncio.to_thread(self._create_file, self._root, key, data)
        try:
            await obstore.put_async(self._store, key, data, mode="create")
        except ObjectExists:
            return False
        return True

    def _create_file(self, root: Path, key: str, data: bytes) -> bool:
        # The name means nothing and outlives nothing; it must only be nobody else's, on any host that shares the disk.
        staged = f"{_STAGING}/{secrets.token_hex(12)}"
        try:
            obstore.put(self._store, staged, data, mode="create")
            _sync_path(root / staged)
            obstore.rename(self._store, staged, key, overwrite=False)
        except ObjectExists:
            return False
        finally:
            (root / staged).unlink(missing_ok=True)
        self._sync_names(root / key)
        return True

    def _sync(self, path: Path) -> None:
        _sync_path(path)
        self._sync_names(path)

    def _sync_names(self, path: Path) -> None:
        """Make a file's name durable, and the names of the directories that lead to it unless that was done before."""
        folder = path.parent
        _sync_path(folder)
        while folder != self._root and folder not in self._known:
            _sync_path(folder.parent)
            self._known.add(folder)
            folder = folder.parent

    async def _read(self, key: str) -> bytes | None:
        try:
            found = await obstore.get_async(self._store, key)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None


def _check(key: str) -> None:
    if _KEY.fullmatch(key) is None:
        raise InvalidError(
            f"{key[:100]!r} is not a key of the cold tier: names of A-Z, a-z, 0-9, with . _ = - within, joined by /."
        )


@contextmanager
def _mapped() -> Iterator[None]:
    """Turn obstore's and the system's errors into ours."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        if isinstance(error, InvalidError):
            raise
        if getattr(error, "errno", None) in _NO_ROOM_NUMBERS or _NO_ROOM.search(str(error)):
            raise StoreFullError("cold") from error
        raise StoreUnavailableError("cold", _reason(error)) from error


def _reason(error: Exception) -> str:
    """The first line of an error: obstore's messages go on with a dump of their own insides."""
    return str(error).partition("\n")[0].rstrip(". ")[:300] or type(error).__name__


def _sync_path(path: Path) -> None:
    """fsync a file, or a directory: the names in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_directory(path: Path) -> None:
    """Make a directory and what leads to it, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in missing:
        _sync_path(folder.parent)


def _remove_abandoned(staging: Path) -> None:
    """Remove what a crash left in staging, by the file system's own clock."""
    if not any(staging.glob("*")):
        return
    probe = staging / f"probe-{secrets.token_hex(12)}"
    with suppress(OSError):
        probe.touch()
        now = probe.stat().st_mtime
        for left in staging.iterdir():
            with suppress(FileNotFoundError):
                if left == probe or now - left.stat().st_mtime > _ABANDONED:
                    left.unlink()
