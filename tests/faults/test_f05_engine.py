"""F05 through the engine: power cuts while sessions are edited and published, at any call of the file system.

Cut are the files under SQLite: sessions, log, audit, and the vector index. The key file and the blobs are synced by our
own hands, not through SQLite: they are taken as they stand, and have tests of their own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import apsw
import msgspec
import pytest

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.model.access import Principal
from holdfast.ports.sink import Receipt
from holdfast.settings import Settings
from holdfast.testing.power import PowerCutDisk

pytestmark = pytest.mark.no_cover  # repeats what others measure once

CUTS = int(os.environ.get("HOLDFAST_TEST_ENGINE_CUTS", "60"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "20261120"))
KEYS = ("chunks/a", "chunks/b", "chunks/c")
ANA = Principal(id="ana")
ADMIN = Principal(id="root", roles=frozenset({"admin", "operator"}))


class Known(msgspec.Struct):
    """What has been acknowledged: the number each session's newest commit wrote, and the receipts in order."""

    edits: dict[str, tuple[int, int]] = {}
    receipts: list[Receipt] = []

    def as_now(self) -> Known:
        return Known(dict(self.edits), list(self.receipts))


class WatchedDisk(PowerCutDisk):
    """Takes what a cut would leave once a countdown of calls is over."""

    def __init__(self, known: Known, random: Random) -> None:
        super().__init__()
        self.known, self.random = known, random
        self.countdown = -1
        self.moments: list[tuple[Known, dict[str, bytes]]] = []

    def before(self, call: str, path: str) -> None:
        if call not in ("xWrite", "xSync", "xTruncate", "xDelete"):
            return
        if self.countdown == 0:
            known = self.known.as_now()  # first: what is known now was acknowledged before the cut
            self.moments += [(known, self.left()), (known, self.left(torn=self.random))]
        self.countdown -= 1


@pytest.fixture
def weak_sync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every connection syncs as the parameter says, whatever it was told; the log is folded into the file often."""
    synchronous = request.param
    monkeypatch.setattr("holdfast.drivers.sqlite._CHECKPOINT_PAGES", 12)

    def prepare(connection: apsw.Connection) -> None:
        if synchronous != "FULL":
            connection.set_authorizer(lambda *asked: _weaken(connection, asked))
            connection.pragma("synchronous", synchronous)

    apsw.connection_hooks.append(prepare)
    yield synchronous
    apsw.connection_hooks.remove(prepare)


def _weaken(connection: apsw.Connection, asked: tuple[Any, ...]) -> int:
    """Ignore a later ``PRAGMA synchronous``."""
    ignored = asked[0] == apsw.SQLITE_PRAGMA and asked[1] == "synchronous" and asked[2] == "FULL"
    return apsw.SQLITE_IGNORE if ignored else apsw.SQLITE_OK


def body(n: int) -> dict[str, str]:
    return {"text": f"number {n}. " + "x" * 300}


async def edit(engine: Engine, known: Known, session: str) -> None:
    version, n = known.edits[session]
    async with engine.edit(session, ANA, expected=version, change_id=f"c{n + 1}") as draft:
        for key in KEYS:
            draft.put(key, body(n + 1))
    assert draft.committed is not None
    known.edits[session] = (draft.committed.version, n + 1)


async def publish(engine: Engine, known: Known, session: str) -> str:
    """Publish a session, and go on with a new draft from it."""
    preview = await engine.preview(session, ANA)
    known.receipts.append(await engine.publish(session, ANA, seal=preview.seal))
    number = known.edits.pop(session)[1]
    again = await engine.reopen(session, ANA)
    known.edits[again.id] = (again.header.version, number)
    return str(again.id)


async def cut_often(
    folder: Path, cuts: int, enough: Callable[[list[str]], bool] = lambda wrong: False
) -> tuple[int, int, int, list[str]]:
    """Cut so often, or until what is wrong is enough; cuts, acknowledged edits, receipts, and what was wrong."""
    random, known = Random(SEED), Known()
    disk = WatchedDisk(known, random)
    live = folder / "live"
    wrong: list[str] = []
    done = acks = 0
    with disk.everywhere():
        async with open_engine(Settings(home=live)) as engine:
            items = [(key, body(0)) for key in KEYS]
            sessions = []
            for _ in range(3):
                made = await engine.create(ANA, kind="knowledge", title="t", items=items)
                known.edits[made.id] = (1, 0)
                sessions.append(made.id)
            while done < cuts and not enough(wrong):
                disk.countdown = random.randrange(50)
                while not disk.moments:
                    if random.random() < 0.3:
                        sessions[0] = await publish(engine, known, sessions[0])
                    await asyncio.gather(*(edit(engine, known, session) for session in sessions))
                    acks += 3
                moments, disk.moments = disk.moments, []
                for then, image in moments:
                    done += 1
                    wrong += await after_the_cut(live, folder / "cut", then, image)
    return done, acks, len(known.receipts), wrong


async def after_the_cut(live: Path, home: Path, known: Known, image: dict[str, bytes]) -> list[str]:
    """Open what a cut left, outside the disk under test, and compare it with what was acknowledged."""
    shutil.rmtree(home, ignore_errors=True)
    touched = {Path(path).name for path in image} | {"*-wal", "*-shm", "*-journal", "*.db"}
    shutil.copytree(live, home, ignore=shutil.ignore_patterns(*touched))
    for path, content in image.items():
        (home / Path(path).relative_to(live)).write_bytes(content)
    wrong = []
    under_test = apsw.vfs_names()[0]
    apsw.set_default_vfs("unix")
    try:
        async with open_engine(Settings(home=home)) as engine:
            for session, (version, n) in known.edits.items():
                read = await engine.read(session, ANA)
                numbers = {item.body["text"] for item in read.items}
                if len(numbers) != 1 or len(read.items) != len(KEYS):
                    wrong.append(f"partial: {numbers}")
                if read.header.version < version:
                    wrong.append(f"lost: acknowledged {version}, there is {read.header.version}")
                then = await engine.read(session, ANA, version=version)
                if {item.body["text"] for item in then.items} != {body(n)["text"]}:
                    wrong.append(f"lost: version {version} is not what was acknowledged")
            for receipt in known.receipts[-2:]:
                if receipt not in await engine.receipts(receipt.session, ANA):
                    wrong.append("lost: a receipt")
            hits = await engine.search(ANA, "number", limit=10)
            if known.receipts and len({hit.revision for hit in hits}) != 1:
                wrong.append(f"readers see {len({hit.revision for hit in hits})} revisions")
            async for verified in engine.verify(ADMIN):
                wrong += [f"verify: {problem}" for problem in verified.problems]
    except Exception as error:
        wrong.append(f"lost: {error!r}")
    finally:
        apsw.set_default_vfs(under_test)
    return wrong


@pytest.mark.parametrize("weak_sync", ["FULL"], indirect=True)
async def test_f05_r01_r20_no_acknowledged_edit_or_publication_is_lost_at_a_power_cut(
    tmp_path: Path, weak_sync: str
) -> None:
    cuts, acks, receipts, wrong = await cut_often(tmp_path, CUTS)
    print(f"F05 engine, {weak_sync}: seed={SEED} cuts={cuts} acks={acks} receipts={receipts} wrong={len(wrong)}")
    assert not wrong, wrong[:5]
    assert receipts


def is_lost(wrong: list[str]) -> bool:
    return any(what.startswith("lost") for what in wrong)


@pytest.mark.parametrize("weak_sync", ["OFF", "NORMAL"], indirect=True)
async def test_f05_teeth_an_engine_without_the_sync_loses_what_it_acknowledged(tmp_path: Path, weak_sync: str) -> None:
    cuts, acks, receipts, wrong = await cut_often(tmp_path, 400, is_lost)
    print(f"F05 engine, {weak_sync}: seed={SEED} cuts={cuts} acks={acks} receipts={receipts} wrong={len(wrong)}")
    assert is_lost(wrong)
