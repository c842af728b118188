"""F06: a reply is lost after the service has done what it was asked. The client asks again, and there is one effect.

``HOLDFAST_TEST_LOST_REPLIES`` says how many rounds of 200 writes to lose replies of; 50 are the 10^4 of F06.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from holdfast.client import Client, transport
from holdfast.client.transport import Ask, Transport
from holdfast.errors import HoldfastError, VersionConflictError
from holdfast.model.access import Role
from holdfast.model.limits import Limits
from holdfast.settings import Settings
from holdfast.settings.sections import Service
from holdfast.testing.issuer import Issuer
from holdfast.testing.serving import Served, served
from holdfast.testing.wires import proxy

pytestmark = pytest.mark.no_cover  # repeats what others measure once

ROUNDS = int(os.environ.get("HOLDFAST_TEST_LOST_REPLIES", "1"))
WRITES = 25
"""Writes of each of eight sorts in a round."""
LOST_IN_A_ROW = 3

Connect = Callable[..., Any]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.001)


class Loser:
    """Loses most replies to writes, but never so many of one that a client gives up."""

    def __init__(self, seed: int = 7) -> None:
        self.lost, self._run, self._chance = 0, 0, random.Random(seed)

    def __call__(self, line: str) -> int | None:
        if line.startswith("GET") or self._run >= LOST_IN_A_ROW or self._chance.random() < 0.3:
            self._run = 0
            return None
        self._run += 1
        self.lost += 1
        return self._chance.choice([0, 0, 0, 1, 60])  # nothing at all, or not even the head of it


@asynccontextmanager
async def losing(service: Served, connect: Connect) -> AsyncIterator[tuple[Client, Loser]]:
    loser = Loser()
    async with proxy(service.address, loser) as address:
        yield await connect(address=address, retries=LOST_IN_A_ROW + 1), loser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> AsyncIterator[Served]:
    """A service that lets one person make many sessions."""
    home, bounds = tmp_path_factory.mktemp("service") / "home", Service(rate=100_000, burst=100_000)
    settings = Settings(home=home, auth=issuer.auth(), service=bounds, limits=Limits(sessions=1_000_000))
    async with served(settings, home=home) as running:
        yield running


async def everything(client: Client, name: str) -> tuple[str, int]:
    """Writes of every sort, each once: the session they were made to, and how many steps it should have."""
    for number in range(WRITES):
        await client.create(kind="knowledge", title=f"copy {number} of {name}")
    session = (await client.create(kind="knowledge", title="the one")).id
    version, steps = 1, 1
    for number in range(WRITES):
        async with client.edit(session, expected=version) as draft:
            draft.put(draft.new_key("chunks"), {"text": f"line {number}"})
        version = draft.result.version
        version = (await client.undo(session, expected=version)).version
        version = (await client.redo(session, expected=version)).version
        await client.label(session, f"label {number}", version=version)
        await client.grant(session, f"reader {number}", Role.VIEWER)
        await client.rename(session, f"title {number}")
        await client.extend(session, seconds=1_000 + number)
        await client.touch(session)
        steps += 8
        assert version == 1 + 3 * (number + 1)
    return session, steps


async def test_every_write_has_one_effect(service: Served, connect: Connect) -> None:
    direct = await connect()
    async with losing(service, connect) as (client, loser):
        for number in range(ROUNDS):
            session, steps = await everything(client, f"round {number}.")
            assert len((await direct.find(text=f"of round {number}.", limit=1_000)).headers) == WRITES
            header = await direct.header(session)
            assert (header.step, header.version, header.count) == (steps, 1 + 3 * WRITES, WRITES)
            texts = [item.body["text"] for item in (await direct.read(session)).items]
            assert texts == [f"line {number}" for number in range(WRITES)]
    print(f"{loser.lost} replies lost of {9 * WRITES * ROUNDS} writes")
    assert loser.lost > 6 * WRITES * ROUNDS
    assert all([verified.ok async for verified in (await connect("ada")).verify()])


async def test_what_takes_no_change_id_can_be_sent_again_too(service: Served, connect: Connect) -> None:
    async with losing(service, connect) as (client, loser):
        for number in range(8):
            session = (await client.create(kind="knowledge", items=[("chunks/1", {"text": f"a {number}"})])).id
            lease = await client.lease(session, "tab")
            lease = await client.renew(lease)
            assert (await client.leased(session)) == lease
            await client.release(lease)
            assert await client.leased(session) is None
            preview = await client.preview(session)
            receipt = await client.publish(session, seal=preview.seal)
            assert (await client.receipts(session)) == [receipt]
            back = await client.rollback(session)
            assert (await client.receipts(session)) == [back, receipt]
        assert loser.lost > 30


async def lines(client: Client, session: str, number: int) -> None:
    for version in range(1, number):
        async with client.edit(session, expected=version) as draft:
            draft.put("chunks/1", {"text": str(version)})


async def test_a_client_that_makes_a_new_id_for_each_try_is_caught(
    service: Served, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, number = Transport._exchange, iter(range(10**6))

    async def wrong(self: Transport, ask: Ask, silence: float | None = None) -> Any:
        fresh = f"{os.urandom(8).hex()}-{next(number)}"
        return await right(self, replace(ask, change_id=fresh if ask.change_id else None), silence)

    direct = await connect("ben")
    monkeypatch.setattr(Transport, "_exchange", wrong)
    async with proxy(service.address, Loser()) as address:
        client = await connect("ben", address=address, retries=LOST_IN_A_ROW + 1)
        for _ in range(5):
            await client.create(kind="knowledge")
        assert len((await direct.find()).headers) > 5
        session = (await client.create(kind="knowledge")).id
        with pytest.raises(VersionConflictError):
            await lines(client, session, 10)


async def test_after_the_tries_are_used_up_the_same_id_tells_what_became_of_it(
    service: Served, connect: Connect
) -> None:
    async with proxy(service.address, lambda line: 0 if line.startswith("PATCH") else None) as address:
        client, direct = await connect(address=address, retries=1), await connect()
        session = (await client.create(kind="knowledge")).id
        with pytest.raises(HoldfastError) as raised:
            async with client.edit(session, expected=1) as draft:
                draft.put("chunks/1", {"text": "landed"})
        change_id = raised.value.facts()["change_id"]
        async with direct.edit(session, expected=1, change_id=change_id) as draft:
            draft.put("chunks/1", {"text": "landed"})
        assert draft.result.replayed
        assert draft.result.version == 2
