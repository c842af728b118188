"""The sinks there are, by URL scheme: one line each. A sink is loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

from holdfast.errors import ConfigurationError
from holdfast.ports.embedder import Embedder
from holdfast.ports.sink import Sink

SINKS: Mapping[str, str] = {
    "directory": "holdfast.sinks.directory:DirectorySink",
    "vectors": "holdfast.sinks.vectors:VectorSink",
}


def open_sink(url: str, *, embedder: Embedder) -> Sink:
    """Open the sink of a URL such as ``vectors:///srv/vectors.sqlite`` or ``directory:///srv/published``.

    Raises:
        ConfigurationError: no such scheme, or a path that is not absolute.
        StoreUnavailableError, SinkUnavailableError: it cannot be opened.
    """
    parts = urlsplit(url)
    if parts.scheme not in SINKS:
        known = ", ".join(sorted(SINKS))
        raise ConfigurationError(f"There is no sink for {parts.scheme or url!r}; there are: {known}.")
    path = Path(unquote(parts.path))
    if parts.netloc or not path.is_absolute() or path == Path("/"):
        raise ConfigurationError(f"A sink's URL names an absolute path, as in {parts.scheme}:///srv/{parts.scheme}.")
    module, _, attribute = SINKS[parts.scheme].partition(":")
    sink: Sink = getattr(import_module(module), attribute).open(path, embedder=embedder)
    return sink
