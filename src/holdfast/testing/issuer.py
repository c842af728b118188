"""An issuer of tokens, for tests of a service that believes one: its keys, what it publishes, what it signs.

Needs the [server] extra.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from holdfast.settings.sections import Auth

SECRET = "3Zr0-pUq8sV_x1LdKf9bTgWcYhN2mJ5eRa7iQo4tXyPvEuBk6GzHwMlDnSjAC"  # noqa: S105 - of tests
"""The secret of every issuer of the HS family here."""

ALGORITHM = {"HS": "HS256", "RS": "RS256", "PS": "PS256", "ES": "ES256", "EdDSA": "EdDSA"}
"""What an issuer of each family signs with."""


class Issuer:
    """Signs tokens of one family, right ones and wrong ones.

    Attributes:
        key: what it signs with; ``kid`` is its id.
        now: its clock, seconds since the epoch.
    """

    def __init__(
        self,
        family: str = "ES",
        *,
        name: str = "https://issuer.test",
        audience: str = "holdfast",
        kid: str = "key-1",
        number: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.family, self.name, self.audience, self.kid, self.now = family, name, audience, kid, now
        self.alg, self.key = ALGORITHM[family], key_of(family, number)

    def auth(self, keys: str | None = None, **other: Any) -> Auth:
        """The settings of a service that believes this issuer, whose keys are at a URL."""
        known = {"secret": SECRET} if self.family == "HS" else {"keys": keys}
        return Auth(**{"issuer": self.name, "audience": self.audience, "family": self.family, **known, **other})

    def public(self, **members: Any) -> dict[str, Any]:
        """The public key as a JWK."""
        return {**self.key.as_dict(private=False), "kid": self.kid, "alg": self.alg, "use": "sig", **members}

    def publish(self, path: Path, *others: Mapping[str, Any]) -> str:
        """Write the public key, and others beside it, to a file as a JWK Set; its URL."""
        path.write_bytes(json.dumps({"keys": [self.public(), *others]}).encode())
        return path.as_uri()

    def claims(self, subject: Any = "ana", **other: Any) -> dict[str, Any]:
        """What a right token claims, for ten minutes; ``other`` go over it, and those that are ... are left out."""
        issued = int(self.now())
        right = {"iss": self.name, "aud": self.audience, "sub": subject, "iat": issued, "exp": issued + 600}
        return {name: value for name, value in {**right, **other}.items() if value is not ...}

    def header(self, **other: Any) -> dict[str, Any]:
        """The head of a right token; ``other`` go over it, and those that are ... are left out."""
        right = {"alg": self.alg, "kid": self.kid, "typ": "at+jwt"}
        return {name: value for name, value in {**right, **other}.items() if value is not ...}

    def token(self, subject: Any = "ana", *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token; see ``header`` and ``claims``."""
        return self.signed(self.header(**(header or {})), self.claims(subject, **claims))

    def signed(self, header: Any, claims: Any, *, key: Key | None = None, alg: str | None = None) -> str:
        """Any head and any claims, as values or as bytes, signed by this issuer's key or another."""
        head = f"{part(header)}.{part(claims)}"
        signature = JWSRegistry.algorithms[alg or self.alg].sign(head.encode(), key or self.key)
        return f"{head}.{encoded(signature)}"


@cache
def key_of(family: str, number: int = 0) -> Key:
    """A key of a family, another one for another number; made once in a process, for RSA takes its time."""
    if family == "HS":
        return OctKey.import_key(SECRET if number == 0 else SECRET[::-1])
    if family == "ES":
        return ECKey.generate_key("P-256")
    return OKPKey.generate_key("Ed25519") if family == "EdDSA" else RSAKey.generate_key(2048)


def part(value: Any) -> str:
    """A part of a token."""
    return encoded(value if isinstance(value, bytes) else json.dumps(value).encode())


def encoded(raw: bytes) -> str:
    """Bytes in base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
