"""Objects in a local directory, safe from a power cut before anybody is told that they are kept."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError as ObjectExists
from obstore.store import LocalStore

_STAGING = ".staging"
_ABANDONED = 86_400.0
"""Seconds after which a file in staging is nobody's: no put takes a day."""


class Directory:
    """Creates files under keys, and syncs them.

    obstore syncs nothing to disk and gives a new file its name before its bytes are safe, so that a power cut could
    leave an empty file under a key. In a directory the bytes are therefore written under a name in ``.staging``,
    synced, linked to the key (which fails if the key is taken), and the directories synced, before ``put`` returns.
    """

    def __init__(self, store: LocalStore, root: Path) -> None:
        self._store, self._root = store, root
        self._known: set[Path] = set()
        _remove_abandoned(root / _STAGING)

    async def create(self, key: str, data: bytes) -> bool:
        """Make a file; False if the key is taken."""
        # One hop to a thread for all of it: a cancelled caller leaves no put half done.
        return await asyncio.to_thread(self._create, key, data)

    async def read(self, key: str) -> bytes | None:
        """What is in a file, None if there is none. (obstore reads 8 KiB at a time: 64 MB in 0.5 s, not 0.05.)"""
        return await asyncio.to_thread(self._read, key)

    async def require(self) -> None:
        """Raise an ``OSError`` where the directory itself is gone: then nothing can be said of what is in it."""
        await asyncio.to_thread(self._require)

    async def sync(self, key: str) -> None:
        """Make a file durable that somebody else has made."""
        await asyncio.to_thread(self._sync, self._root / key)

    async def sync_removal(self, key: str) -> None:
        """Make it durable that a file is gone."""
        with suppress(FileNotFoundError):
            await asyncio.to_thread(_sync_path, (self._root / key).parent)

    def _read(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            self._require()
            return None

    def _require(self) -> None:
        if not self._root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def _create(self, key: str, data: bytes) -> bool:
        self._require()  # obstore would make another
        # The name means nothing and outlives nothing; it must only be nobody else's, on any host that shares the disk.
        staged = f"{_STAGING}/{secrets.token_hex(12)}"
        try:
            obstore.put(self._store, staged, data, mode="create")
            _sync_path(self._root / staged)
            obstore.rename(self._store, staged, key, overwrite=False)
        except ObjectExists:
            return False
        finally:
            (self._root / staged).unlink(missing_ok=True)
        self._sync_names(self._root / key)
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


def made(path: Path) -> Path:
    """A directory, made durably with what leads to it where it is not there; only its owner may enter it."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in missing:
        _sync_path(folder.parent)
    return path


def _sync_path(path: Path) -> None:
    """fsync a file, or a directory: the names in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
