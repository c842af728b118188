"""A parent of children that publish and are killed; started by ``test_kill_publish.py``, prints a tally as JSON.

Turn by turn each life publishes or rolls back, so what is live after turn ``n`` is known: revision ``r<n>``, or after
each fourth turn what was live before the third. A life looks first whether its readers see all of the last turn that
was acknowledged, or all of the next one, and then finishes what the life before it left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec

from holdfast.embedders.lexical import LexicalEmbedder
from holdfast.ports.sink import Receipt, Sink
from holdfast.sinks import directory
from holdfast.sinks.directory import DirectorySink
from holdfast.sinks.vectors import VectorSink
from holdfast.testing.killing import DISK_STEPS, Killer, KillingDisk, Report, Stepping, run_cycles
from holdfast.testing.sink import NOW, TARGET, manifest, numbered, receipt_for, undoing

TURNS = 5
RECORDS = 5
CALLS = ("open", "fsync", "mkdir", "replace", "unlink", "rmdir")
PORT_STEPS = [
    (f"{when} sink.{call}", 2 * TURNS if call == "stage" else TURNS // 4 if call == "rollback" else 3 * TURNS // 4)
    for call in ("begin", "stage", "verify", "switch", "rollback", "clean")
    for when in ("before", "after")
]
STEPS = {
    "vectors": [*PORT_STEPS, *((step, 60 if "xWrite" in step else 20) for step in DISK_STEPS)],
    "directory": [*PORT_STEPS, *((f"{when} {call}", 30) for call in CALLS for when in ("before", "after"))],
}


def revision_after(turn: int) -> str | None:
    """What is live after a turn."""
    if turn <= 0:
        return None
    return revision_after(turn - 2) if turn % 4 == 0 else f"r{turn}"


def word(revision: str | None) -> str:
    return f"word{revision}"


class Lives:
    """What is known of one target, inherited by each child."""

    def __init__(self, root: Path, kind: str, broken: bool) -> None:
        self.root, self.kind, self.broken = root, kind, broken
        self.acked = 0
        self.lives = 0

    def heard(self, line: list[str]) -> None:
        self.acked = max(self.acked, int(line[0]))

    def open(self, killer: Killer) -> Sink:
        if self.kind == "vectors":
            apsw.connection_hooks.append(lambda connection: connection.wal_autocheckpoint(16))
            self.disk = KillingDisk(killer)
            return VectorSink.open(self.root / "vectors.sqlite", embedder=LexicalEmbedder(), vfs=self.disk.name)
        for call in CALLS:
            setattr(os, call, stepped(getattr(os, call), call, killer))
        if self.broken:
            directory._replace = not_atomic
        return DirectorySink.open(self.root / "published")

    async def live(self, killer: Killer, report: Report) -> None:
        attempt = f"pid {os.getpid()}"
        plain = self.open(killer)
        turn = await self.seen(plain)
        report.line(str(turn))
        sink = Stepping(plain, "sink", killer.at)
        for now in range(turn + 1, turn + 1 + TURNS):
            await self.take(sink, now, attempt)
            report.line(str(now))
        await plain.close()

    async def seen(self, sink: Sink) -> int:
        """The turn that readers see; raises unless it is whole, and the last acknowledged one or the one after."""
        receipt = await sink.live(TARGET)
        turn = 0 if receipt is None else receipt.version
        if turn not in (self.acked, self.acked + 1):
            raise AssertionError(f"turn {turn} is live, {self.acked} was acknowledged")
        revision = revision_after(turn)
        if (None if receipt is None else receipt.revision) != revision:
            raise AssertionError(f"after turn {turn} {receipt} is live")
        records = numbered(word(revision), RECORDS) if revision else []
        if await sink.records(TARGET) != records:
            raise AssertionError(f"after turn {turn} the records are not those of {revision}")
        hits = await sink.search("acme", "shared", limit=99)
        if self.kind == "vectors" and {hit.text for hit in hits} != {record.text for record in records}:
            raise AssertionError(f"after turn {turn} the search finds something else")
        return turn

    async def take(self, sink: Any, turn: int, attempt: str) -> None:
        """A publication, or a rollback; what an earlier life began is done over."""
        revision, previous = revision_after(turn), revision_after(turn - 1)
        if turn % 4 == 0:
            undone = receipt_for(str(previous), numbered(word(previous), RECORDS), revision)
            asked = msgspec.structs.replace(undoing(undone, to=revision), version=turn)
            given: Receipt = await sink.rollback(TARGET, receipt=asked)
        else:
            assert revision is not None
            records = numbered(word(revision), RECORDS)
            await sink.begin(TARGET, revision, attempt, now=NOW)
            for start in range(0, RECORDS, 2):
                await sink.stage(TARGET, revision, attempt, records[start : start + 2], start=start)
            if await sink.verify(TARGET, revision) != manifest(records):
                raise AssertionError(f"what is staged in turn {turn} is something else")
            asked = msgspec.structs.replace(receipt_for(revision, records, previous), version=turn)
            given = await sink.switch(TARGET, revision, attempt, receipt=asked)
        if given != asked:
            raise AssertionError(f"turn {turn} was given the receipt of {given.version}")
        await sink.clean(TARGET, keep=2)


def stepped(call: Callable[..., Any], name: str, killer: Killer) -> Callable[..., Any]:
    def passing(*args: Any, **kwargs: Any) -> Any:
        killer.at(f"before {name}")
        result = call(*args, **kwargs)
        killer.at(f"after {name}")
        return result

    return passing


def not_atomic(path: Path, data: bytes) -> None:
    """Broken on purpose: the old file goes before the new one is there. Nobody notices, unless it is killed."""
    if path.exists():
        path.unlink()
    path.write_bytes(data)


def main() -> None:
    root, kind, cycles, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    lives = Lives(root, kind, sys.argv[5:] == ["broken"])
    steps = [(step, most) for step, most in STEPS[kind] if not lives.broken or "unlink" in step]
    tally = run_cycles(lives.live, lives.heard, steps=steps, cycles=cycles, seed=seed)
    print(msgspec.json.encode(tally).decode())


if __name__ == "__main__":
    main()
