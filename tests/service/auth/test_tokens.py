"""S06, S08: who a token says it is, what a stranger is told, and tokens that are kept at hand."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc.jwk import OctKey, generate_key

from holdfast.errors import UnauthenticatedError
from holdfast.model.access import Principal
from holdfast.service.auth import tokens
from holdfast.service.auth.caller import EXPIRED, NONE_SENT, NOT_VALID, Authenticator, Caller
from holdfast.testing.issuer import SECRET, Issuer


async def believed(verifier: Authenticator, token: str) -> Caller | None:
    """Whom a verifier takes the sender of a token for, None for nobody."""
    try:
        return await verifier.authenticate(f"Bearer {token}")
    except UnauthenticatedError:
        return None


# -- what is accepted --------------------------------------------------------------------------------------------------


async def test_a_right_token_tells_who_asks(believes: Any, instant: Any) -> None:
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer)
    token = issuer.token("ana", tenant="acme", roles=["admin", "owner", "auditor", "root"], jti="t1", scope="x")
    caller = await believed(verifier, token)
    assert caller is not None
    who = caller.principal
    assert who == Principal("ana", "acme", frozenset({"admin", "auditor"}))
    assert (caller.token, caller.issued, caller.expires) == ("t1", instant(), instant() + 600)
    plain = await believed(verifier, issuer.token("ben"))
    assert plain is not None
    assert (plain.principal, plain.token) == (Principal("ben", "default"), "")


async def test_the_names_of_claims_are_the_settings(believes: Any, instant: Any) -> None:
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer, tenant_claim="https://holdfast/tenant", roles_claim="groups", type="JWT")
    given: dict[str, Any] = {
        "https://holdfast/tenant": "acme",
        "groups": ["admin"],
        "tenant": "eve",
        "roles": ["auditor"],
    }
    caller = await believed(verifier, issuer.token(header={"typ": "jwt"}, **given))
    assert caller is not None
    assert caller.principal == Principal("ana", "acme", frozenset({"admin"}))
    assert await believed(verifier, issuer.token(**given)) is None


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, NONE_SENT),
        ("", NONE_SENT),
        ("Bearer", NONE_SENT),
        ("Basic YTpi", NONE_SENT),
        ("Bearertoken", NONE_SENT),
        (" Bearer token", NONE_SENT),
        ("Bearer ", NOT_VALID),
        ("Bearer  token", NOT_VALID),
        ("Bearer token", NOT_VALID),
        ("Bearer " + "a" * 1_000_000, NOT_VALID),
        ("Bearer " + "a.b.c" * 1_500, NOT_VALID),
    ],
)
async def test_a_stranger_is_told_no_more_than_to_send_a_valid_token(
    header: str | None, reason: str, believes: Any, instant: Any
) -> None:
    verifier = await believes(Issuer("ES", now=instant))
    with pytest.raises(UnauthenticatedError) as caught:
        await verifier.authenticate(header)
    assert caught.value.reason == reason


async def test_the_scheme_is_written_as_one_likes(believes: Any, instant: Any) -> None:
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer)
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert (await verifier.authenticate(f"{scheme} {issuer.token()}")).principal.id == "ana"


# -- a token that was verified is kept at hand -------------------------------------------------------------------------


async def test_s08_a_token_at_hand_expires_all_the_same(believes: Any, instant: Any) -> None:
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer, leeway=10.0)
    token = issuer.token(exp=instant() + 100)
    caller = await believed(verifier, token)
    assert caller is not None
    for seconds, stands in ((50, True), (59, True), (1, False), (1_000, False)):
        instant.now += seconds
        assert verifier.stands(caller) is stands
        assert (await believed(verifier, token) is not None) is stands
    assert verifier._known == {}
    with pytest.raises(UnauthenticatedError) as caught:
        await verifier.authenticate(f"Bearer {token}")
    assert caught.value.reason == EXPIRED


async def test_a_token_at_hand_is_not_verified_again(
    believes: Any, instant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = Issuer("ES", now=instant)
    verifier, token = await believes(issuer), issuer.token()
    first = await believed(verifier, token)
    monkeypatch.setattr(verifier, "_judge", None)
    assert await believed(verifier, token) is first


async def test_as_many_tokens_as_there_may_be_are_kept_and_no_more(
    believes: Any, instant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MOST_KNOWN", 5)
    issuer = Issuer("HS", now=instant)
    verifier = await believes(issuer)
    kept = issuer.token(jti="kept")
    for number in range(20):
        assert await believed(verifier, kept) is not None
        assert await believed(verifier, issuer.token(jti=f"t{number}")) is not None
    assert {caller.token for caller in verifier._known.values()} == {"kept", "t16", "t17", "t18", "t19"}


async def test_no_token_is_kept_itself(believes: Any, instant: Any) -> None:
    issuer = Issuer("ES", now=instant)
    verifier, token = await believes(issuer), issuer.token()
    assert await believed(verifier, token) is not None
    assert all(len(name) == 32 for name in verifier._known)
    assert token.encode() not in repr(vars(verifier)).encode()


# -- algorithms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "alg", "kind", "size"),
    [
        ("RS", "RS256", "RSA", 2048),
        ("RS", "RS384", "RSA", 2048),
        ("RS", "RS512", "RSA", 3072),
        ("PS", "PS256", "RSA", 2048),
        ("PS", "PS384", "RSA", 2048),
        ("PS", "PS512", "RSA", 2048),
        ("ES", "ES256", "EC", "P-256"),
        ("ES", "ES384", "EC", "P-384"),
        ("ES", "ES512", "EC", "P-521"),
        ("EdDSA", "EdDSA", "OKP", "Ed25519"),
        ("EdDSA", "Ed25519", "OKP", "Ed25519"),
        ("EdDSA", "EdDSA", "OKP", "Ed448"),
        ("EdDSA", "Ed448", "OKP", "Ed448"),
    ],
)
async def test_s06_every_algorithm_of_the_family_is_accepted(
    family: str, alg: str, kind: Any, size: Any, believes: Any, instant: Any
) -> None:
    issuer = Issuer(family, now=instant)
    issuer.alg, issuer.key = alg, generate_key(kind, size)
    assert await believed(await believes(issuer), issuer.token()) is not None


@pytest.mark.parametrize(("length", "allowed"), [(32, {"HS256"}), (48, {"HS256", "HS384"}), (61, {"HS256", "HS384"})])
async def test_s06_a_secret_signs_no_more_than_its_length_is_good_for(
    length: int, allowed: set[str], believes: Any, instant: Any
) -> None:
    issuer = Issuer("HS", now=instant)
    verifier = await believes(issuer, secret=SECRET[:length])
    key = OctKey.import_key(SECRET[:length])
    accepted = set()
    for alg in ("HS256", "HS384", "HS512"):
        token = issuer.signed(issuer.header(alg=alg), issuer.claims(), key=key, alg=alg)
        if await believed(verifier, token) is not None:
            accepted.add(alg)
    assert accepted == allowed
