"""An upload is read whole, in memory and nowhere else. S16 (no content in clear on a disk), S20 (bounds)."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from msgspec.structs import replace
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.types import Message

from holdfast.errors import InvalidRequestError, RequestTooLargeError
from holdfast.service.form import MOST_WORD, Form, read
from holdfast.settings import Settings
from holdfast.testing.front import ANA, Front, opened
from holdfast.testing.issuer import Issuer

CANARY = b"canary-4711-of-the-tides"
MEDIA = "multipart/form-data; boundary=x"
WORDS = ("title", "kind")


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def document(value: bytes, name: str = "tides.md") -> bytes:
    return part("file", value, f'; filename="{name}"')


END = b"--x--\r\n"


def request(pieces: Iterable[bytes], media: str = MEDIA, seen: list[int] | None = None) -> Request:
    """A request whose body comes in these pieces; ``seen`` gets the length of each that is asked for."""
    coming = iter(pieces)

    async def receive() -> Message:
        piece = next(coming, None)
        if seen is not None and piece is not None:
            seen.append(len(piece))
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", media.encode())]}, receive)


# -- where it is kept -------------------------------------------------------------------------------------------------


def in_clear(*folders: Path) -> list[str]:
    """Where the canary stands: open files of this process, with a name or without one, and what is in folders."""
    found = []
    for number in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        try:
            about = os.fstat(number)
            # Read where it is open already: to open a store's file once more and close it would end its locks.
            if stat.S_ISREG(about.st_mode) and CANARY in os.pread(number, about.st_size, 0):
                found.append(f"open file {number}")
        except OSError:  # of the listing itself, or not for reading
            continue
    for folder in folders:
        search = ["grep", "-rlaF", CANARY.decode(), str(folder)]
        found += subprocess.run(search, capture_output=True, text=True, check=False).stdout.splitlines()
    return found


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files with a name would be."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


async def test_s16_an_upload_under_way_is_nowhere_on_a_disk(
    believing: Settings, issuer: Issuer, temporary: Path
) -> None:
    roomy = replace(believing, limits=replace(believing.limits, items=10_000, session_bytes=100_000_000))
    text = b"# Tides\n\n" + (CANARY + b" comes and goes.\n\n") * 60_000
    body = document(text) + END
    looks: list[list[str]] = []
    async with opened(roomy, issuer) as front:
        pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
        assert len(body) > 2 * MultiPartParser.spool_max_size
        sent: list[Message] = []

        async def receive() -> Message:
            if len(pieces) % 16 == 0:  # all that came before has been read
                looks.append(in_clear(temporary, believing.home))
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Message) -> None:
            sent.append(message)

        fields = {"host": "it", "content-type": MEDIA, "authorization": f"Bearer {front.token(ANA)}"}
        scope = {"type": "http", "method": "POST", "path": "/v1/ingest", "query_string": b"", "scheme": "http"}
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        await front.edge({**scope, "headers": headers}, receive, send)
        answer = msgspec.json.decode(b"".join(message.get("body", b"") for message in sent))
        assert sent[0]["status"] == 201, answer
        assert answer["source"]["bytes"] == len(text)
        looks.append(in_clear(temporary, believing.home))
    assert len(looks) > 2
    assert not any(looks)


async def test_s16_teeth_starlette_leaves_it_in_a_file(temporary: Path) -> None:
    looks: list[list[str]] = []

    async def stream() -> Any:
        yield document(CANARY * 100_000)
        looks.append(in_clear(temporary))
        yield END

    form = await MultiPartParser(request([]).headers, stream()).parse()
    await form.close()
    assert looks[0]


async def test_s20_an_upload_is_held_once() -> None:
    """While it is read there is no second copy, but for the piece that is coming in."""
    size, piece = 8_000_000, b"x" * 64_000

    def pieces() -> Iterable[bytes]:
        yield document(b"")[:-2]
        for _ in range(size // len(piece)):
            yield b"" + piece
        yield b"\r\n" + END

    async def peak(reading: Callable[[Request], Awaitable[Any]]) -> int:
        asked = request(pieces())
        tracemalloc.start()
        try:
            await reading(asked)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    async def ours(asked: Request) -> None:
        assert len((await read(asked, WORDS, size)).file) == size

    async def whole(asked: Request) -> None:
        assert len(bytes(bytearray(await asked.body()))) > size

    assert await peak(ours) < 1.3 * size
    assert await peak(whole) > 1.9 * size  # the measure sees a second copy


async def test_s20_nothing_is_read_beyond_what_a_field_may_have() -> None:
    for head, most in ((document(b"")[:-2], 500_000), (part("title", b"")[:-2], MOST_WORD)):
        seen: list[int] = []
        asked = request((head, *[b"x" * 10_000] * 1_000), seen=seen)
        with pytest.raises(RequestTooLargeError):
            await read(asked, WORDS, most)
        assert sum(seen) <= most + 20_000
    exact = await read(request([document(b"x" * 500_000), part("title", b"t" * MOST_WORD), END]), WORDS, 500_000)
    assert (len(exact.file), len(exact.words["title"])) == (500_000, MOST_WORD)


# -- what it holds ----------------------------------------------------------------------------------------------------


@example_settings(max_examples=300, deadline=None)
@given(
    file=st.binary(max_size=200) | st.lists(st.sampled_from([b"\r", b"\n", b"--x", b"--", b"-", b"x"])).map(b"".join),
    title=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    cuts=st.lists(st.integers(0, 400), max_size=20),
    last=st.booleans(),
)
async def test_however_it_is_cut_it_is_the_same_form(
    file: bytes, title: str | None, cuts: Sequence[int], last: bool
) -> None:
    if b"\r\n--x" in b"\r\n" + file:  # it would hold its own boundary
        file = file.replace(b"-", b"_")
    words = {} if title is None else {"title": title}
    title_part = b"" if title is None or b"--x" in title.encode() else part("title", title.encode())
    if not title_part:
        words = {}
    body = (document(file) + title_part if last else title_part + document(file)) + END
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges) if end > start]
    assert await read(request(pieces), WORDS, 1_000) == Form(file, "tides.md", words)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "too early"),
        (b"no form at all", "cannot be read"),
        (document(b"text"), "too early"),
        ((document(b"text") + END)[:-6], "too early"),
        (END, "a file is wanted"),
        (part("title", b"t") + END, "a file is wanted"),
        (part("file", b"text", "; filename*=UTF-8''tides.md") + END, "forbidden in a form"),
        (part("file", b"text") + END, "a file is wanted"),
        (document(b"a") + document(b"b") + END, "twice"),
        (document(b"a") + part("title", b"t") + part("title", b"t") + END, "twice"),
        (document(b"a") + part("owner", b"eve") + END, "no field 'owner'"),
        (document(b"a") + part("title", b"t", '; filename="t"') + END, "'title' is text"),
        (document(b"a") + part("title", b"\xff") + END, "not UTF-8"),
        (b'--x\r\nContent-Disposition: form-data; name="file"; filename="\xff"\r\n\r\na\r\n' + END, "not UTF-8"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n" + END, "which field"),
        (b"--x\r\nContent-Type: text/plain\r\n\r\na\r\n" + END, "which field"),
        (b"--x\r\nX: " + b"y" * 4_097 + b"\r\n\r\na\r\n" + END, "too long"),
        (b"--x\r\n" + b"X" * 4_097 + b": y\r\n\r\na\r\n" + END, "too long"),
        (b"--x\r\nX: " + b"y" * 10_000 + b"\r\n\r\na\r\n" + END, "cannot be read"),
        (b"--x\r\n" + b"X: y\r\n" * 1_000 + b"\r\na\r\n" + END, "cannot be read"),
    ],
)
async def test_what_is_no_such_form_is_refused(body: bytes, said: str) -> None:
    for pieces in ([body] if body else [], [body[at : at + 1] for at in range(len(body))]):
        with pytest.raises(InvalidRequestError, match=said) as refused:
            await read(request(pieces), WORDS, 1_000)
        assert "eve" not in str(refused.value)


@pytest.mark.parametrize("media", ["multipart/form-data", "multipart/form-data; boundary=", f"{MEDIA}{'y' * 300}"])
async def test_a_form_without_a_boundary_is_refused(front: Front, media: str) -> None:
    ana = await front.client(ANA)
    answer = await ana.post("/v1/ingest", content=document(b"a") + END, headers={"content-type": media})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")
    assert (await ana.get("/v1/sessions")).json()["sessions"] == []


async def test_a_document_too_long_is_refused_and_nothing_is_made(believing: Settings, issuer: Issuer) -> None:
    small = replace(believing, limits=replace(believing.limits, source_bytes=1_000))
    async with opened(small, issuer) as front:
        ana = await front.client(ANA)

        async def pieces() -> AsyncIterator[bytes]:
            yield document(b"x" * 1_001) + END

        answer = await ana.post("/v1/ingest", content=pieces(), headers={"content-type": MEDIA})
        assert (answer.status_code, answer.json()["code"]) == (413, "request-too-large")
        answer = await ana.post("/v1/ingest", content=document(b"x" * 1_000) + END, headers={"content-type": MEDIA})
        assert answer.status_code == 201
        assert len((await ana.get("/v1/sessions")).json()["sessions"]) == 1
