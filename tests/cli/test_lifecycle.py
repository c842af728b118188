"""Taking a session through its life from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_a_preview_locks_and_says_what_publishing_would_do(cli: Cli, session: str, keys: list[str]) -> None:
    text = cli("sessions", "lock", session).stdout
    assert f"changes       {len(keys)} added" in text
    assert f"{len(keys)} to embed" in text
    assert "live now      nothing" in text
    assert "Live readers see the old revision until the switch." in text
    preview = cli.json("sessions", "lock", session, "--minutes", "5")
    assert preview["counts"]["added"] == len(keys)
    assert preview["lock"]["owner"] == "ana"
    shown = cli("sessions", "show", session).stdout
    assert "locked" in shown
    assert "holdfast sessions publish" in shown
    error = cli.error("sessions", "delete", session, keys[0], code=5)
    assert (error["code"], error["status"]) == ("not-draft", "locked")
    assert "is a draft again" in cli("sessions", "unlock", session).stdout
    cli("sessions", "delete", session, keys[0])


def test_a_long_preview_is_shortened_unless_asked_for_in_full(cli: Cli, session: str) -> None:
    for number in range(12):
        cli("sessions", "put", session, f"chunks/extra-{number}", "--set", f"text=extra {number}")
    assert "… and 3 more items." in cli("sessions", "lock", session).stdout
    assert "more items" not in cli("sessions", "lock", session, "--full").stdout


def test_publishing_under_the_seal_gives_a_receipt_and_the_same_one_again(cli: Cli, session: str) -> None:
    seal = cli.json("sessions", "lock", session)["seal"]
    assert cli.error("sessions", "publish", session, "--seal", "0" * 64, code=4)["code"] == "seal-mismatch"
    receipt = cli.json("sessions", "publish", session, "--seal", seal)
    assert (receipt["seal"], receipt["version"]) == (seal, 1)
    assert cli.json("sessions", "publish", session, "--seal", seal) == receipt
    assert cli.json("sessions", "publish", session) == receipt
    assert "3 records live" in cli("sessions", "publish", session).stdout
    assert cli.json("sessions", "receipts", session)["receipts"] == [receipt]
    assert "publication" in cli("sessions", "receipts", session).stdout


def test_what_was_not_previewed_is_not_published(cli: Cli, session: str) -> None:
    assert cli.error("sessions", "publish", session, code=4)["code"] == "seal-mismatch"
    assert "holdfast sessions lock" in cli("sessions", "publish", session, code=4).stderr
    assert "Never published" in cli("sessions", "receipts", session).stdout


def test_somebody_elses_lock_is_respected_and_can_be_taken_over(cli: Cli, session: str) -> None:
    cli("sessions", "grant", session, "ben", "editor")
    cli("sessions", "lock", session)
    assert cli.error("sessions", "publish", session, code=5, who="ben")["code"] == "lock-held"
    assert "take-over" in cli("sessions", "publish", session, code=5, who="ben").stderr
    assert "by ben until" in cli("sessions", "take-over", session, who="ben").stdout
    assert cli.json("sessions", "label", session)["labels"][0]["name"].startswith("ana ")
    assert cli.json("sessions", "publish", session, who="ben")["actor"] == "ben"


def test_published_text_is_found_and_a_draft_is_not(cli: Cli, session: str, keys: list[str]) -> None:
    assert "Nothing found" in cli("search", "Fridays").stdout
    cli("sessions", "lock", session)
    cli("sessions", "publish", session)
    hits = cli.json("search", "oil,", "bread", "and", "letters")["hits"]
    assert hits[0]["key"] == keys[-1]
    text = cli("search", "bread letters", "--limit", "1").stdout
    assert "The lighthouse > The boat" in text
    assert "1 hit." in text
    assert "In winter it may be late." in cli("search", "bread letters", "--limit", "1", "--whole").stdout


def test_editing_again_and_rolling_back_change_what_is_live(cli: Cli, published: str, keys: list[str]) -> None:
    assert cli.error("sessions", "delete", published, keys[0], code=5)["status"] == "published"
    draft = cli.json("sessions", "reopen", published)
    assert (draft["parent"], draft["status"]) == (published, "draft")
    assert "A new draft:" in cli("sessions", "reopen", published).stdout
    cli("sessions", "run", draft["id"], "edit", "--key", keys[0], "--text", "The lamp is electric now.")
    preview = cli.json("sessions", "lock", draft["id"])
    assert (preview["counts"]["changed"], preview["forecast"]["embeds"]) == (1, 1)
    assert "revision" in cli("sessions", "lock", draft["id"]).stdout
    second = cli.json("sessions", "publish", draft["id"])
    assert "electric" in cli("search", "electric lamp").stdout
    back = cli.json("sessions", "rollback", draft["id"])
    assert (back["revision"], back["rolls_back"]) == (second["previous"], second["revision"])
    assert "electric" not in cli("search", "electric lamp", "--whole").stdout
    assert "Rolled back." in cli("sessions", "rollback", draft["id"]).stdout
    assert "rollback" in cli("sessions", "receipts", draft["id"]).stdout


def test_a_discarded_session_is_gone_until_it_is_revived(cli: Cli, session: str) -> None:
    said = cli("sessions", "discard", session).stdout
    assert f"holdfast sessions revive {session[:12]}" in said
    error = cli.error("sessions", "show", session, code=3)
    assert (error["code"], error["status"]) == ("session-gone", "discarded")
    assert "revive" in cli("sessions", "show", session, code=3).stderr
    assert cli.json("sessions", "revive", session[:8])["status"] == "draft"
    assert cli.json("sessions", "show", session)["version"] == 1


def test_a_session_is_kept_for_longer_or_for_good(cli: Cli, session: str) -> None:
    assert "is set aside in 3 days" in cli("sessions", "extend", session, "--hours", "72").stdout
    assert "set aside" in cli("sessions", "touch", session).stdout
    assert cli.json("sessions", "extend", session, "--permanent")["expires"] is None
    assert "until it is published or discarded" in cli("sessions", "extend", session, "--permanent").stdout
    assert "never" in cli("sessions", "list").stdout
    assert cli.error("sessions", "extend", session, code=2)["code"] == "usage"


def test_a_session_is_renamed_and_shared(cli: Cli, session: str) -> None:
    assert "'The old lighthouse'" in cli("sessions", "rename", session, "The old lighthouse").stdout
    assert "shared with ben as viewer" in cli("sessions", "grant", session, "ben", "viewer").stdout
    assert cli.json("sessions", "show", session, who="ben")["title"] == "The old lighthouse"
    assert cli.error("sessions", "rename", session, "Mine", code=5, who="ben")["code"] == "permission-denied"
    assert "ben (viewer)" in cli("sessions", "show", session).stdout
    assert "no longer shared" in cli("sessions", "grant", session, "ben", "none").stdout
    assert cli.error("sessions", "show", session, code=3, who="ben")["code"] == "session-not-found"
    assert cli.error("sessions", "grant", session, "ben", "king", code=2)["code"] == "usage"
