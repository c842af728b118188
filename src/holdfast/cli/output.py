"""What a command prints: tables and sentences for people, one JSON document for programs.

Rich is loaded only for a table or a progress bar on a terminal; into a pipe or a file goes plain text. What others
wrote (titles, texts, names) is cleaned of control characters first, so that no document can drive a reader's terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol, TextIO

import msgspec

from holdfast.wire.values import plain

_NARROWEST = 8
"""Characters below which a column of a table is not shortened."""
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "bold": "1", "dim": "2"}
_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(0x7F, 0xA0)) if code not in (9, 10)}
_BIDI = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}")
_UNSAFE = _CONTROL | _BIDI


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads the stream: then there are colours, boxes and progress bars."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def clean(text: str) -> str:
    """Text that cannot drive a terminal: control and text-direction characters are shown as a mark."""
    return text.translate(_UNSAFE)


def one_line(text: str, width: int = 72) -> str:
    """The beginning of a text, on one line."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= width else flat[: width - 1].rstrip() + "…"


def styled(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """Text in colour, where the stream is a terminal and ``NO_COLOR`` is not set."""
    if not is_terminal(stream or sys.stdout) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{';'.join(_COLOURS[style] for style in styles)}m{text}\x1b[0m"


def say(*lines: str) -> None:
    """Lines for people, on standard output."""
    for line in lines:
        print(line)


def note(line: str) -> None:
    """A remark for people, on standard error, so that it stays out of a pipe."""
    print(line, file=sys.stderr)


# -- for programs ------------------------------------------------------------------------------------------------------


def as_json(value: Any, *, indent: bool = False) -> str:
    """A value as JSON text: on one line, or laid out for a person."""
    encoded = msgspec.json.encode(plain(value))
    return (msgspec.json.format(encoded, indent=2) if indent else encoded).decode()


def emit(value: Any) -> None:
    """The answer of a command run with ``--json``: one document, laid out when a person looks at it."""
    print(as_json(value, indent=is_terminal(sys.stdout)))


# -- for people --------------------------------------------------------------------------------------------------------


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), give: Sequence[str] = ()
) -> None:
    """A table: drawn by rich on a terminal, otherwise columns two blanks apart with a line of names above.

    Args:
        right: columns whose cells stand to the right, such as numbers.
        give: columns that are shortened where the terminal is narrow.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    if is_terminal(sys.stdout):
        _draw(columns, cells, right, give)
        return
    widths = [
        max(len(name), *(len(row[at]) for row in cells)) if cells else len(name) for at, name in enumerate(columns)
    ]
    for row in ([name.upper() for name in columns], *cells):
        padded = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, width, cell in zip(columns, widths, row, strict=True)
        )
        print("  ".join(padded).rstrip())


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[str], give: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len, set_cell_size
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = [max(cell_len(text) for text in (name, *column)) for name, *column in zip(columns, *cells, strict=True)]
    giving = [at for at, name in enumerate(columns) if name in give]
    fitted = _fitted(widths, giving, console.width - 3 * len(columns))
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        drawn.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for row in cells:
        short = (
            cell if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"
            for cell, width in zip(row, fitted, strict=True)
        )
        drawn.add_row(*(Text(cell) for cell in short))
    console.print(drawn)


def _fitted(widths: list[int], giving: list[int], room: int) -> list[int]:
    """Column widths that fit, as far as those that give can do it: the widest of them first."""
    fitted = list(widths)
    while sum(fitted) > room and max((fitted[at] for at in giving), default=0) > _NARROWEST:
        fitted[max(giving, key=lambda at: fitted[at])] -= 1
    return fitted


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line, the values aligned; a pair without a value is left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{styled(name.ljust(width), 'dim')}  {clean(value)}")


class Progress(Protocol):
    """Told how far the work has come."""

    def __call__(self, done: int, total: int | None = None, step: str | None = None) -> None: ...


@contextmanager
def progress(what: str, total: int | None, *, quiet: bool) -> Iterator[Progress]:
    """A progress bar on standard error while the block runs; call what it gives with how far it has come.

    The total and the name of what is done may be told later, with the progress.

    Nothing is drawn when ``quiet`` or when standard error is not a terminal.
    """
    if quiet or not is_terminal(sys.stderr):
        yield lambda done, total=None, step=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)

        def reached(done: int, total: int | None = None, step: str | None = None) -> None:
            bar.update(task, completed=done, total=total, description=step or what)

        yield reached


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 item``, ``1,204 items``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def sized(number: int) -> str:
    """Bytes as people say them: ``812 B``, ``1.4 kB``, ``12 MB``."""
    value, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"


def span(seconds: float) -> str:
    """A length of time in its largest sensible unit: ``40 s``, ``12 min``, ``23 h``, ``9 days``."""
    for limit, divisor, unit in ((90, 1, "s"), (5_400, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def moment(at: datetime) -> str:
    """A time on the reader's own clock."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def ago(at: datetime, now: datetime) -> str:
    """How long ago, or in how long: ``just now``, ``3 min ago``, ``in 23 h``."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 5:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"
