"""What an answer says beside its body, and what a request may ask of it: ``Prefer``, ``Idempotency-Key`` (R05 on every
route), ``Location``, ``Sunset``, ``Retry-After``, ``Holdfast-Durability``.

The routes are taken from the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from holdfast.errors import StoreFullError, StoreUnavailableError
from holdfast.ports.hot import HotStore
from holdfast.service.conditions import preference
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock
from holdfast.testing.document import Operation, operations
from holdfast.testing.front import ADMIN, ANA, Front, opened
from holdfast.testing.issuer import Issuer

TEXT = {"text": "The moon draws it."}


def taking(front: Front, parameter: str) -> list[Operation]:
    found = [operation for operation in operations(front.document) if operation.takes(parameter)]
    assert found
    return found


# -- Prefer -----------------------------------------------------------------------------------------------------------


async def test_a_write_answers_as_long_as_is_preferred_on_every_route(front: Front, ana: httpx2.AsyncClient) -> None:
    """RFC 7240."""
    for operation in taking(front, "Prefer"):
        session, asked = await front.ready(operation)
        answer = await front.send(ANA, asked, prefer="return=minimal")
        assert (answer.status_code, answer.content) == (204, b""), (operation.name, answer.text)
        assert answer.headers["preference-applied"] == "return=minimal"
        current = await ana.get(f"/v1/sessions/{session}")
        assert answer.headers["etag"] == current.headers["etag"] != asked.headers["if-match"], operation.name

        session, asked = await front.ready(operation)
        answer = await front.send(ANA, asked, prefer="return=representation")
        assert answer.headers["preference-applied"] == "return=representation"
        current = await ana.get(f"/v1/sessions/{session}")
        assert answer.content == current.content
        assert answer.headers["etag"] == current.headers["etag"] != asked.headers["if-match"], operation.name
        assert answer.headers["sunset"] == current.headers["sunset"]

        session, asked = await front.ready(operation)
        answer = await front.send(ANA, asked, prefer="respond-async")
        assert "preference-applied" not in answer.headers
        assert answer.json()["changes"], operation.name


@pytest.mark.parametrize(
    ("prefer", "wanted"),
    [
        (None, None),
        ("", None),
        ("return=minimal", "minimal"),
        ('Return="representation"', "representation"),
        ("respond-async, return = minimal; x=1", "minimal"),
        ("return=minimal, return=representation", "minimal"),
        ("return=none", None),
        ("return", None),
        ("wait=5,,", None),
    ],
)
def test_a_preference_is_read_as_rfc_7240_has_it(prefer: str | None, wanted: str | None) -> None:
    assert preference(prefer) == wanted


# -- Idempotency-Key --------------------------------------------------------------------------------------------------


async def test_the_same_request_again_has_no_second_effect_and_the_first_answer(
    front: Front, ana: httpx2.AsyncClient
) -> None:
    """R05, on every route that takes a change id, bare and in quotes; another request under it is refused."""
    for operation in taking(front, "Idempotency-Key"):
        session, asked = await front.ready(operation)
        key = f"once-{operation.name}"
        first = await front.send(ANA, asked, **{"idempotency-key": key})
        assert first.status_code in (200, 201), (operation.name, first.text)
        for again in (key, f'"{key}"'):
            second = await front.send(ANA, asked, **{"idempotency-key": again})
            assert second.status_code == first.status_code, (operation.name, second.text)
            assert second.json() == {**first.json(), **replayed(second)}, operation.name
            for name in ("etag", "location", "sunset", "holdfast-durability"):
                assert second.headers.get(name) == first.headers.get(name), (operation.name, name)
        made = first.json()["id"] if first.status_code == 201 else session
        history = await ana.get(f"/v1/sessions/{made}/history")
        if history.status_code == 200:
            assert [entry["change"] for entry in history.json()].count(key) == 1, operation.name
        await refused_for_another(ana, operation, session, key)


def replayed(answer: httpx2.Response) -> dict[str, Any]:
    """What alone is another thing in the answer to a commit that was sent again."""
    return {"replayed": True} if "replayed" in answer.json() else {}


async def refused_for_another(ana: httpx2.AsyncClient, operation: Operation, session: str, key: str) -> None:
    """Ask for something else under the change id of an operation that was done."""
    headers = {"idempotency-key": key}
    if not operation.of_session or operation.name == "reopen":
        answer = await ana.post("/v1/sessions", json={"kind": "knowledge", "title": "Another"}, headers=headers)
    elif operation.name == "discard_session":
        answer = await ana.post(f"/v1/sessions/{session}/revive", headers=headers)
    else:
        answer = await ana.put(f"/v1/sessions/{session}/title", json={"title": "Something else"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "change-id-reused"), (operation.name, answer.text)


async def test_an_answer_is_given_again_after_others_have_written(front: Front, ana: httpx2.AsyncClient) -> None:
    """R05: who did not hear of it sends again what it sent, and is told of then and not of now."""
    address, tag = await front.make()
    item, headers = f"{address}/items/chunks/0001", {"if-match": tag, "idempotency-key": "k"}
    first = await ana.put(item, json=TEXT, headers=headers)
    for number in range(25):
        await ana.put(item, json={"text": f"{number}."}, headers={"if-match": f'"{2 + number}"'})
    again = await ana.put(item, json=TEXT, headers=headers)
    assert (again.status_code, again.headers["etag"]) == (200, first.headers["etag"])
    assert again.json() == {**first.json(), "replayed": True}
    assert (await ana.get(item)).json()["body"]["text"] == "24."
    other = await ana.put(item, json={"text": "Something else."}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "change-id-reused")


async def test_a_change_id_is_one_session_s_own(front: Front, ana: httpx2.AsyncClient) -> None:
    for _ in range(2):
        address, tag = await front.make()
        headers = {"if-match": tag, "idempotency-key": "k"}
        answer = await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers=headers)
        assert answer.json()["replayed"] is False


async def test_a_creation_whose_session_is_gone_is_not_made_anew(
    front: Front, ana: httpx2.AsyncClient, clock: ManualClock
) -> None:
    """The change id has made a session; that it was purged since is no reason to make another one."""
    asked = {"kind": "knowledge"}, {"idempotency-key": "k"}
    session = (await ana.post("/v1/sessions", json=asked[0], headers=asked[1])).json()["id"]
    await front.engine.discard(session, ANA)
    clock.advance(front.service.settings.grace)
    await front.engine.sweep(ADMIN)
    answer = await ana.post("/v1/sessions", json=asked[0], headers=asked[1])
    assert (answer.status_code, answer.json()["code"]) == (410, "session-gone")


@pytest.mark.parametrize("key", ["", "x" * 201, "\xff" * 201])
async def test_what_is_no_change_id_is_refused(ana: httpx2.AsyncClient, key: str) -> None:
    headers = {b"idempotency-key": key.encode("latin-1")}
    answer = await ana.post("/v1/sessions", json={"kind": "knowledge"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert "Idempotency-Key" in answer.json()["where"]


# -- where, until when, how safe, when again --------------------------------------------------------------------------


async def test_the_expiry_of_a_session_is_told(front: Front, ana: httpx2.AsyncClient, clock: ManualClock) -> None:
    """RFC 8594: the time at which the session will be gone, which each write puts off."""
    address, tag = await front.make(retention={"ttl": 1_000})
    asked = await ana.get(address)
    assert (parsedate_to_datetime(asked.headers["sunset"]) - clock.now()).total_seconds() == 1_000
    clock.advance(500)
    headers = {"if-match": tag, "prefer": "return=representation"}
    answer = await ana.put(f"{address}/items/chunks/0001", json=TEXT, headers=headers)
    assert (parsedate_to_datetime(answer.headers["sunset"]) - clock.now()).total_seconds() == 1_000
    assert "sunset" not in (await ana.post(f"{address}/extend", json={"seconds": None})).headers
    assert "sunset" in (await ana.post(f"{address}/extend", json={"seconds": 10})).headers
    assert "sunset" not in (await ana.delete(address)).headers


async def test_what_was_made_is_where_the_answer_says(front: Front) -> None:
    made = 0
    admin = await front.client(ADMIN)
    for operation in operations(front.document):
        if "201" not in operation.said["responses"]:
            continue
        _, asked = await front.ready(operation)
        answer = await front.send(ADMIN, asked)
        assert answer.status_code == 201, answer.text
        made += 1
        where = answer.headers["location"]
        if operation.name == "take_lease":
            assert (await admin.put(where)).json()["fence"] == answer.json()["fence"]
        elif operation.name == "revoke":
            assert answer.json() in (await admin.get(where)).json()
        else:
            assert (await admin.get(where)).json()["id"] == answer.json()["id"]
    assert made == 5


async def test_every_write_says_how_safe_it_is(front: Front) -> None:
    of_service = {"sweep", "verify", "rotate_keys"}  # what they did is in their answer, and they can be asked again
    of_service |= {"archive", "rehydrate", "flush_tiers"}  # they move what is written, and write nothing
    wrote = 0
    for operation in operations(front.document):
        if operation.name in of_service:
            continue
        _, asked = await front.ready(operation)
        answer = await front.send(ADMIN, asked)
        assert answer.status_code < 300, (operation.name, answer.text)
        writes = operation.method != "GET"
        wrote += writes
        assert answer.headers.get("holdfast-durability") == ("disk" if writes else None), operation.name
    assert wrote > 30


class Failing:
    """A hot store that fails to write, once it is told how."""

    def __init__(self, store: HotStore) -> None:
        self._store = store
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, *given: Any, **named: Any) -> Any:
        if self.error is not None:
            raise self.error
        return await self._store.write(*given, **named)


@pytest.fixture
async def failing(
    believing: Settings, issuer: Issuer, clock: ManualClock
) -> AsyncIterator[tuple[Front, list[Failing]]]:
    stores: list[Failing] = []

    def wrap(store: HotStore) -> Any:
        stores.append(Failing(store))
        return stores[-1]

    async with opened(believing, issuer, clock=clock, wrap=wrap) as front:
        yield front, stores


@pytest.mark.parametrize(
    ("error", "status"), [(StoreUnavailableError("hot", "gone"), 503), (StoreFullError("hot"), 507)]
)
async def test_what_may_be_had_later_says_when_to_ask_again(
    failing: tuple[Front, list[Failing]], error: Exception, status: int
) -> None:
    """On every route that writes: nothing is acknowledged that was not kept."""
    front, (store,) = failing
    written = {"take_lease", "renew_lease", "release_lease", "revoke", "sweep", "verify", "rotate_keys"}  # another way
    written |= {"archive", "rehydrate", "flush_tiers"}
    failed = 0
    for operation in operations(front.document):
        if operation.method == "GET" or operation.name in written:
            continue
        store.error = None
        session, asked = await front.ready(operation)
        store.error = error
        answer = await front.send(ANA, asked)
        assert answer.status_code == status, (operation.name, answer.text)
        assert int(answer.headers["retry-after"]) > 0
        failed += 1
        if session:
            assert (await (await front.client(ANA)).get(f"/v1/sessions/{session}/header")).status_code == 200
    assert failed > 25


async def test_who_asks_too_much_is_told_when_to_ask_again(believing: Settings, issuer: Issuer) -> None:
    """S25: nothing is done, and others are not held up."""
    tight = replace(believing, service=replace(believing.service, rate=1, burst=3))
    async with opened(tight, issuer) as front:
        ana, admin = await front.client(ANA), await front.client(ADMIN)
        answers = [await ana.post("/v1/sessions", json={"kind": "knowledge"}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [201, 201, 201, 429, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].json()["code"] == "rate-limited"
        assert len((await admin.get("/v1/sessions")).json()["sessions"]) == 3


async def test_a_service_that_stops_takes_no_more(front: Front, ana: httpx2.AsyncClient) -> None:
    front.service.stopping.set()
    for path in ("/v1/whoami", "/health/ready"):
        answer = await ana.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
        assert int(answer.headers["retry-after"]) > 0
    assert (await ana.get("/health/live")).status_code == 200
