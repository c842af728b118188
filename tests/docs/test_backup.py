"""The backup that docs/operations.md tells how to make: taken while work goes on, it can be opened and adds up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.compose import open_engine
from holdfast.engine.clock import SystemChance
from holdfast.engine.engine import Engine
from holdfast.errors import ConfigurationError
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.stores.keys.file import KeyFile

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
BLOCK = next(part.partition("```")[0] for part in PAGE.split("```python\n")[1:] if "VACUUM INTO" in part)
ana, root = Principal("ana"), Principal("root", roles=frozenset({"admin", "operator"}))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    mask = os.umask(0o022)
    yield
    os.umask(mask)


async def published(engine: Engine) -> str:
    """The id of a session that was ingested, so that it has a blob, and published."""
    session = await engine.ingest(ana, b"# Tides\n\nHigh at nine, low at three.", "tides.md")
    preview = await engine.preview(session.id, ana)
    await engine.publish(session.id, ana, seal=preview.seal)
    return str(session.id)


async def test_a_backup_made_while_the_home_is_open_is_whole(tmp_path: Path) -> None:
    home, backup = tmp_path / "home", tmp_path / "backup"
    async with open_engine(Settings(home=home)) as engine:
        first = await published(engine)
        exec(compile(BLOCK, "docs/operations.md", "exec"), {})
        await engine.create(ana, kind="knowledge", title="too late for the backup")
        shutil.copytree(home / "cold", backup / "cold")
        shutil.copy2(home / "keys.json", backup)
    for name in ("holdfast.sqlite", "vectors.sqlite", "keys.json"):
        assert (backup / name).stat().st_mode & 0o077 == 0, name
    async with open_engine(Settings(home=backup)) as engine:
        assert [header.id for header in (await engine.find(ana)).headers] == [first]
        assert [verified.problems async for verified in engine.verify(root) if not verified.ok] == []
        assert (await engine.search(ana, "high"))[0].target == f"default/{first}"
        assert (await engine.reopen(first, ana)).count == 1


async def test_without_its_keys_a_backup_cannot_be_read(tmp_path: Path) -> None:
    async with open_engine(Settings(home=tmp_path / "home")) as engine:
        first = await published(engine)
        exec(compile(BLOCK, "docs/operations.md", "exec"), {})
    with pytest.raises(ConfigurationError, match="put it back"):  # nothing goes on under a new key by itself
        async with open_engine(Settings(home=tmp_path / "backup")):
            pass
    KeyFile.open(tmp_path / "backup" / "keys.json", SystemChance())
    async with open_engine(Settings(home=tmp_path / "backup")) as engine:
        found = [verified async for verified in engine.verify(root, first)]
        assert [problem.code for verified in found for problem in verified.problems] == ["unreadable"]
