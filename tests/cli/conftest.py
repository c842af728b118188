"""The command line as a user has it: real files, the real engine, arguments in, text and exit codes out."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer import testing
from typer.main import get_command
from typer.testing import CliRunner, Result

from holdfast.cli.main import app

# The runner would make all commands anew at each call, which takes three times as long as what it calls.
testing._get_command = cache(get_command)  # type: ignore[attr-defined]

_LOG = " ".join(f"On day {day} the log says that the wind was from the west and the sea was calm." for day in range(9))
DOCUMENT = f"""# The lighthouse

## The lamp

The lamp was lit in 1843 and has burned every night since. Its light is seen for twenty miles. {_LOG}

## The keeper

The keeper writes a log. Nothing that was written in it has ever been lost. {_LOG}

## The boat

{_LOG} The boat comes on Fridays with oil, bread and letters. In winter it may be late.
"""
"""Three sections, each a chunk of its own."""


class Cli:
    """Runs ``holdfast`` on a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._runner = CliRunner()

    def __call__(self, *words: str, stdin: str | None = None, code: int = 0, who: str = "ana") -> Result:
        """Run a command; it must end with ``code``."""
        result = self._runner.invoke(app, ["--home", str(self.home), "--as", who, *words], input=stdin)
        assert result.exit_code == code, f"{words} ended with {result.exit_code}: {result.output}"
        return result

    def json(self, *words: str, stdin: str | None = None, who: str = "ana") -> Any:
        """Run a command with ``--json``; its one document."""
        return json.loads(self(*words, "--json", stdin=stdin, who=who).stdout)

    def error(self, *words: str, code: int, stdin: str | None = None, who: str = "ana") -> dict[str, Any]:
        """Run a command with ``--json`` that must fail with an exit code; the error."""
        result = self(*words, "--json", stdin=stdin, code=code, who=who)
        assert result.stdout == ""
        error: dict[str, Any] = json.loads(result.stderr)["error"]
        return error


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.delenv("HOLDFAST_DEBUG", raising=False)
    return Cli(tmp_path / "home")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "lighthouse.md"
    path.write_text(DOCUMENT, encoding="utf-8")
    return path


@pytest.fixture
def session(cli: Cli, document: Path) -> str:
    """The id of a session made of the document."""
    return cli("ingest", str(document)).stdout.strip()


@pytest.fixture
def keys(cli: Cli, session: str) -> list[str]:
    """The keys of its items, in order."""
    return [item["key"] for item in cli.json("sessions", "show", session)["items"]]


@pytest.fixture
def published(cli: Cli, session: str) -> str:
    """The session, published."""
    cli("sessions", "lock", session)
    cli("sessions", "publish", session)
    return session
