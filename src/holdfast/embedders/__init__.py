"""The embedders there are: one line each. An embedder is loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from holdfast.errors import ConfigurationError
from holdfast.ports.embedder import Embedder

EMBEDDERS: Mapping[str, str] = {
    "lexical-hash-1": "holdfast.embedders.lexical:LexicalEmbedder",
}
DEFAULT = "lexical-hash-1"


def load_embedder(name: str = DEFAULT) -> Embedder:
    """A new embedder of that name; raises ``ConfigurationError`` where there is none."""
    if name not in EMBEDDERS:
        raise ConfigurationError(f"There is no embedder {name!r}; there are: {', '.join(sorted(EMBEDDERS))}.")
    module, _, attribute = EMBEDDERS[name].partition(":")
    embedder: Embedder = getattr(import_module(module), attribute)()
    return embedder
