"""``holdfast ingest``: a document becomes a session."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from holdfast.cli.call import Call, ChangeId, command, files
from holdfast.cli.output import counted, emit, note, progress, say, sized
from holdfast.cli.sessions import SHORT, described
from holdfast.model.limits import check_limit
from holdfast.model.retention import Retention

_LARGE = 1_000_000
"""Bytes from which on a document is worth a progress bar."""

_MOST = 1_000_000_000
"""Bytes of a document that are read to be sent to a service, which has its own limit."""


async def ingest(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A document; - is standard input.")],
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instead of the title found in the document.")
    ] = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help="The kind of session to make of it.")] = "knowledge",
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The file's name, where it is standard input.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="NAME", help="What it is to be published as.")] = None,
    hours: Annotated[float | None, typer.Option(metavar="N", help="How long the draft is kept.")] = None,
    permanent: Annotated[
        bool, typer.Option("--permanent", help="Keep the draft until it is published or discarded.")
    ] = False,
    change_id: ChangeId = None,
) -> None:
    """Make a session of a document. Prints the session's id."""
    if permanent and hours is not None:
        raise typer.BadParameter("say either --hours N or --permanent.")
    settings = None if call.address else call.settings()  # a service has its own
    data = _read(file, _MOST if settings is None else settings.limits.source_bytes)
    retention = None
    if permanent or hours is not None:
        usual = Retention() if settings is None else settings.retention
        retention = replace(usual, ttl=None if hours is None else hours * 3600)
    with progress(f"ingesting {Path(file).name}", None, quiet=call.json or len(data) < _LARGE):
        session = await call.engine.ingest(
            call.who,
            data,
            name or ("standard-input.md" if file == "-" else Path(file).name),
            kind=kind,
            title=title,
            retention=retention,
            target=target,
            change_id=change_id,
        )
    header = session.header
    if call.json:
        return emit({**described(header), "items": [item.key for item in session.items]})
    say(header.id)
    note(f"{header.title or file}: {counted(header.count, 'item')} of {sized(len(data))}.")
    return note(f"Next: `holdfast sessions show {header.id[:SHORT]}`")


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app)(ingest)


def _read(file: str, most: int) -> bytes:
    """The bytes of a file or of standard input; a file over the limit is refused before it is read."""
    if file == "-":
        return sys.stdin.buffer.read(most + 1)
    with files():
        size = Path(file).stat().st_size
        check_limit("bytes of a source", size, most)
        return Path(file).read_bytes()
