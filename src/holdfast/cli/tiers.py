"""``holdfast tiers``: what each tier holds, what is on its way between them, and sessions moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.call import Call, command
from holdfast.cli.coercion import Group
from holdfast.cli.exits import EXIT_CODES, exit_code
from holdfast.cli.output import (
    Progress,
    ago,
    clean,
    counted,
    emit,
    is_terminal,
    note,
    one_line,
    progress,
    say,
    sized,
    styled,
    table,
)
from holdfast.cli.sessions import SHORT
from holdfast.errors import HoldfastError, UnavailableError
from holdfast.model.session import Header, Status, Tier
from holdfast.wire.values import plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from holdfast.engine.tiering import Tiers

app = typer.Typer(cls=Group, no_args_is_help=True)

DOWN = EXIT_CODES[UnavailableError]
"""The exit code where a tier does not answer: the same as of an unavailable store."""

_EVERY = 1.0
"""Seconds between two looks of ``--watch``."""
_GLANCE = 0.3
_PAGE = 200
_AT_ONCE = 8
"""Sessions that are moved at a time."""

Sessions = Annotated[
    list[str] | None,
    typer.Argument(metavar="SESSION...", help="The sessions' ids, or their first 6 characters or more."),
]
Idle = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="In place of sessions: every draft and published one of the tenant that nobody has written to for so"
        " long, such as 12h or 30d.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --idle: only list them.")]
Move = Callable[[Header | None, str], Coroutine[Any, Any, Header]]


# -- looking -----------------------------------------------------------------------------------------------------------


async def status(
    call: Call,
    watch: Annotated[bool, typer.Option("--watch", help="Look anew every second, until Ctrl-C.")] = False,
) -> None:
    """Show what each tier holds and whether it answers.

    Also why one does not, what is on its way to the warm tier, and dead letters: writes that could not be copied
    there, with the reason. Exit 7 if a tier does not answer.
    """
    import asyncio

    if not watch:
        if not _show(call, *await _look(call)):
            raise typer.Exit(DOWN)
        return
    try:
        while True:
            found = await _look(call)
            if is_terminal(typer.get_text_stream("stdout")) and not call.json:
                print("\x1b[H\x1b[2J", end="")  # to the upper left corner of an empty screen
            _show(call, *found)
            print(end="", flush=True)
            await asyncio.sleep(_EVERY)
    except asyncio.CancelledError:
        return


async def _look(call: Call) -> tuple[Tiers, dict[str, str]]:
    import asyncio

    state, answers = await asyncio.gather(call.engine.tiers(call.admin), call.engine.health())
    return state, answers


def _show(call: Call, state: Tiers, answers: dict[str, str]) -> bool:
    """Print how the tiers are; whether all of them answer."""
    well = all(said == "ok" for said in answers.values())
    if call.json:
        emit({**plain(state), "answers": answers})
        return well
    warm = ("", "") if state.warm is None else (f"{state.warm.sessions:,}", sized(state.warm.bytes))
    hot = ("", "") if state.hot is None else (f"{state.hot.sessions:,}", sized(state.hot.bytes))
    cold = ("" if state.warm is None else f"{state.warm.archived:,}", "")
    rows = [("hot", *hot), ("warm", *warm)] if state.tiered else [("hot and warm", *warm)]
    table(
        ("tier", "sessions", "size", "answers"),
        [(*row, _answer(row[0], answers)) for row in (*rows, ("cold", *cold))],
        right=("sessions", "size"),
    )
    for tier, reason in state.troubles.items():
        say(styled(f"The {tier} tier does not answer: {clean(one_line(reason, 200))}.", "red"))
    if not state.tiered:
        say("Hot and warm are one store: nothing is ever on its way between them.")
        return well
    if state.flush is None:
        say("What is on its way to the warm tier is not known.")
    elif state.flush.entries:
        waiting = counted(state.flush.entries, "write")
        say(f"{waiting} on the way to the warm tier, the oldest for {state.flush.waited:.1f} s.")
    else:
        say("Nothing is on its way to the warm tier.")
    if state.buried:
        count = len(state.buried) if state.flush is None else state.flush.buried
        say("", styled(f"{counted(count, 'dead letter')}; `holdfast tiers flush --retry` tries again:", "red"))
        table(
            ("session", "step", "reason"),
            [(letter.session, str(letter.step), letter.reason) for letter in state.buried],
            right=("step",),
        )
    return well


def _answer(tier: str, answers: dict[str, str]) -> str:
    said = {answers.get(name, "") for name in tier.split(" and ")} - {"ok"}
    return "yes" if not said else f"no: {', '.join(sorted(said))}"


# -- moving ------------------------------------------------------------------------------------------------------------


async def flush(
    call: Call,
    retry: Annotated[bool, typer.Option("--retry", help="Try the dead letters again too.")] = False,
) -> None:
    """Copy to the warm tier, now, what it does not have yet.

    Of every tenant. Each process that is open does so by itself within a second.
    """
    with progress("flushing", None, quiet=call.json) as reached:
        async with _watched(call, reached):
            told = await call.engine.flush(call.admin, retry=retry)
    if call.json:
        return emit({"flushed": told.flushed, "recovered": told.recovered, "dead_letters": told.buried})
    if told.flushed or not told.recovered:  # else another process has done it
        say(f"{counted(told.flushed, 'write')} flushed." if told.flushed else "Nothing was flushed.")
    if told.recovered:
        say(f"{counted(told.recovered, 'dead letter')} recovered.")
    if told.buried:
        more = "`holdfast tiers status` says why" + ("." if retry else ", `holdfast tiers flush --retry` tries again.")
        note(f"{counted(told.buried, 'dead letter')} left: {more}")
    return None


@asynccontextmanager
async def _watched(call: Call, reached: Progress) -> AsyncIterator[None]:
    """Around a flush: show on a terminal how far the queue has come down."""
    import asyncio

    async def glance() -> None:
        most = 0
        while True:
            await asyncio.sleep(_GLANCE)
            backlog = (await call.engine.tiers(call.admin)).flush
            if backlog is not None:
                most = max(most, backlog.entries)
                reached(most - backlog.entries, most)

    if call.json or not is_terminal(typer.get_text_stream("stderr")):
        yield
        return
    glancing = asyncio.create_task(glance())
    try:
        yield
    finally:
        glancing.cancel()
        await asyncio.gather(glancing, return_exceptions=True)


async def suspend(call: Call, sessions: Sessions = None, idle: Idle = None, dry_run: DryRun = False) -> None:
    """Set sessions to rest in the warm tier, until somebody opens them."""

    async def move(seen: Header | None, session: str) -> Header:
        expected = None if seen is None else seen.version
        return await call.engine.suspend(session, call.admin, expected=expected)

    await _move(call, "suspended", move, sessions, idle, dry_run, {Tier.ACTIVE})


async def archive(call: Call, sessions: Sessions = None, idle: Idle = None, dry_run: DryRun = False) -> None:
    """Move sessions to the cold tier, until somebody opens them.

    Each is written whole and read back before the warm tier lets go of it.
    """

    async def move(seen: Header | None, session: str) -> Header:
        return await call.engine.archive(session, call.admin)

    await _move(call, "archived", move, sessions, idle, dry_run, {Tier.ACTIVE, Tier.DORMANT})


async def restore(
    call: Call,
    sessions: Annotated[
        list[str], typer.Argument(metavar="SESSION...", help="The sessions' ids, or their first 6 characters or more.")
    ],
) -> None:
    """Bring sessions back to the hot tier, before somebody waits."""

    async def move(seen: Header | None, session: str) -> Header:
        return await call.engine.rehydrate(session, call.admin)

    await _move(call, "restored", move, sessions, None, False, set())


async def _move(
    call: Call, done: str, move: Move, given: list[str] | None, idle: str | None, dry_run: bool, tiers: set[Tier]
) -> None:
    """Move sessions, several at a time, and say what came of it.

    Args:
        done: what they are then, in one word.
        tiers: where those are that ``--idle`` means.
    """
    import asyncio

    if bool(given) == (idle is not None):
        raise typer.BadParameter("name sessions, or say --idle TIME." if tiers else "name sessions.")
    if dry_run and idle is None:
        raise typer.BadParameter("--dry-run goes with --idle.")
    wanted: list[tuple[str, Header | None]]
    if idle is None:
        wanted = [(await call.session(name), None) for name in given or ()]
    else:
        headers = await _idle(call, _seconds(idle), tiers)
        if dry_run:
            return _list(call, headers)
        wanted = [(header.id, header) for header in headers]
    moved: list[Header] = []
    failed: list[tuple[str, HoldfastError]] = []

    async def one(session: str, seen: Header | None) -> Header | HoldfastError:
        try:
            return await move(seen, session)
        except HoldfastError as error:
            return error

    with progress(done, len(wanted), quiet=call.json or len(wanted) == 1) as reached:
        for at in range(0, len(wanted), _AT_ONCE):
            some = wanted[at : at + _AT_ONCE]
            for (session, _), came in zip(some, await asyncio.gather(*(one(*each) for each in some)), strict=True):
                if isinstance(came, Header):
                    moved.append(came)
                else:
                    failed.append((session, came))
            reached(min(at + _AT_ONCE, len(wanted)))
            if any(isinstance(error, UnavailableError) for _, error in failed):
                break  # the others would fare no better
    if failed and len(wanted) == 1 and idle is None:
        raise failed[0][1]
    _told(call, done, moved, failed, len(wanted), briefly=idle is not None)
    return None


def _told(
    call: Call, done: str, moved: list[Header], failed: list[tuple[str, HoldfastError]], asked: int, *, briefly: bool
) -> None:
    """Say what was moved and what was not; the exit code is that of the first that was not."""
    if call.json:
        told = [{"session": session, "code": error.code, "message": str(error)} for session, error in failed]
        emit({done: [header.id for header in moved], "failed": told, "left": asked - len(moved) - len(failed)})
    else:
        if briefly:
            say(f"{counted(len(moved), 'session')} {done}.")
        for header in () if briefly else moved:
            say(f"{clean(one_line(header.title, 40)) or 'The session'} ({header.id[:SHORT]}) is {done}.")
        for session, error in failed:
            note(f"{session} is not {done}: {clean(one_line(str(error), 200))}")
        if left := asked - len(moved) - len(failed):
            note(f"{counted(left, 'session')} left as they are.")
    if failed:
        raise typer.Exit(exit_code(failed[0][1]))


async def _idle(call: Call, seconds: float, tiers: set[Tier]) -> list[Header]:
    """The sessions of the tenant that rest nowhere yet and that nobody has written to for so long."""
    before, found = datetime.now(UTC) - timedelta(seconds=seconds), list[Header]()
    cursor: str | None = None
    while True:
        page = await call.engine.find(call.admin, after=cursor, limit=_PAGE)
        found += [
            header
            for header in page.headers
            if header.status in (Status.DRAFT, Status.PUBLISHED)
            and header.tier in tiers
            and header.publication is None
            and header.updated <= before
        ]
        cursor = page.cursor
        if cursor is None:
            return found


def _list(call: Call, headers: Sequence[Header]) -> None:
    if call.json:
        return emit({"sessions": [header.id for header in headers]})
    if not headers:
        return say("No session has been idle for so long.")
    now = datetime.now(UTC)
    return table(
        ("session", "owner", "status", "tier", "title", "changed"),
        [
            (header.id, header.owner, header.status, header.tier, one_line(header.title, 40), ago(header.updated, now))
            for header in headers
        ],
        give=("title",),
    )


def _seconds(text: str) -> float:
    from holdfast.settings.sorts import SORTS

    read, meant = SORTS["time"]
    try:
        return float(read(text, Path()))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not {meant}.") from None


def register(root: typer.Typer) -> None:
    """Put the group in place."""
    for work in (status, flush, suspend, archive, restore):
        command(app)(work)
    root.add_typer(app, name="tiers", help="See what each tier holds, and move sessions between them.")
