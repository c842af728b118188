"""``holdfast sweep``: expiry, run by hand or by a timer."""

from __future__ import annotations

import typer

from holdfast.cli.call import Call, command
from holdfast.cli.output import emit, note, say


async def sweep(call: Call) -> None:
    """Do what time has made due.

    Warns, expires, gives up lapsed locks, purges what is past its grace, finishes what a crash left undone, and sets
    to rest what nobody has written to for long.
    """
    swept = await call.engine.sweep(call.admin)
    if call.json:
        return emit(swept)
    verbs = ("warned", "expired", "unlocked", "purged", "recovered", "rested")
    done = [f"{getattr(swept, verb):,} {verb}" for verb in verbs if getattr(swept, verb)]
    say(f"Sessions: {', '.join(done)}." if done else "Nothing was due.")
    for session, code in swept.failed.items():
        note(f"Session {session} could not be looked at: {code}.")
    return None


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app)(sweep)
