"""Who may do what over HTTP: every route, every role, every state a session can be in (S02, S03, S04, S10, S11; F22).

The matrix is made from the OpenAPI document, and what is to come of each request is worked out from the model's own
rule, so a route that is new is in it, and one that asks for another verb than it names is found.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest
from msgspec.structs import replace

from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError
from holdfast.model.access import SERVICE_VERBS, VERBS, Principal, Role, may, may_know
from holdfast.model.retention import Retention
from holdfast.model.session import Header
from holdfast.settings import Settings
from holdfast.settings.user import system_user
from holdfast.testing.clock import ManualClock
from holdfast.testing.document import Ask, operations
from holdfast.testing.front import ADMIN, ANA, AUDITOR, CHUNKS, EVE, Front, opened
from holdfast.testing.issuer import Issuer
from holdfast.wire.sessions import SessionForm

EDITOR, PARTICIPANT, VIEWER, STRANGER = (Principal(name) for name in ("edith", "paul", "vera", "sue"))
NAMESAKE, FOREIGN_ADMIN = Principal(ANA.id, "other"), replace(ADMIN, tenant="other")
GRANTS = {EDITOR: Role.EDITOR, PARTICIPANT: Role.PARTICIPANT, VIEWER: Role.VIEWER}

EVERYBODY = [STRANGER, EVE, NAMESAKE, FOREIGN_ADMIN, VIEWER, AUDITOR, PARTICIPANT, EDITOR, ADMIN, ANA]
"""The fewer rights the sooner, so that nobody is refused for what somebody before has done."""

MISSING = "nobodyhaseverhadasessionofthatid"

OF_GONE = {
    "read_header",
    "export_session",
    "read_feed",
    "follow",
    "session_audit",
    "release_lease",
    "revive_session",
} | {
    "archive",
    "rehydrate",
}
"""What can be done with a session that is discarded or has expired."""
OF_PURGED = {"session_audit"}
"""What can be done with a session of which a tombstone is left."""

WAYS: list[Callable[[Ask], Ask]] = [
    lambda asked: asked,
    lambda asked: asked._replace(headers={**asked.headers, "idempotency-key": "k", "prefer": "return=representation"}),
    lambda asked: asked._replace(headers={"content-type": asked.headers.get("content-type", "")}),
    lambda asked: asked._replace(content=b"{"),
]
"""Ways to ask that may find another way through the service: also these tell nothing."""

TTL, GRACE = 1_000.0, 100.0


async def draft(engine: Engine, clock: ManualClock, session: str) -> None:
    """As it is."""


async def locked(engine: Engine, clock: ManualClock, session: str) -> None:
    await engine.preview(session, EDITOR)


async def published(engine: Engine, clock: ManualClock, session: str) -> None:
    await engine.publish(session, EDITOR, seal=(await engine.preview(session, EDITOR)).seal)


async def discarded(engine: Engine, clock: ManualClock, session: str) -> None:
    await engine.discard(session, ANA)


async def purged(engine: Engine, clock: ManualClock, session: str) -> None:
    await engine.discard(session, ANA)


async def expired(engine: Engine, clock: ManualClock, session: str) -> None:
    """Its time will be over, and nobody has swept."""


async def swept(engine: Engine, clock: ManualClock, session: str) -> None:
    """Its time will be over, and the sweeper has been."""


State = Callable[[Engine, ManualClock, str], Awaitable[None]]
LIVE: list[State] = [draft, locked, published]
STATES: list[State] = [draft, locked, published, discarded, expired, swept, purged]


@pytest.mark.no_cover
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_everybody_may_do_what_the_model_says_and_no_more(
    state: State, believing: Settings, issuer: Issuer, clock: ManualClock
) -> None:
    """F22. For a stranger somebody else's session is a missing one, byte for byte."""
    async with opened(replace(believing, grace=GRACE), issuer, clock=clock) as front:
        sessions = {
            operation.name: await make(front.engine) for operation in operations(front.document) if operation.of_session
        }
        for session in sessions.values():
            await state(front.engine, clock, session)
        if state in (expired, swept):
            clock.advance(TTL)
        if state is purged:
            clock.advance(GRACE)
        if state in (swept, purged):
            assert (await front.engine.sweep(ADMIN)).failed == {}
        possible = set(sessions) if state in LIVE else OF_PURGED if state is purged else OF_GONE
        seen = dict.fromkeys(("hidden", "forbidden", "gone", "let in"), 0)
        for operation in operations(front.document):
            if not operation.of_session:
                continue
            session = sessions[operation.name]
            for who in EVERYBODY:
                header = await known(front.engine, session)
                tag = {"if-match": '"2"'} if operation.takes("If-Match") else {}
                if operation.takes("If-None-Match") and header is not None:
                    tag = {"if-none-match": await tag_of(front, session)}
                answer = await ask(front, who, operation.ask(session, **tag))
                where = f"{operation.name} by {who.id} of {who.tenant}: {answer.status_code} {answer.text[:200]}"
                code = answer.json()["code"] if answer.status_code >= 400 else ""
                if not (may_know(who, header) if header is not None else owns(who)):
                    assert (answer.status_code, code) == (404, "session-not-found"), where
                    turn = 1 + seen["hidden"] % (len(WAYS) - 1)
                    for vary in WAYS if state is draft else (WAYS[0], WAYS[turn]):
                        hidden = await ask(front, who, vary(operation.ask(session, **tag)))
                        missing = await ask(front, who, vary(operation.ask(MISSING, **tag)))
                        assert likeness(hidden, session) == likeness(missing, MISSING), where
                    seen["hidden"] += 1
                elif header is not None and not may(who, operation.verb, header):
                    assert (answer.status_code, code) == (403, "permission-denied"), where
                    seen["forbidden"] += 1
                elif operation.name not in possible:
                    assert (answer.status_code, code) == (410, "session-gone"), where
                    seen["gone"] += 1
                else:
                    assert answer.status_code not in (401, 403), where
                    assert code != "session-not-found", where
                    seen["let in"] += 1
        print(seen)
        assert seen["hidden"] >= 4 * len(sessions)
        assert (seen["forbidden"] > 0) == (state is not purged)
        assert (seen["gone"] > 0) == (state not in LIVE)


async def make(engine: Engine) -> str:
    """A session at version 2, on which others have their roles."""
    made = await engine.create(ANA, kind="knowledge", title="Tides", items=CHUNKS.items(), retention=Retention(TTL))
    session: str = made.id
    async with engine.edit(session, ANA, expected=1) as edit:
        edit.put("chunks/0003", {"text": "The moon draws it."})
    for who, role in GRANTS.items():
        await engine.grant(session, ANA, who.id, role)
    return session


async def known(engine: Engine, session: str) -> Header | None:
    """The header as the model's rule reads it, None of a session that is purged."""
    try:
        return await engine.header(session, ADMIN)
    except HoldfastError:
        return None


def owns(who: Principal) -> bool:
    """Who may know of a session of which nothing but a tombstone is left: grants went with the rest."""
    return who.tenant == ANA.tenant and (who.id == ANA.id or bool(who.roles))


async def tag_of(front: Front, session: str) -> str:
    answer = await (await front.client(ADMIN)).get(f"/v1/sessions/{session}/header")
    return answer.headers["etag"]


async def ask(front: Front, who: Principal, asked: Ask) -> httpx2.Response:
    client = await front.client(who)
    return await client.request(
        asked.method, asked.url, headers={**asked.headers, "x-request-id": "one"}, content=asked.content
    )


def likeness(answer: httpx2.Response, session: str) -> tuple[int, list[tuple[str, str]], str]:
    """All of an answer, but for the id that was asked for."""
    return answer.status_code, sorted(answer.headers.multi_items()), answer.text.replace(session, "…")


# -- service verbs and lists ------------------------------------------------------------------------------------------


async def test_verbs_of_the_service_are_for_the_roles_the_model_names(front: Front) -> None:
    asked = 0
    for operation in operations(front.document):
        if operation.of_session or operation.verb not in SERVICE_VERBS.keys() | {"audit"}:
            continue
        if operation.verb in ("revoke", "revocations"):
            continue  # of which everybody may what concerns himself: see below
        allowed = SERVICE_VERBS.get(operation.verb, frozenset({"admin", "auditor"}))
        for who in (ANA, EVE, AUDITOR, ADMIN, FOREIGN_ADMIN):
            asked += 1
            answer = await ask(front, who, operation.ask())
            if who.roles & allowed:
                assert answer.status_code == 200, (operation.name, who, answer.text)
            else:
                assert answer.json()["code"] == "permission-denied", (operation.name, who, answer.text)
    assert asked >= 30


async def test_only_an_admin_repairs(front: Front) -> None:
    """An auditor may read everything back, and change nothing by it."""
    address, _ = await front.make()
    session = address.rpartition("/")[2]
    for who, may_repair, may_verify in ((ANA, False, False), (AUDITOR, False, True), (ADMIN, True, True)):
        client = await front.client(who)
        for query, allowed in (({"repair": "true"}, may_repair), ({"repair": "false"}, may_verify), ({}, may_verify)):
            answer = await client.post("/v1/verify", params={"session": session, **query})
            assert (answer.status_code == 200) is allowed, (who, query, answer.text)
            if not allowed:
                assert answer.json()["code"] == "permission-denied"


async def test_only_an_admin_ends_the_tokens_of_others(front: Front) -> None:
    ana, admin = await front.client(ANA), await front.client(ADMIN)
    for body in ({"principal": "ben"}, {"everybody": True}, {"principal": ADMIN.id}):
        assert (await ana.post("/v1/revocations", json=body)).json()["code"] == "permission-denied"
    assert (await ana.post("/v1/revocations", json={"token": "t-1"})).json()["principal"] == "ana"
    assert (await admin.post("/v1/revocations", json={"principal": "ben"})).status_code == 201
    assert [one["token"] for one in (await ana.get("/v1/revocations")).json()] == ["t-1"]
    assert len((await admin.get("/v1/revocations")).json()) == 2
    assert (await (await front.client(FOREIGN_ADMIN)).get("/v1/revocations")).json() == []


@pytest.mark.parametrize("body", [{"everybody": True}, {"principal": system_user()}, {"token": "t-1"}])
async def test_s09_a_revocation_that_would_end_nothing_is_refused_and_not_kept(
    body: dict[str, Any], local: httpx2.AsyncClient
) -> None:
    """The local token is in no list: who asks to end it is told how, and not that it has ended."""
    answer = await local.post("/v1/revocations", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-change"), answer.text
    assert "delete the file 'token'" in answer.json()["detail"]
    assert (await local.get("/v1/revocations")).json() == []
    assert (await local.get("/v1/whoami")).status_code == 200


async def test_a_list_holds_what_one_may_know_of(front: Front) -> None:
    """S02, S04: with any filter, and whatever cursor one has come by."""
    mine = await make(front.engine)
    theirs = (await front.engine.create(EVE, kind="knowledge", title="Tides")).id
    expected = {who: {mine} for who in (ANA, EDITOR, VIEWER, PARTICIPANT, ADMIN, AUDITOR)}
    expected |= {EVE: {theirs}, FOREIGN_ADMIN: {theirs}, STRANGER: set(), NAMESAKE: set()}
    cursor = (await (await front.client(ANA)).get("/v1/sessions?limit=1")).json()["cursor"]
    for who, sessions in expected.items():
        client = await front.client(who)
        for asked in ("", "?owner=ana", "?owner=eve", "?text=tides", "?kind=knowledge&status=draft&tier=active"):
            found = {one["id"] for one in (await client.get(f"/v1/sessions{asked}")).json()["sessions"]}
            assert found == (set() if f"owner={'eve' if mine in sessions else 'ana'}" in asked else sessions), (
                who,
                asked,
            )
        if cursor is not None:
            later = (await client.get("/v1/sessions", params={"after": cursor})).json()["sessions"]
            assert {one["id"] for one in later} <= sessions


async def test_what_one_tenant_publishes_no_other_finds(front: Front) -> None:
    """S04, also where both name the same target."""
    for who, text in ((ANA, "The sea rises at noon."), (EVE, "The sea rises at midnight.")):
        items = [("chunks/1", {"text": text})]
        session = (await front.engine.create(who, kind="knowledge", items=items, target="tides")).id
        await front.engine.publish(session, who, seal=(await front.engine.preview(session, who)).seal)
    for who, text in ((ANA, "The sea rises at noon."), (EVE, "The sea rises at midnight.")):
        hits = (await (await front.client(who)).get("/v1/search", params={"q": "when does the sea rise"})).json()
        assert [hit["text"] for hit in hits] == [text]


async def test_one_change_id_makes_each_principal_its_own_session(front: Front) -> None:
    """S04, S10: nobody comes by another's session with the change id that made it, and nobody chooses an id."""
    ids = set()
    for who in (ANA, STRANGER, EVE, NAMESAKE):
        client = await front.client(who)
        answers = [
            await client.post("/v1/sessions", json={"kind": "knowledge"}, headers={"idempotency-key": "same"})
            for _ in range(2)
        ]
        assert {answer.json()["owner"] for answer in answers} == {who.id}
        ids |= {answer.json()["id"] for answer in answers}
    assert len(ids) == 4
    for session in ids:
        assert re.fullmatch(r"[a-z2-7]{32}", session)  # base32: 160 bits


# -- what the server sets ---------------------------------------------------------------------------------------------

SERVER_SET = frozenset(SessionForm.__struct_fields__) - {"id"} | {"id", "session", "etag", "durability", "actor", "at"}


async def test_no_body_takes_a_field_that_the_server_sets(front: Front) -> None:
    """S03, S10: an unknown field of any body is refused, so nothing but what is declared can ever be written."""
    address, tag = await front.make()
    session = address.rpartition("/")[2]
    before = await front.engine.header(session, ANA)
    tried = 0
    for operation in operations(front.document):
        for media, body in operation.bodies.items():
            example = body.get("example")
            if media != "application/json" or not isinstance(example, dict):
                continue
            for field in sorted(SERVER_SET - set(properties(front.document, body["schema"]))):
                asked = operation.ask(session, **({"if-match": tag} if operation.takes("If-Match") else {}))
                content = msgspec.json.encode({**example, field: "eve"})
                answer = await ask(front, ADMIN, asked._replace(content=content))
                assert answer.status_code in (400, 422), (operation.name, field, answer.text)
                assert answer.json()["code"] in ("invalid-request", "invalid-change", "invalid-item")
                assert field in answer.json()["detail"], (operation.name, answer.text)
                tried += 1
    assert tried > 400
    assert await front.engine.header(session, ANA) == before


async def test_a_form_takes_no_field_that_the_server_sets(front: Front) -> None:
    client = await front.client(ANA)
    for field in ("owner", "id", "tenant", "status", "version"):
        answer = await client.post("/v1/ingest", files={"file": ("a.md", b"# A\n\nb")}, data={field: "eve"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request"), answer.text
    assert (await client.get("/v1/sessions")).json()["sessions"] == []


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/merge-patch+json", {"owner": "eve"}),
        ("application/merge-patch+json", {"header": {"owner": "eve"}}),
        ("application/merge-patch+json", {"status": {"status": "published"}}),
        ("application/json-patch+json", [{"op": "replace", "path": "/owner", "value": "eve"}]),
        ("application/json-patch+json", [{"op": "add", "path": "/header/owner", "value": "eve"}]),
        ("application/json-patch+json", [{"op": "replace", "path": "", "value": {"owner": "eve"}}]),
    ],
)
async def test_a_patch_reaches_items_and_nothing_else(front: Front, media: str, body: Any) -> None:
    """S03."""
    address, tag = await front.make()
    client = await front.client(ANA)
    before = (await client.get(f"{address}/header")).json()
    headers = {"content-type": media, "if-match": tag}
    answer = await client.patch(address, content=msgspec.json.encode(body), headers=headers)
    assert answer.status_code == 422, answer.text
    assert (await client.get(f"{address}/header")).json() == before


async def test_the_owner_is_who_asks_whatever_the_request_says(front: Front) -> None:
    """S03: not by the query, not by a header."""
    client = await front.client(ANA)
    headers = {"x-user": "eve", "x-forwarded-user": "eve", "x-tenant": "other", "forwarded": "for=eve"}
    answer = await client.post("/v1/sessions", json={"kind": "knowledge"}, headers=headers)
    assert (answer.json()["owner"], answer.json()["tenant"]) == ("ana", "default")
    for query in ("owner=eve", "tenant=other", "id=x"):
        answer = await client.post(f"/v1/sessions?{query}", json={"kind": "knowledge"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


async def test_the_owner_s_role_cannot_be_granted(front: Front) -> None:
    address, _ = await front.make()
    answer = await (await front.client(ANA)).put(f"{address}/grants/{STRANGER.id}", json={"role": "owner"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-change")


async def test_asking_for_a_session_never_makes_one(front: Front) -> None:
    """S11: an id that somebody makes up is nobody's, before and after every route was asked with it."""
    for operation in operations(front.document):
        if operation.of_session:
            headers = {"If-Match": '"0"', "Idempotency-Key": operation.name}
            taken = {name: value for name, value in headers.items() if operation.takes(name)}
            answer = await ask(front, ADMIN, operation.ask(MISSING, **taken))
            assert (answer.status_code, answer.json()["code"]) == (404, "session-not-found"), answer.text
    for method in ("PUT", "POST"):
        assert (await (await front.client(ANA)).request(method, f"/v1/sessions/{MISSING}", json={})).status_code == 405
    assert (await (await front.client(ADMIN)).get("/v1/sessions")).json()["sessions"] == []


def properties(document: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return set(schema.get("properties", ()))


# -- teeth ------------------------------------------------------------------------------------------------------------


async def test_the_matrix_would_catch_a_rule_that_lets_somebody_in(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rule of the gate gone, a stranger is let in, which the matrix compares with a missing session."""
    session = await make(front.engine)
    asked = next(one for one in operations(front.document) if one.name == "read_session").ask(session)
    hidden = await ask(front, STRANGER, asked)
    monkeypatch.setattr("holdfast.engine.gate.may", lambda who, verb, header: True)
    leaked = await ask(front, STRANGER, asked)
    assert (hidden.status_code, leaked.status_code) == (404, 200)
    assert VERBS["read"] >= {Role.VIEWER}
