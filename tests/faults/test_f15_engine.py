"""F15 through the engine: a disk that is full or fails at the k-th call, while sessions are edited and published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import apsw
import pytest

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.errors import StoreFullError, UnavailableError
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.testing.faults import ERRORS, FailingDisk, Fault

# apsw reports what a VFS in Python raised while SQLite closed a file and shrugged it off.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

KEYS = ("chunks/a", "chunks/b", "chunks/c")
ANA = Principal(id="ana")
ADMIN = Principal(id="root", roles=frozenset({"admin", "operator"}))
FAULTS = {
    "full": ("xWrite", apsw.SQLITE_FULL),
    "write fails": ("xWrite", ERRORS["xWrite"]),
    "sync fails": ("xSync", ERRORS["xSync"]),
}


@pytest.fixture(autouse=True)
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is folded into the file often, so that faults strike there too."""
    monkeypatch.setattr("holdfast.drivers.sqlite._CHECKPOINT_PAGES", 6)


@pytest.fixture
async def disk() -> AsyncIterator[FailingDisk]:
    disk = FailingDisk()
    with disk.everywhere():
        yield disk
        disk.mend()


def body(n: int) -> dict[str, str]:
    return {"text": f"number {n}. " + "x" * 300}


async def edit(engine: Engine, session: str, version: int, n: int) -> int:
    async with engine.edit(session, ANA, expected=version, change_id=f"c{n}") as draft:
        for key in KEYS:
            draft.put(key, body(n))
    assert draft.committed is not None
    return int(draft.committed.version)


async def numbers(engine: Engine, session: str) -> set[str]:
    return {item.body["text"] for item in (await engine.read(session, ANA)).items}


async def problems(engine: Engine) -> list[object]:
    return [problem async for verified in engine.verify(ADMIN) for problem in verified.problems]


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("fault", list(FAULTS))
async def test_f15_r19_an_edit_is_refused_aloud_or_done_wherever_the_disk_fails(
    tmp_path: Path, disk: FailingDisk, fault: str, lasting: bool
) -> None:
    call, code = FAULTS[fault]
    refused = as_promised = struck = 0
    async with open_engine(Settings(home=tmp_path)) as engine:
        made = await engine.create(ANA, kind="knowledge", title="t", items=[(key, body(0)) for key in KEYS])
        session, version, n, nth = made.id, 1, 0, 0
        while True:
            nth += 1
            disk.arm(Fault(call, nth, code, lasting=lasting))
            fired = 0
            for _ in range(3):
                n += 1
                try:
                    version = await edit(engine, session, version, n)
                except UnavailableError as error:
                    refused += 1
                    as_promised += fault != "full" or isinstance(error, StoreFullError)
                    assert await numbers(engine, session) in (
                        {body(n)["text"]},
                        {body(n - 1)["text"]},
                    )  # reading goes on
                    fired = disk.mend()
                    version = await edit(engine, session, version, n)  # with room again, the same change, sent again
            fired = disk.mend() or fired
            struck += fired
            assert await numbers(engine, session) == {body(n)["text"]}
            if not fired:
                break
        assert await problems(engine) == []
    async with open_engine(Settings(home=tmp_path)) as engine:
        assert await numbers(engine, session) == {body(n)["text"]}
        assert await problems(engine) == []
    how = "lasting" if lasting else "once"
    print(f"F15 engine, {fault}, {how}: k=1..{nth} struck={struck} refused={refused} acks={n}")
    assert struck
    assert as_promised == refused


@pytest.mark.parametrize("fault", ["full", "write fails", "sync fails"])
async def test_f15_r19_a_publication_is_finished_or_undone_wherever_the_disk_fails(
    tmp_path: Path, disk: FailingDisk, fault: str
) -> None:
    call, code = FAULTS[fault]
    refused = struck = 0
    async with open_engine(Settings(home=tmp_path)) as engine:
        made = await engine.create(ANA, kind="knowledge", title="t", items=[(key, body(0)) for key in KEYS], target="t")
        session, version, n, nth = made.id, 1, 0, 0
        while True:
            nth, n = nth + 1 + nth // 6, n + 1  # some hundred calls: every one at first, then ever fewer
            await edit(engine, session, version, n)
            seal = (await engine.preview(session, ANA)).seal
            disk.arm(Fault(call, nth, code, lasting=True))
            try:
                receipt = await engine.publish(session, ANA, seal=seal)
            except UnavailableError:
                refused += 1
                seen = {hit.text for hit in await engine.search(ANA, "number", limit=10)}
                assert len(seen) <= 1
                assert n == 1 or seen in ({body(n - 1)["text"]}, {body(n)["text"]})
                fired = disk.mend()
                receipt = await engine.publish(session, ANA, seal=seal)
            else:
                fired = disk.mend()
            struck += fired
            assert {hit.text for hit in await engine.search(ANA, "number", limit=10)} == {body(n)["text"]}
            assert receipt in await engine.receipts(session, ANA)
            again = await engine.reopen(session, ANA)
            session, version = again.id, again.header.version
            if not fired:
                break
        assert await problems(engine) == []
    print(f"F15 engine, publishing, {fault}: k up to {nth} struck={struck} refused={refused} published={n}")
    assert refused


async def test_f15_teeth_a_disk_that_lies_about_what_it_wrote_is_found(tmp_path: Path, disk: FailingDisk) -> None:
    """The other way round: a disk that fails and does not say so leaves what ``verify`` finds, or does not open."""
    async with open_engine(Settings(home=tmp_path)) as engine:
        made = await engine.create(ANA, kind="knowledge", title="t", items=[(key, body(0)) for key in KEYS])
        await edit(engine, made.id, 1, 1)
    path = Path(urlsplit(Settings(home=tmp_path).hot_url).path)
    whole = bytearray(path.read_bytes())
    await asyncio.to_thread(path.write_bytes, bytes(whole[: len(whole) // 2]))
    found = []
    try:
        async with open_engine(Settings(home=tmp_path)) as engine:
            found = await problems(engine)
    except Exception as error:
        found = [error]
    assert found
