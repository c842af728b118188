"""A revocation: tokens that count no more, though they have not expired."""

from __future__ import annotations

import msgspec


class Revocation(msgspec.Struct, frozen=True):
    """Takes back one token, or all that were issued before a time. Times are seconds since the epoch.

    Attributes:
        tenant: whose principals it is about.
        token: the id (``jti``) of the one token; empty for all issued before ``before``.
        principal: whose; empty for the token of whoever it is, or without a token for those of the whole tenant.
        before: tokens issued earlier are taken back; 0 with a ``token``.
        until: from when on it may be forgotten, because what it takes back has expired by itself.
        by: the principal who revoked.
    """

    tenant: str
    token: str
    principal: str
    before: float
    until: float
    by: str
