"""The claims of a token whose signature is good: whether they are for us, and the caller they describe.

RFC 7519 and its profile for access tokens, RFC 9068, read strictly: what is doubtful is refused.
"""

from __future__ import annotations

import json
from typing import Any

from holdfast.errors import HoldfastError, UnauthenticatedError
from holdfast.model.access import MOST_ID, SERVICE_ROLES, SYSTEM, Principal
from holdfast.service.auth.caller import EXPIRED, NOT_VALID, Caller
from holdfast.settings.sections import Auth

DEFAULT_TENANT = "default"

_LATEST = 2.0**40
"""No time in a token is beyond this many seconds; a larger number is none that could be computed with."""


class Claims:
    """What a token has to say to be believed, from the settings."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def caller(self, claims: dict[str, Any], now: float) -> Caller:
        """The caller that claims describe.

        Raises:
            UnauthenticatedError: they are not for us, not yet or no more valid, or not as they should be.
        """
        auth = self._auth
        if claims.get("iss") != auth.issuer or not self._is_for_us(claims.get("aud")):
            raise UnauthenticatedError(NOT_VALID)
        issued, expires = _time(claims, "iat"), _time(claims, "exp")
        begins = _time(claims, "nbf") if "nbf" in claims else issued
        if max(issued, begins) > now + auth.leeway or not 0 < expires - issued <= auth.lifetime:
            raise UnauthenticatedError(NOT_VALID)
        caller = Caller(self._principal(claims), _text(claims["jti"]) if "jti" in claims else "", issued, expires)
        if now >= expires + auth.leeway:
            raise UnauthenticatedError(EXPIRED)
        return caller

    def _is_for_us(self, audience: Any) -> bool:
        """RFC 7519 section 4.1.3: one text, or a list of them that has ours."""
        if isinstance(audience, list):
            return all(isinstance(one, str) for one in audience) and self._auth.audience in audience
        return isinstance(audience, str) and audience == self._auth.audience

    def _principal(self, claims: dict[str, Any]) -> Principal:
        auth = self._auth
        subject, tenant = _text(claims.get("sub")), _text(claims.get(auth.tenant_claim, DEFAULT_TENANT))
        if subject == SYSTEM:  # by that name the audit tells what Holdfast did by itself
            raise UnauthenticatedError(NOT_VALID)
        roles = claims.get(auth.roles_claim, [])
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise UnauthenticatedError(NOT_VALID)
        try:
            return Principal(subject, tenant, SERVICE_ROLES.intersection(roles))
        except HoldfastError:
            raise UnauthenticatedError(NOT_VALID) from None


def strict_json(raw: bytes) -> dict[str, Any]:
    """A JSON object without a name said twice, at any depth, and without numbers that are none.

    Raises:
        ValueError: it is not.
    """
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refused)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is said twice")
    return found


def _refused(constant: str) -> None:
    raise ValueError("not a number of JSON")


def _time(claims: dict[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519 section 2)."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise UnauthenticatedError(NOT_VALID)
    return float(value)


def _text(value: Any) -> str:
    """A name of one line: it comes to stand in the audit and in logs."""
    if not isinstance(value, str) or not 0 < len(value) <= MOST_ID or not value.isprintable():
        raise UnauthenticatedError(NOT_VALID)
    return value
