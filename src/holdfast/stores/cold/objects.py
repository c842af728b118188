"""The cold tier in an object store: a local directory, S3, GCS, Azure, or memory."""

from __future__ import annotations

import asyncio
import io
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError as ObjectExists
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from holdfast.errors import AlreadyExistsError, ConfigurationError, InvalidError, StoreUnavailableError
from holdfast.ports.cold import ColdStore
from holdfast.stores.cold.answers import is_absent, mapped
from holdfast.stores.cold.directory import Directory
from holdfast.stores.cold.object_url import PATIENCE, ObjectUrl

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._=-]{0,199}"
_KEY = re.compile(f"{_SEGMENT}(/{_SEGMENT}){{0,15}}")

_MIB = 1 << 20
_WHOLE = 16 * _MIB
"""An object of up to so many bytes goes in one request, a larger one in parts. S3 would take 5 GiB at once, and all of
it again after a lost connection."""
_PART = 8 * _MIB
_PIECE = _MIB
_SLOWEST = _MIB
"""Bytes a second: beyond the patience for an answer, the time that a transfer is given."""

_STAGING = ".staging"
_TRIES = 4
_PAUSE = 0.05
_PAGE = 1_000


class ObjectColdStore(ColdStore):
    """Immutable objects through obstore; the same code for each of its stores, but for what a local directory needs
    (see ``Directory``) and for large objects in S3.

    Every call of a store on the network is bounded: by the patience for an answer, and beyond that by the size of what
    is carried. A call that is cut short takes its request with it; whether that was heeded is unknown, and the same put
    again finds out.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        patience: float = PATIENCE,
        parts: bool = False,
        unnamed: bool = False,
    ) -> None:
        """Take a store of obstore's.

        Args:
            patience: seconds an answer is waited for.
            parts: send large objects in parts.
            unnamed: nobody has named credentials: said with an answer that does not come.
        """
        self._store, self._patience, self._parts, self._unnamed = store, patience, parts, unnamed
        self._removing: set[asyncio.Task[None]] = set()
        self._directory: Directory | None = None
        if isinstance(store, LocalStore):
            if store.prefix is None:
                raise ConfigurationError("A cold store in a directory needs the directory.")
            self._directory = Directory(store, Path(store.prefix))

    @classmethod
    def open(cls, url: str) -> ObjectColdStore:
        """Open the store of a URL, as ``object_url`` describes them. No request is sent yet.

        Raises:
            ConfigurationError: the URL is not one of these, or what is needed beside it is not there.
        """
        where = ObjectUrl.parse(url)
        return cls(where.store(), patience=where.patience, parts=where.parts, unnamed=where.unnamed)

    async def put(self, key: str, data: bytes) -> None:
        _check(key)
        with self._mapped():
            async with self._within(2 * len(data)):  # sent, and what is there read back
                await self._put(key, data)

    async def get(self, key: str) -> bytes | None:
        _check(key)
        with self._mapped():
            return await self._read(key)

    async def delete(self, key: str) -> None:
        _check(key)
        with self._mapped():
            if self._directory is not None:
                await self._directory.require()
            async with self._within(0):
                await self._delete(key)
            if self._directory is not None:
                await self._directory.sync_removal(key)

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        if not prefix.endswith("/"):
            raise InvalidError("That is not a prefix of the cold tier: it ends in a slash.")
        _check(prefix[:-1])
        with self._mapped():
            if self._directory is not None:
                await self._directory.require()
            pages = obstore.list(self._store, prefix, chunk_size=_PAGE)
        while True:
            page: list[ObjectMeta] = []
            with self._mapped():
                async with self._within(0):
                    page += await anext(pages, [])
            if not page:
                return
            for found in page:
                yield found["path"]

    async def close(self) -> None:
        """Wait for removals from staging; obstore holds nothing that outlives a call but pooled connections."""
        await asyncio.gather(*self._removing)

    # -- one create-only put -----------------------------------------------------------------------------------------

    async def _put(self, key: str, data: bytes) -> None:
        # It may be there already: a large object is not sent in vain.
        looks = self._in_parts(data)
        # Whoever finds the key taken looks at what is there. It may be gone again by then, or not there yet (S3 answers
        # a race with 409 to some while nobody has won): hence another try.
        for number in range(_TRIES):
            if number:
                await asyncio.sleep(_PAUSE * number)
            if not (looks and await self._has(key)) and await self._create(key, data):
                return
            kept = await self._read(key)
            if kept is not None:
                if kept != data:
                    raise AlreadyExistsError("Another object under that key of the cold tier")
                if self._directory is not None:
                    await self._directory.sync(key)  # it may be a racer's, who has not come to sync it yet
                return
        raise StoreUnavailableError("cold", "an object is neither to be made nor to be read")

    async def _create(self, key: str, data: bytes) -> bool:
        """Make the object; False if the key is taken."""
        if self._directory is not None:
            return await self._directory.create(key, data)
        try:
            if self._in_parts(data):
                await self._create_in_parts(key, data)
            else:
                await obstore.put_async(self._store, key, data, mode="create", use_multipart=False)
        except ObjectExists:
            return False
        return True

    def _in_parts(self, data: bytes) -> bool:
        return self._parts and len(data) > _WHOLE

    async def _create_in_parts(self, key: str, data: bytes) -> None:
        """Send an object in parts under a name of its own, then have the server copy it to its key if that is free.

        obstore sends parts without any condition: under the key itself they would replace what is there. S3 checks a
        copy's condition at its end (``If-None-Match`` on ``CompleteMultipartUpload``), in one step with making the
        object. A server that does not know that condition lets the last of two racers win. Under the engine's keys,
        which name the content, either's object is the right one.

        obstore ends an upload of which a part fails. A put that is cancelled or out of time leaves one unfinished,
        and a process that dies perhaps an object in ``.staging``: nobody reads either, and the bucket's lifecycle rules
        remove them.
        """
        staged = f"{_STAGING}/{secrets.token_hex(12)}"
        try:
            await obstore.put_async(self._store, staged, data, use_multipart=True, chunk_size=_PART)
            await obstore.copy_async(self._store, staged, key, overwrite=False)
        finally:
            # By itself, so that neither the caller's cancellation nor its deadline stops it.
            task = asyncio.create_task(self._remove(staged), name="holdfast-cold-staging")
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)

    async def _remove(self, staged: str) -> None:
        with suppress(BaseError, OSError, ValueError):
            async with self._within(0):
                await obstore.delete_async(self._store, staged)

    # -- what the rest is made of ------------------------------------------------------------------------------------

    async def _has(self, key: str) -> bool:
        try:
            await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return False
        return True

    async def _read(self, key: str) -> bytes | None:
        """An object piece by piece: each has the patience of an answer, and all of them the time of their size."""
        if self._directory is not None:
            return await self._directory.read(key)
        loop = asyncio.get_running_loop()
        async with self._within(0) as limit:
            try:
                found = await obstore.get_async(self._store, key)
            except FileNotFoundError as error:
                if is_absent(error):
                    return None
                raise
            size = found.meta["size"]
            end = loop.time() + self._patience + size / _SLOWEST
            whole = io.BytesIO()  # grows where it stands, and gives its bytes without another copy
            async for piece in found.stream(min_chunk_size=_PIECE):
                whole.write(piece)
                limit.reschedule(min(loop.time() + self._patience, end))
        if whole.tell() != size:
            raise StoreUnavailableError("cold", f"of an object of {size} bytes came {whole.tell()}")
        return whole.getvalue()

    async def _delete(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError as error:
            if not is_absent(error):
                raise

    def _within(self, size: int) -> asyncio.Timeout:
        """The time that a request is given. A directory's has no limit: a disk that hangs cannot be told to stop."""
        return asyncio.timeout(None if self._directory is not None else self._patience + size / _SLOWEST)

    def _mapped(self) -> AbstractContextManager[None]:
        return mapped(self._patience, unnamed=self._unnamed)


def _check(key: str) -> None:
    if _KEY.fullmatch(key) is None:
        raise InvalidError(
            "That is not a key of the cold tier: names of A-Z, a-z, 0-9, with . _ = - within, joined by /."
        )
