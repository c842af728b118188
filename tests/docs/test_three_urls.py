"""The README's way to Redis and PostgreSQL: its lines make the servers, and Holdfast runs on them.

All of it runs as it stands, but for what installs packages, and with ports that are free and a directory of the test's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.postgres import server_user
from holdfast.testing.servers import free_port, needed, program

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SERVERS, HOLDFAST = "<!-- makes servers of its own -->\n", "<!-- runs on the servers above -->\n"
SECONDS, END_SECONDS = 120, 5.0


def block(mark: str) -> str:
    _, _, rest = README.partition(mark + "```sh\n")
    text, _, _ = rest.partition("```")
    assert text
    return text


def without(text: str, *beginnings: str) -> str:
    """A script without lines, each of which is there."""
    for beginning in beginnings:
        text, count = re.subn(rf"^{re.escape(beginning)}.*\n", "", text, flags=re.MULTILINE)
        assert count == 1, beginning
    return text


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path, for PostgreSQL's socket is in it, and one that whoever runs the servers may write to."""
    folder = Path(tempfile.mkdtemp(prefix="hf-"))
    user = server_user()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    yield folder
    for name in ("holdfast-tiers/postgres/postmaster.pid", "redis.pid"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # not there, or gone already
            process = int((folder / name).read_text().split()[0])
            os.kill(process, signal.SIGQUIT if "postmaster" in name else signal.SIGKILL)
            until = time.monotonic() + END_SECONDS
            while time.monotonic() < until:
                os.kill(process, 0)
                time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def run(text: str, home: Path, **more: Any) -> str:
    """What a script prints in a shell of somebody with this home."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "XDG_", "PG"))}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [needed("bash"), "--noprofile", "--norc", "-euo", "pipefail", "-c", text],
        env={**inherited, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        **more,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_servers_of_the_readme_come_up_and_holdfast_runs_on_them(home: Path) -> None:
    needed("redis-server")
    needed("initdb")
    ports = {"6390": str(free_port()), "5490": str(free_port())}

    def placed(text: str) -> str:
        for port, free in ports.items():
            assert port in text
            text = text.replace(port, free)
        return text

    servers = without(placed(block(SERVERS)), "sudo apt install").replace(
        "--daemonize yes", f"--daemonize yes --pidfile {home}/redis.pid"
    )
    if program("initdb") != f"{newest()}/initdb":
        servers = re.sub(r"PATH=.*", f"PATH=$PATH:{Path(str(program('initdb'))).parent}", servers)
    user = server_user()
    somebody = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    run(servers, home, **somebody)
    text = without(placed(block(HOLDFAST)), "pip install", "holdfast serve")
    told = [line.removeprefix("#> ") for line in text.splitlines() if line.startswith("#>")]
    wanted = "".join(re.escape(line).replace("…", ".*") + r"\n" for line in told)
    printed = run(text, home)
    assert re.fullmatch(wanted, re.sub(r" +\n", "\n", printed)), printed
    assert not re.fullmatch(wanted, printed.replace("yes", "no")), "it would pass whatever it says"
    source = home / "a.md"
    source.write_text("# Tides\n\nHigh at nine.\n")
    session = run(f"{text}\nholdfast ingest {source}", home).splitlines()[-1].strip()
    again = run(f"{text}\nholdfast tiers archive {session}; holdfast sessions show {session}; holdfast verify", home)
    assert "is archived." in again
    assert "all of it adds up" in again


def newest() -> str:
    """Where the README looks for PostgreSQL's programs."""
    found = sorted(str(path) for path in Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else ""
