"""The kind that docs/kinds.md declares is a kind: it passes the suite, and an engine works with it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.compose import open_engine
from holdfast.errors import InvalidChangeError, InvalidItemError, VersionConflictError
from holdfast.kinds import KINDS
from holdfast.model.access import Principal
from holdfast.ports.kind import Kind
from holdfast.settings import Settings
from holdfast.testing.kind import KindSuite, Pairs

PAGE = (Path(__file__).parents[2] / "docs" / "kinds.md").read_text(encoding="utf-8")
SOURCE = PAGE.partition("```python\n# src/holdfast/kinds/outline.py\n")[2].partition("```")[0]
MODULE = "the_outline_of_the_manual"
HEADINGS = [("headings/1", {"title": "Tides"}), ("headings/2", {"title": "Why", "depth": 2})]


@pytest.fixture
def outline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    """The kind, from a file of its own, with its line in the table."""
    (tmp_path / f"{MODULE}.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cast("dict[str, str]", KINDS), "outline", f"{MODULE}:KIND")
    kind: Kind = importlib.import_module(MODULE).KIND
    yield kind
    del sys.modules[MODULE]


class TestOutline(KindSuite):
    @pytest.fixture
    def kind(self, outline: Kind) -> Kind:
        return outline

    @pytest.fixture
    def bodies(self) -> Pairs:
        return HEADINGS

    @pytest.fixture
    def broken(self) -> Pairs:
        return [("headings/1", {"title": " "}), ("headings/1", {"title": "In", "depth": 2}), ("others/1", {})]

    # Positions decide whether an outline makes sense, so the reversed one of the suite is no session.
    def test_digests_do_not_depend_on_places(self, kind: Kind, bodies: Pairs) -> None:
        flat: Any = [(key, {"title": body["title"]}) for key, body in bodies]
        super().test_digests_do_not_depend_on_places(kind, flat)


async def test_an_engine_works_with_the_kind_of_the_manual(outline: Kind, settings: Settings) -> None:
    ana = Principal("ana")
    async with open_engine(settings) as engine:
        session = await engine.create(ana, kind="outline", title="Tides", items=HEADINGS)
        with pytest.raises(InvalidItemError):
            await engine.operate(session.id, ana, "indent", {"key": "headings/2", "levels": 1}, expected=1)
        with pytest.raises(InvalidChangeError):
            await engine.operate(session.id, ana, "indent", {"key": "headings/1", "levels": -1}, expected=1)
        await engine.operate(session.id, ana, "indent", {"key": "headings/2", "levels": -1}, expected=1)
        with pytest.raises(VersionConflictError):
            await engine.operate(session.id, ana, "indent", {"key": "headings/2"}, expected=1)
        await engine.undo(session.id, ana, expected=2)
        preview = await engine.preview(session.id, ana)
        receipt = await engine.publish(session.id, ana, seal=preview.seal)
        assert receipt.manifest.count == 2
        current = settings.home / "published"
        assert any(b"Tides" in path.read_bytes() for path in current.rglob("records-*.jsonl"))
