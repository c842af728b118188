"""R05, F06: a change id is answered once and for all. The same request again, at whichever process, before or after a
restart or a crash, gets the first answer and has no second effect; another request under the id is refused.

``HOLDFAST_TEST_REPLAYS`` says how many answers are asked for again (300 here, 100,000 in ``make histories``).
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.testing.broken import Around, Forgetful
from holdfast.testing.doors import Caller, Door, Servers, callers, services
from holdfast.testing.peers import Answer

pytestmark = pytest.mark.no_cover  # repeats what others measure once

REPLAYS = int(os.environ.get("HOLDFAST_TEST_REPLAYS", "300"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "1"))
MOST_AT_ONCE, SERVERS = 12, 2
CHANGES = max(25, REPLAYS // 200)
"""How many changes a session gets between two restarts."""

Write = tuple[str, str, Any, list[str]]
MERGE = ["Content-Type: application/merge-patch+json"]
PATCH = ["Content-Type: application/json-patch+json"]
WRITES: dict[str, Write] = {
    "changes": ("PATCH", "", {"changes": [{"put": "chunks/a", "body": {"text": "changes"}}]}, []),
    "a merge patch": ("PATCH", "", {"chunks": {"a": {"text": "merge"}}}, MERGE),
    "a JSON patch": ("PATCH", "", [{"op": "replace", "path": "/chunks/a/text", "value": "patch"}], PATCH),
    "a put": ("PUT", "/items/chunks/a", {"text": "put"}, []),
    "a merge patch of an item": ("PATCH", "/items/chunks/a", {"text": "item"}, MERGE),
    "an operation": ("POST", "/operations/edit", {"key": "chunks/a", "text": "operation"}, []),
    "a rebase": ("PATCH", "?rebase=true", {"changes": [{"put": "chunks/a", "body": {"text": "rebase"}}]}, []),
    "nothing to do": ("PATCH", "", {"changes": []}, []),
    "an undo": ("POST", "/undo", None, []),
    "a redo": ("POST", "/redo", None, []),
    "a restore": ("POST", "/restore", {"to": 1}, []),
    "a removal": ("DELETE", "/items/chunks/b", None, []),
}


async def create(caller: Caller, *fields: str, text: str = "start") -> Answer:
    items = [{"key": f"chunks/{name}", "body": {"text": text}} for name in "ab"]
    return await caller.ask("POST", "/v1/sessions", *fields, body={"kind": "knowledge", "items": items})


async def address_of(caller: Caller) -> str:
    """A new session that has something to undo, and, as it has been undone, to redo."""
    made = await create(caller)
    assert made.status == 201, made.body
    session = f"/v1/sessions/{made.json['id']}"
    tag = made.headers["etag"]
    for change in ({"put": "chunks/a", "body": {"text": "one"}}, {"put": "chunks/a", "body": {"text": "two"}}):
        tag = (await caller.ask("PATCH", session, f"If-Match: {tag}", body={"changes": [change]})).headers["etag"]
    undone = await caller.ask("POST", f"{session}/undo", f"If-Match: {tag}")
    assert undone.status == 200, undone.body
    return session


async def steps(caller: Caller, session: str) -> int:
    """How many commits and steps there are."""
    return int((await caller.ask("GET", f"{session}/header")).json["step"])


def alike(first: Answer, again: Answer) -> bool:
    """Whether it is the same answer, given again."""
    tags = [answer.headers.get("etag") for answer in (first, again)]
    told = [{**answer.json, "replayed": None} for answer in (first, again)]
    return first.status == again.status and tags[0] == tags[1] and told[0] == told[1] and again.json["replayed"]


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_r05_a_write_sent_again_gets_the_first_answer_and_another_one_is_refused(
    tmp_path: Path, write: Write
) -> None:
    method, target, body, fields = write
    async with services(tmp_path / "home", 2, Around) as doors, callers(doors, 2) as (here, there):
        session = await address_of(here)
        tag = (await here.ask("GET", session)).headers["etag"]
        before = await steps(here, session)
        asked = [f"If-Match: {tag}", "Idempotency-Key: once", *fields]
        first = await here.ask(method, session + target, *asked, body=body)
        assert first.status == 200, first.body
        assert first.json["replayed"] is False
        assert alike(first, await there.ask(method, session + target, *asked, body=body))
        await there.ask(
            "PUT", f"{session}/items/chunks/c", f"If-Match: {first.headers['etag']}", body={"text": "later"}
        )
        assert alike(first, await here.ask(method, session + target, *asked, body=body))
        locked = await here.ask("POST", f"{session}/preview")
        assert locked.status == 200, locked.body
        assert alike(first, await there.ask(method, session + target, *asked, body=body))
        for named in (tag, (await here.ask("GET", session)).headers["etag"]):
            fields = [f"If-Match: {named}", "Idempotency-Key: once"]
            refused = await there.ask("PUT", f"{session}/items/chunks/a", *fields, body={"text": "other"})
            assert (refused.status, refused.json["code"]) == (422, "change-id-reused"), refused.body
        assert await steps(there, session) == before + 3  # the write, the one after it, and the lock


async def test_r05_a_session_is_made_once_under_one_change_id(tmp_path: Path) -> None:
    async with services(tmp_path / "home", 2, Around) as doors, callers(doors, MOST_AT_ONCE) as everyone:
        made = await asyncio.gather(*(create(caller, "Idempotency-Key: once") for caller in everyone))
        assert {answer.status for answer in made} == {201}
        assert len({(answer.json["id"], answer.headers["etag"], answer.headers["location"]) for answer in made}) == 1
        refused = await create(everyone[0], "Idempotency-Key: once", text="other")
        assert (refused.status, refused.json["code"]) == (422, "change-id-reused")
        listed = await everyone[1].ask("GET", "/v1/sessions")
        assert [one["id"] for one in listed.json["sessions"]] == [made[0].json["id"]]


async def test_r05_an_answer_is_remembered_over_a_restart_and_over_a_crash(tmp_path: Path) -> None:
    async with Servers.on(tmp_path / "home", SERVERS) as servers:
        async with callers(servers.doors) as (caller,):
            session = await address_of(caller)
            tag = (await caller.ask("GET", session)).headers["etag"]
            asked = (f"If-Match: {tag}", "Idempotency-Key: once")
            first = await caller.ask("PUT", f"{session}/items/chunks/a", *asked, body={"text": "x"})
            before = await steps(caller, session)
        for how in (signal.SIGTERM, signal.SIGKILL):
            await asyncio.gather(*(servers.restart(which, how) for which in range(SERVERS)))
            async with callers(servers.doors, SERVERS) as everyone:
                for caller in everyone:
                    again = await caller.ask("PUT", f"{session}/items/chunks/a", *asked, body={"text": "x"})
                    assert alike(first, again)
                    refused = await caller.ask("PUT", f"{session}/items/chunks/a", *asked, body={"text": "y"})
                    assert (refused.status, refused.json["code"]) == (422, "change-id-reused")
                    assert await steps(caller, session) == before


async def test_r05_of_many_sendings_at_once_one_has_an_effect_and_all_get_its_answer(tmp_path: Path) -> None:
    """Some sendings are cut off before their answer; the service may have died meanwhile."""
    random, replays, changes, cut, kills = Random(SEED), 0, 0, 0, 0
    async with Servers.on(tmp_path / "home", SERVERS) as servers:
        while replays < REPLAYS:
            async with callers(servers.doors, MOST_AT_ONCE) as everyone:
                session = await address_of(everyone[0])
                begun = await steps(everyone[0], session)
                for number in range(1, CHANGES + 1):
                    answers = await send_at_once(servers.doors, everyone, session, number, random)
                    cut += answers.cut
                    assert answers.problems == []
                    replays += answers.replays
                    changes += 1
                assert await steps(everyone[0], session) == begun + CHANGES
            kills += 1
            await servers.restart(kills % SERVERS, signal.SIGKILL if kills % 2 else signal.SIGTERM)
            async with callers(servers.doors, SERVERS) as everyone:
                assert [await steps(caller, session) for caller in everyone] == [begun + CHANGES] * SERVERS
    print(f"R05 seed={SEED} changes={changes} replays={replays} cut={cut} restarts={kills} second effects=0")


class Sent:
    """What came of a change that was sent several times at once: how many answers were replays, and what is wrong."""

    def __init__(self, answers: list[Answer], cut: int, version: int) -> None:
        self.cut, self.problems = cut, list[str]()
        if statuses := sorted({answer.status for answer in answers} - {200}):
            self.problems.append(f"statuses {statuses}")
        answers = [answer for answer in answers if answer.status == 200]
        told = [answer.json for answer in answers]
        self.replays = sum(one["replayed"] for one in told)
        if (first := len(told) - self.replays) > 1 or (first < 1 and not cut):
            self.problems.append(f"{first} were told that theirs was the first")
        if {one["version"] for one in told} != {version}:
            self.problems.append(f"versions {[one['version'] for one in told]}, and not {version}")
        if len({(answer.json["digest"], answer.json["at"], answer.headers["etag"]) for answer in answers}) > 1:
            self.problems.append("they differ")


async def send_at_once(doors: list[Door], everyone: list[Caller], session: str, number: int, random: Random) -> Sent:
    """Send one change over several connections at the same time, and over some that are cut off."""
    header = await everyone[0].ask("GET", f"{session}/header")
    version, rebase = header.json["version"], random.choice(["", "?rebase=true"])
    fields = (f"If-Match: {header.headers['etag']}", f"Idempotency-Key: change {number}")
    body = {"changes": [{"put": f"chunks/{random.choice('abc')}", "body": {"text": f"change {number}"}}]}
    cut = random.choice([0, 0, 1, 3])
    async with callers(doors, cut) as dropped:  # which is over before their answers are read
        for caller in dropped:
            await caller.send("PATCH", session + rebase, *fields, body=body)
        await asyncio.sleep(random.random() * 0.004)
    chosen = random.sample(everyone, random.randint(2, len(everyone)))
    asked = (caller.ask("PATCH", session + rebase, *fields, body=body) for caller in chosen)
    return Sent(list(await asyncio.gather(*asked)), cut, version + 1)


# -- teeth -------------------------------------------------------------------------------------------------------------


async def test_teeth_a_store_that_knows_no_change_id_again_is_noticed(tmp_path: Path) -> None:
    async with services(tmp_path / "home", 2, Forgetful) as doors, callers(doors, MOST_AT_ONCE) as everyone:
        session = await address_of(everyone[0])
        sent = await send_at_once(doors, everyone, session, 1, Random(SEED))
        assert sent.problems
