"""A session's whole objects in the cold tier: the documents it was ingested from, the bundles it published."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from hashlib import blake2b

from holdfast.engine.opened import Opened
from holdfast.engine.sealing import deflate, inflate
from holdfast.errors import AlreadyExistsError, BlobNotFoundError, TamperedError
from holdfast.ports.cold import ColdStore


class Blobs:
    """Objects named by a keyed hash of their content and sealed under their session's key."""

    def __init__(self, cold: ColdStore) -> None:
        self._cold = cold

    async def put(self, opened: Opened, data: bytes) -> str:
        """Keep an object; its name. The same content has the same name, and is kept once."""
        name = opened.cipher.item_id("blob " + blake2b(data, digest_size=32).hexdigest()).hex()
        key = _key(opened.header.id, name)
        try:
            await self._cold.put(key, opened.cipher.seal(deflate(data), b"blob" + key.encode()))
        except AlreadyExistsError:
            # Sealing the same content twice gives other bytes: what counts is that the object there opens to the same.
            if await self.get(opened, name) != data:
                raise TamperedError(f"blob {name}") from None
        return name

    async def get(self, opened: Opened, name: str) -> bytes:
        """An object's content; ``BlobNotFoundError`` or ``TamperedError``."""
        key = _key(opened.header.id, name)
        sealed = await self._cold.get(key)
        if sealed is None:
            raise BlobNotFoundError(name)
        return inflate(opened.cipher.open(sealed, b"blob" + key.encode(), f"blob {name}"))

    async def answers(self) -> None:
        """Return if the store answers; raise if not."""
        await self._cold.get("health/none")

    async def names(self, session: str) -> set[str]:
        """The names of all objects kept for a session."""
        prefix = _key(session, "")
        return {key[len(prefix) :] async for key in self._cold.keys(prefix)}

    async def drop(self, session: str) -> None:
        """Remove every object of a session."""
        await self.remove(session, await self.names(session))

    async def remove(self, session: str, names: Iterable[str]) -> None:
        """Remove objects of a session; those that are not there are no error."""
        await asyncio.gather(*(self._cold.delete(_key(session, name)) for name in names))


def _key(session: str, name: str) -> str:
    return f"sessions/{session[:2]}/{session}/{name}"
