"""The page about the command line says what the command line does."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from holdfast.cli.exits import EXIT_CODES
from holdfast.cli.main import NEXT, app
from holdfast.cli.reference import commands, reference

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SAID = re.compile(r"(?<!from )(?<![\w./-])holdfast ((?:--\w+ \S+ )*)([a-z][a-z-]*)(?: ([a-z][a-z-]*))?(?![\w=/.])")


def test_every_command_and_option_is_documented() -> None:
    head, _, tail = PAGE.partition("## Every command\n\n")
    assert tail == reference(), "write the end of docs/commands.md anew: python -m holdfast.cli.reference"
    documented = set(re.findall(r"--[a-z][a-z-]+", PAGE)) | set(re.findall(r"`-h`", PAGE))
    for _, command in commands():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert set(parameter.opts) & documented, (command.name, parameter.opts)
    for parameter in get_command(app).params:
        assert set(parameter.opts) & set(re.findall(r"--[a-z][a-z-]+", head)), parameter.opts


def test_every_exit_code_is_documented() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert told == {0, 1, 2, 130, *EXIT_CODES.values()}


def test_every_command_and_option_says_what_it_is_for() -> None:
    for name, command in commands():
        assert command.help, name
        assert len(command.help.splitlines()[0]) <= 66, f"{name}: the first line is cut short in a list of commands"
        for parameter in command.params:
            assert getattr(parameter, "help", None) or getattr(parameter, "hidden", False), (name, parameter.name)


def test_every_command_that_a_page_or_a_hint_names_is_there() -> None:
    known = {tuple(name.split()[1:]) for name, _ in commands()}
    groups = {name[0] for name in known if len(name) == 2}
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES} | {"hints": "\n".join(NEXT.values())}
    named = 0
    for place, text in texts.items():
        for _, first, second in SAID.findall("\n".join(re.findall(r"`[^`]*`|^\s*holdfast .*$", text, re.MULTILINE))):
            words = (first, second) if first in groups else (first,)
            assert words in known or (second == "" and first in groups), f"{place}: holdfast {' '.join(words)}"
            named += 1
    assert named > 60
