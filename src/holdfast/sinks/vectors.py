"""A vector index in one SQLite file: exact search over numpy arrays, no server.

Every revision is rows beside the live one's, and ``live`` holds one pointer a target, so a switch is one small
transaction. Vectors are kept by the hash of the text, so only text that changed is embedded again, whatever else
changed about a record. Several processes may have the file open: each compares its arrays in memory with the file's
generation at every search.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import apsw
import msgspec
import numpy as np
import numpy.typing as npt

from holdfast.drivers.sqlite import Job, SqliteFile
from holdfast.errors import (
    LiveMovedError,
    SinkUnavailableError,
    StoreUnavailableError,
    TamperedError,
    VerificationFailedError,
)
from holdfast.ports.embedder import Embedder
from holdfast.ports.sink import Forecast, Hit, Manifest, Receipt, Record, Sink, manifest_of, record_digest, tenant_of

T = TypeVar("T")
Matrix = npt.NDArray[np.float32]

_TENANTS_IN_MEMORY = 32
_CHARACTERS_A_TOKEN = 4
_WAS_LIVE = frozenset({"live", "past", "withdrawn"})

_LIVE = (
    "SELECT flip.receipt FROM live JOIN flip ON flip.number = live.flip"
    " WHERE live.target = ? AND live.revision IS NOT NULL"
)
_POINTER = "SELECT revision FROM live WHERE target = ?"
_REVISION = "SELECT no, attempt, state, kept FROM revision WHERE target = ? AND revision = ?"
_PAIRS = (
    "SELECT entry.key, record.digest FROM entry JOIN record ON record.no = entry.record"
    " WHERE entry.revision = ? ORDER BY entry.number"
)
_RECORDS = (
    "SELECT entry.key, record.text, record.body, record.digest FROM entry JOIN record ON record.no = entry.record"
    " WHERE entry.revision = ? ORDER BY entry.number"
)
_STAGED = (
    "SELECT entry.number, entry.key, record.digest, record.text, record.hash, record.body, vector.value, vector.crc"
    " FROM entry JOIN record ON record.no = entry.record LEFT JOIN vector"
    " ON vector.tenant = record.tenant AND vector.embedder = ? AND vector.text = record.hash"
    " WHERE entry.revision = ? ORDER BY entry.number"
)
_SEARCHED = (
    "SELECT entry.key, entry.record, vector.value FROM entry JOIN record ON record.no = entry.record JOIN vector"
    " ON vector.tenant = record.tenant AND vector.embedder = ? AND vector.text = record.hash"
    " WHERE entry.revision = ? ORDER BY entry.number"
)
_TARGETS = (
    "SELECT live.target, revision.no, revision.revision FROM live JOIN revision"
    " ON revision.target = live.target AND revision.revision = live.revision WHERE live.tenant = ? ORDER BY live.target"
)
_PUBLISHED = "SELECT receipt FROM flip WHERE target = ? AND revision = ? AND withdrawn IS NULL"
_WITHDRAWN = "SELECT receipt FROM flip WHERE target = ? AND withdrawn = ? AND revision IS ? ORDER BY number DESC"
_TRIED = "SELECT 1 FROM attempt WHERE revision = ? AND attempt = ?"
_MADE_LIVE = "UPDATE revision SET state = 'live', flip = ? WHERE target = ? AND revision = ?"
_LOOSEN = "INSERT OR IGNORE INTO loose SELECT record FROM entry WHERE revision = ? AND number >= ? AND number < ?"
_VECTOR = "SELECT value, crc FROM vector WHERE tenant = ? AND embedder = ? AND text = ?"
_KEEP_VECTOR = (
    "INSERT INTO vector (tenant, embedder, text, value, crc) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (tenant, embedder, text) DO UPDATE SET value = excluded.value, crc = excluded.crc"
)
# The update heals a record that was damaged on disk; one that is as it should be is not written again.
_KEEP_RECORD = (
    "INSERT INTO record (tenant, digest, text, hash, body) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (tenant, digest) DO UPDATE SET text = excluded.text, hash = excluded.hash, body = excluded.body"
    " WHERE text IS NOT excluded.text OR hash IS NOT excluded.hash OR body IS NOT excluded.body"
)
_KEEP_ENTRY = (
    "INSERT INTO entry (revision, number, key, record)"
    " VALUES (?, ?, ?, (SELECT no FROM record WHERE tenant = ? AND digest = ?))"
    " ON CONFLICT (revision, number) DO UPDATE SET key = excluded.key, record = excluded.record"
)
_POINT = (
    "INSERT INTO live (target, tenant, revision, flip) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (target) DO UPDATE SET revision = excluded.revision, flip = excluded.flip"
)


class _Row(NamedTuple):
    """A revision as the file has it."""

    no: int
    attempt: str | None
    state: str
    kept: int


class _Part(NamedTuple):
    """A target's live vectors in memory, with the key and the record number of each."""

    revision: str
    matrix: Matrix
    entries: list[tuple[str, int]]


class _View(NamedTuple):
    """A tenant's live vectors in memory, as of one generation."""

    generation: int
    parts: dict[str, _Part]
    starts: list[tuple[int, str]]


class VectorSink(Sink):
    """Revisions, records and vectors in one SQLite file."""

    name = "vectors"

    def __init__(self, file: SqliteFile, embedder: Embedder) -> None:
        self._file, self._embedder = file, embedder
        self._views: OrderedDict[str, _View] = OrderedDict()

    @classmethod
    def open(cls, path: str | Path, *, embedder: Embedder, vfs: str | None = None) -> VectorSink:
        """Open the file of a path; see ``SqliteFile.open``."""
        schema = files("holdfast.sinks").joinpath("vectors.sql").read_text()
        return cls(SqliteFile.open(path, schema=schema, name="vectors", vfs=vfs), embedder)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def live(self, target: str) -> Receipt | None:
        with self._file.mapped():
            raw = self._file.read.execute(_LIVE, (target,)).get
        return None if raw is None else _receipt(raw)

    async def published(self, target: str, revision: str) -> Receipt | None:
        with self._file.mapped():
            raw = self._file.read.execute(_PUBLISHED, (target, revision)).get
        return None if raw is None else _receipt(raw)

    async def records(self, target: str) -> list[Record]:
        read = self._file.read
        rows: list[Any] = []
        with self._file.mapped(), read:
            revision = read.execute(_POINTER, (target,)).get
            row = None if revision is None else _row(read, target, revision)
            if row is not None:
                rows = read.execute(_RECORDS, (row.no,)).fetchall()
        return [Record(key, text, msgspec.json.decode(body), digest) for key, text, body, digest in rows]

    async def forecast(self, target: str, records: Sequence[Record]) -> Forecast:
        tenant, read = tenant_of(target), self._file.read
        known = "SELECT 1 FROM record WHERE tenant = ? AND digest = ?"
        with self._file.mapped(), read:
            new = sum(read.execute(known, (tenant, record.digest)).get is None for record in records)
        missing = self._missing(tenant, {_hash(record.text): record.text for record in records if record.text})
        tokens = sum(-(-len(text) // _CHARACTERS_A_TOKEN) for text in missing.values())
        return Forecast(len(records), new, len(missing), tokens)

    async def search(self, tenant: str, query: str, *, limit: int) -> list[Hit]:
        if limit <= 0 or not query.strip():
            return []
        (encoded,) = await self._embedder.embed([query])
        asked = np.frombuffer(encoded, "<f4")
        read = self._file.read
        hits: list[Hit] = []
        with self._file.mapped(), read:  # one transaction: the pointer, the vectors and the texts of one moment
            view = self._view(read, tenant)
            found = np.concatenate([np.zeros(0, "<f4"), *(part.matrix @ asked for part in view.parts.values())])
            scores = np.round(found, 6)  # equal texts are equal matches, wherever in a matrix they stand
            hits += [self._hit(read, view, int(at), float(scores[at])) for at in _best(scores, limit)]
        return hits

    async def close(self) -> None:
        self._views.clear()
        await self._file.close()

    # -- publishing --------------------------------------------------------------------------------------------------

    async def begin(self, target: str, revision: str, attempt: str, *, now: datetime) -> None:
        def job(db: apsw.Connection) -> None:
            row = _row(db, target, revision)
            if row is None:
                db.execute(
                    "INSERT INTO revision (target, revision, attempt, state, opened) VALUES (?, ?, ?, 'staged', ?)",
                    (target, revision, attempt, now.timestamp()),
                )
                number = db.last_insert_rowid()
            elif row.state in _WAS_LIVE or row.attempt == attempt:
                return
            else:
                number = row.no
                if db.execute(_TRIED, (number, attempt)).get is not None:
                    raise _fenced(target, attempt, row)
                _drop_entries(db, number)
                db.execute(
                    "UPDATE revision SET attempt = ?, state = 'staged', opened = ? WHERE no = ?",
                    (attempt, now.timestamp(), number),
                )
            db.execute("INSERT INTO attempt (revision, attempt) VALUES (?, ?)", (number, attempt))

        await self._write(job)

    async def stage(self, target: str, revision: str, attempt: str, records: Sequence[Record], *, start: int) -> None:
        with self._file.mapped():
            if _staging(self._file.read, target, revision, attempt) is None:
                return
        tenant = tenant_of(target)
        texts = {_hash(record.text): record.text for record in records if record.text}
        bodies = [msgspec.json.encode(record.body) for record in records]
        vectors: dict[str, bytes] = {}
        missing = self._missing(tenant, texts)

        def job(db: apsw.Connection) -> dict[str, str]:
            no = _staging(db, target, revision, attempt)
            if no is None:
                return {}
            gone = {
                hashed: text
                for hashed, text in texts.items()
                if hashed not in vectors and db.execute(_VECTOR, (tenant, self._embedder.name, hashed)).get is None
            }
            if gone:
                return gone
            for hashed, value in vectors.items():
                db.execute(_KEEP_VECTOR, (tenant, self._embedder.name, hashed, value, zlib.crc32(value)))
            db.execute(_LOOSEN, (no, start, start + len(records)))
            for number, (record, body) in enumerate(zip(records, bodies, strict=True), start):
                hashed = _hash(record.text) if record.text else ""
                db.execute(_KEEP_RECORD, (tenant, record.digest, record.text, hashed, body))
                db.execute(_KEEP_ENTRY, (no, number, record.key, tenant, record.digest))
            return {}

        while True:
            if missing:
                embedded = await self._embedder.embed(list(missing.values()))
                vectors.update(zip(missing, embedded, strict=True))
            missing = await self._write(job)
            if not missing:  # else another process cleaned vectors away that were here a moment ago
                return

    async def verify(self, target: str, revision: str) -> Manifest:
        read = self._file.read
        with self._file.mapped(), read:
            row = _row(read, target, revision)
            if row is None or not row.kept or row.state == "abandoned":
                raise VerificationFailedError(revision, "nothing is staged under it")
            rows = read.execute(_STAGED, (self._embedder.name, row.no)).fetchall()
        return await asyncio.to_thread(_check, revision, rows, self._embedder.dimensions)

    async def switch(self, target: str, revision: str, attempt: str, *, receipt: Receipt) -> Receipt:
        def job(db: apsw.Connection) -> Receipt:
            row = _row(db, target, revision)
            if row is not None and row.state in ("live", "past"):
                return _receipt(db.execute(_PUBLISHED, (target, revision)).get)
            if row is None or row.attempt != attempt:
                raise _fenced(target, attempt, row)
            was = db.execute(_POINTER, (target,)).get
            if row.state != "staged" or was != receipt.previous:
                raise LiveMovedError(target, receipt.previous, was)
            if receipt.revision != revision or manifest_of(db.execute(_PAIRS, (row.no,))) != receipt.manifest:
                raise VerificationFailedError(revision, "what is staged is not what the receipt says")
            _point(db, target, revision, receipt, leaving="past")
            return receipt

        return await self._write(job)

    async def rollback(self, target: str, *, receipt: Receipt) -> Receipt:
        def job(db: apsw.Connection) -> Receipt:
            was = db.execute(_POINTER, (target,)).get
            if was is None or was != receipt.rolls_back:
                done = db.execute(_WITHDRAWN, (target, receipt.rolls_back, receipt.revision)).get
                if done is None:
                    raise LiveMovedError(target, receipt.rolls_back, was)
                return _receipt(done)
            if receipt.revision is not None:
                row = _row(db, target, receipt.revision)
                if row is None or row.state != "past" or not row.kept:
                    raise VerificationFailedError(receipt.revision, "it was never live here, or is not kept any more")
            _point(db, target, receipt.revision, receipt, leaving="withdrawn")
            return receipt

        return await self._write(job)

    async def abandon(self, target: str, revision: str) -> None:
        def job(db: apsw.Connection) -> None:
            row = _row(db, target, revision)
            if row is not None and row.state == "staged":
                _drop_entries(db, row.no)
                db.execute("UPDATE revision SET attempt = NULL, state = 'abandoned' WHERE no = ?", (row.no,))

        await self._write(job)

    async def clean(self, target: str, *, keep: int) -> int:
        tenant = tenant_of(target)

        def job(db: apsw.Connection) -> int:
            past = "SELECT no FROM revision WHERE target = ? AND state = ? AND kept = 1 ORDER BY flip DESC"
            dropped = [no for (no,) in db.execute(past, (target, "past"))][max(keep, 0) :]
            dropped += [no for (no,) in db.execute(past, (target, "withdrawn"))]
            for no in dropped:
                _drop_entries(db, no)
                db.execute("UPDATE revision SET kept = 0 WHERE no = ?", (no,))
            _drop_loose(db, tenant)
            return len(dropped)

        return await self._write(job)

    # -- within ------------------------------------------------------------------------------------------------------

    async def _write(self, job: Job[T]) -> T:
        try:
            return await self._file.write(job)
        except StoreUnavailableError as error:
            raise SinkUnavailableError(self.name, error.reason) from error

    def _missing(self, tenant: str, texts: dict[str, str]) -> dict[str, str]:
        """Those of the texts, by hash, that have no sound vector yet."""
        read, name = self._file.read, self._embedder.name
        with self._file.mapped(), read:
            rows: dict[str, list[Any]] = {
                hashed: read.execute(_VECTOR, (tenant, name, hashed)).fetchall() for hashed in texts
            }
        dimensions = self._embedder.dimensions
        return {
            hashed: text
            for hashed, text in texts.items()
            if not any(_flaw(value, crc, text, dimensions) == "" for value, crc in rows[hashed])
        }

    def _view(self, read: apsw.Connection, tenant: str) -> _View:
        """The tenant's live vectors; only targets that moved since the last time are read again."""
        generation = read.execute("SELECT max(flip) FROM live WHERE tenant = ?", (tenant,)).get or 0
        view = self._views.get(tenant)
        if view is None or view.generation != generation:
            held = {} if view is None else view.parts
            parts: dict[str, _Part] = {}
            targets: list[Any] = read.execute(_TARGETS, (tenant,)).fetchall()
            for target, no, revision in targets:
                part = held.get(target)
                same = part is not None and part.revision == revision
                parts[target] = part if part is not None and same else self._part(read, no, revision)
            starts, at = [], 0
            for target, part in parts.items():
                starts.append((at, target))
                at += len(part.entries)
            view = _View(generation, parts, starts)
            self._views[tenant] = view
        self._views.move_to_end(tenant)
        while len(self._views) > _TENANTS_IN_MEMORY:
            self._views.popitem(last=False)
        return view

    def _part(self, read: apsw.Connection, no: int, revision: str) -> _Part:
        rows: list[Any] = read.execute(_SEARCHED, (self._embedder.name, no)).fetchall()
        size = 4 * self._embedder.dimensions
        if any(len(value) != size for _, _, value in rows):
            raise TamperedError(f"the vectors of revision {revision}")
        matrix = np.frombuffer(b"".join(value for _, _, value in rows), "<f4").reshape(-1, self._embedder.dimensions)
        return _Part(revision, matrix, [(key, record) for key, record, _ in rows])

    def _hit(self, read: apsw.Connection, view: _View, at: int, score: float) -> Hit:
        start, target = view.starts[bisect_right(view.starts, at, key=lambda place: place[0]) - 1]
        part = view.parts[target]
        key, record = part.entries[at - start]
        row: Any = read.execute("SELECT text, body FROM record WHERE no = ?", (record,)).get
        text, body = row
        return Hit(target, part.revision, key, score, text, msgspec.json.decode(body))


def _row(db: apsw.Connection, target: str, revision: str) -> _Row | None:
    row: Any = db.execute(_REVISION, (target, revision)).get
    return None if row is None else _Row(*row)


def _staging(db: apsw.Connection, target: str, revision: str, attempt: str) -> int | None:
    """The number of a revision this attempt may stage, None for one that was live; else ``LiveMovedError``."""
    row = _row(db, target, revision)
    if row is not None and row.state in _WAS_LIVE:
        return None
    if row is None or row.attempt != attempt:
        raise _fenced(target, attempt, row)
    return row.no


def _fenced(target: str, attempt: str, row: _Row | None) -> LiveMovedError:
    by = None if row is None else f"staged by {row.attempt or 'nobody'}"
    return LiveMovedError(target, f"staged by attempt {attempt}", by)


def _point(db: apsw.Connection, target: str, revision: str | None, receipt: Receipt, *, leaving: str) -> None:
    """The switch itself, and what becomes of the revision that was live."""
    db.execute(
        "INSERT INTO flip (target, revision, withdrawn, receipt) VALUES (?, ?, ?, ?)",
        (target, revision, receipt.rolls_back, msgspec.json.encode(receipt)),
    )
    number = db.last_insert_rowid()
    db.execute("UPDATE revision SET state = ? WHERE target = ? AND state = 'live'", (leaving, target))
    db.execute(_MADE_LIVE, (number, target, revision))
    db.execute(_POINT, (target, tenant_of(target), revision, number))


def _drop_entries(db: apsw.Connection, revision: int) -> None:
    db.execute("INSERT OR IGNORE INTO loose SELECT record FROM entry WHERE revision = ?", (revision,))
    db.execute("DELETE FROM entry WHERE revision = ?", (revision,))


def _drop_loose(db: apsw.Connection, tenant: str) -> None:
    """Remove the tenant's records that no revision holds any more, and vectors no record needs any more."""
    loose = db.execute(
        "SELECT no, hash, EXISTS (SELECT 1 FROM entry WHERE entry.record = no) FROM record"
        " WHERE tenant = ? AND no IN (SELECT record FROM loose)",
        (tenant,),
    ).fetchall()
    for no, hashed, held in loose:
        db.execute("DELETE FROM loose WHERE record = ?", (no,))
        if held:
            continue
        db.execute("DELETE FROM record WHERE no = ?", (no,))
        if db.execute("SELECT 1 FROM record WHERE tenant = ? AND hash = ?", (tenant, hashed)).get is None:
            db.execute("DELETE FROM vector WHERE tenant = ? AND text = ?", (tenant, hashed))


def _check(revision: str, rows: Iterable[tuple[Any, ...]], dimensions: int) -> Manifest:
    """The manifest of staged rows, each taken from what is stored and not from what was meant."""
    pairs: dict[str, str] = {}
    for place, (number, key, digest, text, hashed, body, value, crc) in enumerate(rows):
        if number != place:
            raise VerificationFailedError(revision, f"record {place} is missing")
        if key in pairs:
            raise VerificationFailedError(revision, f"two records have the key {key}")
        try:
            sound = record_digest(text, msgspec.json.decode(body)) == digest and hashed == (_hash(text) if text else "")
        except msgspec.MsgspecError:
            sound = False
        if not sound:
            raise VerificationFailedError(revision, f"record {key} is not what its digest says")
        flaw = _flaw(value, crc, text, dimensions) if text else ""
        if flaw:
            raise VerificationFailedError(revision, f"record {key} {flaw}")
        pairs[key] = digest
    return manifest_of(pairs.items())


def _flaw(value: bytes | None, crc: int | None, text: str, dimensions: int) -> str:
    """What is wrong with the vector of a text; empty if nothing is."""
    if value is None:
        return "has no vector"
    if len(value) != 4 * dimensions:
        return f"has {len(value) // 4} dimensions, not {dimensions}"
    if zlib.crc32(value) != crc:
        return "has a damaged vector"
    length = float(np.linalg.norm(np.frombuffer(value, "<f4").astype("<f8")))
    if not (abs(length - 1.0) < 1e-3 or (length == 0.0 and not text.strip())):
        return f"has a vector of length {length:.3g}"
    return ""


def _best(scores: npt.NDArray[np.float32], limit: int) -> npt.NDArray[np.intp]:
    """Places of the best scores above zero, best first, equal ones in order."""
    places = np.flatnonzero(scores > 0)
    if len(places) > limit:
        least = np.partition(scores[places], -limit)[-limit]
        places = places[scores[places] >= least]
    return places[np.argsort(-scores[places], kind="stable")][:limit]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _receipt(raw: bytes) -> Receipt:
    try:
        return msgspec.json.decode(raw, type=Receipt)
    except msgspec.MsgspecError:
        raise TamperedError("a publication receipt") from None
