"""``holdfast sessions`` that take a session through its life: lock, publish, roll back, discard, keep, share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.call import Call, ChangeId, SessionId, command
from holdfast.cli.differences import show as show_differences
from holdfast.cli.differences import summary
from holdfast.cli.output import clean, counted, emit, facts, moment, one_line, progress, say, styled
from holdfast.cli.sessions import SHORT, described, expiry, short
from holdfast.errors import LockHeldError, SealMismatchError
from holdfast.model.access import Role
from holdfast.model.session import Header, Status

if TYPE_CHECKING:
    from holdfast.engine.publishing import Preview
    from holdfast.ports.sink import Receipt

Minutes = Annotated[float | None, typer.Option(metavar="N", help="How long the lock holds; else as set.")]


async def lock(
    call: Call,
    session: SessionId,
    minutes: Minutes = None,
    full: Annotated[
        bool, typer.Option("--full", help="Show every difference, and whole, not only the first 12.")
    ] = False,
) -> None:
    """Preview a publication, and lock the draft for it.

    Shows what publishing would do: what changes for readers, at what cost, and the seal to publish under.
    """
    found = await call.session(session)
    show_preview(
        call,
        await call.engine.preview(found, call.who, seconds=_seconds(minutes)),
        most=None if full else 12,
        full=full,
    )


async def take_over(call: Call, session: SessionId, minutes: Minutes = None) -> None:
    """Take somebody's lock over.

    The state they left is labelled first, so that it can be restored.
    """
    found = await call.session(session)
    show_preview(call, await call.engine.take_over(found, call.who, seconds=_seconds(minutes)), most=12)


async def unlock(call: Call, session: SessionId) -> None:
    """Give a lock back: the session is a draft again."""
    found = await call.session(session)
    _done(call, await call.engine.unlock(found, call.who), "is a draft again")


async def publish(
    call: Call,
    session: SessionId,
    seal: Annotated[
        str | None,
        typer.Option(metavar="SEAL", help="The seal that the preview showed; without it, that of a lock of your own."),
    ] = None,
) -> None:
    """Publish what was previewed, in one step.

    Readers see the old revision until then, and the new one after. Asked again, it finishes what was interrupted, or
    gives the same receipt.
    """
    found = await call.session(session)
    seal = seal or await _seal(call, found)
    with progress("publishing", None, quiet=call.json) as reached:
        receipt = await call.engine.publish(
            found, call.who, seal=seal, progress=lambda step, done, total: reached(done, total, step)
        )
    if call.json:
        return emit(receipt)
    say(styled(f"Published version {receipt.version}: {counted(receipt.manifest.count, 'record')} live.", "green"))
    return _show_receipt(receipt)


async def rollback(call: Call, session: SessionId) -> None:
    """Withdraw a publication: what was live before is again."""
    receipt = await call.engine.rollback(await call.session(session), call.who)
    if call.json:
        return emit(receipt)
    say(f"Rolled back. Live is now {short(receipt.revision)}; it was {short(receipt.rolls_back)}.")
    return _show_receipt(receipt)


async def reopen(call: Call, session: SessionId, change_id: ChangeId = None) -> None:
    """Edit again: a new draft from what was published."""
    opened = await call.engine.reopen(await call.session(session), call.who, change_id=change_id)
    if call.json:
        return emit(described(opened.header))
    return say(f"A new draft: {opened.header.id}  ({counted(opened.header.count, 'item')})")


async def discard(call: Call, session: SessionId) -> None:
    """Throw a session away; it can be revived for a while."""
    header = await call.engine.discard(await call.session(session), call.who)
    kept = header.restorable_until
    back = f"`holdfast sessions revive {header.id[:SHORT]}` brings it back until {moment(kept)}" if kept else "for good"
    _done(call, header, f"is discarded; {back}")


async def revive(call: Call, session: SessionId) -> None:
    """Bring back a discarded or expired session."""
    _done(call, await call.engine.revive(await call.session(session), call.who), "is a draft again")


async def extend(
    call: Call,
    session: SessionId,
    hours: Annotated[float | None, typer.Option(metavar="N", help="Keep it this long from now.")] = None,
    permanent: Annotated[bool, typer.Option("--permanent", help="Keep it until it is published or discarded.")] = False,
) -> None:
    """Keep a session longer."""
    if permanent == (hours is not None):
        raise typer.BadParameter("say either --hours N or --permanent.")
    found = await call.session(session)
    header = await call.engine.extend(found, call.who, seconds=None if hours is None else hours * 3600)
    _done(call, header, _kept(header))


async def touch(call: Call, session: SessionId) -> None:
    """Start the time of a session anew without changing it."""
    header = await call.engine.touch(await call.session(session), call.who)
    _done(call, header, _kept(header))


async def rename(
    call: Call, session: SessionId, title: Annotated[str, typer.Argument(metavar="TITLE", help="The new title.")]
) -> None:
    """Give a session another title."""
    header = await call.engine.rename(await call.session(session), call.who, title)
    _done(call, header, f"is called {one_line(header.title)!r}")


async def grant(
    call: Call,
    session: SessionId,
    principal: Annotated[str, typer.Argument(metavar="NAME", help="Whom to share it with.")],
    role: Annotated[str, typer.Argument(metavar="ROLE", help="editor, participant, viewer, or none to take it back.")],
) -> None:
    """Share a session with somebody, or take that back."""
    roles = [known.value for known in Role if known is not Role.OWNER]
    if role != "none" and role not in roles:
        raise typer.BadParameter(f"{role!r} is no role to grant; there are: {', '.join(roles)}, none.")
    found = await call.session(session)
    header = await call.engine.grant(found, call.who, principal, None if role == "none" else Role(role))
    _done(
        call,
        header,
        f"is no longer shared with {principal}" if role == "none" else f"is shared with {principal} as {role}",
    )


def register(app: typer.Typer) -> None:
    """Put the commands into the sessions group."""
    command(app)(lock)
    command(app, "take-over")(take_over)
    for work in (unlock, publish, rollback, reopen, discard, revive, extend, touch, rename, grant):
        command(app)(work)


def show_preview(call: Call, preview: Preview, *, most: int | None, full: bool = False) -> None:
    """Say what publishing would do: what, where, at what cost, whether the checks pass, and under which seal."""
    if call.json:
        return emit(preview)
    show_differences(preview.differences, most=most, full=full)
    say("")
    forecast = preview.forecast
    facts(
        (
            ("publishes to", preview.target),
            ("live now", f"revision {short(preview.live.revision)}" if preview.live else "nothing"),
            ("changes", f"{summary(preview.counts)}, {preview.counts.get('unchanged', 0):,} unchanged"),
            (
                "cost",
                f"{counted(forecast.records, 'record')}, {forecast.new:,} of them new; {forecast.embeds:,} to embed,"
                f" about {forecast.tokens:,} tokens",
            ),
            ("checks", "; ".join(preview.checks)),
            ("locked", f"by {preview.lock.owner} until {moment(preview.lock.until)}"),
            ("seal", preview.seal),
        )
    )
    short_id = preview.session[:SHORT]
    say(
        "",
        "Live readers see the old revision until the switch.",
        f"Next: `holdfast sessions publish {short_id}`, or `holdfast sessions unlock {short_id}` to edit on.",
    )
    return None


def _seconds(minutes: float | None) -> float | None:
    return None if minutes is None else minutes * 60


async def _seal(call: Call, session: str) -> str:
    """The seal to publish under where none was named: of one's own lock, or of what was published already."""
    header = await call.engine.header(session, call.who)
    if header.lock is not None and header.status_at(datetime.now(UTC)) is Status.LOCKED:
        if header.lock.owner != (await call.me()).id:
            raise LockHeldError(header.lock.owner, header.lock.until)
        return header.lock.seal
    if header.status is Status.PUBLISHED:
        for receipt in await call.engine.receipts(session, call.who):
            if receipt.rolls_back is None:
                return receipt.seal
    raise SealMismatchError(session)


def _show_receipt(receipt: Receipt) -> None:
    facts(
        (
            ("target", receipt.target),
            ("revision", short(receipt.revision)),
            ("before it", short(receipt.previous)),
            ("verified", f"{counted(receipt.manifest.count, 'record')}, {receipt.manifest.digest[:16]}"),
            ("at", moment(receipt.at)),
        )
    )


def _kept(header: Header) -> str:
    kept = expiry(header, datetime.now(UTC))
    return "is kept until it is published or discarded" if kept == "never" else f"is set aside {kept}"


def _done(call: Call, header: Header, effect: str) -> None:
    if call.json:
        emit(described(header))
    else:
        say(f"{clean(one_line(header.title, 40)) or 'The session'} ({header.id[:SHORT]}) {clean(effect)}.")
