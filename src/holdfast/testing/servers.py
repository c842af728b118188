"""Real servers for tests: started on free ports in a directory of the test's, killed, paused and brought back.

The binaries are those of the machine (Debian's package ``redis-server``). Where one is missing the test skips by its
name, and fails where ``CI`` is set: what CI does not run is not tested.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn, Self, TypeVar

READY_SECONDS = 20.0
"""How long a server may take to come up."""


_ATTEMPTS = 3


class PortTakenError(RuntimeError):
    """A port that was free a moment ago is not."""


def program(*names: str) -> str | None:
    """The path of the first of some programs that the machine has, None without any.

    Some are kept out of ``PATH`` by Debian: those of PostgreSQL, of which the newest counts, and those for root.
    """
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
        places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
        places += [path for path in [Path("/usr/sbin") / name] if path.exists()]
        if places:
            return str(places[-1])
    return None


def needed(*names: str) -> str:
    """The first of some programs that the machine has; without any the test skips, and in CI it fails."""
    return program(*names) or absent(f"there is no {' or '.join(names)} on this machine")


def absent(missing: str) -> NoReturn:
    """Skip the test that needs what is missing; in CI fail it: what CI does not run is not tested."""
    import pytest  # only of a test; `holdfast bench` starts servers where there is no pytest

    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(missing)
    raise pytest.skip.Exception(missing)


def free_port() -> int:
    """A port of the loopback that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens on a port of the loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def comes_up(process: subprocess.Popen[bytes], ready: Callable[[], bool], seconds: float) -> bool:
    """Wait until a server is ready; False where it has ended, or was not in time."""
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Server:
    """A server of a test's own: one process, on a free port of the loopback. Subclass it and say how it is started.

    Attributes:
        folder: where its data and its log are; it outlives the process.
        name: what it is called where it did not come up.
    """

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def start(self) -> Self:
        """Start it on what is in its folder, and wait until it is ready.

        Raises:
            RuntimeError: it did not come up within ``READY_SECONDS``; says what it wrote to its log. PortTakenError:
                because of its port.
        """
        command = self._command()
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log.txt"
        with log.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 - found on the machine's own path
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        if not comes_up(self.process, self._ready, READY_SECONDS):
            self.kill()
            said = log.read_text(errors="replace")
            if "already in use" in said:
                raise PortTakenError(f"somebody listens on {self.port} by now")
            raise RuntimeError(f"{self.name} did not come up. It said:\n{said}")
        return self

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Hold it still: connections stay open, and nothing is answered (SIGSTOP)."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _ready(self) -> bool:
        return listens(self.port)


Started = TypeVar("Started", bound=Server)


@contextlib.contextmanager
def running(make: Callable[[], Started]) -> Iterator[Started]:
    """A server, running; killed at the end. Where its port is taken before it has it, another is made."""
    server = make()
    try:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(PortTakenError):
                server.start()
                break
            server = make()
        else:
            server.start()
        yield server
    finally:
        server.kill()


class RedisServer(Server):
    """A Redis server.

    Attributes:
        settings: as in ``redis.conf``; what is changed counts from the next start.
    """

    name = "redis-server"

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder)
        self.settings = {"appendonly": "yes", "appendfsync": "always", "save": "", **settings}
        self._words: list[str] = []

    @classmethod
    def sentinel(cls, folder: Path) -> RedisServer:
        """A sentinel, by the file ``sentinel.conf`` in a folder."""
        server = cls(folder)
        server.settings = {}
        server._words = [str(folder / "sentinel.conf"), "--sentinel"]
        return server

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def say(self, *words: str | bytes) -> bytes:
        """Send one command and give what comes back, as it stands on the wire."""
        said = [word.encode() if isinstance(word, str) else word for word in words]
        command = b"*%d\r\n" % len(said) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in said)
        with socket.create_connection(self.address, timeout=5) as connection:
            connection.sendall(command)
            return connection.recv(65_536)

    def _command(self) -> list[str]:
        given = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.folder), **self.settings}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        return [needed("redis-server", "valkey-server"), *self._words, *words]

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.say("PING").startswith((b"+PONG", b"-NOAUTH"))
        return False


def redis_server(folder: Path, **settings: str) -> contextlib.AbstractContextManager[RedisServer]:
    """A server with an append-only file synced on every write, unless ``settings`` say otherwise; killed at the end.

    Args:
        settings: as in ``redis.conf``, with ``_`` for ``-``: ``maxmemory_policy="allkeys-lru"``.
    """
    return running(partial(RedisServer, folder, **{name.replace("_", "-"): value for name, value in settings.items()}))


@contextlib.contextmanager
def redis_cluster(folder: Path, nodes: int = 3) -> Iterator[list[RedisServer]]:
    """A cluster of servers without replicas, which share out the slots; killed at the end."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                redis_server(
                    folder / f"node-{number}",
                    cluster_enabled="yes",
                    cluster_node_timeout="2000",
                    cluster_port=str(free_port()),  # in place of 10,000 more than the port, which may not be there
                )
            )
            for number in range(nodes)
        ]
        share = 16_384 // nodes
        for number, server in enumerate(servers):
            last = 16_383 if number == nodes - 1 else (number + 1) * share - 1
            server.say("CLUSTER", "ADDSLOTSRANGE", str(number * share), str(last))
            server.say("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for server in servers[1:]:
            servers[0].say("CLUSTER", "MEET", "127.0.0.1", str(server.port), server.settings["cluster-port"])
        deadline = time.monotonic() + READY_SECONDS
        while not all(_agrees(server, nodes) for server in servers):
            if time.monotonic() > deadline:
                raise RuntimeError("the servers of the cluster did not find each other")
            time.sleep(0.02)
        yield servers


def _agrees(server: RedisServer, nodes: int) -> bool:
    info = server.say("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_known_nodes:%d\r" % nodes in info
