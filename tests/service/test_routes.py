"""Every route on its main path: what it answers fits what the document says of it, and the session is as it says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from holdfast.service.edge import SECURITY
from holdfast.testing.clock import ManualClock
from holdfast.testing.document import operations
from holdfast.testing.front import ADMIN, AUDITOR, BEN, CHUNKS, Front

TEXT = {"text": "The moon draws it."}


async def state(client: httpx2.AsyncClient, address: str) -> tuple[str, str]:
    """The tag of a session and when it expires, as its header says."""
    headers = (await client.get(f"{address}/header")).headers
    return headers["etag"], headers["sunset"]


# -- every route ------------------------------------------------------------------------------------------------------


async def test_every_operation_answers_as_the_document_says(front: Front) -> None:
    """Its status, its media type, its schema, and no header that is not told of."""
    registry: Registry[Any] = Registry().with_resource("urn:it", DRAFT202012.create_resource(front.document))
    of_all = {"content-type", "content-length", "x-request-id"} | {name.decode() for name, _ in SECURITY}
    for operation in operations(front.document):
        _, asked = await front.ready(operation)
        answer = await front.send(ADMIN, asked)
        status = min(status for status in operation.said["responses"] if status[0] == "2")
        where = f"{operation.name}: {answer.status_code} {answer.text[:200]}"
        assert str(answer.status_code) == status, where
        said = operation.said["responses"][status]
        told = {name.lower() for name in said.get("headers", {})}
        assert set(answer.headers) <= of_all | told | {"x-accel-buffering"}, where
        assert told - {"sunset", "holdfast-stale"} <= set(answer.headers), where
        if status == "204" or operation.name == "follow":
            continue
        ((media, content),) = said["content"].items()
        assert answer.headers["content-type"].partition(";")[0] == media, where
        schema = json.loads(json.dumps(content["schema"]).replace('"#/', '"urn:it#/'))
        if media == "application/jsonl":
            bodies = [json.loads(line) for line in answer.text.splitlines()]
        else:
            bodies = [answer.json() if media == "application/json" else answer.text]
        for body in bodies:
            found = [error.message for error in Draft202012Validator(schema, registry=registry).iter_errors(body)]
            assert found == [], where


async def test_every_answer_that_shows_a_session_has_its_tag(front: Front) -> None:
    """What holds a digest or a seal of a session's newest state can be gone on from without reading it again."""
    for operation in operations(front.document):
        session, asked = await front.ready(operation)
        answer = await front.send(ADMIN, asked)
        if not session or operation.name in _OF_THE_PAST or answer.headers.get("content-type") != "application/json":
            continue
        body = answer.json()
        if isinstance(body, dict) and {"digest", "header", "differences"} & body.keys():
            assert "etag" in answer.headers, operation.name


_OF_THE_PAST = {"read_version"}


async def test_a_body_is_refused_where_none_is_taken(front: Front) -> None:
    """Whoever sends one means something by it, and would take the answer for an answer to that."""
    count = 0
    for operation in operations(front.document):
        if "requestBody" in operation.said:
            continue
        count += 1
        session, asked = await front.ready(operation)
        before = None if not session else await front.engine.header(session, ADMIN)
        for content in (b"{}", pieces()):
            client = await front.client(ADMIN)
            answer = await client.request(asked.method, asked.url, headers=asked.headers, content=content)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request"), operation.name
            assert answer.json()["where"] == "body", operation.name
        assert before is None or await front.engine.header(session, ADMIN) == before, operation.name
        if asked.method != "GET":
            empty = await front.send(ADMIN, asked, **{"content-length": "0"})
            assert empty.status_code < 300, operation.name
    assert count > 30


async def pieces() -> AsyncIterator[bytes]:
    yield b"{}"


# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_session_is_made_read_named_thrown_away_and_had_back(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make(target="tides")
    session = (await ana.get(address)).json()
    assert (session["version"], session["status"], session["owner"], session["title"]) == (1, "draft", "ana", "Tides")
    assert (session["target"], session["tenant"], session["kind"]) == ("default/tides", "default", "knowledge")
    assert [item["key"] for item in session["items"]] == list(CHUNKS)
    header = (await ana.get(f"{address}/header")).json()
    assert header == {name: value for name, value in session.items() if name != "items"}
    assert (await ana.put(f"{address}/title", json={"title": "Moons"})).json()["title"] == "Moons"
    discarded = await ana.delete(address)
    assert (discarded.json()["status"], discarded.headers["etag"] == tag) == ("discarded", False)
    gone = await ana.get(address)
    assert (gone.status_code, gone.json()["session_status"]) == (410, "discarded")
    assert (await ana.get(f"{address}/header")).json()["status"] == "discarded"
    assert (await ana.post(f"{address}/revive")).json()["status"] == "draft"
    assert (await ana.get(address)).json()["items"] == session["items"]


async def test_sessions_are_listed_by_pages_and_filters(
    front: Front, ana: httpx2.AsyncClient, clock: ManualClock
) -> None:
    made = []
    for number in range(7):
        made.append((await front.make(title=f"Number {number}"))[0].rpartition("/")[2])
        clock.advance(1)
    await ana.delete(f"/v1/sessions/{made[0]}")
    await ana.post(f"/v1/sessions/{made[1]}/suspend")
    found, after = [], None
    while True:
        page = (
            await ana.get("/v1/sessions", params={"limit": "3", **({} if after is None else {"after": after})})
        ).json()
        found += [one["id"] for one in page["sessions"]]
        after = page["cursor"]
        if after is None:
            break
    assert found == made[::-1]
    for query, wanted in (
        ("status=discarded", made[:1]),
        ("tier=dormant", made[1:2]),
        ("text=number%203", made[3:4]),
        ("owner=ben", []),
        ("kind=nothing", []),
        ("status=draft&owner=ana&kind=knowledge&text=NUMBER", made[:0:-1]),
    ):
        page = (await ana.get(f"/v1/sessions?{query}")).json()
        assert [one["id"] for one in page["sessions"]] == wanted, query


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("status=gone", "status"),
        ("tier=hot", "tier"),
    ],
)
async def test_a_parameter_that_cannot_be_is_named(ana: httpx2.AsyncClient, query: str, where: str) -> None:
    answer = await ana.get(f"/v1/sessions?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert where in answer.json()["where"]


async def test_a_cursor_that_nobody_gave_out_is_refused(ana: httpx2.AsyncClient) -> None:
    answer = await ana.get("/v1/sessions?after=x")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor")


async def test_an_address_that_is_not_there_says_so(ana: httpx2.AsyncClient) -> None:
    answer = await ana.get("/v1/nothing?token=secret")
    assert (answer.status_code, answer.json()["code"], answer.json()["path"]) == (404, "route-not-found", "/v1/nothing")
    assert "secret" not in answer.text


# -- publishing -------------------------------------------------------------------------------------------------------


async def test_a_draft_is_previewed_published_found_and_rolled_back(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    answer = await ana.post(f"{address}/preview", json={"seconds": 60})
    assert (answer.headers["etag"], answer.headers["sunset"]) == await state(ana, address)
    preview = answer.json()
    assert (preview["counts"]["total"], preview["lock"]["owner"], preview["live"]) == (2, "ana", None)
    locked = await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers={"if-match": tag})
    assert (locked.status_code, locked.json()["code"], locked.json()["session_status"]) == (409, "not-draft", "locked")
    wrong = await ana.post(f"{address}/publish", json={"seal": "another"})
    assert (wrong.status_code, wrong.json()["code"]) == (409, "seal-mismatch")
    receipt = (await ana.post(f"{address}/publish", json={"seal": preview["seal"]})).json()
    assert (await ana.post(f"{address}/publish", json={"seal": preview["seal"]})).json() == receipt
    assert (await ana.get(f"{address}/receipts")).json() == [receipt]
    hits = (await ana.get("/v1/search?q=tide&limit=1")).json()
    assert hits[0]["revision"] == receipt["revision"]
    again = await ana.post(f"{address}/reopen")
    assert (again.status_code, again.json()["parent"]) == (201, address.rpartition("/")[2])
    rolled = (await ana.post(f"{address}/rollback")).json()
    assert (rolled["rolls_back"], rolled["revision"]) == (receipt["revision"], None)
    assert (await ana.get("/v1/search?q=tide")).json() == []


async def test_a_lock_is_given_up_or_taken_over(front: Front, ana: httpx2.AsyncClient) -> None:
    address, _ = await front.make()
    await ana.put(f"{address}/grants/ben", json={"role": "editor"})
    ben = await front.client(BEN)
    await ana.post(f"{address}/preview")
    held = await ben.post(f"{address}/unlock")
    assert (held.status_code, held.json()["code"], held.json()["owner"]) == (409, "lock-held", "ana")
    taken = await ben.post(f"{address}/take-over", json={"seconds": 10})
    assert taken.json()["lock"]["owner"] == "ben"
    assert (taken.headers["etag"], taken.headers["sunset"]) == await state(ana, address)
    assert (await ben.post(f"{address}/unlock")).json()["status"] == "draft"


# -- sharing, leases, keeping -----------------------------------------------------------------------------------------


async def test_a_role_is_given_and_taken_away(front: Front, ana: httpx2.AsyncClient) -> None:
    """To whoever: an issuer may name people by addresses."""
    address, _ = await front.make()
    for name in ("ben", "https://issuer.test/people/7?x=1#y", "ben@example.org", "Bénédicte "):
        place = f"{address}/grants/{quote(name, safe='')}"
        assert (await ana.put(place, json={"role": "viewer"})).json()["grants"] == {name: "viewer"}
        told = (await ana.get(f"{address}/participants")).json()
        assert (told["owner"], told["grants"], told["lease"]) == ("ana", {name: "viewer"}, None)
        assert (await ana.delete(place)).json()["grants"] == {}


async def test_a_lease_goes_from_hand_to_hand(front: Front, ana: httpx2.AsyncClient, clock: ManualClock) -> None:
    address, tag = await front.make()
    taken = await ana.post(f"{address}/leases", json={"holder": "a tab", "seconds": 10})
    lease = taken.json()
    assert (lease["holder"], lease["fence"]) == ("a tab", 1)
    assert (await ana.get(f"{address}/participants")).json()["lease"] == lease
    item, headers = f"{address}/items/chunks/0001", {"if-match": tag}
    held = await ana.put(item, json=TEXT, headers=headers)
    assert (held.status_code, held.json()["code"], held.json()["holder"]) == (409, "lease-held", "a tab")
    other = await ana.post(f"{address}/leases", json={"holder": "another"})
    assert (other.status_code, other.json()["code"]) == (409, "lease-held")
    written = await ana.put(f"{item}?fence=1", json=TEXT, headers=headers)
    assert written.status_code == 200
    clock.advance(5)
    assert (await ana.put(taken.headers["location"], json={"seconds": 60})).json()["until"] > lease["until"]
    forced = await ana.post(f"{address}/leases", json={"holder": "another", "force": True})
    assert forced.json()["fence"] == 2
    late = await ana.put(f"{item}?fence=1", json={"text": "Late."}, headers={"if-match": written.headers["etag"]})
    assert (late.status_code, late.json()["code"], late.json()["actual"]) == (409, "lease-lost", 2)
    assert (await ana.put(taken.headers["location"])).json()["code"] == "lease-lost"
    released = await ana.delete(forced.headers["location"])
    assert (released.status_code, released.content) == (204, b"")
    assert (await ana.get(f"{address}/participants")).json()["lease"] is None


async def test_a_step_is_refused_where_the_session_has_moved_on(front: Front, ana: httpx2.AsyncClient) -> None:
    """RFC 9110, 13.1.1: whoever names the state he saw is not to change another one."""
    path, _ = await front.make()
    seen = (await ana.get(path)).headers["etag"]
    edited = await ana.put(f"{path}/items/chunks/9999", json={"text": "more"}, headers={"if-match": seen})
    assert edited.status_code == 200, edited.text
    now = edited.headers["etag"]
    steps: list[tuple[str, str, Any]] = [
        ("PUT", "/title", {"title": "t"}),
        ("PUT", "/labels/a", {}),
        ("PUT", "/grants/ben", {"role": "viewer"}),
        ("DELETE", "/grants/ben", None),
        ("POST", "/touch", None),
        ("POST", "/extend", {"seconds": 99}),
        ("POST", "/suspend", None),
        ("POST", "/preview", None),
        ("POST", "/unlock", None),
        ("DELETE", "", None),
        ("POST", "/revive", None),
    ]
    for method, rest, body in steps:
        before = (await ana.get(f"{path}/header")).headers["etag"]
        for tag in (seen, '"1"'):
            refused = await ana.request(method, path + rest, json=body, headers={"if-match": tag})
            assert (refused.status_code, refused.json()["code"]) == (412, "version-conflict"), (method, rest)
        assert (await ana.get(f"{path}/header")).headers["etag"] == before
        done = await ana.request(method, path + rest, json=body, headers={"if-match": now})
        assert done.is_success, (method, rest, done.text)


async def test_a_session_is_kept_for_longer_and_set_to_rest(
    front: Front, ana: httpx2.AsyncClient, clock: ManualClock
) -> None:
    address, _ = await front.make(retention={"ttl": 100, "maximum": 1_000})
    first = (await ana.get(f"{address}/header")).json()
    clock.advance(50)
    assert (await ana.post(f"{address}/touch")).json()["expires"] > first["expires"]
    assert (await ana.post(f"{address}/extend", json={"seconds": 500})).json()["retention"]["ttl"] == 500
    beyond = await ana.post(f"{address}/extend", json={"seconds": 5_000})
    assert (beyond.status_code, beyond.json()["code"]) == (422, "limit-exceeded")
    assert (await ana.post(f"{address}/suspend")).json()["tier"] == "dormant"
    await ana.post(f"{address}/leases", json={"holder": "a tab"})
    held = await ana.post(f"{address}/suspend")
    assert (held.status_code, held.json()["code"]) == (409, "lease-held")


# -- sources, administration ------------------------------------------------------------------------------------------


async def test_a_document_becomes_a_draft(front: Front, ana: httpx2.AsyncClient) -> None:
    data = b"# Tides\n\nThe sea rises twice a day.\n"
    form = {"title": "Of tides", "kind": "knowledge", "target": "tides", "retention": '{"ttl": 60}'}
    answer = await ana.post("/v1/ingest", files={"file": ("tides.md", data)}, data=form)
    made = answer.json()
    assert (answer.status_code, made["title"], made["target"]) == (201, "Of tides", "default/tides")
    assert (made["source"]["name"], made["source"]["bytes"], made["retention"]["ttl"]) == ("tides.md", len(data), 60)
    assert "The sea rises" in made["items"][0]["body"]["text"]
    assert (await ana.get(answer.headers["location"])).json() == made


@pytest.mark.parametrize(
    ("files", "form", "status", "code"),
    [
        ({}, {"title": "x"}, 400, "invalid-request"),
        ({"file": ("a.md", b"")}, {}, 422, "invalid-change"),
        ({"file": ("a.md", b"\xff\xfe")}, {}, 422, "invalid-change"),
        ({"file": ("a.md", b"# A\n\nb")}, {"kind": "nothing"}, 422, "unknown-kind"),
        ({"file": ("a.md", b"# A\n\nb")}, {"retention": "soon"}, 400, "invalid-request"),
        ({"file": ("a.md", b"# A\n\nb")}, {"retention": '{"ttl": -1}'}, 422, "invalid-change"),
        ({"file": ("a.md", b"# A\n\nb")}, {"title": ["a", "b"]}, 400, "invalid-request"),
        ({"file": ("a.md", b"# A\n\nb"), "title": ("t", b"a file")}, {}, 400, "invalid-request"),
    ],
)
async def test_an_upload_that_cannot_be_taken_is_refused(
    front: Front, ana: httpx2.AsyncClient, files: Any, form: Any, status: int, code: str
) -> None:
    if not files:  # a form all the same
        answer = await ana.post(
            "/v1/ingest",
            content=b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\nx\r\n--x--\r\n',
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
    else:
        answer = await ana.post("/v1/ingest", files=files, data=form)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (await ana.get("/v1/sessions")).json()["sessions"] == []


async def test_an_export_holds_the_whole_session(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers={"if-match": tag})
    whole = (await ana.get(f"{address}/export")).json()
    assert whole["format"] == "holdfast-session-1"
    assert len(whole["history"]) == 2
    assert [item["body"]["text"] for item in whole["items"]] == [TEXT["text"], CHUNKS["chunks/0002"]["text"]]


async def test_what_was_done_and_refused_can_be_read_in_the_audit(front: Front, ana: httpx2.AsyncClient) -> None:
    address, _ = await front.make()
    await (await front.client(BEN)).get(address)
    lines = (await ana.get(f"{address}/audit")).json()
    assert [(line["actor"], line["verb"], line.get("outcome", "ok")) for line in lines] == [
        ("ana", "create", "ok"),
        ("ben", "read", "permission-denied"),
    ]
    assert (await ana.get(f"{address}/audit?after=1&limit=1")).json() == lines[1:2]
    whole = (await (await front.client(AUDITOR)).get("/v1/audit")).json()
    assert ("ben", "read") in {(line["actor"], line["verb"]) for line in whole}


async def test_a_home_is_verified_swept_and_its_keys_rotated(front: Front) -> None:
    await front.make()
    admin = await front.client(ADMIN)
    found = [json.loads(line) for line in (await admin.post("/v1/verify")).text.splitlines()]
    assert sum(one["items"] for one in found) == 2
    assert all(one["problems"] == [] for one in found)
    assert (await admin.post("/v1/sweep")).json()["failed"] == {}
    before = (await admin.get("/v1/keys")).json()
    rotated = await admin.post("/v1/keys/rotate", json={"drop": True})
    assert rotated.status_code == 200, rotated.text
    after = (await admin.get("/v1/keys")).json()
    assert after["active"] != before["active"]
    assert after["ids"] == [after["active"]]


async def test_one_session_is_verified_if_it_is_there(front: Front) -> None:
    session = (await front.make())[0].rpartition("/")[2]
    admin = await front.client(ADMIN)
    one = await admin.post("/v1/verify", params={"session": session})
    assert [json.loads(line)["session"] for line in one.text.splitlines()] == [session]
    none = await admin.post("/v1/verify", params={"session": "nosuch"})
    assert (none.status_code, none.json()["code"]) == (404, "session-not-found")


async def test_the_service_says_who_one_is_and_how_it_is(front: Front, ana: httpx2.AsyncClient) -> None:
    assert (await ana.get("/v1/whoami")).json() == {"id": "ana", "tenant": "default", "roles": []}
    assert (await (await front.client(ADMIN)).get("/v1/whoami")).json()["roles"] == ["admin", "operator"]
    health = (await ana.get("/health")).json()
    assert (health["status"], health["tiers"]) == ("ok", {"hot": "ok", "warm": "ok", "cold": "ok"})
    figures = (await (await front.client(ADMIN)).get("/metrics")).text
    assert 'session_operations_total{operation="create"}' in figures


# -- local mode -------------------------------------------------------------------------------------------------------


async def test_in_local_mode_the_token_of_the_home_is_an_admin_s_and_operator_s(local: httpx2.AsyncClient) -> None:
    assert (await local.get("/v1/whoami")).json()["roles"] == ["admin", "operator"]
    made = await local.post("/v1/sessions", json={"kind": "knowledge"})
    assert (made.status_code, made.json()["tenant"]) == (201, "local")
    assert (await local.get(made.headers["location"], headers={"authorization": "Bearer x"})).status_code == 401
    elsewhere = await local.get("/v1/whoami", headers={"host": "evil.example"})
    assert (elsewhere.status_code, elsewhere.json()["where"]) == (400, "Host")
