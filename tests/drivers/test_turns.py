"""Which thread a write is committed in: alone in its turn of the event loop it need not wait for the writer thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from holdfast.drivers.sqlite import SqliteFile

SCHEMA = "CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b BLOB) STRICT;"


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteFile]:
    file = SqliteFile.open(tmp_path / "test.db", schema=SCHEMA, name="test")
    yield file
    await file.close()


def where(connection: apsw.Connection) -> int:
    """A job that writes a row and tells the thread it ran in."""
    connection.execute("INSERT INTO t (b) VALUES (zeroblob(20000))")
    return threading.get_ident()


async def test_a_write_alone_in_its_turn_is_committed_in_the_loops_thread(file: SqliteFile) -> None:
    assert await file.write(where) == threading.get_ident()
    assert file.read.execute("SELECT count(*) FROM t").get == 1


async def test_a_lengthy_write_does_not_keep_the_loop_waiting_though_it_is_alone(file: SqliteFile) -> None:
    assert await file.write(where, lengthy=True) != threading.get_ident()
    assert await file.write(where) == threading.get_ident()


async def test_writes_of_one_turn_are_committed_together_in_the_writer_thread(file: SqliteFile) -> None:
    threads = await asyncio.gather(*(file.write(where) for _ in range(8)))
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    assert file.read.execute("SELECT count(*) FROM t").get == 8


async def test_a_lone_write_does_not_keep_the_loop_waiting_for_another_process(file: SqliteFile) -> None:
    other = apsw.Connection(str(file.path))
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(file.write(where))
    for _ in range(10):  # the loop goes round: nothing here waits for the lock
        await asyncio.sleep(0)
    assert not writing.done()
    other.execute("ROLLBACK")
    assert await writing != threading.get_ident()
    other.close()


async def test_where_commits_are_slow_the_writer_thread_has_them(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.drivers.sqlite._QUICK", 0.0)
    monkeypatch.setattr("holdfast.drivers.sqlite._WARY", 3)
    threads = [await file.write(where) for _ in range(5)]
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False, False, False, True]


async def test_the_log_is_folded_into_the_file_by_the_writer_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.drivers.sqlite._CHECKPOINT_PAGES", 4)
    folded: list[int] = []
    fold = SqliteFile._checkpoint

    def told(file: SqliteFile) -> None:
        folded.append(threading.get_ident())
        fold(file)

    monkeypatch.setattr(SqliteFile, "_checkpoint", told)
    file = SqliteFile.open(tmp_path / "test.db", schema=SCHEMA, name="test")
    for _ in range(30):
        await file.write(where)
    await file.close()
    assert folded
    assert threading.get_ident() not in folded
    again = apsw.Connection(str(tmp_path / "test.db"))
    assert again.execute("SELECT count(*) FROM t").get == 30
    again.close()


async def test_a_caller_cancelled_before_its_turn_is_over_has_written_nothing(file: SqliteFile) -> None:
    writing = asyncio.create_task(file.write(where))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await file.write(where)
    assert file.read.execute("SELECT count(*) FROM t").get == 1
