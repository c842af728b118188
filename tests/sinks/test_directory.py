"""The directory sink keeps the port's promises, and what is its own: plain files that others can read."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import SinkUnavailableError, StoreFullError, TamperedError, VerificationFailedError
from holdfast.sinks.directory import DirectorySink, safe_name
from holdfast.testing.sink import TARGET, Connect, SinkSuite, deliver, numbered, prepare, receipt_for, undoing


class TestDirectorySink(SinkSuite):
    searches = False

    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return partial(DirectorySink.open, tmp_path / "published")


@pytest.fixture
def sink(tmp_path: Path) -> DirectorySink:
    return DirectorySink.open(tmp_path / "published")


async def test_another_program_can_read_what_is_live(sink: DirectorySink, tmp_path: Path) -> None:
    await deliver(sink, "r1", numbered("alpha", 4))
    folder = tmp_path / "published" / "acme%2Fhandbook"
    current = msgspec.json.decode((folder / "current.json").read_bytes())
    lines = []
    for file in sorted((folder / "revisions" / current["folder"]).glob("records-*.jsonl")):
        lines += [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    assert [(line["number"], line["text"]) for line in lines] == [(n, f"alpha shared number {n}") for n in range(4)]
    assert current["receipt"]["revision"] == "r1"


async def test_no_target_leads_out_of_the_root(sink: DirectorySink, tmp_path: Path) -> None:
    for target in ("../escape", "..", "/etc/passwd", "a/../../b", ".hidden", "C:\\x", "\x00", "a" * 5000):
        await deliver(sink, "../../r", numbered("alpha", 1), target=target)
    assert {path.name for path in tmp_path.iterdir()} == {"published"}
    assert len(list((tmp_path / "published").iterdir())) == 8


@given(st.text(), st.text())
def test_names_are_safe_and_never_shared(one: str, other: str) -> None:
    names = [safe_name(text) for text in (one, other)]
    for name in names:
        assert name
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-%ABCDEF~")
        assert len(name) <= 255
    assert (names[0].lower() == names[1].lower()) is (one == other)


def test_long_names_that_differ_at_the_end_differ() -> None:
    assert safe_name("x" * 400 + "1") != safe_name("x" * 400 + "2")


async def test_a_damaged_record_does_not_verify_and_is_not_published(sink: DirectorySink, tmp_path: Path) -> None:
    records = numbered("alpha", 3)
    for revision in ("altered", "torn"):
        await prepare(sink, revision, records)
        (part, *_) = sorted((tmp_path / "published").rglob(f"revisions/{revision}/records-*.jsonl"))
        whole = part.read_bytes()
        part.write_bytes(whole.replace(b"alpha", b"omega") if revision == "altered" else whole[:-20])
        with pytest.raises(VerificationFailedError):
            await sink.verify(TARGET, revision)
        with pytest.raises(VerificationFailedError):
            await sink.switch(TARGET, revision, "a", receipt=receipt_for(revision, records))
    assert await sink.live(TARGET) is None


async def test_live_files_that_are_damaged_or_missing_are_told_apart_from_nothing(
    sink: DirectorySink, tmp_path: Path
) -> None:
    await deliver(sink, "r1", numbered("alpha", 3))
    (part, *_) = sorted((tmp_path / "published").rglob("records-*.jsonl"))
    whole = part.read_bytes()
    part.unlink()
    with pytest.raises(TamperedError):
        await sink.records(TARGET)
    part.write_bytes(b"{")
    with pytest.raises(TamperedError):
        await sink.records(TARGET)
    part.write_bytes(whole)
    assert len(await sink.records(TARGET)) == 3
    (current,) = (tmp_path / "published").rglob("current.json")
    current.write_bytes(b"{}")
    with pytest.raises(TamperedError):
        await sink.live(TARGET)


async def test_a_lost_history_is_not_taken_for_no_history(sink: DirectorySink, tmp_path: Path) -> None:
    await deliver(sink, "r1", numbered("alpha", 1))
    await deliver(sink, "r2", numbered("beta", 1), previous="r1")
    for file in (tmp_path / "published").rglob("history/*.json"):
        file.unlink()
    with pytest.raises(TamperedError):
        await sink.published(TARGET, "r1")


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, StoreFullError), (errno.EIO, SinkUnavailableError)])
async def test_a_failing_disk_is_reported_and_changes_nothing(
    sink: DirectorySink, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    first = await deliver(sink, "r1", numbered("alpha", 2))
    new = numbered("beta", 2)
    await prepare(sink, "r2", new)

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        for call in (
            sink.switch(TARGET, "r2", "a", receipt=receipt_for("r2", new, "r1")),
            sink.stage(TARGET, "r2", "a", new, start=0),
            sink.rollback(TARGET, receipt=undoing(first, to=None)),
        ):
            with pytest.raises(error):
                await call
    assert await sink.live(TARGET) == first
    assert await sink.switch(TARGET, "r2", "a", receipt=receipt_for("r2", new, "r1")) == receipt_for("r2", new, "r1")


async def test_a_root_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkUnavailableError):
        DirectorySink.open(tmp_path / "file" / "below")


async def test_temporary_files_and_folders_of_nobody_do_no_harm(sink: DirectorySink, tmp_path: Path) -> None:
    records: list[Any] = numbered("alpha", 2)
    await prepare(sink, "r1", records)
    await sink.switch(TARGET, "r1", "a", receipt=receipt_for("r1", records))
    revisions = tmp_path / "published" / "acme%2Fhandbook" / "revisions"
    (revisions / "r1" / ".records-00000000.jsonl.new").write_bytes(b"torn")
    (revisions / "stray").mkdir()
    assert await sink.records(TARGET) == records
    assert await sink.clean(TARGET, keep=0) == 0
    assert sorted(path.name for path in revisions.iterdir()) == ["r1"]
