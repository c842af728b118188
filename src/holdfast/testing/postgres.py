"""A PostgreSQL server of a test's own, and a pooler before it: real ones, on free ports, gone at the end.

The programs are those of the machine (Debian's ``postgresql`` and ``pgbouncer``): from ``PATH``, or else from where
Debian puts those that it keeps out of it.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import hashlib
import hmac
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from holdfast.testing.servers import comes_up, free_port, listens, needed

UP_SECONDS = 30.0
"""How long a server may take to come up; one that recovers from a crash has to read its log first."""
_PASSWORD = secrets.token_hex(16)
_USER = "holdfast"
_ALONE = 5
_number = itertools.count(1)

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "autovacuum": "off",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}


class PostgresServer:
    """A server and its data directory. It can be started, stopped, paused and killed, any number of times.

    Attributes:
        home: the directory of everything it stores; it belongs to the user whom the server runs as.
        port: on the loopback; ``url`` has a user that may do anything, and a password.
    """

    def __init__(self, home: Path, port: int, within: tuple[str, ...] = ()) -> None:
        self.home, self.port, self._within = home, port, within
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = (home / "log").open("ab")

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}:{_PASSWORD}@127.0.0.1:{self.port}/postgres"

    def fresh_url(self) -> str:
        """A URL that nobody has used: tables of a schema of its own."""
        return f"{self.url}?schema=t{os.getpid()}_{next(_number)}"

    @property
    def log(self) -> str:
        """What it has written to its log so far."""
        return (self.home / "log").read_text(errors="replace")

    @property
    def processes(self) -> list[int]:
        """The ids of the server's process and of all that it has started."""
        if self._process is None:
            return []
        ids = [self._process.pid]
        for pid in ids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                ids += [int(child) for child in children.split()]
        return ids

    def start(self, **settings: str) -> None:
        """Start it and wait until it answers.

        Args:
            settings: of this run only, such as ``synchronous_commit="off"``.
        Raises:
            RuntimeError: it does not come up; says what it wrote to its log.
        """
        given = {**_SETTINGS, "unix_socket_directories": str(self.home), "port": str(self.port), **settings}
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        command = [*self._within, needed("postgres"), "-D", str(self.home / "data"), *options]
        if self._within:  # as root, who alone may mount: the server then runs as somebody else
            command[len(self._within) :] = ["setpriv", *_as_somebody(), *command[len(self._within) :]]
        self._process = subprocess.Popen(  # noqa: S603 - found on the machine's own path
            command, stdout=self._log, stderr=self._log, start_new_session=True, **({} if self._within else _somebody())
        )
        if not comes_up(self._process, self._answers, UP_SECONDS):
            self.kill()
            raise RuntimeError(f"PostgreSQL did not come up. It said:\n{self.log}")

    def stop(self) -> None:
        """Stop it as an operator would, closing what is open."""
        if self._process is not None:
            self._signal([self._process.pid], signal.SIGINT)
            try:
                self._process.wait(UP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End it as a crash would: ``SIGKILL`` to every process of it."""
        if self._process is not None:
            ids = self.processes
            self._signal(ids, signal.SIGKILL)
            self._process.wait()
            until = time.monotonic() + UP_SECONDS
            while any(_lives(pid) for pid in ids[1:]) and time.monotonic() < until:
                time.sleep(0.005)
            self._process = None

    def pause(self) -> None:
        """Let it answer no more (``SIGSTOP``): connections stand, and nothing comes."""
        self._signal(self.processes, signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(self.processes, signal.SIGCONT)

    def run(self, sql: str) -> str:
        """What a statement gives, asked as the server's own user through ``psql``."""
        done = subprocess.run(  # noqa: S603 - as above
            [needed("psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, self.url],
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def close(self) -> None:
        self.kill()
        self._log.close()

    def _answers(self) -> bool:
        with contextlib.suppress(RuntimeError):
            return self._ready() and self.run("SELECT 1") == "1"
        return False

    def _ready(self) -> bool:
        """Whether it says so in the file that it keeps while it runs: to ask each time takes a process of ``psql``."""
        assert self._process is not None
        with contextlib.suppress(FileNotFoundError):
            said = (self.home / "data" / "postmaster.pid").read_text().splitlines()
            return said[:1] == [str(self._process.pid)] and [line.strip() for line in said[7:8]] == ["ready"]
        return False

    @staticmethod
    def _signal(ids: list[int], which: signal.Signals) -> None:
        for pid in ids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, which)


@contextlib.contextmanager
def postgres_server(*, within: tuple[str, ...] = (), **settings: str) -> Iterator[PostgresServer]:
    """A new server, running; at the end of the block it is killed and its data removed.

    Args:
        within: a command to start it under, by root, that turns into it, such as one that mounts something for it.
        settings: as of ``PostgresServer.start``.
    """
    with _home() as home:
        subprocess.run(  # noqa: S603 - as above
            [needed("cp"), "-a", str(_new_data()), str(home / "data")], check=True, cwd=home, **_somebody()
        )
        for attempt in range(_ALONE):
            server = PostgresServer(home, free_port(), within)
            try:
                server.start(**settings)
                break
            except RuntimeError:  # somebody else has taken the port in between
                server.close()
                if attempt == _ALONE - 1:
                    raise
        try:
            yield server
        finally:
            server.close()


@contextlib.contextmanager
def pooler(server: PostgresServer, **settings: str) -> Iterator[str]:
    """PgBouncer in transaction mode before a server; gives the URL of the same database through it.

    Args:
        settings: of PgBouncer, such as ``default_pool_size="2"``.
    """
    port = free_port()
    with _home() as home:
        given = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(port),
            "unix_socket_dir": "",
            "auth_type": "plain",
            "auth_file": str(home / "users"),
            "pool_mode": "transaction",
            "default_pool_size": "2",
            "max_client_conn": "200",
            **settings,
        }
        (home / "users").write_text(f'"{_USER}" "{_PASSWORD}"\n')
        lines = [f"{name} = {value}" for name, value in given.items()]
        databases = f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
        (home / "pgbouncer.ini").write_text(databases + "\n".join(lines) + "\n")
        _hand_over(home, home / "users", home / "pgbouncer.ini")
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - as above
                [needed("pgbouncer"), str(home / "pgbouncer.ini")], stdout=log, stderr=log, **_somebody()
            )
            try:
                if not comes_up(process, partial(listens, port), UP_SECONDS):
                    raise RuntimeError(f"PgBouncer did not come up. It said:\n{(home / 'log').read_text()}")
                yield server.url.replace(f":{server.port}/", f":{port}/")
            finally:
                process.kill()
                process.wait()


@functools.cache
def _new_data() -> Path:
    """A data directory that no server has used: each of this process begins with a copy of it. To make one takes a
    second of work, to copy it a fifth of that.
    """
    program, kept = needed("initdb"), contextlib.ExitStack()
    atexit.register(kept.close)
    home = kept.enter_context(_home())
    password, data = home / "password", home / "data"
    password.write_text(_verifier(_PASSWORD))
    _hand_over(password)
    subprocess.run(  # noqa: S603 - as above
        [
            *(program, "-D", str(data), "-U", _USER, "--pwfile", str(password), "-A"),
            *("scram-sha-256", "-E", "UTF8", "--locale", "C", "--data-checksums", "--no-sync"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=home,
        **_somebody(),
    )
    return data


def _verifier(password: str) -> str:
    """What PostgreSQL keeps of a password (RFC 5803), hashed once in place of 4,096 times: each connection of a test
    would do that again.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    client, server = (hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key"))
    kept = [base64.b64encode(part).decode() for part in (salt, hashlib.sha256(client).digest(), server)]
    return f"SCRAM-SHA-256$1:{kept[0]}${kept[1]}:{kept[2]}"


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """A directory that whoever the server runs as may use, wherever the test's own ones are."""
    home = Path(tempfile.mkdtemp(prefix="holdfast-postgres-"))
    try:
        _hand_over(home)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def server_user() -> pwd.struct_passwd | None:
    """Whom to run as where this process is root, as which PostgreSQL does not run; None where it is not."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _somebody() -> dict[str, Any]:
    """What makes a child run as that user."""
    user = server_user()
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _as_somebody() -> list[str]:
    user = server_user()
    return [] if user is None else [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _hand_over(*paths: Path) -> None:
    user = server_user()
    if user is not None:
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False
