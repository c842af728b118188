"""Whoever watches the engine at work: for logs and metrics. What it is told it may count and write down, no more."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from datetime import datetime
from typing import Protocol

import msgspec

from holdfast.model.lease import Lease
from holdfast.model.session import Header

CLOSED, PROBING, OPENED = "closed", "probing", "opened"
"""The states of a store's breaker: asked as ever; one call is let through, to see; not asked."""


class Lags(msgspec.Struct, frozen=True):
    """How far the engine is behind with what it does by itself.

    Attributes:
        audit: lines of reads and refusals that are not written yet; ``audit_seconds``: the age of the oldest.
        lost: audit lines given up because the store was gone for too long.
        sweep_seconds: since the last whole round of the sweeper in this process, or since the engine was opened.
    """

    audit: int
    audit_seconds: float
    lost: int
    sweep_seconds: float


class Observer(Protocol):
    """Told of what has happened, in the event loop's thread. It is never waited for, and so must be quick.

    It raises nothing: what it is told has happened, and cannot be refused any more.
    """

    @abstractmethod
    def appended(self, header: Header, operation: str, actor: str, at: datetime) -> None:
        """An entry has landed: a commit or a lifecycle step, the sweeper's too. Resends and refusals are not told of,
        nor is an entry whose store did not say whether it landed.

        Args:
            header: the session's after the entry.
            operation: the entry's, such as ``edit``, ``split``, ``publish``.
        """

    @abstractmethod
    def leased(self, step: str, header: Header, actor: str, lease: Lease) -> None:
        """A lease was ``taken``, ``renewed`` or ``released``."""

    @abstractmethod
    def stored(self, tier: str, what: str, seconds: float) -> None:
        """A store has answered, or failed to.

        Args:
            tier: ``hot``, ``warm`` or ``cold``.
            what: the verb of its port, such as ``write``.
        """

    @abstractmethod
    def failed(self, what: str, code: str, session: str = "") -> None:
        """Something that the engine does by itself has failed, and will be tried again.

        Args:
            what: such as ``sweep``.
            code: of the error; for one that is not ours, the name of its type.
            session: the one it failed for, empty if it failed as a whole.
        """

    @abstractmethod
    def broke(self, tier: str, state: str) -> None:
        """The breaker of a tier's store is in a state: ``closed`` when the engine is opened, ``opened`` after failures
        in a row and after each probe that failed, ``probing``, and ``closed`` once a probe is answered.

        Stores that are not reached over a network have no breaker.
        """


_quietly = contextlib.suppress(Exception)


class Observers(Observer):
    """Several observers as one. An observer that raises keeps neither the engine nor the others from going on."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def appended(self, header: Header, operation: str, actor: str, at: datetime) -> None:
        for observer in self._observers:
            with _quietly:
                observer.appended(header, operation, actor, at)

    def leased(self, step: str, header: Header, actor: str, lease: Lease) -> None:
        for observer in self._observers:
            with _quietly:
                observer.leased(step, header, actor, lease)

    def stored(self, tier: str, what: str, seconds: float) -> None:
        for observer in self._observers:
            with _quietly:
                observer.stored(tier, what, seconds)

    def failed(self, what: str, code: str, session: str = "") -> None:
        for observer in self._observers:
            with _quietly:
                observer.failed(what, code, session)

    def broke(self, tier: str, state: str) -> None:
        for observer in self._observers:
            with _quietly:
                observer.broke(tier, state)
