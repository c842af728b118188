"""A parent of children that publish with the engine and are killed at one step after the other.

Started by ``test_kill_publish.py``; prints the steps and the findings as JSON. For each step: one child publishes a
first revision and previews a second; one publishes the second and is killed; one looks at what readers see, and
publishes again.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from holdfast.compose import open_engine
from holdfast.embedders.lexical import LexicalEmbedder
from holdfast.engine.engine import Engine
from holdfast.model.access import Principal
from holdfast.model.session import Status
from holdfast.settings import Settings
from holdfast.sinks import open_sink
from holdfast.testing.killing import NEVER, Killer, Report, Stepping, one_life

ANA = Principal(id="ana")
TARGET = "default/handbook"
LOADED = (
    "kinds.knowledge",
    "sinks.directory",
    "sinks.vectors",
    "stores.cold.objects",
    "stores.hot.sqlite",
    "stores.keys.file",
    "stores.warm.sqlite",
)
"""What an engine loads when it is opened: loaded before the first child, so that none has to."""
STEPS = [
    *(
        f"{when} sink.{call}"
        for call in ("begin", "stage", "verify", "switch", "clean")
        for when in ("before", "after")
    ),
    *(f"{when} hot.write" for when in ("before", "after")),
]


class Case:
    """One home, one step."""

    def __init__(self, home: Path, kind: str) -> None:
        sinks = {"vectors": f"directory://{home}/published"} if kind == "directory" else {}
        self.settings = Settings(home=home, sinks=sinks)
        self.session = self.seal = ""

    @contextlib.asynccontextmanager
    async def engine(self, killer: Killer) -> AsyncIterator[Engine]:
        def around(name: str) -> Any:
            return lambda port: Stepping(port, name, killer.at)

        async with open_engine(self.settings, wrap=around("hot"), wrap_sink=around("sink")) as engine:
            yield engine

    async def prepare(self, killer: Killer, report: Report) -> None:
        async with self.engine(killer) as engine:
            items = [(f"chunks/{n}", {"text": f"old words {n}"}) for n in range(3)]
            first = await engine.create(ANA, kind="knowledge", items=items, target=TARGET.partition("/")[2])
            await engine.publish(first.id, ANA, seal=(await engine.preview(first.id, ANA)).seal)
            second = await engine.reopen(first.id, ANA)
            async with engine.edit(second.id, ANA, expected=second.version) as draft:
                for n in range(3):
                    draft.put(f"chunks/{n}", {"text": f"new words {n}"})
            report.line(second.id, (await engine.preview(second.id, ANA)).seal)

    async def publish(self, killer: Killer, report: Report) -> None:
        async with self.engine(killer) as engine:
            await engine.publish(self.session, ANA, seal=self.seal)

    async def finish(self, killer: Killer, report: Report) -> None:
        async with self.engine(killer) as engine:
            report.line(await self.seen(engine))
            receipt = await engine.publish(self.session, ANA, seal=self.seal)
            again = await engine.publish(self.session, ANA, seal=self.seal)
            header = await engine.header(self.session, ANA)
            receipts = await engine.receipts(self.session, ANA)
            if not (again == receipt == receipts[0] and len(receipts) == 1 and header.status is Status.PUBLISHED):
                raise AssertionError("the second run did not finish it")
            report.line(await self.seen(engine))
            if not all(
                [found.ok async for found in engine.verify(Principal("root", roles=frozenset({"admin", "operator"})))]
            ):
                raise AssertionError("the sessions do not verify")

    async def seen(self, engine: Engine) -> str:
        """Which words readers see, in every record there is."""
        sink = open_sink(self.settings.sink_urls["vectors"], embedder=LexicalEmbedder())
        records = await sink.records(TARGET)
        hits = await engine.search(ANA, "words", limit=9)
        await sink.close()
        words = [record.text.split()[0] for record in records]
        found = [hit.text.split()[0] for hit in hits]
        if len(words) != 3 or (hits and sorted(found) != sorted(words)):
            raise AssertionError(f"readers see {words} and find {found}")
        return " ".join(sorted(set(words)))


def run(case: Case, step: str, nth: int) -> str:
    """What is wrong after a kill at a step; empty if nothing is, ``missed`` if it was not come to."""
    (line,), status, error = one_life(case.prepare, Killer(NEVER, 1))
    if status:
        return error
    case.session, case.seal = line
    _, status, error = one_life(case.publish, Killer(step, nth))
    if status == 0:
        return "missed"
    if status != -signal.SIGKILL:
        return error
    seen, status, error = one_life(case.finish, Killer(NEVER, 1))
    if status:
        return error
    return "" if seen in ([["old"], ["new"]], [["new"], ["new"]]) else f"readers saw {seen}"


def main() -> None:
    root, kind = Path(sys.argv[1]), sys.argv[2]
    for name in LOADED:
        importlib.import_module(f"holdfast.{name}")
    outcomes = {}
    for number, step in enumerate(STEPS):
        for nth in range(1, 3 if "hot" in step else 2):
            home = root / f"{number}-{nth}"
            home.mkdir()
            outcomes[f"{step} {nth}"] = run(Case(home, kind), step, nth)
    print(msgspec.json.encode(outcomes).decode())


if __name__ == "__main__":
    main()
