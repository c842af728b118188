"""F15: the disk is full or fails, at every call. What is refused is refused aloud; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from pathlib import Path

import apsw
import msgspec
import pytest

from holdfast.errors import StoreFullError, StoreUnavailableError
from holdfast.model.session import Write
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.testing.faults import ERRORS, FailingDisk, Fault
from holdfast.testing.ledger import Ledger

# apsw reports what a VFS in Python raised while SQLite closed a file and shrugged it off.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.no_cover,  # repeats what others measure once
]

HANG = 30.0  # seconds after which a call that should fail is taken to hang


class Course(msgspec.Struct):
    """What became of one run under one fault."""

    fired: int = 0
    refused: int = 0
    wrong: list[str] = []


@pytest.fixture
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is folded into the file often, so that faults strike there too."""
    monkeypatch.setattr("holdfast.drivers.sqlite._CHECKPOINT_PAGES", 6)


async def run_under(fault: Fault, folder: Path, store_class: type[SqliteHotStore] = SqliteHotStore) -> Course:
    """Open, write, read and close under a fault; mend the disk; then all that was acknowledged must be there."""
    course, ledger, disk = Course(), Ledger("s"), FailingDisk()
    folder.mkdir()
    path = folder / "hot.db"
    full: list[str] = []
    disk.arm(fault)
    store = None
    try:
        store = store_class.open(path, vfs=disk.name)
    except (StoreFullError, StoreUnavailableError):
        course.refused += 1
    except Exception as error:
        course.wrong.append(f"open: {error!r}")
    if store is not None:
        for number in range(6):
            try:
                await asyncio.wait_for(ledger.write(store, f"c{number}"), HANG)
                await store.load("s")
            except StoreFullError:
                course.refused += 1
                full.append(f"c{number}")
            except StoreUnavailableError:
                course.refused += 1
            except Exception as error:
                course.wrong.append(f"write: {error!r}")
        course.fired = disk.mend()
        try:  # the same store goes on as soon as the disk does
            await asyncio.wait_for(ledger.write(store, "mended"), HANG)
        except Exception as error:
            course.wrong.append(f"after mending: {error!r}")
        else:
            found = await ledger.check(store)
            if not found.clean:
                course.wrong.append(f"in the same store: {found}")
        image = disk.left()
        disk.arm(fault)
        try:
            await asyncio.wait_for(store.close(), HANG)
        except apsw.Error:
            pass  # SQLite's own closing shrugs it off; see above
        except Exception as error:
            course.wrong.append(f"close: {error!r}")
        course.wrong += await inspect_cut(image, folder / "cut", ledger, full)
    course.fired = max(course.fired, disk.mend())
    course.wrong += await inspect(path, ledger, full)
    return course


async def inspect_cut(image: dict[str, bytes], folder: Path, ledger: Ledger, full: list[str]) -> list[str]:
    """The same after a power cut: a sync that failed must not have been taken for done."""
    folder.mkdir()
    for path, content in image.items():
        (folder / Path(path).name).write_bytes(content)
    return [f"after a cut: {what}" for what in await inspect(folder / "hot.db", ledger, full)]


async def inspect(path: Path, ledger: Ledger, full: list[str]) -> list[str]:
    """What is wrong with a store that is opened on a sound disk."""
    wrong = []
    try:
        store = SqliteHotStore.open(path)
        try:
            found = await ledger.check(store)
            if not found.clean:
                wrong.append(str(found))
            for change in full:
                if change not in ledger.acked and await store.change("s", change) is not None:
                    wrong.append(f"{change} was refused as without effect, and landed")
            await asyncio.wait_for(Ledger("later").write(store, "works"), HANG)
        finally:
            await store.close()
        raw = apsw.Connection(str(path))
        if raw.pragma("integrity_check") != "ok":
            wrong.append("integrity")
        raw.close()
    except Exception as error:
        wrong.append(f"does not open: {error!r}")
    return wrong


async def at_every_call(
    call: str, error: int, folder: Path, *, lasting: bool, store_class: type[SqliteHotStore] = SqliteHotStore
) -> tuple[int, int, int, list[str]]:
    """Run under a fault at the first, second, ... call of a kind, until there is none so many.

    How many there are depends on when the log is folded in, which is the writer thread's to choose: so an end is
    believed at the third time.
    """
    runs = refused = fired = ends = 0
    nth = 1
    wrong = []
    while nth < 1_000:
        course = await run_under(Fault(call, nth, error, lasting=lasting), folder / f"{nth}-{ends}", store_class)
        runs, refused, fired = runs + 1, refused + course.refused, fired + course.fired
        wrong += [f"{call} #{nth}: {what}" for what in course.wrong]
        if course.fired:
            nth, ends = nth + 1, 0
        elif (ends := ends + 1) == 3:
            return runs, fired, refused, wrong
    raise AssertionError("the script never ends")


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("call", sorted(ERRORS))
async def test_f15_r19_a_failing_call_loses_nothing_wherever_it_strikes(
    tmp_path: Path, small_log: None, call: str, lasting: bool
) -> None:
    runs, fired, refused, wrong = await at_every_call(call, ERRORS[call], tmp_path, lasting=lasting)
    how = "from the k-th on" if lasting else "once"
    print(f"F15 {call} fails {how}: k=1..{runs} struck={fired} refused={refused} wrong={len(wrong)}")
    assert fired
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
async def test_f15_r19_a_full_disk_is_told_and_changes_nothing(tmp_path: Path, small_log: None, lasting: bool) -> None:
    runs, fired, refused, wrong = await at_every_call("xWrite", apsw.SQLITE_FULL, tmp_path, lasting=lasting)
    how = "from the k-th write on" if lasting else "once"
    print(f"F15 disk full {how}: k=1..{runs} struck={fired} refused={refused} wrong={len(wrong)}")
    assert refused
    assert not wrong, wrong[:5]


class ShruggingHotStore(SqliteHotStore):
    """Broken on purpose: it takes a refusal for success."""

    async def write(self, write: Write, *, now: datetime) -> bool:
        with contextlib.suppress(StoreFullError, StoreUnavailableError):
            return await super().write(write, now=now)
        return True


async def test_f15_r19_teeth_a_refusal_taken_for_success_is_found(tmp_path: Path, small_log: None) -> None:
    runs, _, _, wrong = await at_every_call(
        "xSync", ERRORS["xSync"], tmp_path, lasting=True, store_class=ShruggingHotStore
    )
    print(f"F15 broken store: k=1..{runs} wrong={len(wrong)}")
    assert wrong
