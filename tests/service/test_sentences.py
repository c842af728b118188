"""What refusals say: what is wrong, and what to do instead."""

from __future__ import annotations

import httpx2
import pytest

from holdfast.errors import InvalidRequestError, PermissionDeniedError
from holdfast.model.limits import Limits
from holdfast.model.patch import PatchOperation
from holdfast.service import bodies
from holdfast.service.schemas import Changes, Granting, Naming, Restoring
from holdfast.testing.front import Front

TEXT = {"text": "The sea rises."}
ELSEWHERE = "application/merge-patch+json"


async def test_who_names_no_version_is_told_how_to_over_http_and_in_python(
    ana: httpx2.AsyncClient, front: Front
) -> None:
    address, _ = await front.make()
    answer = await ana.put(f"{address}/items/chunks/0001", json=TEXT)
    assert (answer.status_code, answer.json()["code"]) == (428, "version-required")
    assert all(way in answer.json()["detail"] for way in ("If-Match", "expected=", "--expected"))


async def test_too_many_items_name_the_setting(ana: httpx2.AsyncClient, front: Front) -> None:
    address, tag = await front.make()
    changes = [{"put": f"chunks/many{number}", "body": TEXT} for number in range(Limits().items + 1)]
    answer = await ana.patch(address, json={"changes": changes}, headers={"if-match": tag})
    assert (answer.status_code, answer.json()["code"]) == (422, "limit-exceeded")
    assert "more than 100" in answer.json()["detail"]
    assert "`limits.items`" in answer.json()["detail"]


async def test_a_method_that_is_not_taken_is_answered_with_those_that_are(ana: httpx2.AsyncClient) -> None:
    answer = await ana.put("/v1/sessions", json={})
    told = answer.json()
    assert (answer.status_code, told["code"]) == (405, "route-not-found")
    assert {"GET", "POST"} <= set(told["allowed"])
    assert set(told["allowed"]) == {method.strip() for method in answer.headers["allow"].split(",")}
    assert told["detail"].startswith("/v1/sessions does not take PUT; it takes ")
    assert (await ana.get("/v1/nothing")).json()["detail"].startswith("There is nothing at GET /v1/nothing")


async def test_a_put_without_a_body_is_told_that_the_body_is_missing(ana: httpx2.AsyncClient, front: Front) -> None:
    address, tag = await front.make()
    for step in ({"put": "chunks/9"}, {"put": "chunks/9", "body": None}):
        answer = await ana.patch(address, json={"changes": [step]}, headers={"if-match": tag})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-change")
        assert "`body` is missing" in answer.json()["detail"]
        assert answer.json()["key"] == "chunks/9"


async def test_a_merge_patch_that_says_it_is_changes_is_told_its_media_type(
    ana: httpx2.AsyncClient, front: Front
) -> None:
    address, tag = await front.make()
    patch = {"chunks": {"9": TEXT}}
    answer = await ana.patch(address, json=patch, headers={"if-match": tag})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert ELSEWHERE in answer.json()["detail"]
    headers = {"if-match": tag, "content-type": ELSEWHERE}
    assert (await ana.patch(address, json=patch, headers=headers)).status_code == 200


async def test_a_change_id_is_of_printable_ascii(ana: httpx2.AsyncClient, front: Front) -> None:
    address, tag = await front.make()
    for given in ("schlüssel".encode(), "schlüssel".encode("latin-1"), b"a\tb", b"a\x7f"):
        headers = {b"if-match": tag.encode(), b"idempotency-key": given}
        answer = await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request"), given
        assert "idempotency-key" in answer.json()["where"].lower()
    headers = {b"if-match": tag.encode(), b"idempotency-key": b"a key, of ~ASCII"}
    assert (await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers=headers)).status_code < 300


@pytest.mark.parametrize(
    ("data", "type", "said"),
    [
        (b'{"role":"boss"}', Granting, "$.role: it is none of the values allowed here: editor, owner, "),
        (b'[{"op":"put","path":""}]', list[PatchOperation], "here: add, copy, move, remove, replace, test"),
        (b'{"to":1.5}', Restoring, "$.to: expected `integer | string`, got `number`"),
        (rb'{"title":"\ud800"}', Naming, "a string is no valid text"),
        (rb'{"title":"\ud800 and on"}', Naming, "a string is no valid text"),
        (rb'{"title":"\udc00"}', Naming, "a string is no valid text"),
        (rb'{"title":"\\ud800', Naming, "the JSON ends too early"),
        (rb'{"title":"\ud83d\ude00', Naming, "the JSON ends too early"),
        (rb'{"title":"\ud83d\ude00" 1}', Naming, "malformed"),
        (b"[]", Changes, ELSEWHERE),
    ],
)
def test_a_body_that_does_not_fit_is_told_what_would(data: bytes, type: type, said: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        bodies.decode(data, type)
    assert said in str(refused.value)


def test_who_may_not_is_told_which_verb_and_where_known_who_may() -> None:
    assert str(PermissionDeniedError("ana", "revoke")) == "ana may not use `revoke` here."
    known = PermissionDeniedError("ana", "metrics", {"operator"})
    assert str(known) == "ana may not use `metrics` here: it is for the role operator."
    assert known.facts() == {"principal": "ana", "verb": "metrics", "roles": ("operator",)}
