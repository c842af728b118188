"""A cold tier that cannot be used as it is set, or not now: the status says why, ``verify`` calls nothing damaged."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.testing.objects import ObjectServer
from holdfast.testing.servers import free_port

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture
def bucket(cli: Cli, objects: ObjectServer, credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The command line's cold tier is a bucket that is there; its URL, with a short timeout."""
    url = objects.url(f"holdfast/{tmp_path.name}", timeout="2")
    monkeypatch.setenv("HOLDFAST_COLD", url)
    return url


def wrong(url: str, how: str) -> str:
    """The same tier, set wrong."""
    if how == "bucket":
        return url.replace("s3://holdfast/", "s3://not-there/")
    return f"{url.partition('?')[0]}?endpoint=http://127.0.0.1:{free_port()}&timeout=2"


@pytest.mark.parametrize(("how", "reason"), [("bucket", "it answered 404 NoSuchBucket"), ("endpoint", "no connection")])
def test_status_says_of_a_cold_tier_that_is_set_wrong_why_it_does_not_answer(
    cli: Cli, bucket: str, how: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.json("tiers", "status")["troubles"] == {}
    monkeypatch.setenv("HOLDFAST_COLD", wrong(bucket, how))
    told = cli("tiers", "status", "--json", code=7).stdout
    assert json.loads(told)["troubles"] == {"cold": reason}
    assert json.loads(told)["answers"] == {"hot": "ok", "warm": "ok", "cold": "store-unavailable"}
    assert f"The cold tier does not answer: {reason}." in cli("tiers", "status", code=7).stdout


def test_verify_tells_what_could_not_be_looked_at_from_what_is_damaged(
    cli: Cli, bucket: str, session: str, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cli("ingest", str(document)).stdout.strip()
    assert cli.json("verify")["unavailable"] == []
    monkeypatch.setenv("HOLDFAST_COLD", wrong(bucket, "endpoint"))
    told = json.loads(cli("verify", "--json", code=7).stdout)
    assert (told["ok"], told["differences"]) == (False, [])
    assert sorted(one["session"] for one in told["unavailable"]) == sorted([session, other])
    assert {(one["code"], one["unavailable"]) for said in told["unavailable"] for one in said["problems"]} <= {
        ("store-unavailable", True),
        ("store-down", True),
    }
    said = cli("verify", code=7).stdout
    assert "2 could not be looked at whole just now." in said
    assert "the cold store did not answer (no connection)" in said
    assert "change id" not in said
    damage(cli.home, session)
    told = json.loads(cli("verify", "--json", code=8).stdout)
    assert [one["session"] for one in told["differences"]] == [session]
    assert [one["session"] for one in told["unavailable"]] == [other]
    assert "1 does not add up, 1 could not be looked at whole just now." in cli("verify", code=8).stdout
    monkeypatch.setenv("HOLDFAST_COLD", bucket)
    told = json.loads(cli("verify", "--json", code=8).stdout)
    assert [one["session"] for one in told["differences"]] == [session]
    assert told["unavailable"] == []


def damage(home: Path, session: str) -> None:
    """Let the first entry of a session's log be another's bytes."""
    with closing(sqlite3.connect(home / "holdfast.sqlite")) as file, file:
        done = file.execute(
            "UPDATE log SET payload = zeroblob(64) WHERE step = 1 AND session = (SELECT no FROM session WHERE id = ?)",
            (session,),
        )
        assert done.rowcount == 1


def test_an_object_that_is_not_there_is_damage(
    cli: Cli, bucket: str, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent and unavailable are two answers: another prefix of the bucket answers, and has nothing."""
    monkeypatch.setenv("HOLDFAST_COLD", bucket.replace("s3://holdfast/", "s3://holdfast/elsewhere-"))
    told = json.loads(cli("verify", "--json", code=8).stdout)
    assert [problem["code"] for one in told["differences"] for problem in one["problems"]] == ["blob-not-found"]
    assert told["unavailable"] == []
