"""A disk under SQLite that shows each call before it is made, so that faults can be put in: the ground of the kits.

It stands over the platform's own file system, so that locks, shared memory and the write-ahead log work as ever; what a
kit adds is when a call fails, when the process dies, or what a power cut would have kept.
"""

# ruff: noqa: N802 - the methods have the names that SQLite gives them

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from types import TracebackType

import apsw

_numbers = itertools.count(1)
_DEFAULT = apsw.vfs_names()[0]


def role(path: str) -> str:
    """What a file is to SQLite: ``wal``, ``journal`` or ``db``; ``temp`` for one without a name."""
    if not path:
        return "temp"
    for ending in ("wal", "journal"):
        if path.endswith("-" + ending):
            return ending
    return "db"


class Disk(apsw.VFS):
    """The platform's file system, with a hook before and after each call; hand ``vfs=disk.name`` to what opens a file.

    ``calls`` counts calls by name, such as ``xWrite wal``. ``lock`` is held during a call and its hooks. With ``syncs``
    false nothing is really synced: for kits whose faults the page cache survives, where it would only cost time.
    """

    def __init__(self, kit: str = "disk", *, syncs: bool = True) -> None:
        self.name, self.syncs = f"holdfast-{kit}-{next(_numbers)}", syncs
        self.calls: Counter[str] = Counter()
        self.lock = threading.RLock()
        self._base = _DEFAULT
        super().__init__(self.name, self._base)

    def before(self, call: str, path: str) -> None:
        """Called ahead of each call; what it raises is what SQLite is told."""

    def after(self, call: str, path: str) -> None:
        """Called when a call has been made and before SQLite hears of it."""

    @contextlib.contextmanager
    def everywhere(self) -> Iterator[None]:
        """Within the block every file that is opened without naming a VFS goes through this disk."""
        apsw.set_default_vfs(self.name)
        try:
            yield
        finally:
            apsw.set_default_vfs(self._base)

    @contextlib.contextmanager
    def seen(self, call: str, path: str) -> Iterator[None]:
        with self.lock:
            self.calls[f"{call} {role(path)}"] += 1
            self.before(call, path)
            yield
            self.after(call, path)

    def open_file(self, name: str | apsw.URIFilename | None, flags: list[int]) -> DiskFile:
        """The file object of an open; a kit that keeps more about a file gives its own."""
        return DiskFile(self, self._base, name, flags)

    def excepthook(
        self, etype: type[BaseException] | None, evalue: BaseException | None, etraceback: TracebackType | None
    ) -> bool:
        return True  # a fault that was put in is no news

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> DiskFile:
        with self.seen("xOpen", path_of(name)):
            return self.open_file(name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.seen("xDelete", filename):
            super().xDelete(filename, syncdir)

    def xAccess(self, pathname: str, flags: int) -> bool:
        with self.seen("xAccess", pathname):
            return super().xAccess(pathname, flags)


class DiskFile(apsw.VFSFile):
    """A file of a ``Disk``."""

    def __init__(self, disk: Disk, base: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.disk = disk
        self.path = path_of(name)
        super().__init__(base, name, flags)

    def excepthook(
        self, etype: type[BaseException] | None, evalue: BaseException | None, etraceback: TracebackType | None
    ) -> bool:
        return True

    def xRead(self, amount: int, offset: int) -> bytes:
        with self.disk.seen("xRead", self.path):
            return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        with self.disk.seen("xWrite", self.path):
            super().xWrite(data, offset)

    def write_unseen(self, data: bytes, offset: int) -> None:
        """Write without a hook: what a call that failed half-way did before it failed."""
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        with self.disk.seen("xTruncate", self.path):
            super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        with self.disk.seen("xSync", self.path):
            if self.disk.syncs:
                super().xSync(flags)

    def xFileSize(self) -> int:
        with self.disk.seen("xFileSize", self.path):
            return super().xFileSize()


def path_of(name: str | apsw.URIFilename | None) -> str:
    """The path SQLite means; empty for a temporary file."""
    if name is None:
        return ""
    return name if isinstance(name, str) else name.filename()
