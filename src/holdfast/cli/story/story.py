"""What the steps share: the engine, the session they are at, and the checks they make."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from holdfast.compose import open_engine
from holdfast.engine.editing import Committed
from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError
from holdfast.model.access import Principal
from holdfast.model.item import Item
from holdfast.model.session import Session
from holdfast.ports.sink import Receipt
from holdfast.settings import Settings

ANA = Principal(id="ana", tenant="demo")
BEN = Principal(id="ben", tenant="demo")
ADMIN = Principal(id="ana", tenant="demo", roles=frozenset({"admin", "operator"}))

CHUNKS_WANTED = 8
"""Chunks that the steps need; a shorter document gets some more written to it."""


class CheckFailedError(Exception):
    """What a step claims does not hold."""

    def __init__(self, step: str, what: str) -> None:
        self.step, self.what = step, what
        super().__init__(f"{step}: {what}")


class Told(msgspec.Struct, frozen=True):
    """One step as told: its name, what came of it, how long it took in seconds, and what it checked."""

    name: str
    outcome: str
    seconds: float
    checks: tuple[str, ...]


E = TypeVar("E", bound=HoldfastError)
Step = Callable[["Story"], Awaitable[str]]


class Story:
    """One telling.

    Attributes:
        document, name: the source and its file name.
        settings: of a home of its own.
        canary: a word that stands nowhere else, to look for it where it must not be.
        id: the session the story is at; ``published`` is the first one that was published.
        remembered: a state to come back to.
        seal, first: of the first publication.
    """

    def __init__(self, document: bytes, name: str, settings: Settings, canary: str) -> None:
        self.document, self.name, self.settings, self.canary = document, name, settings, canary
        self.id = ""
        self.remembered: dict[str, bytes] = {}
        self.seal = ""
        self.first: Receipt | None = None
        self.published = ""
        self.engine: Engine
        self._open = AsyncExitStack()
        self._checks: list[str] = []
        self._step = ""

    async def run(self, steps: Sequence[tuple[str, Step]], tell: Callable[[Told], None]) -> list[Told]:
        """Take every step in turn.

        Raises:
            CheckFailedError: a check failed, or a step ended in an error; no further step was taken.
        """
        told = []
        await self.open()
        try:
            for name, step in steps:
                self._step, self._checks = name, []
                start = time.perf_counter()
                try:
                    outcome = await step(self)
                except HoldfastError as error:
                    raise CheckFailedError(name, f"unexpected {error.code}: {error}") from error
                told.append(Told(name, outcome, round(time.perf_counter() - start, 4), tuple(self._checks)))
                tell(told[-1])
        finally:
            await self.close()
        return told

    async def open(self) -> None:
        """Open the engine on the home."""
        self.engine = await self._open.enter_async_context(open_engine(self.settings))

    async def close(self) -> None:
        """Close the engine, as at the end of a process."""
        await self._open.aclose()

    def check(self, what: str, holds: object, found: str = "") -> None:
        """Claim something, which must hold; ``found`` is what else there may be to say if it does not."""
        if not holds:
            raise CheckFailedError(self._step, f"{what}: {found}" if found else what)
        self._checks.append(what)

    async def refused(self, what: str, kind: type[E], asked: Awaitable[Any]) -> E:
        """Claim that something is refused with an error of this kind; returns the error."""
        try:
            await asked
        except kind as error:
            self._checks.append(what)
            return error
        raise CheckFailedError(self._step, f"{what}: it was not refused")

    # -- short ways of saying things -----------------------------------------------------------------------------------

    async def read(self, who: Principal = ANA) -> Session:
        return await self.engine.read(self.id, who)

    async def version(self) -> int:
        return (await self.engine.header(self.id, ANA)).version

    async def operate(self, operation: str, **arguments: Any) -> Committed:
        """An operation of the kind, from the version that stands now."""
        return await self.engine.operate(self.id, ANA, operation, arguments, expected=await self.version())

    async def write(
        self, key: str, text: str, *, expected: int, who: Principal = ANA, rebase: bool = False
    ) -> Committed:
        """Give a chunk another text, as an author who saw version ``expected``."""
        arguments = {"key": key, "text": text}
        return await self.engine.operate(self.id, who, "edit", arguments, expected=expected, rebase=rebase)


def text_of(item: Item | None) -> str:
    """The text of a chunk; empty where there is none."""
    return "" if item is None else str(item.body["text"])


def texts(session: Session) -> list[str]:
    """The texts of all chunks, in order."""
    return [text_of(item) for item in session.items]


def bodies(session: Session) -> dict[str, bytes]:
    """Every item's bytes by key: equal where two states are equal."""
    return {item.key: item.raw for item in session.items}


def home_files(settings: Settings) -> list[Path]:
    """Every file in the home that holds sessions: not what is published for all to read, and not the keys."""
    outside = {settings.key_path.name}
    return [
        path
        for path in settings.home.rglob("*")
        if path.is_file()
        and path.name not in outside
        and not path.name.startswith("vectors.sqlite")
        and "published" not in path.relative_to(settings.home).parts
    ]
