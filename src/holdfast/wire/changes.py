"""Changes as people and programs write them down: a list of put, delete and move."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.errors import InvalidChangeError
from holdfast.ports.kind import Draft


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One change; exactly one of ``put``, ``delete`` and ``move`` names the item.

    ``put`` writes ``body``; ``put`` and ``move`` may say next to which item: ``after`` or ``before`` its key.
    """

    put: str | None = None
    delete: str | None = None
    move: str | None = None
    body: Any = None
    after: str | None = None
    before: str | None = None


def make(draft: Draft, steps: Iterable[Step]) -> None:
    """Make changes to a draft, in order; raises ``InvalidChangeError`` for one that names no item, or more than one."""
    for at, step in enumerate(steps):
        named = [name for name in ("put", "delete", "move") if getattr(step, name) is not None]
        if len(named) != 1:
            raise InvalidChangeError(
                f"change {at} of the list names {' and '.join(named) or 'none'} of put, delete and move; one is wanted"
            )
        if step.put is not None:
            if step.body is None:
                raise InvalidChangeError(f"change {at} of the list puts no body: `body` is missing", step.put)
            draft.put(step.put, step.body, after=step.after, before=step.before)
        elif step.move is not None:
            draft.move(step.move, after=step.after, before=step.before)
        elif step.delete is not None:
            draft.delete(step.delete)
