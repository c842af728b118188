"""R02, F25: what eight clients are told by several server processes on one home, one session could have told them.

Histories are recorded over HTTP, with connections dropped and a server killed (SIGKILL) and started again meanwhile,
and given to the version checker. ``HOLDFAST_TEST_HISTORIES`` says how many (10 here, 500 in ``make histories``).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from holdfast.compose import open_engine
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.testing.broken import Around, Trusting, Unchecked
from holdfast.testing.doors import Servers, services
from holdfast.testing.linearizability import check
from holdfast.testing.recorder import Recorder

pytestmark = pytest.mark.no_cover  # repeats what others measure once

HISTORIES = int(os.environ.get("HOLDFAST_TEST_HISTORIES", "10"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "1"))
REQUESTS, CLIENTS, SERVERS = 200, 8, 2
KILL_EVERY = 4
ROOT = Principal("root", tenant="local", roles=frozenset({"admin", "operator"}))


async def test_r02_what_several_servers_on_one_home_tell_eight_clients_is_linearizable(tmp_path: Path) -> None:
    home, found, checked, kills, spent = tmp_path / "home", [], 0, 0, 0.0
    async with Servers.on(home, SERVERS) as servers:
        recorder = Recorder(servers.doors, SEED)
        for number in range(HISTORIES):
            async with asyncio.TaskGroup() as group:
                if number % KILL_EVERY == KILL_EVERY - 1:
                    kills += 1
                    group.create_task(kill_at(servers, kills % SERVERS, recorder, recorder.asked + REQUESTS // 3))
                ops = await recorder.record(clients=CLIENTS, count=REQUESTS)
            begun = time.perf_counter()
            found += check(ops)
            spent += time.perf_counter() - begun
            checked += len(ops)
    counts = dict(sorted(recorder.counts.items()))
    print(
        f"R02 seed={SEED} histories={HISTORIES} requests={checked} clients={CLIENTS} processes={SERVERS}"
        f" kills={kills} contradictions={len(found)} checking={spent:.2f} s counts={counts}"
    )
    assert [str(one) for one in found[:10]] == []
    seen = ("read ok", "edit ok", "edit conflict", "edit unknown", "undo ok", "redo ok", "undo conflict")
    assert not [what for what in seen if not recorder.counts[what]]
    async with open_engine(Settings(home=home)) as engine:
        assert [one.problems async for one in engine.verify(ROOT) if not one.ok] == []


async def kill_at(servers: Servers, which: int, recorder: Recorder, asked: int) -> None:
    """Wait until so many requests were sent, end a server at once, and start another in its place."""
    while recorder.asked < asked:
        await asyncio.sleep(0.002)
    await servers.restart(which, signal.SIGKILL)


# -- teeth -------------------------------------------------------------------------------------------------------------


async def broken(home: Path, wrap: type[Around], most: int = 5) -> Counter[str]:
    """Which rules histories break that two services with a broken store have told; as many until there is one."""
    rules: Counter[str] = Counter()
    async with services(home, SERVERS, wrap) as doors:
        recorder = Recorder(doors, SEED, drops=0.0)
        for _ in range(most):
            rules += Counter(one.rule for one in check(await recorder.record(clients=CLIENTS, count=REQUESTS)))
            if rules:
                break
    print(f"{wrap.__name__}: {dict(rules)}")
    return rules


@pytest.mark.parametrize(("wrap", "rule"), [(Unchecked, "unique"), (Trusting, "order")])
async def test_teeth_a_broken_store_is_caught(tmp_path: Path, wrap: type[Around], rule: str) -> None:
    """Two writers told saved at one version; a read that sees less than was acknowledged before it."""
    assert (await broken(tmp_path / "home", wrap))[rule] > 0


async def test_the_same_store_unbroken_is_not_caught(tmp_path: Path) -> None:
    assert await broken(tmp_path / "home", Around, 2) == Counter()
