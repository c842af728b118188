"""The workloads of the library: each is the engine and the floor by turns."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from string import ascii_letters, digits

from holdfast.bench.floor import BareFile, BareGroup, BareSession
from holdfast.bench.report import Row, row
from holdfast.bench.rounds import Plan, Side, compare, middle, rate, spanning, until_wrapped
from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.model.access import Principal
from holdfast.model.limits import Limits
from holdfast.settings import Settings

ITEM_BYTES = 1_024
FEW, MANY, TASKS = 20, 2_000, 32
WHO = Principal("bench")
LIMITS = Limits(items=2 * MANY, sessions=100_000)
FILE = "holdfast.sqlite"


# -- commits -----------------------------------------------------------------------------------------------------------


async def commit_one(home: Path, plan: Plan) -> list[Row]:
    """One caller, one item of 1 KB a commit; an undo is a commit like any other."""
    async with _pair(home, 2, FEW) as (_, (writer, waverer), bare):
        session, _ = bare.sessions()

        async def ours(seconds: float) -> float:
            return middle([await writer.commit() async for _ in spanning(seconds)])

        async def floor(seconds: float) -> float:
            took = []
            async for _ in spanning(seconds):
                rows = session.rows()
                start = time.perf_counter_ns()
                bare.commit(rows)
                took.append(time.perf_counter_ns() - start)
            return middle(took)

        async def undo(seconds: float) -> float:
            took = []
            async for _ in spanning(seconds):
                await waverer.commit()
                took.append(await waverer.undo())
            return middle(took)

        await _warm(home, ours, floor, plan)
        return [
            await compare("embedded.commit.one", "µs", ours, floor, plan.rounds, plan.seconds),
            await compare("embedded.undo", "µs", undo, floor, plan.rounds, plan.seconds / 2),
        ]


async def commit_tasks32(home: Path, plan: Plan) -> list[Row]:
    """32 tasks of one event loop, each on a session of its own."""
    async with _pair(home, TASKS, FEW) as (_, writers, bare):
        group = BareGroup(bare)
        sessions = bare.sessions()

        async def send(session: BareSession) -> None:
            await group.commit(session.rows())

        async def ours(seconds: float) -> float:
            return await rate([writer.commit for writer in writers], seconds)

        async def floor(seconds: float) -> float:
            return await rate([partial(send, session) for session in sessions], seconds)

        try:
            await _warm(home, ours, floor, plan)
            return [await compare("embedded.commit.tasks32", "1/s", ours, floor, plan.rounds, plan.seconds)]
        finally:
            await group.close()


async def growth(home: Path, plan: Plan) -> list[Row]:
    """A commit to a session of 2,000 items, beside one to a session of 20."""
    async with open_engine(Settings(home=home, limits=LIMITS)) as engine:
        large, small = await Writer.create(engine, MANY), await Writer.create(engine, FEW)

        async def at_many(seconds: float) -> float:
            return middle([await large.commit() async for _ in spanning(seconds)])

        async def at_few(seconds: float) -> float:
            return middle([await small.commit() async for _ in spanning(seconds)])

        await until_wrapped(home / FILE, at_many, plan.warm)
        await until_wrapped(home / FILE, at_few, plan.warm)
        return [await compare("embedded.growth", "µs", at_many, at_few, plan.rounds, plan.seconds)]


async def bytes_per_edit(home: Path, plan: Plan) -> list[Row]:
    """What all files together grow by for each edit of 1 KB, once the write-ahead log is folded in; the worse of a
    session of 20 items and one of 2,000.
    """
    worst = 0.0
    for count in (FEW, MANY):
        settings = Settings(home=home / str(count), limits=LIMITS)
        async with open_engine(settings) as engine:
            writer = await Writer.create(engine, count)
        before = _bytes(settings.home)  # closing the file has folded its write-ahead log in
        edits, stop = 0, time.perf_counter() + plan.patience
        async with open_engine(settings) as engine:
            writer = Writer(engine, writer.session, count, writer.version)
            while edits < plan.edits and time.perf_counter() < stop:
                await writer.commit()
                edits += 1
        worst = max(worst, (_bytes(settings.home) - before) / edits)
    return [row("embedded.bytes_per_edit", "B", [worst], [ITEM_BYTES])]


# -- reads and creations -----------------------------------------------------------------------------------------------


async def load20(home: Path, plan: Plan) -> list[Row]:
    """A session of 20 items of 1 KB, read again and again."""
    async with _pair(home, 1, FEW) as (engine, (writer,), bare):
        (session,) = bare.sessions()

        async def ours(seconds: float) -> float:
            took = []
            async for _ in spanning(seconds):
                start = time.perf_counter_ns()
                items = (await engine.read(writer.session, WHO)).items
                took.append(time.perf_counter_ns() - start)
            check(len(items))
            return middle(took)

        async def floor(seconds: float) -> float:
            took = []
            async for _ in spanning(seconds):
                start = time.perf_counter_ns()
                items = bare.load(session.number)
                took.append(time.perf_counter_ns() - start)
            check(len(items))
            return middle(took)

        for side in (ours, floor):
            await side(plan.seconds / 4)
        return [await compare("embedded.load20", "µs", ours, floor, plan.rounds, plan.seconds / 3)]


async def load20_first(home: Path, plan: Plan) -> list[Row]:
    """Sessions of 20 items that this process has not seen yet: everything is unsealed and checked."""
    async with _pair(home, plan.sessions, FEW) as (_, writers, bare):
        bare.close()

    async def ours(seconds: float) -> float:
        took = []
        async with open_engine(Settings(home=home, limits=LIMITS)) as engine:
            for writer in writers:
                start = time.perf_counter_ns()
                items = (await engine.read(writer.session, WHO)).items
                took.append(time.perf_counter_ns() - start)
                check(len(items))
        return middle(took)

    async def floor(seconds: float) -> float:
        took = []
        fresh = BareFile(bare.path)
        for session in fresh.sessions():
            start = time.perf_counter_ns()
            items = fresh.load(session.number)
            took.append(time.perf_counter_ns() - start)
            check(len(items))
        fresh.close()
        return middle(took)

    return [await compare("embedded.load20.first", "µs", ours, floor, plan.rounds, 0.0)]


WORKLOADS: tuple[Callable[[Path, Plan], Awaitable[list[Row]]], ...] = (
    commit_one,
    commit_tasks32,
    load20,
    load20_first,
    growth,
    bytes_per_edit,
)


# -- parts -------------------------------------------------------------------------------------------------------------


class Writer:
    """Somebody who edits one session, an item of 1 KB at a time, in turn."""

    def __init__(self, engine: Engine, session: str, count: int, version: int) -> None:
        self.engine, self.session, self.version = engine, session, version
        self._keys = itertools.cycle([key_of(number) for number in range(count)])
        self._numbers = itertools.count(version * count)

    @classmethod
    async def create(cls, engine: Engine, count: int) -> Writer:
        """A new session of so many items."""
        items = [(key_of(number), body_of(number)) for number in range(count)]
        made = await engine.create(WHO, kind="knowledge", title="Measured", items=items)
        return cls(engine, made.header.id, count, made.header.version)

    async def commit(self) -> int:
        """One commit; how long it took in nanoseconds."""
        key, body = next(self._keys), body_of(next(self._numbers))
        start = time.perf_counter_ns()
        async with self.engine.edit(self.session, WHO, expected=self.version) as draft:
            draft.put(key, body)
        took = time.perf_counter_ns() - start
        self._moved_on(draft.result.version)
        return took

    async def undo(self) -> int:
        """Take the last commit back; how long it took in nanoseconds."""
        start = time.perf_counter_ns()
        committed = await self.engine.undo(self.session, WHO, expected=self.version)
        took = time.perf_counter_ns() - start
        self._moved_on(committed.version)
        return took

    def _moved_on(self, version: int) -> None:
        if version != self.version + 1:
            raise LookupError("a commit that changed nothing measures nothing")
        self.version = version


def _texts(count: int) -> tuple[str, ...]:
    """Texts that no compression makes smaller."""
    source, letters = random.Random(1), ascii_letters + digits + "-_"  # noqa: S311 - filler, no secret
    room = ITEM_BYTES - len('{"text":"00000000"}')
    return tuple("".join(source.choices(letters, k=room)) for _ in range(count))


def body_of(number: int) -> dict[str, str]:
    """A body whose JSON is 1 KB, another one for each number."""
    return {"text": f"{number:08}{TEXTS[number % len(TEXTS)]}"}


TEXTS = _texts(64)
key_of = "chunks/{:04}".format


@contextlib.asynccontextmanager
async def _pair(home: Path, sessions: int, items: int) -> AsyncIterator[tuple[Engine, list[Writer], BareFile]]:
    """An engine with sessions in it, and a bare file with the same rows."""
    settings = Settings(home=home, limits=LIMITS)
    async with open_engine(settings) as engine:
        writers = await asyncio.gather(*(Writer.create(engine, items) for _ in range(sessions)))
        for _ in range(2):  # the bare rows take their sizes from an edit, not from the creation
            await asyncio.gather(*(writer.commit() for writer in writers))
        bare = BareFile.like(home / FILE, home / "bare.sqlite")
        try:
            yield engine, writers, bare
        finally:
            bare.close()


async def _warm(home: Path, ours: Side, floor: Side, plan: Plan) -> None:
    await until_wrapped(home / FILE, ours, plan.warm)
    await until_wrapped(home / "bare.sqlite", floor, plan.warm)


def check(items: int) -> None:
    """Raise unless so many items were read as a small session has."""
    if items != FEW:
        raise LookupError(f"{items} items were read, and not {FEW}")


def _bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
