"""What a request may say of the state its author saw: ``If-Match`` (R04 over HTTP) and ``If-None-Match``.

Where a rule is one of every route, the routes are taken from the OpenAPI document.
"""

from __future__ import annotations

import shutil
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from holdfast.ports.hot import HotStore
from holdfast.service.conditions import is_known, seen
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock
from holdfast.testing.document import Operation, operations
from holdfast.testing.front import ADMIN, ANA, AUDITOR, Front, opened
from holdfast.testing.issuer import Issuer

TEXT = {"text": "The moon draws it."}


def taking(front: Front, parameter: str) -> list[Operation]:
    found = [operation for operation in operations(front.document) if operation.takes(parameter)]
    assert found
    return found


async def send(client: httpx2.AsyncClient, operation: Operation, session: str, **headers: str) -> httpx2.Response:
    asked = operation.ask(session, **headers)
    return await client.request(asked.method, asked.url, headers=asked.headers, content=asked.content)


async def edited(front: Front, **more: Any) -> tuple[str, str, str]:
    """A session at version 3, undone once: its address, its tag, and the tag of version 1."""
    ana, (address, first) = await front.client(ANA), await front.make(**more)
    answer = await ana.put(f"{address}/items/chunks/0003", json=TEXT, headers={"if-match": first})
    answer = await ana.post(f"{address}/undo", headers={"if-match": answer.headers["etag"]})
    return address, answer.headers["etag"], first


# -- If-Match ---------------------------------------------------------------------------------------------------------


async def test_a_write_without_a_version_is_refused_on_every_route(front: Front, ana: httpx2.AsyncClient) -> None:
    """R04. ``*`` names no state either: nothing here is last-write-wins."""
    address, tag, _ = await edited(front)
    session = address.rpartition("/")[2]
    for operation in taking(front, "If-Match"):
        if "version-required" not in operation.codes:  # a step of the session's life, which changes no item
            continue
        for headers in ({}, {"if-match": "*"}):
            answer = await send(ana, operation, session, **headers)
            assert (answer.status_code, answer.json()["code"]) == (428, "version-required"), operation.name
    assert (await ana.get(f"{address}/header")).headers["etag"] == tag


async def test_a_stale_version_is_refused_on_every_route(front: Front, ana: httpx2.AsyncClient) -> None:
    """R04: by its tag and by its number, and one that is yet to come just so."""
    address, tag, first = await edited(front)
    session = address.rpartition("/")[2]
    for operation in taking(front, "If-Match"):
        for stale, expected in ((first, 1), ('"1"', 1), (f"W/{first}", 1), ('"99"', 99)):
            answer = await send(ana, operation, session, **{"if-match": stale})
            body = answer.json()
            assert (answer.status_code, body["code"]) == (412, "version-conflict"), (operation.name, stale, answer.text)
            assert (body["expected"], body["actual"], body["session"]) == (expected, 3, session)
            assert answer.headers["holdfast-version"] == "3"
    assert (await ana.get(f"{address}/header")).headers["etag"] == tag


async def test_a_conflict_shows_base_theirs_and_mine(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    item = f"{address}/items/chunks/0001"
    base = (await ana.get(item)).json()["body"]
    assert (await ana.put(item, json={"text": "Theirs."}, headers={"if-match": tag})).status_code == 200
    refused = await ana.put(item, json={"text": "Mine."}, headers={"if-match": tag})
    (conflict,) = refused.json()["conflicts"]
    assert (conflict["key"], conflict["base"]["text"]) == ("chunks/0001", base["text"])
    assert (conflict["theirs"]["text"], conflict["mine"]["text"]) == ("Theirs.", "Mine.")


async def test_with_rebase_what_does_not_clash_lands(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    headers = {"if-match": tag}
    one, other = f"{address}/items/chunks/0001", f"{address}/items/chunks/0002"
    assert (await ana.put(one, json={"text": "Theirs."}, headers=headers)).status_code == 200
    assert (await ana.put(f"{other}?rebase=true", json={"text": "Mine."}, headers=headers)).json()["version"] == 3
    assert (await ana.put(f"{one}?rebase=true", json={"text": "Mine."}, headers=headers)).status_code == 412
    changes = {"changes": [{"put": "chunks/0003", "body": TEXT}], "reads": ["chunks/0001"]}
    assert (await ana.patch(f"{address}?rebase=true", json=changes, headers=headers)).status_code == 412


@pytest.mark.parametrize("form", ["{tag}", "W/{tag}", '"1"', 'W/"1"', "  {tag}  "])
async def test_a_tag_is_taken_in_every_form_it_comes_back_in(front: Front, ana: httpx2.AsyncClient, form: str) -> None:
    """Weak too: a proxy that compresses weakens tags on the way, and a tag names one state all the same."""
    address, tag = await front.make()
    headers = {"if-match": form.format(tag=tag)}
    assert (await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "form",
    [
        "1",
        "{tag}, {tag}",
        '"1", "2"',
        '"x"',
        '""',
        "",
        '"1',
        '"1.1"',
        '"1.1-00"',
        '"-1"',
        '"1.1-{x}"',
        '"²"',
        '"1" ' * 30,
    ],
)
async def test_what_is_no_tag_is_refused_as_such(front: Front, ana: httpx2.AsyncClient, form: str) -> None:
    """Several tags would leave open which state the author saw, and there is one base to a merge."""
    address, tag = await front.make()
    named = form.format(tag=tag, x="A" * 16)
    headers = {b"if-match": named.encode("latin-1")}
    answer = await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request"), answer.text
    assert "If-Match" in answer.json()["where"]


async def test_a_tag_of_before_a_step_of_life_still_names_its_version(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag = await front.make()
    assert (await ana.put(f"{address}/labels/first")).status_code == 200
    assert (await ana.put(f"{address}/title", json={"title": "Other"})).headers["etag"] != tag
    answer = await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers={"if-match": tag})
    assert answer.status_code == 200


async def test_a_tag_of_another_history_is_stale_though_its_numbers_are_right(
    front: Front, ana: httpx2.AsyncClient
) -> None:
    address, tag = await front.make()
    numbers, _, digest = tag.strip('"').partition("-")
    other = f'"{numbers}-{digest[::-1]}"'
    session = address.rpartition("/")[2]
    for operation in taking(front, "If-Match"):
        answer = await send(ana, operation, session, **{"if-match": other})
        assert (answer.status_code, answer.json()["code"]) == (412, "version-conflict"), (operation.name, answer.text)
    assert (await ana.get(address, headers={"if-none-match": other})).status_code == 200
    assert (await ana.get(address, headers={"if-none-match": tag})).status_code == 304


async def test_a_tag_of_what_a_lost_disk_took_along_is_stale(
    believing: Settings, issuer: Issuer, clock: ManualClock
) -> None:
    """A home is put back from a copy and goes another way: version 2 is there again, and it is another one."""
    async with opened(believing, issuer, clock=clock) as front:
        address, first = await front.make()
    copy = believing.home.with_name("copy")
    shutil.copytree(believing.home, copy)
    item, tags = f"{address}/items/chunks/0001", []
    for home, text in ((believing.home, "One way."), (copy, "Another way.")):
        async with opened(replace(believing, home=home), issuer, clock=clock) as front:
            ana = await front.client(ANA)
            answer = await ana.put(item, json={"text": text}, headers={"if-match": first})
            tags.append(answer.headers["etag"])
            if home == copy:
                assert tags[0].partition("-")[0] == tags[1].partition("-")[0]
                assert (await ana.put(item, json=TEXT, headers={"if-match": tags[0]})).status_code == 412
                assert (await ana.put(item, json=TEXT, headers={"if-match": tags[1]})).status_code == 200


# -- If-None-Match ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["", "/header"])
async def test_what_one_holds_already_is_not_sent_again(front: Front, ana: httpx2.AsyncClient, where: str) -> None:
    address, tag, first = await edited(front)
    for held in (tag, f"W/{tag}", "*", f"{first}, {tag}", f'"x",W/{tag}'):
        answer = await ana.get(f"{address}{where}", headers={"if-none-match": held})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), held
        assert "sunset" in answer.headers
    for stale in (first, '"3"', "x", f"{first}, {first}"):
        answer = await ana.get(f"{address}{where}", headers={"if-none-match": stale})
        assert (answer.status_code, answer.headers["etag"]) == (200, tag), stale


async def test_a_version_of_the_past_has_no_tag(front: Front, ana: httpx2.AsyncClient) -> None:
    address, tag, _ = await edited(front)
    for asked in (f"{address}?version=1", f"{address}/versions/1", f"{address}/items?version=1"):
        answer = await ana.get(asked, headers={"if-none-match": tag})
        assert answer.status_code == 200
        assert "etag" not in answer.headers


async def test_every_step_of_a_life_has_its_own_tag(front: Front, ana: httpx2.AsyncClient, clock: ManualClock) -> None:
    address, tag = await front.make()
    tags = [tag]
    for method, path, body in (
        ("PUT", "/title", {"title": "Other"}),
        ("PUT", "/labels/first", {}),
        ("PUT", "/grants/ben", {"role": "viewer"}),
        ("DELETE", "/grants/ben", None),
        ("POST", "/extend", {"seconds": 100}),
        ("POST", "/preview", {}),
        ("POST", "/unlock", None),
        ("POST", "/suspend", None),
        ("DELETE", "", None),
        ("POST", "/revive", None),
    ):
        answer = await ana.request(method, f"{address}{path}", json=body)
        assert answer.status_code == 200, answer.text
        assert (await ana.get(f"{address}/header", headers={"if-none-match": tags[-1]})).status_code == 200
        current = (await ana.get(f"{address}/header")).headers["etag"]
        assert answer.headers.get("etag", current) == current
        assert (await ana.get(f"{address}/header", headers={"if-none-match": current})).status_code == 304
        tags.append(current)
    assert len(set(tags)) == len(tags)


class Counting:
    """A hot store that counts how often items are asked of it."""

    def __init__(self, store: HotStore) -> None:
        self._store, self.loads = store, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def load(self, session: str) -> Any:
        self.loads += 1
        return await self._store.load(session)


async def test_to_say_that_nothing_is_new_no_item_is_loaded(
    believing: Settings, issuer: Issuer, clock: ManualClock
) -> None:
    async with opened(believing, issuer, clock=clock) as front:
        address, tag = await front.make()
    counting: list[Counting] = []

    def wrap(store: HotStore) -> Any:
        counting.append(Counting(store))
        return counting[-1]

    async with opened(believing, issuer, clock=clock, wrap=wrap) as front:  # which has nothing at hand
        ana = await front.client(ANA)
        assert (await ana.get(address, headers={"if-none-match": tag})).status_code == 304
        assert counting[-1].loads == 0
        assert (await ana.get(address)).status_code == 200
        assert counting[-1].loads == 1


async def test_a_read_on_condition_is_one_read_in_the_audit(
    believing: Settings, issuer: Issuer, clock: ManualClock
) -> None:
    """S12: whatever comes of it, and whether the session is at hand or not."""
    async with opened(believing, issuer, clock=clock) as front:
        address, tag = await front.make()
        await (await front.client(ANA)).put(f"{address}/grants/ben", json={"role": "participant"})
        tag = (await (await front.client(ADMIN)).get(f"{address}/header")).headers["etag"]
    async with opened(believing, issuer, clock=clock) as front:  # which has nothing at hand
        for who, held, status in (
            (ANA, tag, 304),
            (ANA, '"0.0-0000000000000000"', 200),
            (ANA, tag, 304),
            (ANA, "*", 304),
            (AUDITOR, tag, 403),
        ):
            answer = await (await front.client(who)).get(address, headers={"if-none-match": held})
            assert (answer.status_code, answer.headers.get("etag")) == (status, tag if status < 400 else None)
        lines = await front.engine.audit(ADMIN, session_id=address.rpartition("/")[2])
        told = {(line.actor, line.verb, line.outcome, line.version, line.count) for line in lines}
        assert told == {
            ("ana", "create", "ok", 1, 1),
            ("ana", "grant", "ok", 1, 1),
            ("ada", "header", "ok", 1, 1),
            ("ana", "read", "ok", 1, 4),
            ("otto", "read", "permission-denied", 0, 1),
        }


async def test_a_session_that_is_over_is_gone_whatever_one_holds(
    front: Front, ana: httpx2.AsyncClient, clock: ManualClock
) -> None:
    """Also one whose time is over and that nobody has swept yet."""
    address, tag = await front.make(retention={"ttl": 100})
    clock.advance(100)
    for _ in range(2):
        answer = await ana.get(address, headers={"if-none-match": tag})
        assert (answer.status_code, answer.json()["code"]) == (410, "session-gone")
        await front.engine.sweep(ADMIN)
        tag = (await ana.get(f"{address}/header")).headers["etag"]


# -- the parts --------------------------------------------------------------------------------------------------------


def test_a_tag_is_read_back_as_it_was_written() -> None:
    named = seen('"12.34-00112233aabbccdd"')
    assert not isinstance(named, int)
    assert named is not None
    assert (named.version, named.step, named.digest.hex()) == (12, 34, "00112233aabbccdd")
    assert (seen('"7"'), seen("*"), seen(None)) == (7, None, None)


def test_a_list_of_tags_is_read_as_rfc_9110_has_it() -> None:
    assert is_known(' "a" , W/"b"', '"b"')
    assert not is_known('"a", *', '"b"')
    assert not is_known(None, '"b"')
    assert is_known("*", '"b"')


async def test_a_condition_that_would_not_be_kept_is_refused(front: Front, ana: httpx2.AsyncClient) -> None:
    """RFC 9110, 13: whoever names one, and is not heard, takes a change for guarded that is not."""
    tried = 0
    for operation in operations(front.document):
        if operation.method in ("GET", "HEAD"):
            continue
        _, asked = await front.ready(operation)
        for name in {"If-Match", "If-None-Match"} - {name for name in ("If-Match",) if operation.takes(name)}:
            answer = await front.send(ADMIN if not operation.of_session else ANA, asked, **{name.lower(): '"1"'})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request"), operation.name
            tried += 1
    assert tried > 40


async def test_a_parameter_that_nobody_knows_is_refused(ana: httpx2.AsyncClient, front: Front) -> None:
    """A misspelt ``fence`` would be a write without one."""
    address, tag = await front.make()
    for query, name in (("fense=3", "fense"), ("fence=1&fence=2", "fence"), ("%00=1", "")):
        answer = await ana.put(f"{address}/items/chunks/0001?{query}", json=TEXT, headers={"if-match": tag})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request"), answer.text
        assert name in answer.json()["where"]
    assert "after, before, rebase" in answer.json()["detail"]
    assert (await ana.get(f"{address}/header?x=1")).status_code == 400
    assert (await ana.get(f"{address}/header")).headers["etag"] == tag
