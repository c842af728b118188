"""Archives: a session's log and items as objects in the cold tier, and of the session a stub in the warm one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec
from msgspec.structs import astuple

from holdfast.engine.blobs import Blobs
from holdfast.engine.log import ROOM
from holdfast.engine.opened import Opened
from holdfast.engine.unsealing import Unsealing
from holdfast.errors import ArchiveMissingError, BlobNotFoundError, StoreUnavailableError, TamperedError
from holdfast.model.entry import SealedEntry, entry_digest
from holdfast.model.session import SealedHead, SealedItem
from holdfast.ports.clock import Chance
from holdfast.ports.warm import Snapshot, WarmStore

_FORMAT = 1
_AT_ONCE = 8
_PAGE = 1_000
_MOST_TRIES = 8


class _Manifest(msgspec.Struct, frozen=True, array_like=True):
    """What an archive is made of: names of objects, each with a part of the log or of the items, in order."""

    format: int
    step: int
    digest: bytes
    entries: tuple[str, ...]
    items: tuple[str, ...]


_Entry = tuple[int, int, bool, str, bytes, bytes, bytes]
"""The fields of a ``SealedEntry``, but for its session."""
_Item = tuple[bytes, int, bytes]
"""Those of a ``SealedItem``, which has its bytes."""

# Each object begins with a token of its archive's own: no two archives share an object, so that one which is restored
# can be tidied up whatever has been archived since.
_encode = msgspec.msgpack.Encoder().encode
_manifest = msgspec.msgpack.Decoder(tuple[str, _Manifest])
_entries = msgspec.msgpack.Decoder(tuple[str, tuple[_Entry, ...]])
_items = msgspec.msgpack.Decoder(tuple[str, tuple[_Item, ...]])


class Archiving:
    """Writes archives, reads them back, and puts their content back into the warm tier."""

    def __init__(self, warm: WarmStore, blobs: Blobs, unsealing: Unsealing, chance: Chance) -> None:
        self._warm, self._blobs, self._unsealing, self._chance = warm, blobs, unsealing, chance

    async def write(self, opened: Opened, head: SealedHead, items: Sequence[SealedItem]) -> bool:
        """Archive a session that stands at ``head`` in the warm tier: write it whole, read it back, compare, and only
        then make a stub of it.

        Args:
            items: the rows of all its items at that step.
        Returns:
            False if it has moved on meanwhile; it is as it was.
        """
        token, parts, part, held, after = self._chance.token(), list[str](), list[tuple[object, ...]](), 0, 0
        while after < head.step:
            page = await self._warm.entries(head.id, after=after, limit=_PAGE, room=ROOM)
            page = [entry for entry in page if entry.step <= head.step]
            if not page:
                if await self._warm.head(head.id) == head:
                    raise TamperedError(f"the log of session {head.id}")
                await self._blobs.remove(head.id, parts)  # somebody else has archived it, or purged it
                return False
            after = page[-1].step
            part += [astuple(entry)[1:] for entry in page]
            held += sum(len(entry.payload) for entry in page)
            if held >= ROOM or after >= head.step:
                parts.append(await self._blobs.put(opened, _encode((token, part))))
                part, held = [], 0
        pieces = [await self._blobs.put(opened, _encode((token, some))) for some in _cut(items)]
        manifest = _Manifest(_FORMAT, head.step, head.digest, tuple(parts), tuple(pieces))
        name = await self._blobs.put(opened, _encode((token, manifest)))
        _, snapshot = await self.read(opened, name)
        if list(snapshot.items) != list(items):
            raise TamperedError(f"the archive of session {head.id}")
        if await self._warm.archive(head.id, step=head.step, key=name):
            return True
        await self._blobs.remove(head.id, {name, *parts, *pieces})
        return False

    async def read(self, opened: Opened, name: str) -> tuple[list[SealedEntry], Snapshot]:
        """The log and the items of an archive: every step up to the last, each with the bytes of its digest.

        Raises:
            TamperedError: it is not what was written.
            ArchiveMissingError: an object of it is not there.
        """
        return await self._content(opened, await self._listed(opened, name))

    async def _listed(self, opened: Opened, name: str) -> _Manifest:
        try:
            return _manifest.decode(await self._part(opened, name))[1]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise TamperedError(f"the archive of session {opened.header.id}") from None

    async def _content(self, opened: Opened, manifest: _Manifest) -> tuple[list[SealedEntry], Snapshot]:
        session = opened.header.id
        entries: list[SealedEntry] = []
        items: list[SealedItem] = []
        log, rows = await asyncio.gather(self._parts(opened, manifest.entries), self._parts(opened, manifest.items))
        try:
            for part in log:
                entries += [SealedEntry(session, *entry) for entry in _entries.decode(part)[1]]
            for part in rows:
                items += [SealedItem(*row) for row in _items.decode(part)[1]]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise TamperedError(f"the archive of session {session}") from None
        steps = [entry.step for entry in entries]
        whole = steps == list(range(1, manifest.step + 1)) and bool(entries) and entries[-1].digest == manifest.digest
        if not whole or manifest.format != _FORMAT:
            raise TamperedError(f"the archive of session {session}")
        for entry in entries:
            if entry_digest(entry.header, entry.payload) != entry.digest:
                raise TamperedError(f"the archive of session {session}")
        return entries, Snapshot(manifest.step, tuple(items))

    async def restore(self, head: SealedHead) -> SealedHead:
        """Put the log and the items of a stub back into the warm tier; its head, which is no stub's any more.

        Raises:
            StoreUnavailableError: of the cold tier: the session is there, and cannot be had just now.
        """
        for _ in range(_MOST_TRIES):
            opened, name = self._unsealing.head(head), head.archive
            if name is None:
                return head
            try:
                manifest = await self._listed(opened, name)
                entries, snapshot = await self._content(opened, manifest)
            except TamperedError:
                again = await self._stub(head, name)
                if again.archive == name:
                    raise
                head = again  # somebody else has restored it, and tidied up
                continue
            head = await self._stub(head, name)
            if head.archive != name:  # or has archived it anew since: what was read is not what it stands at
                continue
            await self._warm.restore(head.id, entries, snapshot, key=name)
            head = await self._stub(head, name)
            if head.archive == name:
                raise TamperedError(f"the archive of session {head.id}")
            with contextlib.suppress(StoreUnavailableError):  # what is left there is removed with the session
                await self._blobs.remove(head.id, {name, *manifest.entries, *manifest.items})
        raise StoreUnavailableError("cold", "the session is archived again each time it is restored")

    async def _stub(self, head: SealedHead, name: str) -> SealedHead:
        """A session's head by now."""
        again = await self._warm.head(head.id)
        if again is None:
            raise TamperedError(f"the archive {name} of session {head.id}")
        return again

    async def _part(self, opened: Opened, name: str) -> bytes:
        try:
            return await self._blobs.get(opened, name)
        except BlobNotFoundError:  # what is lost is not absent: the session is there, and cannot be had
            raise ArchiveMissingError(opened.header.id) from None

    async def _parts(self, opened: Opened, names: Sequence[str]) -> list[bytes]:
        """Objects in order, several asked for at a time."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def part(name: str) -> bytes:
            async with slots:
                return await self._part(opened, name)

        return await asyncio.gather(*map(part, names))


def _cut(rows: Sequence[SealedItem]) -> list[list[tuple[object, ...]]]:
    """The fields of rows, in parts of about the size of a page of the log."""
    parts: list[list[tuple[object, ...]]] = []
    held = ROOM
    for row in rows:
        if held >= ROOM:
            parts.append([])
            held = 0
        parts[-1].append(astuple(row))
        held += len(row.sealed or b"")
    return parts
