"""F05: a power cut at any call. What was acknowledged is there, whole; with the sync off, it is not."""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import datetime
from functools import partial
from pathlib import Path
from random import Random

import apsw
import msgspec
import pytest

from holdfast.model.session import Write
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.testing.ledger import Findings, Ledger
from holdfast.testing.power import PowerCutDisk

pytestmark = pytest.mark.no_cover  # repeats what others measure once

CUTS = int(os.environ.get("HOLDFAST_TEST_POWER_CUTS", "500"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "20261120"))
TORN = 3  # torn cuts beside each clean one, at the same moment
SESSIONS = 4
PART = 200  # cuts on one file before the next is begun


class Moment(msgspec.Struct):
    """The state of the disk and of the acknowledgements at one call."""

    call: str
    images: list[dict[str, bytes]]
    acked: list[dict[str, int]]


class WatchedDisk(PowerCutDisk):
    """Takes what a cut would leave at chosen calls; the first image of a moment is the clean one."""

    def __init__(self, ledgers: list[Ledger], random: Random) -> None:
        super().__init__()
        self.ledgers, self.random = ledgers, random
        self.countdown = -1  # calls to let pass before the next moment; less than 0: none is wanted
        self.every = False
        self.moments: list[Moment] = []

    def before(self, call: str, path: str) -> None:
        if call not in ("xWrite", "xSync", "xTruncate", "xOpen", "xDelete"):
            return
        if self.countdown == 0 or self.every:
            # The lists first: what is on them now was acknowledged before the cut.
            acked = [dict(ledger.acked) for ledger in self.ledgers]
            images = [self.left()] + [self.left(torn=self.random) for _ in range(TORN)]
            self.moments.append(Moment(f"{call} {path[-4:]}", images, acked))
        self.countdown -= 1


@pytest.fixture
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is folded into the file often, so that faults strike there too."""
    monkeypatch.setattr("holdfast.drivers.sqlite._CHECKPOINT_PAGES", 12)


async def after_the_cut(
    image: dict[str, bytes], folder: Path, ledgers: list[Ledger], acked: list[dict[str, int]]
) -> Findings:
    """Open what a cut left, as the next start would, and compare."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in image.items():
        (folder / Path(path).name).write_bytes(content)
    found = Findings([], [])
    try:
        store = SqliteHotStore.open(folder / "hot.db", synchronous="OFF")  # this copy need not outlive a cut
        try:
            for ledger, list_ in zip(ledgers, acked, strict=True):
                found += await ledger.check(store, list_)
            await Ledger("after").write(store, "works")
        finally:
            await store.close()
        with apsw.Connection(str(folder / "hot.db")) as raw:
            if raw.pragma("integrity_check") != "ok":
                found += Findings([], ["integrity"])
        raw.close()
    except Exception as error:
        found += Findings([], [f"does not open: {type(error).__name__}: {error}"])
    return found


async def cut_often(folder: Path, *, cuts: int, seed: int, synchronous: str) -> tuple[int, int, Findings]:
    """Write from several tasks and cut at random calls; returns cuts, acknowledgements, and what was wrong."""
    random = Random(seed)
    found, done, acks = Findings([], []), 0, 0
    for part in range(0, cuts, PART):
        more, acked, wrong = await _cut_part(folder / f"{part}", min(PART, cuts - part), random, synchronous)
        done, acks, found = done + more, acks + acked, found + wrong
    return done, acks, found


async def _cut_part(folder: Path, cuts: int, random: Random, synchronous: str) -> tuple[int, int, Findings]:
    ledgers = [Ledger(f"s{number}") for number in range(SESSIONS)]
    disk = WatchedDisk(ledgers, random)
    (folder / "live").mkdir(parents=True)
    store = SqliteHotStore.open(folder / "live" / "hot.db", vfs=disk.name, synchronous=synchronous)
    found, done, number = Findings([], []), 0, 0
    while done < cuts:
        disk.countdown = random.randrange(60)
        while not disk.moments:
            number += 1
            await asyncio.gather(
                *(ledger.write(store, f"c{number}") for ledger in random.sample(ledgers, random.randint(1, 4)))
            )
        for moment in disk.moments:
            for image in moment.images:
                found += await after_the_cut(image, folder / "cut", ledgers, moment.acked)
                done += 1
        disk.moments.clear()
    await store.close()
    return done, sum(len(ledger.acked) for ledger in ledgers), found


async def test_f05_r01_no_acknowledged_commit_is_lost_at_a_power_cut(tmp_path: Path, small_log: None) -> None:
    cuts, acks, found = await cut_often(tmp_path, cuts=CUTS, seed=SEED, synchronous="FULL")
    print(f"F05 synchronous=FULL seed={SEED} cuts={cuts} ({TORN} of {TORN + 1} torn) acks={acks} {found.counts}")
    assert found.clean, found
    assert cuts >= CUTS
    assert acks >= CUTS // 20


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_f05_teeth_without_the_sync_acknowledged_commits_are_lost(
    tmp_path: Path, small_log: None, synchronous: str
) -> None:
    cuts, acks, found = await cut_often(tmp_path, cuts=120, seed=SEED, synchronous=synchronous)
    print(f"F05 synchronous={synchronous} seed={SEED} cuts={cuts} acks={acks} {found.counts}")
    assert found.lost


async def cut_at_every_call(folder: Path, store_class: type[SqliteHotStore], *, rounds: int) -> tuple[int, Findings]:
    """Cut at every call of some writes and of the closing; nothing is left to chance but the tearing."""
    ledger = Ledger("s")
    disk = WatchedDisk([ledger], Random(SEED))
    (folder / "live").mkdir(parents=True)
    store = store_class.open(folder / "live" / "hot.db", vfs=disk.name)
    disk.every = True
    found, cuts = Findings([], []), 0
    for number in range(rounds + 1):
        if number < rounds:
            await ledger.write(store, f"c{number}")
        else:
            await store.close()
        for moment in disk.moments:
            for image in moment.images:
                found += await after_the_cut(image, folder / "cut", [ledger], moment.acked)
                cuts += 1
        disk.moments.clear()
    return cuts, found


async def test_f05_r03_a_write_is_whole_or_absent_at_every_call(tmp_path: Path, small_log: None) -> None:
    cuts, found = await cut_at_every_call(tmp_path, SqliteHotStore, rounds=6)
    print(f"F05/R03 every call of 6 writes, their checkpoints and the closing: cuts={cuts} seed={SEED} {found.counts}")
    assert cuts > 100
    assert found.clean, found


def _put_alone(bound: tuple[bytes | None, int, bytes], connection: apsw.Connection) -> None:
    connection.execute("UPDATE item SET sealed = ? WHERE session = ? AND id = ?", bound)


class SplitHotStore(SqliteHotStore):
    """Broken on purpose: the items of a write go in one transaction, its entry and head in the next."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        if write.expected:
            number = self._file.read.execute("SELECT no FROM session WHERE id = ?", (write.head.id,)).get
            for item in write.items:
                bound = (item.sealed, number, item.id)
                await self._file.write(partial(_put_alone, bound))
        return await super().write(write, now=now)


async def test_f05_r03_teeth_a_write_in_two_transactions_is_found_partial(tmp_path: Path, small_log: None) -> None:
    cuts, found = await cut_at_every_call(tmp_path, SplitHotStore, rounds=6)
    print(f"F05/R03 broken store: cuts={cuts} {found.counts}")
    assert found.partial
