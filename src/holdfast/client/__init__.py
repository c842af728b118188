"""The client of a Holdfast service: the engine's verbs over HTTP. ``from holdfast.client import Client``.

It needs the [client] extra; what that brings is loaded when a client is opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.client.client import Client
    from holdfast.client.drafting import seen

__all__ = ["Client", "seen"]

_LOADED_WHEN_NAMED = {"Client": "holdfast.client.client", "seen": "holdfast.client.drafting"}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_WHEN_NAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LOADED_WHEN_NAMED[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
