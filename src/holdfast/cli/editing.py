"""``holdfast sessions`` that change items: put, delete, move, edit, run, undo, redo, restore, label."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from holdfast.cli.call import Call, ChangeId, Expected, Group, Rebase, SessionId, command, files
from holdfast.cli.operations import OperationCommand, parse, usage
from holdfast.cli.output import emit, moment, one_line, say, table
from holdfast.errors import InvalidChangeError
from holdfast.ports.kind import Draft
from holdfast.wire.changes import Step, make
from holdfast.wire.operations import explained

if TYPE_CHECKING:
    from holdfast.engine.editing import Committed

After = Annotated[str | None, typer.Option(metavar="KEY", help="Place it right after this item.")]
Before = Annotated[str | None, typer.Option(metavar="KEY", help="Place it right before this item.")]
Key = Annotated[str, typer.Argument(metavar="ITEM", help="The item's key: collection/name.")]


async def put(
    call: Call,
    session: SessionId,
    key: Key,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="The body as JSON; - is standard input.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change one field and keep the rest; may be given again."),
    ] = None,
    after: After = None,
    before: Before = None,
    expected: Expected = None,
    rebase: Rebase = False,
    change_id: ChangeId = None,
    group: Group = None,
) -> None:
    """Write one item: its body from a file, or fields with --set."""
    if (file is None) == (not set_):
        raise typer.BadParameter("give the body as a FILE (- for standard input), or single fields with --set.")
    fields = dict(_field(text) for text in set_ or ())
    body = None if file is None else _json(file)

    def change(draft: Draft) -> None:
        if file is not None:
            return draft.put(key, body, after=after, before=before)
        was = draft.body(key) if draft.get(key) is not None else {}
        if not isinstance(was, dict):
            raise InvalidChangeError("its body is no object, so that it has no fields to set", key)
        return draft.put(key, {**was, **fields}, after=after, before=before)

    await _edit(call, session, change, expected=expected, rebase=rebase, change_id=change_id, group=group)


async def delete(
    call: Call,
    session: SessionId,
    keys: Annotated[list[str], typer.Argument(metavar="ITEM...", help="Keys of the items.")],
    expected: Expected = None,
    rebase: Rebase = False,
    change_id: ChangeId = None,
    group: Group = None,
) -> None:
    """Delete items, all of them in one commit."""

    def change(draft: Draft) -> None:
        for key in keys:
            draft.delete(key)

    await _edit(call, session, change, expected=expected, rebase=rebase, change_id=change_id, group=group)


async def move(
    call: Call,
    session: SessionId,
    key: Key,
    after: After = None,
    before: Before = None,
    expected: Expected = None,
    rebase: Rebase = False,
    change_id: ChangeId = None,
    group: Group = None,
) -> None:
    """Move an item next to another, or to the end."""
    await _edit(
        call,
        session,
        lambda draft: draft.move(key, after=after, before=before),
        expected=expected,
        rebase=rebase,
        change_id=change_id,
        group=group,
    )


async def edit(
    call: Call,
    session: SessionId,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A JSON list of changes; - is standard input.")],
    expected: Expected = None,
    rebase: Rebase = False,
    change_id: ChangeId = None,
    group: Group = None,
) -> None:
    """Make many changes in one commit: all of them land, or none.

    The file holds a list of {"put": KEY, "body": BODY}, {"delete": KEY} and {"move": KEY}; put and move may say
    "after" or "before" and the key of another item.
    """
    try:
        steps = msgspec.convert(_json(file), list[Step])
    except msgspec.ValidationError as error:
        raise InvalidChangeError(f"{_named(file)} is no list of changes: {error}") from None

    await _edit(
        call,
        session,
        lambda draft: make(draft, steps),
        expected=expected,
        rebase=rebase,
        change_id=change_id,
        group=group,
    )


async def run(
    call: Call,
    session: SessionId,
    operation: Annotated[
        str | None,
        typer.Argument(metavar="OPERATION", help="Its name; without it, they are listed.", show_default=False),
    ] = None,
    expected: Expected = None,
    rebase: Rebase = False,
    change_id: ChangeId = None,
    group: Group = None,
) -> None:
    """Run an operation of the session's kind, such as split.

    `run SESSION` lists the operations, `run SESSION OPERATION --help` shows the arguments of one. An example:
    `run SESSION split --key chunks/0001 --at 120`. An argument that is a list is given as several words.
    """
    found = await call.session(session)
    header = await call.engine.header(found, call.who)
    kind = call.engine.kinds[header.kind]
    if operation is None or operation == "--help":
        if call.json:
            return emit({"kind": kind.name, "operations": [explained(declared) for declared in kind.operations]})
        say(f"{kind.name}: {kind.summary}", "")
        return table(
            ("operation", "arguments", "what it does"),
            [(declared.name, " ".join(usage(declared)), declared.summary) for declared in kind.operations],
            give=("what it does", "arguments"),
        )
    declared = kind.operation(operation)
    if call.json and any(word in ("-h", "--help") for word in call.rest):
        return emit(explained(declared))
    arguments = parse(declared, call.rest, session)
    free = declared.commutative and expected is None
    committed = await call.engine.operate(
        found,
        call.who,
        operation,
        arguments,
        expected=None if free else await call.version(found, expected, change_id),
        rebase=rebase,
        change_id=change_id,
        group=group,
    )
    return show_committed(call, committed, operation)


async def undo(
    call: Call,
    session: SessionId,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    expected: Expected = None,
    change_id: ChangeId = None,
) -> None:
    """Take back the last change, or all of its group.

    Undo is a new version; nothing is lost by it, and redo takes it back.
    """
    found = await call.session(session)
    if dry_run:
        return _show_preview(call, "undo", await call.engine.preview_undo(found, call.who))
    version = await call.version(found, expected, change_id)
    return show_committed(call, await call.engine.undo(found, call.who, expected=version, change_id=change_id), "undo")


async def redo(
    call: Call,
    session: SessionId,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    expected: Expected = None,
    change_id: ChangeId = None,
) -> None:
    """Do again what was undone last."""
    found = await call.session(session)
    if dry_run:
        return _show_preview(call, "redo", await call.engine.preview_redo(found, call.who))
    version = await call.version(found, expected, change_id)
    return show_committed(call, await call.engine.redo(found, call.who, expected=version, change_id=change_id), "redo")


async def restore(
    call: Call,
    session: SessionId,
    to: Annotated[str, typer.Argument(metavar="VERSION|LABEL", help="A version, such as 3 or v3, or a label.")],
    expected: Expected = None,
    change_id: ChangeId = None,
) -> None:
    """Bring every item back to an earlier version or a label.

    Restoring is a new version, which can be undone.
    """
    found = await call.session(session)
    names = {label.name for label in await call.engine.labels(found, call.who)}
    number = to.removeprefix("v")
    point: int | str = int(number) if to not in names and number.isascii() and number.isdigit() else to
    version = await call.version(found, expected, change_id)
    committed = await call.engine.restore(found, call.who, point, expected=version, change_id=change_id)
    return show_committed(call, committed, f"restore to {to}")


async def label(
    call: Call,
    session: SessionId,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The label; without it, they are listed.", show_default=False)
    ] = None,
    version: Annotated[
        int | None, typer.Option(metavar="VERSION", help="The version to name; the latest if not given.")
    ] = None,
) -> None:
    """Give a version a name to come back to, or list the names."""
    found = await call.session(session)
    if name is None:
        labels = await call.engine.labels(found, call.who)
        if call.json:
            return emit({"session": found, "labels": labels})
        if not labels:
            return say("No labels.")
        return table(
            ("label", "version", "by", "when"),
            [(given.name, f"v{given.version}", given.actor, moment(given.at)) for given in labels],
            right=("version",),
        )
    given = await call.engine.label(found, call.who, name, version=version)
    if call.json:
        return emit(given)
    return say(f"Version {given.version} is labelled {given.name!r}.")


def register(app: typer.Typer) -> None:
    """Put the commands into the sessions group."""
    for work in (put, delete, move, edit):
        command(app)(work)
    command(app, context={"allow_extra_args": True, "ignore_unknown_options": True}, cls=OperationCommand)(run)
    command(app)(undo)
    command(app)(redo)
    command(app)(restore)
    command(app)(label)


def show_committed(call: Call, committed: Committed, verb: str) -> None:
    """Say what a write did: the version it made, and what changed by it."""
    if call.json:
        return emit(committed)
    if not committed.changes:
        return say(f"Nothing to change: it stays at version {committed.version}.")
    changed = ", ".join(f"{key} {change}" for key, change in list(committed.changes.items())[:5])
    more = len(committed.changes) - 5
    tail = f" and {more} more" if more > 0 else ""
    again = " This change had landed before; nothing was done twice." if committed.replayed else ""
    return say(f"Version {committed.version}: {verb}, {one_line(changed, 400) or 'no item changed'}{tail}.{again}")


def _show_preview(call: Call, verb: str, differences: list[Any]) -> None:
    if call.json:
        return emit({"dry_run": True, "verb": verb, "differences": differences})
    from holdfast.cli.differences import show

    say(f"What {verb} would change (nothing was changed):")
    return show(differences)


async def _edit(
    call: Call,
    session: str,
    change: Callable[[Draft], None],
    *,
    expected: int | None,
    rebase: bool,
    change_id: str | None,
    group: str | None,
) -> None:
    found = await call.session(session)
    version = await call.version(found, expected, change_id)
    async with call.engine.edit(
        found, call.who, expected=version, rebase=rebase, change_id=change_id, group=group
    ) as draft:
        change(draft)
    show_committed(call, draft.result, "edit")


def _named(file: str) -> str:
    return "standard input" if file == "-" else file


def _json(file: str) -> Any:
    """The JSON in a file, or on standard input for ``-``."""
    with files():
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidChangeError(f"{_named(file)} is not JSON: {error}") from None


def _field(text: str) -> tuple[str, Any]:
    """``field=value``: the value as JSON where it reads as such, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not FIELD=VALUE.")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
