"""Power cuts: a disk that knows what has been synced, and shows what would be left if the power went now.

The model is as mean as POSIX allows. Of a file stays what it held at its last sync; of what was written since,
nothing, or (torn) any 512-byte sectors of it, the last of them half written. A name made or removed stays so once its
directory was synced, not when its file was: the first sync of a new journal or log syncs the directory, as SQLite's own
file layer does, and so does a removal that asks for it. Until then names may be as they were, or (torn) as at any
moment since.

One thing is taken on trust, as SQLite does (``SQLITE_IOCAP_POWERSAFE_OVERWRITE``): a cut during a write does not harm
the bytes beside those written. The state lives in this process: files that another process writes are not seen.
"""

# ruff: noqa: N802 - the methods have the names that SQLite gives them

from __future__ import annotations

from pathlib import Path
from random import Random

import apsw

from holdfast.testing.disk import Disk, DiskFile, path_of, role

SECTOR = 512

Op = tuple[int, bytes | None]
"""A write at an offset, or (None) a truncation to that size."""


class Inode:
    """A file apart from its names: the bytes that are safe, and what has been done since."""

    __slots__ = ("pending", "safe")

    def __init__(self, safe: bytes = b"") -> None:
        self.safe = bytearray(safe)
        self.pending: list[Op] = []

    def sync(self) -> None:
        for offset, data in self.pending:
            put(self.safe, offset, data)
        self.pending.clear()

    def after_cut(self, torn: Random | None) -> bytes:
        """What the file holds after a cut: without ``torn`` what was synced and no more."""
        image = bytearray(self.safe)
        if torn is None or not self.pending:
            return bytes(image)
        share = torn.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        kept = [op for op in _sectors(self.pending) if torn.random() < share]
        for number, (offset, data) in enumerate(kept):
            if data is not None and number == len(kept) - 1:
                data = data[: torn.randrange(len(data) + 1)]
            put(image, offset, data)
        return bytes(image)

    def now(self) -> bytes:
        """What the file holds if nothing goes wrong."""
        image = bytearray(self.safe)
        for offset, data in self.pending:
            put(image, offset, data)
        return bytes(image)


class PowerCutDisk(Disk):
    """A disk whose power can be cut at any moment, as often as wanted: the files in use go on undisturbed."""

    def __init__(self) -> None:
        super().__init__("power", syncs=False)
        self._names: dict[str, Inode] = {}  # as programs see them
        self._safe_names: dict[str, Inode] = {}  # as they are after a cut
        self._pending: list[tuple[str, Inode | None]] = []  # names made (a file) or removed (None), not synced yet

    def open_file(self, name: str | apsw.URIFilename | None, flags: list[int]) -> DiskFile:
        path = path_of(name)
        if not path or flags[0] & apsw.SQLITE_OPEN_DELETEONCLOSE:
            return DiskFile(self, self._base, name, flags)
        there = Path(path).exists()
        if there and path not in self._names:
            self._adopt(path)
        file = self.file_class()(self, self._base, name, flags)
        if not there:
            self._names[path] = Inode()
            self._pending.append((path, self._names[path]))
        file.inode = self._names[path]
        return file

    def file_class(self) -> type[PowerCutFile]:
        return PowerCutFile

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.lock:
            super().xDelete(filename, syncdir)
            self._names.pop(filename, None)
            self._pending.append((filename, None))
            if syncdir:
                self.sync_directory(_folder(filename))

    def sync_directory(self, directory: str) -> None:
        """Make the names of a directory safe as they are."""
        rest = []
        for path, inode in self._pending:
            if _folder(path) == directory:
                self._name(self._safe_names, path, inode)
            else:
                rest.append((path, inode))
        self._pending = rest

    def left(self, *, torn: Random | None = None) -> dict[str, bytes]:
        """What a power cut would leave now: path and content of each file."""
        with self.lock:
            names = dict(self._safe_names)
            pending = self._pending
            kept = 0 if torn is None else torn.randint(0, len(pending))
            for path, inode in pending[:kept]:
                self._name(names, path, inode)
            return {path: inode.after_cut(torn) for path, inode in names.items()}

    def cut(self, directory: Path, *, torn: Random | None = None) -> None:
        """Write into an empty directory what a power cut would leave now, every file under its own last name.

        Args:
            torn: None: whatever was not synced is gone. Else any part of it is kept, drawn from here.
        """
        for path, content in self.left(torn=torn).items():
            (directory / Path(path).name).write_bytes(content)

    def unsynced(self) -> int:
        """How many writes and names a cut would put at risk now."""
        with self.lock:
            return len(self._pending) + sum(len(inode.pending) for inode in self._names.values())

    def seen_by_programs(self) -> dict[str, bytes]:
        """What the kit takes the files to hold, for checking the kit against the files themselves."""
        with self.lock:
            return {path: inode.now() for path, inode in self._names.items()}

    def _adopt(self, path: str) -> None:
        """Take in a file that was there before: safe, but for an empty one, which may have been made a moment ago."""
        inode = self._names[path] = Inode(Path(path).read_bytes())
        if inode.safe:
            self._safe_names[path] = inode
        else:
            self._pending.append((path, inode))

    @staticmethod
    def _name(names: dict[str, Inode], path: str, inode: Inode | None) -> None:
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


class PowerCutFile(DiskFile):
    """A file of a ``PowerCutDisk``."""

    inode: Inode

    def __init__(self, disk: PowerCutDisk, base: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__(disk, base, name, flags)
        self._power = disk
        # SQLite's unix layer syncs the directory at the first sync of a log or journal that it may have made.
        self._names_too = bool(flags[0] & apsw.SQLITE_OPEN_CREATE) and role(self.path) != "db"

    def xWrite(self, data: bytes, offset: int) -> None:
        with self.disk.lock:
            super().xWrite(data, offset)
            self.inode.pending.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        with self.disk.lock:
            super().xTruncate(newsize)
            self.inode.pending.append((newsize, None))

    def xSync(self, flags: int) -> None:
        with self.disk.lock:
            super().xSync(flags)
            self.inode.sync()
            if self._names_too:
                self._power.sync_directory(_folder(self.path))
                self._names_too = False


def put(image: bytearray, offset: int, data: bytes | None) -> None:
    """Apply one write or truncation to a file's bytes; a gap before it reads as zeros."""
    end = offset if data is None else offset + len(data)
    if len(image) < offset or (data is not None and len(image) < end):
        image.extend(bytes(end - len(image)))
    if data is None:
        del image[offset:]
    else:
        image[offset:end] = data


def _folder(path: str) -> str:
    return str(Path(path).parent)


def _sectors(ops: list[Op]) -> list[Op]:
    """The same writes, cut at sector boundaries: the pieces a disk writes whole."""
    pieces: list[Op] = []
    for offset, data in ops:
        if data is None:
            pieces.append((offset, None))
            continue
        start = 0
        while start < len(data):
            length = min(SECTOR - (offset + start) % SECTOR, len(data) - start)
            pieces.append((offset + start, data[start : start + length]))
            start += length
    return pieces
