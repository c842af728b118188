"""What is ready together goes together, in order, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from holdfast.drivers.batches import Batches, outcome
from holdfast.errors import StoreUnavailableError


class Job(msgspec.Struct, frozen=True):
    key: str
    number: int = 0
    size: int = 1


class Sender:
    """Notes what it is sent; each batch takes a turn of the event loop, or waits to be let go."""

    def __init__(self) -> None:
        self.batches: list[list[Job]] = []
        self.go: asyncio.Event | None = None
        self.wrong: dict[str, BaseException] = {}

    async def __call__(self, batch: list[Job]) -> Mapping[str, BaseException]:
        self.batches.append(batch)
        await asyncio.sleep(0)
        if self.go is not None:
            await self.go.wait()
        return {job.key: self.wrong[job.key] for job in batch if job.key in self.wrong}


def batches_to(sender: Sender) -> Batches[Job]:
    return Batches[Job]("test", sender, most=10, room=100)


async def test_jobs_of_one_turn_are_one_batch_and_those_that_come_meanwhile_the_next() -> None:
    sender = Sender()
    batches = batches_to(sender)
    sender.go = asyncio.Event()
    first = [asyncio.create_task(batches.put(Job(f"a{n}"))) for n in range(3)]
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(batches.put(Job(f"b{n}"))) for n in range(4)]
    await asyncio.sleep(0.01)
    sender.go.set()
    await asyncio.gather(*first, *rest)
    assert [[job.key for job in batch] for batch in sender.batches] == [["a0", "a1", "a2"], ["b0", "b1", "b2", "b3"]]


async def test_jobs_of_one_key_go_one_after_the_other_in_their_order() -> None:
    sender = Sender()
    batches = batches_to(sender)
    await asyncio.gather(*(batches.put(Job("ab"[n % 2], n)) for n in range(6)))
    assert [[job.number for job in batch] for batch in sender.batches] == [[0, 1], [2, 3], [4, 5]]


async def test_a_job_does_not_overtake_one_of_its_key_that_had_no_room() -> None:
    sender = Sender()
    batches = batches_to(sender)
    sizes = [("a", 60), ("b", 60), ("c", 1), ("c", 2), ("d", 1)]
    await asyncio.gather(*(batches.put(Job(key, n, size)) for n, (key, size) in enumerate(sizes)))
    assert [[job.number for job in batch] for batch in sender.batches] == [[0, 1], [2, 4], [3]]


async def test_a_batch_has_no_more_jobs_than_it_may() -> None:
    sender = Sender()
    batches = batches_to(sender)
    await asyncio.gather(*(batches.put(Job(f"{n}")) for n in range(25)))
    assert [len(batch) for batch in sender.batches] == [10, 10, 5]


async def test_what_goes_wrong_with_one_is_told_to_that_one_alone() -> None:
    sender = Sender()
    sender.wrong["b"] = ValueError("b")
    batches = batches_to(sender)
    outcomes = await asyncio.gather(*(batches.put(Job(key)) for key in "abc"), return_exceptions=True)
    assert outcomes == [None, sender.wrong["b"], None]


async def test_what_is_raised_is_told_to_all_of_the_batch_and_the_next_one_goes_on() -> None:
    async def send(batch: list[Job]) -> Mapping[str, BaseException]:
        if batch[0].key == "a":
            raise OSError("gone")
        return {}

    batches = Batches[Job]("test", send, most=2, room=100)
    outcomes = await asyncio.gather(*(batches.put(Job(key)) for key in "abc"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError, OSError, type(None)]


async def test_who_is_cancelled_waits_for_the_outcome() -> None:
    sender = Sender()
    sender.go = asyncio.Event()
    batches = batches_to(sender)
    putting = asyncio.create_task(batches.put(Job("a")))
    await asyncio.sleep(0.01)
    putting.cancel()
    await asyncio.sleep(0.01)
    assert not putting.done()
    sender.go.set()
    with pytest.raises(asyncio.CancelledError):
        await putting


async def test_closing_waits_for_what_was_sent() -> None:
    sender = Sender()
    batches = batches_to(sender)
    putting = [asyncio.create_task(batches.put(Job("a", n))) for n in range(3)]
    await asyncio.sleep(0)
    await batches.close()
    assert all(task.done() or not task.cancelled() for task in putting)
    assert len(sender.batches) == 3
    await asyncio.gather(*putting)
    await batches.close()


def test_a_loop_that_is_torn_down_leaves_nobody_waiting() -> None:
    told: list[BaseException] = []

    async def put(batches: Batches[Job], key: str) -> None:
        try:
            await batches.put(Job(key))
        except BaseException as error:
            told.append(error)
            raise

    async def main() -> None:
        sender = Sender()
        sender.go = asyncio.Event()
        batches = batches_to(sender)
        tasks = [asyncio.create_task(put(batches, "a")) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in tasks)

    asyncio.run(main())
    assert len(told) == 3
    assert all(isinstance(error, asyncio.CancelledError | StoreUnavailableError) for error in told)


async def test_an_outcome_that_is_an_error_is_raised() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        await outcome(future)
