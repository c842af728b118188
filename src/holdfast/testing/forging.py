"""Tokens that an attacker can make of what he knows, each beside a right one: a verifier believes the second alone.

Every attack has a twin that is made by the same lines with nothing wrong: where the twin is not accepted, the attack
proves nothing. The service under test has the default settings but for the issuer's. Needs the [server] extra.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from joserfc.jwk import Key, OctKey
from joserfc.util import urlsafe_b64decode

from holdfast.service.auth.caller import MOST_TOKEN
from holdfast.testing.issuer import SECRET, Issuer, encoded, part

Make = Callable[[Issuer], str]
Pair = tuple[Make, Make]
LIFETIME = 86_400
OTHERS = {"RS": "PS256", "PS": "RS256", "ES": "ES384", "EdDSA": "Ed448", "HS": "HS512"}
"""What the key of a family could sign with as well, and may not: another family, another curve, too short a secret."""


def sent(header: dict[str, Any] | None = None, **claims: Any) -> Make:
    """A token signed by the issuer's key; a claim that is a function is asked of the issuer."""

    def make(issuer: Issuer) -> str:
        given = {name: value(issuer) if callable(value) else value for name, value in claims.items()}
        return issuer.token(header=header, **given)

    return make


def attackers(issuer: Issuer) -> Key:
    """The key of somebody who knows everything but the issuer's."""
    return Issuer(issuer.family, number=1).key


def forged(**header: Any) -> Pair:
    """Signed by an attacker's key; the twin with the same head by the issuer's."""
    return (
        lambda issuer: issuer.signed(issuer.header(**header), issuer.claims(), key=attackers(issuer)),
        lambda issuer: issuer.signed(issuer.header(**header), issuer.claims()),
    )


def hashed(alg: str, secret: Callable[[Issuer], bytes], **header: Any) -> Make:
    """Signed as with a shared secret, by one that everybody has."""

    def make(issuer: Issuer) -> str:
        head = f"{part(issuer.header(alg=alg, **header))}.{part(issuer.claims())}"
        return f"{head}.{encoded(hmac.digest(secret(issuer), head.encode(), f'sha{alg[2:]}'))}"

    return make


def unsigned(alg: str, signature: str) -> Make:
    return lambda issuer: f"{part(issuer.header(alg=alg))}.{part(issuer.claims())}.{signature}"


def named(alg: Any) -> Make:
    """The issuer's signature under the name of another algorithm."""
    return lambda issuer: issuer.signed(issuer.header(alg=alg), issuer.claims())


def embedded(kid: Any) -> Pair:
    """An attacker's public key in the head; the twin has it there too, and is signed by the issuer."""

    def make(issuer: Issuer, key: Key, kid: Any) -> str:
        shown = attackers(issuer).as_dict(private=False)
        return issuer.signed(issuer.header(jwk=shown, kid=kid), issuer.claims(), key=key)

    return lambda issuer: make(issuer, attackers(issuer), kid), lambda issuer: make(issuer, issuer.key, issuer.kid)


def rewritten(change: Callable[[list[str]], list[str]]) -> Pair:
    """A right token, rewritten after it was signed."""
    return lambda issuer: ".".join(change(issuer.token().split("."))), RIGHT


def said(header: Callable[[bytes], bytes] = bytes, claims: Callable[[bytes], bytes] = bytes) -> Pair:
    """Rightly signed, but of other bytes than JSON is written in; the twin is only written wider."""

    def make(issuer: Issuer, header: Callable[[bytes], bytes], claims: Callable[[bytes], bytes]) -> str:
        head, body = (json.dumps(each, indent=1).encode() for each in (issuer.header(), issuer.claims()))
        return issuer.signed(header(head), claims(body))

    return lambda issuer: make(issuer, header, claims), lambda issuer: make(issuer, bytes, bytes)


def ago(seconds: float) -> Callable[[Issuer], float]:
    return lambda issuer: issuer.now() - seconds


def pem(issuer: Issuer) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" if isinstance(issuer.key, OctKey) else issuer.key.as_pem()


def der(issuer: Issuer) -> bytes:
    return b"0\x82\x01" if isinstance(issuer.key, OctKey) else issuer.key.as_der()


def jwk(issuer: Issuer) -> bytes:
    return b"{}" if isinstance(issuer.key, OctKey) else json.dumps(issuer.public()).encode()


def jwe(header: dict[str, Any]) -> Make:
    """Encrypted: five parts, the fourth of which unpacks to a great deal if somebody does."""
    bomb = encoded(b"\xec\xc1\x01\0" + b"\0" * 3_000)
    return lambda issuer: ".".join([part(header), "", encoded(b"i" * 12), bomb, encoded(b"t" * 16)])


def spare_bits(text: str) -> str:
    """The same bytes in base64url, with bits set in the last letter that stand for nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + letters[letters.index(text[-1]) | 1]


def flipped(text: str) -> str:
    whole = bytearray(urlsafe_b64decode(text.encode()))
    whole[len(whole) // 2] ^= 1
    return encoded(bytes(whole))


def any_of(*values: Any) -> tuple[Any, ...]:
    return values


def claim(name: str, value: Any, **right: Any) -> None:
    """An attack by one claim, ... to leave it out; its twin has the right value, or what the issuer would have said."""
    given: dict[str, Any] = {name: value}
    twin: dict[str, Any] = {name: right["right"]} if right else {}
    ATTACKS[f"{name} {value!r:.20}"] = (sent(**given), sent(**twin))


RIGHT = sent()
ATTACKS: dict[str, Pair] = {}
"""What a verifier of the issuer's tokens refuses, by name, each with the twin that it accepts."""

# -- who signed it, and how

for alg in ("none", "None", "nOnE", "NONE", "", " none", "none\0"):
    for signature in ("", "AAAA"):
        ATTACKS[f"alg {alg!r}, signature {signature!r}"] = (unsigned(alg, signature), RIGHT)
SECRETS: dict[str, Callable[[Issuer], bytes]] = {
    "the public key in PEM": pem,
    "the public key in PEM, less its last line break": lambda issuer: pem(issuer).strip(),
    "the public key in DER": der,
    "the public key as JWK": jwk,
    "an empty key": lambda issuer: b"",
    "a short key": lambda issuer: b"k",
    "half the secret": lambda issuer: SECRET[:32].encode(),
}
for alg in ("HS256", "HS384", "HS512"):
    ATTACKS |= {f"{alg} with {what}": (hashed(alg, secret), RIGHT) for what, secret in SECRETS.items()}
for kid in ("/dev/null", "../../../dev/null", "x' UNION SELECT 'k' --", "key-1\0", "key-1 ", "KEY-1", "*", "key-2"):
    ATTACKS[f"kid {kid!r} and an attacker's key"] = (forged(kid=kid)[0], RIGHT)
    ATTACKS[f"kid {kid!r} and HS256 with an empty key"] = (hashed("HS256", lambda issuer: b"", kid=kid), RIGHT)
for odd in any_of(None, 7, ["key-1"], {"key-1": 1}, "", "k" * 201, "k" * 4_000):
    ATTACKS[f"kid {str(odd)[:9]!r} of {len(str(odd))} and the right key"] = (sent({"kid": odd}), RIGHT)
ATTACKS["an attacker's key under the right kid"] = forged()
ATTACKS["an attacker's key and no kid"] = forged(kid=...)
ATTACKS["an attacker's jku"] = forged(jku="https://attacker.test/keys.json")
ATTACKS["an attacker's x5u"] = forged(x5u="https://attacker.test/keys.pem")
ATTACKS["an attacker's x5c"] = forged(x5c=["MIIB"])
ATTACKS["an attacker's jwk under the right kid"] = embedded("key-1")
ATTACKS["an attacker's jwk and no kid"] = embedded(...)
for odd in any_of("ES256K", "RS1", "rs256", "es256", "RS256 ", "A128KW", "dir", 256, None, ["ES256"], True, ...):
    ATTACKS[f"alg {odd!r} over the issuer's signature"] = (named(odd), RIGHT)
ATTACKS["what the same key signs in another way"] = (
    lambda issuer: issuer.signed(issuer.header(alg=OTHERS[issuer.family]), issuer.claims(), alg=OTHERS[issuer.family]),
    RIGHT,
)
ATTACKS |= {
    "a signature less a byte": rewritten(lambda to: [to[0], to[1], encoded(urlsafe_b64decode(to[2].encode())[:-1])]),
    "a signature and a byte": rewritten(lambda to: [to[0], to[1], encoded(urlsafe_b64decode(to[2].encode()) + b"\0")]),
    "a signature with a bit flipped": rewritten(lambda to: [to[0], to[1], flipped(to[2])]),
    "a head with a bit flipped": rewritten(lambda to: [flipped(to[0]), to[1], to[2]]),
    "claims with a bit flipped": rewritten(lambda to: [to[0], flipped(to[1]), to[2]]),
    "a signature of zeros": rewritten(lambda to: [to[0], to[1], "A" * len(to[2])]),
    "no signature": rewritten(lambda to: [to[0], to[1], ""]),
    "another token's claims": (
        lambda issuer: ".".join([(a := issuer.token().split("."))[0], issuer.token("eve").split(".")[1], a[2]]),
        RIGHT,
    ),
}

# -- what its head says

for odd in any_of(["exp"], ["b64"], ["x"], [], "exp", None, [1]):
    ATTACKS[f"crit {odd!r}"] = (sent({"crit": odd, "x": 1, "exp": 1}), sent({"x": 1, "exp": 1}))
ATTACKS["crit b64, and b64"] = (sent({"crit": ["b64"], "b64": False}), RIGHT)
for odd in any_of(
    "JWT", "at+jwt2", "at jwt", " at+jwt", "at+jwt;x=y", "id+jwt", "text/at+jwt", "", None, 1, ["at+jwt"], ...
):
    ATTACKS[f"typ {odd!r}"] = (sent({"typ": odd}), sent({"typ": "application/AT+JWT"}))
ATTACKS |= {
    "cty JWT": (sent({"cty": "JWT"}), RIGHT),
    "zip": (sent({"zip": "DEF"}), RIGHT),
    "enc": (sent({"enc": "A128GCM"}), RIGHT),
    "JWE, dir": (jwe({"alg": "dir", "enc": "A128GCM", "zip": "DEF"}), RIGHT),
    "JWE, PBES2 of very many rounds": (
        jwe({"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2**31 - 1, "p2s": "AAAA"}),
        RIGHT,
    ),
    "JWE under our own names": (lambda issuer: jwe(issuer.header(zip="DEF"))(issuer), RIGHT),
}

# -- how it is written

ATTACKS |= {
    "padding on the head": rewritten(lambda to: [to[0] + "=", to[1], to[2]]),
    "padding on the claims": rewritten(lambda to: [to[0], to[1] + "==", to[2]]),
    "padding on the signature": rewritten(lambda to: [to[0], to[1], to[2] + "="]),
    "percent padding": rewritten(lambda to: [to[0], to[1], to[2] + "%3D"]),
    "bits of no use in the signature": rewritten(lambda to: [to[0], to[1], spare_bits(to[2])]),
    "white space before": rewritten(lambda to: [" " + to[0], to[1], to[2]]),
    "white space behind": rewritten(lambda to: [to[0], to[1], to[2] + " "]),
    "a line break behind": rewritten(lambda to: [to[0], to[1], to[2] + "\n"]),
    "a line break within": rewritten(lambda to: [to[0], to[1][:9] + "\r\n" + to[1][9:], to[2]]),
    "a NUL behind": rewritten(lambda to: [to[0], to[1], to[2] + "\0"]),
    "a second token behind": rewritten(lambda to: [*to[:2], f"{to[2]},{'.'.join(to)}"]),
    "letters of another base64": rewritten(lambda to: [to[0], to[1], to[2] + "+/"]),
    "letters beyond ASCII": rewritten(lambda to: [to[0], to[1], to[2] + "é"]),
    "one part": rewritten(lambda to: to[:1]),
    "two parts": rewritten(lambda to: to[:2]),
    "four parts": rewritten(lambda to: [*to, ""]),
    "dots alone": rewritten(lambda to: ["", "", ""]),
    "JSON serialization": (
        lambda issuer: json.dumps(
            dict(zip(("protected", "payload", "signature"), issuer.token().split("."), strict=True))
        ),
        RIGHT,
    ),
    "a token within a token": (lambda issuer: issuer.signed(issuer.header(), issuer.token().encode()), RIGHT),
    "hardly too long": (lambda issuer: filled(issuer, MOST_TOKEN + 2), lambda issuer: filled(issuer, MOST_TOKEN - 3)),
    "a megabyte": (lambda issuer: filled(issuer, 1_000_000), lambda issuer: filled(issuer, 5_000)),
    "a head twice as long as all": (sent({"x": "x" * 6_200}), sent({"x": "x" * 4_000})),
    "a name said twice in the head": said(lambda head: head.replace(b"{", b'{"alg":"none",', 1)),
    "the same said twice in the head": said(lambda head: head.replace(b"{", b'{"typ":"at+jwt",', 1)),
    "sub said twice": said(claims=lambda body: body.replace(b"{", b'{"sub":"root",', 1)),
    "exp said twice": said(claims=lambda body: body.replace(b"{", b'{"exp":9999999999,', 1)),
    "a name said twice, otherwise written": said(claims=lambda body: body.replace(b"{", b'{"\\u0073ub":"root",', 1)),
    "a name said twice within": said(claims=lambda body: body.replace(b"{", b'{"act":{"sub":1,"sub":2},', 1)),
    "claims nested deep": said(
        claims=lambda body: body.replace(b"{", b'{"x":' + b"[" * 2_000 + b"]" * 2_000 + b",", 1)
    ),
    "a head nested deep": said(lambda head: head.replace(b"{", b'{"x":' + b"[" * 2_000 + b"]" * 2_000 + b",", 1)),
    "NaN": said(claims=lambda body: body.replace(b"{", b'{"x":NaN,', 1)),
    "Infinity": said(claims=lambda body: body.replace(b'"exp": ', b'"exp": Infinity, "x": ', 1)),
    "an exp beyond all numbers": said(claims=lambda body: body.replace(b'"exp": ', b'"exp": 1e999, "x": ', 1)),
    "an exp of a thousand digits": said(
        claims=lambda body: body.replace(b'"exp": ', b'"exp": ' + b"9" * 1_000 + b', "x": ', 1)
    ),
    "claims in UTF-16": said(claims=lambda body: body.decode().encode("utf-16")),
    "claims that are no UTF-8": said(claims=lambda body: body.replace(b"ana", b"an\xff")),
    "claims after a byte order mark": said(claims=lambda body: b"\xef\xbb\xbf" + body),
    "claims and more behind": said(claims=lambda body: body + b"{}"),
    "claims in a list": said(claims=lambda body: b"[" + body + b"]"),
    "claims that are text": said(claims=lambda body: json.dumps(body.decode()).encode()),
    "no claims": said(claims=lambda body: b"{}"),
    "claims that are null": said(claims=lambda body: b"null"),
    "a head in a list": said(lambda head: b"[" + head + b"]"),
    "a head that is null": said(lambda head: b"null"),
}

# -- what it claims

for odd in any_of(
    "other", "holdfast2", "hold", "HOLDFAST", "holdfast ", "", ["other"], [], ["holdfast", 1], 1, None, ...
):
    claim("aud", odd, right=["other", "holdfast"])
for odd in any_of(
    "https://issuer.test/", "https://issuer.test.x", "HTTPS://ISSUER.TEST", "", ["https://issuer.test"], 1
):
    claim("iss", odd)
TIMES: dict[str, Pair] = {
    "expired beyond the leeway": (sent(iat=ago(900), exp=ago(60)), sent(iat=ago(900), exp=ago(59))),
    "expired long ago": (sent(iat=ago(9e8), exp=ago(9e8 - 600)), sent(iat=ago(600), exp=ago(0))),
    "nbf beyond the leeway": (sent(nbf=ago(-61)), sent(nbf=ago(-60))),
    "nbf far ahead": (sent(nbf=ago(-9e8)), sent(nbf=ago(9e8))),
    "issued beyond the leeway": (sent(iat=ago(-61), exp=ago(-600)), sent(iat=ago(-60), exp=ago(-600))),
    "longer than a lifetime": (sent(exp=ago(-LIFETIME - 1)), sent(exp=ago(-LIFETIME))),
    "for ever": (sent(exp=2**39), RIGHT),
    "from ever": (sent(iat=0), RIGHT),
    "expires as it is issued": (sent(exp=ago(0)), sent(exp=ago(-1))),
    "expires before it is issued": (sent(iat=ago(-30), exp=ago(-20)), sent(iat=ago(-20), exp=ago(-30))),
}
ATTACKS |= TIMES
for name in ("exp", "iat", "nbf"):
    for odd in any_of("", "9999999999", "soon", True, None, [], {}, -1, -9e99, 9e99, 2**53):
        claim(name, odd)
for name in ("iss", "exp", "iat", "sub"):
    claim(name, ...)
for odd in any_of("", "x" * 201, 7, None, ["ana"], "a\nb", "a\0", "\ud800", "\u202eana", "holdfast"):
    claim("sub", odd, right="x" * 200)
for odd in any_of("", "x" * 201, 7, None, ["acme"], {}, "a/b", "a\nb", "\ud800", True):
    claim("tenant", odd, right="acme")
for odd in any_of("admin", "", {"admin": True}, [["admin"]], [1], None, True, ["admin", None]):
    claim("roles", odd, right=["admin"])
for odd in any_of("", "x" * 201, 7, None, ["t"], "a\nb", "\ud800"):
    claim("jti", odd, right="x" * 200)


def filled(issuer: Issuer, length: int) -> str:
    """A rightly signed token of a length, give or take two bytes: base64 does not come in every length."""
    spare = length - len(issuer.token(x=""))
    return issuer.token(x="x" * round(spare * 3 / 4))
