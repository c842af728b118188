"""One line of the audit trail."""

from __future__ import annotations

from datetime import datetime

import msgspec


class AuditLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did what, when, to which session and version, and what came of it. Never content.

    Attributes:
        verb: as asked for, such as ``edit`` or ``publish``.
        outcome: ``ok``, or the code of the error it was refused with.
        count: how often, where the same thing was done again within a second.
        proof: of a purge, the digest of the log's last entry, in hex.
    """

    at: datetime
    actor: str
    tenant: str
    verb: str
    session: str = ""
    version: int = 0
    outcome: str = "ok"
    count: int = 1
    proof: str = ""
