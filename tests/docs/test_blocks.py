"""What stands in a code block of the manual runs, and says what the manual says it says.

Python blocks run as they stand, ``await`` at the top level included, in a folder and a home of their own. One that
opens no engine itself is given ``engine``, ``ana`` and ``session``, a fresh draft of three chunks; on the page of the
client it is ``client`` and ``session``, at a service of its own. A block that cannot run carries the reason:
``python no-run: needs a server``.

Console blocks run through the command line, one page one home, from top to bottom. ``$ S=$(holdfast ...)`` keeps what a
command printed. The lines beneath a command are compared with its output: ``…`` stands for any text, a line of ``...``
for any lines, and runs of blanks count as one.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from holdfast.cli.main import app
from holdfast.client import Client
from holdfast.compose import open_engine
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.testing.serving import Served, served

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NO_RUN = "no-run: "
ITEMS = [("chunks/1", {"text": "one"}), ("chunks/2", {"text": "two"}), ("chunks/3", {"text": "three"})]


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    info: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page; ``line`` is that of its first line of text."""
    fence = re.compile(r"^```(\w*) ?(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
    text = page.read_text(encoding="utf-8")
    for match in fence.finditer(text):
        yield Block(page, text[: match.start(3)].count("\n") + 1, match[1], match[2], match[3])


ALL = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in ALL if block.language == "python"]
RUNNING = [block for block in PYTHON if not block.info and block.page.name != "client.md"]
ASKING = [block for block in PYTHON if not block.info and block.page.name == "client.md"]
CONSOLE = [page for page in PAGES if any(block.language == "console" for block in blocks(page))]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the examples in it, and a home, both of one test alone."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "ana")
    for variable in ("HOLDFAST_CONFIG", "HOLDFAST_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    mask = os.umask(0o022)
    yield tmp_path
    os.umask(mask)


# -- python ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", RUNNING, ids=lambda block: block.name)
async def test_a_python_block_runs(block: Block, place: Path) -> None:
    code = compiled(block)
    names: dict[str, Any] = {"__name__": "a_block"}
    ana = names["ana"] = Principal("ana")
    if "open_engine(" in block.text:
        await run(code, names)
        return
    async with open_engine(Settings(home=place / "home")) as engine:
        session = await engine.create(ana, kind="knowledge", title="Tides", items=ITEMS)
        await run(code, {**names, "engine": engine, "session": session})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A service in local mode, for the page about the client."""
    async with served(home=tmp_path_factory.mktemp("service") / "home") as running:
        yield running


@pytest.mark.parametrize("block", ASKING, ids=lambda block: block.name)
async def test_a_python_block_that_asks_a_service_runs(block: Block, service: Served, place: Path) -> None:
    named = block.text.replace("http://127.0.0.1:8420", service.address).replace(
        'token="…"', f'token="{service.token}"'
    )
    async with Client(service.address, token=service.token) as client:
        session = await client.create(kind="knowledge", title="Tides", items=ITEMS)
        await run(compiled(block._replace(text=named)), {"__name__": "a_block", "client": client, "session": session})


def compiled(block: Block) -> Any:
    source = "\n" * (block.line - 1) + block.text  # so that a failure names the line of the page
    return compile(source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def run(code: Any, names: dict[str, Any]) -> None:
    outcome = eval(code, names)
    if inspect.isawaitable(outcome):
        await outcome


def test_a_block_that_does_not_run_says_why() -> None:
    for block in PYTHON:
        reason = block.info.removeprefix(NO_RUN)
        assert not block.info or (reason != block.info and len(reason) > 5), f"{block.name}: {block.info}"


def test_blocks_are_of_the_languages_that_are_looked_at() -> None:
    known = {"", "python", "console", "sh", "text", "toml", "mermaid", "json"}
    assert {block.name: block.language for block in ALL if block.language not in known} == {}
    for block in ALL:
        if block.language == "console":
            assert block.text.startswith("$ "), block.name


# -- console ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", CONSOLE, ids=lambda page: page.name)
def test_the_commands_of_a_page_do_what_it_says(page: Path, place: Path) -> None:
    kept: dict[str, str] = {}
    for block in blocks(page):
        if block.language != "console" or block.info:
            continue
        for command, told in commands(block.text):
            name, words = parsed(command, kept)
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, f"{block.name}: {command} ended with {result.exit_code}: {result.output}"
            if name is not None:
                kept[name] = result.stdout.strip()
            elif told:
                assert re.fullmatch(pattern(told), flat(result.stdout)), (
                    f"{block.name}: {command} says\n{result.stdout}"
                )


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a block, without its prompt, and what the block says that it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, told = part.partition("\n")
        yield command, told


def parsed(command: str, kept: dict[str, str]) -> tuple[str | None, list[str]]:
    """The variable that a command's output goes into, if any, and the words after ``holdfast``."""
    given = re.fullmatch(r"(\w+)=\$\((.*)\)", command)
    name, line = (given[1], given[2]) if given else (None, command)
    first, *words = shlex.split(re.sub(r"\$(\w+)", lambda match: kept[match[1]], line))
    assert first == "holdfast", command
    return name, words


def flat(text: str) -> str:
    """Output with runs of blanks as one, and no empty lines."""
    return "".join(f"{' '.join(line.split())}\n" for line in text.splitlines() if line.strip())


def pattern(told: str) -> str:
    """What output has to look like, as a regular expression."""
    lines = []
    for line in flat(told).splitlines():
        if line == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(re.escape(line).replace("…", ".*") + r"\n")
    return "".join(lines)
