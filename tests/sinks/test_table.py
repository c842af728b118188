"""Sinks are opened by URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from holdfast.embedders.lexical import LexicalEmbedder
from holdfast.errors import ConfigurationError
from holdfast.sinks import SINKS, open_sink
from holdfast.testing.sink import deliver, numbered


@pytest.mark.parametrize("scheme", sorted(SINKS))
async def test_a_sink_is_opened_at_the_path_of_its_url(scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "a b ü"
    sink = open_sink(f"{scheme}://{quote(str(path))}", embedder=LexicalEmbedder())
    assert sink.name == scheme
    await deliver(sink, "r1", numbered("alpha", 1))
    await sink.close()
    assert path.exists()


@pytest.mark.parametrize(
    "url", ["", "vectors.sqlite", "redis:///x", "vectors://relative/x", "vectors:///", "directory://", "vectors:x"]
)
def test_a_url_that_names_no_sink_or_no_absolute_path_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_sink(url, embedder=LexicalEmbedder())
