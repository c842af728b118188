"""The command line over a service: the same commands, the same answers."""

from __future__ import annotations

import json
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result

from holdfast.cli.main import app
from holdfast.model.entry import EntryHeader
from holdfast.testing.serving import Served, served

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

MASKED = re.compile(
    r'chunks/[a-z2-7]{13}(?=")|[A-Za-z0-9_/+-]{22,}=*|key-[a-z2-7]{12}|(\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(\.\d+)?Z?'
)


_FINGERPRINT = EntryHeader.__struct_fields__.index("fingerprint")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A service in local mode, one for all tests of this file."""
    async with served(home=tmp_path_factory.mktemp("service") / "home") as running:
        yield running


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOLDFAST_URL", "HOLDFAST_TOKEN", "HOLDFAST_HOME", "HOLDFAST_DEBUG"):
        monkeypatch.delenv(variable, raising=False)


class Line:
    """Runs ``holdfast`` with options that say where."""

    def __init__(self, *options: str) -> None:
        self.options, self._runner = options, CliRunner()

    def __call__(self, *words: str, stdin: str | None = None) -> Result:
        return self._runner.invoke(app, [*self.options, *words], input=stdin)

    def json(self, *words: str, stdin: str | None = None) -> Any:
        """What a command says with ``--json``: its exit code, and its document or its error."""
        result = self(*words, "--json", stdin=stdin)
        return result.exit_code, json.loads(result.stdout or result.stderr)


@pytest.fixture
def remote(service: Served) -> Line:
    return Line("--url", service.address, "--token-file", str(service.home / "token"))


@pytest.fixture
def local(tmp_path: Path) -> Line:
    return Line("--home", str(tmp_path / "home"))


def life(line: Line, document: Path) -> list[Any]:
    """A session's whole life: what each command of it says."""
    told: list[Any] = []

    def say(*words: str, stdin: str | None = None) -> Any:
        answer = line.json(*words, stdin=stdin)
        told.append([words[:2], *answer])
        return answer[1]

    s = say("ingest", str(document), "--hours", "5", "--title", "The lighthouse", "--change-id", "i-1")["id"]
    keys = [item["key"] for item in say("sessions", "show", s)["items"]]
    say("sessions", "show", s[:8], keys[0])
    say("sessions", "show", "0" * 32)
    say("sessions", "put", s, keys[0], "--set", "text=Dark.")
    say("sessions", "put", s, keys[0], "-", "--expected", "1", "--change-id", "p-1", stdin='{"text": "Dark."}')
    say("sessions", "put", s, keys[0], "-", "--expected", "1", "--change-id", "p-1", stdin='{"text": "Dark."}')
    say("sessions", "put", s, keys[0], "-", "--expected", "1", stdin='{"text": "Light."}')
    say("sessions", "put", s, keys[1], "-", "--expected", "1", "--rebase", stdin='{"text": "Light."}')
    say("sessions", "edit", s, "-", stdin=json.dumps([{"move": keys[2]}, {"put": "chunks/x", "body": {"text": "x"}}]))
    say("sessions", "delete", s, "chunks/x", "--group", "g")
    say("sessions", "delete", s, "chunks/none")
    say("sessions", "move", s, keys[2], "--before", keys[0])
    say("sessions", "run", s)
    say("sessions", "run", s, "split", "--key", keys[2], "--at", "40")
    say("sessions", "run", s, "sing")
    say("sessions", "undo", s, "--dry-run")
    say("sessions", "undo", s)
    say("sessions", "redo", s)
    say("sessions", "label", s, "good", "--version", "2")
    say("sessions", "label", s)
    say("sessions", "restore", s, "good")
    say("sessions", "diff", s)
    say("sessions", "diff", s, "1", "2")
    say("sessions", "history", s, "--limit", "3")
    say("sessions", "rename", s, "Lamps")
    say("sessions", "grant", s, "ben", "editor")
    say("sessions", "extend", s, "--hours", "9")
    say("sessions", "touch", s)
    say("sessions", "lock", s)
    say("sessions", "undo", s)
    say("sessions", "unlock", s)
    say("sessions", "lock", s, "--minutes", "5")
    say("sessions", "publish", s)
    say("sessions", "publish", s)
    say("sessions", "receipts", s)
    say("search", "dark")
    again = say("sessions", "reopen", s)["id"]
    say("sessions", "rollback", s)
    say("sessions", "discard", again)
    say("sessions", "show", again)
    say("sessions", "revive", again)
    say("sessions", "list", "--text", "lamps", "--limit", "1")
    for entry in say("sessions", "export", s)["history"]:
        entry["header"][_FINGERPRINT] = ""  # over a service every write has a change id, and so what tells a resend
        entry["payload"].get("changes", []).sort()
    say("tiers", "archive", s, again)
    say("tiers", "archive", s)
    say("tiers", "archive", s, "0" * 32)
    say("tiers", "archive", "0" * 32)
    say("tiers", "archive", "--idle", "1h", "--dry-run")
    say("tiers", "restore", s)
    say("tiers", "suspend", s)
    say("tiers", "flush", "--retry")
    say("tiers", "status")["warm"].pop("bytes")
    say("sweep")
    say("keys", "list")
    say("keys", "rotate")
    say("verify", s)
    say("verify", s, "--repair")
    told.append(sorted({(line["actor"], line["verb"]) for line in line.json("audit", "--session", s)[1]["lines"]}))
    return told


def masked(told: Any) -> Any:
    """The same with ids, times and hashes named in the order they come in."""
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return "<time>" if ":" in found[0] else names.setdefault(found[0], f"<{len(names)}>")

    return json.loads(MASKED.sub(name, json.dumps(told)))


def differing(told: Any, other: Any, where: str = "") -> list[Any]:
    """The innermost parts that are not the same."""
    if isinstance(told, dict) and isinstance(other, dict) and told.keys() == other.keys():
        return [one for name in told for one in differing(told[name], other[name], f"{where}.{name}")]
    if isinstance(told, list) and isinstance(other, list) and len(told) == len(other):
        return [
            one for at, pair in enumerate(zip(told, other, strict=True)) for one in differing(*pair, f"{where}.{at}")
        ]
    return [] if told == other else [(where, told, other)]


def test_a_whole_life_over_a_service_says_what_it_says_locally(local: Line, remote: Line, document: Path) -> None:
    here, there = masked(life(local, document)), masked(life(remote, document))
    assert differing(there, here) == []
    codes = {told[1] for told in here[:-1]}
    assert codes >= {0, 3, 4, 5, 6}, "the story meets fewer errors than it did"


def test_the_environment_says_where_and_who(service: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOLDFAST_URL", service.address)
    line = Line()
    assert line("sessions", "list").exit_code == 9
    assert "HOLDFAST_TOKEN" in line("sessions", "list").stderr
    monkeypatch.setenv("HOLDFAST_TOKEN", "not-it")
    result = line("sessions", "list")
    assert result.exit_code == 5
    assert "--token-file says who asks" in result.stderr
    monkeypatch.setenv("HOLDFAST_TOKEN", str(service.token))
    assert line("sessions", "list").exit_code == 0
    home = tmp_path / "home"  # a home that is named goes before
    assert line("--home", str(home), "sessions", "list").exit_code == 0
    assert (home / "holdfast.sqlite").exists()


def test_url_and_token_may_stand_before_the_command_or_after_it(service: Served) -> None:
    words = ("--url", service.address, "--token-file", str(service.home / "token"))
    assert Line()("keys", "list", *words).exit_code == 0
    assert Line(*words)("keys", "list").exit_code == 0


@pytest.mark.parametrize("options", [("--as", "ben"), ("--tenant", "other"), ("--home", "elsewhere")])
def test_who_and_where_are_not_said_twice(remote: Line, options: tuple[str, str]) -> None:
    result = remote("sessions", "list", *options)
    assert result.exit_code == 2
    assert f"{options[0]} is for a home" in result.stderr


@pytest.mark.parametrize("command", [("demo",), ("bench", "--quick"), ("settings",), ("serve",)])
def test_what_is_about_this_machine_refuses_a_service(remote: Line, command: tuple[str, ...]) -> None:
    result = remote(*command)
    assert result.exit_code == 2
    assert "leave --url out" in result.stderr


def test_settings_of_this_machine_can_be_seen_while_a_service_is_named(
    service: Served, monkeypatch: pytest.MonkeyPatch, local: Line
) -> None:
    monkeypatch.setenv("HOLDFAST_URL", service.address)
    monkeypatch.setenv("HOLDFAST_TOKEN", str(service.token))
    result = local("settings")
    assert result.exit_code == 0
    assert str(service.token) not in result.output


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://holdfast.example", 9, "use https"),
        ("ftp://127.0.0.1", 9, "http:// or https://"),
        ("http://127.0.0.1/#token=abc", 9, "HOLDFAST_TOKEN"),
    ],
)
def test_an_address_that_cannot_be_is_told(service: Served, url: str, code: int, said: str) -> None:
    result = Line("--url", url, "--token-file", str(service.home / "token"))("sessions", "list")
    assert result.exit_code == code
    assert said in result.stderr
    assert "abc" not in result.output


def test_a_token_file_that_is_not_there_is_told(service: Served, tmp_path: Path) -> None:
    result = Line("--url", service.address, "--token-file", str(tmp_path / "none"))("sessions", "list")
    assert result.exit_code == 2
    assert "No such file" in result.stderr
    (tmp_path / "empty").write_text("\n")
    assert Line("--url", service.address, "--token-file", str(tmp_path / "empty"))("sessions", "list").exit_code == 9


def test_an_unknown_outcome_is_told_with_the_change_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("holdfast.client.transport._FIRST_PAUSE", 0.001)
    monkeypatch.setenv("HOLDFAST_TOKEN", "a-token")
    heard: list[bytes] = []

    class Deaf(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            heard.extend(line for line in iter(self.rfile.readline, b"\r\n") if line.startswith(b"idempotency-key"))

    with socketserver.TCPServer(("127.0.0.1", 0), Deaf) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        line = Line("--url", f"http://127.0.0.1:{server.server_address[1]}")
        code, told = line.json("sessions", "rename", "s" * 32, "Lamps")
        result = line("sessions", "rename", "s" * 32, "Lamps")
        server.shutdown()
        thread.join()
    assert code == result.exit_code == 7
    assert told["error"]["change_id"] == heard[0].split()[1].decode()
    assert f"the change id is {heard[-1].split()[1].decode()}" in result.stderr
    assert len(set(heard)) == 2


def test_it_speaks_to_people_too(remote: Line, document: Path) -> None:
    made = remote("ingest", str(document))
    assert made.exit_code == 0, made.output
    s = made.stdout.strip()
    assert "Next: `holdfast sessions lock" in remote("sessions", "show", s).stdout
    assert "--at" in remote("sessions", "run", s, "split", "--help").stdout
    locked = remote("sessions", "lock", s)
    assert "seal" in locked.stdout
    assert "Published version 1" in remote("sessions", "publish", s).stdout
    assert "all of it adds up" in remote("verify", s).stdout


def test_a_command_of_a_home_loads_no_client(cli: Cli) -> None:
    statement = (
        "import sys\nfrom holdfast.cli.main import app\n"
        f"app(['--home', {str(cli.home)!r}, 'sessions', 'list'], standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stderr.split()).isdisjoint({"httpx2", "holdfast.client.client", "fastapi", "uvicorn"})
