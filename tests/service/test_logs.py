"""The lines: one an event, S12 and S16 (no content, no token, no query in any of them), S24 (no line can be forged)."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import select
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.errors import StoreUnavailableError
from holdfast.model.access import Principal, Role
from holdfast.model.retention import Retention
from holdfast.model.session import LIFECYCLE, Header, Status
from holdfast.ports.observer import CLOSED, OPENED, PROBING
from holdfast.service.logs import EVENTS, REQUEST, UPDATED, Logs, outline
from holdfast.settings import Settings
from holdfast.testing.clock import START, ManualClock

ANA, BEN = Principal("ana", "acme"), Principal("ben", "acme")
ADMIN = Principal("ada", "acme", frozenset({"admin", "operator"}))
ITEMS = [("chunks/1", {"text": "one"}), ("chunks/2", {"text": "two"})]


class Written(io.BytesIO):
    """What was written, byte by byte and line by line."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


@pytest.fixture
def written() -> Written:
    return Written()


@asynccontextmanager
async def told(settings: Settings, clock: ManualClock, written: Written, level: str = "info") -> AsyncIterator[Engine]:
    async with open_engine(settings, clock=clock, observer=Logs(level, written)) as engine:
        yield engine


async def made(engine: Engine, **more: Any) -> str:
    return (await engine.create(ANA, kind="knowledge", title="t", items=ITEMS, **more)).header.id


def header(**other: Any) -> Header:
    plain = Header("s1", "acme", "knowledge", 1, "ana", Status.DRAFT, START, START)
    return replace(plain, **other)


# -- the events --------------------------------------------------------------------------------------------------------


def test_every_step_of_a_sessions_life_has_an_event_of_its_own() -> None:
    assert LIFECYCLE.keys() - EVENTS.keys() == {"edit"}
    assert len(set(EVENTS.values()) | {UPDATED}) == len(EVENTS) + 1
    for word in ("created", "locked", "unlocked", "published", "discarded", "expired"):
        assert f"session_{word}" in EVENTS.values()


async def test_each_verb_that_lands_is_one_line_with_its_event(
    settings: Settings, clock: ManualClock, written: Written
) -> None:
    async with told(settings, clock, written, "debug") as engine:
        session = await made(engine)
        async with engine.edit(session, ANA, expected=1) as draft:
            draft.put("chunks/1", {"text": "more"})
        await engine.undo(session, ANA, expected=2)
        await engine.redo(session, ANA, expected=3)
        await engine.operate(session, ANA, "disable", {"keys": ["chunks/2"]}, expected=4)
        await engine.restore(session, ANA, 1, expected=5)
        await engine.label(session, ANA, "first")
        await engine.rename(session, ANA, "another")
        await engine.grant(session, ANA, "ben", Role.EDITOR)
        lease = await engine.lease(session, BEN, "tab")
        lease = await engine.renew(lease, BEN)
        await engine.release(lease, BEN)
        await engine.touch(session, ANA)
        await engine.extend(session, ANA, seconds=3_600)
        await engine.preview(session, ANA)
        await engine.take_over(session, ADMIN)
        await engine.unlock(session, ADMIN)
        await engine.publish(session, ANA, seal=(await engine.preview(session, ANA)).seal)
        await engine.rollback(session, ANA)
        other = await made(engine, retention=Retention(ttl=100))
        await engine.discard(other, ANA)
        await engine.revive(other, ANA)
        for _ in range(3):
            clock.advance(95)
            await engine.sweep(ADMIN)
        clock.advance(settings.grace * 2)
        await engine.sweep(ADMIN)
        await engine.read(session, ANA)  # reads are no events
    assert (
        written.events()
        == [
            "session_created",
            *["session_updated"] * 5,
            "session_labelled",
            "session_renamed",
            "session_granted",
            "lease_taken",
            "lease_renewed",
            "lease_released",
            "session_touched",
            "session_extended",
            "session_locked",
            "session_labelled",
            "session_taken_over",
            "session_unlocked",
            "session_locked",
            "session_publishing",
            "session_published",
            "session_rolled_back",
            "session_created",
            "session_discarded",
            "session_revived",
            "session_warned",
            "session_expired",
            "session_purged",
        ]
        or written.events()
    )
    by = [line["operation"] for line in written.lines if line["event"] == UPDATED]
    assert by == ["edit", "undo", "redo", "disable", "restore"]
    line = written.lines[1]
    assert (line["session"], line["kind"], line["tenant"], line["actor"]) == (session, "knowledge", "acme", "ana")
    assert (line["version"], line["step"], line["level"]) == (2, 2, "info")
    quiet = {line["event"] for line in written.lines if line["level"] == "debug"}
    assert quiet == {"session_touched", "lease_renewed"}


async def test_what_is_refused_or_sent_again_is_no_event(
    settings: Settings, clock: ManualClock, written: Written
) -> None:
    async with told(settings, clock, written) as engine:
        session = await made(engine, change_id="c1")
        assert await made(engine, change_id="c1") == session
        for _ in range(2):
            async with engine.edit(session, ANA, expected=1, change_id="c2") as draft:
                draft.put("chunks/1", {"text": "more"})
        with pytest.raises(Exception, match="is at version 2"):
            await engine.undo(session, ANA, expected=1)
        with pytest.raises(Exception, match="There is no session"):
            await engine.touch(session, Principal("eve", "other"))
    assert written.events() == ["session_created", "session_updated"]


async def test_a_line_names_the_request_it_came_from(settings: Settings, clock: ManualClock, written: Written) -> None:
    async with told(settings, clock, written) as engine:
        token = REQUEST.set("r-17")
        session = await made(engine)
        REQUEST.reset(token)
        await engine.discard(session, ANA)
    assert [line.get("request") for line in written.lines] == ["r-17", None]


async def test_the_level_says_what_is_written(settings: Settings, clock: ManualClock) -> None:
    for level, count in {"debug": 2, "info": 1, "warning": 0, "error": 0}.items():
        written = Written()
        async with told(settings, clock, written, level) as engine:
            await engine.touch(await made(engine), ANA)
        assert len(written.lines) == count


async def test_a_session_the_sweeper_cannot_read_is_told_of(settings: Settings, written: Written) -> None:
    quick = replace(settings, sweep=0.01, retention=Retention(ttl=0.001), grace=1_000)
    async with open_engine(settings) as engine:
        session = (await engine.create(ANA, kind="knowledge", items=ITEMS, retention=Retention(ttl=0.001))).id
    connection = apsw.Connection(str(settings.home / "holdfast.sqlite"))
    connection.execute("UPDATE session SET sealed = zeroblob(200)")
    connection.close()
    async with open_engine(quick, observer=Logs("info", written), sweeping=True):
        await until(lambda: bool(written.lines))
    line = written.lines[0]
    assert (line["event"], line["level"]) == ("sweep_failed", "warning")
    assert (line["session"], line["code"]) == (session, "tampered")


async def test_a_round_of_the_sweeper_that_fails_as_a_whole_is_told_of(settings: Settings, written: Written) -> None:
    class Failing:
        def __init__(self, store: Any) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def due(self, **_: Any) -> list[str]:
            raise StoreUnavailableError("hot", "busy")

    quick = replace(settings, sweep=0.01)
    async with open_engine(quick, observer=Logs("info", written), sweeping=True, wrap=Failing):
        await until(lambda: len(written.lines) > 2)  # and it goes on
    assert {(line["event"], line["code"]) for line in written.lines} == {("sweep_failed", "store-unavailable")}


async def until(happened: Any) -> None:
    import asyncio

    async with asyncio.timeout(20):
        while not happened():
            await asyncio.sleep(0.01)


def test_a_store_that_takes_long_is_told_of(written: Written) -> None:
    logs = Logs("info", written)
    logs.stored("hot", "write", 0.9)
    logs.stored("hot", "write", 1.5)
    assert [(line["event"], line["tier"], line["operation"], line["seconds"]) for line in written.lines] == [
        ("store_slow", "hot", "write", 1.5)
    ]


def test_an_outage_of_a_store_is_two_lines_however_often_it_is_tried(written: Written) -> None:
    logs = Logs("info", written)
    logs.broke("warm", CLOSED)
    logs.broke("hot", CLOSED)
    for _ in range(2):
        logs.broke("hot", OPENED)
        for _ in range(50):
            logs.broke("hot", PROBING)
            logs.broke("hot", OPENED)
        logs.broke("hot", PROBING)
        logs.broke("hot", CLOSED)
    told = [(line["event"], line["level"], line["tier"]) for line in written.lines]
    assert told == [("breaker_opened", "warning", "hot"), ("breaker_closed", "info", "hot")] * 2


def test_each_try_of_a_store_that_is_down_is_told_to_whoever_debugs(written: Written) -> None:
    logs = Logs("debug", written)
    for state in (OPENED, PROBING, OPENED, PROBING, CLOSED):
        logs.broke("hot", state)
    assert written.events() == ["breaker_opened", *["breaker_tried"] * 3, "breaker_closed"]
    assert [line.get("state") for line in written.lines] == [None, PROBING, OPENED, PROBING, None]


# -- S12, S16: what is never in a line ---------------------------------------------------------------------------------


async def test_s16_no_content_of_any_kind_is_in_any_line(
    settings: Settings, clock: ManualClock, written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [f"canary{number:02}x" for number in range(12)]
    title, text, key, value, label, source, name, change, group, target, holder, query = words
    async with told(settings, clock, written, "debug") as engine:
        items = [(f"chunks/{key}", {"text": text, "metadata": {value: value}})]
        session = (
            await engine.create(ANA, kind="knowledge", title=title, items=items, target=target, change_id=change)
        ).id
        await engine.ingest(ANA, f"# {source}\n\n{source}\n".encode(), f"{name}.md")
        async with engine.edit(session, ANA, expected=1, change_id=change + "2", group=group) as draft:
            draft.put(f"chunks/{key}", {"text": text * 2})
        await engine.operate(session, ANA, "insert", {"text": text}, expected=2)
        await engine.label(session, ANA, label)
        await engine.rename(session, ANA, title * 2)
        await engine.release(await engine.lease(session, ANA, holder), ANA)
        await engine.find(ANA, text=query)
        await engine.search(ANA, query)
        with pytest.raises(ValueError, match="Expected `str`"):
            await engine.operate(session, ANA, "edit", {"key": f"chunks/{key}", "text": 7}, expected=3)
        await engine.publish(session, ANA, seal=(await engine.preview(session, ANA)).seal)
    said = written.getvalue().decode() + "".join(capfd.readouterr())
    assert len(written.lines) > 10
    assert [word for word in words if word in said] == []


def test_s16_a_value_of_any_other_kind_is_told_by_its_type(written: Written) -> None:
    log = Logs("info", written)
    log.event("odd", a={"text": "secret"}, b=b"secret", c=ValueError("secret"), d={"secret"}, e=["x", b"secret"])
    assert b"secret" not in written.getvalue()
    (line,) = written.lines
    assert (line["a"], line["b"], line["c"], line["e"]) == ("<dict>", "<bytes>", "<ValueError>", ["x", "<bytes>"])


# -- S24: lines cannot be forged ---------------------------------------------------------------------------------------

NASTY = [
    'x","event":"session_published',
    "x\n{}",
    'x\r\n{"event":"forged"}',
    "\x1b[2J\x1b]0;x\x07",
    "\x9b31m",
    "\u2028\u2029\x85",
    "\u202e drow",
    "\ud800",
    "\0",
    "\x7f",
    "x" * 100_000,
    "\x01" * 100_000,
    "\U0001f600" * 1_000,
]


@pytest.mark.parametrize("word", NASTY, ids=[f"nasty{number}" for number in range(len(NASTY))])
def test_s24_whatever_a_name_holds_it_stays_in_its_place(word: str, written: Written) -> None:
    logs = Logs("info", written)
    logs.appended(header(tenant=word, id=word, kind=word), "edit", word, START)
    logs.failed("sweep", word, word)
    check(written, 2)


@given(st.lists(st.text(st.characters(codec=None, exclude_categories=()), max_size=400), max_size=12))
@example_settings(max_examples=200, deadline=None)
def test_s24_no_text_makes_another_line_or_a_control_character(words: list[str]) -> None:
    written = Written()
    logs = Logs("info", written)
    logs.event("told", **{f"f{number}": word for number, word in enumerate(words)}, all=words)
    check(written, 1)


def check(written: Written, count: int) -> None:
    raw = written.getvalue()
    assert raw.count(b"\n") == len(raw.splitlines()) == count
    for line in raw.splitlines():
        assert len(line) < 4_096
        assert line.decode().isprintable()
        assert json.loads(line).keys() >= {"at", "level", "event"}


def test_s24_teeth_a_plain_line_can_be_forged() -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "actor=%s", ('x\r\n{"event":"forged"}',), None)
    assert len(logging.Formatter().format(record).splitlines()) == 2


# -- exceptions --------------------------------------------------------------------------------------------------------


def test_s24_an_exception_is_told_by_its_type_and_its_way() -> None:
    def deep() -> None:
        secret = "canary"
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise ValueError(secret) from error

    with pytest.raises(ValueError, match="canary") as caught:
        deep()
    told = outline(caught.value)
    assert told["error"] == "ValueError"
    assert told["trace"][-1].split()[1].endswith("deep")
    assert [cause.split()[0] for cause in told["causes"]] == ["KeyError"]
    assert "canary" not in str(told)
    assert "/" not in str(told)  # no path of the machine


def test_an_exception_that_was_to_hide_its_context_hides_it() -> None:
    def hide() -> None:
        try:
            raise KeyError
        except KeyError:
            raise ValueError("x") from None

    with pytest.raises(ValueError, match="x") as caught:
        hide()
    assert "causes" not in outline(caught.value)


def test_a_ring_of_causes_comes_to_an_end() -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert len(outline(one)["causes"]) == 1


def test_a_long_trace_is_cut_and_keeps_where_it_came_from(written: Written) -> None:
    def deeper(depth: int) -> None:
        if depth == 0:
            raise ValueError
        deeper(depth - 1)

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        deeper(200)
    logs = Logs("info", written)
    logs.crashed(caught.value)
    logs.event("crashed", trace=["x" * 300] * 30, **{f"f{number}": "y" * 300 for number in range(9)})
    assert all(len(line) < 4_096 for line in written.getvalue().splitlines())
    assert written.lines[0]["trace"][-1].split()[1].endswith("deeper")
    assert written.lines[1]["cut"] is True


# -- where lines go ----------------------------------------------------------------------------------------------------


def test_a_reader_that_has_stopped_is_not_waited_for_and_hears_later_what_was_lost() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        logs = Logs("info", writer)
        for number in range(2_000):
            logs.event("told", number=number, filler="x" * 200)
        assert not select.select([], [writer], [], 0)[1]  # a plain write would wait here
        first = os.read(reader.fileno(), 1_000_000)
        logs.event("told", number=-1)
        last = os.read(reader.fileno(), 1_000_000)
    kept = [json.loads(line) for line in first.splitlines()]
    assert [line["number"] for line in kept] == list(range(len(kept)))
    (line,) = [json.loads(line) for line in last.splitlines()]
    assert (line["number"], line["dropped"]) == (-1, 2_000 - len(kept))
    assert 0 < len(kept) < 2_000


def test_a_reader_that_is_gone_or_a_stream_that_is_closed_does_no_harm(written: Written) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as writer:
        logs = Logs("info", writer)
        os.close(reading)
        logs.event("told")
    logs.event("told")
    closed = Logs("info", written)
    written.close()
    closed.event("told")


def test_lines_of_several_threads_do_not_mix(tmp_path: Any) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        logs = Logs("info", file)

        def write(name: int) -> None:
            for number in range(300):
                logs.event("told", thread=name, number=number, filler="x" * 150)

        threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert sorted((line["thread"], line["number"]) for line in lines) == [(t, n) for t in range(4) for n in range(300)]


def test_a_person_at_a_terminal_gets_columns_and_no_control_character_of_anybody_elses() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "wb", buffering=0) as terminal:
        Logs("info", terminal).event("told", tenant="a\x1b[2Jb", number=7)
        shown = os.read(screen.fileno(), 10_000).decode()
    assert "told" in shown
    assert "\x1b[2J" not in shown
    assert "\\u001b[2J" in shown
    assert shown.count("\n") == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(shown)


# -- what libraries log ------------------------------------------------------------------------------------------------


@pytest.fixture
def adopted(written: Written) -> Iterator[Written]:
    with Logs("info", written).adopting():
        yield written


def test_what_libraries_log_becomes_lines_without_what_was_put_into_them(adopted: Written) -> None:
    logging.getLogger("uvicorn.error").warning("Invalid %s received", "canary")
    logging.getLogger("asyncio").error("Task was destroyed\ntask: <Task canary>")
    logging.getLogger("some.library").error("canary %s", "canary")
    logging.getLogger("holdfast.server").warning("%d requests are cut", 3)
    logging.getLogger("some.library").info("canary")
    assert [(line["logger"], line.get("said")) for line in adopted.lines] == [
        ("uvicorn.error", "Invalid %s received"),
        ("asyncio", "Task was destroyed"),
        ("some.library", None),
        ("holdfast.server", "3 requests are cut"),
    ]
    assert [line["level"] for line in adopted.lines] == ["warning", "error", "error", "warning"]
    assert b"canary" not in adopted.getvalue()


def test_the_exception_of_a_library_is_told_without_its_message(adopted: Written) -> None:
    try:
        raise ValueError("canary")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    (line,) = adopted.lines
    assert (line["event"], line["error"], line["said"]) == ("library", "ValueError", "Exception in ASGI application")
    assert b"canary" not in adopted.getvalue()


def test_logging_is_given_back_as_it_was(written: Written) -> None:
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    own = logging.NullHandler()
    uvicorn.addHandler(own)
    before = (root.handlers[:], root.level, uvicorn.handlers[:], uvicorn.propagate)
    with Logs("info", written).adopting():
        assert root.handlers != before[0]
    assert (root.handlers[:], root.level, uvicorn.handlers[:], uvicorn.propagate) == before
    uvicorn.removeHandler(own)
