"""``holdfast audit``: who did what, when, to which version, and with what outcome."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.call import Call, command
from holdfast.cli.output import emit, moment, note, say, table
from holdfast.cli.sessions import SHORT

_ALL = 100_000


async def audit(
    call: Call,
    session: Annotated[str | None, typer.Option(metavar="SESSION", help="Only what concerns this session.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="How many of the latest lines.")] = 100,
) -> None:
    """Show who did what, refused verbs too.

    Without --session, that of the whole tenant, as its admin.
    """
    found = None if session is None else await call.session(session)
    who = call.who if found else call.admin
    lines = (await call.engine.audit(who, session_id=found, limit=_ALL))[-max(limit, 1) :]
    if call.json:
        return emit({"lines": lines})
    if not lines:
        return say("No audit lines.")
    table(
        ("when", "who", "verb", "session", "version", "outcome", "times"),
        [
            (
                moment(line.at),
                line.actor,
                line.verb,
                line.session[:SHORT],
                f"v{line.version}" if line.version else "",
                line.outcome,
                str(line.count),
            )
            for line in lines
        ],
        right=("version", "times"),
    )
    return note(f"There may be older lines: --limit {limit * 10}") if len(lines) == limit else None


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app)(audit)
