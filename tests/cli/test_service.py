"""Verbs on the whole home: verify, keys, sweep, audit, settings."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_verify_counts_what_it_looked_at(cli: Cli, published: str) -> None:
    found = cli.json("verify")
    assert (found["ok"], found["sessions"], found["differences"]) == (True, 1, [])
    assert found["items"] == 3
    assert "1 session, " in cli("verify").stdout
    assert cli.json("verify", published[:8])["sessions"] == 1
    assert "Tenant 'elsewhere' has no sessions here" in cli("verify", "--tenant", "elsewhere").stderr


def test_verify_ends_with_8_where_one_bit_is_wrong(cli: Cli, session: str, document: Path) -> None:
    other = cli("ingest", str(document)).stdout.strip()
    with closing(sqlite3.connect(cli.home / "holdfast.sqlite")) as database, database:
        number = database.execute("SELECT no FROM session WHERE id = ?", (session,)).fetchone()[0]
        row, sealed = database.execute("SELECT rowid, sealed FROM item WHERE session = ?", (number,)).fetchone()
        flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
        database.execute("UPDATE item SET sealed = ? WHERE rowid = ?", (flipped, row))
    text = cli("verify", code=8).stdout
    assert session in text
    assert other not in text
    assert "1 does not add up" in text
    found = cli("verify", "--json", code=8)
    assert '"ok":false' in found.stdout
    assert cli.error("sessions", "show", session, code=8)["code"] == "tampered"
    assert "not touched" in cli("sessions", "show", session, code=8).stderr
    cli("sessions", "show", other)


def test_a_session_that_does_not_open_is_not_passed_over_in_silence(cli: Cli, session: str) -> None:
    with closing(sqlite3.connect(cli.home / "holdfast.sqlite")) as database, database:
        database.execute("UPDATE session SET sealed = zeroblob(length(sealed))")
    listed = cli("sessions", "list")
    assert session in listed.stderr
    assert "holdfast verify" in listed.stderr
    assert cli.json("sessions", "list") == {"sessions": [], "cursor": None, "unreadable": [session], "stale": False}
    assert cli.json("sessions", "list", who="ben")["unreadable"] == []
    assert cli.error("sessions", "show", session, code=8)["code"] == "tampered"
    assert cli.error("sessions", "show", session[:8], code=8)["code"] == "tampered"


def test_keys_are_listed_and_rotated_while_sessions_stay_readable(cli: Cli, session: str) -> None:
    first = cli.json("keys", "list")
    assert first["ids"] == [first["active"]]
    rotated = cli.json("keys", "rotate")
    assert rotated["sessions"] == 1
    second = cli.json("keys", "list")
    assert second["active"] == rotated["key_id"] != first["active"]
    assert set(second["ids"]) == {first["active"], second["active"]}
    assert "unwraps" in cli("keys", "list").stdout
    assert "1 session wrapped" in cli("keys", "rotate", "--drop").stdout
    assert len(cli.json("keys", "list")["ids"]) == 1
    assert cli.json("sessions", "show", session)["version"] == 1


def test_keys_are_never_shown(cli: Cli, session: str) -> None:
    import json

    ring = json.loads((cli.home / "keys.json").read_text())
    secrets = [value for value in ring["keys"].values() if isinstance(value, str)]
    assert secrets
    for command in (("keys", "list"), ("settings",)):
        for answer in (cli(*command).output, cli(*command, "--json").output):
            assert not [secret for secret in secrets if secret in answer]


def test_sweep_says_what_it_did(cli: Cli, session: str) -> None:
    assert "Nothing was due." in cli("sweep").stdout
    assert cli.json("sweep")["expired"] == 0


def test_sweep_expires_what_is_past_its_time(cli: Cli, document: Path) -> None:
    import time

    session = cli("ingest", str(document), "--hours", "0.0001").stdout.strip()
    time.sleep(0.4)
    assert cli.json("sweep")["expired"] == 1
    assert cli.error("sessions", "show", session, code=3)["status"] == "expired"
    assert cli.json("sessions", "revive", session)["status"] == "draft"


def test_the_audit_log_names_who_was_refused(cli: Cli, session: str) -> None:
    cli("sessions", "show", session, code=3, who="ben")
    lines = cli.json("audit")["lines"]
    assert [line["outcome"] for line in lines if line["actor"] == "ben"] == ["permission-denied"]
    own = cli.json("audit", "--session", session)["lines"]
    assert own[0]["verb"] in ("create", "ingest")
    assert "permission-denied" in cli("audit", "--session", session).stdout
    assert len(cli.json("audit", "--limit", "1")["lines"]) == 1


def test_settings_show_what_is_in_force_and_where_from(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LIMITS__ITEMS", "7")
    shown = cli.json("settings")
    assert shown["limits.items"] == 7
    assert shown["home"] == str(cli.home)
    assert re.search(r"^limits\.items +7$", cli("settings").stdout, re.MULTILINE)


def test_a_setting_that_makes_no_sense_ends_with_9(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LIMITS__ITEMS", "many")
    assert cli.error("sessions", "list", code=9)["code"] == "configuration"
    assert "HOLDFAST_LIMITS__ITEMS" in cli("settings", code=9).stderr
