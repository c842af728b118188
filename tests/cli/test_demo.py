"""The demo holds on any document, and fails loudly where something does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast.cli.main import app
from holdfast.cli.story import drafting, keeping, publishing
from holdfast.cli.story.story import Story

NAMES = [name for name, _ in (*drafting.STEPS, *publishing.STEPS, *keeping.STEPS)]


def test_the_demo_checks_every_step_of_a_life(document: Path) -> None:
    result = CliRunner().invoke(app, ["demo", str(document), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["ok"] is True
    assert told["checks"] >= 100
    assert [step["name"] for step in told["steps"]] == NAMES
    assert told["checks"] == sum(len(step["checks"]) for step in told["steps"])
    assert told["seconds"] > 0


@pytest.mark.parametrize("text", ["A word.", "# Only a title\n", "Ünïcödé ☃ text\r\nwith Windows lines.\r\n" * 40])
def test_the_demo_holds_on_an_odd_document(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.md"
    path.write_bytes(text.encode())
    result = CliRunner().invoke(app, ["demo", str(path), "--brief"])
    assert result.exit_code == 0, result.output
    assert "All of it holds" in result.stdout


def test_the_demo_prints_each_step_with_its_time_and_its_checks(document: Path) -> None:
    result = CliRunner().invoke(app, ["demo", str(document)])
    for name in NAMES:
        assert name in result.stdout
    assert " ms " in result.stdout
    assert "ok: of eight writers in two engines, one wins" in result.stdout
    brief = CliRunner().invoke(app, ["demo", str(document), "--brief"])
    assert len(brief.stdout.splitlines()) < len(result.stdout.splitlines()) / 3


def test_the_home_is_kept_only_when_asked_for(document: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    CliRunner().invoke(app, ["demo", str(document), "--brief"])
    assert not list(tmp_path.glob("holdfast-demo-*"))
    kept = CliRunner().invoke(app, ["demo", str(document), "--keep", "--json"])
    home = Path(json.loads(kept.stdout)["home"])
    assert (home / "holdfast.sqlite").is_file()
    looked = CliRunner().invoke(app, ["--home", str(home), "--as", "ana", "--tenant", "demo", "sessions", "list"])
    assert "published" in looked.stdout
    told = CliRunner().invoke(app, ["demo", str(document), "--keep", "--brief"])
    assert "--tenant demo sessions list" in told.stderr


def test_a_check_that_fails_ends_the_demo_with_1_and_its_name(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgetful(story: Story) -> str:
        story.check("water is dry", False, "it is wet")
        return "never"

    steps = (*drafting.STEPS[:1], ("a false claim", forgetful))
    monkeypatch.setattr(drafting, "STEPS", steps)
    result = CliRunner().invoke(app, ["demo", str(document)])
    assert result.exit_code == 1
    assert "FAILED at 'a false claim': water is dry: it is wet" in result.stderr
    assert "All of it holds" not in result.stdout
    told = json.loads(CliRunner().invoke(app, ["demo", str(document), "--json"]).stdout)
    assert told["ok"] is False
    assert told["failed"]["step"] == "a false claim"


def test_what_should_be_refused_and_is_not_ends_the_demo(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.errors import ConflictError, SessionNotFoundError

    async def lenient(story: Story) -> str:
        await story.refused("reading is refused", ConflictError, story.read())
        return "never"

    async def broken(story: Story) -> str:
        raise SessionNotFoundError("lost")

    for step, what in ((lenient, "it was not refused"), (broken, "unexpected session-not-found")):
        monkeypatch.setattr(drafting, "STEPS", (*drafting.STEPS[:1], ("wrong", step)))
        result = CliRunner().invoke(app, ["demo", str(document)])
        assert result.exit_code == 1
        assert what in result.stderr


def test_a_document_that_is_no_text_is_the_documents_fault(tmp_path: Path) -> None:
    path = tmp_path / "image.md"
    path.write_bytes(b"\x89PNG\xff\x00")
    result = CliRunner().invoke(app, ["demo", str(path), "--json"])
    assert result.exit_code == 6
    assert json.loads(result.stderr)["error"]["code"] == "invalid-change"


def test_the_readme_of_the_installed_package_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    from holdfast.cli import demo

    class Metadata:
        def __init__(self, name: str) -> None:
            self.json = {"name": name, "description": "# Holdfast\n\nKeeps work in progress safe.\n"}

    monkeypatch.setattr("importlib.metadata.metadata", Metadata)
    assert demo.own_readme() == b"# Holdfast\n\nKeeps work in progress safe.\n"

    def missing(name: str) -> object:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.metadata", missing)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 2
    assert "name a FILE" in result.stderr
