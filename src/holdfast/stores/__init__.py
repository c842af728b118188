"""The table of URL schemes, tier by tier. An adapter is one file and one line here; it is loaded when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from holdfast.errors import ConfigurationError, MissingExtraError

_OBJECTS = "holdfast.stores.cold.objects:ObjectColdStore"
_REDIS = "holdfast.stores.hot.redis:RedisHotStore"

TIERS: Mapping[str, Mapping[str, str]] = {
    "hot": {
        "sqlite": "holdfast.stores.hot.sqlite:SqliteHotStore",
        **dict.fromkeys(("redis", "rediss", "redis+sentinel", "redis+cluster"), _REDIS),
    },
    "warm": {
        "sqlite": "holdfast.stores.warm.sqlite:SqliteWarmStore",
        "postgresql": "holdfast.stores.warm.postgres:PostgresWarmStore",
    },
    "cold": {"file": _OBJECTS, "memory": _OBJECTS, "s3": _OBJECTS, "gs": _OBJECTS, "az": _OBJECTS, "abfs": _OBJECTS},
}
"""What serves a URL scheme in each tier: module and class."""

DRIVERS: Mapping[str, str] = {"redis": "redis", "hiredis": "redis", "asyncpg": "postgres"}
"""The extra that brings a driver the core does not depend on, by the name the driver is imported by."""


def adapter(
    tier: str,
    url: str,
    *,
    tiers: Mapping[str, Mapping[str, str]] = TIERS,
    drivers: Mapping[str, str] = DRIVERS,
) -> Any:
    """The class that serves a URL in a tier; its driver is imported here and not before.

    Raises:
        ConfigurationError: nothing in that tier serves the URL's scheme.
        MissingExtraError: the driver is not installed; names the extra that brings it.
    """
    scheme = url.partition("://")[0]
    known = tiers[tier]
    if scheme not in known:
        raise ConfigurationError(f"The {tier} tier has no adapter for {scheme}://; there are: {', '.join(known)}.")
    module, _, name = known[scheme].partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        driver = (error.name or "").partition(".")[0]
        if driver not in drivers:
            raise
        raise MissingExtraError(driver, drivers[driver]) from None
