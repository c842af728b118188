"""The reference part of ``docs/commands.md``, made from the commands themselves so that it cannot say anything else."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

SHARED = (
    *("session", "expected", "rebase", "change_id", "group"),
    *("json", "home", "asker", "tenant", "url", "token_file", "help"),
)
"""Parameters that mean the same wherever they stand; the page says once what that is."""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its whole name, groups left out, in the order of the help."""
    from holdfast.cli.main import app

    yield from _below(get_command(app), "holdfast")


def reference() -> str:
    """Every command with its arguments and options, as Markdown."""
    lines = [line for name, command in commands() for line in _section(name, command)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(command, TyperGroup):
        for inner in command.list_commands(None):  # type: ignore[arg-type]
            yield from _below(command.commands[inner], f"{name} {inner}")
    else:
        yield name, command


def _section(name: str, command: TyperCommand) -> Iterator[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    words = [name, *(_placed(argument) for argument in arguments)]
    yield from (f"### `{' '.join(words)}`", "", inspect.cleandoc(command.help or ""), "")
    own = [parameter for parameter in command.params if parameter.name not in SHARED]
    for parameter in own:
        said = _placed(parameter) if parameter in arguments else _option(parameter)
        default = "" if parameter.default in (None, False) else f" Default: {parameter.default}."
        yield f"* `{said}`: {getattr(parameter, 'help', '')}{default}"
    shared = [_option(parameter) for parameter in command.params if parameter.name in SHARED[1:5]]
    if shared:
        yield f"* and {', '.join(f'`{option}`' for option in shared)}, as above."
    if own or shared:
        yield ""


def _placed(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    names = " / ".join((*option.opts, *option.secondary_opts))
    return f"{names} {option.metavar}" if option.metavar and not option.is_flag else names


if __name__ == "__main__":
    print(reference(), end="")
