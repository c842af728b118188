"""``holdfast bench``: how fast it is here, beside the bare floor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.call import Call, command
from holdfast.cli.output import emit, facts, progress, say, table


async def bench(
    call: Call,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter rounds: done within a minute.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Keep the rows in a JSON file too.")
    ] = None,
    home_dir: Annotated[
        Path | None,
        typer.Option(
            "--home-dir", metavar="FOLDER", help="Where the temporary homes go; the current directory by default."
        ),
    ] = None,
) -> None:
    """Measure Holdfast beside bare SQLite and FastAPI, as ratios."""
    from holdfast.bench import report, run  # heavy, and nothing else needs it

    folder = home_dir or Path.cwd()
    on = report.machine(folder, quick)
    with progress("measuring", None, quiet=call.json) as reached:
        rows = await run(quick=quick, folder=folder, reached=reached)
    if output is not None:
        report.write(rows, on, output)
    if call.json:
        return emit(rows)
    table(report.COLUMNS, report.cells(rows), right=report.NUMBERS)
    say("")
    return facts(report.described(on))


def register(app: typer.Typer) -> None:
    """Put the command in place."""
    command(app, engine=False)(bench)
