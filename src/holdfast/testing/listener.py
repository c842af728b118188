"""A listener to a session's feed: server-sent events as they come in, and whether they are what the session did."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from holdfast.testing.doors import Caller, Door
from holdfast.testing.peers import Peer


class Event(msgspec.Struct, frozen=True):
    """One event: its name, what to resume from (empty: as before), and its data."""

    name: str
    id: str
    data: Any


class Refusal(Exception):  # noqa: N818 - an answer like any other
    """The service did not begin a stream; ``status`` and the problem it answered with."""

    def __init__(self, status: int, told: Any) -> None:
        self.status, self.told = status, told
        super().__init__(f"{status} {told}")


class Listener:
    """An open stream. ``received`` counts the bytes of events so far."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.received = peer, 0

    @classmethod
    @contextlib.asynccontextmanager
    async def to(
        cls, door: Door, session: str, *, last: str | None = None, window: int | None = None
    ) -> AsyncIterator[Listener]:
        """Ask for the feed of a session, beyond the event with the id ``last``.

        Args:
            window: bytes the system may hold that are not read; as many as it likes, if not given.
        Raises:
            ConnectionError: there is nobody, or nobody any more. Refusal: no stream was begun.
        """
        async with Peer.to(door.address, window=window) as peer:
            fields = ("Accept: text/event-stream", *(() if last is None else (f"Last-Event-ID: {last}",)))
            await Caller(door, peer).send("GET", f"/v1/sessions/{session}/events", *fields)
            yield cls(peer)

    async def events(self) -> AsyncIterator[Event]:
        """The events, until the stream ends.

        Raises:
            ConnectionError: the connection ended within it. Refusal: no stream was begun.
        """
        await self._begin()
        held = b""
        async for part in self._parts():
            *whole, held = (held + part).split(b"\n\n")
            for block in whole:
                event = _event(block.decode())
                if event is not None:
                    yield event

    async def _begin(self) -> None:
        head = await self._until(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        status = int(lines[0].split()[1])
        fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if status != 200:
            told = await self._exactly(int(fields.get("content-length", "0")))
            raise Refusal(status, msgspec.json.decode(told) if told else None)
        assert fields["content-type"].startswith("text/event-stream")
        assert fields["transfer-encoding"] == "chunked"

    async def _parts(self) -> AsyncIterator[bytes]:
        """What the chunks hold, in pieces of any length."""
        while size := int(await self._until(b"\r\n"), 16):
            while size:
                part = await self._exactly(min(size, 32_768))
                size -= len(part)
                self.received += len(part)
                yield part
            await self._exactly(2)

    async def _until(self, end: bytes) -> bytes:
        try:
            return await self.peer.reader.readuntil(end)
        except EOFError:
            raise ConnectionResetError("the stream ended") from None

    async def _exactly(self, count: int) -> bytes:
        try:
            return await self.peer.reader.readexactly(count)
        except EOFError:
            raise ConnectionResetError("the stream ended") from None


def _event(block: str) -> Event | None:
    """An event of its lines (WHATWG HTML, 9.2.6); None for one without data, such as a comment."""
    fields = {"event": "message", "id": ""}
    data = []
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name in fields:
            fields[name] = value
    return Event(fields["event"], fields["id"], msgspec.json.decode("\n".join(data))) if data else None


def gaps(events: Sequence[Event], history: Sequence[Any]) -> list[str]:
    """What is wrong with a feed beside a session's history, oldest first: each entry once, in order, as it was.

    Args:
        events: entries alone, from the session's first.
    """
    found = []
    for at, (event, entry) in enumerate(zip(events, history, strict=False)):
        step = event.data.get("step")
        if step != at + 1:
            found.append(f"event {at + 1} is step {step}")
        elif event.data != entry or event.name != entry["operation"]:
            found.append(f"step {step} is not as in the history")
        elif at and event.data["parent"] != events[at - 1].data["digest"]:
            found.append(f"step {step} does not follow the one before it")
    if len(events) != len(history):
        found.append(f"{len(events)} events of {len(history)} entries")
    if len({event.id for event in events}) != len(events):
        found.append("an id twice")
    return found


__all__ = ["Event", "Listener", "Refusal", "gaps"]
