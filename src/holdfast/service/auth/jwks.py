"""The public keys an issuer publishes (RFC 7517): those that can verify what this service takes, by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.util import urlsafe_b64decode

from holdfast.service.auth.claims import strict_json

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "HS": ("HS256", "HS384", "HS512"),
    "RS": ("RS256", "RS384", "RS512"),
    "PS": ("PS256", "PS384", "PS512"),
    "ES": ("ES256", "ES384", "ES512"),
    "EdDSA": ("EdDSA", "Ed25519", "Ed448"),
}
"""The algorithms of each family (RFC 7518, 8037, 9864); an issuer signs with those of one."""

MOST_KEY_ID = 200
LEAST_RSA_BITS = 2_048

_MOST_KEYS = 1_000
_TYPES: Mapping[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {
    "RS": RSAKey,
    "PS": RSAKey,
    "ES": ECKey,
    "EdDSA": OKPKey,
}
_CURVES = {"ES": ("P-256", "P-384", "P-521"), "EdDSA": ("Ed25519", "Ed448")}
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_ABOUT = ("kty", "kid", "use", "key_ops", "alg")

PublicKeys = Mapping[str | None, Key]
"""Keys by id; one without an id under None."""


def public_keys(raw: bytes, family: str) -> PublicKeys:
    """The keys of a JWK Set that fit a family, without those that are for something else.

    What is left out: another type or curve, symmetric and private keys, RSA keys under 2,048 bits, keys that are for
    another algorithm or not for signatures, and all that share an id.

    Raises:
        ValueError: it is no JWK Set.
    """
    listed = strict_json(raw).get("keys")
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise ValueError("no list of keys")
    found: dict[str | None, Key] = {}
    twice: set[str | None] = set()
    for one in listed:
        key = _public_key(one, family) if isinstance(one, dict) else None
        if key is None:
            continue
        if key.kid in found:
            twice.add(key.kid)
        found[key.kid] = key
    return {kid: key for kid, key in found.items() if kid not in twice}


def _public_key(listed: dict[str, Any], family: str) -> Key | None:
    kind = _TYPES[family]
    members = _MEMBERS[kind.key_type]
    kid, alg, operations = listed.get("kid"), listed.get("alg"), listed.get("key_ops")
    fits = (
        listed.get("kty") == kind.key_type
        and "d" not in listed
        and (kid is None or (isinstance(kid, str) and 0 < len(kid) <= MOST_KEY_ID))
        and (alg is None or alg in ALGORITHMS[family])
        and listed.get("use", "sig") == "sig"
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
        and all(isinstance(listed.get(member), str) for member in members)
        and ("crv" not in members or listed["crv"] in _CURVES[family])
    )
    try:
        if not fits or (kind is RSAKey and not _is_long_enough(listed["n"])):
            return None
        return kind.import_key({name: listed[name] for name in (*_ABOUT, *members) if name in listed})
    except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None


def _is_long_enough(modulus: str) -> bool:
    return int.from_bytes(urlsafe_b64decode(modulus.encode()), "big").bit_length() >= LEAST_RSA_BITS
