"""S06, S07: which keys of a key set verify anything, and which secrets are good enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OctKey, generate_key
from msgspec.structs import replace

from holdfast.engine.engine import Engine
from holdfast.errors import UnauthenticatedError, WeakKeyError
from holdfast.service.auth.authenticator import authenticator
from holdfast.service.auth.jwks import public_keys
from holdfast.service.auth.keys import SecretKey
from holdfast.settings import Settings
from holdfast.testing.issuer import SECRET, Issuer


def test_s07_of_a_key_set_only_what_verifies_the_family_s_signatures_is_taken() -> None:
    rsa, ec, okp = generate_key("RSA", 2048), generate_key("EC", "P-256"), generate_key("OKP", "Ed25519")
    public, curve, edwards = (key.as_dict(private=False) for key in (rsa, ec, okp))
    modulus = str(public["n"])
    listed: list[Any] = [
        {**public, "kid": "good"},
        {**public, "kid": "for RS", "alg": "RS256", "use": "sig", "key_ops": ["verify"]},
        {**public, "kid": "for PS", "alg": "PS256"},
        {**public, "kid": "for encryption", "use": "enc"},
        {**public, "kid": "for wrapping", "key_ops": ["wrapKey"]},
        {**public, "kid": "for RSA-OAEP", "alg": "RSA-OAEP"},
        {**rsa.as_dict(private=True), "kid": "private"},
        {**public, "kid": "short", "n": modulus[:170]},
        {**public, "kid": "long of zeros", "n": "A" * 200 + modulus[:142]},
        {**public, "kid": "twice"},
        {**public, "kid": "twice", "e": "Aw"},
        {**public, "kid": 7},
        {**public, "kid": ""},
        {**public, "kid": "k" * 201},
        {**public, "kid": "no modulus", "n": 7},
        {**public, "kid": "padded", "n": modulus + "="},
        {"kty": "RSA", "kid": "nothing"},
        {"kty": "oct", "kid": "secret", "k": "A" * 43},
        {"kty": "oct", "kid": "good too", "k": public["n"]},
        {**curve, "kid": "ec"},
        {**curve, "kid": "off the curve", "x": curve["y"]},
        {**curve, "kid": "another curve", "crv": "P-384"},
        {**generate_key("EC", "secp256k1").as_dict(private=False), "kid": "k1"},
        {**edwards, "kid": "okp"},
        {**generate_key("OKP", "X25519").as_dict(private=False), "kid": "x"},
        {"kty": "XYZ", "kid": "new"},
        None,
        "key",
        [],
        {},
    ]
    raw = json.dumps({"keys": listed}).encode()
    assert set(public_keys(raw, "RS")) == {"good", "for RS"}
    assert set(public_keys(raw, "PS")) == {"good", "for PS"}
    assert set(public_keys(raw, "ES")) == {"ec"}
    assert set(public_keys(raw, "EdDSA")) == {"okp"}
    assert all(
        not key.is_private for family in ("RS", "PS", "ES", "EdDSA") for key in public_keys(raw, family).values()
    )


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"null", b"{}", b'{"keys": {}}', b'{"keys": null}', b"{", b"\xff", b'{"keys": [], "keys": []}',
     b"[" * 5_000, b'{"keys": [' + b"1," * 1_001 + b"1]}"],
)  # fmt: skip
def test_what_is_no_key_set_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        public_keys(raw, "RS")


@pytest.mark.parametrize("family", ["RS", "PS", "ES", "EdDSA"])
async def test_s07_a_symmetric_key_in_the_set_verifies_nothing(
    family: str, tmp_path: Path, settings: Settings, engine: Engine
) -> None:
    issuer, secret = Issuer(family), OctKey.import_key(SECRET)
    others = ({**secret.as_dict(), "kid": kid} for kid in ("key-2", "key-3"))
    verifier = authenticator(
        replace(settings, auth=issuer.auth(issuer.publish(tmp_path / "keys.json", *others))), engine
    )
    await verifier.open()
    for kid in ("key-1", "key-2", "key-3"):
        token = issuer.signed(issuer.header(alg="HS256", kid=kid), issuer.claims(), key=secret, alg="HS256")
        with pytest.raises(UnauthenticatedError):
            await verifier.authenticate(f"Bearer {token}")
    assert (await verifier.authenticate(f"Bearer {issuer.token()}")).principal.id == "ana"
    await verifier.close()


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "short",
        SECRET[:31],
        "a" * 64,
        "0123" * 16,
        "zX9-qW7_" * 8,
        "your-256-bit-secret-your-256-bit-secret",
        "changeme-changeme-changeme-1234-xyz",
        "Password" + SECRET,
        "the-quick-holdfast-jumps-over-a-lazy-dog",
        "-----BEGIN PUBLIC KEY-----" + SECRET,
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx1dGhlcmFuZG9ta2V5Ynl0ZXNmb3J0ZXN0cw",
    ],
)
def test_s06_a_weak_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(WeakKeyError) as caught:
        SecretKey(secret)
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize(
    "secret", [SECRET, SECRET[:32], "8f0a1c7b3e5d9264f7b1a0c38e6d5942", "kFz+0Yp/2mQ1vR8sT5uW3xZ6aB9cD4eG7hJ0kL2nM1o="]
)
def test_s06_a_secret_that_nobody_guesses_is_taken(secret: str) -> None:
    assert SecretKey(secret).length == len(secret)
