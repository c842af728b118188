"""Finding sessions and reading them."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cli.sessions import expiry, next_step, status_word
from holdfast.compose import open_engine
from holdfast.model.access import Principal
from holdfast.model.session import Header, Lock, Publication, Status
from holdfast.settings import Settings
from holdfast.settings.user import LOCAL_TENANT

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_ingest_prints_the_session_id_and_nothing_else(cli: Cli, document: Path) -> None:
    result = cli("ingest", str(document))
    listed = cli.json("sessions", "list")["sessions"]
    assert result.stdout.split() == [listed[0]["id"]]
    assert listed[0]["title"] == "The lighthouse"
    assert listed[0]["status"] == "draft"


def test_a_document_comes_from_standard_input_too(cli: Cli) -> None:
    made = cli.json("ingest", "-", "--name", "tide.md", "--title", "The tide", stdin="# Tide\n\nIt rises.\n")
    assert made["title"] == "The tide"
    assert made["source"]["name"] == "tide.md"
    assert made["items"] == ["chunks/0001"]


def test_a_document_may_be_kept_for_a_time_of_its_own_or_for_good(cli: Cli, document: Path) -> None:
    hours = cli.json("ingest", str(document), "--hours", "2")
    assert hours["retention"]["ttl"] == 7200
    permanent = cli.json("ingest", str(document), "--permanent")
    assert permanent["expires"] is None
    assert cli.error("ingest", str(document), "--hours", "2", "--permanent", code=2)["code"] == "usage"


def test_ingest_under_a_change_id_makes_one_session(cli: Cli, document: Path) -> None:
    first = cli.json("ingest", str(document), "--change-id", "once")
    again = cli.json("ingest", str(document), "--change-id", "once")
    assert again["id"] == first["id"]
    assert len(cli.json("sessions", "list")["sessions"]) == 1


def test_a_large_document_is_refused_by_its_size(cli: Cli, tmp_path: Path) -> None:
    large = tmp_path / "large.md"
    large.write_bytes(b"word " * 2_000_001)
    error = cli.error("ingest", str(large), code=6)
    assert error["code"] == "limit-exceeded"
    assert error["figure"] == 10_000_005


def test_a_document_of_some_megabytes_is_read_whole(cli: Cli, tmp_path: Path) -> None:
    large = tmp_path / "large.md"
    large.write_bytes(b"# Large\n\n" + b"\xff" * 4_200_000)
    error = cli.error("ingest", str(large), code=6)  # read, and found to be no text
    assert error["code"] == "invalid-change"


def test_the_list_is_filtered_and_paged(cli: Cli, document: Path, session: str) -> None:
    for _ in range(3):
        cli("ingest", str(document), "--title", "Another")
    assert len(cli.json("sessions", "list", "--text", "lighthouse")["sessions"]) == 1
    assert cli.json("sessions", "list", "--status", "published")["sessions"] == []
    assert len(cli.json("sessions", "list", "--kind", "knowledge")["sessions"]) == 4
    assert cli.json("sessions", "list", "--owner", "ben")["sessions"] == []
    first = cli.json("sessions", "list", "--limit", "3")
    second = cli.json("sessions", "list", "--limit", "3", "--after", first["cursor"])
    assert [header["id"] for header in second["sessions"]] == [session]
    assert second["cursor"] is None
    assert first["cursor"] in cli("sessions", "list", "--limit", "3").stderr


def test_a_status_that_is_none_is_refused_by_name(cli: Cli) -> None:
    assert "'drafty' is no status; there are: draft," in cli("sessions", "list", "--status", "drafty", code=2).stderr


def test_the_list_of_nothing_says_how_to_begin(cli: Cli) -> None:
    assert "holdfast ingest" in cli("sessions", "list").stdout


def test_a_table_in_a_pipe_is_plain_text(cli: Cli, session: str) -> None:
    text = cli("sessions", "list").stdout
    heading, line = text.splitlines()
    assert " ".join(heading.split()) == "SESSION KIND OWNER STATUS VERSION ITEMS TITLE CHANGED EXPIRES"
    assert line.startswith(session[:12])
    assert "\x1b" not in text


def test_somebody_elses_session_is_not_there(cli: Cli, session: str) -> None:
    assert cli.json("sessions", "list", who="ben")["sessions"] == []
    assert [header["id"] for header in cli.json("sessions", "list", "--all", who="ben")["sessions"]] == [session]
    assert cli.error("sessions", "show", session, code=3, who="ben")["code"] == "session-not-found"
    assert cli.error("sessions", "show", session[:8], code=3, who="ben")["code"] == "session-not-found"
    elsewhere = ("--tenant", "elsewhere", "sessions", "show", session)
    assert cli.error(*elsewhere, code=3)["code"] == "session-not-found"


def test_show_gives_header_and_items_or_one_item_whole(cli: Cli, session: str, keys: list[str]) -> None:
    text = cli("sessions", "show", session).stdout
    assert "The lighthouse" in text
    assert session in text
    assert all(key in text for key in keys)
    assert "holdfast sessions lock" in text
    assert "The boat comes on Fridays" in cli("sessions", "show", session, keys[-1]).stdout
    item = cli.json("sessions", "show", session, keys[-1])
    assert item["key"] == keys[-1]
    assert "In winter it may be late." in item["body"]["text"]
    assert cli.error("sessions", "show", session, "chunks/none", code=3)["code"] == "item-not-found"


def test_show_gives_a_session_as_it_stood_at_a_version(cli: Cli, session: str, keys: list[str]) -> None:
    cli("sessions", "delete", session, keys[0])
    assert len(cli.json("sessions", "show", session)["items"]) == len(keys) - 1
    assert len(cli.json("sessions", "show", session, "--version", "1")["items"]) == len(keys)
    assert cli.error("sessions", "show", session, "--version", "9", code=3)["code"] == "version-not-found"


def test_a_session_is_named_by_the_beginning_of_its_id(cli: Cli, session: str) -> None:
    assert cli.json("sessions", "show", session[:6])["id"] == session
    assert cli.error("sessions", "show", session[:5], code=2)["code"] == "usage"
    assert cli.error("sessions", "show", "zzzzzzzz", code=3)["code"] == "session-not-found"


def test_an_ambiguous_beginning_is_refused(cli: Cli, session: str, monkeypatch: object) -> None:
    from holdfast.cli import call

    before = call.SHORTEST_PREFIX
    call.SHORTEST_PREFIX = 0
    try:
        cli("ingest", "-", stdin="Another one.\n")
        error = cli.error("sessions", "show", "", code=2)
    finally:
        call.SHORTEST_PREFIX = before
    assert "beginning of 2 sessions" in error["message"]


def test_history_is_a_timeline_with_labels(cli: Cli, session: str, keys: list[str]) -> None:
    cli("sessions", "delete", session, keys[0])
    cli("sessions", "label", session, "shorter")
    lines = cli("sessions", "history", session).stdout.splitlines()
    assert lines[0].split() == ["VERSION", "STEP", "WHAT", "CHANGED", "ITEMS", "WHO", "WHEN", "LABEL"]
    assert lines[1].split()[:5] == ["3", "label", "'shorter',", "version", "2"]
    assert lines[2].split()[:5] == ["v2", "2", "edit", "-1", keys[0]]
    assert lines[2].endswith("shorter")
    entries = cli.json("sessions", "history", session)["entries"]
    assert [(entry["step"], entry["commit"]) for entry in entries] == [(3, False), (2, True), (1, True)]
    assert entries[1]["changes"] == {keys[0]: "deleted"}
    assert entries[1]["actor"] == "ana"
    older = cli.json("sessions", "history", session, "--before", "2")["entries"]
    assert [entry["step"] for entry in older] == [1]
    assert "--before 3" in cli("sessions", "history", session, "--limit", "1").stderr


def test_history_is_as_long_as_asked_for_however_large_the_entries(cli: Cli, session: str, keys: list[str]) -> None:
    """One page of it is 8 MB at most."""

    async def write() -> None:
        async with open_engine(Settings(home=cli.home)) as engine:
            who = Principal("ana", LOCAL_TENANT)
            for version in range(1, 13):
                async with engine.edit(session, who, expected=version) as draft:
                    draft.put(keys[0], {"text": os.urandom(495_000).hex()})
            assert 0 < len(await engine.history(session, who, limit=50)) < 13

    asyncio.run(write())
    steps = [entry["step"] for entry in cli.json("sessions", "history", session)["entries"]]
    assert steps == list(range(13, 0, -1))
    steps = [entry["step"] for entry in cli.json("sessions", "history", session, "--limit", "11")["entries"]]
    assert steps == list(range(13, 2, -1))


def test_diff_shows_words_with_signs(cli: Cli, session: str, keys: list[str]) -> None:
    old = cli.json("sessions", "show", session, keys[-1])["body"]["text"]
    new = old.replace("Fridays", "Mondays")
    cli("sessions", "run", session, "edit", "--key", keys[-1], "--text", new)
    text = cli("sessions", "diff", session).stdout
    assert "[-Fridays-]{+Mondays+}" in text
    assert f"~ {keys[-1]}  (changed)" in text
    assert "1 item: 1 changed." in text
    found = cli.json("sessions", "diff", session, "1")
    assert (found["from"], found["to"]) == (1, 2)
    assert [difference["key"] for difference in found["differences"]] == [keys[-1]]
    assert "No difference." in cli("sessions", "diff", session, "2", "2").stdout


def test_export_is_one_document_in_a_file_or_on_standard_output(cli: Cli, session: str, tmp_path: Path) -> None:
    exported = json.loads(cli("sessions", "export", session).stdout)
    assert exported["header"]["id"] == session
    assert {"items", "history", "labels", "receipts"} <= exported.keys()
    path = tmp_path / "session.json"
    assert str(path) in cli("sessions", "export", session, str(path)).stdout
    assert json.loads(path.read_text())["items"] == exported["items"]
    assert cli.json("sessions", "export", session, str(path))["bytes"] > 0


def test_what_others_wrote_cannot_drive_the_terminal(cli: Cli) -> None:
    made = cli.json("ingest", "-", "--title", "Red \x1b[31malert\x07", stdin="Text \x1b]0;owned\x07 here.\n")
    for words in (("list",), ("show", made["id"]), ("show", made["id"], made["items"][0])):
        assert "\x1b" not in cli("sessions", *words).stdout
        assert "\x07" not in cli("sessions", *words).stdout


NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=3)
LOCK = Lock(owner="ana", until=LATER, seal="5ea1")
PENDING = Publication(
    revision="r", attempt="a", seal="5ea1", target="t", previous=None, actor="ana", until=NOW + timedelta(minutes=1)
)


def header(status: Status, **facts: Any) -> Header:
    return Header("id" * 16, "local", "knowledge", 1, "ana", status, NOW, NOW, **facts)


def test_a_badge_says_more_than_the_status_where_there_is_more_to_say() -> None:
    assert status_word(header(Status.DRAFT), NOW) == "draft"
    assert status_word(header(Status.DRAFT, expires=NOW), NOW) == "expired"
    assert status_word(header(Status.LOCKED, lock=LOCK), NOW) == "locked"
    assert status_word(header(Status.LOCKED, lock=LOCK, publication=PENDING), NOW) == "publishing"
    assert status_word(header(Status.LOCKED, lock=LOCK, failure="no room"), NOW) == "failed"
    assert status_word(header(Status.LOCKED, lock=LOCK), LATER) == "draft"


def test_the_next_step_follows_from_the_status() -> None:
    steps = {status: next_step(header(status, lock=LOCK), NOW) for status in Status}
    words = {status: step.split()[2] for status, step in steps.items()}
    assert words == {
        Status.DRAFT: "lock",
        Status.LOCKED: "publish",
        Status.PUBLISHED: "reopen",
        Status.DISCARDED: "revive",
        Status.EXPIRED: "revive",
    }


def test_an_expiry_is_told_only_where_there_is_one_to_come() -> None:
    assert expiry(header(Status.DRAFT, expires=LATER), NOW) == "in 3 h"
    assert expiry(header(Status.DRAFT), NOW) == "never"
    assert expiry(header(Status.PUBLISHED, expires=LATER), NOW) == ""
