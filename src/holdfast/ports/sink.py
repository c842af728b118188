"""Where a publication is delivered."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

_canonical = msgspec.json.Encoder(order="deterministic").encode


class Record(msgspec.Struct, frozen=True):
    """One thing to publish.

    Attributes:
        key: unique within the publication; records keep their order.
        text: what is embedded and searched; empty for a record without text.
        body: the rest, JSON.
        digest: hash of text and body, made by ``record_digest``: equal digests are equal records.
    """

    key: str
    text: str
    body: Any
    digest: str


class Manifest(msgspec.Struct, frozen=True):
    """What a revision must hold: its records' count, and the hash over their keys and digests in order.

    Made by ``manifest_of``.
    """

    count: int
    digest: str


class Receipt(msgspec.Struct, frozen=True):
    """Proof of publication.

    Attributes:
        session, version: what was published; ``seal`` is what the preview showed.
        target: what it is published as; ``revision`` is now live there, ``previous`` was before (None: nothing).
        manifest: count and hash, verified before the switch.
        rolls_back: the revision a rollback withdrew, None for a publication.
    """

    session: str
    version: int
    seal: str
    target: str
    revision: str | None
    previous: str | None
    manifest: Manifest
    actor: str
    at: datetime
    rolls_back: str | None = None


class Forecast(msgspec.Struct, frozen=True):
    """What staging would cost: how many records are new to the sink, must be embedded, and about how many tokens."""

    records: int
    new: int
    embeds: int
    tokens: int


class Hit(msgspec.Struct, frozen=True):
    """One live record that a search found, with a score that falls from the best match on."""

    target: str
    revision: str
    key: str
    score: float
    text: str
    body: Any


class Sink(Protocol):
    """A publishing target. Readers see what was live until ``switch`` returns, then the new revision: never a mixture.

    A revision is staged under an *attempt*: beginning again with another attempt fences the older one out, so that a
    publisher that was thought dead cannot switch what somebody else has undone. ``target`` is any text; the tenant is
    what stands before its first slash.
    """

    name: str

    @abstractmethod
    async def live(self, target: str) -> Receipt | None:
        """The receipt of what is live, None if nothing is (or it was rolled back to nothing)."""

    @abstractmethod
    async def published(self, target: str, revision: str) -> Receipt | None:
        """The receipt a revision was made live with, None if it never was.

        Told also once another has taken its place or it was rolled back.
        """

    @abstractmethod
    async def records(self, target: str) -> list[Record]:
        """The live records, in order; empty if nothing is live."""

    @abstractmethod
    async def forecast(self, target: str, records: Sequence[Record]) -> Forecast:
        """What staging these would cost; changes nothing."""

    @abstractmethod
    async def begin(self, target: str, revision: str, attempt: str, *, now: datetime) -> None:
        """Open a revision for staging, empty; the same attempt again changes nothing.

        A revision that is live already, or was, is left as it is.

        Raises:
            LiveMovedError: the attempt was fenced out or abandoned before.
        """

    @abstractmethod
    async def stage(self, target: str, revision: str, attempt: str, records: Sequence[Record], *, start: int) -> None:
        """Keep records from number ``start`` on, not seen by readers. The same records again change nothing.

        A revision that is live already, or was, is left as it is.

        Raises:
            LiveMovedError: the attempt was fenced out or abandoned.
        """

    @abstractmethod
    async def verify(self, target: str, revision: str) -> Manifest:
        """Count and hash of what is staged, read back from where it is kept; checks vectors where there are any.

        Raises:
            VerificationFailedError: a staged record does not add up, is missing or has the key of another, or nothing
                was begun.
        """

    @abstractmethod
    async def switch(self, target: str, revision: str, attempt: str, *, receipt: Receipt) -> Receipt:
        """Make a staged revision live, in one step, and keep its receipt; durable on return.

        Asked again once it is live, it gives the receipt it kept, also when another revision has taken its place since.
        One that was rolled back is not made live again.

        Raises:
            LiveMovedError: what is live is not ``receipt.previous``, the attempt was fenced out, or the revision was
                rolled back; nothing is changed.
            VerificationFailedError: what is staged is not ``receipt.manifest``; nothing is changed.
        """

    @abstractmethod
    async def rollback(self, target: str, *, receipt: Receipt) -> Receipt:
        """Make ``receipt.revision`` (None: nothing) live in place of ``receipt.rolls_back``, in one step.

        Asked again once done, it gives the receipt it kept.

        Raises:
            LiveMovedError: what is live is not ``receipt.rolls_back``; nothing is changed.
            VerificationFailedError: ``receipt.revision`` was never live or is not kept any more; nothing is changed.
        """

    @abstractmethod
    async def abandon(self, target: str, revision: str) -> None:
        """Drop a revision that is staged and fence its attempt out. A live one is left as it is."""

    @abstractmethod
    async def clean(self, target: str, *, keep: int) -> int:
        """Drop all but the live revision and the ``keep`` that were live before it; returns how many went.

        One that was rolled back is not among those kept. One that is being staged is left as it is.
        """

    @abstractmethod
    async def search(self, tenant: str, query: str, *, limit: int) -> list[Hit]:
        """The best live records for a query among the tenant's targets, best first.

        Empty where the sink has no search.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release what is held."""


def tenant_of(target: str) -> str:
    """The tenant a target belongs to: the part before the first slash."""
    return target.partition("/")[0]


def record_digest(text: str, body: Any) -> str:
    """SHA-256, as hex, over text and body as JSON with sorted keys: what a sink can check from what it keeps."""
    return hashlib.sha256(_canonical([text, body])).hexdigest()


def manifest_of(pairs: Iterable[tuple[str, str]]) -> Manifest:
    """The manifest of records given as key and digest, in order."""
    hashed, count = hashlib.sha256(), 0
    for key, digest in pairs:
        count += 1
        hashed.update(_canonical([key, digest]))
    return Manifest(count, hashed.hexdigest())
