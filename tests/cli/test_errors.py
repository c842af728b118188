"""Errors as exit codes, and what they say."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from holdfast import errors
from holdfast.cli.exits import EXIT_CODES, exit_code
from holdfast.cli.main import app, described, sentence

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

MAIN = "import sys; from holdfast.cli.main import main; main()"


def leaves(group: type[errors.HoldfastError]) -> list[type[errors.HoldfastError]]:
    below = [inner for inner in group.__subclasses__() if inner.__module__ == errors.__name__]
    return [group] if not below else [leaf for inner in below for leaf in leaves(inner)]


def test_every_error_there_is_has_an_exit_code_of_its_group() -> None:
    for leaf in leaves(errors.HoldfastError):
        codes = {EXIT_CODES[group] for group in EXIT_CODES if issubclass(leaf, group)}
        assert len(codes) == 1, leaf
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES) == 7
    assert not set(EXIT_CODES.values()) & {0, 1, 2, 130}


def test_an_error_is_one_line_that_says_what_to_do_next(cli: Cli, session: str) -> None:
    text = cli("sessions", "undo", session, code=5).stderr
    assert text.count("\n") == 1
    assert text.startswith("Error: There is nothing to undo.")
    assert "holdfast sessions history" in text


def test_usage_errors_end_with_2_and_suggest(cli: Cli) -> None:
    assert "Did you mean 'undo'?" in cli("sessions", "undoo", code=2).stderr
    assert cli.error("sessions", "undoo", code=2)["code"] == "usage"
    assert "'x' is not a whole number" in cli.error("sessions", "list", "--limit", "x", code=2)["message"]
    assert "Missing argument" in cli.error("sessions", "show", code=2)["message"]


def test_an_unexpected_error_is_told_without_a_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.engine.engine import Engine

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(Engine, "find", broken)
    text = cli("sessions", "list", code=1).stderr
    assert "ZeroDivisionError: oh" in text
    assert "HOLDFAST_DEBUG=1" in text
    assert "Traceback" not in text
    assert cli.error("sessions", "list", code=1) == {"code": "unexpected", "message": "ZeroDivisionError: oh"}
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    result = CliRunner().invoke(app, ["--home", str(cli.home), "sessions", "list"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_file_that_is_not_there_is_told_by_name(cli: Cli, session: str) -> None:
    for words in (("ingest",), ("demo",), ("sessions", "edit", session), ("sessions", "put", session, "chunks/a")):
        assert "/nowhere/at-all.md: No such file" in cli(*words, "/nowhere/at-all.md", code=2).stderr
    assert "/nowhere/at-all.md: No such file" in cli("sessions", "export", session, "/nowhere/at-all.md", code=2).stderr


def test_an_interrupt_ends_with_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.engine.engine import Engine

    async def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "find", interrupted)
    assert cli("sessions", "list", code=130).stderr.startswith("Error: Interrupted.")
    assert cli.error("sessions", "list", code=130)["code"] == "interrupted"
    assert exit_code(KeyboardInterrupt()) == 130
    assert described(KeyboardInterrupt())["code"] == "interrupted"
    assert sentence(KeyboardInterrupt()).startswith("Interrupted.")


def test_global_options_stand_before_the_command_or_after_it(cli: Cli, session: str) -> None:
    runner = CliRunner()
    after = ["sessions", "show", session, "--json", "--as", "ana", "--home", str(cli.home)]
    assert runner.invoke(app, after).exit_code == 0
    tenant = [*after, "--tenant", "elsewhere"]
    assert runner.invoke(app, tenant).exit_code == 3
    before = ["--json", "--as", "ana", "--home", str(cli.home), "sessions", "show", session]
    assert runner.invoke(app, before).stdout == runner.invoke(app, after).stdout


def test_the_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"1.2.3 of {name}")
    assert CliRunner().invoke(app, ["--version"]).stdout == "holdfast 1.2.3 of holdfast\n"


def test_the_operating_system_user_asks_by_default(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "carla")
    result = CliRunner().invoke(app, ["--home", str(cli.home), "ingest", "-", "--json"], input="Carla's text.\n")
    assert '"owner":"carla"' in result.stdout


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass

    from holdfast.cli.call import Call

    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert Call(json=False, home=None, asker=None, tenant=None).who.id.startswith("uid-")


def test_the_command_runs_as_a_process_of_its_own(cli: Cli, session: str) -> None:
    words = [sys.executable, "-c", MAIN, "--home", str(cli.home), "--as", "ana", "sessions", "show", session]
    fine = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert "The lighthouse" in fine.stdout
    refused = subprocess.run([*words[:-1], "zzzzzzzz"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith("Error: ")


def test_a_short_command_loads_only_what_it_needs(cli: Cli, session: str) -> None:
    heavy = ("numpy", "pydantic", "rich", "semantic_text_splitter", "holdfast.cli.story")
    code = f"""
import sys
from holdfast.cli.main import app
try:
    app(["--home", {str(cli.home)!r}, "sessions", "list"])
except SystemExit:
    pass
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_help_opens_no_home_and_loads_no_engine() -> None:
    code = """
import sys
from holdfast.cli.main import app
try:
    app(["--help"])
except SystemExit:
    pass
print([name for name in ("holdfast.engine.engine", "apsw", "asyncio", "rich") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "Exit codes: 0 fine" in done.stdout
