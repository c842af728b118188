"""F19 and S20: requests that mean harm are refused with a code of ours, in bounded memory; and the service lives on.

``holdfast.testing.hostile`` holds the requests. Memory is measured in processes of their own, so that none is left over
from the one before. How long each took is printed and not asserted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from holdfast.service.problems import STATUSES
from holdfast.testing.hostile import CASES, LEGAL, LIMIT, Case
from holdfast.testing.serving import Served, served

pytestmark = pytest.mark.no_cover  # repeats what others measure once

MOST_GROWTH = 3 * LIMIT
"""Bytes by which the memory of a process may grow over a request, its body included (S20)."""


def child(way: str, *names: str) -> dict[str, dict[str, Any]]:
    script = str(Path(__file__).with_name("hostile.py"))
    done = subprocess.run([sys.executable, script, way, *names], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for line in found:
        print(f"F19 {line['name']}: {line['came_to']}, {line['grown'] / 1e6:.1f} MB, {line['seconds']} s")
    return {line["name"]: line for line in found}


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    """What each request came to."""
    return child("strict")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory a process had")
@pytest.mark.parametrize("name", [*CASES, *LEGAL])
def test_f19_s20_a_hostile_request_is_refused_in_bounded_memory(name: str, results: dict[str, dict[str, Any]]) -> None:
    case, found = {**CASES, **LEGAL}[name], results[name]
    assert found["came_to"] == (case.code or "taken")
    assert found["grown"] <= MOST_GROWTH


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory a process had")
def test_teeth_decoders_and_a_patch_engine_off_the_shelf_fail_these_checks() -> None:
    vast = ["empty arrays", "deep columns", "10^6 names", "10 MB of wide characters", "copy bomb"]
    lenient = ["twice", "a lone surrogate", "1e400", "23 digits", "NaN", "a byte order mark"]
    crashing = ["10^5 nested [", "copies into the depths"]
    found = child("naive", *vast, *lenient, *crashing)
    assert all(found[name]["grown"] > MOST_GROWTH for name in vast)
    assert all(found[name]["came_to"] == "taken" for name in lenient)
    assert all(found[name]["came_to"] == "failed: RecursionError" for name in crashing)


# -- over a socket -----------------------------------------------------------------------------------------------------


async def sent(client: httpx2.AsyncClient, session: str, case: Case, tag: str) -> httpx2.Response:
    """The answer to a request, its body sent in pieces."""
    body = case.body()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    headers = {"content-type": case.media, "if-match": tag, "content-length": str(len(body)), **case.headers}
    if "transfer-encoding" in headers:
        del headers["content-length"]
    return await client.patch(session, content=pieces(), headers=headers)


def memory(server: Served, line: str) -> int:
    """A line of what the system says of a server's memory, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"^{line}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1_024


def forget_peak(server: Served) -> int:
    """Let the peak begin anew from what the server has now, and tell what that is."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return memory(server, "VmRSS")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory a process had")
async def test_f19_s20_a_service_refuses_them_all_in_bounded_memory_and_goes_on(tmp_path: Path) -> None:
    first = {"kind": "knowledge", "items": [{"key": "chunks/1", "body": {"text": "old"}}]}
    async with (
        served(home=tmp_path / "home") as server,
        httpx2.AsyncClient(base_url=server.address, headers=server.headers, timeout=60) as client,
    ):
        made = await client.post("/v1/sessions", json=first)
        session, tag = made.headers["location"], made.headers["etag"]
        wrong, grown = [], {}
        for name, case in CASES.items():
            before = forget_peak(server)
            answer = await sent(client, session, case, tag)
            grown[name] = memory(server, "VmHWM") - before
            if (answer.status_code, answer.json()["code"]) != (STATUSES[case.code or ""], case.code):
                wrong.append((name, answer.status_code, answer.text[:300]))
        print({name: f"{growth / 1e6:.1f} MB" for name, growth in grown.items() if growth > LIMIT})
        assert not wrong
        assert all(growth <= MOST_GROWTH for growth in grown.values())
        assert (await client.get(session)).json()["items"][0]["body"] == {"text": "old"}
        for case in LEGAL.values():
            tag = (await client.get(session)).headers["etag"]
            answer = await sent(client, session, case, tag)
            assert answer.status_code == 200, answer.text
        assert "Traceback" not in server.log
