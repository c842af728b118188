"""Who may do what: every verb for every role, as one table."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidChangeError
from holdfast.model.access import SERVICE_ROLES, SERVICE_VERBS, VERBS, Principal, Role, may, may_know, role_of

TABLE = """
                owner editor participant viewer
    header        x     x        x         x
    read          x     x        x         x
    history       x     x        x         x
    diff          x     x        x         x
    feed          x     x        x         x
    export        x     x        x         x
    receipts      x     x        x         x
    edit          x     x        x         -
    undo          x     x        x         -
    redo          x     x        x         -
    lease         x     x        x         -
    touch         x     x        x         -
    label         x     x        -         -
    restore       x     x        -         -
    rename        x     x        -         -
    preview       x     x        -         -
    unlock        x     x        -         -
    take-over     x     x        -         -
    publish       x     x        -         -
    reopen        x     x        -         -
    extend        x     x        -         -
    suspend       x     x        -         -
    archive       x     x        -         -
    rehydrate     x     x        -         -
    rollback      x     -        -         -
    discard       x     -        -         -
    revive        x     -        -         -
    grant         x     -        -         -
    audit         x     -        -         -
"""
ROLES = [Role(name) for name in TABLE.split("\n")[1].split()]
ALLOWED = {
    line.split()[0]: dict(zip(ROLES, line.split()[1:], strict=True)) for line in TABLE.split("\n")[2:] if line.strip()
}


class Guarded(msgspec.Struct, frozen=True):
    tenant: str
    owner: str
    grants: dict[str, Role]


SESSION = Guarded("acme", "owner", {str(role): role for role in ROLES if role is not Role.OWNER})


def test_the_table_here_has_every_verb_and_every_role() -> None:
    assert set(ALLOWED) == set(VERBS)
    assert set(ROLES) == set(Role)


@pytest.mark.parametrize(("verb", "role"), list(product(VERBS, Role)))
def test_each_role_may_what_the_table_says(verb: str, role: Role) -> None:
    who = Principal(str(role), "acme")
    assert role_of(who, SESSION) is role
    assert may(who, verb, SESSION) is (ALLOWED[verb][role] == "x")


@pytest.mark.parametrize("verb", [*VERBS, *SERVICE_VERBS, "", "Read", "read ", "everything", "__class__"])
def test_a_stranger_may_nothing(verb: str) -> None:
    for stranger in (
        Principal("nobody", "acme"),
        Principal("Owner", "acme"),
        Principal("nobody", "acme", frozenset({"owner"})),
    ):
        assert role_of(stranger, SESSION) is None
        assert may(stranger, verb, SESSION) is False
        assert may_know(stranger, SESSION) is False


@pytest.mark.parametrize("verb", [*SERVICE_VERBS, "", "Read", "read ", "everything", "__class__", "delete", "*"])
def test_an_unknown_verb_is_allowed_to_nobody(verb: str) -> None:
    everybody = [
        *(Principal(str(role), "acme") for role in Role),
        Principal("root", "acme", SERVICE_ROLES),
    ]
    assert not any(may(who, verb, SESSION) for who in everybody)


@pytest.mark.parametrize("verb", VERBS)
def test_an_admin_may_everything_in_the_tenant_and_an_auditor_look_at_what_was_done(verb: str) -> None:
    assert may(Principal("root", "acme", frozenset({"admin"})), verb, SESSION)
    operator = Principal("olga", "acme", frozenset({"operator"}))
    assert not may(operator, verb, SESSION)
    assert not may_know(operator, SESSION)
    auditor = Principal("eve", "acme", frozenset({"auditor"}))
    assert may(auditor, verb, SESSION) is (verb in {"header", "audit", "receipts"})
    assert role_of(auditor, SESSION) is None
    assert may_know(auditor, SESSION)


def test_an_auditor_with_a_role_on_the_session_may_what_the_role_may() -> None:
    for role in Role:
        who = Principal(str(role), "acme", frozenset({"auditor"}))
        assert {verb for verb in VERBS if may(who, verb, SESSION)} == {
            verb for verb in VERBS if ALLOWED[verb][role] == "x"
        } | {"header", "audit", "receipts"}


@pytest.mark.parametrize("roles", [set(), {"admin"}, {"auditor"}, {"admin", "auditor"}])
def test_a_session_of_another_tenant_does_not_exist(roles: set[str]) -> None:
    for name in [*map(str, Role), "root"]:
        who = Principal(name, "other", frozenset(roles))
        assert not any(may(who, verb, SESSION) for verb in VERBS)
        assert may_know(who, SESSION) is False
        assert role_of(who, SESSION) is None


def test_a_grant_to_the_owner_takes_nothing_away() -> None:
    session = Guarded("acme", "owner", {"owner": Role.VIEWER})
    assert all(may(Principal("owner", "acme"), verb, session) for verb in VERBS)


@given(st.text(max_size=20))
def test_only_names_that_are_in_the_table_are_verbs(verb: str) -> None:
    assert may(Principal("root", "acme", frozenset({"admin"})), verb, SESSION) is (verb in ALLOWED)


@pytest.mark.parametrize(
    "fields", [{"id": ""}, {"id": "x" * 10_000}, {"id": "\ud800"}, {"id": 7}, {"tenant": ""}, {"tenant": "a/b"}]
)
def test_a_principal_that_could_not_be_stored_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidChangeError):
        Principal(**{"id": "ana"} | fields)
