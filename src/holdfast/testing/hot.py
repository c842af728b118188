"""The suite for adapters of the hot tier: every sentence of ``ports/hot.py`` has its test here.

What needs a fault (a full store, one that does not answer) is an adapter's own to test.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.errors import LimitExceededError
from holdfast.model.session import SealedItem
from holdfast.testing.handles import opened
from holdfast.testing.hot_handles import Connect, Pair, build, everything, items_of
from holdfast.testing.lease import LeaseSuite
from holdfast.testing.samples import NOW, content, entry_at, head_at, later, purged, write_at

ODD = ["s", "S", "s ", "s:1", "s/1", "s*", "s?", "{s}", "[s]", "%73", "ключ", "s\n", "'", "x" * 200]
"""Ids that an adapter might mix up."""


class HotStoreSuite(LeaseSuite):
    """Subclass it and give ``connect``: called twice, it gives two handles on the same, at first empty, data."""

    # -- reading -----------------------------------------------------------------------------------------------------

    async def test_of_a_session_that_is_not_there_there_is_nothing(self, stores: Pair) -> None:
        one, _ = stores
        assert await one.head("s") is None
        assert await one.load("s") is None
        assert await one.entries("s", after=0, limit=9) == []
        assert await one.recent("s", before=9, limit=9) == []
        assert await one.at("s", [1, 2]) == {}
        assert await one.change("s", "c1") is None
        assert await one.lease("s", now=NOW) is None
        assert await one.due(now=NOW, limit=9) == []

    async def test_a_read_that_starts_after_a_write_returned_sees_that_write(self, stores: Pair) -> None:
        for step in range(1, 41):
            assert await stores[step % 2].write(write_at("s", step, items=[b"i"]), now=NOW)
            for store in stores:
                head = await store.head("s")
                assert head == head_at("s", step)
                assert await store.load("s") == (head, [SealedItem(b"i", step, content(f"{b'i'!r} {step}"))])
                assert await store.change("s", f"c{step}") == entry_at("s", step)

    @pytest.mark.parametrize(
        "fields",
        [
            {"due": 1_767_323_045.678901, "created": 0.1, "key": b""},
            {"due": 0.0, "key": None, "sealed": b""},
            {"sealed": content("long", 1_000_000), "status": "locked", "version": 0},
            {"tenant": "ténant", "owner": "o\n\U0001f600", "kind": "", "digest": bytes(range(256))},
        ],
    )
    async def test_a_head_comes_back_as_it_was_written(self, stores: Pair, fields: dict[str, Any]) -> None:
        one, other = stores
        await one.write(write_at("s", 1, **fields), now=NOW)
        assert await other.head("s") == head_at("s", 1, **fields)

    async def test_load_gives_the_header_and_every_item(self, stores: Pair) -> None:
        one, other = stores
        items = {content(f"id {number}", 16): content(f"item {number}", number) for number in range(1_000)}
        await one.write(write_at("s", 1, items=items), now=NOW)
        await one.write(write_at("t", 1, items=[b"another session's"]), now=NOW)
        loaded = await other.load("s")
        assert loaded is not None
        assert loaded[0] == head_at("s", 1)
        assert len(loaded[1]) == 1_000
        assert {item.id: (item.version, item.sealed) for item in loaded[1]} == {id: (1, it) for id, it in items.items()}

    async def test_load_is_of_one_moment(self, stores: Pair) -> None:
        one, other = stores
        names = [b"%d" % number for number in range(100)]
        await one.write(write_at("s", 1, items=names), now=NOW)

        async def write() -> None:
            for step in range(2, 42):  # all items anew, and one of them there at even steps only
                items = {name: content(f"{name!r} {step}") for name in names}
                come_and_go = {b"even": content("even") if step % 2 == 0 else None}
                assert await one.write(write_at("s", step, items=items | come_and_go), now=NOW)

        writing, seen = asyncio.ensure_future(write()), 0
        while not writing.done() or not seen:
            loaded = await other.load("s")
            assert loaded is not None
            head, items = loaded
            ids = {*names, b"even"} if head.step % 2 == 0 else set(names)
            assert {item.id for item in items} == ids
            assert {item.version for item in items} == {head.step}
            assert head == head_at("s", head.step)
            seen += 1
            await asyncio.sleep(0)
        await writing

    async def test_sessions_of_any_id_do_not_touch_each_other(self, stores: Pair) -> None:
        one, other = stores
        for number, session in enumerate(ODD):
            await one.write(write_at(session, 1, items={b"i": b"%d" % number}, due=float(number)), now=NOW)
            await one.acquire(session, f"holder {number}", seconds=30, now=NOW)
        await one.purge("s*")
        await one.trim("s:1", below=9)
        for number, session in enumerate(ODD):
            loaded, lease = await other.load(session), await other.lease(session, now=NOW)
            assert loaded is not None
            assert lease is not None
            assert lease.holder == f"holder {number}"
            assert loaded[1] == ([] if session == "s*" else [SealedItem(b"i", 1, b"%d" % number)])
            entry = purged(entry_at(session, 1)) if session == "s*" else entry_at(session, 1)
            assert await other.entries(session, after=0, limit=9) == ([] if session == "s:1" else [entry])
        assert await other.due(now=NOW, limit=99) == [session for session in ODD if session != "s*"]

    # -- writing -----------------------------------------------------------------------------------------------------

    async def test_a_write_that_expects_nothing_creates_the_session(self, stores: Pair) -> None:
        one, other = stores
        assert await one.write(write_at("s", 1, items=[b"a", b"b"]), now=NOW) is True
        assert await other.head("s") == head_at("s", 1)
        assert await items_of(other) == {b"a": 1, b"b": 1}
        assert await other.entries("s", after=0, limit=9) == [entry_at("s", 1)]

    async def test_creating_a_session_that_is_there_already_changes_nothing(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("s", 1, items=[b"a"]), now=NOW)
        before = await everything(one)
        assert await other.write(write_at("s", 1, "another", items=[b"b"], sealed=b"mine"), now=NOW) is False
        assert await other.write(write_at("s", 1, items=[b"a"]), now=NOW) is False
        assert await everything(other) == before

    async def test_a_write_is_applied_whole(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("s", 1, items=[b"stays", b"changes", b"goes"]), now=NOW)
        changed = {b"changes": b"new", b"goes": None, b"comes": b""}
        fields: dict[str, Any] = {"status": "locked", "version": 1, "due": NOW.timestamp(), "sealed": b"\0"}
        assert await other.write(write_at("s", 2, items=changed, commit=False, **fields), now=NOW) is True
        assert await one.head("s") == head_at("s", 2, **fields)
        loaded = await one.load("s")
        assert loaded is not None
        assert {item.id: (item.version, item.sealed) for item in loaded[1]} == {
            b"stays": (1, content(f"{b'stays'!r} 1")),
            b"changes": (2, b"new"),
            b"comes": (2, b""),
        }
        assert await one.entries("s", after=1, limit=9) == [entry_at("s", 2, commit=False)]
        assert await one.due(now=NOW, limit=9) == ["s"]

    async def test_an_item_without_bytes_is_removed_be_it_there_or_not(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("s", 1, items=[b"a", b"b"]), now=NOW)
        assert await one.write(write_at("s", 2, items={b"a": None, b"never": None}), now=NOW)
        assert await items_of(other) == {b"b": 1}
        assert await one.write(write_at("s", 3, items=[b"a"]), now=NOW)
        assert await items_of(other) == {b"b": 1, b"a": 3}

    @pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 900])
    async def test_a_write_that_expects_another_step_changes_nothing(self, stores: Pair, step: int) -> None:
        one, other = stores
        await build(one, 3)
        before = await everything(one)
        refused = write_at("s", step, "mine", items={b"mine": b"m", b"i": None}, due=1.0, sealed=b"mine")
        assert await other.write(refused, now=NOW) is False
        assert await everything(other) == before
        assert await other.change("s", "mine") is None
        assert await one.write(write_at("s", 4, "mine"), now=NOW) is True

    async def test_a_write_on_another_history_changes_nothing(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("s", 1), now=NOW)
        assert await one.write(write_at("s", 2, parent=b"another's", items=[b"i"]), now=NOW) is False
        assert await other.load("s") == (head_at("s", 1), [])
        assert await other.write(write_at("s", 2, parent=head_at("s", 1).digest, items=[b"i"]), now=NOW) is True
        assert await one.head("s") == head_at("s", 2)

    async def test_a_write_to_a_session_that_is_not_there_changes_nothing(self, stores: Pair) -> None:
        one, other = stores
        assert await one.write(write_at("s", 2, items=[b"a"], due=1.0), now=NOW) is False
        assert await other.load("s") is None
        assert await other.entries("s", after=0, limit=9) == []
        assert await other.due(now=NOW, limit=9) == []

    async def test_a_change_id_that_is_in_the_log_changes_nothing(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3)
        lease = await one.acquire("s", "ana", seconds=30, now=NOW)
        assert lease is not None
        before = await everything(one)
        for change in ("c1", "c3"):
            again = write_at("s", 4, change, items=[b"new"], fence=lease.fence, sealed=b"mine", due=1.0)
            assert await other.write(again, now=later(20)) is False
        assert await everything(other) == before
        assert await other.lease("s", now=NOW) == lease
        assert await other.write(write_at("t", 1, "c3"), now=NOW) is True

    async def test_the_data_key_is_stored_at_creation_only(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("s", 1, key=b"first"), now=NOW)
        await one.write(write_at("s", 2, key=b"second"), now=NOW)
        head = await other.head("s")
        assert head is not None
        assert head.key == b"first"

    async def test_what_was_written_outlives_the_store(self, connect: Connect) -> None:
        first = await opened(connect)
        await build(first, 5, due=NOW.timestamp())
        before, lease = await everything(first), await first.acquire("s", "ana", seconds=30, now=NOW)
        await first.close()
        second = await opened(connect)
        assert await everything(second) == before
        assert await second.lease("s", now=NOW) == lease
        assert await second.due(now=NOW, limit=9) == ["s"]
        await second.close()

    async def test_of_racing_writes_exactly_one_lands_at_each_step(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        for step in range(2, 12):
            racers = [f"r{step}-{number}" for number in range(16)]
            landed = await asyncio.gather(
                *(
                    stores[number % 2].write(write_at("s", step, racer, items=[racer.encode()]), now=NOW)
                    for number, racer in enumerate(racers)
                )
            )
            winners = [racer for racer, won in zip(racers, landed, strict=True) if won]
            assert len(winners) == 1
            for store in stores:
                assert await store.entries("s", after=step - 1, limit=9) == [entry_at("s", step, winners[0])]
                assert await store.head("s") == head_at("s", step)
        names = {entry.change.encode() for entry in await one.entries("s", after=1, limit=99)}
        assert set(await items_of(other)) == {b"i", *names}  # no loser left an item behind

    async def test_racing_writers_that_try_again_lose_nothing(self, stores: Pair) -> None:
        await build(stores[0], 1)
        acknowledged: dict[int, str] = {}

        async def author(number: int) -> None:
            store = stores[number % 2]
            for change in range(10):
                name, landed = f"{number}-{change}", False
                while not landed:
                    head = await store.head("s")
                    assert head is not None
                    step = head.step + 1
                    landed = await store.write(write_at("s", step, name, items=[b"%d" % number]), now=NOW)
                assert step not in acknowledged
                acknowledged[step] = name

        await asyncio.gather(*(author(number) for number in range(8)))
        assert sorted(acknowledged) == list(range(2, 82))
        log = await stores[0].entries("s", after=1, limit=999)
        assert {entry.step: entry.change for entry in log} == acknowledged

    async def test_of_racing_creations_one_makes_the_session(self, stores: Pair) -> None:
        for number in range(5):
            session, racers = f"s{number}", [f"r{racer}" for racer in range(12)]
            landed = await asyncio.gather(
                *(
                    stores[at % 2].write(write_at(session, 1, racer, items=[racer.encode()]), now=NOW)
                    for at, racer in enumerate(racers)
                )
            )
            winner = racers[landed.index(True)]
            assert landed.count(True) == 1
            assert await stores[0].entries(session, after=0, limit=9) == [entry_at(session, 1, winner)]
            assert set(await items_of(stores[1], session)) == {winner.encode()}

    async def test_the_same_write_sent_twice_at_once_lands_once(self, stores: Pair) -> None:
        await build(stores[0], 1)
        write = write_at("s", 2, items=[b"i"])
        landed = await asyncio.gather(*(stores[number % 2].write(write, now=NOW) for number in range(8)))
        assert landed.count(True) == 1
        assert await stores[1].entries("s", after=1, limit=9) == [write.entry]

    async def test_a_write_whose_caller_is_cancelled_is_awaited_to_its_outcome(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 1)
        cancelled = 0
        for round in range(30):
            before = await one.head("s")
            assert before is not None
            change = f"cancelled {round}"
            write = write_at("s", before.step + 1, change, items=[change.encode()])
            sending = asyncio.ensure_future(one.write(write, now=NOW))
            for _ in range(round % 5):
                await asyncio.sleep(0)
            sending.cancel()
            outcome = (await asyncio.gather(sending, return_exceptions=True))[0]
            after = await everything(other)
            cancelled += isinstance(outcome, asyncio.CancelledError)
            assert outcome is True or isinstance(outcome, asyncio.CancelledError)
            there = await other.change("s", change) is not None
            assert after[0].step == before.step + there
            assert (change.encode() in await items_of(other)) is there
            if outcome is True:
                assert there
            # Another write of the same handle has gone through: had the first been left on its way, it would show.
            assert await one.write(write_at(f"t{round}", 1), now=NOW)
            for _ in range(10):
                await asyncio.sleep(0)
            assert await everything(other) == after
        assert cancelled

    # -- quota -------------------------------------------------------------------------------------------------------

    async def test_a_creation_beyond_the_quota_is_refused(self, stores: Pair) -> None:
        one, other = stores
        for number in range(3):
            assert await one.write(write_at(f"s{number}", 1, quota=3), now=NOW)
        with pytest.raises(LimitExceededError) as refused:
            await other.write(write_at("s3", 1, items=[b"i"], due=1.0, quota=3), now=NOW)
        assert (refused.value.figure, refused.value.maximum) == (4, 3)
        assert await one.load("s3") is None
        assert await one.entries("s3", after=0, limit=9) == []
        assert await one.due(now=NOW, limit=9) == []
        assert await one.write(write_at("s3", 1, quota=4), now=NOW)
        assert await one.write(write_at("s4", 1), now=NOW)  # no bound was named

    async def test_only_the_owners_sessions_that_are_not_gone_count(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("another owner's", 1, owner="ben"), now=NOW)
        await one.write(write_at("another tenant's", 1, tenant="other"), now=NOW)
        for number, status in enumerate(("discarded", "expired", "published", "locked")):
            await one.write(write_at(f"s{number}", 1), now=NOW)
            await one.write(write_at(f"s{number}", 2, commit=False, status=status), now=NOW)
        assert await other.write(write_at("third", 1, quota=3), now=NOW)
        with pytest.raises(LimitExceededError):
            await other.write(write_at("fourth", 1, quota=3), now=NOW)
        await one.write(write_at("s3", 3, commit=False, status="discarded"), now=NOW)
        assert await other.write(write_at("fourth", 1, quota=3), now=NOW)

    async def test_a_quota_binds_creations_only(self, stores: Pair) -> None:
        one, _ = stores
        await one.write(write_at("s", 1), now=NOW)
        assert await one.write(write_at("s", 2, quota=0), now=NOW) is True
        assert await one.write(write_at("s", 1, quota=0), now=NOW) is False

    async def test_a_quota_is_exact_under_racing_creations(self, stores: Pair) -> None:
        outcomes = await asyncio.gather(
            *(stores[number % 2].write(write_at(f"s{number}", 1, quota=5), now=NOW) for number in range(24)),
            return_exceptions=True,
        )
        assert outcomes.count(True) == 5
        assert sum(isinstance(outcome, LimitExceededError) for outcome in outcomes) == 19
        made = [number for number in range(24) if await stores[0].head(f"s{number}") is not None]
        assert made == [number for number, outcome in enumerate(outcomes) if outcome is True]

    # -- the log -----------------------------------------------------------------------------------------------------

    async def test_entries_come_in_order_beyond_a_step_and_up_to_a_limit(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 30)
        log = [entry_at("s", step) for step in range(1, 31)]
        assert await other.entries("s", after=0, limit=99) == log
        assert await other.entries("s", after=7, limit=5) == log[7:12]
        assert await other.entries("s", after=28, limit=5) == log[28:]
        assert await other.entries("s", after=30, limit=5) == []

    async def test_recent_entries_come_newest_first_below_a_step_and_up_to_a_limit(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 30)
        log = [entry_at("s", step) for step in range(30, 0, -1)]
        assert await other.recent("s", before=31, limit=99) == log
        assert await other.recent("s", before=2**40, limit=3) == log[:3]
        assert await other.recent("s", before=12, limit=4) == log[19:23]
        assert await other.recent("s", before=1, limit=4) == []

    async def test_a_page_of_the_log_ends_with_the_entry_that_fills_its_room(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 9)
        log = [entry_at("s", step) for step in range(1, 10)]
        size = len(log[0].payload)
        assert await other.entries("s", after=0, limit=9, room=1) == log[:1]
        assert await other.entries("s", after=2, limit=9, room=2 * size) == log[2:4]
        assert await other.entries("s", after=2, limit=9, room=2 * size + 1) == log[2:5]
        assert await other.entries("s", after=2, limit=2, room=9 * size) == log[2:4]
        assert await other.recent("s", before=10, limit=9, room=1) == log[:-2:-1]
        assert await other.recent("s", before=6, limit=9, room=2 * size + 1) == log[4:1:-1]

    async def test_entries_at_some_steps_come_by_step_without_those_that_are_not_there(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 12)
        assert await other.at("s", [9, 2, 2, 13, 0, -1]) == {2: entry_at("s", 2), 9: entry_at("s", 9)}
        assert await other.at("s", []) == {}
        assert await other.at("s", range(3_000)) == {step: entry_at("s", step) for step in range(1, 13)}

    async def test_an_entry_comes_back_as_it_was_written_and_by_its_change_id(self, stores: Pair) -> None:
        one, other = stores
        odd = entry_at(
            "s", 1, "ключ \n'\"", commit=False, version=0, header=b"", payload=content("p", 300_000), digest=b"\0"
        )
        await one.write(replace(write_at("s", 1), entry=odd), now=NOW)
        assert await other.entries("s", after=0, limit=1) == [odd]
        assert await other.change("s", odd.change) == odd
        assert await other.change("s", "ключ") is None
        assert await other.change("t", odd.change) is None

    async def test_sessions_whose_logs_have_grown_are_named_from_a_mark_on(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("s", 1), now=NOW)
        mark, moved = await other.moved(None)
        assert moved == set()
        assert await other.moved(mark) == (mark, set())
        await one.write(write_at("t", 1), now=NOW)
        await other.write(write_at("s", 2), now=NOW)
        for store in stores:
            following, moved = await store.moved(mark)
            assert moved == {"s", "t"}
            assert await store.moved(following) == (following, set())

    async def test_what_is_trimmed_is_forgotten_and_no_more(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 10)
        await build(one, 3, session="t")
        kept = [entry_at("s", step) for step in range(7, 11)]
        await one.trim("s", below=7)
        assert await other.entries("s", after=0, limit=99) == kept
        assert await other.recent("s", before=99, limit=99) == kept[::-1]
        assert await other.at("s", [6, 7]) == {7: kept[0]}
        assert await other.change("s", "c6") is None
        assert await other.head("s") == head_at("s", 10)
        assert len(await other.entries("t", after=0, limit=99)) == 3
        assert await other.write(write_at("s", 11), now=NOW)
        for below in (7, 0, -5):
            await other.trim("s", below=below)
        await other.trim("never", below=9)
        assert await one.entries("s", after=0, limit=99) == [*kept, entry_at("s", 11)]

    # -- when to look ------------------------------------------------------------------------------------------------

    async def test_sessions_are_due_the_longest_first_and_none_too_early(self, stores: Pair) -> None:
        one, other = stores
        for session, seconds in {"c": -1.0, "a": -30.0, "d": 0.0, "b": -2.0, "later": 0.001}.items():
            await one.write(write_at(session, 1, due=later(seconds).timestamp()), now=NOW)
        await one.write(write_at("never", 1), now=NOW)
        assert await other.due(now=NOW, limit=99) == ["a", "b", "c", "d"]
        assert await other.due(now=NOW, limit=2) == ["a", "b"]
        assert await other.due(now=later(-31), limit=99) == []

    async def test_a_write_sets_when_its_session_is_due(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("s", 1, due=1.0), now=NOW)
        await one.write(write_at("s", 2, due=later(60).timestamp()), now=NOW)
        assert await other.due(now=NOW, limit=9) == []
        assert await other.due(now=later(60), limit=9) == ["s"]
        await one.write(write_at("s", 3), now=NOW)
        assert await other.due(now=later(60), limit=9) == []

    async def test_a_session_is_deferred_if_it_still_stands_at_the_step(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 2, due=1.0)
        for step in (1, 3, 0):
            await other.defer("s", step=step, due=None)
            await other.defer("s", step=step, due=later(60))
        assert await one.head("s") == head_at("s", 2, due=1.0)
        await other.defer("s", step=2, due=later(60))
        assert await one.due(now=later(59), limit=9) == []
        assert await one.due(now=later(60), limit=9) == ["s"]
        assert await one.head("s") == head_at("s", 2, due=later(60).timestamp())
        await other.defer("s", step=2, due=None)
        assert await one.due(now=later(10**6), limit=9) == []
        assert await one.head("s") == head_at("s", 2)
        await other.defer("never", step=0, due=NOW)
        assert await one.due(now=later(10**6), limit=9) == []

    # -- keys, purging -----------------------------------------------------------------------------------------------

    async def test_a_wrapped_key_is_replaced_if_it_is_still_the_old_one(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("s", 1, key=b"old"), now=NOW)
        await one.write(write_at("t", 1, key=b"old"), now=NOW)
        assert await other.rewrap("s", old=b"stale", new=b"new") is False
        assert await other.rewrap("never", old=b"old", new=b"new") is False
        assert await one.head("s") == head_at("s", 1, key=b"old")
        assert await other.rewrap("s", old=b"old", new=b"new") is True
        assert await one.head("s") == head_at("s", 1, key=b"new")
        assert await one.head("t") == head_at("t", 1, key=b"old")
        await one.write(write_at("s", 2, key=b"old"), now=NOW)  # its author had read the old one
        assert await one.head("s") == head_at("s", 2, key=b"new")

    async def test_a_key_that_is_destroyed_stays_so(self, stores: Pair) -> None:
        one, other = stores
        await one.write(write_at("s", 1, key=b"old"), now=NOW)
        assert await other.rewrap("s", old=b"old", new=None) is True
        await one.write(write_at("s", 2, key=b"old"), now=NOW)
        for old in (b"old", b""):
            assert await one.rewrap("s", old=old, new=b"new") is False
        assert await one.head("s") == head_at("s", 2, key=None)

    async def test_of_racing_rewraps_exactly_one_succeeds(self, stores: Pair) -> None:
        await stores[0].write(write_at("s", 1, key=b"old"), now=NOW)
        replaced = await asyncio.gather(*(stores[at % 2].rewrap("s", old=b"old", new=b"%d" % at) for at in range(12)))
        assert replaced.count(True) == 1
        assert await stores[1].head("s") == head_at("s", 1, key=b"%d" % replaced.index(True))

    async def test_a_purge_removes_the_content_and_leaves_head_and_headers(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 5, due=1.0)
        await build(one, 2, session="t", due=1.0)
        lease = await one.acquire("s", "ana", seconds=10, now=NOW)
        theirs = (await everything(one, "t"))[:3]
        for _ in range(2):  # and once more changes nothing
            await one.purge("s")
            assert await other.load("s") == (head_at("s", 5, key=None), [])
            left = [purged(entry_at("s", step)) for step in range(1, 6)]
            assert await other.entries("s", after=0, limit=9) == left
            assert await other.recent("s", before=6, limit=9) == left[::-1]
            assert await other.at("s", [3]) == {3: left[2]}
            assert await other.change("s", "c4") == left[3]
            assert await other.due(now=later(10**9), limit=9) == ["t"]
        assert (await everything(other, "t"))[:3] == theirs
        assert await other.lease("s", now=NOW) == lease

    async def test_a_session_whose_key_was_destroyed_is_purged_like_any_other(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 3, due=1.0, key=b"old")
        assert await one.rewrap("s", old=b"old", new=None) is True
        await other.purge("s")
        assert await one.load("s") == (head_at("s", 3, key=None), [])
        assert await one.entries("s", after=0, limit=9) == [purged(entry_at("s", step)) for step in range(1, 4)]

    async def test_a_purge_that_is_repeated_clears_what_is_due_again(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 2, due=1.0)
        await one.purge("s")
        await one.defer("s", step=2, due=NOW)
        await other.purge("s")
        assert await one.due(now=NOW, limit=9) == []
        assert await one.entries("s", after=0, limit=9) == [purged(entry_at("s", step)) for step in (1, 2)]

    async def test_purging_a_session_that_is_not_there_is_no_error(self, stores: Pair) -> None:
        one, other = stores
        await build(one, 2)
        before = await everything(one)
        await one.purge("never")
        assert await everything(other) == before
        assert await other.head("never") is None

    async def test_a_purge_is_one_step(self, stores: Pair) -> None:
        one, other = stores
        names = [b"%d" % number for number in range(50)]
        for number in range(8):
            await one.write(write_at(f"s{number}", 1, items=names, due=1.0), now=NOW)

        async def purge() -> None:
            for number in range(8):
                await one.purge(f"s{number}")

        purging = asyncio.ensure_future(purge())
        while not purging.done():
            for number in range(8):
                loaded = await other.load(f"s{number}")
                assert loaded is not None
                head, items = loaded
                whole, purged = (head_at(head.id, 1, due=1.0), 50), (head_at(head.id, 1, key=None), 0)
                assert (head, len(items)) in (whole, purged)
            await asyncio.sleep(0)
        await purging

    async def test_what_was_purged_is_gone_after_reopening_too(self, connect: Connect) -> None:
        first = await opened(connect)
        await build(first, 3)
        await first.purge("s")
        after = await everything(first)
        await first.close()
        second = await opened(connect)
        assert await everything(second) == after
        await second.close()

    # -- time --------------------------------------------------------------------------------------------------------

    async def test_the_epoch_of_a_boot_is_as_first_offered_and_the_same_for_all(self, stores: Pair) -> None:
        one, other = stores
        assert await one.epoch("boot", NOW) == NOW
        for offer in (later(-3600), later(3600), NOW):
            assert await other.epoch("boot", offer) == NOW
            assert await one.epoch("boot", offer) == NOW

    async def test_a_new_boot_has_no_earlier_an_epoch_than_its_offer_or_any_before(self, stores: Pair) -> None:
        one, other = stores
        await one.epoch("first", NOW)
        assert await other.epoch("clock set back", later(-86_400)) == NOW
        assert await one.epoch("on", later(60.000001)) == later(60.000001)
        assert await other.epoch("clock set back again", NOW) == later(60.000001)
        assert await other.epoch("first", later(99)) == NOW

    async def test_of_racing_offers_one_is_taken_for_all(self, stores: Pair) -> None:
        answers = await asyncio.gather(*(stores[at % 2].epoch("boot", later(at)) for at in range(12)))
        assert len(set(answers)) == 1
        assert answers[0] in [later(at) for at in range(12)]

    async def test_an_epoch_outlives_the_store(self, connect: Connect) -> None:
        first = await opened(connect)
        await first.epoch("boot", NOW)
        await first.close()
        second = await opened(connect)
        assert await second.epoch("boot", later(9)) == NOW
        assert await second.epoch("next", later(-9)) == NOW
        await second.close()

    # -- closing -----------------------------------------------------------------------------------------------------

    async def test_closing_finishes_the_writes_already_sent(self, connect: Connect) -> None:
        first = await opened(connect)
        sending = [
            asyncio.ensure_future(first.write(write_at(f"s{number}", 1, items=[b"i"]), now=NOW)) for number in range(40)
        ]
        await asyncio.sleep(0)  # each has been sent, none has been answered
        await first.close()
        assert await asyncio.gather(*sending) == [True] * 40
        second = await opened(connect)
        for number in range(40):
            assert set(await items_of(second, f"s{number}")) == {b"i"}
        await second.close()

    async def test_a_store_can_be_closed_twice(self, connect: Connect) -> None:
        store = await opened(connect)
        await store.close()
        await store.close()
