"""``holdfast serve``: what it prints, for people and for programs, and how it fails."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.settings import Settings
from holdfast.settings.sections import Auth, Service
from holdfast.testing.peers import Peer, request
from holdfast.testing.serving import served, variables_of

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

RUN = (sys.executable, "-c", "from holdfast.cli.main import main; main()")


@contextlib.contextmanager
def process(home: Path, *words: str, address: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """``holdfast serve`` as a person starts it."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    ours |= {} if address is None else {"HOLDFAST_URL": address}
    command = (*RUN, "--home", str(home), "serve", *words)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ours) as started:
        try:
            yield started
        finally:
            started.kill()


def test_people_get_an_address_that_opens_and_lines_for_their_shell(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    with process(home, "--port", "0") as started:
        assert started.stdout is not None
        text = "".join(iter(started.stdout.readline, "\n"))  # up to the first blank line
        text += "".join(started.stdout.readline() for _ in range(4))
        lines = [line.removeprefix("  shell").strip() for line in text.splitlines()[-3:]]
        script = "\n".join(lines[: 3 if shutil.which("curl") else 2])
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        typed = subprocess.run(
            ["sh", "-euc", script],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PATH": path},
            check=False,
        )
        started.send_signal(signal.SIGINT)
        out, errors = started.communicate(timeout=20)
        assert started.returncode == 0
    token = (home / "token").read_text().strip()
    address = re.search(r"Holdfast is at (http://127\.0\.0\.1:\d+) ", text)
    assert address is not None
    assert f"open   {address[1]}/#token={token}\n" in text
    assert typed.returncode == 0, typed.stderr
    assert "No sessions" in typed.stdout
    assert shutil.which("curl") is None or '"sessions":[]' in typed.stdout
    assert out.strip() == ""
    assert "Traceback" not in errors
    assert token not in errors


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", None])
def test_an_address_of_another_service_is_said_not_to_be_heeded(address: str | None, tmp_path: Path) -> None:
    with process(tmp_path / "home", "--port", "0", address=address) as started:
        assert started.stdout is not None
        assert "Holdfast is at" in started.stdout.readline()
        started.send_signal(signal.SIGINT)
        _, errors = started.communicate(timeout=20)
        assert started.returncode == 0
    assert errors.count("HOLDFAST_URL is not heeded") == (address is not None)


async def test_programs_get_one_line_without_the_token_and_nobody_logs_it(tmp_path: Path) -> None:
    async with served(home=tmp_path / "home", HOLDFAST_SERVICE__LOG="debug") as service:
        assert service.mode == "local"
        assert service.token
        async with Peer.to(service.address) as peer:
            await peer.send(
                request("GET", f"/v1/sessions?text={service.token}", f"Authorization: Bearer {service.token}")
            )
            assert (await peer.answer()).status == 200
            await peer.send(request("GET", "/v1/sessions"))
            assert (await peer.answer()).status == 401
        assert await service.stop(signal.SIGINT) == 0
        assert service.process.stdout is not None
        assert await service.process.stdout.read() == b""
        assert "/v1/sessions" in service.log
        assert service.token not in service.log


async def test_settings_reach_the_child_as_they_were_given(tmp_path: Path) -> None:
    given = Settings(
        home=tmp_path / "elsewhere",
        lock=5.0,
        sinks={"directory": f"directory://{tmp_path}/published"},
        service=Service(host="::1" if has_ipv6() else "127.0.0.1", origins=("https://a.test", "https://b.test")),
        auth=Auth(
            issuer="https://issuer.test", audience="holdfast", family="HS", secret="k3Jd8s0aPq5LmZ2xVb7NcR4tYw9EuH6f"
        ),
    )
    assert Settings.load({"HOLDFAST_HOME": str(given.home), **variables_of(given)}) == given
    async with served(given, home=tmp_path / "home") as service:
        assert service.mode == "issuer"
        assert service.token is None
        assert service.headers == {}
        assert not given.home.exists()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


async def test_a_service_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"service\.host"):
        async with served(home=tmp_path / "home", HOLDFAST_SERVICE__HOST="0.0.0.0"):
            pass


def test_an_address_in_use_is_a_matter_of_the_settings(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = cli.error("serve", "--port", str(port), code=9)
    assert error["code"] == "configuration"
    assert f"127.0.0.1:{port}" in error["message"]
    assert "--port" in error["message"]
    assert not cli.home.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_an_issuer_no_other_machine_is_listened_to(cli: Cli, host: str) -> None:
    assert "for this machine alone" in cli("serve", "--host", host, "--port", "0", code=9).stderr
    assert not cli.home.exists()


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_a_wrong_argument(cli: Cli, port: str) -> None:
    cli("serve", "--port", port, code=2)


@pytest.mark.parametrize("package", ["uvicorn", "fastapi", "httptools", "structlog"])
def test_without_the_packages_of_a_service_it_names_the_extra(tmp_path: Path, package: str) -> None:
    script = f"import sys; sys.modules[{package!r}] = None\n{RUN[2]}"
    ran = subprocess.run(
        [sys.executable, "-c", script, "--home", str(tmp_path / "home"), "serve"], capture_output=True, text=True
    )
    assert ran.returncode == 9
    assert f"This needs {package}" in ran.stderr
    assert "holdfast[server]" in ran.stderr


def test_the_other_commands_load_nothing_of_a_service() -> None:
    script = "import sys, holdfast.cli.main; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"fastapi", "starlette", "uvicorn", "httptools", "uvloop", "structlog", "joserfc", "httpx2"} & {*loaded}


def test_its_own_errors_are_told_without_a_traceback(cli: Cli) -> None:
    cli.home.mkdir()
    (cli.home / "token").write_text("short")
    (cli.home / "token").chmod(0o600)
    error: dict[str, Any] = cli.error("serve", "--port", "0", code=9)
    assert "token file" in error["message"]


EARLY = """
import importlib.abc, os, signal, sys

class Early(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Early())
"""
"""Somebody who changes his mind while the command is still being loaded."""


@pytest.mark.parametrize(("module", "is_told"), [("holdfast.cli.entry", False), ("holdfast.cli.main", True)])
def test_an_early_ctrl_c_ends_it_without_a_traceback(tmp_path: Path, module: str, is_told: bool) -> None:
    script = f"{EARLY}\nfrom {module} import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", script, "--home", str(tmp_path / "home"), "serve"], capture_output=True, text=True
    )
    assert ran.returncode == -signal.SIGINT
    assert ("Traceback" in ran.stderr) is is_told  # without the entry it is


def test_a_ctrl_c_while_it_comes_up_is_told_in_a_word(tmp_path: Path) -> None:
    script = """
import asyncio, os, signal
from holdfast.cli import entry
from holdfast.service import server

async def listen(settings):
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(20)

server.listen = listen
entry.main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, "--home", str(tmp_path / "home"), "serve"], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (130, "")
    assert ran.stderr.startswith("Error: Interrupted.")
    assert "Traceback" not in ran.stderr
