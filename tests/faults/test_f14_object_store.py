"""F14: the object store is slow, refuses, breaks off or answers with other bytes.

What was to be kept is never called kept, so that whoever had it keeps it; nothing is taken for an object that is not
one; the rest of the process goes on; and when the fault is over the same put succeeds. Each of these is checked by a
function that a broken store, at the end, does not pass.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

import obstore
import pytest
from msgspec.structs import replace

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError, StoreUnavailableError
from holdfast.model.access import Principal
from holdfast.settings import Settings
from holdfast.stores.cold.objects import ObjectColdStore
from holdfast.testing.objects import Answer, Asked, Fault, Gateway, ObjectServer, Rule

TIMEOUT = 1.5
SIZE = 300_000
TOLD = TIMEOUT + 2 * SIZE / 2**20 + 1
"""Seconds within which whoever asks is told: the patience set, the time of the size, and some for this machine."""
STALL = 0.1
"""Seconds that 1 % of the turns of the event loop may take longer."""

BACK = 5.0
_TURN = 0.0005
"""Seconds of a turn: so short that a few of them, late because the machine is busy, are less than 1 %."""

_number = count(1)


@pytest.fixture
async def gateway(objects: ObjectServer, credentials: None) -> AsyncIterator[Gateway]:
    async with Gateway(objects.address).listening() as gateway:
        yield gateway


def content(size: int = SIZE) -> bytes:
    return hashlib.shake_256(b"%d" % next(_number)).digest(size)


def url(gateway: Gateway) -> str:
    return gateway.url(f"holdfast/f14/{next(_number)}", timeout=str(TIMEOUT))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@asynccontextmanager
async def going_on() -> AsyncIterator[list[float]]:
    """Other work in the event loop: by how much each of its turns comes late."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(_TURN)
            late.append(time.perf_counter() - begun - _TURN)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield late
    finally:
        await asyncio.sleep(0.01)
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
    late.sort()


WRITES: dict[str, Answer | Fault] = {
    "slow": Fault(late=30),
    "500": Answer(500, b"<Error><Code>InternalError</Code></Error>"),
    "503": Answer(503, b"<Error><Code>SlowDown</Code></Error>"),
    "reset": Fault(lost=True),
}
READS: dict[str, Answer | Fault] = {
    **WRITES,
    "reset in mid-body": Fault(upto=1_000, reset=True),
    "truncated": Fault(upto=1_000),
}


def to(method: str, does: Answer | Fault) -> Callable[[Asked], Answer | Fault | None]:
    return lambda asked: does if asked.method == method else None


# -- the store -------------------------------------------------------------------------------------------------------


async def told(gateway: Gateway, does: Callable[[Asked], Answer | Fault | None], ask: Awaitable[object]) -> str:
    """What is asked fails, says so in time, and other work goes on meanwhile; how long that took."""
    gateway.rule = does
    begun = time.monotonic()
    async with going_on() as late:
        with pytest.raises(StoreUnavailableError):
            await asyncio.wait_for(ask, TOLD)
    took = time.monotonic() - begun
    gateway.heal()
    assert percentile(late, 0.99) < STALL
    return f"told after {took:.2f} s, p99 of a turn late {percentile(late, 0.99) * 1e3:.1f} ms"


async def check_put(kind: type[ObjectColdStore], gateway: Gateway, fault: str) -> str:
    """A put that fails says so in time, the loop goes on, and the same put succeeds afterwards."""
    store, data = kind.open(url(gateway)), content()
    figures = await told(gateway, to("PUT", WRITES[fault]), store.put("blobs/a", data))
    await store.put("blobs/a", data)
    assert await store.get("blobs/a") == data
    await store.close()
    return figures


async def check_get(kind: type[ObjectColdStore], gateway: Gateway, fault: str) -> str:
    """A get that fails says so in time, and is neither a part of the object nor its absence."""
    store, data = kind.open(url(gateway)), content()
    await store.put("blobs/a", data)
    figures = await told(gateway, to("GET", READS[fault]), store.get("blobs/a"))
    assert await store.get("blobs/a") == data
    await store.close()
    return figures


async def check_read_back(kind: type[ObjectColdStore], gateway: Gateway, fault: Fault) -> None:
    """What a get gives is what the server sent, whatever was put: a read-back tells other bytes apart."""
    store, data = kind.open(url(gateway)), content()
    await store.put("blobs/a", data)
    gateway.rule = to("GET", fault)
    with suppress(StoreUnavailableError):
        assert await store.get("blobs/a") != data
    gateway.heal()
    assert await store.get("blobs/a") == data
    await store.close()


@pytest.mark.parametrize("fault", WRITES)
async def test_f14_what_could_not_be_kept_is_never_called_kept(fault: str, gateway: Gateway) -> None:
    print(f"F14 put, {fault}:", await check_put(ObjectColdStore, gateway, fault))


@pytest.mark.parametrize("fault", READS)
async def test_f14_a_part_of_an_object_or_an_error_is_never_taken_for_the_object(fault: str, gateway: Gateway) -> None:
    print(f"F14 get, {fault}:", await check_get(ObjectColdStore, gateway, fault))


@pytest.mark.parametrize("fault", [Fault(wrong=True), Fault(upto=1_000, shorter=True), Fault(upto=0, shorter=True)])
async def test_f14_other_bytes_come_to_whoever_reads_back(fault: Fault, gateway: Gateway) -> None:
    await check_read_back(ObjectColdStore, gateway, fault)


async def test_f14_a_body_that_breaks_off_once_is_fetched_on_from_there(gateway: Gateway) -> None:
    store, data = ObjectColdStore.open(url(gateway)), content(3_000_000)
    await store.put("blobs/a", data)
    once = [Fault(upto=1_000_000, reset=True)]
    gateway.rule = lambda asked: once.pop() if asked.method == "GET" and once else None
    assert await store.get("blobs/a") == data
    ranges = [asked.headers.get("range") for asked in gateway.asked if asked.method == "GET"]
    assert len(ranges) == 2
    assert ranges[0] is None
    assert ranges[1] is not None
    await store.close()


async def test_f14_a_large_object_whose_part_is_refused_is_not_kept_and_goes_through_later(gateway: Gateway) -> None:
    store, data = ObjectColdStore.open(url(gateway)), content(20_000_000)
    rules: tuple[Rule, ...] = (
        lambda asked: WRITES["503"] if "partNumber=2" in asked.target else None,
        lambda asked: WRITES["500"] if asked.method == "POST" and "uploadId=" in asked.target else None,
        lambda asked: WRITES["reset"] if asked.method == "PUT" and "/blobs/a?partNumber" in asked.target else None,
    )
    for rule in rules:
        gateway.rule = rule
        with pytest.raises(StoreUnavailableError):
            await store.put("blobs/a", data)
        gateway.heal()
        assert await store.get("blobs/a") is None
    async with going_on() as late:
        await store.put("blobs/a", data)
        assert await store.get("blobs/a") == data
    assert percentile(late, 0.99) < STALL
    await store.close()


async def test_f14_a_large_object_whose_last_answer_was_lost_is_found_by_the_same_put(gateway: Gateway) -> None:
    store, data = ObjectColdStore.open(url(gateway)), content(20_000_000)
    gateway.rule = lambda asked: (
        Fault(lost=True) if asked.method == "POST" and "/blobs/a?uploadId=" in asked.target else None
    )
    with suppress(StoreUnavailableError):  # it may well find out by itself
        await store.put("blobs/a", data)
    gateway.heal()
    await store.put("blobs/a", data)
    assert await store.get("blobs/a") == data
    await store.close()


# -- the engine ------------------------------------------------------------------------------------------------------

ANA = Principal("ana")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
TEXT = b"# Scope\n\n" + b"What is in it and what is not. " * 40


async def renames(engine: Engine, session: str, number: int) -> list[float]:
    """How long each of a row of writes took."""
    took = []
    for step in range(number):
        begun = time.perf_counter()
        await engine.rename(session, ANA, title=f"title {step}")
        took.append(time.perf_counter() - begun)
    return took


async def is_refused(engine: Engine, number: int) -> bool:
    try:
        await engine.ingest(ANA, TEXT + b"%d" % number, "a.md", change_id=f"in-{number}")
    except StoreUnavailableError:
        return True
    return False


@pytest.mark.parametrize("fault", WRITES)
async def test_f14_while_sources_cannot_be_kept_other_sessions_are_edited_as_before(
    fault: str, gateway: Gateway, settings: Settings
) -> None:
    async with open_engine(replace(settings, cold=url(gateway))) as engine:
        session = str((await engine.ingest(ANA, TEXT, "a.md")).id)
        quiet = await renames(engine, session, 300)
        gateway.rule = to("PUT", WRITES[fault])
        failing = [asyncio.create_task(is_refused(engine, number)) for number in range(20)]
        meanwhile = await renames(engine, session, 300)
        assert all(await asyncio.gather(*failing))
        gateway.heal()
        print(f"F14 writes, {fault}: p99 {percentile(quiet, 0.99) * 1e3:.1f} ms in quiet,", end=" ")
        print(f"{percentile(meanwhile, 0.99) * 1e3:.1f} ms beside 20 sources that cannot be kept")
        assert percentile(meanwhile, 0.99) < percentile(quiet, 0.99) + STALL
        until = time.monotonic() + BACK
        for number in range(20):
            while await is_refused(engine, number):  # for as long as the breaker gives the store a rest
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
        assert len((await engine.find(ANA)).headers) == 21


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(wrong=True), "tampered"),
        (Fault(upto=100, shorter=True), "tampered"),
        (Answer(404), "store-unavailable"),
        (Answer(500), "store-unavailable"),
        (Answer(404, b"<Error><Code>NoSuchKey</Code></Error>"), "blob-not-found"),
    ],
)
async def test_f14_wrong_unavailable_and_absent_are_three_answers(
    fault: Fault | Answer, code: str, gateway: Gateway, settings: Settings
) -> None:
    async with open_engine(replace(settings, cold=url(gateway))) as engine:
        await engine.ingest(ANA, TEXT, "a.md")
        gateway.rule = to("GET", fault)
        (found,) = [verified async for verified in engine.verify(ROOT) if not verified.ok]
        assert [problem.code for problem in found.problems] == [code]
        gateway.heal()
        assert all([verified.ok async for verified in engine.verify(ROOT)])


# -- teeth -----------------------------------------------------------------------------------------------------------


class Patient(ObjectColdStore):
    """Waits for as long as it takes."""

    def _within(self, size: int) -> asyncio.Timeout:
        return asyncio.timeout(None)


class CallsItKept(ObjectColdStore):
    """Takes an error for success."""

    async def put(self, key: str, data: bytes) -> None:
        with suppress(StoreUnavailableError):
            await super().put(key, data)


class TakesErrorsForAbsence(ObjectColdStore):
    """Takes whatever is no object for there being none."""

    async def get(self, key: str) -> bytes | None:
        try:
            return await super().get(key)
        except StoreUnavailableError:
            return None


class TakesWhatCame(ObjectColdStore):
    """Gives as much of an object as has come."""

    async def _read(self, key: str) -> bytes | None:
        came = bytearray()
        found = await obstore.get_async(self._store, key)
        with suppress(obstore.exceptions.BaseError, OSError):
            async for piece in found.stream(min_chunk_size=1):
                came += piece
        return bytes(came)


class Remembers(ObjectColdStore):
    """Gives back what it was given, whatever the server has."""

    async def put(self, key: str, data: bytes) -> None:
        await super().put(key, data)
        self._given = data

    async def get(self, key: str) -> bytes | None:
        return self._given


class NeverAgain(ObjectColdStore):
    """Remembers a failure, and does not try again."""

    _failed: StoreUnavailableError | None = None

    async def put(self, key: str, data: bytes) -> None:
        if self._failed:
            raise self._failed
        try:
            await super().put(key, data)
        except StoreUnavailableError as error:
            self._failed = error
            raise


class HoldsTheLoop(ObjectColdStore):
    """Waits in the event loop itself, at every step."""

    async def get(self, key: str) -> bytes | None:
        await self._hold()
        return await super().get(key)

    async def put(self, key: str, data: bytes) -> None:
        await self._hold()
        await super().put(key, data)

    async def _hold(self) -> None:
        for _ in range(10):
            time.sleep(1.2 * STALL)
            await asyncio.sleep(0)
            await asyncio.sleep(_TURN)


@pytest.mark.parametrize(
    ("broken", "verb", "faults"),
    [
        (Patient, check_put, ["slow"]),
        (Patient, check_get, ["slow"]),
        (CallsItKept, check_put, list(WRITES)),
        (TakesErrorsForAbsence, check_get, list(READS)),
        (TakesWhatCame, check_get, ["reset in mid-body", "truncated"]),
        (NeverAgain, check_put, list(WRITES)),
        (HoldsTheLoop, check_put, ["503"]),
        (HoldsTheLoop, check_get, ["503"]),
    ],
)
async def test_teeth_a_broken_store_fails_the_checks(
    broken: type[ObjectColdStore],
    verb: Callable[[type[ObjectColdStore], Gateway, str], Awaitable[str]],
    faults: list[str],
    gateway: Gateway,
) -> None:
    for fault in faults:
        with pytest.raises((AssertionError, pytest.fail.Exception, TimeoutError, HoldfastError)):
            await verb(broken, gateway, fault)
        gateway.heal()


async def test_teeth_a_store_that_reads_nothing_back_finds_no_other_bytes(gateway: Gateway) -> None:
    with pytest.raises(AssertionError):
        await check_read_back(Remembers, gateway, Fault(wrong=True))
