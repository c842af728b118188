"""``holdfast verify``: does what is stored still add up?"""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.call import Call, command
from holdfast.cli.output import clean, counted, emit, note, progress, say, styled

DIFFERENCES = 8
"""The exit code where something does not add up: the same as of an integrity error."""


async def verify(
    call: Call,
    session: Annotated[
        str | None,
        typer.Argument(metavar="SESSION", help="Only this one; all of them if not given.", show_default=False),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Where the hot and the warm tier differ, keep the newer side. Where each has what the other has not,"
            " keep both: the hot tier's becomes a session of its own.",
        ),
    ] = False,
) -> None:
    """Check that what is stored still adds up.

    Compares the tiers, and checks chains, digests, keys and blobs of every session of the tenant, and the audit
    chains. Exit 8 on any difference that is left.
    """
    found = None if session is None else await call.session(session)
    sessions, bad, repaired = 0, [], []
    entries = items = blobs = 0
    with progress("verifying", None, quiet=call.json) as reached:
        async for verified in call.engine.verify(call.admin, found, repair=repair):
            sessions += bool(verified.session)
            entries += verified.entries
            items += verified.items
            blobs += verified.blobs
            if not verified.ok:
                bad.append(verified)
            if verified.repaired:
                repaired.append(verified)
            reached(sessions)
    if call.json:
        emit(
            {
                "ok": not bad,
                "sessions": sessions,
                "entries": entries,
                "items": items,
                "blobs": blobs,
                "differences": bad,
                "repaired": {verified.session: verified.repaired for verified in repaired},
            }
        )
    else:
        for verified in repaired:
            say(styled(f"{verified.session} is repaired", "yellow", "bold"))
            say(*(f"  {clean(done)}" for done in verified.repaired))
        if repair and not repaired:
            say("Nothing was to be repaired.")
        for verified in bad:
            say(styled(verified.session or f"audit chain {verified.chain}", "red", "bold"))
            say(*(f"  {problem.code}: {clean(problem.what)}" for problem in verified.problems))
        found_well = styled("all of it adds up", "green") if not bad else styled(f"{len(bad)} do not add up", "red")
        extent = (
            counted(sessions, "session"),
            counted(entries, "log entry", "log entries"),
            counted(items, "item"),
            counted(blobs, "blob"),
        )
        say(f"{', '.join(extent)}: {found_well}.")
        if not sessions:
            note(f"Tenant {(await call.me()).tenant!r} has no sessions here; --tenant names another.")
    if bad:
        raise typer.Exit(DIFFERENCES)


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app)(verify)
