"""The servers of the distributed tiers, for the length of a run: what the machine has of them, and what it lacks.

They are started as the tests start theirs: each on a free port, with its data below the home that is measured.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.testing.postgres import PostgresServer, postgres_server, server_user
from holdfast.testing.servers import program, redis_server

if TYPE_CHECKING:
    from holdfast.testing.objects import ObjectServer

BUCKET = "bench"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "nobody-checks-it"}
LANES = 16
"""Connections to Redis that a store makes in turn: a reader who is alone goes by each of them."""
PATIENT = "timeout=20&connect=5"
"""Of a Redis URL: a slow disk is to make the figures larger, not to end the run."""

_SERVERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "redis": (("redis-server",), ("redis", "hiredis")),
    "postgresql": (("postgres", "initdb", "psql"), ("asyncpg",)),
    "s3": ((), ("moto", "flask", "pytest")),
}
_OTHERWISE = {"redis-server": ("valkey-server",)}
"""Programs and packages that each takes, and what does as well."""
_CALLED = {"redis": "redis-py"}
_WITH_IT = ("flask", "pytest")

NAMES = tuple(_SERVERS)


def lacking(server: str) -> list[str]:
    """What is not on this machine of what a server takes."""
    programs, packages = _SERVERS[server]
    missing = [name for name in programs if program(name, *_OTHERWISE.get(name, ())) is None]
    missing += [name for name in packages if find_spec(name) is None]
    if server == "postgresql" and not missing:
        try:
            server_user()
        except RuntimeError:
            missing.append("a user to run it as")
    return missing


def described() -> dict[str, str]:
    """Each server as it is here, or why there are no rows of it."""
    return {server: _told(server) for server in _SERVERS}


@contextlib.contextmanager
def redis(home: Path, fsync: str) -> Iterator[str]:
    """Redis that syncs its file as said; gives its URL. The file is not rewritten meanwhile: that hits either side."""
    settings = {"appendfsync": fsync, "auto_aof_rewrite_percentage": "0"}
    with redis_server(home / "redis", **settings) as server:
        durability = "disk" if fsync == "always" else "hot"
        yield f"{server.url}?durability={durability}&{PATIENT}"


@contextlib.contextmanager
def postgresql() -> Iterator[PostgresServer]:
    """PostgreSQL, as it comes but for its memory; its data is where the system keeps temporary files."""
    with postgres_server(max_wal_size="1GB") as server:
        yield server


@contextlib.contextmanager
def s3(home: Path) -> Iterator[ObjectServer]:
    """Moto's S3, which keeps its objects in memory, with one bucket in it; the environment has credentials for it."""
    from holdfast.testing.objects import object_server  # takes pytest, which is not everywhere

    with object_server(home / "s3") as server, _made_up():
        server.make(BUCKET)
        yield server


@contextlib.contextmanager
def _made_up() -> Iterator[None]:
    """Credentials that nobody checks, in place of whatever the environment has: without any a client would ask the
    machine it runs on for its role's.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(CREDENTIALS)
    try:
        yield
    finally:
        for name in CREDENTIALS:
            os.environ.pop(name, None)
        os.environ.update(before)


def _told(server: str) -> str:
    missing = lacking(server)
    if missing:
        return f"left out: {', '.join(missing)} not on this machine"
    programs, packages = _SERVERS[server]
    found = [_version(name) for name in programs[:1]]
    return ", ".join(
        [*found, *(f"{_CALLED.get(name, name)} {version(name)}" for name in packages if name not in _WITH_IT)]
    )


def _version(name: str) -> str:
    """What a program says of itself, in few words."""
    path = program(name, *_OTHERWISE.get(name, ()))
    said = subprocess.run([str(path), "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603 - found on the machine's own path
    words = said.split()
    number = next((word.removeprefix("v=") for word in words if word.removeprefix("v=")[:1].isdigit()), "")
    return f"{Path(str(path)).name} {number}".strip()
