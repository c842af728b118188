"""Typed arguments without the half of the start-up time that typer spends on them.

To turn ``"3"`` into 3, typer 0.29 loads pydantic, which takes longer than everything else a short command does. Our
arguments are words, numbers, flags, paths and lists of words, so that plain calls do. Where a later typer no longer
asks the attribute set here, it converts by itself, as before, only slower.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_CONVERSIONS: dict[Any, Callable[[Any], Any]] = {
    bool: bool,
    str: str,
    int: int,
    float: float,
    Path: Path,
    list[str]: lambda values: [str(value) for value in values],
}
_NAMES = {int: "a whole number", float: "a number"}


class _Plain:
    """Stands in for typer's own conversion of one parameter."""

    def __init__(self, annotation: Any) -> None:
        self._convert = _CONVERSIONS[annotation]
        self._name = _NAMES.get(annotation, "a value for it")

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        try:
            return self._convert(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not {self._name}.", ctx, param) from None


def _plainly(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if parameter._runtime_param is None:
            parameter._runtime_param = _Plain(parameter.type_descriptor.annotation)
    return parameters


class Command(TyperCommand):
    """A command whose arguments are converted plainly."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plainly(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands, with options that are converted plainly."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plainly(super().get_params(ctx))
