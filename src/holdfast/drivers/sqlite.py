"""A SQLite file: one writer thread with group commit, reads in the caller's own thread.

Writes that are ready in the same turn of the event loop are one batch, and each batch is one ``BEGIN IMMEDIATE``
transaction, so that several processes may share the file. In WAL mode with ``synchronous=FULL`` the log is synced
before a commit returns: what is acknowledged survives a power cut.

To hand a batch to the writer thread and be woken by it costs about a third of a commit on a fast disk. So a write that
is alone in its turn is committed where it stands, as long as that has lately been quick; on a slow disk, under load,
and while another process writes, the thread has them all.

Ours is SQLite as built into apsw, 3.51.3 or newer: older ones may corrupt the file when the WAL is reset (fixed in
3.51.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import apsw

from holdfast.errors import ConfigurationError, HoldfastError, StoreFullError, StoreUnavailableError, TamperedError

T = TypeVar("T")
Job = Callable[[apsw.Connection], T]

_BUSY_MILLISECONDS = 30_000
_CACHE_KIB = 16_384
_PAGE_BYTES = 8_192  # a log row of 1 KB takes less room than in pages of 4 KiB, and no longer to write
_CHECKPOINT_PAGES = 500
_QUICK = 0.002  # seconds that a commit may keep the event loop waiting, on the average of late (no data depends on it)
_SLOW = 0.02  # seconds; one commit that takes this long is enough
_OF_LATE = 16
_MOST_AT_ONCE = 256  # writes of one transaction that was put together from several turns
_WARY = 64  # writes that the thread is given once they take longer
_OF_ONE_JOB = (apsw.ConstraintError, apsw.MismatchError, apsw.RangeError, apsw.SQLError, apsw.TooBigError)
_NO_ROOM = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)

if apsw.sqlite_lib_version() < "3.51.3":  # pragma: no cover - the floor of the dependency forbids it
    raise ConfigurationError(
        "apsw is built with a SQLite older than 3.51.3, which can corrupt a WAL file; upgrade apsw."
    )


class _Sent(Generic[T]):
    """A job on its way to the writer thread, and what came of it."""

    __slots__ = ("error", "future", "job", "loop", "result", "settled")

    def __init__(self, job: Job[T], loop: asyncio.AbstractEventLoop) -> None:
        self.job, self.loop = job, loop
        self.future: asyncio.Future[None] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.settled = False

    async def wait(self) -> T:
        """The outcome. A caller that is cancelled waits for it too, and then the cancellation goes on."""
        cancelled: asyncio.CancelledError | None = None
        while not self.settled:
            self.future = self.loop.create_future()
            try:
                await self.future
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return self.outcome()

    def settle(self) -> None:
        self.settled = True
        if self.future is not None and not self.future.done():
            self.future.set_result(None)

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


class SqliteFile:
    """One database file, shared by every store that keeps tables in it.

    ``name`` stands in error messages. It belongs to one event loop; ``read`` is for that loop's thread only.
    """

    def __init__(
        self, path: Path, name: str, schema: str, upgrades: Sequence[str], vfs: str | None, synchronous: str
    ) -> None:
        self.path, self.name, self._mapped = path, name, Mapped(name)
        self._vfs, self._synchronous, self._schema, self._upgrades = vfs, synchronous, schema, upgrades
        self._turn: list[_Sent[Any]] = []  # what this turn of the event loop has brought so far
        self._batches: queue.SimpleQueue[list[_Sent[Any]] | None] = queue.SimpleQueue()
        self._using = threading.Lock()  # the connection that writes
        self._sent = self._wary = self._log_pages = 0
        self._taking = _QUICK / 2  # seconds, of a commit in the event loop's thread
        self._closed = False
        self._patient = True  # whether the connection that writes waits for other processes
        self._writer = self._connect()
        self.read = self._connect(read_only=True)
        self._thread = threading.Thread(target=self._run, name=f"holdfast-{name}-writer", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        schema: str,
        name: str,
        upgrades: Sequence[str] = (),
        vfs: str | None = None,
        synchronous: str = "FULL",
    ) -> SqliteFile:
        """Open a file, making it, its folder (mode 0700) and its tables where they are not there yet.

        Args:
            schema: statements that may be run any number of times (``CREATE ... IF NOT EXISTS``).
            upgrades: what has been added to the schema's tables since it first made some. Of a file of an older schema
                those are run, once and in order, that it has not had; ``user_version`` counts them.
            vfs: name of a registered apsw VFS, for fault tests.
            synchronous: FULL is what the promise needs; weaker ones are for measuring and for teeth.
        Raises:
            ConfigurationError: it may not be written there, or a newer Holdfast has made its tables.
            StoreUnavailableError, StoreFullError: it cannot be opened or made.
            TamperedError: it is no SQLite database, or a damaged one.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if vfs is None:
                path.touch(mode=0o600, exist_ok=True)
            return cls(path, name, schema, upgrades, vfs, synchronous)
        except (apsw.Error, OSError) as error:
            why = _unwritable(error)
            if why is None:
                raise as_ours(error, name) from error
            raise ConfigurationError(f"The {name} store cannot be opened: its folder {path.parent} {why}.") from error

    async def write(self, job: Job[T], *, lengthy: bool = False) -> T:
        """Run a job inside a write transaction, grouped with what else is ready; durable on return.

        A job that raises is rolled back alone: the others of its batch are run again without it, so a job must
        depend on nothing but the database. A caller that is cancelled still waits for the outcome before the
        cancellation goes on.

        Args:
            lengthy: it may write megabytes, so that the event loop is not to wait for it.
        """
        if self._closed:
            raise StoreUnavailableError(self.name, "it is closed")
        sent = _Sent(job, asyncio.get_running_loop())
        turn = self._turn
        turn.append(sent)
        if len(turn) == 1:  # the first of its turn: it sends what the others bring
            try:
                await asyncio.sleep(0)
            except BaseException:  # it was not sent, and is not; what others brought is
                turn.remove(sent)
                self._send(turn)
                raise
            if len(turn) == 1 and not lengthy and self._commit_here(turn):
                return sent.outcome()
            self._send(turn)
        return await sent.wait()

    def mapped(self) -> Mapped:
        """Turn SQLite's errors of a read into ours."""
        return self._mapped

    async def close(self) -> None:
        """Finish what was sent, then close; closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        await asyncio.sleep(0)  # what was begun in this turn is sent in the next
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join)
        self.read.close(True)  # whatever goes wrong here: what was acknowledged is in the log

    def _connect(self, *, read_only: bool = False) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(str(self.path), flags=flags, vfs=self._vfs, statementcachesize=200)
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        if not read_only:
            connection.pragma("page_size", _PAGE_BYTES)  # of a file that is made now; others keep theirs
            _retry_busy(lambda: connection.pragma("journal_mode", "wal"))
            connection.set_wal_hook(self._logged)  # in place of SQLite's own checkpoints, which commits wait for
        connection.pragma("synchronous", self._synchronous)
        connection.pragma("cache_size", -_CACHE_KIB)
        connection.pragma("foreign_keys", True)
        connection.pragma("trusted_schema", False)
        connection.pragma("secure_delete", "FAST")  # what is deleted is overwritten where that costs no further page
        if read_only:
            connection.pragma("query_only", True)
        else:
            self._make_tables(connection)
        return connection

    def _make_tables(self, connection: apsw.Connection) -> None:
        known = len(self._upgrades)
        version = connection.pragma("user_version")
        if version < known:
            connection.execute("BEGIN IMMEDIATE")  # of several processes that open the file, one does it
            try:
                version = connection.pragma("user_version")
                if connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").get is not None:
                    for script in self._upgrades[version:]:
                        connection.execute(script)
                if version < known:
                    connection.execute(self._schema)
                    connection.pragma("user_version", known)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        if version > known:
            connection.close(True)
            raise ConfigurationError(
                f"The tables of the {self.name} store have been brought to version {version} by a newer Holdfast; this"
                f" one knows them up to version {known}: upgrade it."
            )
        with connection:
            connection.execute(self._schema)

    def _send(self, turn: list[_Sent[Any]]) -> None:
        self._turn = []
        if turn:
            self._sent += 1
            self._batches.put(turn)

    def _commit_here(self, turn: list[_Sent[Any]]) -> bool:
        """Commit in the event loop's own thread; False, with nothing done, if that might keep the loop waiting."""
        if self._wary:
            self._wary -= 1
            return False
        if self._sent or not self._using.acquire(blocking=False):
            return False
        try:
            self._turn = []
            start = time.perf_counter()
            done = self._commit(turn, patient=False)
            took = time.perf_counter() - start
            self._taking += (took - self._taking) / _OF_LATE
            if self._taking > _QUICK or took > _SLOW:
                self._wary, self._taking = _WARY, _QUICK / 2
        finally:
            self._using.release()
        if self._log_pages >= _CHECKPOINT_PAGES:
            self._batches.put([])
        return done

    def _run(self) -> None:
        """The writer thread. What several turns of the event loop brought while it was busy goes in one transaction."""
        while (turn := self._batches.get()) is not None:
            batch, turns = self._gather(turn)
            if batch:
                with self._using:
                    self._commit(batch)
                with contextlib.suppress(RuntimeError):  # a loop that is closed waits for nothing
                    batch[0].loop.call_soon_threadsafe(self._settle, batch, turns)
            if self._log_pages >= _CHECKPOINT_PAGES:
                with self._using:
                    self._checkpoint()
        self._writer.close(True)

    def _gather(self, turn: list[_Sent[Any]]) -> tuple[list[_Sent[Any]], int]:
        """A turn and those that wait behind it, and how many they are; an empty one asks for a checkpoint only."""
        batch, turns = turn, int(bool(turn))
        with contextlib.suppress(queue.Empty):
            while len(batch) < _MOST_AT_ONCE:
                following = self._batches.get_nowait()
                if following is None:
                    self._batches.put(None)  # the end, which comes after this
                    break
                batch, turns = batch + following, turns + bool(following)
        return batch, turns

    def _settle(self, batch: list[_Sent[Any]], turns: int) -> None:
        self._sent -= turns
        for sent in batch:
            sent.settle()

    def _commit(self, batch: list[_Sent[Any]], *, patient: bool = True) -> bool:
        """Run a batch as one transaction; a job that raises is undone alone. A disk that fails fails them all.

        Returns:
            Whether it came to an outcome: not, if another process is writing and this is not ``patient``.
        """
        connection = self._writer
        running = False
        try:
            if patient is not self._patient:
                connection.set_busy_timeout(_BUSY_MILLISECONDS if patient else 0)
                self._patient = patient
            connection.execute("BEGIN IMMEDIATE")
            running = True
            for sent in batch:
                sent.result = sent.job(connection)
            running = False
            connection.execute("COMMIT")
        except BaseException as error:
            if not patient and isinstance(error, apsw.BusyError) and not connection.in_transaction:
                return False
            self._roll_back()
            alone = running and (isinstance(error, _OF_ONE_JOB) or not isinstance(error, apsw.Error))
            if len(batch) == 1 or not alone:
                ours = as_ours(error, self.name)
                for sent in batch:
                    sent.error = ours
                return True
            self._commit_apart(batch)
        return True

    def _commit_apart(self, batch: list[_Sent[Any]]) -> None:
        """Run a batch once more, of which a job has raised: each within a savepoint, so that it is undone alone, and
        all with one sync. One refused writer who keeps asking would else cost every other a sync of his own.
        """
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            for sent in batch:
                connection.execute("SAVEPOINT job")
                try:
                    sent.result, sent.error = sent.job(connection), None
                except BaseException as error:
                    if isinstance(error, apsw.Error) and not isinstance(error, _OF_ONE_JOB):
                        raise
                    connection.execute("ROLLBACK TO job")
                    sent.error = as_ours(error, self.name)
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            ours = as_ours(error, self.name)
            for sent in batch:
                sent.error = ours

    def _logged(self, connection: apsw.Connection, database: str, pages: int) -> int:
        """Told by SQLite, after a commit, how long the write-ahead log is."""
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Fold the write-ahead log into the file as far as readers let go of it; what fails is tried again later."""
        self._log_pages = 0
        with contextlib.suppress(apsw.Error):
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _roll_back(self) -> None:
        with contextlib.suppress(apsw.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        with contextlib.suppress(apsw.Error):
            if not self._writer.in_transaction:
                return
        # A connection that cannot even roll back, or is closed, is not trusted with another write.
        with contextlib.suppress(apsw.Error):
            self._writer.close(True)
        with contextlib.suppress(apsw.Error):
            self._writer, self._patient = self._connect(), True


class Mapped:
    """Around what uses SQLite or the file system: turns their errors into ours, at the one edge where they appear.

    A class and no generator: it stands around every read, and costs a tenth.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, apsw.Error | OSError):
            raise as_ours(error, self._name) from error


def as_ours(error: BaseException, name: str) -> BaseException:
    """Our error for one of SQLite's; anything else stays what it is."""
    if isinstance(error, HoldfastError):
        return error
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
        return StoreFullError(name)
    if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
        return StoreFullError(name)  # what the WAL is indexed by could not be made longer, which nothing else prevents
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return TamperedError(f"the {name} store's file")
    if isinstance(error, apsw.Error | OSError):
        return StoreUnavailableError(name, f"{type(error).__name__}: {error}")
    return error


def _unwritable(error: BaseException) -> str | None:
    """What is wrong with the folder, None if it is not that it may not be written."""
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return "is on a read-only file system"
    if isinstance(error, PermissionError | apsw.ReadOnlyError):
        return "or a file in it may not be written by this user"
    return None


def _retry_busy(step: Callable[[], object]) -> None:
    """Switching a file to WAL ignores the busy timeout; another process doing the same is waited for."""
    pause = threading.Event()
    for _ in range(200):
        try:
            step()
            return
        except apsw.BusyError:
            pause.wait(0.02)
    step()
