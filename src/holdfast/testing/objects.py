"""An object server of a test's own (moto's, which speaks as S3 does), and a gateway before it that can misbehave.

moto is a Python package. Where it is missing the test skips by its name, and fails where ``CI`` is set: what CI does
not run is not tested. It keeps everything in memory: what was killed comes back empty.

A condition such as "only if there is no such object" is decided by S3 in one step with the write (its documentation:
"Conditional writes"). moto looks first and writes then, in threads, so that of two racers both may win. The server here
therefore lets one request that writes in at a time, once it has its body.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import os
import ssl
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from holdfast.testing.loopback import Loopback
from holdfast.testing.servers import READY_SECONDS, Server, absent, running

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "holdfast-tests", "AWS_SECRET_ACCESS_KEY": "nobody-checks-it"}


def give_credentials(patch: pytest.MonkeyPatch) -> None:
    """Put credentials into the environment, and nothing else that is for S3 or another provider; moto takes any."""
    take_credentials(patch)
    for name, value in _CREDENTIALS.items():
        patch.setenv(name, value)


def take_credentials(patch: pytest.MonkeyPatch) -> None:
    """Leave nothing in the environment that is for a provider of object stores."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        patch.delenv(name)


def needs_moto() -> None:
    """Skip the test where moto's server is not installed; in CI it fails."""
    if not all(importlib.util.find_spec(name) for name in ("moto", "flask")):
        absent("moto[server] is not installed")


class ObjectServer(Server):
    """moto's server as a process of its own; what is started is empty.

    Attributes:
        certificate: the files of a certificate and its key, None for plain HTTP.
    """

    name = "moto's server"

    def __init__(self, folder: Path, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(folder)
        self.certificate = certificate

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def url(self, where: str, **options: str) -> str:
        """The URL of a cold tier in it, such as of ``bucket/prefix``."""
        return f"s3://{where}?" + urlencode({"endpoint": self.endpoint, **options})

    def make(self, bucket: str) -> None:
        """Make a bucket; one that is there is left as it is. Over plain HTTP only."""
        self.ask("PUT", f"/{bucket}")

    def ask(self, method: str, path: str) -> bytes:
        """One request without a signature, as moto lets anybody send it."""
        request = urllib.request.Request(self.endpoint + path, method=method)  # noqa: S310 - the loopback
        with urllib.request.urlopen(request, timeout=READY_SECONDS) as answer:  # noqa: S310
            return bytes(answer.read())

    def _command(self) -> list[str]:
        needs_moto()
        return [sys.executable, "-m", "holdfast.testing.objects", str(self.port), *map(str, self.certificate or ())]


def object_server(
    folder: Path, certificate: tuple[Path, Path] | None = None
) -> contextlib.AbstractContextManager[ObjectServer]:
    """A server, running; killed at the end."""
    return running(partial(ObjectServer, folder, certificate))


class OneWriter:
    """A WSGI application in which one request that writes goes on at a time."""

    def __init__(self, application: Any) -> None:
        self._application, self._writing = application, threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            answer: Iterable[bytes] = self._application(environ, start_response)
            return answer
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self._writing:
            return list(self._application({**environ, "wsgi.input": io.BytesIO(body)}, start_response))


def serve(port: int, certificate: Path | None = None, key: Path | None = None) -> None:
    """Serve moto's S3 on the loopback until the process ends."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    secure = None
    if certificate is not None:
        secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secure.load_cert_chain(certificate, key)
    application = OneWriter(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", port, application, threaded=True, ssl_context=secure)


class Asked(msgspec.Struct, frozen=True):
    """A request as it came; the names of its headers are in small letters."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Answer(msgspec.Struct, frozen=True):
    """An answer in place of the server's, which is not asked; or as it came from there."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Fault(msgspec.Struct, frozen=True):
    """What is done to the server's own answer.

    Attributes:
        late: seconds by which it is late.
        lost: it is not sent at all, and the connection is reset: what was asked has been done.
        upto: so many bytes of the body are sent, None for all.
        reset: the connection is then reset, rather than closed.
        shorter: the answer calls that its whole length.
        wrong: the last byte of the body is another one.
    """

    late: float = 0.0
    lost: bool = False
    upto: int | None = None
    reset: bool = False
    shorter: bool = False
    wrong: bool = False


Rule = Callable[[Asked], "Answer | Fault | None"]


class Gateway(Loopback):
    """An HTTP server that passes requests on, one a connection.

    Attributes:
        rule: asked for each request what to do with it; None passes it on and its answer back.
        asked: every request so far.
    """

    def __init__(self, there: tuple[str, int] | None = None) -> None:
        super().__init__()
        self._there = there
        self.rule: Rule = lambda asked: None
        self.asked: list[Asked] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, where: str, **options: str) -> str:
        """The URL of a cold tier behind it, such as of ``bucket/prefix``."""
        return f"s3://{where}?" + urlencode({"endpoint": self.endpoint, **options})

    def heal(self) -> None:
        """No more faults."""
        self.rule = lambda asked: None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, headers, body = await _message(reader)
        method, target, _ = first.split(" ", 2)
        asked = Asked(method, target, headers, body)
        self.asked.append(asked)
        ruled = self.rule(asked)
        if isinstance(ruled, Answer):
            _write(writer, ruled, ruled.body if method != "HEAD" else b"")
            return
        fault = ruled or Fault()
        answer = await self._forwarded(asked)
        if fault.late:
            await asyncio.sleep(fault.late)
        if fault.lost:
            writer.transport.abort()
            return
        sent = answer.body[: fault.upto]
        if fault.wrong and sent:
            sent = sent[:-1] + bytes([sent[-1] ^ 1])
        if fault.shorter:
            answer = msgspec.structs.replace(answer, headers={**answer.headers, "content-length": str(len(sent))})
        _write(writer, answer, sent)
        await writer.drain()
        if fault.reset:
            await asyncio.sleep(0.05)  # for what was sent to arrive first
            writer.transport.abort()

    async def _forwarded(self, asked: Asked) -> Answer:
        assert self._there is not None, "there is no server behind this gateway: its rule answers everything"
        there, back = await asyncio.open_connection(*self._there, limit=1 << 20)
        try:
            kept = {name: value for name, value in asked.headers.items() if name not in ("connection", "expect")}
            lines = [f"{asked.method} {asked.target} HTTP/1.1", *(f"{name}: {kept[name]}" for name in kept)]
            back.write("\r\n".join([*lines, "connection: close", "", ""]).encode() + asked.body)
            await back.drain()
            first, headers, body = await _message(there, to_end=True, empty=asked.method == "HEAD")
            return Answer(int(first.split(" ")[1]), body, headers)
        finally:
            back.transport.abort()


async def _message(
    reader: asyncio.StreamReader, *, to_end: bool = False, empty: bool = False
) -> tuple[str, dict[str, str], bytes]:
    """The first line, the headers and the body of a message."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    if empty:
        return lines[0], headers, b""
    if "content-length" in headers:
        return lines[0], headers, await reader.readexactly(int(headers["content-length"]))
    return lines[0], headers, await reader.read() if to_end else b""


def _write(writer: asyncio.StreamWriter, answer: Answer, body: bytes) -> None:
    headers = {"content-length": str(len(answer.body)), **answer.headers, "connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} -", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + body)


if __name__ == "__main__":
    serve(int(sys.argv[1]), *map(Path, sys.argv[2:]))
