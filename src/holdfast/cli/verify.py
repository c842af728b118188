"""``holdfast verify``: does what is stored still add up?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.call import Call, command
from holdfast.cli.exits import EXIT_CODES
from holdfast.cli.output import clean, counted, emit, note, progress, say, styled
from holdfast.errors import UnavailableError

if TYPE_CHECKING:
    from holdfast.engine.verification import Verified

DIFFERENCES = 8
"""The exit code where something does not add up: the same as of an integrity error."""

UNSEEN = EXIT_CODES[UnavailableError]
"""The exit code where some could not be looked at, and the rest adds up: the same as of an unavailable store."""


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
    chains. Exit 8 on any difference that is left; 7 if there is none and some could not be looked at, because what
    holds it did not answer.
    """
    one = None if session is None else await call.session(session)
    sessions = 0
    bad: list[Verified] = []
    unseen: list[Verified] = []
    repaired: list[Verified] = []
    entries = items = blobs = 0
    with progress("verifying", None, quiet=call.json) as reached:
        async for verified in call.engine.verify(call.admin, one, repair=repair):
            sessions += bool(verified.session)
            entries += verified.entries
            items += verified.items
            blobs += verified.blobs
            if not verified.ok:
                (bad if verified.differs else unseen).append(verified)
            if verified.repaired:
                repaired.append(verified)
            reached(sessions)
    if call.json:
        emit(
            {
                "ok": not bad and not unseen,
                "sessions": sessions,
                "entries": entries,
                "items": items,
                "blobs": blobs,
                "differences": bad,
                "unavailable": unseen,
                "repaired": {verified.session: verified.repaired for verified in repaired},
            }
        )
    else:
        for verified in repaired:
            say(styled(f"{verified.session} is repaired", "yellow", "bold"))
            say(*(f"  {clean(done)}" for done in verified.repaired))
        if repair and not repaired:
            say("Nothing was to be repaired.")
        for verified in (*bad, *unseen):
            colour = "red" if verified.differs else "yellow"
            say(styled(verified.session or f"audit chain {verified.chain}", colour, "bold"))
            say(*(f"  {problem.code}: {clean(problem.what)}" for problem in verified.problems))
        found = [styled(f"{len(bad)} {'does' if len(bad) == 1 else 'do'} not add up", "red")] if bad else []
        found += [styled(f"{len(unseen)} could not be looked at whole just now", "yellow")] if unseen else []
        well = ", ".join(found or [styled("all of it adds up", "green")])
        extent = (
            counted(sessions, "session"),
            counted(entries, "log entry", "log entries"),
            counted(items, "item"),
            counted(blobs, "blob"),
        )
        say(f"{', '.join(extent)}: {well}.")
        if not sessions:
            note(f"Tenant {(await call.me()).tenant!r} has no sessions here; --tenant names another.")
    if bad or unseen:
        raise typer.Exit(DIFFERENCES if bad else UNSEEN)


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app)(verify)
