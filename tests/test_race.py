"""The race: eight processes, one version, six rounds. What was acknowledged is what survived.

Run as a program this file is one of the processes: it opens an engine, waits for each round's word, writes once, and
tells whether it was told "saved".
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from holdfast.compose import open_engine
from holdfast.engine.editing import Committed
from holdfast.engine.engine import Engine
from holdfast.errors import VersionConflictError
from holdfast.model.access import Principal
from holdfast.model.session import Write
from holdfast.ports.hot import HotStore
from holdfast.settings import Settings

pytestmark = pytest.mark.no_cover  # repeats what others measure once

ANA = Principal("ana")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
WRITERS = 8
ROUNDS = int(os.environ.get("HOLDFAST_TEST_RACE_ROUNDS", "6"))
TASK_ROUNDS = int(os.environ.get("HOLDFAST_TEST_RACE_ROUNDS", "2"))


class Unchecked:
    """Broken on purpose, with the compare off: it writes over whatever step the session stands at, as others do."""

    def __init__(self, store: HotStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, write: Write, **more: Any) -> bool:
        await self._store.write(write, **more)
        return True


class Round(NamedTuple):
    """One round: how many were told "saved", how many of those writes are there, and at how many versions."""

    acknowledged: int
    survived: int
    versions: int
    refused: int


class Racer:
    """One process of the race, seen from here."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pipe(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        return self.pipe.readline().strip()


async def race(settings: Settings, mode: str, many: int = ROUNDS) -> list[Round]:
    """Run the rounds; each begins once every process stands at the line."""
    async with open_engine(settings) as engine:
        items = [("chunks/shared", {"text": "start"}), *((f"chunks/{n}", {"text": "start"}) for n in range(WRITERS))]
        session = str((await engine.create(ANA, kind="knowledge", items=items)).id)
        racers = [Racer(str(settings.home), session, f"{n}", mode) for n in range(WRITERS)]
        rounds = []
        try:
            for number in range(many):
                version = (await engine.header(session, ANA)).version
                assert [racer.hear() for racer in racers] == ["ready"] * WRITERS
                for racer in racers:
                    racer.tell(f"{number} {version}")
                answers = [(await asyncio.to_thread(racer.hear)).split() for racer in racers]
                rounds.append(await count(engine, session, number, version, answers))
        finally:
            for racer in racers:
                racer.process.stdin.close()  # type: ignore[union-attr]
                racer.process.wait(30)
                racer.pipe.close()
        if mode != "broken":
            assert [one.problems async for one in engine.verify(ROOT) if not one.ok] == []
    table(mode, rounds)
    return rounds


async def count(engine: Engine, session: str, number: int, version: int, answers: list[list[str]]) -> Round:
    """Look for each acknowledged write: as a commit of the log, and in the items where no later one covers it."""
    acknowledged = [(n, int(answer[1])) for n, answer in enumerate(answers) if answer[0] == "saved"]
    refused = sum(answer[0] == "conflict" for answer in answers)
    log = await engine.history(session, ANA, limit=1000)
    texts = {item.key: item.body["text"] for item in (await engine.read(session, ANA)).items}
    newest: dict[str, str] = {}  # the last that changed each item: what it wrote must stand there
    for entry in log:
        for change in entry.changes:
            newest.setdefault(change.key, entry.header.change)
    there = {
        (entry.header.change, entry.version)
        for entry in log
        if entry.version > version
        and all(
            texts[one.key] == entry.header.change or newest[one.key] != entry.header.change for one in entry.changes
        )
    }
    survived = sum((f"round {number} writer {n}", at) in there for n, at in acknowledged)
    return Round(len(acknowledged), survived, len({at for _, at in acknowledged}), refused)


def table(mode: str, rounds: list[Round]) -> None:
    print(f"\nThe race, {mode}: {WRITERS} processes from one version, {len(rounds)} rounds")
    print(f"{'round':>7}{'acknowledged':>14}{'survived':>10}{'versions':>10}{'refused':>9}")
    for number, one in enumerate([*rounds, Round(*map(sum, zip(*rounds, strict=True)))], 1):
        name = "all" if number > len(rounds) else f"{number}"
        print(f"{name:>7}{one.acknowledged:>14}{one.survived:>10}{one.versions:>10}{one.refused:>9}")


async def test_strict_one_of_eight_wins_each_round_and_what_was_acknowledged_survived(settings: Settings) -> None:
    assert await race(settings, "strict") == [Round(1, 1, 1, WRITERS - 1)] * ROUNDS


async def test_rebase_all_of_eight_land_on_items_of_their_own(settings: Settings) -> None:
    assert await race(settings, "rebase") == [Round(WRITERS, WRITERS, WRITERS, 0)] * ROUNDS


async def test_rebase_on_one_item_is_a_conflict_for_all_but_one(settings: Settings) -> None:
    assert await race(settings, "rebase-shared") == [Round(1, 1, 1, WRITERS - 1)] * ROUNDS


async def test_teeth_an_engine_with_the_compare_off_is_caught(settings: Settings) -> None:
    rounds = await race(settings, "broken", 3)
    assert sum(one.acknowledged for one in rounds) > sum(one.survived for one in rounds)


@pytest.mark.parametrize("mode", ["strict", "rebase"])
async def test_sixty_four_tasks_of_one_process_race_like_processes(settings: Settings, mode: str) -> None:
    async with open_engine(settings) as engine:
        items = [(f"chunks/{n}", {"text": "start"}) for n in range(64)]
        session = str((await engine.create(ANA, kind="knowledge", items=items)).id)
        for number in range(TASK_ROUNDS):
            version = (await engine.header(session, ANA)).version
            answers = await asyncio.gather(
                *(write(engine, session, n, number, version, mode) for n in range(64)), return_exceptions=True
            )
            saved = [answer for answer in answers if isinstance(answer, Committed)]
            assert len(saved) == (1 if mode == "strict" else 64)
            assert len({answer.version for answer in saved}) == len(saved)
            assert all(isinstance(answer, Committed | VersionConflictError) for answer in answers)


# -- one of the processes ----------------------------------------------------------------------------------------------


async def write(engine: Engine, session: str, writer: int, number: int, version: int, mode: str) -> Committed:
    key = f"chunks/{writer}" if mode == "rebase" else "chunks/1" if mode == "strict" else "chunks/shared"
    change = f"round {number} writer {writer}"
    rebase = mode.startswith("rebase")
    async with engine.edit(session, ANA, expected=version, rebase=rebase, change_id=change) as draft:
        draft.put(key, {"text": change})
    return draft.result


async def main(home: Path, session: str, writer: int, mode: str) -> None:
    wrap: Any = Unchecked if mode == "broken" else lambda store: store
    async with open_engine(Settings(home=home), wrap=wrap) as engine:
        await engine.read(session, ANA)
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            number, version = map(int, line.split())
            try:
                committed = await write(engine, session, writer, number, version, mode)
                answer = f"saved {committed.version}"
            except VersionConflictError:
                answer = "conflict"
            if mode == "broken":
                await asyncio.sleep(0.6)  # what a writer remembers, here wrongly, is good for half a second
            print(answer, "ready", sep="\n", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
