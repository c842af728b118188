"""Which authenticator the settings ask for: local mode, or an issuer's tokens."""

from __future__ import annotations

import time
from collections.abc import Callable

from holdfast.engine.engine import Engine
from holdfast.errors import ConfigurationError
from holdfast.ports.observer import Observer
from holdfast.service.auth.caller import Authenticator
from holdfast.service.auth.keys import KeySource, PublishedKeys, SecretKey, fetch_of
from holdfast.service.auth.local import LocalAuthenticator, check_loopback
from holdfast.service.auth.revoked import Revoked
from holdfast.service.auth.tokens import Tokens
from holdfast.settings import Settings
from holdfast.settings.sections import Auth

MOST_LEEWAY = 60.0


def authenticator(
    settings: Settings,
    engine: Engine,
    *,
    observer: Observer | None = None,
    now: Callable[[], float] = time.time,
) -> Authenticator:
    """The authenticator of the settings, to be opened before it is asked.

    Args:
        observer: told when the issuer's keys or the revocations cannot be read.
        now: seconds since the epoch, as the issuer's clock has them.
    Raises:
        ConfigurationError: the settings do not go together; says what to set.
    """
    auth = settings.auth
    if auth.issuer is None:
        for name in ("audience", "keys", "secret"):
            if getattr(auth, name) is not None:
                raise ConfigurationError(f"auth.{name} is set and auth.issuer is not: say who issues the tokens.")
        check_loopback(settings.service.host)
        return LocalAuthenticator(settings.home)
    if auth.audience is None:
        raise ConfigurationError("auth.issuer is set: set auth.audience to what its tokens name as `aud`.")
    if auth.leeway > MOST_LEEWAY:
        raise ConfigurationError(f"auth.leeway is {auth.leeway:g} seconds; clocks may differ by {MOST_LEEWAY:g}.")
    return Tokens(auth, _keys(auth, observer), Revoked(engine.revoking, observer, now), now)


def _keys(auth: Auth, observer: Observer | None) -> KeySource:
    if auth.family == "HS":
        if auth.secret is None:
            raise ConfigurationError("auth.family is HS: set HOLDFAST_AUTH__SECRET, 32 bytes or more.")
        if auth.keys is not None:
            raise ConfigurationError("auth.family is HS, whose one key is auth.secret: take auth.keys out.")
        return SecretKey(auth.secret)
    if auth.keys is None:
        raise ConfigurationError(f"auth.family is {auth.family}: set auth.keys to where the issuer publishes its keys.")
    if auth.secret is not None:
        raise ConfigurationError(f"auth.secret is for the HS family, and auth.family is {auth.family}: take one out.")
    return PublishedKeys(fetch_of(auth.keys), auth.family, observer)
