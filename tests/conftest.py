"""What every test of the engine starts from: a home of its own, and engines opened on it as users open them."""

from __future__ import annotations

import functools
import gc
import os
import signal
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
from holdfast.testing.objects import ObjectServer, give_credentials, object_server
from holdfast.testing.postgres import PostgresServer, postgres_server
from holdfast.testing.servers import RedisServer, redis_server
from holdfast.testing.tiers import Apart

OpenEngine = Callable[..., Awaitable[Engine]]

# Tests run side by side; threads of numpy's own would only wait for each other. Child processes inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# httpx2 looks for it in every folder at each request to an application in this process, and it is not there.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
# Where tests run in the background of a shell, SIGINT is ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ONCE_A_FILE = 'scope="module"'
"""What stands in a file whose fixtures are made once for all its tests: they go to one worker together."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are processors: a good part of the tests wait, for a disk or for a deadline."""
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(ours) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadgroup``: tests one by one, but whole files where fixtures are made once a file, or each worker
    would make them. Groups by mark, xdist's own way, come to nothing since pytest 9.2: it ignores the id they are
    written into.
    """
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped,unused-ignore]

    class ByFileWhereShared(LoadScopeScheduling):  # type: ignore[misc,unused-ignore]
        @functools.cache  # noqa: B019 - there is one, for the whole run
        def _shares(self, file: str) -> bool:
            path = config.rootpath / file
            return path.is_file() and ONCE_A_FILE in path.read_text()

        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if self._shares(file) else nodeid

    return ByFileWhereShared(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """pytest-cov measures a worker from here on; what began with its process, as in any child, would go on beneath it,
    and ``no_cover`` would leave nothing out. The process that only hands out the tests is not measured at all.
    """
    alone = session.config.getoption("dist", "no") == "no"
    while (hasattr(session.config, "workerinput") or not alone) and (measuring := Coverage.current()):
        measuring.stop()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was collected, half a million objects, stays to the end: the garbage collector need not go through it again
    each time.
    """
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def redis_of_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The server behind ``redis``."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(redis_of_worker: RedisServer) -> RedisServer:
    """A Redis that keeps the promise, empty, for this test alone: it may be killed, started again, held still and
    emptied. The tests of a worker share it, so that none of them waits for one to start.
    """
    if redis_of_worker.process is None or redis_of_worker.process.poll() is not None:
        redis_of_worker.kill()
        redis_of_worker.start()
    redis_of_worker.go_on()
    assert redis_of_worker.say("FLUSHALL") == b"+OK\r\n"
    return redis_of_worker


@pytest.fixture
async def tiers(tmp_path: Path, redis: RedisServer, postgres: PostgresServer) -> AsyncIterator[Apart]:
    """Tiers that nobody has used, on the two servers."""
    async with Apart.on(tmp_path / "home", redis, postgres) as tiers:
        yield tiers


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """moto's server, with the bucket ``holdfast``, that the tests of a worker share; each takes a prefix."""
    with object_server(tmp_path_factory.mktemp("objects")) as server:
        server.make("holdfast")
        yield server


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment, and nothing else for S3."""
    give_credentials(monkeypatch)
