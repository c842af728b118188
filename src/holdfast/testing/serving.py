"""A real ``holdfast serve``: a child process on a free port and a home of its own choosing.

For what only a process can show: that it comes up, that it stops when told to, that what it acknowledged outlives its
death, and that several of them on one home agree. Needs the [server] extra.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from holdfast.settings import SETTINGS, Settings

READY_SECONDS = 20.0
"""How long a child may take to come up."""
STOP_SECONDS = 15.0
"""How long a child may take to end at the end of its block: three times what it promises, since machines are busy."""

_RUN = "from holdfast.cli.main import main; main()"
_AROUND = (
    "import functools, importlib, holdfast.service.app as app; module, name = {wrap!r}.split(':');"
    "app.open_engine = functools.partial(app.open_engine, wrap=getattr(importlib.import_module(module), name)); "
)


class Ready(msgspec.Struct):
    """The line that ``holdfast serve --json`` prints once it can be spoken to."""

    address: str
    pid: int
    mode: str


class Served:
    """A running service, and the hand that ends it.

    Attributes:
        address: where it is to be found, such as ``http://127.0.0.1:40213``.
        token: what to send as ``Authorization: Bearer …`` in local mode; None where an issuer is set.
        mode: ``local``, or ``issuer``.
        process: the child.
        home: the directory of everything it stores.
    """

    def __init__(
        self, ready: Ready, token: str | None, process: asyncio.subprocess.Process, home: Path, log: IO[bytes]
    ):
        self.address, self.mode = ready.address, ready.mode
        self.token, self.process, self.home, self._log = token, process, home, log

    @property
    def headers(self) -> dict[str, str]:
        """The header that says who asks, in local mode."""
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}

    @property
    def log(self) -> str:
        """What it has written to standard error so far."""
        return _read(self._log)

    async def stop(self, signal: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code, negative where the signal itself ended it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal)
        return await self.process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL); ``await process.wait()`` to be sure that it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


@contextlib.asynccontextmanager
async def served(
    given: Settings | Mapping[str, str] | None = None,
    *,
    home: Path,
    port: int = 0,
    wrap: str | None = None,
    **environ: str,
) -> AsyncIterator[Served]:
    """Start ``holdfast serve`` and wait until it can be spoken to; at the end of the block it is stopped, if need be.

    Args:
        given: settings, or ``HOLDFAST_*`` variables. The child has no others: those of this process are not inherited.
        home: its home, in place of the one in ``given``.
        port: where it listens; 0 takes a free port.
        wrap: what the child puts around its hot store, such as ``holdfast.testing.broken:Unchecked``.
        environ: more variables, ``HOLDFAST_SERVICE__RATE="5"``.
    Raises:
        RuntimeError: it did not come up within ``READY_SECONDS``, or did not end within ``STOP_SECONDS``; says what it
            wrote to standard error.
    """
    variables = variables_of(given) if isinstance(given, Settings) else dict(given or {})
    run = _RUN if wrap is None else _AROUND.format(wrap=wrap) + _RUN
    own = {"HOLDFAST_HOME": str(home), "HOLDFAST_SERVICE__PORT": str(port)}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", run, "serve", "--json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**inherited, **variables, **own, **environ},
        )
        try:
            ready = await _ready(process, log)
            token = (home / "token").read_text("ascii").strip() if ready.mode == "local" else None
            yield Served(ready, token, process, home, log)
        finally:
            await _end(process, log)


def variables_of(settings: Settings) -> dict[str, str]:
    """Settings as the environment variables that give them, those at their default left out; secrets are among them."""
    default = Settings(home=settings.home)
    variables: dict[str, str] = {}
    for setting in SETTINGS:
        value: Any = settings
        usual: Any = default
        for part in setting.name.split("."):
            value, usual = getattr(value, part), getattr(usual, part)
        if isinstance(value, Mapping):
            variables |= {f"{setting.variable}__{name.upper()}": str(url) for name, url in value.items()}
        elif value != usual:
            variables[setting.variable] = _said(value)
    return variables


def _said(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


async def _ready(process: asyncio.subprocess.Process, log: IO[bytes]) -> Ready:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_SECONDS):
            return msgspec.json.decode(await process.stdout.readline(), type=Ready)
    except (TimeoutError, msgspec.DecodeError):
        raise RuntimeError(f"`holdfast serve` did not come up. It said:\n{_read(log)}") from None


async def _end(process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
    """Stop a child that still runs, and read its output to the end, so that nothing of it is left open."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        if isinstance(error, TimeoutError):
            raise RuntimeError(f"`holdfast serve` did not end. It said:\n{_read(log)}") from None
        raise


def _read(log: IO[bytes]) -> str:
    """What a file holds that another process writes to; the place where it writes is not moved."""
    return os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode(errors="replace")
