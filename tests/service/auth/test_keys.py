"""S07: keys come from where the settings say and from nowhere else, in bounded size and time, and few times."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from joserfc.jwk import ECKey
from msgspec.structs import replace

from holdfast.engine.engine import Engine
from holdfast.errors import ConfigurationError, UnauthenticatedError, UnavailableError
from holdfast.ports.observer import Observer
from holdfast.service.auth import keys as keys_module
from holdfast.service.auth.authenticator import authenticator
from holdfast.service.auth.keys import (
    APART_SECONDS,
    KEEP_SECONDS,
    MOST_BYTES,
    KeyAddress,
    KeyFile,
    PublishedKeys,
    fetch_of,
)
from holdfast.settings import Settings
from holdfast.testing.issuer import Issuer

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Published:
    """A real HTTP server on the loopback interface that answers as it is told, and counts.

    Attributes:
        answer: what it does with a request.
        asked: how often it was asked; ``sent``: bytes that were taken from it.
    """

    def __init__(self) -> None:
        self.asked = self.sent = 0
        self.answer: Answer = self.gone
        self.gate: asyncio.Event | None = None
        self.served: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served.append((cast("asyncio.Task[None]", asyncio.current_task()), writer))
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.gate is not None:
                await self.gate.wait()
            await self.answer(writer)
            await writer.drain()
        writer.close()

    async def end(self) -> None:
        """Let go of every connection."""
        for task, writer in self.served:
            task.cancel()
            with contextlib.suppress(ConnectionError):
                await task
                await writer.wait_closed()

    def says(self, body: bytes | dict[str, Any], *headers: str, status: str = "200 OK") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def answer(writer: asyncio.StreamWriter) -> None:
            lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

        self.answer = answer

    async def gone(self, writer: asyncio.StreamWriter) -> None:
        """Closes the connection without a word."""

    async def endless(self, writer: asyncio.StreamWriter) -> None:
        """Never stops."""
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
            await writer.drain()
            self.sent += 0x2000

    async def dripping(self, writer: asyncio.StreamWriter) -> None:
        """A byte at a time, each well within any wait for the next."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            self.sent += 1
            await asyncio.sleep(0.02)


class Steady:
    """A clock of one's own for how long ago something was."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Watcher(Observer):
    """Keeps what it is told has failed."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []

    def failed(self, what: str, code: str, session: str = "") -> None:
        self.failures.append((what, code))

    def appended(self, *about: Any) -> None: ...
    def leased(self, *about: Any) -> None: ...
    def stored(self, *about: Any) -> None: ...
    def broke(self, *about: Any) -> None: ...


@pytest.fixture
async def publishes() -> AsyncIterator[Callable[[], Awaitable[Published]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def open_one() -> Published:
            published = Published()
            server = await asyncio.start_server(published.serve, "127.0.0.1", 0)
            published.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys.json"
            stack.push_async_callback(published.end)
            stack.callback(server.close)
            return published

        yield open_one


@pytest.fixture
async def published(publishes: Any) -> Published:
    made: Published = await publishes()
    return made


@pytest.fixture
async def source(published: Published) -> AsyncIterator[Any]:
    """Opens the keys of ``published``, with a clock and a watcher."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(family: str = "ES") -> tuple[PublishedKeys, Steady, Watcher]:
            steady, watcher = Steady(), Watcher()
            made = PublishedKeys(fetch_of(published.url), family, watcher, steady)
            await made.open()
            stack.push_async_callback(made.close)
            return made, steady, watcher

        yield open_one


def jwks(*issuers: Issuer) -> dict[str, Any]:
    return {"keys": [issuer.public() for issuer in issuers]}


# -- asking an address -------------------------------------------------------------------------------------------------


async def test_s07_nobody_asks_where_a_token_says_that_keys_are(
    publishes: Any, settings: Settings, engine: Engine
) -> None:
    ours, theirs = await publishes(), await publishes()
    issuer, attacker = Issuer("ES"), Issuer("ES", number=1)
    ours.says(jwks(issuer))
    theirs.says(jwks(attacker))
    verifier = authenticator(replace(settings, auth=issuer.auth(ours.url)), engine)
    await verifier.open()
    for kid in ("key-1", ...):
        for name in ("jku", "x5u"):
            header = issuer.header(kid=kid, **{name: theirs.url})
            with pytest.raises(UnauthenticatedError):
                await verifier.authenticate(f"Bearer {issuer.signed(header, issuer.claims(), key=attacker.key)}")
            await verifier.authenticate(f"Bearer {issuer.signed(header, issuer.claims())}")
    assert (ours.asked, theirs.asked) == (1, 0)
    await verifier.close()


async def test_s07_a_set_of_the_largest_size_is_read_and_no_larger_one(published: Published, source: Any) -> None:
    whole = json.dumps(jwks(Issuer())).encode()
    published.says(whole + b" " * (MOST_BYTES - len(whole)))
    keys, _, watcher = await source()
    assert await keys.find("key-1") is not None
    published.says(json.dumps(jwks(Issuer(kid="key-2"))).encode() + b" " * MOST_BYTES)
    await keys.refresh()
    assert watcher.failures == [("keys", "OSError")]
    assert await keys.find("key-1") is not None


async def test_s07_of_an_answer_without_end_not_much_more_than_the_largest_size_is_taken(
    published: Published,
) -> None:
    published.answer = published.endless
    fetch = KeyAddress(published.url, seconds=60)
    with pytest.raises(OSError, match="larger than"):
        await asyncio.wait_for(fetch(), 60)
    await fetch.close()
    assert published.sent < 100 * MOST_BYTES  # what the sockets of both sides hold is theirs


async def test_s07_a_slow_answer_is_given_up_though_it_never_stands_still(published: Published) -> None:
    published.answer = published.dripping
    fetch = KeyAddress(published.url, seconds=0.3)
    with pytest.raises(OSError, match=r"within 0\.3 seconds"):
        await asyncio.wait_for(fetch(), 60)
    await fetch.close()
    assert 0 < published.sent < 1_000


async def test_s07_an_answer_that_does_not_begin_is_given_up(published: Published) -> None:
    published.gate = asyncio.Event()
    fetch = KeyAddress(published.url, seconds=0.2)
    with pytest.raises(OSError, match="does not answer"):
        await asyncio.wait_for(fetch(), 60)
    await fetch.close()
    published.gate.set()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_s07_a_redirect_is_not_followed(status: str, publishes: Any) -> None:
    ours, theirs = await publishes(), await publishes()
    theirs.says(jwks(Issuer()))
    ours.says(b"", f"Location: {theirs.url}", status=status)
    fetch = fetch_of(ours.url)
    with pytest.raises(OSError, match="status 30"):
        await fetch()
    await fetch.close()
    assert (ours.asked, theirs.asked) == (1, 0)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", (), "404 Not Found"),
        (b"{}", (), "500 Internal Server Error"),
        (b"", (), "204 No Content"),
        (gzip.compress(b" " * 10_000_000), ("Content-Encoding: gzip",), "200 OK"),
    ],
)
async def test_s07_what_is_not_plain_content_is_refused(
    body: bytes, headers: tuple[str, ...], status: str, published: Published
) -> None:
    published.says(body, *headers, status=status)
    fetch = fetch_of(published.url)
    with pytest.raises(OSError, match="not with plain content"):
        await fetch()
    await fetch.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.test/keys.json",
        "http://127.0.0.1.issuer.test/keys",
        "http://0.0.0.0/keys",
        "http://user@issuer.test@127.0.0.1.test/keys",
        "https:///keys",
        "ftp://issuer.test/keys",
        "file://other.test/keys.json",
        "data://,{}",
        "unix:///run/keys",
    ],
)
def test_s07_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"auth\.keys"):
        fetch_of(url)


@pytest.mark.parametrize(
    "url", ["https://issuer.test/k", "http://127.0.0.1:1/k", "http://[::1]:1/k", "http://localhost/k"]
)
def test_s07_an_address_is_taken(url: str) -> None:
    assert isinstance(fetch_of(url), KeyAddress)


# -- when it is asked --------------------------------------------------------------------------------------------------


async def test_s07_many_who_name_an_unknown_key_at_once_ask_once(published: Published, source: Any) -> None:
    published.says(jwks(Issuer()))
    keys, steady, _ = await source()
    assert published.asked == 1
    steady.now += APART_SECONDS
    published.says(jwks(Issuer(), Issuer(kid="key-2", number=1)))
    published.gate = asyncio.Event()
    finding = [asyncio.ensure_future(keys.find("key-2")) for _ in range(50)]
    while published.asked == 1:
        await asyncio.sleep(0.001)
    assert await keys.find("key-1") is not None  # a known key waits for nobody
    finding += [asyncio.ensure_future(keys.find("key-2")) for _ in range(5)]  # too early to ask again: they wait along
    await asyncio.sleep(0)
    finding[0].cancel()  # nor does one that goes away take the answer from the others
    published.gate.set()
    found = await asyncio.gather(*finding, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(key, ECKey) for key in found[1:])
    assert published.asked == 2


async def test_s07_made_up_key_ids_ask_at_most_every_ten_seconds(published: Published, source: Any) -> None:
    published.says(jwks(Issuer()))
    keys, steady, _ = await source()
    for round in range(1, 4):
        for number in range(100):
            assert await keys.find(f"made up {number}") is None
        assert published.asked == round
        steady.now += APART_SECONDS


async def test_s07_a_new_key_is_found_by_the_first_token_that_names_it(
    published: Published, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "APART_SECONDS", 0.0)
    old, new = Issuer(), Issuer(kid="key-2", number=1)
    published.says(jwks(old))
    verifier = authenticator(replace(settings, auth=old.auth(published.url)), engine)
    await verifier.open()
    assert (await verifier.authenticate(f"Bearer {old.token()}")).principal.id == "ana"
    published.says(jwks(old, new))
    assert (await verifier.authenticate(f"Bearer {new.token('ben')}")).principal.id == "ben"
    assert (await verifier.authenticate(f"Bearer {old.token()}")).principal.id == "ana"
    await verifier.close()


@pytest.mark.parametrize("what", ["taken away", "given another key"])
async def test_s07_a_token_at_hand_falls_with_its_key(
    what: str, published: Published, settings: Settings, engine: Engine
) -> None:
    old, other = Issuer(), Issuer(kid="key-2", number=1)
    published.says(jwks(old, other))
    steady = Steady()
    source = PublishedKeys(fetch_of(published.url), "ES", None, steady)
    verifier: Any = authenticator(replace(settings, auth=old.auth(published.url)), engine)
    verifier._keys = source
    await verifier.open()
    token = f"Bearer {old.token()}"
    await verifier.authenticate(token)
    await source.refresh()
    assert len(verifier._known) == 1
    assert source.generation == 0  # the same keys again change nothing
    published.says(jwks(other) if what == "taken away" else jwks(other, Issuer(number=2)))
    await source.refresh()
    with pytest.raises(UnauthenticatedError):
        await verifier.authenticate(token)
    assert (await verifier.authenticate(f"Bearer {other.token()}")).principal.id == "ana"
    await verifier.close()


async def test_s07_keys_whose_source_is_silent_hold_for_a_day(published: Published, source: Any) -> None:
    published.says(jwks(Issuer()))
    keys, steady, watcher = await source()
    published.answer = published.gone
    for _ in range(23):
        steady.now += 3_600
        await keys.refresh()
        assert await keys.find("key-1") is not None
        with pytest.raises(UnavailableError):
            await keys.find("key-2")  # it may be a new one: nobody can tell
    assert len(watcher.failures) >= 23
    assert keys.generation == 0
    steady.now += 3_601
    assert steady.now - 1_000 > KEEP_SECONDS
    await keys.refresh()
    with pytest.raises(UnavailableError):
        await keys.find("key-1")
    assert keys.generation == 1
    published.says(jwks(Issuer()))
    await keys.refresh()
    assert await keys.find("key-1") is not None
    assert await keys.find("key-2") is None


@pytest.mark.parametrize("answer", [b"", b"<html>", b'{"keys": 7}', b'{"keys": [], "keys": []}'])
async def test_s07_an_answer_that_is_no_key_set_leaves_the_keys_as_they_are(
    answer: bytes, published: Published, source: Any
) -> None:
    published.says(jwks(Issuer()))
    keys, _, watcher = await source()
    published.says(answer)
    await keys.refresh()
    assert await keys.find("key-1") is not None
    assert [what for what, _ in watcher.failures] == ["keys"]


async def test_an_issuer_that_takes_all_keys_back_is_believed(published: Published, source: Any) -> None:
    published.says(jwks(Issuer()))
    keys, _, _ = await source()
    published.says({"keys": []})
    await keys.refresh()
    assert await keys.find("key-1") is None


async def test_an_issuer_that_does_not_answer_yet_keeps_nobody_from_starting(
    published: Published, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "APART_SECONDS", 0.0)
    issuer, watcher = Issuer(), Watcher()
    verifier = authenticator(replace(settings, auth=issuer.auth(published.url)), engine, observer=watcher)
    await verifier.open()
    with pytest.raises(UnavailableError) as caught:
        await verifier.authenticate(f"Bearer {issuer.token()}")
    assert caught.value.code == "unavailable"
    assert watcher.failures
    published.says(jwks(issuer))
    assert (await verifier.authenticate(f"Bearer {issuer.token()}")).principal.id == "ana"
    await verifier.close()


async def test_the_keys_are_asked_for_again_and_again(published: Published, source: Any) -> None:
    published.says(jwks(Issuer()))
    keys, _, _ = await source()
    await keys.close()
    again = fetch_of(published.url)
    assert again.every == 600
    again.every = 0.01
    watched = PublishedKeys(again, "ES")
    await watched.open()
    published.says(jwks(Issuer(kid="key-2", number=1)))
    while await watched.find("key-2") is None:
        await asyncio.sleep(0.01)
    assert await watched.find("key-1") is None
    await watched.close()


@pytest.mark.parametrize("family", ["RS", "ES", "EdDSA"])
async def test_a_set_without_one_key_that_fits_is_a_mistake_in_the_settings(family: str, published: Published) -> None:
    other = Issuer("EdDSA" if family == "ES" else "ES")
    published.says(jwks(other))
    keys = PublishedKeys(fetch_of(published.url), family)
    with pytest.raises(ConfigurationError, match=f"no public key.* for the {family} family"):
        await keys.open()
    await keys.close()


# -- keys in a file ----------------------------------------------------------------------------------------------------


async def test_s07_a_key_file_that_changes_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyFile, "every", 0.01)
    path = tmp_path / "keys of the issuer.json"
    keys = PublishedKeys(fetch_of(Issuer().publish(path)), "ES")
    await keys.open()
    assert await keys.find("key-1") is not None
    path.write_bytes(b'{"keys": [')  # half of it is there
    await keys.refresh()
    assert await keys.find("key-1") is not None
    Issuer(kid="key-2", number=1).publish(path)
    while keys._pick("key-2") is None:
        await asyncio.sleep(0.01)
    assert await keys.find("key-1") is None
    path.unlink()
    await keys.refresh()
    assert await keys.find("key-2") is not None
    await keys.close()


async def test_s07_a_key_file_that_cannot_be_read_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    wrong = [tmp_path / name for name in ("missing", "folder", "large", "empty", "text", "pipe")]
    wrong[1].mkdir()
    wrong[2].write_bytes(b" " * (MOST_BYTES + 1))
    wrong[3].touch()
    wrong[4].write_bytes(b"-----BEGIN PUBLIC KEY-----")
    os.mkfifo(wrong[5])
    for path in wrong:
        keys = PublishedKeys(fetch_of(path.as_uri()), "ES")
        with pytest.raises(ConfigurationError, match=r"auth\.keys cannot be read"):
            await asyncio.wait_for(keys.open(), 60)
        await keys.close()


# -- the same with sources that are broken on purpose ------------------------------------------------------------------


class GoesWhereItIsSent(KeyAddress):
    """Follows redirects and unpacks what is packed, as a browser would."""

    async def __call__(self) -> bytes:
        async with httpx2.AsyncClient(follow_redirects=True, trust_env=False) as client:
            return (await client.get(self._url)).content


async def test_s07_an_address_that_follows_redirects_and_unpacks_is_caught(publishes: Any) -> None:
    ours, theirs = await publishes(), await publishes()
    theirs.says(gzip.compress(b" " * 10_000_000), "Content-Encoding: gzip")
    ours.says(b"", f"Location: {theirs.url}", status="302 Found")
    assert len(await GoesWhereItIsSent(ours.url)()) > MOST_BYTES
    assert (ours.asked, theirs.asked) == (1, 1)


class AsksWheneverItDoesNotKnow(PublishedKeys):
    async def find(self, kid: str | None) -> Any:
        if self._pick(kid) is None:
            await self._ask()
        return self._pick(kid)


async def test_s07_a_source_that_made_up_key_ids_make_ask_is_caught(published: Published) -> None:
    published.says(jwks(Issuer()))
    keys = AsksWheneverItDoesNotKnow(fetch_of(published.url), "ES", steady=Steady())
    await keys.open()
    await asyncio.gather(*(keys.find("made up") for _ in range(5)))
    assert published.asked == 6
    await keys.close()
