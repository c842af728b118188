"""What every test of the engine starts from: a home of its own, and engines opened on it as users open them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock
from holdfast.testing.postgres import PostgresServer, postgres_server

OpenEngine = Callable[..., Awaitable[Engine]]

# Tests run side by side; threads of numpy's own would only wait for each other. Child processes inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# httpx2 looks for it in every folder at each request to an application in this process, and it is not there.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]

SHARED = {"results", "rows", "service"}
"""Fixtures that are dear and made once a file: all tests with one go to the same worker (``--dist loadgroup``)."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are processors: a good part of the tests wait, for a disk or for a deadline."""
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(ours) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not SHARED.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """pytest-cov measures a worker from here on; what began with its process, as in any child, would go on beneath it,
    and ``no_cover`` would leave nothing out.
    """
    while hasattr(session.config, "workerinput") and (measuring := Coverage.current()):
        measuring.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Of the child processes those of ``tests/cli`` are measured. Others are started by the hundred, and do what tests
    without a child measure once.
    """
    with pytest.MonkeyPatch.context() as patch:
        if item.path.parent.name != "cli" or item.get_closest_marker("no_cover"):
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        return (yield)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a home that nobody has used."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def clock() -> ManualClock:
    """The clock of every engine of a test; it stands until it is moved."""
    return ManualClock()


@pytest.fixture
async def opens(settings: Settings, clock: ManualClock) -> AsyncIterator[OpenEngine]:
    """Opens an engine, as often as it is called, on the same home; all are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(settings: Settings = settings, **more: Any) -> Engine:
            more.setdefault("clock", clock)
            return await stack.enter_async_context(open_engine(settings, **more))

        yield open_one


@pytest.fixture
async def engine(opens: OpenEngine) -> Engine:
    """An engine on a home that nobody has used."""
    return await opens()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the tests of a worker share: each takes a ``fresh_url``."""
    with postgres_server() as server:
        yield server
