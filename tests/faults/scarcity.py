"""A child process that runs short of something real: room on a disk, file size, files, the right to write.

Started by ``test_f15_scarcity.py``; prints one JSON line of counts, and in ``wrong`` what should not be.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from holdfast.errors import ConfigurationError, StoreFullError, StoreUnavailableError, UnavailableError
from holdfast.stores.hot.sqlite import SqliteHotStore
from holdfast.testing.ledger import Ledger

ROUNDS = 3
Counts = dict[str, Any]


async def full_disk(folder: Path) -> Counts:
    """A file system with two megabytes: fill it, free some room, go on; three times."""
    ballast = [folder / f"ballast{number}" for number in range(ROUNDS)]
    for path in ballast:
        path.write_bytes(bytes(400_000))
    return await until_refused(folder / "home" / "hot.db", lambda: ballast.pop().unlink(), StoreFullError)


async def file_size(folder: Path) -> Counts:
    """No file may grow beyond a bound that is then raised."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    bound = 300_000  # room for the tables of a new file, and for some writes

    def free() -> None:
        nonlocal bound
        bound += 400_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, resource.RLIM_INFINITY))

    resource.setrlimit(resource.RLIMIT_FSIZE, (bound, resource.RLIM_INFINITY))
    return await until_refused(folder / "hot.db", free, UnavailableError)


async def until_refused(path: Path, free: Callable[[], None], error: type[Exception]) -> Counts:
    counts: Counts = {"acks": 0, "refused": 0, "wrong": []}
    ledger = Ledger("s", size=3_000)
    store = SqliteHotStore.open(path)
    number = 0
    for _ in range(ROUNDS):
        for _ in range(2_000):
            number += 1
            try:
                await ledger.write(store, f"c{number}")
            except UnavailableError as refusal:
                counts["refused"] += 1
                if not isinstance(refusal, error):
                    counts["wrong"].append(f"refused with {refusal!r}")
                break
        else:
            counts["wrong"].append("never refused")
        await check(counts, ledger, store)  # it is read while there is no room
        again = SqliteHotStore.open(path) if error is UnavailableError else store
        if again is not store:
            await check(counts, ledger, again)
            await again.close()
        free()
        await ledger.write(store, f"c{number}")  # the change that was refused, sent again
    await store.close()
    await reopen(counts, ledger, path)
    counts["acks"] = len(ledger.acked)
    return counts


async def no_files(folder: Path) -> Counts:
    """Every file descriptor is taken: what is open goes on, what must be opened is refused, and works afterwards."""
    counts: Counts = {"acks": 0, "refused": 0, "wrong": []}
    ledger = Ledger("s")
    store = SqliteHotStore.open(folder / "hot.db")
    await ledger.write(store, "before")
    await asyncio.to_thread(lambda: None)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for spare in range(6):
        taken = take_all(spare)
        try:
            await ledger.write(store, f"spare{spare}")
        except UnavailableError:
            counts["refused"] += 1
        try:
            second = SqliteHotStore.open(folder / f"second{spare}" / "hot.db")
        except StoreUnavailableError:
            counts["refused"] += 1
        except Exception as error:
            counts["wrong"].append(f"open with {spare} spare: {error!r}")
        else:
            await Ledger("x").write(second, "c")
            await second.close()
        for fd in taken:
            os.close(fd)
        await ledger.write(store, f"spare{spare}")
        fresh = SqliteHotStore.open(folder / f"second{spare}" / "hot.db")
        await Ledger("y").write(fresh, "c")
        await fresh.close()
    await check(counts, ledger, store)
    await store.close()
    await reopen(counts, ledger, folder / "hot.db")
    counts["acks"] = len(ledger.acked)
    return counts


async def read_only(folder: Path) -> Counts:
    """A directory that may not be written to: refused, unharmed, and well again once it may."""
    counts: Counts = {"acks": 0, "refused": 0, "wrong": []}
    ledger = Ledger("s")
    home = folder / "home"
    store = SqliteHotStore.open(home / "hot.db")
    await ledger.write(store, "before")
    await store.close()
    os.system(f"mount -o remount,ro {folder}")
    for path in (home / "hot.db", home / "new.db"):
        try:
            store = SqliteHotStore.open(path)
        except ConfigurationError as error:
            counts["refused"] += "read-only file system" in str(error)
        except Exception as error:
            counts["wrong"].append(f"open read-only: {error!r}")
        else:
            await store.close()
            counts["wrong"].append("opened a store it cannot write to")
    os.system(f"mount -o remount,rw {folder}")
    await reopen(counts, ledger, home / "hot.db")
    counts["acks"] = len(ledger.acked)
    return counts


async def full_home(folder: Path) -> Counts:
    """A home that is there, on a disk without any room: opening it says so, and it is well once there is some."""
    counts: Counts = {"acks": 0, "refused": 0, "wrong": []}
    ledger = Ledger("s")
    path, ballast = folder / "home" / "hot.db", folder / "ballast"
    store = SqliteHotStore.open(path)
    await ledger.write(store, "before")
    await store.close()
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
    try:
        store = SqliteHotStore.open(path)
    except StoreFullError:
        counts["refused"] += 1
    except Exception as error:
        counts["wrong"].append(f"open without room: {error!r}")
    else:
        await store.close()
        counts["wrong"].append("opened a store that has no room to work in")
    ballast.unlink()
    await reopen(counts, ledger, path)
    counts["acks"] = len(ledger.acked)
    return counts


def take_all(spare: int) -> list[int]:
    taken = []
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            break
    for _ in range(min(spare, len(taken))):
        os.close(taken.pop())
    return taken


async def check(counts: Counts, ledger: Ledger, store: SqliteHotStore) -> None:
    found = await ledger.check(store)
    if not found.clean:
        counts["wrong"].append(f"lost {len(found.lost)}, partial {found.partial}")


async def reopen(counts: Counts, ledger: Ledger, path: Path) -> None:
    store = SqliteHotStore.open(path)
    await check(counts, ledger, store)
    await ledger.write(store, "afterwards")
    await store.close()
    raw = apsw.Connection(str(path))
    if raw.pragma("integrity_check") != "ok":
        counts["wrong"].append("integrity")
    raw.close()


if __name__ == "__main__":
    what = {
        "full-disk": full_disk,
        "full-home": full_home,
        "file-size": file_size,
        "no-files": no_files,
        "read-only": read_only,
    }[sys.argv[1]]
    print(json.dumps(asyncio.run(what(Path(sys.argv[2])))))
