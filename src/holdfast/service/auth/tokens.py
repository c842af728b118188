"""Tokens of an issuer: JWTs, verified by joserfc and then cached, for the same one comes with every request.

What may sign is said by the settings and by the issuer's keys, never by the token: its head is asked for nothing but
which of those keys to try. Where the token says that keys are to be had (``jku``, ``jwk``, ``x5u``, ``x5c``) is not
read. What is critical (``crit``), packed, encrypted or nested is refused.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import Key
from joserfc.util import urlsafe_b64decode

from holdfast.errors import UnauthenticatedError
from holdfast.service.auth.caller import (
    EXPIRED,
    MOST_TOKEN,
    NOT_VALID,
    REVOKED,
    Authenticator,
    Caller,
    bearer,
)
from holdfast.service.auth.claims import Claims, strict_json
from holdfast.service.auth.jwks import ALGORITHMS, MOST_KEY_ID
from holdfast.service.auth.keys import KeySource, SecretKey
from holdfast.service.auth.revoked import Revoked
from holdfast.settings.sections import Auth

MOST_KNOWN = 10_000
"""Verified tokens that are kept at hand."""

_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")  # no padding, no space, three parts
_UNKNOWN = ("crit", "b64", "cty", "zip", "enc")
_LEAST_SECRET = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 section 3.2: as long as the hash


class Tokens(Authenticator):
    """Knows callers by tokens that one issuer has signed."""

    def __init__(self, auth: Auth, keys: KeySource, revoked: Revoked, now: Callable[[], float] = time.time) -> None:
        self._keys, self._revoked, self._now, self._leeway = keys, revoked, now, auth.leeway
        self._claims, self._type = Claims(auth), _type(auth.type)
        algorithms = ALGORITHMS[auth.family]
        if isinstance(keys, SecretKey):
            algorithms = tuple(name for name in algorithms if keys.length >= _LEAST_SECRET[name])
        self._registry = _Registry(frozenset(algorithms))
        self._known: OrderedDict[bytes, Caller] = OrderedDict()
        self._generation = keys.generation

    async def open(self) -> None:
        await self._keys.open()
        try:
            await self._revoked.open()
        except BaseException:
            await self._keys.close()
            raise

    async def close(self) -> None:
        await self._revoked.close()
        await self._keys.close()

    async def authenticate(self, authorization: str | None) -> Caller:
        raw = bearer(authorization)
        name = sha256(raw).digest()  # the tokens themselves are not kept
        if self._generation != self._keys.generation:
            self._known.clear()
            self._generation = self._keys.generation
        caller = self._known.get(name)
        if caller is None:
            caller = await self._judge(raw)
            self._check(caller)
            if self._generation == self._keys.generation:
                self._keep(name, caller)
            return caller
        try:
            self._check(caller)
        except UnauthenticatedError:
            del self._known[name]
            raise
        self._known.move_to_end(name)
        return caller

    @property
    def is_ready(self) -> bool:
        return self._keys.known

    def stands(self, caller: Caller) -> bool:
        expires = caller.expires
        return (expires is None or self._now() < expires + self._leeway) and caller not in self._revoked

    def _check(self, caller: Caller) -> None:
        if not self.stands(caller):
            raise UnauthenticatedError(REVOKED if caller in self._revoked else EXPIRED)

    def _keep(self, name: bytes, caller: Caller) -> None:
        self._known[name] = caller
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    async def _judge(self, raw: bytes) -> Caller:
        """The caller of a token that was not seen before."""
        if _COMPACT.fullmatch(raw) is None:
            raise UnauthenticatedError(NOT_VALID)
        try:
            header = strict_json(urlsafe_b64decode(raw.partition(b".")[0]))
            self._check_header(header)
            key = await self._keys.find(header.get("kid"))
            if key is None:
                raise UnauthenticatedError(NOT_VALID)
            return self._claims.caller(strict_json(self._signed(raw, header, key)), self._now())
        except (JoseError, UnsupportedAlgorithm, ValueError, TypeError):
            raise UnauthenticatedError(NOT_VALID) from None

    def _check_header(self, header: dict[str, Any]) -> None:
        """Refuse what is not worth a look at the signature, and every way to have it looked at otherwise."""
        kid, kind = header.get("kid"), header.get("typ")
        if (
            header.get("alg") not in self._registry.names
            or not isinstance(kind, str)
            or _type(kind) != self._type
            or any(name in header for name in _UNKNOWN)
            or not ("kid" not in header or (isinstance(kid, str) and 0 < len(kid) <= MOST_KEY_ID))
        ):
            raise UnauthenticatedError(NOT_VALID)

    def _signed(self, raw: bytes, header: dict[str, Any], key: Key) -> bytes:
        """What the key has signed.

        Raises:
            JoseError, ValueError: it has not.
        """
        return jws.deserialize_compact(raw, key, registry=self._registry).payload


class _Registry(jws.JWSRegistry):
    """The algorithms of the settings; what a head may hold is judged above."""

    max_header_length = max_payload_length = max_signature_length = MOST_TOKEN

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(algorithms=names, strict_check_header=False)
        self.names = names

    def get_alg(self, name: str) -> JWSAlgModel:
        # The library's own warns of EdDSA, which RFC 9864 gave two other names; the settings ask for it.
        if name not in self.names:
            raise UnsupportedAlgorithmError(f"Algorithm of '{name}' is not allowed")
        return self.algorithms[name]


def _type(name: str) -> str:
    """A ``typ`` as it is compared: case does not count, and ``application/`` may be left out (RFC 7515 4.1.9)."""
    return name.lower().removeprefix("application/")
