"""The kinds there are: one line each. A kind is loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from holdfast.errors import UnknownKindError
from holdfast.ports.kind import Kind

KINDS: Mapping[str, str] = {
    "knowledge": "holdfast.kinds.knowledge:KIND",
}


def load_kind(name: str) -> Kind:
    """The kind of a name; raises ``UnknownKindError``."""
    if name not in KINDS:
        raise UnknownKindError(name, KINDS)
    module, _, attribute = KINDS[name].partition(":")
    kind: Kind = getattr(import_module(module), attribute)
    return kind


def kinds() -> dict[str, Kind]:
    """Every kind by name, all of them loaded."""
    return {name: load_kind(name) for name in KINDS}
