"""The lanes to a Redis server: what travels together, what is said of a lost reply, and whom a broken connection
touches (F06, F07, F08).

Each scenario is played on asyncio's loop and on uvloop's, which the service runs on: a lane is called by their
transports. What a lane leaves out (a broken variant of it) fails the scenario that is named beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from holdfast.drivers import redis as driver
from holdfast.drivers import redis_server as servers
from holdfast.drivers.redis import Redis
from holdfast.drivers.redis_lane import Lane, Sent
from holdfast.drivers.redis_url import RedisUrl
from holdfast.errors import StoreUnavailableError
from holdfast.testing.proxy import Proxy
from holdfast.testing.servers import RedisServer, redis_server

Scenario = Callable[[RedisServer], Coroutine[Any, Any, None]]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
TAG = b"t"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(port: int, query: str = "") -> AsyncIterator[Redis]:
    redis = await Redis.connect(RedisUrl.parse(f"redis://127.0.0.1:{port}?{query}"), name="hot")
    try:
        yield redis
    finally:
        await redis.close()


def told(server: RedisServer, section: str, field: str) -> int:
    """A number of what a server says of itself."""
    lines = server.say("INFO", section).decode().splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith(f"{field}:"))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not true():
            await asyncio.sleep(0.005)


async def gathered(*work: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


# -- what travels together ---------------------------------------------------------------------------------------------


async def one_turn_is_one_pipeline(server: RedisServer) -> None:
    async with opened(server.port) as redis:
        await redis.ask(TAG, b"SET", b"n", b"0")
        for asked_one_by_one in (False, True):
            server.say("CONFIG", "RESETSTAT")
            if asked_one_by_one:
                found = await gathered(*(redis.ask(TAG, b"INCR", b"n") for _ in range(100)))
            else:
                found = await redis.ask_all([(TAG, (b"INCR", b"n"))] * 100)
            assert len({*found}) == 100
            assert told(server, "stats", "total_reads_processed") <= 4  # with this question, and the end of the last
        assert await redis.ask(TAG, b"GET", b"n") == b"200"


async def a_lone_caller_needs_one_connection(server: RedisServer) -> None:
    before = told(server, "clients", "connected_clients")
    async with opened(server.port) as redis:
        for _ in range(50):
            await redis.ask(TAG, b"PING")
        await until(lambda: told(server, "clients", "connected_clients") <= before + 1)
    await until(lambda: told(server, "clients", "connected_clients") == before)


async def long_commands_and_long_replies_arrive_whole(server: RedisServer) -> None:
    async with opened(server.port, "timeout=10") as redis:
        values = [bytes([number]) * (number * 300_000 + 1) for number in range(8)]
        await redis.ask_all([(TAG, (b"SET", b"long:%d" % number, value)) for number, value in enumerate(values)])
        found = await redis.ask_all([(TAG, (b"GET", b"long:%d" % number)) for number in range(8)])
        assert found == values
        assert await redis.ask(TAG, b"MGET", *(b"long:%d" % number for number in range(8))) == values
        await redis.ask(TAG, b"DEL", *(b"long:%d" % number for number in range(8)))


# -- what is lost ------------------------------------------------------------------------------------------------------


async def a_lane_that_breaks_does_not_touch_others(server: RedisServer) -> None:
    async with opened(server.port, "timeout=10&lanes=2") as redis:
        waiting = []
        for name in ("a", "b"):
            waiting.append(asyncio.ensure_future(redis.ask(TAG, b"BLPOP", name.encode(), 0)))
            await until(lambda: told(server, "clients", "blocked_clients") == len(waiting))
        queued = asyncio.ensure_future(redis.ask(TAG, b"PING"))  # it waits for a lane
        await asyncio.sleep(0.05)
        clients = server.say("CLIENT", "LIST").decode().splitlines()
        first = min(int(line.split()[0][3:]) for line in clients if "cmd=blpop" in line)
        server.say("CLIENT", "KILL", "ID", str(first))
        with pytest.raises(StoreUnavailableError, match="unknown"):
            await asyncio.wait_for(asyncio.shield(waiting[0]), 2)
        assert await asyncio.wait_for(asyncio.shield(queued), 2) == b"PONG"
        assert not waiting[1].done()
        server.say("RPUSH", "b", "x")
        assert await asyncio.wait_for(waiting[1], 2) == [b"b", b"x"]


async def each_exchange_has_its_own_deadline(server: RedisServer) -> None:
    async with Proxy(*server.address).listening() as proxy, opened(proxy.port, "timeout=0.4") as redis:
        await gathered(*(redis.ask(TAG, b"ECHO", b"x" * 10_000) for _ in range(8)))  # several connections
        proxy.hole = True
        took = []

        async def timed() -> None:
            begun = time.monotonic()
            try:
                await redis.ask(TAG, b"PING")
            except StoreUnavailableError as error:
                took.append((time.monotonic() - begun, str(error)))

        asking = [asyncio.create_task(timed())]
        await asyncio.sleep(0.2)
        asking.append(asyncio.create_task(timed()))
        await asyncio.wait(asking, timeout=2)
        proxy.heal()
        await gathered(*asking)
        assert all("no reply in time" in said for _, said in took)
        assert all(0.39 <= one < 0.6 for one, _ in took)


async def a_connection_that_is_closed_while_idle_costs_nobody_an_answer(server: RedisServer) -> None:
    async with opened(server.port, "lanes=3") as redis:
        for _ in range(3):
            await gathered(*(redis.ask(TAG, b"ECHO", b"x" * 10_000) for _ in range(8)))
            server.say("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.05)
        assert await redis.ask(TAG, b"PING") == b"PONG"


async def a_server_that_became_a_replica_is_let_go(server: RedisServer) -> None:
    async with opened(server.port) as redis:
        await redis.ask(TAG, b"SET", b"k", b"1")
        generation = redis.generation
        server.say("REPLICAOF", "127.0.0.1", "1")
        try:
            with pytest.raises(StoreUnavailableError, match="ReadOnlyError"):
                await redis.ask(TAG, b"SET", b"k", b"2")
            with pytest.raises(StoreUnavailableError, match="a replica"):
                await redis.ask(TAG, b"GET", b"k")
        finally:
            server.say("REPLICAOF", "NO", "ONE")
        assert await redis.ask(TAG, b"GET", b"k") == b"1"
        assert redis.generation > generation


async def what_was_sent_is_finished_when_it_closes(server: RedisServer) -> None:
    async with opened(server.port, "timeout=10&lanes=2") as redis:
        asking = [asyncio.ensure_future(redis.ask(TAG, b"ECHO", b"x" * 5_000)) for _ in range(50)]
        await asyncio.sleep(0)
        await redis.close()
        with pytest.raises(StoreUnavailableError, match="closed"):
            await redis.ask(TAG, b"PING")
        assert await gathered(*asking) == [b"x" * 5_000] * 50


async def a_caller_that_is_cancelled_waits_for_the_outcome(server: RedisServer) -> None:
    async with opened(server.port, "timeout=10") as redis:
        asking = asyncio.ensure_future(redis.ask(TAG, b"BLPOP", b"c", 0))
        await until(lambda: told(server, "clients", "blocked_clients") == 1)
        try:
            for _ in range(2):
                asking.cancel()
                await asyncio.sleep(0.02)
                assert not asking.done()
        finally:
            server.say("RPUSH", "c", "x")
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await redis.ask(TAG, b"LLEN", b"c") == 0


# -- a server that says what it should not -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def saying(*replies: bytes) -> AsyncIterator[int]:
    """A server that says these, each to one piece of what it is sent, on any connection; gives its port."""
    left = list(replies)

    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536) and left:
                writer.write(left.pop(0))
                await writer.drain()
        writer.close()

    listening = await asyncio.start_server(taken, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await asyncio.sleep(0.01)  # its own connections end


async def a_reply_that_nobody_asked_for_is_given_to_nobody(server: RedisServer) -> None:
    async with saying(b"+one\r\n+stray\r\n", b"+two\r\n") as port, opened(port, "checks=off") as redis:
        assert await redis.ask(TAG, b"PING") == b"one"
        assert await redis.ask(TAG, b"PING") == b"two"
    async with saying(b"+one\r\n+st", b"+two\r\n") as port, opened(port, "checks=off") as redis:
        assert await redis.ask(TAG, b"PING") == b"one"
        assert await redis.ask(TAG, b"PING") == b"two"


async def a_server_that_is_loading_is_let_go(server: RedisServer) -> None:
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    for refusal in (loading, b"-NOAUTH Authentication required.\r\n", b"what is this\r\n"):
        async with saying(refusal, b"+two\r\n") as port, opened(port, "checks=off") as redis:
            with pytest.raises(StoreUnavailableError, match=r"BusyLoading|Authentication|InvalidResponse"):
                await redis.ask(TAG, b"PING")
            generation = redis.generation
            assert await redis.ask(TAG, b"PING") == b"two"
            assert redis.generation == generation + 1  # by another connection


async def replies_count_wherever_the_pieces_end(server: RedisServer) -> None:
    replies = b":1\r\n$3\r\nabc\r\n-ERR no\r\n$-1\r\n*2\r\n:1\r\n$0\r\n\r\n"
    for cut in range(1, len(replies)):

        async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: int = cut) -> None:
            await reader.readuntil(b"last\r\n")
            writer.write(replies[:cut])
            await writer.drain()
            await asyncio.sleep(0.001)
            writer.write(replies[cut:])
            await reader.read()
            writer.close()

        listening = await asyncio.start_server(taken, "127.0.0.1", 0)
        async with opened(listening.sockets[0].getsockname()[1], "checks=off&timeout=5") as redis:
            named = (b"a", b"b", b"c", b"d", b"last")
            asked = [redis._send(TAG, (b"GET", name))[0].answer() for name in named]
            found = await gathered(*asked)
        listening.close()
        assert [str(one) for one in found] == ["1", "b'abc'", "no", "None", "[1, b'']"]


SCENARIOS: list[Scenario] = [
    one_turn_is_one_pipeline,
    a_lone_caller_needs_one_connection,
    long_commands_and_long_replies_arrive_whole,
    a_lane_that_breaks_does_not_touch_others,
    each_exchange_has_its_own_deadline,
    a_connection_that_is_closed_while_idle_costs_nobody_an_answer,
    a_server_that_became_a_replica_is_let_go,
    what_was_sent_is_finished_when_it_closes,
    a_caller_that_is_cancelled_waits_for_the_outcome,
    a_reply_that_nobody_asked_for_is_given_to_nobody,
    a_server_that_is_loading_is_let_go,
    replies_count_wherever_the_pieces_end,
]


def play(scenario: Scenario, server: RedisServer, loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(scenario(server), 20))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_lane_keeps_its_promise(scenario: Scenario, loop: str, server: RedisServer) -> None:
    play(scenario, server, loop)


# -- and what leaves one out is caught ---------------------------------------------------------------------------------


class SendsOneByOne(servers.Server):
    """Each command goes by itself."""

    def send(self, sent: Sent) -> Sent:
        self._queue.append(sent)
        self._send_all()
        return sent


class TakesTheLaneThatRestedLongest(servers.Server):
    """And so all of them in turn."""

    def _carry(self, batch: list[Sent]) -> None:
        if self._room and self._idle:
            self._idle, idle = [], self._idle
            super()._carry(batch)
            self._idle += idle
        else:
            super()._carry(batch)


class IsNeverLate(servers.Server):
    def _watch(self) -> None:
        pass


class WaitsForTheLast(servers.Server):
    """One deadline for whatever is under way: it begins anew with each exchange."""

    def _carry(self, batch: list[Sent]) -> None:
        super()._carry(batch)
        for lane in self._busy:
            self._busy[lane] = self._loop.time() + self._timeout


class BreaksAll(servers.Server):
    """One lane that is lost takes the others with it."""

    def lost(self, lane: Lane, error: BaseException, *, reached: bool) -> None:
        for one in [*self._busy]:
            super().lost(one, error, reached=False)


class LeavesAtOnce(servers.Server):
    async def close(self) -> None:
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        await super().close()


class SeesNoEnd(Lane):
    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        pass


class StaysWithAReplica(Lane):
    def _settle(self, reply: Any) -> bool:
        return self._refused(reply) if isinstance(reply, Exception) else super()._settle(reply)

    def _refused(self, reply: Exception) -> bool:
        self._batch[self._at].settle(None, reply)
        self._batch = ()
        assert self._keeper is not None
        self._keeper.done(self)
        return False


class KeepsStrays(Lane):
    """What the parser has left is the reply to the next."""

    def _settle(self, reply: Any) -> bool:
        if not self._batch:
            return False
        self._batch[self._at].settle(reply)
        self._at += 1
        if self._at == len(self._batch):
            self._batch, self._at = (), 0
            assert self._keeper is not None
            self._keeper.done(self)
            return False
        return True


class GoesOnWhenCancelled(Sent):
    async def answer(self) -> Any:
        self._waiter = asyncio.get_running_loop().create_future()
        if not self._settled:
            await self._waiter
        return self._answer


@pytest.mark.parametrize(
    ("broken", "scenario"),
    [
        (SendsOneByOne, one_turn_is_one_pipeline),
        (TakesTheLaneThatRestedLongest, a_lone_caller_needs_one_connection),
        (IsNeverLate, each_exchange_has_its_own_deadline),
        (WaitsForTheLast, each_exchange_has_its_own_deadline),
        (BreaksAll, a_lane_that_breaks_does_not_touch_others),
        (LeavesAtOnce, what_was_sent_is_finished_when_it_closes),
        (SeesNoEnd, a_connection_that_is_closed_while_idle_costs_nobody_an_answer),
        (StaysWithAReplica, a_server_that_became_a_replica_is_let_go),
        (StaysWithAReplica, a_server_that_is_loading_is_let_go),
        (KeepsStrays, a_reply_that_nobody_asked_for_is_given_to_nobody),
        (GoesOnWhenCancelled, a_caller_that_is_cancelled_waits_for_the_outcome),
    ],
)
def test_teeth_what_breaks_a_promise_fails_its_scenario(
    broken: type[Any], scenario: Scenario, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sound,) = broken.__bases__
    monkeypatch.setattr(servers if sound is Lane else driver, sound.__name__, broken)
    with pytest.raises((AssertionError, pytest.fail.Exception, StoreUnavailableError, TimeoutError)):
        play(scenario, server, "asyncio")
