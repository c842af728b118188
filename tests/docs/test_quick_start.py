"""The quick start of the README does what it says: its lines run as they stand, in a shell, against a running service.

So do the blocks behind the same mark in docs/service.md, from top to bottom, with the words of the README's first lines
and a session of three chunks. In a block, lines that begin with ``#>`` say what the lines before them print, all of it:
``…`` stands for any text within a line, and a line that goes on with a blank belongs to the one before.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from holdfast.testing.serving import served

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVICE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
MARK = "<!-- runs against a service -->\n"
SECONDS = 60.0
CHUNKS = ("One.", "Two.", "Three.")

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("curl") is None, reason="no bash or no curl on this machine"
)


def blocks(page: str) -> list[str]:
    """The blocks of a page that are meant."""
    found = page.split(MARK)[1:]
    assert all(block.startswith("```sh\n") for block in found)
    return [block.removeprefix("```sh\n").partition("```")[0] for block in found]


def script() -> str:
    """The quick start."""
    (block,) = blocks(README)
    return block


def told(text: str) -> list[str]:
    """The lines that a script says it prints."""
    lines: list[str] = []
    for line in re.findall(r"^#>(.*)$", text, flags=re.MULTILINE):
        if line.startswith("  "):
            lines[-1] += line.strip()
        else:
            lines.append(line.strip())
    return lines


def fits(lines: list[str], printed: str) -> bool:
    """Whether what was printed is these lines, no more and no fewer."""
    pattern = "".join(re.escape(line).replace("…", ".*") + r"\n" for line in lines)
    return re.fullmatch(pattern, printed) is not None


async def run(text: str, home: Path, address: str) -> str:
    """What a script prints in a shell of somebody whose service runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "XDG_"))}
    process = await asyncio.create_subprocess_exec(
        *("bash", "--noprofile", "--norc", "-uo", "pipefail", "-c", text),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**inherited, "HOME": str(home), "HOLDFAST_URL": address, "no_proxy": "*"},
    )
    try:
        async with asyncio.timeout(SECONDS):
            return (await process.communicate())[0].decode().replace("\r\n", "\n")  # a header ends as HTTP has it
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_quick_start_prints_what_it_says(tmp_path: Path) -> None:
    """The token is read where the README looks for it, so the service has the home that it has by default."""
    lines = told(script())
    async with served(home=tmp_path / ".local" / "share" / "holdfast") as service:
        printed = await run(script(), tmp_path, service.address)
    assert fits(lines, printed), printed
    # Not one of the lines could say something else and pass.
    for number, line in enumerate(lines):
        assert not fits([*lines[:number], *lines[number + 1 :]], printed), line
        assert not fits([*lines[:number], line.replace("e", "E"), *lines[number + 1 :]], printed), line


async def test_the_examples_of_the_page_about_the_service_print_what_they_say(tmp_path: Path) -> None:
    words = script().partition("\n\n")[0]
    chunks = ",".join(f'{{"key": "chunks/{n}", "body": {{"text": "{text}"}}}}' for n, text in enumerate(CHUNKS, 1))
    session = f"""S=$(ask sessions -H "$JSON" -d '{{"kind": "knowledge", "items": [{chunks}]}}' | cut -d'"' -f4)\n"""
    examples = blocks(SERVICE)
    assert len(examples) >= 3
    async with served(home=tmp_path / ".local" / "share" / "holdfast") as service:
        printed = await run("\n".join((words, session, *examples)), tmp_path, service.address)
    assert fits(told("".join(examples)), printed), printed


async def test_who_has_no_token_is_told_something_else(tmp_path: Path) -> None:
    """The comparison is with what the service says, and not with what the script was fed."""
    text = script().replace("Bearer $HOLDFAST_TOKEN", "Bearer nobody")
    async with served(home=tmp_path / ".local" / "share" / "holdfast") as service:
        printed = await run(text, tmp_path, service.address)
    assert not fits(told(script()), printed)
    assert '"code":"unauthenticated"' in printed


def test_make_run_starts_the_service_that_the_quick_start_asks() -> None:
    """Without variables, it asks at the port and reads the token at the place of the settings' defaults."""
    from holdfast.service.auth.local import NAME
    from holdfast.settings import Settings, default_home

    recipe = re.search(r"^run:.*\n\t(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    assert recipe[1] == "$(BIN)/holdfast serve $(ARGS)"
    service = Settings(home=Path("home")).service
    assert f"HOLDFAST_URL:-http://{service.host}:{service.port}" in script()
    assert f"$(cat ~/{default_home({'HOME': '/'}).relative_to('/') / NAME})" in script()
