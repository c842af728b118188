"""What requests carry: the bodies the routes take. What they answer with stands in ``wire``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from holdfast.model.access import Role
from holdfast.model.retention import Retention
from holdfast.wire.changes import Step

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class NewItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item to start with: its key, ``collection/name``, and its body."""

    key: str
    body: Any


class Lifetime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a session is kept: ``ttl`` seconds (null: for good), anew from each write if ``sliding``, and never
    beyond ``maximum`` seconds after creation (null: no bound).
    """

    ttl: float | None = Retention().ttl
    sliding: bool = Retention().sliding
    maximum: float | None = Retention().maximum

    def retention(self) -> Retention:
        """The value the engine takes."""
        return Retention(self.ttl, self.sliding, self.maximum)


class Creation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new session of a kind. ``items`` are in order; without ``retention`` the service's own holds."""

    kind: str
    title: str = ""
    items: list[NewItem] = []
    retention: Lifetime | None = None
    target: str | None = None


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes that land as one commit, or not at all.

    ``reads`` and ``collections`` name items and collections the changes were decided by: with ``rebase``, the commit
    lands only if none of those has changed either.
    """

    MEANT: ClassVar[str] = (
        "a patch by collection and name is sent as application/merge-patch+json, a JSON Patch as"
        " application/json-patch+json"
    )
    """What to say to whoever sends something else."""

    changes: list[Step]
    reads: list[str] = []
    collections: list[str] = []


class Naming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another title."""

    title: str


class Labelling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version a label names; null is the newest."""

    version: int | None = None


class Restoring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version by its number, or by its label."""

    to: int | str


class Locking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many seconds the lock holds; null is the service's own length."""

    seconds: float | None = None


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The seal a preview gave."""

    seal: str


class Keeping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds from now a session is kept; null is for good."""

    seconds: float | None


class Granting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A role on a session: ``editor``, ``participant`` or ``viewer``."""

    role: Role


class Leasing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is to hold the lease, such as an agent or a tab, for how many seconds; ``force`` takes it over."""

    holder: Name
    seconds: float | None = None
    force: bool = False


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds from now the lease is held."""

    seconds: float | None = None


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``drop`` forgets the older keys, once nothing is wrapped under them any more."""

    drop: bool = False


class Flushing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``retry`` tries the dead letters again too."""

    retry: bool = False


class Revoking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token by its ``jti``; or all tokens of a principal, or of everybody in the tenant, that were issued before a
    time (epoch seconds; null: now).

    ``until``: when that token expires, epoch seconds; from then on the revocation is forgotten.
    """

    token: Name | None = None
    principal: Name | None = None
    everybody: bool = False
    before: float | None = None
    until: float | None = None
