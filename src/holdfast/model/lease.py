"""A lease: the timed right to write, with a number that only grows."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Lease(msgspec.Struct, frozen=True):
    """Held by one participant at a time.

    Attributes:
        holder: the participant, such as ``agent-7`` or a browser tab.
        fence: grows by one with each grant; a commit that carries an older one is refused.
        until: when it lapses, on the store's clock.
    """

    session: str
    holder: str
    fence: int
    until: datetime
