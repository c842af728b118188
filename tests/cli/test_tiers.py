"""``holdfast tiers`` and ``holdfast verify --repair``: on one file, and on Redis and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.model.access import Principal
from holdfast.model.retention import Retention
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock
from holdfast.testing.postgres import postgres_server
from holdfast.testing.servers import RedisServer, redis_server

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

ANA = Principal("ana", tenant="local")
DAY = 86_400.0


# -- one file ----------------------------------------------------------------------------------------------------------


def test_status_says_what_each_tier_holds_and_that_it_answers(cli: Cli, session: str) -> None:
    told = cli.json("tiers", "status")
    assert (told["tiered"], told["flush"], told["buried"], told["hot"]) == (False, None, [], None)
    assert told["warm"]["sessions"] == 1
    assert told["answers"] == {"hot": "ok", "warm": "ok", "cold": "ok"}
    lines = cli("tiers", "status").stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["TIER", "hot", "cold"]
    assert lines[1].split()[-1] == lines[2].split()[-1] == "yes"
    assert "one store" in lines[3]


def test_a_session_is_archived_and_restored_by_name_and_stays_whole(cli: Cli, session: str, document: Path) -> None:
    before = cli.json("sessions", "show", session)
    assert "is archived." in cli("tiers", "archive", session[:8]).stdout
    assert cli.json("tiers", "status")["warm"]["archived"] == 1
    (listed,) = cli.json("sessions", "list")["sessions"]
    assert listed["tier"] == "archived"
    assert "is restored." in cli("tiers", "restore", session).stdout
    assert cli.json("tiers", "status")["warm"]["archived"] == 0
    cli("tiers", "archive", session)
    assert cli.json("sessions", "show", session) == before  # whoever opens it brings it back
    assert cli.json("verify")["ok"]


def test_somebody_else_s_session_is_archived_by_who_owns_the_files(cli: Cli, session: str) -> None:
    cli("tiers", "archive", session, who="root")
    cli("tiers", "suspend", session, who="root")
    (listed,) = cli.json("sessions", "list")["sessions"]
    assert listed["tier"] == "dormant"
    assert "dormant" in cli("sessions", "show", session).stdout


def test_of_several_sessions_each_is_moved_for_itself(cli: Cli, session: str, document: Path) -> None:
    other = cli("ingest", str(document)).stdout.strip()
    missing = "0" * 32
    result = cli("tiers", "archive", session, missing, other, "--json", code=3)
    told = json.loads(result.stdout)
    assert sorted(told["archived"]) == sorted([session, other])
    assert [(one["session"], one["code"]) for one in told["failed"]] == [(missing, "session-not-found")]
    result = cli("tiers", "restore", session, missing, code=3)
    assert "is restored." in result.stdout
    assert f"{missing} is not restored" in result.stderr
    assert cli.error("tiers", "archive", missing, code=3)["code"] == "session-not-found"


@pytest.mark.parametrize(
    "words",
    [
        ("archive",),
        ("archive", "--dry-run", "abcdef"),
        ("archive", "abcdef", "--idle", "1h"),
        ("archive", "--idle", "soon"),
        ("suspend", "--idle", "0"),
        ("restore",),
    ],
)
def test_what_makes_no_sense_is_told_and_nothing_is_moved(cli: Cli, session: str, words: tuple[str, ...]) -> None:
    assert cli("tiers", *words, code=2).stderr
    assert cli.json("sessions", "list")["sessions"][0]["tier"] == "active"


@pytest.mark.parametrize(
    ("verb", "word", "tier"), [("suspend", "suspended", "dormant"), ("archive", "archived", "archived")]
)
def test_what_nobody_has_written_to_for_so_long_is_moved_and_nothing_else(
    cli: Cli, verb: str, word: str, tier: str
) -> None:
    """Not what is locked, nor what is gone, nor what was written to since; and again it moves nothing."""
    made = asyncio.run(aged(cli.home))
    idle = {made["idle"], made["published"]}
    words = ("tiers", verb, "--idle", "10d")
    assert set(cli.json(*words, "--dry-run")["sessions"]) == idle
    assert made["idle"] in cli(*words, "--dry-run").stdout
    assert resting(cli, tier) == set()
    told = cli.json(*words)
    assert (set(told[word]), told["failed"], told["left"]) == (idle, [], 0)
    assert resting(cli, tier) == idle
    assert f"0 sessions {word}." in cli(*words).stdout
    assert "idle for so long" in cli(*words, "--dry-run").stdout


def resting(cli: Cli, tier: str) -> set[str]:
    listed = cli.json("sessions", "list", "--all")["sessions"]
    return {header["id"] for header in listed if header["tier"] == tier}


async def aged(home: Path) -> dict[str, str]:
    """Sessions of a home that were written to twenty days ago, one in each state; and a fresh one."""
    from datetime import UTC, datetime, timedelta

    clock = ManualClock(datetime.now(UTC) - timedelta(days=20))
    made: dict[str, str] = {}
    async with open_engine(Settings(home=home), clock=clock) as engine:

        async def one() -> str:
            session = await engine.create(
                ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})], retention=Retention(ttl=None)
            )
            return str(session.id)

        for name in ("idle", "published", "locked", "discarded"):
            made[name] = await one()
        seal = (await engine.preview(made["published"], ANA)).seal
        await engine.publish(made["published"], ANA, seal=seal)
        await engine.preview(made["locked"], ANA, seconds=7 * DAY)
        await engine.discard(made["discarded"], ANA)
        clock.advance(19.9 * DAY)
        made["fresh"] = await one()
    return made


def test_a_flush_of_one_store_has_nothing_to_do(cli: Cli, session: str) -> None:
    assert cli.json("tiers", "flush", "--retry") == {"flushed": 0, "recovered": 0, "dead_letters": 0}
    assert "Nothing was flushed" in cli("tiers", "flush").stdout


def test_repair_of_what_is_well_says_so(cli: Cli, session: str) -> None:
    told = cli.json("verify", "--repair")
    assert (told["ok"], told["repaired"]) == (True, {})
    assert "Nothing was to be repaired." in cli("verify", "--repair").stdout


def test_watching_goes_on_until_it_is_interrupted_and_ends_well(cli: Cli, session: str) -> None:
    words = [sys.executable, "-c", "from holdfast.cli.entry import main; main()", "--home", str(cli.home), "--json"]
    with subprocess.Popen([*words, "tiers", "status", "--watch"], stdout=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stdout is not None
            lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
            watching.send_signal(signal.SIGINT)
            assert watching.wait(20) == 0
        finally:
            watching.kill()
    assert [line["warm"]["sessions"] for line in lines] == [1, 1]


# -- two servers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Callable[[], str]]]:
    """Redis, and what makes an empty database of a PostgreSQL."""
    with redis_server(tmp_path_factory.mktemp("redis")) as redis, postgres_server() as postgres:
        yield redis, postgres.fresh_url


@pytest.fixture
def apart(cli: Cli, servers: tuple[RedisServer, Callable[[], str]], monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """The command line's home has its hot tier in Redis and its warm one in PostgreSQL."""
    redis, fresh = servers
    if redis.process is None:
        redis.start()
    monkeypatch.setenv("HOLDFAST_HOT", f"{redis.url}?prefix=cli-{time.monotonic_ns()}&timeout=5")
    monkeypatch.setenv("HOLDFAST_WARM", fresh())
    return redis


def test_apart_the_status_tells_of_each_tier_and_of_the_way_between(
    cli: Cli, apart: RedisServer, document: Path
) -> None:
    session = cli("ingest", str(document)).stdout.strip()
    cli("tiers", "flush")
    told = cli.json("tiers", "status")
    assert (told["tiered"], told["flush"]["entries"], told["flush"]["buried"]) == (True, 0, 0)
    assert (told["hot"]["sessions"], told["warm"]["sessions"]) == (1, 1)
    lines = cli("tiers", "status").stdout.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["TIER", "hot", "warm", "cold"]
    assert "Nothing is on its way" in lines[4]
    cli("tiers", "suspend", session)
    told = cli.json("tiers", "status")
    assert (told["hot"]["sessions"], told["warm"]["sessions"]) == (0, 1)
    cli("tiers", "restore", session)
    assert cli.json("tiers", "status")["hot"]["sessions"] == 1
    cli("tiers", "archive", session)
    told = cli.json("tiers", "status")
    assert (told["hot"]["sessions"], told["warm"]["archived"]) == (0, 1)
    assert cli.json("sessions", "show", session)["version"] == 1
    assert cli.json("verify")["ok"]


def test_apart_a_command_says_that_a_tier_does_not_answer(cli: Cli, apart: RedisServer, document: Path) -> None:
    cli("ingest", str(document))
    apart.kill()
    error = cli.error("tiers", "status", code=7)
    assert error["code"] in ("store-unavailable", "store-down")


def test_a_hot_tier_that_came_back_older_is_repaired_without_losing_what_only_it_had(
    cli: Cli, apart: RedisServer, document: Path
) -> None:
    """F12: the newer side counts; where each has what the other has not, the hot tier's is a session of its own."""
    session = cli("ingest", str(document)).stdout.strip()
    older = asyncio.run(put_back(cli, session))
    told = cli("verify", "--json", code=8)
    assert [one["session"] for one in json.loads(told.stdout)["differences"]] == [session]
    assert cli.error("sessions", "rename", session, "Lamps", code=7)["code"] == "tier-behind"
    assert "verify --repair" in cli("sessions", "rename", session, "Lamps", code=7).stderr
    said = cli("verify", "--repair").stdout
    assert f"{session} is repaired" in said
    assert "counts, not the hot tier's" in said
    assert older < cli.json("sessions", "show", session)["version"]
    assert cli.json("verify")["ok"]
    cli("sessions", "rename", session, "Lamps")


async def put_back(cli: Cli, session: str) -> int:
    """Put the hot tier back to before the last edit of a session; the version it is at there then."""
    settings = Settings.load({**_environment(), "HOLDFAST_HOME": str(cli.home)})
    async with open_engine(settings) as engine:
        header = await engine.header(session, ANA)
        kept = await rows(engine, session)
        async with engine.edit(session, ANA, expected=header.version) as draft:
            draft.put(draft.new_key("chunks"), {"text": "One more."})
        await engine.flush(Principal("root", tenant="local", roles=frozenset({"operator"})))
        await restore(engine, session, kept)
    return int(header.version)


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name.startswith("HOLDFAST_")}


async def rows(engine: Engine, session: str) -> Any:
    """What the hot tier has of a session."""
    hot = engine._journal.hot
    loaded = await hot.load(session)
    assert loaded is not None
    return (*loaded, await hot.entries(session, after=0, limit=100))


async def restore(engine: Engine, session: str, kept: Any) -> None:
    """Have the hot tier as it was."""
    hot: Any = engine._journal.hot
    head, items, entries = kept
    newest = await hot.head(session)
    assert await hot.evict(session, step=newest.step, now=engine._clock.now(), force=True)
    assert await hot.install(head, items, entries, changes={}, fence=0)
