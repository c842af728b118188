"""S06, S07, S10: which authenticator the settings ask for, and settings that do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.engine.engine import Engine
from holdfast.errors import ConfigurationError, WeakKeyError
from holdfast.service.auth.authenticator import authenticator
from holdfast.service.auth.local import LocalAuthenticator, local_token
from holdfast.service.auth.tokens import Tokens
from holdfast.settings import Settings
from holdfast.settings.sections import Auth, Service
from holdfast.testing.issuer import SECRET, Issuer

KEYS = "https://issuer.test/keys.json"
ISSUED = Auth(issuer="https://issuer.test", audience="holdfast", keys=KEYS)


async def test_s10_without_an_issuer_it_is_local_mode(settings: Settings, engine: Engine) -> None:
    verifier = authenticator(settings, engine)
    assert isinstance(verifier, LocalAuthenticator)
    await verifier.open()
    assert (await verifier.authenticate(f"Bearer {local_token(settings.home)}")).principal.tenant == "local"
    await verifier.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org"])
async def test_s10_local_mode_listens_on_this_machine_alone(host: str, settings: Settings, engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match=r"service\.host"):
        authenticator(replace(settings, service=Service(host=host)), engine)
    assert not (settings.home / "token").exists()
    issued = replace(settings, service=Service(host=host), auth=ISSUED)
    assert isinstance(authenticator(issued, engine), Tokens)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"issuer": None}, "auth.audience is set and auth.issuer is not"),
        ({"issuer": None, "audience": None}, "auth.keys is set and auth.issuer is not"),
        (
            {"issuer": None, "audience": None, "keys": None, "secret": SECRET},
            "auth.secret is set and auth.issuer is not",
        ),
        ({"audience": None}, "set auth.audience"),
        ({"keys": None}, "set auth.keys"),
        ({"secret": SECRET}, "auth.secret is for the HS family"),
        ({"family": "HS"}, "set HOLDFAST_AUTH__SECRET"),
        ({"family": "HS", "secret": SECRET}, "take auth.keys out"),
        ({"family": "ES", "keys": None}, "set auth.keys"),
        ({"keys": "http://issuer.test/keys.json"}, "auth.keys is an https:// address"),
        ({"leeway": 61.0}, "auth.leeway is 61 seconds"),
    ],
)
async def test_settings_that_do_not_go_together_are_refused_and_say_what_to_set(
    changes: dict[str, Any], named: str, settings: Settings, engine: Engine
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        authenticator(replace(settings, auth=replace(ISSUED, **changes)), engine)
    assert named in str(caught.value)
    assert SECRET not in str(caught.value)


async def test_s06_a_weak_secret_is_refused(settings: Settings, engine: Engine) -> None:
    for secret in ("secret", "changeme" * 5, SECRET[:31]):
        weak = replace(ISSUED, family="HS", keys=None, secret=secret)
        with pytest.raises(WeakKeyError):
            authenticator(replace(settings, auth=weak), engine)


@pytest.mark.parametrize("family", ["HS", "RS", "PS", "ES", "EdDSA"])
async def test_with_an_issuer_its_tokens_are_believed(
    family: str, settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    issuer = Issuer(family)
    auth = issuer.auth(issuer.publish(tmp_path / "keys.json"))
    verifier = authenticator(replace(settings, auth=auth), engine)
    assert isinstance(verifier, Tokens)
    await verifier.open()
    caller = await verifier.authenticate(f"Bearer {issuer.token()}")
    assert caller.principal.id == "ana"
    assert verifier.stands(caller)
    await verifier.close()
    assert not (settings.home / "token").exists()
