"""The cold store over obstore: the suite in a directory and in memory, and what only a directory has to prove."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore, S3Store

from holdfast.errors import (
    AlreadyExistsError,
    ConfigurationError,
    StoreFullError,
    StoreUnavailableError,
)
from holdfast.ports.cold import ColdStore
from holdfast.stores.cold.objects import ObjectColdStore
from holdfast.testing.cold import ColdStoreSuite


class TestObjectsInADirectory(ColdStoreSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Callable[[], ColdStore]:
        return partial(ObjectColdStore.open, (tmp_path / "cold").as_uri())


class TestObjectsInMemory(ColdStoreSuite):
    @pytest.fixture
    def connect(self) -> Callable[[], ColdStore]:
        return partial(ObjectColdStore, MemoryStore())


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def content(number: int) -> bytes:
    return hashlib.shake_256(b"%d" % number).digest(100_000)


# -- opening ---------------------------------------------------------------------------------------------------------


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    ObjectColdStore.open((tmp_path / "a dir" / "cold").as_uri())
    assert stat.S_IMODE((tmp_path / "a dir" / "cold").stat().st_mode) == 0o700


@pytest.mark.parametrize("url", ["ftp://host/path", "nonsense", "s3://"])
def test_a_url_that_is_no_object_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        ObjectColdStore.open(url)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        ObjectColdStore.open((tmp_path / "file" / "cold").as_uri())


def test_a_store_of_the_whole_file_system_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        ObjectColdStore(LocalStore())


async def test_memory_is_opened_by_its_url_and_shared_with_nobody() -> None:
    one, other = ObjectColdStore.open("memory://"), ObjectColdStore.open("memory://")
    await one.put("blobs/a", b"mine")
    assert await other.get("blobs/a") is None


# -- durable on return, never half-written ---------------------------------------------------------------------------


class Watch:
    """Which of the steps that matter were made, in order, in threads begun while it watches.

    Python has no audit event for fsync, so the calls are seen through the profiler: nothing of what is watched is
    replaced.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.steps = root, list[tuple[str, str]]()

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call":
            return
        if called is os.fsync:
            path = Path(frame.f_locals["path"])
            inside = path == self.root or self.root in path.parents
            name = path.relative_to(self.root).as_posix() if inside else "outside"
            self.steps.append(("sync", ".staging" if name.startswith(".staging/") else name))
        elif called is obstore.put:
            self.steps.append(("write", ".staging"))
        elif called is obstore.rename:
            self.steps.append(("name", frame.f_locals["key"]))

    def __enter__(self) -> Watch:
        threading.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)


async def test_bytes_are_synced_before_they_get_their_name_and_every_directory_after(tmp_path: Path) -> None:
    store = ObjectColdStore.open(tmp_path.as_uri())
    with Watch(tmp_path) as watch:
        await store.put("blobs/ab/one", b"data")
    assert watch.steps == [
        ("write", ".staging"),
        ("sync", ".staging"),
        ("name", "blobs/ab/one"),
        ("sync", "blobs/ab"),
        ("sync", "blobs"),
        ("sync", "."),
    ]


async def test_directories_that_are_known_to_be_safe_are_not_synced_again(tmp_path: Path) -> None:
    store = ObjectColdStore.open(tmp_path.as_uri())
    with Watch(tmp_path) as watch:
        await store.put("blobs/ab/one", b"data")
        del watch.steps[:]
        await store.put("blobs/ab/two", b"data")
    assert watch.steps == [
        ("write", ".staging"),
        ("sync", ".staging"),
        ("name", "blobs/ab/two"),
        ("sync", "blobs/ab"),
    ]


async def test_whoever_finds_the_same_object_there_syncs_it_too(tmp_path: Path) -> None:
    ObjectColdStore.open(tmp_path.as_uri())
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "one").write_bytes(b"data")  # as a racer leaves it who is not done
    store = ObjectColdStore.open(tmp_path.as_uri())
    with Watch(tmp_path) as watch:
        await store.put("blobs/one", b"data")
    assert watch.steps[-3:] == [("sync", "blobs/one"), ("sync", "blobs"), ("sync", ".")]


async def test_a_removal_is_synced(tmp_path: Path) -> None:
    store = ObjectColdStore.open(tmp_path.as_uri())
    with Watch(tmp_path) as watch:
        await store.put("blobs/one", b"data")
        del watch.steps[:]
        await store.delete("blobs/one")
    assert watch.steps == [("sync", "blobs")]


PUTTER = """
import asyncio, hashlib, sys
from holdfast.stores.cold.objects import ObjectColdStore

async def main():
    store = ObjectColdStore.open(sys.argv[1])
    for number in range(int(sys.argv[2]), 1_000_000):
        await store.put(f"blobs/{number % 10}/{number}", hashlib.shake_256(b"%d" % number).digest(100_000))
        print(number, flush=True)

asyncio.run(main())
"""


async def test_what_was_acknowledged_before_a_kill_is_there_and_what_is_there_is_whole(tmp_path: Path) -> None:
    url = tmp_path.as_uri()
    acknowledged: list[int] = []
    for cycle in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", PUTTER, url, str(cycle * 1_000)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                acknowledged.append(int(line))
                if len(acknowledged) % (5 + cycle) == 0:
                    child.kill()
                    break
            # A pipe may hold lines beyond the one that was read last.
            acknowledged += [int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    store = ObjectColdStore.open(url)
    there = {key async for key in store.keys("blobs/")}
    assert {f"blobs/{number % 10}/{number}" for number in acknowledged} <= there
    assert len(acknowledged) >= 8
    for key in there:
        assert await store.get(key) == content(int(key.rpartition("/")[2]))


async def test_of_racing_processes_exactly_one_wins_each_key(
    tmp_path: Path, race: Callable[..., dict[str, list[int]]]
) -> None:
    won = race("puts", tmp_path.as_uri(), rounds=20)
    store = ObjectColdStore.open(tmp_path.as_uri())
    for number in range(20):
        winners = [name for name, numbers in won.items() if number in numbers]
        assert len(winners) == 1
        assert await store.get(f"race/{number}") == winners[0].encode() * 10_000


async def test_staging_is_empty_after_puts_that_landed_and_puts_that_did_not(tmp_path: Path) -> None:
    store = ObjectColdStore.open(tmp_path.as_uri())
    await store.put("blobs/one", b"data")
    with pytest.raises(AlreadyExistsError):
        await store.put("blobs/one", b"other")
    assert list((tmp_path / ".staging").iterdir()) == []


def test_what_a_crash_left_in_staging_goes_after_a_day_and_not_before(tmp_path: Path) -> None:
    ObjectColdStore.open(tmp_path.as_uri())
    staging = tmp_path / ".staging"
    staging.mkdir()
    old, young = staging / "old", staging / "young"
    for path in (old, young):
        path.write_bytes(b"left behind")
    long_ago = young.stat().st_mtime - 2 * 86_400
    os.utime(old, (long_ago, long_ago))
    ObjectColdStore.open(tmp_path.as_uri())
    assert list(staging.iterdir()) == [young]


# -- errors ----------------------------------------------------------------------------------------------------------

FULL = """
import asyncio, resource, sys
from holdfast.errors import StoreFullError
from holdfast.stores.cold.objects import ObjectColdStore

async def main():
    store = ObjectColdStore.open(sys.argv[1])
    await store.put("blobs/small", b"x" * 1_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        await store.put("blobs/large", b"x" * 50_000)
    except StoreFullError as error:
        print(error.code)
    print(await store.get("blobs/large"))
    await store.put("blobs/other", b"x" * 1_000)

asyncio.run(main())
"""


async def test_r19_no_room_is_said_and_changes_nothing(tmp_path: Path) -> None:
    done = run(FULL, tmp_path.as_uri())
    assert done.stdout.split() == ["store-full", "None"], done.stderr
    store = ObjectColdStore.open(tmp_path.as_uri())
    assert {key async for key in store.keys("blobs/")} == {"blobs/small", "blobs/other"}
    assert list((tmp_path / ".staging").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a full disk: no right to mount a small one here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_r19_a_full_disk_is_said_and_changes_nothing(small_disk: Path) -> None:
    store = ObjectColdStore.open(small_disk.as_uri())
    await store.put("blobs/small", b"x" * 1_000)
    with pytest.raises(StoreFullError):
        await store.put("blobs/large", b"x" * 2_000_000)
    assert await store.get("blobs/large") is None
    assert await store.get("blobs/small") == b"x" * 1_000
    await store.put("blobs/other", b"x" * 500_000)


async def test_a_directory_that_went_away_is_unavailable(tmp_path: Path) -> None:
    root = tmp_path / "cold"
    store = ObjectColdStore.open(root.as_uri())
    root.rmdir()
    root.write_bytes(b"")
    with pytest.raises(StoreUnavailableError):
        await store.put("blobs/one", b"data")
    with pytest.raises(StoreUnavailableError):
        await store.get("blobs/one")
    with pytest.raises(StoreUnavailableError):
        await store.delete("blobs/one")


async def test_a_directory_that_is_gone_is_unavailable_and_not_made_again(tmp_path: Path) -> None:
    store = ObjectColdStore.open((tmp_path / "cold").as_uri())
    await store.put("blobs/one", b"data")
    (tmp_path / "cold").rename(tmp_path / "elsewhere")
    for call in (store.put("blobs/two", b"data"), store.get("blobs/one"), store.delete("blobs/one")):
        with pytest.raises(StoreUnavailableError, match="not a directory") as caught:
            await call
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(StoreUnavailableError):
        [key async for key in store.keys("blobs/")]
    assert not (tmp_path / "cold").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "cold")
    assert await store.get("blobs/one") == b"data"


async def test_a_directory_in_the_place_of_an_object_is_unavailable_and_not_waited_for(tmp_path: Path) -> None:
    store = ObjectColdStore.open(tmp_path.as_uri())
    await store.put("blobs/one/two", b"data")
    with pytest.raises(StoreUnavailableError):
        await store.put("blobs/one", b"data")
    assert await store.get("blobs/one/two") == b"data"


async def test_a_server_that_does_not_answer_is_unavailable_and_no_secret_is_shown() -> None:
    store = ObjectColdStore(
        S3Store(
            "bucket",
            endpoint="http://127.0.0.1:9",
            access_key_id="the-access-key",
            secret_access_key="the-secret",
            region="none",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
    )
    for call in (store.put("blobs/one", b"data"), store.get("blobs/one"), store.delete("blobs/one")):
        with pytest.raises(StoreUnavailableError) as caught:
            await call
        assert "\n" not in str(caught.value)
        assert "the-" not in str(caught.value)
    with pytest.raises(StoreUnavailableError):
        [key async for key in store.keys("blobs/")]
    await store.close()
