"""The audit as it is read: what was done, from a session's own log, with what was read and refused, from the chain."""

from __future__ import annotations

import contextlib

from holdfast.engine.audit import Audit
from holdfast.engine.gate import Gate
from holdfast.engine.journal import Journal
from holdfast.errors import PermissionDeniedError, SessionGoneError
from holdfast.model.access import Principal
from holdfast.model.audit import AuditLine

_PAGE = 1_000


class Trail:
    """Puts the two halves of the audit together."""

    def __init__(self, journal: Journal, gate: Gate, audit: Audit) -> None:
        self._journal, self._gate, self._audit = journal, gate, audit

    async def lines(self, who: Principal, session: str | None, after: int, limit: int) -> list[AuditLine]:
        """Who did what, oldest first, ``limit`` lines beyond the first ``after``: about one session, or the tenant's.

        Raises:
            PermissionDeniedError: the tenant's lines are for its admins and auditors.
        """
        lines: list[AuditLine] = []
        if session is not None:
            lines = await self._log(who, session)
        elif not who.roles & {"admin", "auditor"}:
            raise PermissionDeniedError(who.id, "audit", ("admin", "auditor"))
        await self._audit.flush()
        if session is None and (page := await self._audit.page(who.tenant, after=after, limit=limit)) is not None:
            return page
        lines += [line async for line in self._audit.lines(who.tenant, session)]
        return sorted(lines, key=lambda line: line.at)[after : after + limit]

    async def _log(self, who: Principal, session: str) -> list[AuditLine]:
        """A session's log as audit lines; its headers outlive its content, so a purged session has them too."""
        with contextlib.suppress(SessionGoneError):  # purged, and the gate has let this principal know
            await self._gate.enter(session, who, "audit", gone=True)
        lines: list[AuditLine] = []
        after = 0
        while page := await self._journal.log.headers(session, after=after, limit=_PAGE):
            for entry in page:
                lines.append(AuditLine(entry.at, entry.actor, who.tenant, entry.operation, session, entry.version))
            after = page[-1].step
        return lines
