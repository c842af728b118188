"""Engines that edit one home after the other and are killed: each looks first whether all that was ever acknowledged
is there. What a test of this kind adds is how the engines are opened.
"""

from __future__ import annotations

import importlib
import sys

import msgspec

from holdfast.compose import kinds
from holdfast.engine.engine import Engine
from holdfast.model.entry import Entry
from holdfast.testing.killing import Killer, Report
from holdfast.testing.tiers import ANA

PAGE = 500


class Acked(msgspec.Struct):
    """What was acknowledged of one session: its id, and the version each number was committed as."""

    session: str = ""
    versions: dict[int, int] = {}


class Lives:
    """What is known of one home, inherited by each child. Subclass it and give what a child does."""

    sessions = 3
    edits = 8  # of each session in one life
    keys: tuple[str, ...] = ("chunks/a", "chunks/b", "chunks/c")

    def __init__(self) -> None:
        self.acked = [Acked() for _ in range(self.sessions)]

    def heard(self, line: list[str]) -> None:
        acked = self.acked[int(line[0])]
        acked.session = line[1]
        acked.versions[int(line[2])] = int(line[3])

    async def edit(self, engine: Engine, number: int, killer: Killer, report: Report) -> None:
        """Go on with a session from what is known of it, and report each commit."""
        acked = self.acked[number]

        def told(n: int, version: int) -> None:
            killer.at("before report")
            report.line(str(number), session, str(n), str(version))

        session, n = acked.session, max(acked.versions, default=-1)
        version = acked.versions.get(n, 0)
        if not session:
            items = [(key, body(0)) for key in self.keys]
            made = await engine.create(ANA, kind="knowledge", title="t", items=items, change_id=f"make{number}")
            session, n, version = made.id, 0, 1
            told(n, version)
        for turn in range(self.edits):
            n += 1
            # The same change id and the same version as the life before may have sent: it lands once, whoever sent it.
            async with engine.edit(session, ANA, expected=version, change_id=f"c{n}") as draft:
                for key in self.keys:
                    draft.put(key, body(n))
            version = draft.result.version
            told(n, version)
            await self.edited(engine, session, number, turn)

    async def edited(self, engine: Engine, session: str, number: int, turn: int) -> None:
        """Called after each edit."""

    async def check(self, engine: Engine, acked: Acked, most: int = sys.maxsize) -> None:
        """Of the latest entries: all that was acknowledged is there once, as it was sent; versions have no gap; no
        change-set is there in part.
        """
        if not acked.session:
            return
        session = await engine.read(acked.session, ANA)
        if session.header.stale:  # the server of its hot tier has just been killed: the next life looks
            return
        texts = {item.body["text"] for item in session.items}
        assert len(session.items) == len(self.keys), f"partial: {len(session.items)} items"
        assert len(texts) == 1, f"partial: {texts}"
        log: list[Entry] = []
        while len(log) < most:
            before = log[-1].step if log else None
            page = await engine.history(acked.session, ANA, before=before, limit=min(PAGE, most))
            if not page:
                break
            log += page
        top = session.header.version
        versions = [entry.version for entry in log]
        lowest = top - len(log) + 1 if len(log) >= most else 1
        assert versions == list(range(top, lowest - 1, -1)), f"versions have gaps: {versions}, it stands at {top}"
        changes = [entry.header.change for entry in log]
        assert len(set(changes)) == len(changes), "double: one change has had two effects"
        by_version = {entry.version: entry for entry in log}
        for n, version in acked.versions.items():
            assert version <= top, f"lost: {n} at {version}, it stands at {top}"
            entry = by_version.get(version)
            if entry is None:
                assert version < lowest, f"lost: {n} at {version}"
                continue
            assert n == 0 or entry.header.change == f"c{n}", f"lost: {n} at {version} is {entry.header.change}"
            sent = {change.key: msgspec.json.decode(change.body or b"null") for change in entry.changes}
            assert sent == {key: body(n) for key in self.keys}, f"lost or partial: {n} at {version}"


def body(n: int) -> dict[str, str]:
    return {"text": f"number {n}. " + "x" * 100}


def preload(*stores: str) -> None:
    """Import what an engine imports when it is used, such as ``hot.redis``, so that the children need not."""
    for name in ("sinks.vectors", "embedders.lexical", *(f"stores.{store}" for store in stores)):
        importlib.import_module(f"holdfast.{name}")
    kinds()
