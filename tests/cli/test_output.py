"""How things are said."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from holdfast.cli import output
from holdfast.cli.differences import show, words
from holdfast.model.difference import Difference, TextDifference, word_differences
from holdfast.model.session import Status

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes standard output a terminal of 60 columns, from the call on: pytest sets its own before each test."""

    def begin() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("COLUMNS", "60")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return stream

    return begin


class Sample(msgspec.Struct):
    at: datetime
    digest: bytes
    status: Status
    roles: frozenset[str]
    raw: msgspec.Raw


def test_values_become_json_that_programs_expect() -> None:
    sample = Sample(NOW, b"\x01\xff", Status.DRAFT, frozenset({"b", "a"}), msgspec.Raw(b'{"x":1}'))
    assert output.as_json([sample, None, 1.5]) == (
        '[{"at":"2026-05-04T12:00:00Z","digest":"01ff","status":"draft","roles":["a","b"],"raw":{"x":1}},null,1.5]'
    )


def test_lengths_of_time_and_sizes_read_as_people_say_them() -> None:
    seconds = (1, 89, 91, 3600, 86_400, 200_000)
    assert [output.span(value) for value in seconds] == ["1 s", "89 s", "2 min", "60 min", "24 h", "2 days"]
    assert [output.sized(value) for value in (0, 999, 1500, 25_000, 3_200_000_000)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "25 kB",
        "3.2 GB",
    ]
    assert output.counted(1, "item") == "1 item"
    assert output.counted(1200, "entry", "entries") == "1,200 entries"
    assert output.ago(NOW, NOW) == "just now"
    assert output.ago(NOW - timedelta(minutes=3), NOW) == "3 min ago"
    assert output.ago(NOW + timedelta(hours=5), NOW) == "in 5 h"


def test_a_text_is_shown_without_what_could_drive_a_terminal() -> None:
    assert output.clean("a\x1b[31mb\u202ec\x9b\n\td") == "a\N{REPLACEMENT CHARACTER}[31mb" + (
        "\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}\n\td"
    )
    assert output.one_line("  many \n words  " + "x" * 90, 20) == "many words xxxxxxxx…"


def test_a_table_on_a_terminal_fits_it_and_keeps_the_first_column(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    output.table(("key", "n", "body"), [("k" * 30, "5", "w" * 80)], right=("n",), give=("body",))
    lines = stream.getvalue().splitlines()
    assert max(len(line) for line in lines if "\x1b" not in line) <= 60
    assert "k" * 30 in stream.getvalue()
    assert "w…" in stream.getvalue()


def test_colours_are_left_out_when_asked_to(terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal()
    assert output.styled("x", "red", "bold") == "\x1b[31;1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.styled("x", "red") == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert output.styled("x", "red") == "x"


def test_json_is_laid_out_for_a_person(terminal: Callable[[], Terminal]) -> None:
    stream = terminal()
    output.emit({"a": 1})
    assert stream.getvalue() == '{\n  "a": 1\n}\n'


def test_progress_is_drawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setenv("TERM", "xterm")
    with output.progress("working", 3, quiet=False) as reached:
        reached(3, 3, "finishing")
    assert "finishing" in errors.getvalue()
    silent = Terminal()
    monkeypatch.setattr(sys, "stderr", silent)
    with output.progress("working", 3, quiet=True) as reached:
        reached(1)
    assert silent.getvalue() == ""


def test_what_is_unchanged_is_shortened_around_a_change() -> None:
    before = "start " * 60 + "old" + " end" * 60
    run = word_differences(before, before.replace("old", "new"))
    short = words(run)
    assert "[-old-]{+new+}" in short
    assert short.startswith("… ")
    assert short.endswith(" …")
    assert len(short) < 200
    assert words(run, full=True).replace("[-old-]", "").replace("{+new+}", "old") == before


def test_the_middle_between_two_changes_is_shortened_too() -> None:
    middle = " word" * 100
    run = word_differences(f"a{middle} b", f"x{middle} y")
    assert " … " in words(run)


def test_a_long_run_of_changes_is_shown_by_its_ends() -> None:
    run = word_differences("", "new " * 400)
    assert "characters)" in words(run)
    assert "characters)" not in words(run, full=True)


def test_differences_show_other_fields_and_bodies_of_every_sort(capsys: pytest.CaptureFixture[str]) -> None:
    text = TextDifference("notes.0", word_differences("was", "is"))
    show(
        [
            Difference("a/1", "changed", {"notes": ["was"], "n": 1}, {"notes": ["is"], "m": [2]}, (text,)),
            Difference("a/2", "added", None, {"n": 1}),
            Difference("a/3", "deleted", {"text": "one\n\ntwo\nthree\nfour\nfive"}, None),
            Difference("a/4", "moved", {"n": 1}, {"n": 1}),
            Difference("a/5", "changed", "was", "is", (TextDifference("", word_differences("was", "is")),)),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert "    notes.0: [-was-]{+is+}" in lines
    assert "    m: {+[2]+}" in lines
    assert "    n: [-1-]" in lines
    assert '    + {"n":1}' in lines
    assert "    - … (2 more lines)" in lines
    assert "> a/4  (moved)" in lines
    assert "    [-was-]{+is+}" in lines
    assert lines[-1] == "5 items: 1 added, 2 changed, 1 moved, 1 deleted."
