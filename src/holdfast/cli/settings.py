"""``holdfast settings``: what is in force, with what is secret masked."""

from __future__ import annotations

import typer

from holdfast.cli.call import Call, command
from holdfast.cli.output import emit, facts


async def settings(call: Call) -> None:
    """Show the settings in force; secrets are masked."""
    shown = call.settings().masked()
    if call.json:
        return emit(shown)
    return facts([(name, "not set" if value in (None, {}) else str(value)) for name, value in shown.items()])


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app, engine=False)(settings)
