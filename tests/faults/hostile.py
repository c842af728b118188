"""A child process that takes the requests of ``holdfast.testing.hostile`` one by one.

It makes each request in a process of its own, gives it to the service's readers and patch engines in another, and
prints a JSON line: what it came to, by how much the memory of that process grew at most, and how long it took.
``naive`` as the first argument takes decoders and a patch engine off the shelf instead; more arguments name requests.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonpatch
from starlette.requests import Request

from holdfast.engine.draft import DraftView
from holdfast.errors import HoldfastError
from holdfast.model.item import Item
from holdfast.model.limits import Limits
from holdfast.model.patch import PatchOperation
from holdfast.service import bodies, patching
from holdfast.service.schemas import Changes
from holdfast.testing.hostile import CASES, LEGAL, LIMIT, MERGE, PATCH, Case
from holdfast.wire.changes import make

LIMITS = Limits()


def request_of(case: Case, body: Path) -> Request:
    """A request whose body comes in pieces, as from a server."""
    file = os.open(body, os.O_RDONLY)
    pieces = iter(lambda: os.read(file, 65_536), b"")
    headers = {"content-type": case.media, **case.headers}
    if "transfer-encoding" not in headers:
        headers["content-length"] = str(body.stat().st_size)

    async def receive() -> dict[str, Any]:
        piece = next(pieces, b"")
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "PATCH", "path": "/", "headers": raw}, receive)


def taken(case: Case, body: Path) -> str:
    return asyncio.run(_taken(case, body))  # all of it: asyncio.run writes out what its coroutine gives back


async def _taken(case: Case, body: Path) -> str:
    """What it comes to: the code it is refused with, or ``taken``. An error that is not ours comes through."""
    draft = DraftView({"chunks/1": Item("chunks/1", "a0", b'{"text":"old"}', 1, 1)}, LIMITS, "change")
    asked = request_of(case, body)
    try:
        if case.media == PATCH:
            operations = await bodies.take(asked, list[PatchOperation], LIMIT, allowed=(PATCH,))
            patching.apply(draft, operations, LIMITS)
        elif case.media == MERGE:
            patching.merge(draft, await bodies.take(asked, dict[str, Any], LIMIT, allowed=(MERGE,)), LIMITS)
        else:
            make(draft, (await bodies.take(asked, Changes, LIMIT)).changes)
    except HoldfastError as error:
        return error.code if len(str(error)) < 1_000 else "too long an answer"
    return "taken"


def naively(case: Case, body: Path) -> str:
    """The same, as it is usually done; 1 GB of memory is all there is."""
    resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))
    try:
        decoded = json.loads(body.read_bytes())
        if case.media == PATCH:
            jsonpatch.apply_patch({"chunks": {"1": {"text": "old"}}}, decoded)
    except (ValueError, jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
        return "refused"
    return "taken"


def memory(line: str) -> int:
    """A line of what the system says of this process' memory, in bytes."""
    found = re.search(rf"^{line}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1_024


def apart(do: Callable[[], None]) -> None:
    """Do something in a process of its own, so that no memory it has used is still there for what comes next."""
    child = os.fork()
    if child == 0:
        try:
            do()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(child, 0)


def make_body(case: Case, body: Path) -> None:
    body.write_bytes(case.body())


def measure(name: str, case: Case, body: Path, take: Callable[[Case, Path], str]) -> None:
    before, since = memory("VmRSS"), time.perf_counter()
    try:
        came_to = take(case, body)
    except BaseException as error:
        came_to = f"failed: {type(error).__name__}"
    seconds, grown = time.perf_counter() - since, memory("VmHWM") - before
    print(json.dumps({"name": name, "came_to": came_to, "grown": grown, "seconds": round(seconds, 3)}))


def main(take: Callable[[Case, Path], str], wanted: list[str]) -> None:
    with TemporaryDirectory() as folder:
        body = Path(folder, "body")
        for name in wanted or {**CASES, **LEGAL}:
            case = {**CASES, **LEGAL}[name]
            apart(partial(make_body, case, body))
            apart(partial(measure, name, case, body, take))


if __name__ == "__main__":
    main(naively if sys.argv[1] == "naive" else taken, sys.argv[2:])
