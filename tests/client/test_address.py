"""Which addresses and tokens a client takes: nothing that shows a token to others (S12)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from holdfast.client import Client
from holdfast.client.address import checked_address
from holdfast.errors import ConfigurationError, MissingExtraError

TOKEN = "t0ken-of-the-test"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://127.0.0.1:8420", "http://127.0.0.1:8420"),
        ("http://127.9.9.9/", "http://127.9.9.9"),
        ("http://LOCALHOST:1/", "http://LOCALHOST:1"),
        ("http://[::1]:8420", "http://[::1]:8420"),
        ("https://holdfast.example", "https://holdfast.example"),
        ("https://example.org/behind/a/proxy/", "https://example.org/behind/a/proxy"),
    ],
)
def test_an_address_is_taken(given: str, taken: str) -> None:
    assert checked_address(given, insecure=False) == taken


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "127.0.0.1:8420",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "http://",
        "https://:8420",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:x",
        "http://ana:secret@127.0.0.1",
        "http://ana@127.0.0.1",
        "http://127.0.0.1/?token=secret",
        "http://127.0.0.1:8420/#token=secret",
        "http://[::1",
    ],
)
def test_an_address_is_refused(given: str | None) -> None:
    with pytest.raises(ConfigurationError) as raised:
        checked_address(given, insecure=True)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "host", ["holdfast.example", "10.0.0.1", "0.0.0.0", "[::]", "127.0.0.1.example", "localhost.x"]
)
def test_plain_http_to_another_machine_has_to_be_asked_for(host: str) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        Client(f"http://{host}", token=TOKEN)
    assert host in repr(Client(f"http://{host}", token=TOKEN, insecure=True))


def test_the_environment_says_where_and_who(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOLDFAST_URL", "HOLDFAST_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match="HOLDFAST_URL"):
        Client(token=TOKEN)
    monkeypatch.setenv("HOLDFAST_URL", "http://127.0.0.1:8420")
    with pytest.raises(ConfigurationError, match="HOLDFAST_TOKEN"):
        Client()
    monkeypatch.setenv("HOLDFAST_TOKEN", TOKEN)
    assert repr(Client()) == "<Client http://127.0.0.1:8420>"


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "tök", "x" * 9_000, " edge"])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Client("http://127.0.0.1", token=token)
    assert token not in str(raised.value)


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(LookupError, match="async with"):
        await Client("http://127.0.0.1", token=TOKEN).whoami()


async def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtraError) as raised:
        async with Client("http://127.0.0.1", token=TOKEN):
            pass
    assert raised.value.extra == "client"


def test_the_client_loads_no_server_and_no_store() -> None:
    loaded = loaded_after("from holdfast.client import Client\nClient('http://127.0.0.1', token='x')")
    assert "holdfast.client.client" in loaded
    assert loaded.isdisjoint({"fastapi", "starlette", "uvicorn", "apsw", "httpx2", "numpy", "obstore", "typer", "rich"})


def test_naming_the_package_loads_next_to_nothing() -> None:
    loaded = loaded_after("import holdfast.client")
    assert loaded.isdisjoint({"holdfast.client.client", "cryptography", "asyncio", "httpx2"})


def loaded_after(statement: str) -> set[str]:
    command = [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())
