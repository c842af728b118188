"""The manual is whole: every name that a user can meet stands in it, its tables are the code's, its links lead on."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import holdfast
from holdfast import errors
from holdfast.cli.exits import EXIT_CODES
from holdfast.engine.engine import Engine
from holdfast.kinds import kinds
from holdfast.model.access import SERVICE_VERBS, VERBS, Role, may
from holdfast.model.access import Principal as Who
from holdfast.model.session import LIFECYCLE, Status
from holdfast.settings import SETTINGS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
MANUAL = "\n".join(PAGES.values())

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MARK, END = "<!-- made from the code -->\n", "<!-- to here -->"


def leaves(tree: type[errors.HoldfastError]) -> Iterator[type[errors.HoldfastError]]:
    for kind in tree.__subclasses__():
        if kind.__module__.startswith("holdfast."):  # and not one of another test, loaded before
            yield kind
            yield from leaves(kind)


ERRORS: list[type[errors.HoldfastError]] = [
    errors.HoldfastError,
    *(kind for kind in leaves(errors.HoldfastError) if not kind.__name__.startswith("_")),
]
METHODS = [name for name, member in vars(Engine).items() if inspect.isfunction(member) and not name.startswith("_")]


def an_error(kind: type[errors.HoldfastError]) -> errors.HoldfastError:
    """An error of a kind, made with anything that its arguments take."""
    samples = {"int": 1, "float": 1.0, "str": "a", "str | None": "a", "datetime": NOW, "datetime | None": NOW}
    arguments = inspect.signature(kind).parameters.values()
    return kind(*(samples.get(str(argument.annotation), ()) for argument in arguments))


def methods_table() -> str:
    """The table of docs/library.md: every public method with its arguments and the first sentence of its docstring."""
    lines = ["| method | what it does |", "|---|---|"]
    for name in METHODS:
        method = getattr(Engine, name)
        words = []
        for parameter in list(inspect.signature(method).parameters.values())[1:]:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in words:
                words.append("*")
            words.append(parameter.name)
        text = " ".join((inspect.getdoc(method) or "").split("\n\n")[0].split()).replace("``", "`")
        lines.append(f"| `{name}({', '.join(words)})` | {text} |")
    return "\n".join(lines) + "\n"


def rows(page: str, first: str) -> Iterator[list[str]]:
    """The cells of the table on a page whose heading begins with a cell, without the heading."""
    inside = False
    for line in PAGES[page].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells[:1] == [first]:
            inside = True
        elif not cells:
            inside = False
        elif inside and not cells[0].startswith("---"):
            yield cells


def test_every_error_stands_on_its_page_with_its_code_and_its_facts() -> None:
    table = {cells[1].strip("`"): cells for cells in rows("errors.md", "code")}
    groups = {re.findall(r"`(\w+)`", cells[1])[0]: cells for cells in rows("errors.md", "exit code")}
    assert {kind.__name__ for kind in ERRORS} == {*table, *groups, "HoldfastError"}
    for kind in ERRORS:
        assert f"`{kind.code}`" in PAGES["errors.md"]
        cells = table.get(kind.__name__)
        if cells is not None:
            assert cells[0] == f"`{kind.code}`"
            assert set(re.findall(r"`(\w+)`", cells[4])) == set(an_error(kind).facts()), kind.__name__
    assert {name: int(cells[0]) for name, cells in groups.items()} == {
        kind.__name__: code for kind, code in EXIT_CODES.items()
    }


def test_every_public_name_is_in_the_manual() -> None:
    missing = [name for name in holdfast.__all__ if not re.search(rf"\b{re.escape(name)}\b", MANUAL)]
    assert missing == []


def test_the_table_of_methods_is_the_engine() -> None:
    _, _, rest = PAGES["library.md"].partition(MARK)
    table, end, _ = rest.partition(END)
    assert end, "docs/library.md has no mark where its table begins or ends"
    assert table == methods_table(), f"write the table of docs/library.md anew:\n{methods_table()}"


def test_the_table_of_verbs_is_the_rule() -> None:
    class Session:
        tenant, owner = "t", "the owner"
        grants = {role.value: role for role in Role}  # noqa: RUF012 - a protocol's attribute

    told = {cells[0].strip("`"): cells[1:] for cells in rows("concepts.md", "verb")}
    assert list(told) == list(VERBS)
    people = [Who(role.value, "t") for role in (Role.OWNER, Role.EDITOR, Role.PARTICIPANT, Role.VIEWER)]
    for verb, cells in told.items():
        auditor = Who("an auditor", "t", frozenset({"auditor"}))
        allowed = [may(who, verb, Session()) for who in (*people, auditor)]
        assert [cell == "yes" for cell in cells] == allowed, verb
    for verb in SERVICE_VERBS:
        assert f"`{verb}`" in PAGES["concepts.md"]


def test_the_table_of_the_lifecycle_is_the_rule() -> None:
    told = {
        cells[0].strip("`"): {status: to for status, to in zip(Status, cells[1:6], strict=True) if to}
        for cells in rows("concepts.md", "step")
    }
    assert told == {verb: {**steps} for verb, steps in LIFECYCLE.items()}


def test_every_setting_is_in_the_manual() -> None:
    assert [setting.name for setting in SETTINGS if f"`{setting.name}`" not in PAGES["settings.md"]] == []


def test_every_kind_is_told_with_its_fields_and_its_operations() -> None:
    for kind in kinds().values():
        assert f"`{kind.name}`" in PAGES["kinds.md"]
        fields = {cells[0].strip("`") for cells in rows("kinds.md", "field")}
        assert fields >= {field.name for body in kind.bodies.values() for field in msgspec.structs.fields(body)}
        operations = {cells[0].strip("`"): cells[1] for cells in rows("kinds.md", "operation")}
        for operation in kind.operations:
            told = set(re.findall(r"`(\w+)`", operations[operation.name]))
            assert told == {field.name for field in msgspec.structs.fields(operation.arguments)}, operation.name


def test_every_table_of_the_store_is_told() -> None:
    schema = (ROOT / "src" / "holdfast" / "stores" / "sqlite.sql").read_text(encoding="utf-8")
    tables = re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", schema)
    told = {name for cells in rows("architecture.md", "table") for name in re.findall(r"`(\w+)`", cells[0])}
    assert told == set(tables)


def test_every_problem_that_verify_finds_is_told() -> None:
    source = (ROOT / "src" / "holdfast" / "engine" / "verification.py").read_text(encoding="utf-8")
    codes = set(re.findall(r"Problem\(\s*\"([a-z-]+)\"", source))
    assert codes
    told = {code for cells in rows("operations.md", "problem") for code in re.findall(r"`([a-z-]+)`", cells[0])}
    assert codes <= told


def test_every_room_and_every_part_of_the_engine_is_told() -> None:
    package = ROOT / "src" / "holdfast"
    rooms = {path.name for path in package.iterdir() if path.name[0] not in "_."} - {"py.typed"}
    told = {cells[0].strip("`").rstrip("/") for cells in rows("architecture.md", "room")}
    assert told == rooms
    parts = {path.name for path in (package / "engine").glob("*.py")} - {"__init__.py"}
    told = {name for cells in rows("architecture.md", "file") for name in re.findall(r"`([\w.]+)`", cells[0])}
    assert told == parts


@pytest.mark.parametrize("page", [*(f"docs/{name}" for name in PAGES), "README.md", "CONTRIBUTING.md"])
def test_every_link_within_the_project_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{page} links to {target}"


def test_the_navigation_has_every_page_once() -> None:
    named = re.findall(r"^\s+- .*?:? ?([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(PAGES)


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings make."""
    plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}
