"""``holdfast sessions``: find sessions and read them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.call import Call, SessionId, command, files
from holdfast.cli.coercion import Group
from holdfast.cli.output import (
    ago,
    as_json,
    clean,
    counted,
    emit,
    facts,
    moment,
    note,
    one_line,
    say,
    sized,
    styled,
    table,
)
from holdfast.errors import ItemNotFoundError
from holdfast.model.entry import Entry
from holdfast.model.session import Header, Status, Tier

app = typer.Typer(cls=Group, no_args_is_help=True)

SHORT = 12
"""Characters of an id shown in tables: enough to copy into the next command."""

_COLOURS = {"draft": "yellow", "locked": "cyan", "published": "green", "discarded": "dim", "expired": "dim"}


async def list_(
    call: Call,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only sessions of this kind.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only draft, locked, published, discarded or expired ones.")
    ] = None,
    owner: Annotated[str | None, typer.Option(metavar="NAME", help="Only sessions of this owner.")] = None,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Only sessions with this in their title.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's in the tenant, as its admin.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", help="How many at most.")] = 50,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on after an earlier page.")] = None,
) -> None:
    """List the sessions you may see, newest first."""
    who = call.admin if everybody else call.who
    if status is not None and status not in list(Status):
        raise typer.BadParameter(f"{status!r} is no status; there are: {', '.join(Status)}.")
    page = await call.engine.find(
        who, kind=kind, status=Status(status) if status else None, owner=owner, text=text, after=after, limit=limit
    )
    if call.json:
        listed = [described(header) for header in page.headers]
        return emit({"sessions": listed, "cursor": page.cursor, "unreadable": page.unreadable, "stale": page.stale})
    if page.stale:
        note("The hot tier does not answer: this is what the warm tier has; there may be newer states and sessions.")
    if page.unreadable:
        number = counted(len(page.unreadable), "session")
        note(f"{number} of yours cannot be read: {', '.join(page.unreadable[:4])}; run `holdfast verify`.")
    if not page.headers and not page.unreadable:
        return say(
            "No sessions. `holdfast ingest FILE` makes one of a document; `holdfast demo` shows what one can do."
        )
    now = datetime.now(UTC)
    table(
        ("session", "kind", "owner", "status", "version", "items", "title", "changed", "expires"),
        [
            (
                header.id[:SHORT],
                header.kind,
                header.owner,
                status_word(header, now),
                str(header.version),
                str(header.count),
                one_line(header.title, 40),
                ago(header.updated, now),
                expiry(header, now),
            )
            for header in page.headers
        ],
        right=("version", "items"),
        give=("title",),
    )
    if page.cursor:
        note(f"There are more: add --after {page.cursor}")
    return None


async def show(
    call: Call,
    session: SessionId,
    key: Annotated[str | None, typer.Argument(metavar="ITEM", help="Show one item whole.", show_default=False)] = None,
    version: Annotated[int | None, typer.Option(metavar="VERSION", help="As it stood at this version.")] = None,
) -> None:
    """Show a session and its items, or one item whole."""
    seen = await call.engine.read(await call.session(session), call.who, version=version)
    if key is not None:
        item = seen.get(key)
        if item is None:
            raise ItemNotFoundError(key)
        if call.json:
            return emit({"key": item.key, "version": item.version, "position": item.position, "body": item.body})
        return say(*_whole(item.body))
    items = [
        {"key": item.key, "version": item.version, "position": item.position, "body": item.body} for item in seen.items
    ]
    if call.json:
        return emit({**described(seen.header), "items": items})
    now = datetime.now(UTC)
    show_header(seen.header, now)
    if items:
        say("")
        table(
            ("item", "version", "size", "body"),
            [(item.key, str(item.version), sized(len(item.raw)), gist(item.body)) for item in seen.items],
            right=("version", "size"),
            give=("item", "body"),
        )
    hint = next_step(seen.header, now)
    if hint and version is None:
        say("", f"Next: {hint}")
    return None


async def history(
    call: Call,
    session: SessionId,
    limit: Annotated[int, typer.Option(metavar="N", help="How many entries at most.")] = 50,
    before: Annotated[int | None, typer.Option(metavar="STEP", help="Only what lies before this step.")] = None,
) -> None:
    """Show what was done, by whom and when, newest first."""
    found = await call.session(session)
    entries: list[Entry] = []
    while len(entries) < max(1, limit) and (not entries or entries[-1].step > 1):  # large entries come a few at a time
        page = await call.engine.history(found, call.who, before=before, limit=limit - len(entries))
        if not page:
            break
        entries += page
        before = page[-1].step
    if call.json:
        return emit({"session": found, "entries": [described_entry(entry) for entry in entries]})
    labels: dict[int, list[str]] = {}
    for label in await call.engine.labels(found, call.who):
        labels.setdefault(label.version, []).append(label.name)
    from holdfast.cli.differences import signed

    table(
        ("version", "step", "what", "changed", "items", "who", "when", "label"),
        [
            (
                f"v{entry.version}" if entry.commit else "",
                str(entry.step),
                what(entry),
                signed([change.verb for change in entry.changes]),
                one_line(", ".join(change.key for change in entry.changes), 44),
                entry.header.actor,
                moment(entry.header.at),
                ", ".join(labels.get(entry.version, ())) if entry.commit else "",
            )
            for entry in entries
        ],
        right=("version", "step"),
        give=("items", "what"),
    )
    if entries and entries[-1].step > 1:
        note(f"There is more: add --before {entries[-1].step}")
    return None


async def diff(
    call: Call,
    session: SessionId,
    a: Annotated[int | None, typer.Argument(metavar="FROM", help="A version.", show_default=False)] = None,
    b: Annotated[
        int | None, typer.Argument(metavar="TO", help="Another; the latest if not given.", show_default=False)
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Show long runs of text whole.")] = False,
) -> None:
    """Compare two versions; the last change if none is named.

    In a text, [-words-] are gone and {+words+} are new.
    """
    found = await call.session(session)
    if a is None or b is None:
        head = (await call.engine.header(found, call.who)).version
        a, b = (max(head - 1, 0), head) if a is None else (a, head)
    differences = await call.engine.diff(found, call.who, a, b)
    if call.json:
        return emit({"session": found, "from": a, "to": b, "differences": differences})
    from holdfast.cli.differences import show as show_differences

    say(styled(f"From version {a} to version {b}:", "bold"))
    return show_differences(differences, full=full)


async def receipts(call: Call, session: SessionId) -> None:
    """Show what was published, and what was rolled back."""
    found = await call.session(session)
    kept = await call.engine.receipts(found, call.who)
    if call.json:
        return emit({"session": found, "receipts": kept})
    if not kept:
        return say("Never published. `holdfast sessions lock SESSION` previews a publication.")
    return table(
        ("what", "target", "revision", "before it", "records", "by", "when"),
        [
            (
                "rollback" if receipt.rolls_back else "publication",
                receipt.target,
                short(receipt.revision),
                short(receipt.rolls_back or receipt.previous),
                str(receipt.manifest.count),
                receipt.actor,
                moment(receipt.at),
            )
            for receipt in kept
        ],
        right=("records",),
        give=("target",),
    )


async def export(
    call: Call,
    session: SessionId,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Where to; standard output if not given.")] = None,
) -> None:
    """Write a whole session as one JSON document.

    It holds the header, items, history, labels and receipts.
    """
    found = await call.session(session)
    exported = await call.engine.export(found, call.who)
    if file is None or str(file) == "-":
        return emit(exported)
    text = as_json(exported, indent=True)
    with files():
        file.write_text(text + "\n", encoding="utf-8")
    if call.json:
        return emit({"session": found, "file": str(file), "bytes": len(text.encode())})
    return say(f"Session {found[:SHORT]} is in {file} ({sized(len(text.encode()))}).")


def register(root: typer.Typer) -> None:
    """Put the group and its reading commands in place."""
    command(app, "list")(list_)
    for work in (show, history, diff, receipts, export):
        command(app)(work)
    root.add_typer(app, name="sessions", help="Find, read, edit and publish sessions.")


# -- a header and an entry, said ---------------------------------------------------------------------------------------


def described(header: Header) -> dict[str, Any]:
    """A header for programs, without what only the engine has a use for."""
    hidden = {"root", "sealed", "schema", "blobs", "warned", "expiring_since"}
    return {name: getattr(header, name) for name in header.__struct_fields__ if name not in hidden}


def described_entry(entry: Entry) -> dict[str, Any]:
    """An entry of the log for programs."""
    said = entry.header
    return {
        "step": entry.step,
        "version": entry.version,
        "commit": entry.commit,
        "operation": said.operation,
        "actor": said.actor,
        "at": said.at,
        "change": said.change,
        "group": said.group,
        "digest": entry.digest,
        "changes": {change.key: change.verb for change in entry.changes},
        "detail": entry.payload.detail,
    }


def what(entry: Entry) -> str:
    """What an entry did, in a few words: ``label 'good', version 3``."""
    verb, said = entry.header.operation, []
    for name, value in entry.payload.detail.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            shown = repr(one_line(value, 24)) if isinstance(value, str) else f"{value:,}"
            said.append(shown if name == verb else f"{name.replace('_', ' ')} {shown}")
    return f"{verb} {', '.join(said[:2])}".strip()


def status_word(header: Header, now: datetime) -> str:
    """The status as a badge."""
    status = header.status_at(now)
    if status is Status.LOCKED and header.publication is not None:
        return "publishing"
    if status is Status.LOCKED and header.failure:
        return "failed"
    return status.value


def expiry(header: Header, now: datetime) -> str:
    """When a session is set aside: ``in 23 h``, ``never``; empty where that is past."""
    if header.status_at(now) not in (Status.DRAFT, Status.LOCKED):
        return ""
    return "never" if header.expires is None else ago(header.expires, now)


def show_header(header: Header, now: datetime) -> None:
    """Everything a person wants to know of a session but its items."""
    word = status_word(header, now)
    say(f"{styled(clean(header.title) or '(no title)', 'bold')}  {styled(word, _COLOURS.get(word, 'red'))}")
    lock = header.lock if header.status_at(now) is Status.LOCKED else None
    grants = ", ".join(f"{name} ({role})" for name, role in sorted(header.grants.items()))
    expires = (
        f"{moment(header.expires)} ({expiry(header, now)})"
        if header.expires and expiry(header, now)
        else expiry(header, now)
    )
    facts(
        (
            ("session", header.id),
            ("kind", header.kind),
            ("owner", header.owner),
            ("shared with", grants),
            ("version", f"{header.version} ({counted(header.count, 'item')}, {sized(header.size)})"),
            ("created", f"{moment(header.created)} ({ago(header.created, now)})"),
            ("changed", f"{moment(header.updated)} ({ago(header.updated, now)})"),
            ("expires", expires),
            ("tier", "" if header.tier is Tier.ACTIVE else header.tier.value),
            ("stale", "the hot tier does not answer: there may be a newer state" if header.stale else ""),
            ("locked", f"by {lock.owner} until {moment(lock.until)}" if lock else ""),
            ("failure", f"{header.failure}; nothing changed for readers" if header.failure else ""),
            ("publishes to", "" if header.target == f"{header.tenant}/{header.id}" else header.target),
            ("edited from", header.parent or ""),
        )
    )


def next_step(header: Header, now: datetime) -> str:
    """The command that takes a session on from where it stands."""
    short_id, status = header.id[:SHORT], header.status_at(now)
    if status is Status.DRAFT:
        return f"`holdfast sessions lock {short_id}` previews and locks it for publication."
    if status is Status.LOCKED:
        return f"`holdfast sessions publish {short_id}`, or `holdfast sessions unlock {short_id}` to edit on."
    if status is Status.PUBLISHED:
        return f"`holdfast sessions reopen {short_id}` starts a new draft from it."
    return f"`holdfast sessions revive {short_id}` brings it back."


def gist(body: Any, width: int = 72) -> str:
    """The beginning of a body: its text where it has one, else its JSON."""
    if isinstance(body, dict) and isinstance(body.get("text"), str):
        return one_line(body["text"], width)
    return one_line(as_json(body), width)


def short(revision: str | None) -> str:
    """A revision as shown in tables."""
    return "nothing" if revision is None else revision[:SHORT]


def _whole(body: Any) -> list[str]:
    if isinstance(body, dict) and isinstance(body.get("text"), str):
        rest = {name: value for name, value in body.items() if name != "text"}
        return [clean(body["text"]), *([styled(clean(as_json(rest)), "dim")] if rest else [])]
    return [clean(as_json(body, indent=True))]
