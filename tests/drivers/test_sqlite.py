"""The SQLite driver: one writer, group commit, and its errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from holdfast.drivers.sqlite import SqliteFile
from holdfast.errors import ConfigurationError, StoreFullError, StoreUnavailableError, TamperedError
from holdfast.testing.disk import Disk
from holdfast.testing.faults import FailingDisk, Fault

SCHEMA = "CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b TEXT) STRICT;"


def insert(number: int, text: str = "") -> Callable[[apsw.Connection], int]:
    def job(connection: apsw.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?, ?)", (number, text))
        return number

    return job


def numbers(connection: apsw.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT a FROM t ORDER BY a")]


def count_commits(file: SqliteFile) -> list[bool]:
    """Grows by one with each transaction that is committed from now on."""
    commits: list[bool] = []

    def committed() -> bool:
        commits.append(True)
        return False

    file._writer.set_commit_hook(committed)
    return commits


def open_file(path: Path, vfs: str | None = None) -> SqliteFile:
    return SqliteFile.open(path, schema=SCHEMA, name="test", vfs=vfs)


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteFile]:
    file = open_file(tmp_path / "made" / "test.db")
    yield file
    await file.close()


@contextlib.asynccontextmanager
async def held(file: SqliteFile) -> AsyncIterator[Callable[[], None]]:
    """Keep the writer thread busy until what is given is called, so that what is sent meanwhile waits for it.

    With two jobs, since one alone may be run in the event loop.
    """
    begun, go = threading.Event(), threading.Event()

    def wait(connection: apsw.Connection) -> None:
        begun.set()
        go.wait()

    holding = asyncio.gather(file.write(wait), file.write(wait), return_exceptions=True)
    await asyncio.to_thread(begun.wait)
    try:
        yield go.set
    finally:
        go.set()
        assert list(await holding) == [None, None]


async def turns() -> None:
    """Some turns of the event loop: what was begun has been sent."""
    for _ in range(5):
        await asyncio.sleep(0)


# -- opening ---------------------------------------------------------------------------------------------------------


async def test_a_file_and_its_folder_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "made" / "test.db"
    file = open_file(path)
    await file.write(insert(1))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    assert modes == {"test.db": 0o600, "test.db-wal": 0o600, "test.db-shm": 0o600}
    await file.close()


async def test_what_makes_it_durable_is_really_set(file: SqliteFile) -> None:
    assert file.read.pragma("journal_mode") == "wal"
    assert file.read.pragma("synchronous") == 2

    def ask(connection: apsw.Connection) -> tuple[object, ...]:
        return tuple(connection.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys"))

    assert await file.write(ask) == ("wal", 2, 1)


async def test_each_acknowledged_write_has_been_synced(tmp_path: Path) -> None:
    disk = Disk()
    file = open_file(tmp_path / "test.db", disk.name)
    for number in range(5):
        before = disk.calls["xSync wal"]
        await file.write(insert(number))
        assert disk.calls["xSync wal"] > before
    await file.close()


async def test_the_connection_for_reads_cannot_write(file: SqliteFile) -> None:
    with pytest.raises(StoreUnavailableError), file.mapped():
        file.read.execute("INSERT INTO t VALUES (1, '')")
    assert numbers(file.read) == []


async def test_a_file_is_opened_again_with_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    for number in range(3):
        file = open_file(path)
        await file.write(insert(number))
        await file.close()
    file = open_file(path)
    assert numbers(file.read) == [0, 1, 2]
    await file.close()


UPGRADES = ["ALTER TABLE t ADD COLUMN c TEXT; UPDATE t SET c = 'c' || a;", "ALTER TABLE t ADD COLUMN d TEXT;"]
UPGRADED = """
CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b TEXT, c TEXT, d TEXT) STRICT;
CREATE INDEX IF NOT EXISTS t_d ON t (d);
"""


async def older(path: Path) -> None:
    """A file as it was before there was anything to upgrade."""
    file = open_file(path)
    await file.write(insert(1, "b"))
    await file.close()


async def test_a_file_of_an_older_schema_is_brought_up_to_date_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    await older(path)
    half = SqliteFile.open(path, schema=SCHEMA, upgrades=UPGRADES[:1], name="test")
    assert half.read.execute("SELECT * FROM t").get == (1, "b", "c1")
    await half.write(lambda connection: connection.execute("UPDATE t SET c = 'mine'"))
    await half.close()
    for _ in range(2):
        file = SqliteFile.open(path, schema=UPGRADED, upgrades=UPGRADES, name="test")
        assert file.read.execute("SELECT * FROM t").get == (1, "b", "mine", None)
        assert file.read.pragma("user_version") == 2
        await file.close()


async def test_a_new_file_has_nothing_to_be_brought_up_to_date(tmp_path: Path) -> None:
    file = SqliteFile.open(tmp_path / "test.db", schema=UPGRADED, upgrades=UPGRADES, name="test")
    assert file.read.pragma("user_version") == 2
    await file.write(lambda connection: connection.execute("INSERT INTO t VALUES (1, 'b', 'c', 'd')"))
    await file.close()
    file = SqliteFile.open(tmp_path / "test.db", schema=UPGRADED, upgrades=UPGRADES, name="test")
    assert file.read.execute("SELECT * FROM t").get == (1, "b", "c", "d")
    await file.close()


async def test_an_upgrade_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    await older(path)
    with pytest.raises(StoreUnavailableError):
        SqliteFile.open(path, schema=UPGRADED, upgrades=[UPGRADES[0], "ALTER TABLE none ADD COLUMN d"], name="test")
    file = open_file(path)
    assert file.read.execute("SELECT * FROM t").get == (1, "b")
    assert file.read.pragma("user_version") == 0
    await file.close()


async def test_a_file_of_a_newer_holdfast_is_left_alone_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    await SqliteFile.open(path, schema=UPGRADED, upgrades=UPGRADES, name="test").close()
    with pytest.raises(ConfigurationError, match="version 2 by a newer Holdfast; this one knows them up to version 1"):
        SqliteFile.open(path, schema=SCHEMA, upgrades=UPGRADES[:1], name="test")


async def test_an_older_file_opens_while_another_process_writes_and_when_it_has_done(tmp_path: Path) -> None:
    """Several that open it at once: whoever comes second finds it upgraded."""
    path = tmp_path / "test.db"
    await older(path)
    with contextlib.closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(
            asyncio.to_thread(SqliteFile.open, path, schema=UPGRADED, upgrades=UPGRADES, name="test")
        )
        await asyncio.sleep(0.1)
        for script in UPGRADES:
            other.execute(script)
        other.execute("PRAGMA user_version = 2")
        assert not opening.done()
        other.execute("COMMIT")
    file = await opening
    assert await file.write(lambda connection: connection.execute("SELECT * FROM t").get) == (1, "b", "c1", None)
    await file.close()


@pytest.mark.parametrize(
    "content", [b"this is a letter, and no database at all" * 99, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_file_that_is_no_database_is_said_to_be_tampered_with_and_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "test.db"
    path.write_bytes(content)
    with pytest.raises(TamperedError, match="test store"):
        open_file(path)
    assert path.read_bytes() == content


def test_what_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.db").mkdir()
    for path in (tmp_path / "file" / "test.db", tmp_path / "folder.db"):
        with pytest.raises(StoreUnavailableError):
            open_file(path)


# -- group commit ----------------------------------------------------------------------------------------------------


async def test_what_is_sent_together_is_synced_together(tmp_path: Path) -> None:
    disk = Disk()
    file = open_file(tmp_path / "test.db", disk.name)
    async with held(file) as go:
        sent = [asyncio.create_task(file.write(insert(number))) for number in range(200)]
        await asyncio.sleep(0)
        before = disk.calls["xSync wal"]
        go()
        assert await asyncio.gather(*sent) == list(range(200))
        assert 1 <= disk.calls["xSync wal"] - before <= 2
        assert numbers(file.read) == list(range(200))
        await file.close()


async def test_jobs_run_in_the_order_they_were_sent_and_see_what_was_before(file: SqliteFile) -> None:
    async with held(file) as go:

        def following(connection: apsw.Connection) -> int:
            number: int = connection.execute("SELECT coalesce(max(a), 0) + 1 FROM t").get
            return insert(number)(connection)

        sent = [asyncio.create_task(file.write(following)) for _ in range(50)]
        await asyncio.sleep(0)
        go()
        assert await asyncio.gather(*sent) == list(range(1, 51))


@pytest.mark.parametrize(
    "fault",
    [
        "INSERT INTO t VALUES (1, 'there already')",
        "INSERT INTO t VALUES ('no number', '')",
        "SELECT nonsense FROM t",
        None,
    ],
)
async def test_a_job_that_raises_is_rolled_back_alone(file: SqliteFile, fault: str | None) -> None:
    await file.write(insert(1))
    synced = count_commits(file)

    def broken(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (999, 'before the fault')")
        if fault is None:
            raise LookupError("the job's own")
        connection.execute(fault)

    async with held(file) as go:
        sent = [
            asyncio.create_task(file.write(broken if number % 5 == 0 else insert(number))) for number in range(10, 30)
        ]
        await asyncio.sleep(0)
        go()
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        sound = [number for number in range(10, 30) if number % 5]
        assert [outcome for outcome in outcomes if not isinstance(outcome, BaseException)] == sound
        kind = LookupError if fault is None else StoreUnavailableError
        assert [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)] == [kind] * 4
        assert numbers(file.read) == [1, *sound]
        assert len(synced) == 2  # those that kept the writer busy, and these: nobody pays for another's refusal
        assert await file.write(insert(2)) == 2


async def test_what_several_turns_brought_while_the_writer_was_busy_is_one_transaction(file: SqliteFile) -> None:
    synced = count_commits(file)
    async with held(file) as go:
        sent = []
        for number in range(10):
            sent.append(asyncio.create_task(file.write(insert(number))))
            await turns()
        go()
        assert await asyncio.gather(*sent) == list(range(10))
    assert len(synced) == 2  # that which kept the writer busy, and these
    assert numbers(file.read) == list(range(10))


async def test_a_batch_that_cannot_be_committed_fails_whole_and_leaves_nothing(tmp_path: Path) -> None:
    disk = FailingDisk()
    file = open_file(tmp_path / "test.db", disk.name)
    await file.write(insert(1))
    async with held(file) as go:
        sent = [asyncio.create_task(file.write(insert(number))) for number in range(10, 20)]
        await asyncio.sleep(0)
        disk.arm(Fault("xWrite", 1, apsw.SQLITE_FULL, file="wal", lasting=True))
        go()
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        assert disk.mend() >= 1
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [StoreFullError] * 10
        assert numbers(file.read) == [1]
        assert await file.write(insert(2)) == 2
        await file.close()


async def test_a_writers_connection_that_is_lost_is_made_anew(file: SqliteFile) -> None:
    await file.write(insert(1))
    with pytest.raises(StoreUnavailableError):
        await file.write(lambda connection: connection.close(True))
    outcomes = [list(await asyncio.gather(file.write(insert(number)), return_exceptions=True)) for number in (2, 3)]
    assert outcomes[1] == [3]
    assert 1 in numbers(file.read)


# -- cancelling, closing ---------------------------------------------------------------------------------------------


async def test_a_cancelled_caller_waits_for_the_outcome(file: SqliteFile) -> None:
    async with held(file) as go:
        sending = asyncio.create_task(file.write(insert(1)))
        await turns()
        for _ in range(3):  # however often it is asked to
            sending.cancel()
            await turns()
            assert not sending.done()
        go()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert numbers(file.read) == [1]


async def test_a_write_that_is_cancelled_before_it_is_sent_takes_no_other_with_it(file: SqliteFile) -> None:
    tasks = [asyncio.create_task(file.write(insert(number))) for number in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [1, 2, 3]
    assert numbers(file.read) in ([1, 2, 3], [0, 1, 2, 3])
    assert await file.write(insert(9)) == 9


async def test_a_cancelled_caller_does_not_hear_of_an_error_and_nobody_else_does(file: SqliteFile) -> None:
    async with held(file) as go:
        sending = asyncio.create_task(file.write(lambda connection: connection.execute("nonsense")))
        await turns()
        sending.cancel()
        await turns()
        go()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await file.write(insert(1)) == 1


async def test_closing_finishes_what_was_sent_and_refuses_what_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    file = open_file(path)
    async with held(file) as go:
        sent = [asyncio.create_task(file.write(insert(number))) for number in range(700)]  # more than one batch
        await asyncio.sleep(0)
        closing = asyncio.create_task(file.close())
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match="closed"):
            await file.write(insert(999))
        go()
        await asyncio.gather(closing, *sent)
        await file.close()
        with pytest.raises(StoreUnavailableError), file.mapped():
            numbers(file.read)
        again = open_file(path)
        assert numbers(again.read) == list(range(700))
        await again.close()


async def test_a_closed_file_leaves_no_thread_and_no_log_behind(tmp_path: Path) -> None:
    file = open_file(tmp_path / "test.db")
    await file.write(insert(1))
    assert "holdfast-test-writer" in {thread.name for thread in threading.enumerate()}
    await file.close()
    assert "holdfast-test-writer" not in {thread.name for thread in threading.enumerate()}
    assert [found.name for found in tmp_path.iterdir()] == ["test.db"]


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (apsw.SQLITE_FULL, StoreFullError),
        (apsw.SQLITE_IOERR_WRITE, StoreUnavailableError),
        (apsw.SQLITE_READONLY, StoreUnavailableError),
    ],
)
async def test_a_disk_that_refuses_a_write_is_told_in_our_words(
    tmp_path: Path, error: int, ours: type[Exception]
) -> None:
    disk = FailingDisk()
    file = open_file(tmp_path / "test.db", disk.name)
    disk.arm(Fault("xWrite", 1, error, file="wal", lasting=True))
    with pytest.raises(ours, match="test store"):
        await file.write(insert(1))
    assert disk.mend() >= 1
    assert numbers(file.read) == []
    assert await file.write(insert(1)) == 1
    await file.close()


async def test_a_damaged_page_is_told_as_tampering_by_reads_and_by_writes(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    file = open_file(path)
    await asyncio.gather(*(file.write(insert(number, "x" * 500)) for number in range(100)))
    await file.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\x55" * (len(whole) - 8192))
    file = open_file(path)
    with pytest.raises(TamperedError), file.mapped():
        numbers(file.read)
    with pytest.raises(TamperedError):
        await file.write(insert(1_000))
    await file.close()


async def test_an_error_of_ours_in_a_job_stays_what_it_is(file: SqliteFile) -> None:
    error = TamperedError("something")

    def job(connection: apsw.Connection) -> None:
        raise error

    with pytest.raises(TamperedError) as raised:
        await file.write(job)
    assert raised.value is error
