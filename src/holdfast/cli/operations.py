"""A kind's declared operations as arguments of ``sessions run``: made from the declaration, so listed nowhere twice."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import msgspec
import typer

from holdfast.cli.coercion import Command
from holdfast.cli.output import one_line
from holdfast.errors import InvalidChangeError
from holdfast.ports.kind import Operation


class OperationCommand(Command):
    """Lets ``run SESSION OPERATION --help`` reach the operation instead of showing the help of ``run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [word for word in args[:2] if not word.startswith("-")]
        if len(words) == 2 and any(word in ctx.help_option_names for word in args[2:]):
            ctx.help_option_names = []
        return super().parse_args(ctx, args)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise typer.BadParameter(f"{message[:1].upper()}{message[1:]}. {self.format_usage().strip()}")


def usage(operation: Operation) -> list[str]:
    """The arguments as one writes them: ``--key KEY [--at N]``."""
    return [
        text if field.required else f"[{text}]"
        for field, text in (
            (field, f"{_option(field)} {_metavar(field)}".strip() + ("..." if field.many else ""))
            for field in _fields(operation)
        )
    ]


def parse(operation: Operation, words: Sequence[str], session: str) -> dict[str, Any]:
    """The typed arguments of an operation from the words after it.

    Raises:
        typer.BadParameter: an unknown, missing or incomplete option.
        InvalidChangeError: a value that the declared type does not admit.
        typer.Exit: help was asked for, and printed.
    """
    parser = _Parser(
        prog=f"holdfast sessions run {session} {operation.name}",
        description=_description(operation),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    fields = _fields(operation)
    for field in fields:
        options: dict[str, Any] = {
            "dest": field.name,
            "required": field.required,
            "default": argparse.SUPPRESS,
            "help": field.help,
        }
        if field.type is bool:
            parser.add_argument(_option(field), action=argparse.BooleanOptionalAction, **options)
        elif field.many:
            parser.add_argument(_option(field), action="extend", nargs="+", metavar=_metavar(field), **options)
        else:
            parser.add_argument(_option(field), metavar=_metavar(field), **options)
    try:
        given = vars(parser.parse_args(list(words)))
    except SystemExit as error:  # argparse printed the help that was asked for
        raise typer.Exit(int(error.code or 0)) from None
    texts = {field.name: _value(field, given[field.name]) for field in fields if field.name in given}
    try:
        typed = msgspec.convert(texts, operation.arguments, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidChangeError(f"{operation.name}: {error}") from None
    built: dict[str, Any] = msgspec.to_builtins(typed)
    return {name: value for name, value in built.items() if name in texts}


class _Field(msgspec.Struct, frozen=True):
    """One declared argument: its name in JSON, its bare type, whether it may be given more than once, and its help."""

    name: str
    type: Any
    many: bool
    required: bool
    help: str


def _fields(operation: Operation) -> list[_Field]:
    hints = get_type_hints(operation.arguments, include_extras=True)
    fields = []
    for declared in msgspec.structs.fields(operation.arguments):
        hint, help_ = hints[declared.name], ""
        for extra in getattr(hint, "__metadata__", ()):
            help_ = getattr(extra, "description", None) or help_
        bare = _bare(hint)
        many = get_origin(bare) in (list, tuple, set, frozenset)
        default = "" if declared.required or declared.default is msgspec.NODEFAULT else declared.default
        if default not in ("", None, False, ()):
            help_ = f"{help_} [default: {one_line(str(default), 40)}]".strip()
        kind = _bare((*get_args(bare), str)[0]) if many else bare
        fields.append(_Field(declared.encode_name, kind, many, declared.required, help_.replace("%", "%%")))
    return fields


def _bare(hint: Any) -> Any:
    """A type without its annotations and without ``| None``."""
    if hasattr(hint, "__metadata__"):
        return _bare(hint.__origin__)
    members = [member for member in get_args(hint) if member is not type(None)]
    if len(members) == 1 and type(None) in get_args(hint):
        return _bare(members[0])
    return hint


def _description(operation: Operation) -> str:
    said = inspect.cleandoc(vars(operation.arguments).get("__doc__") or operation.summary)
    return said.replace("``", "`")


def _option(field: _Field) -> str:
    return f"--{field.name.replace('_', '-')}"


def _metavar(field: _Field) -> str:
    names = {int: "N", float: "NUMBER", bool: "", str: field.name.upper()}
    name = names.get(field.type, "JSON")
    return name.removesuffix("S") if field.many else name


def _value(field: _Field, given: Any) -> Any:
    """What was written, with JSON decoded for a type that is more than a word or a number."""
    if field.many:
        return [_value(msgspec.structs.replace(field, many=False), one) for one in given]
    if field.type in (str, int, float, bool) or not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given)
    except msgspec.DecodeError:
        return given
