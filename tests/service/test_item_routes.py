"""The routes of items and of the past: what they change is what they say."""

from __future__ import annotations

import json
from typing import Any

import httpx2

from holdfast.compose import kinds
from holdfast.testing.document import operations
from holdfast.testing.front import ANA, CHUNKS, Front

TEXT = {"text": "The moon draws it."}


async def texts(client: httpx2.AsyncClient, address: str) -> dict[str, str]:
    """The texts of a session by key, in order."""
    return {item["key"]: item["body"]["text"] for item in (await client.get(f"{address}/items")).json()}


# -- items ------------------------------------------------------------------------------------------------------------


async def test_an_item_is_read_written_patched_moved_and_removed(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    item = f"{address}/items/chunks/0003"

    async def send(method: str, path: str, media: str = "application/json", **more: Any) -> httpx2.Response:
        nonlocal tag
        headers = {"if-match": tag, "content-type": media}
        answer = await ana.request(method, path, headers=headers, **more)
        assert answer.status_code == 200, answer.text
        tag = answer.headers["etag"]
        return answer

    made = await send("PUT", f"{item}?before=chunks/0002", json=TEXT)
    assert made.json()["changes"] == {"chunks/0003": "added"}
    assert list(await texts(ana, address)) == ["chunks/0001", "chunks/0003", "chunks/0002"]
    patch = json.dumps([{"op": "replace", "path": "/text", "value": "Patched."}])
    await send("PATCH", item, "application/json-patch+json", content=patch)
    await send("PATCH", item, "application/merge-patch+json", content=json.dumps({"metadata": {"a": 1}}))
    read = await ana.get(item)
    assert (read.json()["body"]["text"], read.json()["body"]["metadata"]) == ("Patched.", {"a": 1})
    assert read.headers["etag"] == tag
    await send("PATCH", address, json={"changes": [{"move": "chunks/0003"}, {"delete": "chunks/0001"}]})
    assert list(await texts(ana, address)) == ["chunks/0002", "chunks/0003"]
    await send("DELETE", item)
    assert list(await texts(ana, address)) == ["chunks/0002"]
    assert (await ana.get(item)).json()["code"] == "item-not-found"
    assert (await ana.get(f"{item}?version=2")).json()["body"]["text"] == TEXT["text"]
    assert (await ana.get(f"{item}?version=99")).json()["code"] == "version-not-found"


async def test_a_session_is_patched_as_one_document(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    merging = {"chunks": {"0001": None, "0002": {"text": "Merged."}, "0003": TEXT}}
    headers = {"if-match": tag, "content-type": "application/merge-patch+json"}
    merged = await ana.patch(address, content=json.dumps(merging), headers=headers)
    assert merged.json()["changes"] == {"chunks/0001": "deleted", "chunks/0002": "changed", "chunks/0003": "added"}
    patch = [
        {"op": "test", "path": "/chunks/0002/text", "value": "Merged."},
        {"op": "move", "from": "/chunks/0002", "path": "/chunks/0009"},
    ]
    headers = {"if-match": merged.headers["etag"], "content-type": "application/json-patch+json"}
    assert (await ana.patch(address, content=json.dumps(patch), headers=headers)).status_code == 200
    assert await texts(ana, address) == {"chunks/0009": "Merged.", "chunks/0003": TEXT["text"]}
    failing = [{"op": "test", "path": "/chunks/0009/text", "value": "Something else."}]
    headers["if-match"] = '"3"'
    refused = await ana.patch(address, content=json.dumps(failing), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-change")


async def test_items_are_read_by_collection_and_as_of_a_version(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers={"if-match": tag})
    now, then = (await ana.get(address)).json(), (await ana.get(f"{address}?version=1")).json()
    assert (now["items"][0]["body"]["text"], now["items"][0]["version"]) == (TEXT["text"], 2)
    assert then["items"][0]["body"]["text"] == CHUNKS["chunks/0001"]["text"]
    assert then["version"] == 2  # the header is today's
    assert (await ana.get(f"{address}/versions/1")).json() == then
    assert (await ana.get(f"{address}/items?version=1")).json() == then["items"]
    assert len((await ana.get(f"{address}/items?collection=chunks")).json()) == 2
    assert (await ana.get(f"{address}/items?collection=other")).json() == []


async def test_a_change_that_the_kind_does_not_admit_is_refused_whole(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    changes = [{"put": "chunks/0001", "body": TEXT}, {"put": "chunks/0002", "body": {"words": 1}}]
    answer = await ana.patch(address, json={"changes": changes}, headers={"if-match": tag})
    assert (answer.status_code, answer.json()["code"], answer.json()["key"]) == (422, "invalid-item", "chunks/0002")
    assert (await texts(ana, address))["chunks/0001"] == CHUNKS["chunks/0001"]["text"]


async def test_a_body_of_another_media_type_is_refused_with_those_that_are_taken(
    front: Front, ana: httpx2.AsyncClient
) -> None:
    for operation in operations(front.document):
        if not operation.bodies:
            continue
        _, asked = await front.ready(operation)
        answer = await front.send(ANA, asked, **{"content-type": "text/plain"})
        assert (answer.status_code, answer.json()["code"]) == (415, "media-type"), operation.name
        assert set(answer.json()["allowed"]) == operation.bodies.keys(), operation.name


async def test_the_operations_of_a_kind_work_by_their_declaration(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    split = await ana.post(
        f"{address}/operations/split", json={"key": "chunks/0001", "at": 9}, headers={"if-match": tag}
    )
    assert sorted(split.json()["changes"].values()) == ["added", "changed"]
    assert list((await texts(ana, address)).values())[:2] == ["The tide ", "comes in."]
    unknown = await ana.post(f"{address}/operations/fold", json={})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "route-not-found")
    wrong = await ana.post(f"{address}/operations/split", json={"key": "chunks/0001"}, headers={"if-match": '"2"'})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid-change")
    listed = {kind["name"]: kind for kind in (await ana.get("/v1/kinds")).json()}
    for kind in kinds().values():
        assert [one["name"] for one in listed[kind.name]["operations"]] == [one.name for one in kind.operations]


# -- the past ---------------------------------------------------------------------------------------------------------


async def test_what_was_done_is_taken_back_done_again_and_gone_back_to(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    tags = [tag]

    async def send(method: str, path: str, body: Any = None) -> httpx2.Response:
        answer = await ana.request(method, f"{address}{path}", json=body, headers={"if-match": tags[-1]})
        assert answer.status_code == 200, answer.text
        tags.append(answer.headers["etag"])
        return answer

    assert (await ana.get(f"{address}/undo")).json()["code"] == "nothing-to-undo"
    await send("PUT", "/items/chunks/0001", TEXT)
    (preview,) = (await ana.get(f"{address}/undo")).json()
    assert preview["after"]["text"] == CHUNKS["chunks/0001"]["text"]
    await send("POST", "/undo")
    assert await texts(ana, address) == {key: body["text"] for key, body in CHUNKS.items()}
    assert (await ana.get(f"{address}/redo")).json()[0]["after"]["text"] == TEXT["text"]
    await send("POST", "/redo")
    assert (await texts(ana, address))["chunks/0001"] == TEXT["text"]
    named = await ana.put(f"{address}/labels/before%20the%20moon%2Fsun", json={"version": 1})
    assert (named.json()["name"], named.json()["version"]) == ("before the moon/sun", 1)
    assert [label["name"] for label in (await ana.get(f"{address}/labels")).json()] == ["before the moon/sun"]
    await send("POST", "/restore", {"to": "before the moon/sun"})
    assert (await texts(ana, address))["chunks/0001"] == CHUNKS["chunks/0001"]["text"]
    (difference,) = (await ana.get(f"{address}/diff?before=1&after=2")).json()
    assert (difference["key"], difference["verb"]) == ("chunks/0001", "changed")
    history = (await ana.get(f"{address}/history")).json()
    assert [entry["operation"] for entry in history] == ["restore", "label", "redo", "undo", "edit", "create"]
    assert [entry["step"] for entry in (await ana.get(f"{address}/history?before=3&limit=1")).json()] == [2]
    missing = await ana.post(f"{address}/restore", json={"to": "nothing"}, headers={"if-match": tags[-1]})
    assert (missing.status_code, missing.json()["code"]) == (404, "label-not-found")


async def test_commits_of_one_group_are_taken_back_as_one(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    for text in ("One.", "Two.", "Three."):
        answer = await ana.put(f"{address}/items/chunks/0001?group=g", json={"text": text}, headers={"if-match": tag})
        tag = answer.headers["etag"]
    await ana.post(f"{address}/undo", headers={"if-match": tag})
    assert (await texts(ana, address))["chunks/0001"] == CHUNKS["chunks/0001"]["text"]
