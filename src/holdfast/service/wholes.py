"""Whole sessions as they are sent."""

from __future__ import annotations

from collections import OrderedDict

from holdfast.model.session import Session
from holdfast.wire.sessions import whole


class Wholes:
    """Whole sessions as bytes, built once a state and kept within a bound on bytes, the longest unused let go first."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._kept: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()

    def bytes_of(self, session: Session) -> bytes:
        """A session as JSON. Who may see it has been asked already."""
        header = session.header
        if header.stale:  # which its digest does not tell
            return whole(session)
        kept = self._kept.get(header.id)
        if kept is not None and kept[0] == header.digest:
            self._kept.move_to_end(header.id)
            return kept[1]
        data = whole(session)
        if kept is not None:
            self._held -= len(self._kept.pop(header.id)[1])
        if len(data) <= self._most:
            self._kept[header.id] = (header.digest, data)
            self._held += len(data)
        while self._held > self._most:
            self._held -= len(self._kept.popitem(last=False)[1][1])
        return data
