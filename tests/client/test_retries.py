"""What is sent again and what is not, and what the caller is told when the tries are used up (F06, R17)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from holdfast.client import Client, transport
from holdfast.client.transport import pause
from holdfast.errors import (
    HoldfastError,
    LeaseHeldError,
    NotDraftError,
    PermissionDeniedError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceError,
    SinkUnavailableError,
    StoppingError,
    StoreFullError,
    StoreUnavailableError,
    TierBehindError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
)
from holdfast.model.access import Principal
from holdfast.model.session import Header, Status
from holdfast.testing.wires import Said, Scripted, answering, refusing, telling
from holdfast.wire import forms

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ANA = {"id": "ana", "tenant": "default", "roles": []}
TOKEN = "a-token-that-nobody-may-see"
NOTHING_DONE: list[HoldfastError] = [RateLimitedError("requests", 0.0), StoppingError(), RequestTimeoutError(1)]
OPEN: list[HoldfastError] = [
    ServiceError("It failed."),
    StoreUnavailableError("hot", "x"),
    SinkUnavailableError("v", "x"),
]
OWN = "Retry-After: 0"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.001)


@contextlib.asynccontextmanager
async def scripted(*script: Said, retries: int = 3, timeout: float = 5.0) -> AsyncIterator[tuple[Client, Scripted]]:
    service = Scripted(*script)
    async with service.open() as address, Client(address, token=TOKEN, retries=retries, timeout=timeout) as client:
        yield client, service


def header_of(title: str = "Tides") -> bytes:
    """What a rename answers with."""
    return answering(200, forms.encode(Header("s", "t", "knowledge", 0, "ana", Status.DRAFT, NOW, NOW, title=title)))


@pytest.mark.parametrize("error", [*NOTHING_DONE, *OPEN], ids=lambda error: error.code)
async def test_a_read_and_a_write_are_sent_again_and_a_write_under_its_id(error: HoldfastError) -> None:
    async with scripted(refusing(error, OWN), refusing(error, OWN), telling(ANA)) as (client, service):
        assert await client.whoami() == Principal("ana")
        assert [one.line for one in service.asked] == ["GET /v1/whoami HTTP/1.1"] * 3
        assert service.change_ids == [None, None, None]
    async with scripted(refusing(error, OWN), None, refusing(error, OWN), header_of()) as (client, service):
        assert (await client.rename("s", "Tides")).title == "Tides"
        assert len(service.asked) == 4
        assert len(set(service.change_ids)) == 1
        assert len(service.change_ids[0] or "") >= 22
        assert len({one.body for one in service.asked}) == 1


async def test_each_call_has_an_id_of_its_own_unless_one_is_given() -> None:
    async with scripted(header_of(), header_of(), header_of(), header_of()) as (client, service):
        await client.rename("s", "a")
        await client.rename("s", "a")
        await client.rename("s", "a", change_id="mine")
        await client.rename("s", "a", change_id='" quoted "')
        first, second, third, fourth = service.change_ids
        assert len({first, second, third}) == 3
        assert (third, fourth) == ("mine", '"" quoted ""')


@pytest.mark.parametrize(
    "error",
    [
        LeaseHeldError("tab", NOW),
        PermissionDeniedError("ana", "edit"),
        NotDraftError("s", "locked", "edit"),
        UnauthenticatedError("no"),
        StoreFullError("hot"),
        TierBehindError("s", 3, 5),
    ],
    ids=lambda error: error.code,
)
async def test_a_refusal_is_not_sent_again(error: HoldfastError) -> None:
    async with scripted(refusing(error)) as (client, service):
        with pytest.raises(type(error)) as raised:
            await client.rename("s", "Tides")
        assert str(raised.value) == str(error)
        assert raised.value.facts() == error.facts()
        assert raised.value.__notes__ == ["Request: a-request"]
        assert len(service.asked) == 1


@pytest.mark.parametrize("error", [*OPEN, None], ids=lambda error: error.code if error else "lost")
async def test_what_takes_no_id_is_sent_again_only_if_that_is_safe(error: HoldfastError | None) -> None:
    said = None if error is None else refusing(error, OWN)
    async with scripted(said) as (client, service):
        with pytest.raises(UnavailableError):
            await client.rotate_keys()
        assert len(service.asked) == 1
    async with scripted(said, telling({"key_id": "k", "sessions": 1})) as (client, service):
        with pytest.raises(ServiceError) as raised:  # not a receipt: but it was sent twice
            await client.publish("s", seal="x")
        assert "not one of Holdfast's" in str(raised.value)
        assert len(service.asked) == 2


@pytest.mark.parametrize("error", NOTHING_DONE, ids=lambda error: error.code)
async def test_what_takes_no_id_is_sent_again_if_nothing_was_done(error: HoldfastError) -> None:
    async with scripted(refusing(error, OWN), telling({"key_id": "k", "sessions": 1})) as (client, _):
        assert (await client.rotate_keys()).key_id == "k"


@pytest.mark.parametrize("error", [OPEN[0], OPEN[1], None], ids=lambda error: error.code if error else "lost")
async def test_used_up_tries_say_that_the_outcome_is_unknown_and_what_to_ask_again_with(
    error: HoldfastError | None,
) -> None:
    said = None if error is None else refusing(error, OWN)
    async with scripted(said, said, said, retries=2) as (client, service):
        with pytest.raises(ServiceError if error is None else type(error)) as raised:
            await client.rename("s", "Tides")
        (change_id,) = set(service.change_ids)
        assert "outcome is unknown" in str(raised.value)
        assert raised.value.facts()["change_id"] == change_id
        assert f"Change id: {change_id}" in raised.value.__notes__


async def test_an_open_outcome_stays_open_whatever_the_last_try_was_told() -> None:
    limited = refusing(RateLimitedError("requests", 0.0), OWN)
    async with scripted(None, limited, limited, retries=2) as (client, service):
        with pytest.raises(ServiceError, match="outcome is unknown") as raised:
            await client.rename("s", "Tides")
        assert raised.value.facts()["change_id"] == service.change_ids[0]
    async with scripted(None, refusing(UnauthenticatedError("it has expired"))) as (client, service):
        with pytest.raises(UnauthenticatedError) as refused:
            await client.rename("s", "Tides")
        assert refused.value.facts()["change_id"] == service.change_ids[0]
    async with scripted(limited, limited, retries=1) as (client, _):
        with pytest.raises(RateLimitedError) as told:
            await client.rename("s", "Tides")
        assert "change_id" not in told.value.facts()


async def test_where_nothing_listens_nothing_was_done() -> None:
    async with scripted() as (_, service):
        pass
    async with service.open() as address:
        pass
    async with Client(address, token=TOKEN, retries=2) as client:
        with pytest.raises(StoppingError, match=r"cannot be reached .* Nothing was done") as raised:
            await client.rename("s", "Tides")
        assert "change_id" not in raised.value.facts()


async def test_no_answer_in_time_is_no_answer() -> None:
    never = asyncio.Event()
    async with scripted(never.wait(), never.wait(), retries=1, timeout=0.1) as (client, service):  # type: ignore[arg-type]
        with pytest.raises(ServiceError, match="not in time"):
            await client.rename("s", "Tides")
        assert len(set(service.change_ids)) == 1
        assert len(service.asked) == 2


def test_a_pause_doubles_up_to_a_bound_and_is_never_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.1)
    for tried in range(12):
        nominal = min(0.1 * 2**tried, 5.0)
        found = {pause(tried, None) or 0.0 for _ in range(50)}
        assert len(found) > 25
        assert min(found) >= nominal / 2
        assert max(found) <= nominal
    assert 2.0 < (pause(0, 2.0) or 0.0) <= 2.1
    assert pause(0, 61.0) is None
    assert (pause(10_000, None) or 0.0) <= 5.0


async def test_a_long_wait_is_told_and_not_waited_for() -> None:
    async with scripted(refusing(RateLimitedError("requests", 900.0))) as (client, service):
        with pytest.raises(RateLimitedError) as raised:
            await client.whoami()
        assert raised.value.retry_after == 900.0
        assert len(service.asked) == 1


async def test_a_redirect_is_not_followed_and_the_token_goes_nowhere_else() -> None:
    other = Scripted(telling(ANA))
    async with (
        other.open() as elsewhere,
        scripted(answering(307, b"", f"Location: {elsewhere}/v1/whoami")) as (client, service),
    ):
        with pytest.raises(ServiceError, match="307"):
            await client.whoami()
        assert (len(service.asked), len(other.asked)) == (1, 0)


async def test_neither_cookies_nor_the_proxy_of_the_environment_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    body = telling(ANA).partition(b"\r\n\r\n")[2]
    async with scripted(answering(200, body, "Set-Cookie: a=b"), telling(ANA)) as (client, service):
        await client.whoami()
        await client.whoami()
        assert all("cookie" not in one.headers for one in service.asked)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"id":7}', b"\xff"])
async def test_an_answer_of_something_else_is_an_error_of_the_service(body: bytes) -> None:
    async with scripted(answering(200, body)) as (client, _):
        with pytest.raises(ServiceError):
            await client.whoami()


@pytest.mark.parametrize("status", [400, 404, 418, 500, 502, 503])
async def test_a_page_of_a_gateway_is_an_error_of_the_service(status: int) -> None:
    page = answering(status, b"<html>", media="text/html")
    async with scripted(page, page, page, page) as (client, service):
        with pytest.raises(ServiceError, match=str(status)):
            await client.whoami()
        assert len(service.asked) == (4 if status >= 500 else 1)


async def test_an_answer_has_a_bound_also_one_that_unpacks_to_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MOST_BYTES", 10_000)
    small, big = gzip.compress(b"[]" + b" " * 1_000), gzip.compress(b" " * 1_000_000)
    packed = "Content-Encoding: gzip"
    async with scripted(answering(200, small, packed), answering(200, big, packed)) as (client, service):
        assert await client.revocations() == []
        assert len(big) < 10_000
        with pytest.raises(ServiceError, match="longer than"):
            await client.revocations()
        assert len(service.asked) == 2


async def test_where_nothing_listens_is_told_as_that_and_that_nothing_was_done() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    async with Client(address, token="t", retries=1) as client:
        with pytest.raises(UnreachableError) as raised:
            await client.whoami()
    assert str(raised.value).startswith(f"{address} cannot be reached (")
    assert "HOLDFAST_URL" in str(raised.value)
    assert str(raised.value).endswith("Nothing was done.")
    assert raised.value.facts().keys() == {"address", "reason"}


async def test_a_token_can_be_asked_for_each_time() -> None:
    tokens = iter(["one", "two", "not a token"])
    service = Scripted(refusing(StoppingError(), OWN), telling(ANA))
    async with service.open() as address, Client(address, token=lambda: next(tokens)) as client:
        await client.whoami()
        assert [one.headers["authorization"] for one in service.asked] == ["Bearer one", "Bearer two"]
        with pytest.raises(HoldfastError, match="blanks"):
            await client.whoami()


async def test_no_token_and_no_query_is_ever_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    """S12: neither what is asked for nor who asks stands in a log, a repr or an error."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore2").setLevel(logging.DEBUG)
    failing = refusing(ServiceError("It failed."), OWN)
    async with scripted(telling([]), failing, None, failing, None) as (client, service):
        assert await client.search("something confidential") == []
        with pytest.raises(ServiceError) as raised:
            await client.search("something confidential")
        assert "confidential" in service.asked[0].line
        shown = [
            caplog.text,
            repr(client),
            str(raised.value),
            repr(raised.value),
            *getattr(raised.value, "__notes__", ()),
        ]
        assert not [text for text in shown if TOKEN in text or "confidential" in text]
    assert "send_request_headers" in caplog.text, "nothing was listened to"
