"""What a server's answers mean. Of GCS and Azure no server is at hand: the answers here are as their documentation has
them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from holdfast.errors import AlreadyExistsError, StoreFullError, StoreUnavailableError
from holdfast.stores.cold.objects import ObjectColdStore
from holdfast.testing.objects import Answer, Gateway, give_credentials

KEY = "blobs/thekey"
CONTENT = b"thecontent"
HEADERS = {
    "etag": '"1"',
    "last-modified": "Sat, 21 Nov 2026 09:00:00 GMT",
    "x-goog-generation": "1",
    "x-ms-request-id": "1",
}


@pytest.fixture(params=["s3", "gs", "az"])
async def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, Gateway]]:
    """A server that answers what the test says, in the words of a provider."""
    give_credentials(monkeypatch)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "dGhlLWFjY291bnQta2V5")
    async with Gateway().listening() as gateway:
        yield request.param, gateway


def opened(server: tuple[str, Gateway]) -> ObjectColdStore:
    return ObjectColdStore.open(f"{server[0]}://bucket/prefix?timeout=2&endpoint={server[1].endpoint}")


def error(status: int, code: str) -> Answer:
    # Words that no log should have: of the key, of the content, of a credential.
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>thekey thecontent thesecret</Message></Error>"
    return Answer(status, body.encode(), {**HEADERS, "content-type": "application/xml", "x-ms-error-code": code})


def removed_none() -> Answer:
    """What Azure answers to a batch that removes one blob, where there is none."""
    lines = [
        *("--batch", "Content-Type: application/http", "Content-ID: 0", ""),
        *("HTTP/1.1 404 The specified blob does not exist.", "x-ms-error-code: BlobNotFound", "Content-Length: 0"),
        *("", "", "--batch--", ""),
    ]
    return Answer(202, "\r\n".join(lines).encode(), {"content-type": "multipart/mixed; boundary=batch"})


async def test_a_put_is_on_the_condition_that_the_key_is_free(server: tuple[str, Gateway]) -> None:
    server[1].rule = lambda asked: Answer(201 if server[0] == "az" else 200, b"", HEADERS)
    await opened(server).put(KEY, CONTENT)
    (asked,) = server[1].asked
    assert asked.method == "PUT"
    assert asked.body == CONTENT
    if server[0] == "gs":
        assert asked.headers["x-goog-if-generation-match"] == "0"
    else:
        assert asked.headers["if-none-match"] == "*"


async def test_a_key_that_is_taken_is_looked_at(server: tuple[str, Gateway]) -> None:
    taken = error(409, "BlobAlreadyExists") if server[0] == "az" else error(412, "PreconditionFailed")
    server[1].rule = lambda asked: taken if asked.method == "PUT" else Answer(200, CONTENT, HEADERS)
    await opened(server).put(KEY, CONTENT)
    with pytest.raises(AlreadyExistsError):
        await opened(server).put(KEY, b"another")


async def test_an_object_that_is_not_there_is_none_and_its_removal_no_error(server: tuple[str, Gateway]) -> None:
    server[1].rule = lambda asked: (
        removed_none()
        if "comp=batch" in asked.target
        else error(404, "BlobNotFound" if server[0] == "az" else "NoSuchKey")
    )
    assert await opened(server).get(KEY) is None
    await opened(server).delete(KEY)


@pytest.mark.parametrize("code", ["NoSuchBucket", "ContainerNotFound", ""])
async def test_a_404_of_anything_else_is_unavailable(server: tuple[str, Gateway], code: str) -> None:
    server[1].rule = lambda asked: error(404, code)
    for call in (opened(server).get(KEY), opened(server).delete(KEY), opened(server).put(KEY, CONTENT)):
        with pytest.raises(StoreUnavailableError, match="404"):
            await call


@pytest.mark.parametrize(
    ("status", "code"), [(400, "InvalidArgument"), (401, ""), (403, "AccessDenied"), (500, ""), (503, "SlowDown")]
)
async def test_every_other_refusal_is_unavailable_and_says_why_without_key_or_content(
    server: tuple[str, Gateway], status: int, code: str
) -> None:
    server[1].rule = lambda asked: error(status, code)
    store = opened(server)

    async def listed() -> list[str]:
        return [key async for key in store.keys("blobs/")]

    for call in (store.get(KEY), store.delete(KEY), store.put(KEY, CONTENT), listed()):
        with pytest.raises(StoreUnavailableError, match=f"it answered {status} ?{code}") as caught:
            await call
        assert caught.value.__suppress_context__
        for word in ("thekey", "thecontent", "thesecret", "127.0.0.1", "bucket"):
            assert word not in str(caught.value)


@pytest.mark.parametrize(("status", "code"), [(507, ""), (403, "QuotaExceeded"), (507, "XMinioStorageFull")])
async def test_no_room_is_said(server: tuple[str, Gateway], status: int, code: str) -> None:
    server[1].rule = lambda asked: error(status, code)
    with pytest.raises(StoreFullError):
        await opened(server).put(KEY, CONTENT)


async def test_a_page_that_is_cut_is_no_end_of_a_listing(server: tuple[str, Gateway]) -> None:
    server[1].rule = lambda asked: Answer(
        200, b"<?xml version='1.0'?><ListBucketResult><Contents><Key>prefix/b", HEADERS
    )
    with pytest.raises(StoreUnavailableError):
        [key async for key in opened(server).keys("blobs/")]
