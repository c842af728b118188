"""Who may do what: principals, roles, grants, and the one rule every verb asks before data is touched."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from holdfast.errors import InvalidChangeError
from holdfast.model.text import check_text

MOST_ID = 200


class Role(StrEnum):
    """A role on one session; the owner holds ``owner`` without a grant."""

    OWNER = "owner"
    EDITOR = "editor"
    PARTICIPANT = "participant"
    VIEWER = "viewer"


class Principal(msgspec.Struct, frozen=True):
    """Who asks.

    Attributes:
        id: unique within the tenant.
        tenant: sessions of another tenant do not exist for this principal.
        roles: service roles: ``admin`` (every verb on every session of the tenant), ``auditor`` (audit and headers).
    """

    id: str
    tenant: str = "default"
    roles: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_text("a principal's id", self.id, most=MOST_ID)
        check_text("a tenant", self.tenant, most=MOST_ID)
        if "/" in self.tenant:  # it stands before the first slash of what the tenant publishes
            raise InvalidChangeError("a tenant has no slash in its name")


class Guarded(Protocol):
    """What the rule needs to know of a session; its header has it."""

    @property
    def tenant(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def grants(self) -> Mapping[str, Role]: ...


SYSTEM = "holdfast"
"""The actor of what Holdfast does by itself: warnings, expiry, recovery."""

_READ = frozenset({Role.OWNER, Role.EDITOR, Role.PARTICIPANT, Role.VIEWER})
_WRITE = frozenset({Role.OWNER, Role.EDITOR, Role.PARTICIPANT})
_STEER = frozenset({Role.OWNER, Role.EDITOR})
_OWN = frozenset({Role.OWNER})

VERBS: Mapping[str, frozenset[Role]] = {
    "header": _READ,
    "read": _READ,
    "history": _READ,
    "diff": _READ,
    "feed": _READ,
    "export": _READ,
    "receipts": _READ,
    "edit": _WRITE,
    "undo": _WRITE,
    "redo": _WRITE,
    "lease": _WRITE,
    "touch": _WRITE,
    "label": _STEER,
    "restore": _STEER,
    "rename": _STEER,
    "preview": _STEER,
    "unlock": _STEER,
    "take-over": _STEER,
    "publish": _STEER,
    "rollback": _OWN,
    "reopen": _STEER,
    "extend": _STEER,
    "suspend": _STEER,
    "archive": _STEER,
    "rehydrate": _STEER,
    "discard": _OWN,
    "revive": _OWN,
    "grant": _OWN,
    "audit": _OWN,
}
"""Which roles may use a verb on a session."""

SERVICE_VERBS: Mapping[str, frozenset[str]] = {
    "sweep": frozenset({"operator"}),
    "verify": frozenset({"admin", "auditor"}),
    "repair": frozenset({"admin"}),
    "tiers": frozenset({"operator"}),
    "flush": frozenset({"operator"}),
    "rotate-keys": frozenset({"operator"}),
    "metrics": frozenset({"operator"}),
    "revoke": frozenset({"admin"}),
    "revocations": frozenset({"admin"}),
}
"""Verbs on more than a session, and the service roles that may use them: an operator's reach every tenant, the others
the principal's own. Of ``revoke`` and ``revocations`` everybody may what concerns himself.
"""

SERVICE_ROLES = frozenset({"admin", "auditor", "operator"})

_AUDITOR = frozenset({"header", "audit", "receipts"})


def role_of(who: Principal, session: Guarded) -> Role | None:
    """The role a principal holds on a session, None for a stranger."""
    if who.tenant != session.tenant:
        return None
    return Role.OWNER if who.id == session.owner else session.grants.get(who.id)


def may(who: Principal, verb: str, session: Guarded) -> bool:
    """Whether a principal may use a verb on a session. An unknown verb is never allowed."""
    allowed = VERBS.get(verb)
    if allowed is None or who.tenant != session.tenant:
        return False
    if "admin" in who.roles or ("auditor" in who.roles and verb in _AUDITOR):
        return True
    return role_of(who, session) in allowed


def may_know(who: Principal, session: Guarded) -> bool:
    """Whether a principal may learn that a session exists."""
    return who.tenant == session.tenant and (
        bool(who.roles & {"admin", "auditor"}) or role_of(who, session) is not None
    )
