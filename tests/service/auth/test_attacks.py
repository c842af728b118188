"""S06, S08, F21: of the tokens an attacker can make none is accepted, and beside each a right one is.

Verifiers that are broken on purpose let in the attacks that are named.
"""

from __future__ import annotations

import hmac
import json
from random import Random
from typing import Any

import pytest
from joserfc.jwk import Key, OctKey, import_key
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from holdfast.errors import UnauthenticatedError
from holdfast.service.auth import authenticator, tokens
from holdfast.service.auth.caller import EXPIRED, NOT_VALID, Authenticator, Caller
from holdfast.service.auth.claims import Claims
from holdfast.service.auth.tokens import Tokens
from holdfast.testing.forging import ATTACKS, TIMES
from holdfast.testing.issuer import Issuer

FAMILIES = ("HS", "RS", "PS", "ES", "EdDSA")


async def believed(verifier: Authenticator, token: str) -> Caller | None:
    """Whom a verifier takes the sender of a token for; it says nothing of why it takes him for nobody."""
    try:
        return await verifier.authenticate(f"Bearer {token}")
    except UnauthenticatedError as error:
        if error.reason not in (NOT_VALID, EXPIRED):
            raise
        return None


@pytest.mark.parametrize("family", FAMILIES)
async def test_f21_no_attack_is_accepted_and_every_twin_is(family: str, believes: Any, instant: Any) -> None:
    issuer = Issuer(family, now=instant)
    verifier = await believes(issuer)
    attacks = {name: (wrong(issuer), right(issuer)) for name, (wrong, right) in ATTACKS.items()}
    accepted = [name for name, (wrong, _) in attacks.items() if await believed(verifier, wrong) is not None]
    refused = [name for name, (_, right) in attacks.items() if await believed(verifier, right) is None]
    again = [name for name, (wrong, _) in attacks.items() if await believed(verifier, wrong) is not None]
    assert (accepted, refused, again) == ([], [], [])
    print(f"F21 family={family} attacks={len(attacks)} accepted=0")


@pytest.mark.parametrize("family", FAMILIES)
async def test_f21_a_token_with_any_byte_changed_is_refused(family: str, believes: Any, instant: Any) -> None:
    issuer = Issuer(family, now=instant)
    verifier, random = await believes(issuer), Random(family)
    token = issuer.token()
    assert await believed(verifier, token) is not None
    for _ in range(1_000):
        changed = bytearray(token.encode())
        for _ in range(random.choice((1, 1, 1, 2, 9))):
            at = random.randrange(len(changed))
            how = random.randrange(3)
            changed[at : at + (how != 1)] = bytes([random.randrange(32, 127)]) if how != 2 else b""
        if changed.decode() != token:
            assert await believed(verifier, changed.decode()) is None, changed


ODD: list[Any] = [..., None, True, 0, -1, 1.5, 2**70, 1e300, "", "a", "\0", "\ud800", "k" * 300, [], [[]], [None], {}]
HEADS = ("alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5u", "x5c", "x5t", "cty", "enc", "zip", "x")
CLAIMS = ("iss", "aud", "sub", "exp", "iat", "nbf", "jti", "tenant", "roles", "x")


async def test_f21_whatever_stands_in_a_signed_token_it_is_judged_and_breaks_nothing(
    believes: Any, instant: Any
) -> None:
    issuer = Issuer("ES", now=instant)
    verifier, random = await believes(issuer), Random(21)
    judged = [0, 0]
    for _ in range(3_000):
        header = {name: random.choice(ODD) for name in random.sample(HEADS, random.randrange(3))}
        claims = {name: random.choice(ODD) for name in random.sample(CLAIMS, random.randrange(3))}
        judged[await believed(verifier, issuer.token(header=header, **claims)) is not None] += 1
    assert min(judged) > 100


# -- the same with verifiers that are broken on purpose ----------------------------------------------------------------


class HeadChoosesTheAlgorithm(Tokens):
    """Verifies by whatever the token says, with whatever key there is: the classic mistake."""

    def _check_header(self, header: dict[str, Any]) -> None:
        pass

    def _signed(self, raw: bytes, header: dict[str, Any], key: Key) -> bytes:
        head, _, signature = raw.rpartition(b".")
        payload = urlsafe_b64decode(head.partition(b".")[2])
        alg, given = str(header.get("alg")), urlsafe_b64decode(signature)
        if alg.lower() == "none":
            return payload
        if alg.startswith("HS") and not isinstance(key, OctKey):
            good = hmac.compare_digest(hmac.digest(key.as_pem(), head, f"sha{alg[2:]}"), given)
        else:
            good = JWSRegistry.algorithms[alg].verify(head, given, key)
        if not good:
            raise ValueError
        return payload


class BelievesTheKeyInTheHead(Tokens):
    def _signed(self, raw: bytes, header: dict[str, Any], key: Key) -> bytes:
        return super()._signed(raw, header, import_key(header["jwk"]) if "jwk" in header else key)


class SkipsTheHead(Tokens):
    """Leaves the type, critical names and the rest to the library."""

    def _check_header(self, header: dict[str, Any]) -> None:
        pass


class TakesPadding(Tokens):
    """Strips what should not be there."""

    async def authenticate(self, authorization: str | None) -> Caller:
        scheme, _, token = (authorization or "").partition(" ")
        return await super().authenticate(f"{scheme} {token.strip().rstrip('=')}")


class AsksNothing(Claims):
    """Believes any claims under a good signature."""

    def caller(self, claims: dict[str, Any], now: float) -> Caller:
        return Caller(self._principal(claims))


def last_wins(raw: bytes) -> dict[str, Any]:
    """JSON as most parsers read it."""
    return dict(json.loads(raw))


BROKEN: list[tuple[type[Tokens], set[str]]] = [
    (
        HeadChoosesTheAlgorithm,
        {
            "alg 'none', signature 'AAAA'",
            "alg 'nOnE', signature 'AAAA'",
            "HS256 with the public key in PEM",
            "HS512 with the public key in PEM",
            "what the same key signs in another way",
            "typ 'JWT'",
            "crit ['exp']",
        },
    ),
    (BelievesTheKeyInTheHead, {"an attacker's jwk under the right kid"}),
    (SkipsTheHead, {"typ 'JWT'", "typ Ellipsis", "crit []", "cty JWT", "zip"}),
    (TakesPadding, {"padding on the signature", "white space behind", "a line break behind"}),
]


@pytest.mark.parametrize(("broken", "named"), BROKEN)
async def test_f21_a_verifier_broken_on_purpose_is_caught(
    broken: type[Tokens], named: set[str], believes: Any, instant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator, "Tokens", broken)
    issuer = Issuer("RS", now=instant)
    verifier = await believes(issuer)
    assert isinstance(verifier, broken)
    let_in = set()
    for name, (wrong, _) in ATTACKS.items():
        try:
            if await believed(verifier, wrong(issuer)) is not None:
                let_in.add(name)
        except (LookupError, AttributeError, RecursionError):  # broken in other ways as well
            continue
    assert named <= let_in
    assert await believed(verifier, issuer.token()) is not None


async def test_f21_a_verifier_that_asks_no_claims_is_caught(
    believes: Any, instant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "Claims", AsksNothing)
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer)
    let_in = {name for name, (wrong, _) in ATTACKS.items() if await believed(verifier, wrong(issuer)) is not None}
    assert let_in >= {*TIMES, "exp Ellipsis", "aud 'other'", "iss ''", "exp '9999999999'", "nbf True"}


async def test_f21_a_verifier_that_reads_json_as_most_do_is_caught(
    believes: Any, instant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "strict_json", last_wins)
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer)
    let_in = {
        name
        for name, (wrong, _) in ATTACKS.items()
        if "deep" not in name and await believed(verifier, wrong(issuer)) is not None
    }
    assert let_in >= {"sub said twice", "exp said twice", "a name said twice in the head", "NaN", "claims in UTF-16"}
