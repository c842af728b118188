"""Changing a session's items from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_a_declared_operation_runs_with_its_typed_arguments(cli: Cli, session: str, keys: list[str]) -> None:
    committed = cli.json("sessions", "run", session, "split", "--key", keys[0], "--at", "20")
    assert committed["version"] == 2
    assert sorted(committed["changes"].values()) == ["added", "changed"]
    added = next(key for key, verb in committed["changes"].items() if verb == "added")
    text = cli("sessions", "run", session, "merge", "--keys", keys[0], added, "--separator", "").stdout
    assert text.startswith("Version 3: merge,")


def test_operations_are_listed_from_the_declaration(cli: Cli, session: str) -> None:
    text = cli("sessions", "run", session).stdout
    assert "--key KEY --at N" in text
    listed = cli.json("sessions", "run", session)
    names = [operation["name"] for operation in listed["operations"]]
    assert names[:2] == ["split", "merge"]
    assert all(name in text for name in names)
    split = cli("sessions", "run", session, "split", "--help").stdout
    assert "--at N" in split
    assert "Cut a chunk in two" in split
    schema = cli.json("sessions", "run", session, "split", "--help")
    assert "at" in json.dumps(schema["arguments"])


def test_arguments_that_do_not_fit_are_refused_by_name(cli: Cli, session: str, keys: list[str]) -> None:
    unknown = cli.error("sessions", "run", session, "split", "--key", keys[0], "--ate", "3", code=2)
    assert "--ate" in unknown["message"] or "--at" in unknown["message"]
    missing = cli.error("sessions", "run", session, "split", "--key", keys[0], code=2)
    assert "--at" in missing["message"]
    wrong = cli.error("sessions", "run", session, "split", "--key", keys[0], "--at", "middle", code=6)
    assert wrong["code"] == "invalid-change"
    assert cli.error("sessions", "run", session, "polish", code=6)["known"][0] == "disable"
    assert cli.json("sessions", "show", session)["version"] == 1


def test_an_argument_that_is_an_object_is_given_as_json(cli: Cli, session: str, keys: list[str]) -> None:
    cli("sessions", "run", session, "metadata", "--key", keys[0], "--patch", '{"page": 3}')
    assert cli.json("sessions", "show", session, keys[0])["body"]["metadata"] == {"page": 3}


def test_put_writes_a_body_from_a_file_or_from_standard_input(cli: Cli, session: str, tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    path.write_text('{"text": "From a file."}')
    cli("sessions", "put", session, "chunks/new", str(path))
    cli("sessions", "put", session, "chunks/newer", "-", "--before", "chunks/new", stdin='{"text": "From a pipe."}')
    items = cli.json("sessions", "show", session)["items"]
    assert [item["key"] for item in items][-2:] == ["chunks/newer", "chunks/new"]
    assert items[-2]["body"]["text"] == "From a pipe."


def test_put_sets_single_fields_and_keeps_the_rest(cli: Cli, session: str, keys: list[str]) -> None:
    before = cli.json("sessions", "show", session, keys[0])["body"]
    cli("sessions", "put", session, keys[0], "--set", "enabled=false", "--set", 'metadata={"by": "ana"}')
    after = cli.json("sessions", "show", session, keys[0])["body"]
    assert after == {**before, "enabled": False, "metadata": {"by": "ana"}}
    cli("sessions", "put", session, "chunks/plain", "--set", "text=plain words")
    assert cli.json("sessions", "show", session, "chunks/plain")["body"]["text"] == "plain words"
    assert cli.error("sessions", "put", session, keys[0], code=2)["code"] == "usage"
    assert cli.error("sessions", "put", session, keys[0], "--set", "enabled", code=2)["code"] == "usage"


def test_move_and_delete_change_place_and_presence(cli: Cli, session: str, keys: list[str]) -> None:
    cli("sessions", "move", session, keys[-1], "--before", keys[0])
    moved = [item["key"] for item in cli.json("sessions", "show", session)["items"]]
    assert moved == [keys[-1], *keys[:-1]]
    cli("sessions", "delete", session, *keys[:2])
    assert [item["key"] for item in cli.json("sessions", "show", session)["items"]] == [keys[-1], *keys[2:-1]]


def test_an_edit_file_lands_whole_or_not_at_all(cli: Cli, session: str, keys: list[str]) -> None:
    steps = [
        {"put": "chunks/one", "body": {"text": "One."}},
        {"move": "chunks/one", "before": keys[0]},
        {"delete": keys[-1]},
    ]
    committed = cli.json("sessions", "edit", session, "-", stdin=json.dumps(steps))
    assert committed["version"] == 2
    assert committed["changes"] == {"chunks/one": "added", keys[-1]: "deleted"}
    broken = [*steps[:1], {"delete": "chunks/nowhere"}]
    error = cli.error("sessions", "edit", session, "-", stdin=json.dumps(broken), code=3)
    assert error["code"] == "item-not-found"
    for wrong in ("{}", '[{"erase": "x"}]', '[{"put": "chunks/a", "delete": "chunks/b"}]', "[", '[{"after": "x"}]'):
        assert cli.error("sessions", "edit", session, "-", stdin=wrong, code=6)["code"] == "invalid-change"
    assert cli.json("sessions", "show", session)["version"] == 2


def test_an_edit_that_changes_nothing_makes_no_version(cli: Cli, session: str, keys: list[str]) -> None:
    body = json.dumps(cli.json("sessions", "show", session, keys[0])["body"])
    text = cli("sessions", "put", session, keys[0], "-", stdin=body).stdout
    assert "stays at version 1" in text
    assert cli.json("sessions", "show", session)["version"] == 1


def test_a_stale_version_is_a_conflict_with_three_sides(cli: Cli, session: str, keys: list[str]) -> None:
    cli("sessions", "put", session, "chunks/note", "--set", "text=first")
    cli("sessions", "put", session, "chunks/note", "--set", "text=theirs")
    words = ("sessions", "put", session, "chunks/note", "-", "--expected", "2")
    error = cli.error(*words, stdin='{"text": "mine"}', code=4)
    assert (error["code"], error["expected"], error["actual"]) == ("version-conflict", 2, 3)
    conflict = error["conflicts"][0]
    assert [conflict[side]["text"] for side in ("base", "theirs", "mine")] == ["first", "theirs", "mine"]
    shown = cli(*words, stdin='{"text": "mine"}', code=4).stderr.splitlines()
    assert shown[0].startswith("Error: ")
    assert "--rebase" in shown[0]
    assert [line.split()[0] for line in shown[1:]] == ["chunks/note", "base", "theirs", "mine"]


def test_rebase_lands_beside_changes_of_other_items(cli: Cli, session: str, keys: list[str]) -> None:
    cli("sessions", "put", session, "chunks/theirs", "--set", "text=theirs")
    words = ("sessions", "put", session, "chunks/mine", "--set", "text=mine", "--expected", "1")
    assert cli.error(*words, code=4)["code"] == "version-conflict"
    assert cli.json(*words, "--rebase")["version"] == 3


def test_a_change_id_makes_a_command_safe_to_send_again(cli: Cli, session: str, keys: list[str]) -> None:
    words = (
        "sessions",
        "run",
        session,
        "split",
        "--key",
        keys[0],
        "--at",
        "20",
        "--expected",
        "1",
        "--change-id",
        "x1",
    )
    first = cli.json(*words)
    again = cli.json(*words)
    assert (again["version"], again["digest"], again["replayed"]) == (first["version"], first["digest"], True)
    assert "had landed before" in cli(*words).stdout
    other = cli.error(*words[:7], "21", *words[8:], code=6)
    assert other["code"] == "change-id-reused"
    assert cli.error(*words[:8], "--change-id", "x2", code=2)["code"] == "usage"


def test_undo_and_redo_with_a_dry_run_first(cli: Cli, session: str, keys: list[str]) -> None:
    cli("sessions", "delete", session, keys[0])
    assert f"+ {keys[0]}  (added)" in cli("sessions", "undo", session, "--dry-run").stdout
    assert cli.json("sessions", "undo", session, "--dry-run")["differences"][0]["verb"] == "added"
    assert cli.json("sessions", "show", session)["version"] == 2
    assert cli.json("sessions", "undo", session)["changes"] == {keys[0]: "added"}
    assert f"- {keys[0]}  (deleted)" in cli("sessions", "redo", session, "--dry-run").stdout
    assert "Version 4: redo" in cli("sessions", "redo", session).stdout
    assert cli.error("sessions", "redo", session, code=5)["code"] == "nothing-to-undo"


def test_commits_of_a_group_are_undone_as_one(cli: Cli, session: str) -> None:
    for text in ("a", "ab", "abc"):
        cli("sessions", "put", session, "chunks/typed", "--set", f'text="{text}"', "--group", "typing")
    assert cli.json("sessions", "undo", session)["changes"] == {"chunks/typed": "deleted"}


def test_a_label_is_restored_and_so_is_a_version(cli: Cli, session: str, keys: list[str]) -> None:
    assert "No labels." in cli("sessions", "label", session).stdout
    assert "labelled 'whole'" in cli("sessions", "label", session, "whole").stdout
    cli("sessions", "delete", session, keys[0])
    cli("sessions", "label", session, "shorter", "--version", "2")
    assert [label["name"] for label in cli.json("sessions", "label", session)["labels"]] == ["shorter", "whole"]
    assert "whole" in cli("sessions", "label", session).stdout
    cli("sessions", "restore", session, "whole")
    assert len(cli.json("sessions", "show", session)["items"]) == len(keys)
    assert cli.json("sessions", "restore", session, "v2")["changes"] == {keys[0]: "deleted"}
    assert cli.json("sessions", "label", session, "named")["version"] == 4
    assert cli.error("sessions", "restore", session, "nowhere", code=3)["code"] == "label-not-found"
    assert cli.error("sessions", "restore", session, "77", code=3)["code"] == "version-not-found"
