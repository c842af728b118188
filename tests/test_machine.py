"""F24: random verbs by several actors on two engines, and a record of plain dicts that knows every answer."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, ClassVar

import pytest

from holdfast.model.session import Write
from holdfast.ports.hot import HotStore
from holdfast.testing.machine import Machine, play
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import redis_server
from holdfast.testing.tiered_machine import TieredMachine

pytestmark = pytest.mark.no_cover  # repeats what others measure once

STEPS = int(os.environ.get("HOLDFAST_TEST_MACHINE_STEPS", "0"))
CI_STEPS, CI_STEPS_APART = 2_000, 1_000


def test_r06_r07_the_engine_answers_as_the_record_of_plain_dicts_does() -> None:
    """2,000 steps from a fixed seed; with HOLDFAST_TEST_MACHINE_STEPS as many as it says, from a random seed or the
    one of HOLDFAST_TEST_SEED.
    """
    number = int(os.environ.get("HOLDFAST_TEST_SEED", secrets.randbelow(2**32))) if STEPS else None
    print(f"machine seed={'fixed' if number is None else number} steps={STEPS or CI_STEPS}")
    counts = play(Machine, STEPS or CI_STEPS, number=number)
    print(f"machine counts={dict(sorted(counts.items()))}")
    common = {"create", "edit", "undo", "redo", "restore", "read", "preview", "publish", "discard", "sweep", "restart"}
    common |= {"version-conflict", "session-not-found", "permission-denied", "session-gone", "not-draft"}
    rare = {"live-moved", "lock-held", "lease-held", "nothing-to-undo", "revive"}
    assert common | (rare if STEPS >= 10_000 else set()) <= counts.keys()


def test_the_tiers_that_are_apart_answer_alike(postgres: PostgresServer, tmp_path: Path) -> None:
    """The same on Redis over PostgreSQL, where sessions are set to rest, archived and brought back at random."""
    steps = STEPS or CI_STEPS_APART
    number = int(os.environ.get("HOLDFAST_TEST_SEED", secrets.randbelow(2**32))) if STEPS else None
    print(f"machine apart seed={'fixed' if number is None else number} steps={steps}")
    with redis_server(tmp_path / "redis", appendfsync="no") as redis:
        TieredMachine.redis, TieredMachine.postgres = redis, postgres
        counts = play(TieredMachine, steps, number=number)
    print(f"machine apart counts={dict(sorted(counts.items()))}")
    assert {"create", "edit", "undo", "read", "find", "sink", "restart", "verify"} <= counts.keys()


class Forgetful:
    """Broken on purpose: every so often it acknowledges a commit and throws it away."""

    writes: ClassVar[int] = 0

    def __init__(self, store: HotStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, write: Write, **more: Any) -> bool:
        type(self).writes += 1
        if write.expected and type(self).writes % 7 == 0:
            return True
        return await self._store.write(write, **more)


def test_teeth_a_store_that_forgets_a_write_is_noticed() -> None:
    class Broken(Machine):
        wrap = Forgetful

    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it trips over first
        play(Broken, 500, shrink=False)
    assert not isinstance(caught.value, AttributeError | NameError)
