"""The circuit breaker of a store: after several failures in a row nothing is sent to it for a while.

Whoever asks meanwhile is told at once that the store is down, in place of waiting for a timeout that the one before has
waited for already; and a store that is struggling to its feet is not asked by everybody at the same time.
"""

from __future__ import annotations

import contextlib
import inspect
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar, cast

from holdfast.errors import HoldfastError, StoreDownError, StoreUnavailableError
from holdfast.ports.observer import CLOSED, OPENED, PROBING, Observer, Observers

THRESHOLD = 3
"""Failures in a row after which a store is given a rest."""
COOLDOWN = 0.5
"""Seconds of the first rest; each one after a probe that failed is twice as long."""
MOST = 2.0
"""Seconds of the longest rest, so that a store which is back is noticed well within 5 s (R11)."""

_ALWAYS = frozenset({"close"})
_UNGUARDED = frozenset({"epoch"})  # asked once, when the engine is opened
_END = object()

Store = TypeVar("Store")
Verb = Callable[..., Any]


class Breaker:
    """Decides whether a store is asked. It belongs to one event loop.

    Closed, it lets every call through. ``threshold`` failures in a row open it: every call is refused. After a rest it
    is half open and lets one call through, the probe; while that is under way the others are refused. A probe that is
    answered closes it, one that fails opens it again for longer.

    A failure is a ``StoreUnavailableError``, and nothing else is: whatever else a store says, it is there to say it.
    Commands that shared a connection fail together with the same error, which counts once. What was sent before the
    breaker last changed says nothing of how things stand now, and does not count.

    Attributes:
        closed: whether calls go through; ``troubled``: whether the next answer is worth telling the breaker.
        era: changes with each step of the breaker; a call keeps the one it was let through in.
    """

    __slots__ = (
        "_clock",
        "_cooldown",
        "_failure",
        "_most",
        "_opened",
        "_rest",
        "_row",
        "_tell",
        "_threshold",
        "_until",
        "closed",
        "era",
        "tier",
        "troubled",
    )

    def __init__(
        self,
        tier: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        threshold: int = THRESHOLD,
        cooldown: float = COOLDOWN,
        most: float = MOST,
        tell: Callable[[str, str], None] = lambda tier, state: None,
    ) -> None:
        """``tell`` is told of every state, the first one included: ``Observer.broke``."""
        self.tier, self._clock, self._tell = tier, clock, tell
        self._threshold, self._cooldown, self._most = threshold, cooldown, most
        self.closed, self.troubled, self.era = True, False, 0
        self._row, self._rest, self._until, self._opened = 0, cooldown, 0.0, 0
        self._failure: Callable[[], BaseException | None] = lambda: None
        tell(tier, CLOSED)

    def probe(self) -> int:
        """Let one call through, if its time has come; asked while the breaker is not closed.

        A probe that takes longer than the longest rest keeps nobody waiting for its outcome: there is another.

        Returns:
            The era of the call.
        Raises:
            StoreDownError: not yet; nothing was sent.
        """
        now = self._clock()
        if now < self._until:
            raise StoreDownError(self.tier, max(0.001, round(min(self._until - now, self._rest), 3)))
        self._until = now + self._most
        self.era += 1
        self._tell(self.tier, PROBING)
        return self.era

    def failed(self, era: int, error: BaseException) -> None:
        """A call that was let through in an era has found nobody."""
        if era != self.era:
            return
        if not self.closed:
            self._open(min(2 * self._rest, self._most))
        elif self._failure() is not error:
            self._failure = weakref.ref(error)
            self._row, self.troubled = self._row + 1, True
            if self._row >= self._threshold:
                self._opened = era
                self._open(min(self._cooldown, self._most))

    def answered(self, era: int) -> None:
        """A call that was let through in an era has its answer, be it a refusal."""
        if self.closed:
            if era == self.era:
                self._row, self.troubled = 0, False
        elif era > self._opened:  # a probe, be it one that has taken long
            self.closed, self.troubled, self._row = True, False, 0
            self.era += 1
            self._tell(self.tier, CLOSED)

    def released(self, era: int) -> None:
        """A call that was let through in an era came to nothing, by no fault of the store: its caller was cancelled."""
        if not self.closed and era == self.era:
            self._until = self._clock()

    def _open(self, rest: float) -> None:
        self.closed, self.troubled = False, True
        self._rest, self._until = rest, self._clock() + rest
        self.era += 1
        self._tell(self.tier, OPENED)


def guarded(
    store: Store, port: type, tier: str, *, breaker: Breaker | None = None, observer: Observer | None = None
) -> Store:
    """A store behind a breaker, whose verbs are timed for an observer; without either, the store itself.

    ``close`` goes to the store as it is, and so does all that is no verb; ``epoch`` passes the breaker. The verbs are
    those that the port declares, its parents' included, and the store has.
    """
    if breaker is None and observer is None:
        return store
    return cast(Store, _Guarded(store, port, tier, breaker, observer or Observers()))


class _Guarded:
    """One wrapper for both: each layer would cost a coroutine a call."""

    def __init__(self, store: object, port: type, tier: str, breaker: Breaker | None, observer: Observer) -> None:
        self._store = store
        for name, declared in _verbs(port):
            verb = getattr(store, name, None)
            if verb is None:
                continue
            if not inspect.iscoroutinefunction(declared):
                if breaker is not None:
                    setattr(self, name, _walking(verb, breaker))
            elif breaker is None or name in _UNGUARDED:
                setattr(self, name, _timing(verb, tier, name, observer.stored))
            else:
                setattr(self, name, _guarding(verb, breaker, tier, name, observer.stored))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _verbs(port: type) -> Iterator[tuple[str, Verb]]:
    """What a port declares: coroutines, and iterators of which each step is a call."""
    for declaring in reversed(port.__mro__):
        for name, declared in vars(declaring).items():
            if inspect.isfunction(declared) and not name.startswith("_") and name not in _ALWAYS:
                yield name, declared


def _timing(verb: Verb, tier: str, name: str, tell: Callable[[str, str, float], None]) -> Verb:
    clock = time.perf_counter

    async def ask(*given: Any, **named: Any) -> Any:
        start = clock()
        try:
            return await verb(*given, **named)
        finally:
            tell(tier, name, clock() - start)

    return ask


def _guarding(
    verb: Callable[..., Awaitable[Any]],
    breaker: Breaker,
    tier: str,
    name: str,
    tell: Callable[[str, str, float], None],
) -> Verb:
    clock = time.perf_counter

    async def ask(*given: Any, **named: Any) -> Any:
        era = breaker.era if breaker.closed else breaker.probe()
        start = clock()
        try:
            answer = await verb(*given, **named)
        except StoreUnavailableError as error:
            breaker.failed(era, error)
            raise
        except HoldfastError:
            breaker.answered(era)
            raise
        except BaseException:
            breaker.released(era)
            raise
        finally:
            tell(tier, name, clock() - start)
        if breaker.troubled:
            breaker.answered(era)
        return answer

    return ask


def _walking(verb: Callable[..., Any], breaker: Breaker) -> Verb:
    """An iterator of which each step is a call of its own, so that one that stands still holds no probe."""

    async def walk(*given: Any, **named: Any) -> AsyncIterator[Any]:
        async with contextlib.aclosing(verb(*given, **named)) as found:

            async def step() -> Any:
                return await anext(found, _END)

            ask = _guarding(step, breaker, "", "", lambda tier, name, seconds: None)
            while (one := await ask()) is not _END:
                yield one

    return walk


__all__ = ["COOLDOWN", "MOST", "THRESHOLD", "Breaker", "guarded"]
