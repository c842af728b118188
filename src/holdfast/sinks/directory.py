"""Publications as plain files, for whoever reads folders: another program, a static site, a backup.

::

    <target>/current.json                   the pointer: what is live, with its receipt; replaced in one rename
    <target>/revisions/<revision>/          records-<start>.jsonl, one record a line, and manifest.json
    <target>/attempts/<revision>.json       who may stage it, and who may not any more
    <target>/history/<number>.json          what ``current.json`` held before, one file for each switch

Whatever stands in ``current.json`` was written and synced before it, so a process killed at any point leaves the old
publication or the new one. Publishers take turns by ``flock`` on a file beside them; readers never wait. A reader
outside Holdfast reads ``current.json``, then the folder it names, and begins again if that folder went away meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from holdfast.errors import (
    LiveMovedError,
    SinkUnavailableError,
    StoreFullError,
    TamperedError,
    VerificationFailedError,
)
from holdfast.ports.embedder import Embedder
from holdfast.ports.sink import Forecast, Hit, Manifest, Receipt, Record, Sink, manifest_of, record_digest

T = TypeVar("T")

_LONGEST_NAME = 150
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_READ_AGAIN = 100


class _Current(msgspec.Struct, frozen=True):
    """The pointer: the number and receipt of a flip, the live folder, and the revisions live before, the last first."""

    number: int
    folder: str | None
    receipt: Receipt
    past: list[str]


class _Attempts(msgspec.Struct, frozen=True):
    """The attempt that may stage a revision (None: it was abandoned), and those that may not any more.

    ``flip`` and ``withdrawal`` are the numbers of the switches that made it live and took it back: written just before
    such a switch, so they are believed only if the flip of that number says so too.
    """

    attempt: str | None
    fenced: list[str]
    flip: int = 0
    withdrawal: int = 0


class _Line(msgspec.Struct, frozen=True):
    """A record as a line of a file, with its number in the publication."""

    number: int
    key: str
    digest: str
    text: str
    body: Any


class DirectorySink(Sink):
    """Folders below a root. All file work is done in threads."""

    name = "directory"

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def open(cls, path: str | Path, *, embedder: Embedder | None = None) -> DirectorySink:
        """Open a folder, making it where it is not there. The embedder is not used: a directory has no search.

        Raises:
            StoreFullError, SinkUnavailableError: it cannot be made.
        """
        root = Path(path)
        with _mapped():
            root.mkdir(parents=True, exist_ok=True)
            _sync_folder(root.parent)
        return cls(root)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def live(self, target: str) -> Receipt | None:
        current = await self._run(lambda: self._place(target).current())
        return None if current is None or current.receipt.revision is None else current.receipt

    async def published(self, target: str, revision: str) -> Receipt | None:
        flip = await self._run(lambda: self._place(target).flip_to(revision))
        return None if flip is None else flip.receipt

    async def records(self, target: str) -> list[Record]:
        return await self._run(lambda: self._place(target).live_records())

    async def forecast(self, target: str, records: Sequence[Record]) -> Forecast:
        live = {record.digest for record in await self.records(target)}
        return Forecast(len(records), sum(record.digest not in live for record in records), 0, 0)

    async def search(self, tenant: str, query: str, *, limit: int) -> list[Hit]:
        return []

    async def close(self) -> None:
        """Nothing is held open between calls."""

    # -- publishing --------------------------------------------------------------------------------------------------

    async def begin(self, target: str, revision: str, attempt: str, *, now: datetime) -> None:
        await self._run(lambda: self._place(target).begin(revision, attempt))

    async def stage(self, target: str, revision: str, attempt: str, records: Sequence[Record], *, start: int) -> None:
        await self._run(lambda: self._place(target).stage(revision, attempt, records, start))

    async def verify(self, target: str, revision: str) -> Manifest:
        return await self._run(lambda: self._place(target).verify(revision))

    async def switch(self, target: str, revision: str, attempt: str, *, receipt: Receipt) -> Receipt:
        return await self._run(lambda: self._place(target).switch(revision, attempt, receipt))

    async def rollback(self, target: str, *, receipt: Receipt) -> Receipt:
        return await self._run(lambda: self._place(target).rollback(receipt))

    async def abandon(self, target: str, revision: str) -> None:
        await self._run(lambda: self._place(target).abandon(revision))

    async def clean(self, target: str, *, keep: int) -> int:
        return await self._run(lambda: self._place(target).clean(max(keep, 0)))

    def _place(self, target: str) -> _Target:
        return _Target(target, self._root / safe_name(target))

    async def _run(self, job: Callable[[], T]) -> T:
        def mapped() -> T:
            with _mapped():
                return job()

        # A caller that is cancelled still waits for the outcome, so that none of its work goes on behind its back.
        work = asyncio.ensure_future(asyncio.to_thread(mapped))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            if not work.cancelled():
                work.exception()
            raise


class _Target:
    """The folder of one target. Its methods block."""

    def __init__(self, target: str, folder: Path) -> None:
        self._target, self._folder = target, folder
        self._revisions, self._attempts, self._history = folder / "revisions", folder / "attempts", folder / "history"

    def current(self) -> _Current | None:
        return _read(self._folder / "current.json", _Current)

    def live_records(self) -> list[Record]:
        for _ in range(_READ_AGAIN):
            current = self.current()
            if current is None or current.folder is None:
                return []
            folder = self._revisions / current.folder
            lines = self._lines(folder)
            if _read(folder / "manifest.json", Manifest) == manifest_of((line.key, line.digest) for line in lines):
                return [Record(line.key, line.text, line.body, line.digest) for line in lines]
            if self.current() == current:  # still the live one, so it was not cleaned away between two looks
                break
        raise TamperedError(f"the live revision of {self._target}")

    def begin(self, revision: str, attempt: str) -> None:
        with self._turn():
            if self.flip_to(revision) is not None:
                return
            known = self._known(revision)
            if known is not None and known.attempt == attempt:
                return
            fenced = [] if known is None else known.fenced + ([known.attempt] if known.attempt is not None else [])
            if attempt in fenced:
                raise self._fenced(attempt, known)
            # First the fence, then the sweep: killed in between, what is left belongs to nobody and goes with the next.
            self._keep_attempts(revision, _Attempts(None, fenced))
            _remove(self._revisions / safe_name(revision))
            _make(self._revisions / safe_name(revision))
            self._keep_attempts(revision, _Attempts(attempt, fenced))

    def stage(self, revision: str, attempt: str, records: Sequence[Record], start: int) -> None:
        with self._turn():
            if self.flip_to(revision) is not None:
                return
            self._check_attempt(revision, attempt)
            if records:
                lines = b"".join(
                    msgspec.json.encode(_Line(number, record.key, record.digest, record.text, record.body)) + b"\n"
                    for number, record in enumerate(records, start)
                )
                _replace(self._revisions / safe_name(revision) / f"records-{start:08}.jsonl", lines)

    def verify(self, revision: str) -> Manifest:
        folder, known = self._revisions / safe_name(revision), self._known(revision)
        if known is None or known.attempt is None or not folder.is_dir():
            raise VerificationFailedError(revision, "nothing is staged under it")
        return self._verified(revision, folder)

    def switch(self, revision: str, attempt: str, receipt: Receipt) -> Receipt:
        with self._turn():
            if (flip := self.flip_to(revision)) is not None:
                if self._withdrawal_of(revision) is not None:  # somebody has undone it
                    raise LiveMovedError(self._target, receipt.previous, self._live())
                return flip.receipt
            self._check_attempt(revision, attempt)
            current = self.current()
            if self._live() != receipt.previous:
                raise LiveMovedError(self._target, receipt.previous, self._live())
            folder = self._revisions / safe_name(revision)
            if receipt.revision != revision or self._verified(revision, folder) != receipt.manifest:
                raise VerificationFailedError(revision, "what is staged is not what the receipt says")
            _replace(folder / "manifest.json", msgspec.json.encode(receipt.manifest))
            self._mark(revision, flip=self._number() + 1)
            past = [] if current is None else current.past
            if receipt.previous is not None:
                past = [receipt.previous, *(other for other in past if other != receipt.previous)]
            self._point(current, receipt, past)
            return receipt

    def rollback(self, receipt: Receipt) -> Receipt:
        with self._turn():
            current = self.current()
            was = None if current is None else current.receipt.revision
            if current is None or was is None or was != receipt.rolls_back:
                done = None if receipt.rolls_back is None else self._withdrawal_of(receipt.rolls_back)
                if done is None or done.receipt.revision != receipt.revision:
                    raise LiveMovedError(self._target, receipt.rolls_back, was)
                return done.receipt
            if receipt.revision is not None and receipt.revision not in current.past:
                raise VerificationFailedError(receipt.revision, "it was never live here, or is not kept any more")
            self._mark(was, withdrawal=current.number + 1)
            self._point(current, receipt, [other for other in current.past if other != receipt.revision])
            return receipt

    def abandon(self, revision: str) -> None:
        with self._turn():
            known = self._known(revision)
            if known is None or self.flip_to(revision) is not None:
                return
            if known.attempt is not None:
                self._keep_attempts(revision, _Attempts(None, [*known.fenced, known.attempt]))
            _remove(self._revisions / safe_name(revision))

    def clean(self, keep: int) -> int:
        with self._turn():
            current = self.current()
            if current is not None and len(current.past) > keep:
                # The pointer forgets them first, so that no rollback is promised to what is about to go.
                current = msgspec.structs.replace(current, past=current.past[:keep])
                _replace(self._folder / "current.json", msgspec.json.encode(current))
            stay = set() if current is None else {current.folder, *map(safe_name, current.past)}
            gone = 0
            for folder in sorted(self._revisions.iterdir()):
                known = _read(self._attempts / f"{folder.name}.json", _Attempts)
                flip = None if known is None else self._flip(known.flip)
                was_live = flip is not None and flip.folder == folder.name
                if folder.name not in stay and (was_live or known is None or known.attempt is None):
                    _remove(folder)
                    gone += was_live
            return gone

    # -- within ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the target alone, against threads and processes alike; the lock of a process that died is let go."""
        for folder in (self._folder, self._revisions, self._attempts, self._history):
            _make(folder)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _point(self, current: _Current | None, receipt: Receipt, past: list[str]) -> None:
        """The switch itself: what was current goes into the history, true either way, then the pointer moves."""
        number = 0 if current is None else current.number
        if current is not None:
            _replace(self._history / f"{number:010}.json", msgspec.json.encode(current))
        folder = None if receipt.revision is None else safe_name(receipt.revision)
        _replace(self._folder / "current.json", msgspec.json.encode(_Current(number + 1, folder, receipt, past)))

    def _live(self) -> str | None:
        current = self.current()
        return None if current is None else current.receipt.revision

    def _number(self) -> int:
        current = self.current()
        return 0 if current is None else current.number

    def _flip(self, number: int) -> _Current | None:
        """The flip of a number, None if that many have not been made."""
        current = self.current()
        if current is None or not 0 < number <= current.number:
            return None
        flip = current if number == current.number else _read(self._history / f"{number:010}.json", _Current)
        if flip is None:
            raise TamperedError(f"the history of {self._target}")
        return flip

    def flip_to(self, revision: str) -> _Current | None:
        """The flip that published a revision, None if it was never live."""
        known = self._known(revision)
        flip = None if known is None else self._flip(known.flip)
        return flip if flip is not None and flip.receipt.revision == revision else None

    def _withdrawal_of(self, revision: str) -> _Current | None:
        """The flip that rolled a revision back, None if none did."""
        known = self._known(revision)
        flip = None if known is None else self._flip(known.withdrawal)
        return flip if flip is not None and flip.receipt.rolls_back == revision else None

    def _mark(self, revision: str, *, flip: int = 0, withdrawal: int = 0) -> None:
        known = self._known(revision)
        if known is None:
            raise TamperedError(f"the attempts at {self._target}")
        marked = msgspec.structs.replace(known, flip=flip or known.flip, withdrawal=withdrawal or known.withdrawal)
        self._keep_attempts(revision, marked)

    def _known(self, revision: str) -> _Attempts | None:
        return _read(self._attempts / f"{safe_name(revision)}.json", _Attempts)

    def _keep_attempts(self, revision: str, attempts: _Attempts) -> None:
        _replace(self._attempts / f"{safe_name(revision)}.json", msgspec.json.encode(attempts))

    def _check_attempt(self, revision: str, attempt: str) -> None:
        known = self._known(revision)
        if known is None or known.attempt != attempt:
            raise self._fenced(attempt, known)

    def _fenced(self, attempt: str, known: _Attempts | None) -> LiveMovedError:
        by = None if known is None else f"staged by {known.attempt or 'nobody'}"
        return LiveMovedError(self._target, f"staged by attempt {attempt}", by)

    def _lines(self, folder: Path) -> list[_Line]:
        """The records of a folder in order; fewer than there were if it is being removed."""
        lines: dict[int, _Line] = {}
        try:
            for file in sorted(folder.glob("records-*.jsonl")):
                for raw in file.read_bytes().splitlines():
                    line = msgspec.json.decode(raw, type=_Line)
                    lines[line.number] = line
        except FileNotFoundError:
            return []
        except msgspec.MsgspecError:
            raise TamperedError(f"a revision of {self._target}") from None
        return [lines[number] for number in sorted(lines)]

    def _verified(self, revision: str, folder: Path) -> Manifest:
        try:
            lines = self._lines(folder)
        except TamperedError:
            raise VerificationFailedError(revision, "a record cannot be read back") from None
        keys = set()
        for place, line in enumerate(lines):
            if line.number != place:
                raise VerificationFailedError(revision, f"record {place} is missing")
            if line.key in keys:
                raise VerificationFailedError(revision, f"two records have the key {line.key}")
            if record_digest(line.text, line.body) != line.digest:
                raise VerificationFailedError(revision, f"record {line.key} is not what its digest says")
            keys.add(line.key)
        return manifest_of((line.key, line.digest) for line in lines)


def safe_name(text: str) -> str:
    """A file name for any text: two texts never share one, also where case does not count, and none leads elsewhere."""
    encoded = text.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in encoded)
    if 0 < len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}~{hashlib.sha256(encoded).hexdigest()}"


def _read(path: Path, kind: type[T]) -> T | None:
    """A file's value, None if there is no such file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:
        raise TamperedError(f"{path.name} of a publication") from None


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole and durably: whoever looks finds the old one or the new one. Only within one's turn."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make names in a folder durable: a rename is not, until its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Turn the file system's errors into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFullError("directory") from error
        raise SinkUnavailableError("directory", error.strerror or type(error).__name__) from error
