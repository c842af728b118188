"""A disk that fails: the k-th call of a kind is refused, once or from then on, with the error a real disk gives."""

# ruff: noqa: N802 - the methods have the names that SQLite gives them

from __future__ import annotations

import apsw
import msgspec

from holdfast.testing.disk import role
from holdfast.testing.power import PowerCutDisk, PowerCutFile

ERRORS = {
    "xOpen": apsw.SQLITE_CANTOPEN,
    "xDelete": apsw.SQLITE_IOERR_DELETE,
    "xAccess": apsw.SQLITE_IOERR_ACCESS,
    "xRead": apsw.SQLITE_IOERR_READ,
    "xWrite": apsw.SQLITE_IOERR_WRITE,
    "xTruncate": apsw.SQLITE_IOERR_TRUNCATE,
    "xSync": apsw.SQLITE_IOERR_FSYNC,
    "xFileSize": apsw.SQLITE_IOERR_FSTAT,
}
"""What each call gives when the disk fails; a full disk gives ``SQLITE_FULL``, to writes only."""


class Fault(msgspec.Struct, frozen=True):
    """What is to fail.

    Attributes:
        call: name of the call, such as ``xWrite``.
        nth: which one fails, counted from 1 from the moment the fault is armed.
        error: an SQLite result code.
        file: ``db``, ``wal`` or ``journal``; None for any.
        lasting: whether every later one fails too, until the disk is mended.
    """

    call: str
    nth: int
    error: int
    file: str | None = None
    lasting: bool = False


class FailingDisk(PowerCutDisk):
    """A disk that refuses what it is told to refuse.

    A refused write leaves half of its bytes behind. A refused sync loses what it should have kept: programs go on
    seeing it, a later sync does not bring it back, and a power cut shows it; that is what Linux does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fault: Fault | None = None
        self.fired = 0
        self._met = 0

    def arm(self, fault: Fault) -> None:
        """Let a fault wait for its call."""
        with self.lock:
            self.fault, self.fired, self._met = fault, 0, 0

    def mend(self) -> int:
        """Fail no more; returns how often the fault struck."""
        with self.lock:
            self.fault = None
            return self.fired

    def before(self, call: str, path: str) -> None:
        fault = self.fault
        if fault is None or fault.call != call or fault.file not in (None, role(path)):
            return
        self._met += 1
        if self._met == fault.nth or (fault.lasting and self._met > fault.nth):
            self.fired += 1
            raise apsw.exception_for(fault.error)

    def file_class(self) -> type[PowerCutFile]:
        return FailingFile


class FailingFile(PowerCutFile):
    """A file of a ``FailingDisk``."""

    def xWrite(self, data: bytes, offset: int) -> None:
        with self.disk.lock:
            try:
                super().xWrite(data, offset)
            except apsw.Error:
                half = bytes(data[: len(data) // 2])
                self.write_unseen(half, offset)
                self.inode.pending.append((offset, half))
                raise

    def xSync(self, flags: int) -> None:
        with self.disk.lock:
            try:
                super().xSync(flags)
            except apsw.Error:
                self.inode.pending.clear()
                raise
