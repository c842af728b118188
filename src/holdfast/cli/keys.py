"""``holdfast keys``: the keys that wrap the sessions' keys."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.call import Call, command
from holdfast.cli.coercion import Group
from holdfast.cli.output import counted, emit, note, progress, say, table

app = typer.Typer(cls=Group, no_args_is_help=True)

FAILED = 8
"""The exit code where a session's key could not be read: the same as of an integrity error."""


async def list_(call: Call) -> None:
    """List the ids of the keys; the keys themselves are never shown."""
    ring = await call.engine.keys(call.admin)
    if call.json:
        return emit(ring)
    return table(
        ("key", "state"),
        [(key_id, "active: wraps and unwraps" if key_id == ring.active else "unwraps") for key_id in ring.ids],
    )


async def rotate(
    call: Call,
    drop: Annotated[
        bool, typer.Option("--drop", help="Forget the older keys, once nothing is wrapped under them.")
    ] = False,
) -> None:
    """Make a new key and wrap every session's key under it.

    Sessions go on being used meanwhile. The older keys stay in the ring, unless they are to be dropped.
    """
    with progress("wrapping", None, quiet=call.json) as reached:
        rotated = await call.engine.rotate_keys(call.admin, lambda done: reached(done), drop=drop)
    if call.json:
        emit(rotated)
    else:
        say(f"Key {rotated.key_id} is active; {counted(rotated.sessions, 'session')} wrapped under it.")
        if rotated.dropped:
            say(f"Forgotten: {', '.join(rotated.dropped)}.")
        for name in rotated.failed:
            note(f"{name} could not be wrapped anew: its key cannot be read. The older keys are kept.")
    if rotated.failed:
        raise typer.Exit(FAILED)


def register(root: typer.Typer) -> None:
    """Put the group in place."""
    command(app, "list")(list_)
    command(app)(rotate)
    root.add_typer(app, name="keys", help="List and rotate the keys that seal what is stored.")
