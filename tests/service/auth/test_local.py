"""S10: local mode: the token of a home, the one person it stands for, and the one machine it is good on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError, UnauthenticatedError
from holdfast.model.access import Principal
from holdfast.service.auth import local
from holdfast.service.auth.caller import NONE_SENT, NOT_VALID
from holdfast.service.auth.local import LocalAuthenticator, check_loopback, is_loopback, local_token
from holdfast.settings.user import system_user

HERE = ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "localhost", "LOCALHOST"]
NOT_HERE = [
    "",
    "0.0.0.0",
    "::",
    "*",
    "192.168.1.1",
    "128.0.0.1",
    "example.org",
    "localhost.example.org",
    "127.0.0.1.example.org",
    "127.0.0.1@example.org",
    "localhost\0.example.org",
    "local host",
    "127.1",
    "0127.0.0.1",
    "2130706433",
    "0x7f000001",
    "::ffff:127.0.0.1",
    "::1%eth0",
    "fe80::1",
    "[127.0.0.1]",
    "[localhost]",
    "[::1",
    "::1]",
    "127.0.0.1:",
    "127.0.0.1:http",
    "127.0.0.1:123456",
    "127.0.0.1:80:80",
    "[::1]80",
    " 127.0.0.1",
    "127.0.0.1 ",
    "127.0.0.1\n",
    "localhost.",
]


# -- the file ----------------------------------------------------------------------------------------------------------


def test_s10_the_first_start_makes_a_token_that_only_its_owner_can_read(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    token = local_token(home)
    path = home / "token"
    assert path.read_bytes() == token.encode() + b"\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [file.name for file in home.iterdir()] == ["token"]
    assert local_token(home) == token


def test_s10_the_mode_of_the_file_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        local_token(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_s10_a_token_is_256_bits_that_nobody_can_guess(tmp_path: Path) -> None:
    tokens = {local_token(tmp_path / str(number)) for number in range(200)}
    assert len(tokens) == 200
    assert {len(token) for token in tokens} == {43}
    for place in range(42):
        assert len({token[place] for token in tokens}) > 30  # of 64 letters, 61 on the average


def test_s10_processes_that_start_at_once_agree_on_one_token(tmp_path: Path) -> None:
    home = tmp_path / "home"
    code = (
        "import sys; from pathlib import Path; from holdfast.service.auth.local import local_token;"
        "print('ready', flush=True); sys.stdin.readline(); print(local_token(Path(sys.argv[1])))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert told == {local_token(home)}
    assert [file.name for file in home.iterdir()] == ["token"]


def test_s10_of_two_that_make_the_file_the_first_one_s_counts(tmp_path: Path) -> None:
    local._make(tmp_path / "token")
    first = (tmp_path / "token").read_bytes()
    local._make(tmp_path / "token")
    assert (tmp_path / "token").read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_s10_a_file_that_others_can_use_is_refused(mode: int, tmp_path: Path) -> None:
    token = local_token(tmp_path)
    (tmp_path / "token").chmod(mode)
    with pytest.raises(ConfigurationError, match="Others may read") as caught:
        local_token(tmp_path)
    assert token not in str(caught.value)
    (tmp_path / "token").chmod(0o600)
    assert local_token(tmp_path) == token


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"short\n", b"x" * 42, b"x" * 201, b"x" * 2_000, b"x" * 43 + b"\n\n", b" " + b"x" * 43,
     b"x" * 43 + b" y", b"\xff" * 43, b"x" * 21 + b"\0" + b"x" * 21, b"x" * 50 + b"\nx"],
)  # fmt: skip
def test_s10_a_file_that_holds_no_token_is_refused_and_not_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="holds no token"):
        local_token(tmp_path)
    assert path.read_bytes() == content


def test_s10_what_is_no_file_is_refused(tmp_path: Path) -> None:
    makes: dict[str, Callable[[Path], None]] = {
        "a folder": lambda path: path.mkdir(0o700),
        "a pipe": lambda path: os.mkfifo(path, 0o600),
        "a device": lambda path: path.symlink_to("/dev/null"),
    }
    for name, make in makes.items():
        home = tmp_path / name
        home.mkdir()
        make(home / "token")
        with pytest.raises(ConfigurationError):
            local_token(home)


def test_s10_a_home_that_cannot_be_written_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        local_token(tmp_path / "home")


# -- who asks ----------------------------------------------------------------------------------------------------------


async def test_who_has_the_token_is_the_user_and_admin_of_the_local_tenant(tmp_path: Path) -> None:
    verifier = LocalAuthenticator(tmp_path)
    await verifier.open()
    caller = await verifier.authenticate(f"Bearer {local_token(tmp_path)}")
    assert caller.principal == Principal(system_user(), "local", frozenset({"admin", "operator"}))
    assert (caller.token, caller.expires) == ("", None)
    assert verifier.stands(caller)
    await verifier.close()


async def test_s10_nobody_else_gets_in(tmp_path: Path) -> None:
    verifier = LocalAuthenticator(tmp_path / "one")
    token = local_token(tmp_path / "one")
    wrong = ["", "x", token[:-1], token + "x", token.swapcase(), token[::-1], f" {token}", f"{token}\n", "\0" * 43, "é",
             local_token(tmp_path / "two"), "x" * 1_000_000]  # fmt: skip
    await verifier.open()
    for each in wrong:
        with pytest.raises(UnauthenticatedError) as caught:
            await verifier.authenticate(f"Bearer {each}")
        assert caught.value.reason == NOT_VALID
    for header in (None, "", token, f"Basic {token}", f"Bearer{token}"):
        with pytest.raises(UnauthenticatedError) as caught:
            await verifier.authenticate(header)
        assert caught.value.reason == NONE_SENT
    assert (await verifier.authenticate(f"bearer {token}")).principal.id == system_user()


async def test_s10_before_it_is_opened_and_after_it_is_closed_nobody_gets_in(tmp_path: Path) -> None:
    verifier = LocalAuthenticator(tmp_path)
    token = local_token(tmp_path)
    for header in ("Bearer ", "Bearer \0", f"Bearer {token}"):
        with pytest.raises(UnauthenticatedError):
            await verifier.authenticate(header)
    await verifier.open()
    await verifier.close()
    with pytest.raises(UnauthenticatedError):
        await verifier.authenticate(f"Bearer {token}")


async def test_s10_the_token_is_taken_back_by_deleting_the_file_and_starting_again(tmp_path: Path) -> None:
    old = local_token(tmp_path)
    (tmp_path / "token").unlink()
    verifier = LocalAuthenticator(tmp_path)
    await verifier.open()
    assert local_token(tmp_path) != old
    with pytest.raises(UnauthenticatedError):
        await verifier.authenticate(f"Bearer {old}")
    assert old not in repr(vars(verifier))


# -- from where --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HERE)
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_loopback(host)
    check_loopback(host)
    assert is_loopback(f"[{host}]:8420" if ":" in host else f"{host}:8420")
    assert is_loopback(f"[{host}]" if ":" in host else host)


@pytest.mark.parametrize("host", NOT_HERE)
def test_local_mode_is_refused_for_any_other_host_and_says_what_to_set(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match=r"service\.host.*auth\.issuer.*auth\.audience.*auth\.keys"):
        check_loopback(host)
