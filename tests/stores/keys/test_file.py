"""The key file: made once, for its owner alone, replaced whole, and refused when it is weak."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError, WeakKeyError
from holdfast.ports.clock import Chance
from holdfast.ports.keys import Keys
from holdfast.stores.keys.file import KeyFile

STRONG = hashlib.sha256(b"a key of the tests").digest()
OTHER = hashlib.sha256(b"another key of the tests").digest()


class Drawn(Chance):
    """Chance that is the same each time."""

    def token(self) -> str:
        return "0123456789abcdef"

    def bytes(self, count: int) -> bytes:
        return hashlib.shake_256(b"drawn").digest(count)


def write(path: Path, active: str, keys: dict[str, bytes], mode: int = 0o600) -> None:
    path.touch(0o600)
    path.write_text(json.dumps({"active": active, "keys": {k: base64.b64encode(v).decode() for k, v in keys.items()}}))
    path.chmod(mode)


def test_the_first_use_makes_one_random_key_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "keys.json"
    keys = KeyFile.open(path, Drawn()).read()
    assert keys.keys == {keys.active: hashlib.shake_256(b"drawn").digest(32)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [found.name for found in path.parent.iterdir()] == ["keys.json"]


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write(path, "k1", {"k1": STRONG})
    assert KeyFile.open(path, Drawn()).read() == Keys(active="k1", keys={"k1": STRONG})


OPENER = """
import sys
from pathlib import Path
from holdfast.engine.clock import SystemChance
from holdfast.stores.keys.file import KeyFile
sys.stdin.readline()
print(KeyFile.open(sys.argv[1], SystemChance()).read().active)
"""


def test_processes_that_open_at_once_end_with_one_key(tmp_path: Path) -> None:
    for attempt in range(3):
        path = tmp_path / str(attempt) / "keys.json"
        openers = [
            subprocess.Popen(
                [sys.executable, "-c", OPENER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        for opener in openers:
            assert opener.stdin is not None
            opener.stdin.write("go\n")
            opener.stdin.flush()
        seen = [opener.communicate(timeout=60)[0].strip() for opener in openers]
        assert set(seen) == {KeyFile.open(path, Drawn()).read().active}


class Interrupted(Drawn):
    """Chance that does something else first: what happens between the look for a file and its making."""

    def __init__(self, first: Callable[[], object]) -> None:
        self.first = first

    def bytes(self, count: int) -> bytes:
        self.first()
        return hashlib.shake_256(b"too late").digest(count)


def test_a_file_that_somebody_makes_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    mine = KeyFile.open(path, Interrupted(lambda: KeyFile.open(path, Drawn()))).read()
    assert list(mine.keys.values()) == [hashlib.shake_256(b"drawn").digest(32)]


def test_nobody_makes_the_file_while_another_is_at_it(tmp_path: Path) -> None:
    path, ready = tmp_path / "keys.json", threading.Event()
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # as a process does that is making it
    waiting = threading.Thread(target=KeyFile.open, args=(path, Interrupted(ready.set)))
    waiting.start()
    assert ready.wait(60)
    for _ in range(50):  # time enough for one that does not wait
        assert not path.exists()
        time.sleep(0.01)
    write(path, "k1", {"k1": STRONG})
    os.close(held)
    waiting.join(60)
    assert KeyFile.open(path, Drawn()).read().keys == {"k1": STRONG}


def test_keys_are_replaced_whole_and_stay_the_owners(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    source = KeyFile.open(path, Drawn())
    first = source.read()
    keys = Keys(active="k2", keys={**first.keys, "k2": STRONG})
    source.write(keys)
    assert source.read() == keys
    assert KeyFile.open(path, Drawn()).read() == keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["keys.json"]


def test_what_a_crash_left_of_a_write_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    source = KeyFile.open(path, Drawn())
    (tmp_path / ".keys.json.new").write_bytes(b"half a fi")
    keys = Keys(active="k2", keys={**source.read().keys, "k2": STRONG})
    source.write(keys)
    assert source.read() == keys


def test_a_write_over_what_somebody_else_wrote_is_refused_and_no_key_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    one, other = KeyFile.open(path, Drawn()), KeyFile.open(path, Drawn())
    first = one.read()
    other.read()
    one.write(Keys(active="k2", keys={**first.keys, "k2": STRONG}))
    with pytest.raises(ConfigurationError, match="read it again"):
        other.write(Keys(active="k3", keys={**first.keys, "k3": OTHER}))
    assert other.read().active == "k2"
    other.write(Keys(active="k3", keys={**other.read().keys, "k3": OTHER}))
    assert set(one.read().keys) == {*first.keys, "k2", "k3"}


def test_weak_keys_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    source = KeyFile.open(path, Drawn())
    before = source.read()
    with pytest.raises(WeakKeyError):
        source.write(Keys(active="k2", keys={"k2": bytes(32)}))
    assert source.read() == before


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o602])
def test_s27_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    write(path, "k1", {"k1": STRONG}, mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        KeyFile.open(path, Drawn()).read()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"active": "k1"}',
        '{"active": "k1", "keys": []}',
        '{"active": "k1", "keys": {}, "more": 1}',
        '{"active": "k1", "keys": {"k1": 5}}',
        '{"active": "k1", "keys": {"k1": "*not base64*"}}',
        '{"active": "k2", "keys": {"k1": "' + base64.b64encode(STRONG).decode() + '"}}',
        '{"active": "a b", "keys": {"a b": "' + base64.b64encode(STRONG).decode() + '"}}',
    ],
)
def test_a_file_that_is_no_key_file_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        KeyFile.open(path, Drawn()).read()
    assert str(path) in str(caught.value)
    assert base64.b64encode(STRONG).decode() not in str(caught.value)
    assert "not base64*" not in str(caught.value)


def test_a_weak_key_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write(path, "k1", {"k1": STRONG, "k0": bytes(32)})
    with pytest.raises(WeakKeyError, match="k0"):
        KeyFile.open(path, Drawn()).read()


def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.json").mkdir(0o700)
    with pytest.raises(ConfigurationError, match="no key file"):
        KeyFile.open(tmp_path / "keys.json", Drawn()).read()


def test_a_file_that_went_away_is_an_error_and_not_a_new_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    source = KeyFile.open(path, Drawn())
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        source.read()
    assert not path.exists()


def test_a_place_where_no_file_can_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError):
        KeyFile.open(tmp_path / "file" / "keys.json", Drawn())


def test_a_file_that_cannot_be_replaced_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    source = KeyFile.open(path, Drawn())
    before = source.read()
    (tmp_path / ".keys.json.new").mkdir()  # what stands there is no leftover of ours
    with pytest.raises(ConfigurationError, match="cannot be written"):
        source.write(Keys(active="k2", keys={**before.keys, "k2": STRONG}))
    assert source.read() == before
