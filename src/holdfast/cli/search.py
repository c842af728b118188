"""``holdfast search``: what is published, found."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.call import Call, command
from holdfast.cli.output import clean, counted, emit, one_line, say, styled


async def search(
    call: Call,
    query: Annotated[list[str], typer.Argument(metavar="WORD...", help="What to look for.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help="The kind of session it was published from.")] = "knowledge",
    limit: Annotated[int, typer.Option(metavar="N", help="How many hits at most.")] = 10,
    whole: Annotated[bool, typer.Option("--whole", help="Show the whole text of each hit.")] = False,
) -> None:
    """Search what is published; drafts are never found."""
    words = " ".join(query)
    hits = await call.engine.search(call.who, words, kind=kind, limit=limit)
    if call.json:
        return emit({"query": words, "hits": hits})
    if not hits:
        return say("Nothing found among what is published.")
    for hit in hits:
        body = hit.body if isinstance(hit.body, dict) else {}
        title, headings = str(body.get("title") or hit.target), [str(name) for name in body.get("headings") or ()]
        place = " > ".join(headings if headings[:1] == [title] else [title, *headings])
        score, name = styled(f"{hit.score:.3f}", "cyan"), styled(clean(hit.key), "dim")
        say(f"{score}  {styled(one_line(place, 80), 'bold')}  {name}")
        if whole:
            say(*(f"       {line}" for line in clean(hit.text).splitlines()), "")
        else:
            say(f"       {one_line(hit.text, 110)}")
    return say(f"{counted(len(hits), 'hit')}.")


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app)(search)
