"""``holdfast tiers flush --retry`` on Redis and PostgreSQL: what was written is told from what came back."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from holdfast.compose import open_engine
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.testing.postgres import PostgresServer
from holdfast.testing.servers import RedisServer

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

ANA = Principal("ana", tenant="local")


@pytest.fixture
def warm(cli: Cli, redis: RedisServer, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The command line's tiers are apart; the warm one's schema."""
    monkeypatch.setenv("HOLDFAST_HOT", f"{redis.url}?prefix=letters&timeout=5")
    monkeypatch.setenv("HOLDFAST_WARM", url := postgres.fresh_url())
    return url.rpartition("schema=")[2]


async def buried(cli: Cli) -> list[str]:
    """Three sessions, each with a write that is a dead letter."""
    given = {name: value for name, value in os.environ.items() if name.startswith("HOLDFAST_")}
    async with open_engine(Settings.load({**given, "HOLDFAST_HOME": str(cli.home)})) as engine:
        hot = engine._tiering._tiered
        assert hot is not None
        sessions = [str((await engine.create(ANA, kind="knowledge")).id) for _ in range(3)]
        await engine._tiering.flush()
        engine._flushing._running.cancel()  # type: ignore[union-attr]
        for session in sessions:
            await engine.rename(session, ANA, "Later")
        await hot.bury(await hot.claim("w", limit=9, idle=0.0), "broken")
        engine._flushing._running = None  # type: ignore[union-attr]
    return sessions


def test_a_retry_tells_how_many_letters_are_written_and_how_many_came_back(
    cli: Cli, warm: str, postgres: PostgresServer
) -> None:
    torn, *_ = asyncio.run(buried(cli))
    postgres.run(f"UPDATE {warm}.session SET digest = '\\x{'00' * 32}' WHERE id = '{torn}'")
    said = cli("tiers", "flush")
    assert "Nothing was flushed." in said.stdout
    assert "3 dead letters left: `holdfast tiers status` says why, `holdfast tiers flush --retry`" in said.stderr
    said = cli("tiers", "flush", "--retry")
    assert "2 dead letters recovered." in said.stdout
    assert "1 dead letter left: `holdfast tiers status` says why." in said.stderr
    told = cli.json("tiers", "flush", "--retry")
    assert (told["recovered"], told["dead_letters"]) == (0, 1)
    (letter,) = cli.json("tiers", "status")["buried"]
    assert (letter["session"], letter["reason"]) == (torn, "already-exists")
