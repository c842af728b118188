"""F15 with the real thing: no room, a bound on file sizes, no file descriptors, a read-only mount."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("scarcity.py")


def run(what: str, folder: Path, *before: str) -> dict[str, Any]:
    done = subprocess.run(
        [*before, sys.executable, str(CHILD), what, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    counts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"F15 {what}: {counts}")
    return counts


def run_on_small_disk(what: str, folder: Path, size: str) -> dict[str, Any]:
    """In a mount namespace of its own, so that nothing is left mounted whatever happens."""
    unshare = shutil.which("unshare")
    mount = f"mount -t tmpfs -o size={size} none {folder}"
    if unshare is None or subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no mount namespaces here: a small file system cannot be made")
    return run(what, folder, unshare, "-rm", "sh", "-c", f'{mount} && exec "$0" "$@"')


def test_f15_r19_a_full_file_system_refuses_and_recovers(tmp_path: Path) -> None:
    counts = run_on_small_disk("full-disk", tmp_path, "2m")
    assert counts["refused"] >= 3
    assert counts["acks"] > 10
    assert not counts["wrong"]


def test_f15_r19_a_home_is_not_opened_on_a_full_file_system_and_says_why(tmp_path: Path) -> None:
    counts = run_on_small_disk("full-home", tmp_path, "1m")
    assert counts["refused"] == 1
    assert not counts["wrong"]


def test_f15_r19_a_bound_on_file_size_refuses_and_recovers(tmp_path: Path) -> None:
    counts = run("file-size", tmp_path)
    assert counts["refused"] >= 3
    assert counts["acks"] > 10
    assert not counts["wrong"]


def test_f15_r19_without_file_descriptors_what_is_open_goes_on(tmp_path: Path) -> None:
    counts = run("no-files", tmp_path)
    assert counts["refused"] >= 3
    assert not counts["wrong"]


def test_f15_r19_a_read_only_directory_is_refused_and_unharmed(tmp_path: Path) -> None:
    counts = run_on_small_disk("read-only", tmp_path, "4m")
    assert counts["refused"] == 2
    assert not counts["wrong"]
