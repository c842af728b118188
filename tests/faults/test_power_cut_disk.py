"""The power-cut disk is true to the files, and to what SQLite's own layer syncs."""

from __future__ import annotations

from pathlib import Path
from random import Random

import apsw
import pytest

from holdfast.testing.power import SECTOR, Inode, PowerCutDisk, put


def fill(connection: apsw.Connection, rows: int) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, body BLOB)")
    for _ in range(rows):
        connection.execute("INSERT INTO t (body) VALUES (randomblob(900))")


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate", "persist"])
def test_the_disk_takes_the_files_to_hold_what_they_hold(tmp_path: Path, journal: str) -> None:
    disk = PowerCutDisk()
    connection = apsw.Connection(str(tmp_path / "a.db"), vfs=disk.name)
    connection.pragma("journal_mode", journal)
    connection.wal_autocheckpoint(8)
    for _ in range(5):
        fill(connection, 20)
        seen = disk.seen_by_programs()
        assert {path: Path(path).read_bytes() for path in seen} == seen
    connection.execute("DELETE FROM t; VACUUM")
    connection.close()
    assert {str(path): path.read_bytes() for path in tmp_path.iterdir()} == disk.seen_by_programs()


def test_a_cut_leaves_what_was_synced_and_nothing_else(tmp_path: Path) -> None:
    disk = PowerCutDisk()
    path = str(tmp_path / "a.db")
    Path(path).touch()  # a log takes its mode from it
    flags = apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL
    file = disk.xOpen(path + "-wal", [flags, 0])
    file.xWrite(b"a" * 600, 0)
    assert disk.left() == {}
    file.xSync(apsw.SQLITE_SYNC_NORMAL)
    file.xWrite(b"b" * 600, 300)
    assert disk.left() == {path + "-wal": b"a" * 600}
    file.xTruncate(10)
    assert disk.left() == {path + "-wal": b"a" * 600}
    assert disk.seen_by_programs() == {path + "-wal": b"a" * 10}
    disk.xDelete(path + "-wal", False)
    assert disk.left() == {path + "-wal": b"a" * 600}
    disk.sync_directory(str(tmp_path))
    assert disk.left() == {}
    file.xClose()


def test_a_name_is_safe_only_when_its_directory_was_synced(tmp_path: Path) -> None:
    disk = PowerCutDisk()
    path = str(tmp_path / "a.db")
    flags = apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_READWRITE
    file = disk.xOpen(path, [flags | apsw.SQLITE_OPEN_MAIN_DB, 0])
    file.xWrite(b"a", 0)
    file.xSync(apsw.SQLITE_SYNC_NORMAL)
    assert disk.left() == {}
    log = disk.xOpen(path + "-wal", [flags | apsw.SQLITE_OPEN_WAL, 0])
    log.xSync(apsw.SQLITE_SYNC_NORMAL)
    assert disk.left() == {path: b"a", path + "-wal": b""}
    disk.xDelete(path + "-wal", True)
    assert disk.left() == {path: b"a"}
    file.xClose()
    log.xClose()


def test_a_torn_cut_keeps_whole_sectors_old_or_new_but_for_the_last() -> None:
    random = Random(5)
    inode = Inode(b"o" * 4096)
    inode.pending = [(0, b"n" * 4096)]
    seen = set()
    for _ in range(300):
        image = inode.after_cut(random)
        assert len(image) == 4096
        mixed = [start for start in range(0, 4096, SECTOR) if len(set(image[start : start + SECTOR])) > 1]
        assert len(mixed) <= 1
        seen.add(image)
    assert len(seen) > 100
    assert inode.after_cut(None) == b"o" * 4096


def test_a_write_beyond_the_end_leaves_zeros_between() -> None:
    image = bytearray(b"ab")
    put(image, 4, b"cd")
    assert image == b"ab\0\0cd"
    put(image, 1, None)
    assert image == b"a"
    put(image, 3, None)
    assert image == b"a\0\0"
