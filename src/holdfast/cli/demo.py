"""``holdfast demo``: the whole life of a session, on a document of yours or on our own."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.call import Call, command, files
from holdfast.cli.output import as_json, clean, is_terminal, note, one_line, say, styled

if TYPE_CHECKING:
    from holdfast.cli.story.story import Told

FAILED = 1


async def demo(
    call: Call,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="A Markdown or text document; Holdfast's own README if not given.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary home, to look into it.")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="One line a step, without what it checked.")] = False,
) -> None:
    """Take a document through its whole life, checking every step.

    Ingested, edited, split, merged, undone, redone, raced for, previewed, published, searched, edited again, rolled
    back, discarded, verified: in a temporary home; nothing is written to your own. Exit 1 if a check fails.
    """
    # Only this command needs them, and they bring in the whole engine.
    from holdfast.cli.story import drafting, keeping, publishing
    from holdfast.cli.story.story import CheckFailedError, Story
    from holdfast.errors import InvalidError
    from holdfast.model.limits import Limits
    from holdfast.settings import Settings

    document, name = _document(file)
    place = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    limits = Limits(items=10_000, session_bytes=100_000_000)
    story = Story(document, name, Settings(home=place / "home", limits=limits), f"canary{secrets.token_hex(6)}")
    told: list[Told] = []

    def tell(step: Told) -> None:
        told.append(step)
        if not call.json:
            _tell(len(told), step, brief=brief)

    if not call.json:
        say(f"{styled('The life of a session', 'bold')} on {clean(name)} ({len(document):,} bytes)", "")
    start = time.perf_counter()
    failed: CheckFailedError | None = None
    try:
        await story.run((*drafting.STEPS, *publishing.STEPS, *keeping.STEPS), tell)
    except CheckFailedError as error:
        if not told and isinstance(error.__cause__, InvalidError):  # it is the document that does not fit
            raise error.__cause__ from None
        failed = error
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
    seconds = time.perf_counter() - start
    checks = sum(len(step.checks) for step in told)
    if call.json:
        steps = [
            {"name": step.name, "outcome": step.outcome, "seconds": step.seconds, "checks": step.checks}
            for step in told
        ]
        result = {"ok": failed is None, "checks": checks, "seconds": round(seconds, 3), "steps": steps}
        if failed is not None:
            result |= {"failed": {"step": failed.step, "check": failed.what}}
        print(as_json({**result, "home": str(place / "home")} if keep else result))
    elif failed is None:
        say("", f"{styled('All of it holds', 'green', 'bold')}: {checks} checks in {len(told)} steps, {seconds:.1f} s.")
    else:
        print(
            styled(f"FAILED at {failed.step!r}: {one_line(failed.what, 400)}", "red", "bold", stream=sys.stderr),
            file=sys.stderr,
        )
    if keep and not call.json:
        note(f"The home is kept: holdfast --home {place / 'home'} --as ana --tenant demo sessions list")
    if failed is not None:
        raise typer.Exit(FAILED) from failed


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app, engine=False)(demo)


def _tell(number: int, step: Told, *, brief: bool) -> None:
    took = f"{step.seconds * 1000:,.0f} ms"
    say(f"{number:>2}. {styled(step.name.ljust(22), 'bold')} {took.rjust(9)}   {clean(step.outcome)}")
    if not brief:
        mark = styled("✓" if is_terminal(sys.stdout) else "ok:", "green")
        say(*(f"      {mark} {clean(check)}" for check in step.checks))


def _document(file: Path | None) -> tuple[bytes, str]:
    """The document to take, and its name."""
    if file is None:
        return own_readme(), "README.md"
    with files():
        return file.read_bytes(), file.name


def own_readme() -> bytes:
    """The project's own README, which the installed package carries as its description."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        text = str(metadata("holdfast").json.get("description") or "")
    except PackageNotFoundError:
        text = ""
    if not text.strip():
        raise typer.BadParameter("this installation carries no README of its own; name a FILE.")
    return text.encode()
