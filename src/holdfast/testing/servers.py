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
from collections.abc import Iterator
from pathlib import Path

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
    """The first of some programs that the machine has; without any the test skips, and in CI it fails: what CI does
    not run is not tested.
    """
    found = program(*names)
    if found is not None:
        return found
    import pytest  # only of a test; `holdfast bench` starts servers where there is no pytest

    missing = f"there is no {' or '.join(names)} on this machine"
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(missing)
    raise pytest.skip.Exception(missing)


def free_port() -> int:
    """A port of the loopback that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class RedisServer:
    """A Redis server of a test's own.

    Attributes:
        folder: where its data is; it outlives the process.
        settings: as in ``redis.conf``; what is changed counts from the next start.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.port = folder, free_port()
        self.settings = {"appendonly": "yes", "appendfsync": "always", "save": "", **settings}
        self.process: subprocess.Popen[bytes] | None = None
        self._words: list[str] = []

    @classmethod
    def sentinel(cls, folder: Path) -> RedisServer:
        """A sentinel, by the file ``sentinel.conf`` in a folder."""
        server = cls(folder)
        server.settings = {}
        server._words = [str(folder / "sentinel.conf"), "--sentinel"]
        return server

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> RedisServer:
        """Start it on what is in its folder, and wait until it has loaded that.

        Raises:
            RuntimeError: it did not come up within ``READY_SECONDS``; says what it wrote to its log.
        """
        redis = needed("redis-server", "valkey-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        given = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.folder), **self.settings}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        log = self.folder / "log.txt"
        with log.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 - found on the machine's own path
                [redis, *self._words, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                if "already in use" in log.read_text(errors="replace"):
                    raise PortTakenError(f"somebody listens on {self.port} by now")
                raise RuntimeError(f"redis-server did not come up. It said:\n{log.read_text(errors='replace')}")
            time.sleep(0.01)
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

    def say(self, *words: str | bytes) -> bytes:
        """Send one command and give what comes back, as it stands on the wire."""
        said = [word.encode() if isinstance(word, str) else word for word in words]
        command = b"*%d\r\n" % len(said) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in said)
        with socket.create_connection(self.address, timeout=5) as connection:
            connection.sendall(command)
            return connection.recv(65_536)

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.say("PING").startswith((b"+PONG", b"-NOAUTH"))
        return False


@contextlib.contextmanager
def redis_server(folder: Path, **settings: str) -> Iterator[RedisServer]:
    """A server with an append-only file synced on every write, unless ``settings`` say otherwise; killed at the end.

    Args:
        settings: as in ``redis.conf``, with ``_`` for ``-``: ``maxmemory_policy="allkeys-lru"``.
    """
    given = {name.replace("_", "-"): value for name, value in settings.items()}
    server = RedisServer(folder, **given)
    try:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(PortTakenError):
                server.start()
                break
            server = RedisServer(folder, **given)
        else:
            server.start()
        yield server
    finally:
        server.kill()


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
