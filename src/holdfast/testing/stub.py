"""The part of the warm tier's suite that is about snapshots, stubs, and what is due."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.errors import AlreadyExistsError
from holdfast.model.session import SealedItem
from holdfast.ports.warm import Query, Snapshot
from holdfast.testing.handles import opened
from holdfast.testing.samples import NOW, content, entry_at, head_at, later, purged
from holdfast.testing.warm_handles import Connect, Pair, WarmHandles, log, snapshot_at, snapshot_of

EMPTY = Snapshot(3, ())


class StubSuite(WarmHandles):
    """``WarmStoreSuite`` has all of it."""

    # -- what is due -------------------------------------------------------------------------------------------------

    async def test_sessions_come_when_they_are_due_the_longest_due_first(self, stores: Pair) -> None:
        one, other = stores
        start = NOW.timestamp()
        for session, due in {"b": 20.0, "a": 10.5, "c": 30.0, "never": None, "long": -1e9}.items():
            await one.append(head_at(session, 1, due=None if due is None else start + due), [])
        assert await other.due(now=later(-2e9), limit=9) == []
        assert await other.due(now=NOW, limit=9) == ["long"]
        assert await other.due(now=later(10.5), limit=9) == ["long", "a"]  # not after now
        assert await other.due(now=later(99), limit=9) == ["long", "a", "b", "c"]
        assert await other.due(now=later(99), limit=2) == ["long", "a"]
        await one.append(head_at("a", 2, due=start + 40), [])
        await one.append(head_at("b", 2), [])
        await one.append(head_at("c", 1, due=start), [])  # again, which changes nothing
        assert await other.due(now=later(99), limit=9) == ["long", "c", "a"]

    async def test_a_session_is_deferred_if_it_still_stands_at_the_step(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3, due=5.0), log("s", 1, 3))
        await one.append(head_at("t", 3, due=6.0), [])
        for step in (2, 4):
            await other.defer("s", step=step, due=later(9))
            assert await one.head("s") == head_at("s", 3, due=5.0)
        await other.defer("never", step=1, due=NOW)
        await other.defer("s", step=3, due=later(9))
        assert await one.head("s") == head_at("s", 3, due=later(9).timestamp())
        assert await one.due(now=NOW, limit=9) == ["t"]
        assert await one.due(now=later(9), limit=9) == ["t", "s"]
        await other.defer("s", step=3, due=None)
        assert await one.head("s") == head_at("s", 3)
        assert await one.due(now=later(10**9), limit=9) == ["t"]

    # -- snapshots ---------------------------------------------------------------------------------------------------

    async def test_a_snapshot_is_kept_in_place_of_an_older_one_and_seen_by_all(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 9), log("s", 1, 9))
        await one.append(head_at("t", 1), [])
        assert await one.items("s") is None
        assert await one.items("never") is None
        for step, names in ((3, [b"i", b"j"]), (7, [b"j", b"k", b""]), (8, [])):
            await one.snapshot("s", snapshot_at(step, sorted(names)))
            for store in stores:
                assert await snapshot_of(store) == snapshot_at(step, sorted(names))
        assert await other.items("t") is None
        assert await other.head("s") == head_at("s", 9)
        assert await other.entries("s", after=0, limit=99) == log("s", 1, 9)

    async def test_an_older_snapshot_changes_nothing(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 9), [])
        await one.snapshot("s", snapshot_at(7))
        await other.snapshot("s", snapshot_at(6, [b"i", b"old"]))
        assert await snapshot_of(one) == snapshot_at(7)
        await one.append(head_at("s", 12), [])  # nor does a newer head
        assert await snapshot_of(other) == snapshot_at(7)

    async def test_an_item_comes_back_as_it_was_kept(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 2**40), [])
        items = [
            SealedItem(b"", 0, b""),
            SealedItem(bytes(range(256)), 2**40, content("long", 3_000_000)),
            *(SealedItem(b"z%04d" % number, number, content(f"{number}", 50)) for number in range(2_000)),
        ]
        kept = Snapshot(2**40, tuple(items))
        await one.snapshot("s", kept)
        assert await snapshot_of(other) == kept

    async def test_nothing_is_kept_of_a_session_that_is_not_there_or_is_purged(self, stores: Pair) -> None:
        one, other = stores
        await one.snapshot("s", snapshot_at(3))
        assert await other.items("s") is None
        await one.append(head_at("s", 3), log("s", 1, 3))
        assert await other.items("s") is None
        await one.snapshot("s", snapshot_at(3))
        await one.purge("s")
        for _ in range(2):
            assert await other.items("s") is None
            await one.snapshot("s", snapshot_at(4))
        await one.append(head_at("s", 4), log("s", 4, 4))
        assert await other.items("s") is None

    async def test_of_snapshots_that_race_with_a_purge_none_is_left(self, stores: Pair) -> None:
        for number in range(12):
            session = f"s{number}"
            await stores[0].append(head_at(session, 9), [])
            writes = [stores[step % 2].snapshot(session, snapshot_at(step, size=5_000)) for step in range(1, 9)]
            writes.insert(number % 8, stores[number % 2].purge(session))
            await asyncio.gather(*writes)
            assert await stores[1].items(session) is None

    async def test_of_racing_snapshots_the_newest_is_kept_whole(self, stores: Pair) -> None:
        for number in range(6):
            session = f"s{number}"
            await stores[0].append(head_at(session, 20), [])
            steps = [(7 * step + number) % 20 + 1 for step in range(20)]
            names = {step: [b"%02d" % name for name in range(step)] for step in steps}
            await asyncio.gather(
                *(stores[at % 2].snapshot(session, snapshot_at(step, names[step])) for at, step in enumerate(steps))
            )
            assert await snapshot_of(stores[1], session) == snapshot_at(20, names[20])

    # -- stubs -------------------------------------------------------------------------------------------------------

    async def test_of_a_stub_there_is_the_head_and_where_the_rest_is(self, stores: Pair) -> None:
        one, other = stores
        for session in ("s", "t"):
            await one.append(head_at(session, 3, due=5.0), log(session, 1, 3), members=["ben"])
            await one.snapshot(session, snapshot_at(3))
        assert await one.archive("s", step=3, key="an/obj:ect ключ\0") is True
        stub = head_at("s", 3, due=5.0, archive="an/obj:ect ключ\0")
        for store in stores:
            assert await store.head("s") == stub
            assert await store.entries("s", after=0, limit=9) == []
            assert await store.at("s", [1, 2, 3]) == {}
            assert await store.change("s", "c2") is None
            assert await store.items("s") is None
        for query in (Query("acme"), Query("acme", "ana"), Query("acme", member="ben")):
            assert stub in await other.find(query, after=None, limit=9)
        assert set(await other.due(now=NOW, limit=9)) == {"s", "t"}
        assert await other.counts() == {("draft", "knowledge"): 2}
        assert await other.head("t") == head_at("t", 3, due=5.0)
        assert await other.entries("t", after=0, limit=9) == log("t", 1, 3)
        assert await snapshot_of(other, "t") == snapshot_at(3)

    async def test_what_stands_elsewhere_or_is_a_stub_is_not_archived_and_nothing_is_changed(
        self, stores: Pair
    ) -> None:
        one, other = stores
        await one.append(head_at("s", 3), log("s", 1, 3))
        await one.snapshot("s", snapshot_at(3))
        for step in (2, 4):
            assert await other.archive("s", step=step, key="k") is False
        assert await other.archive("never", step=3, key="k") is False
        assert await one.head("s") == head_at("s", 3)
        assert await one.entries("s", after=0, limit=9) == log("s", 1, 3)
        assert await snapshot_of(one) == snapshot_at(3)
        assert await one.archive("s", step=3, key="k") is True
        for step, key in ((3, "another"), (2, "k")):
            assert await other.archive("s", step=step, key=key) is False
        assert await other.archive("s", step=3, key="k") is True  # the same again, because the answer was lost
        assert await one.head("s") == head_at("s", 3, archive="k")
        await one.append(head_at("t", 3), log("t", 1, 3))
        await one.purge("t")
        assert await other.archive("t", step=3, key="k") is False
        assert await one.entries("t", after=0, limit=9) == [purged(entry) for entry in log("t", 1, 3)]

    async def test_a_stub_that_is_restored_is_what_it_was(self, stores: Pair) -> None:
        one, other = stores
        head = head_at("s", 4, due=5.0, status="locked")
        for number, snapshot in enumerate((snapshot_at(4), Snapshot(4, ()), snapshot_at(4, [b"k"]))):
            await one.append(head, log("s", 1, 4), members=["ben"])
            assert await one.archive("s", step=4, key=f"k{number}") is True
            await other.restore("s", log("s", 1, 4), snapshot, key=f"k{number}")
            for store in stores:
                assert await store.head("s") == head
                assert await store.entries("s", after=0, limit=9) == log("s", 1, 4)
                assert await store.change("s", "c2") == entry_at("s", 2)
                assert await snapshot_of(store) == snapshot
                assert await store.find(Query("acme", member="ben"), after=None, limit=9) == [head]
        await one.append(head_at("s", 5), log("s", 5, 5))
        await one.snapshot("s", snapshot_at(5))
        assert await other.entries("s", after=0, limit=9) == log("s", 1, 5)
        assert await snapshot_of(other) == snapshot_at(5)

    async def test_what_is_no_stub_takes_nothing_back(self, stores: Pair) -> None:
        one, other = stores
        await one.restore("never", log("never", 1, 3), snapshot_at(3), key="k")
        assert await other.head("never") is None
        assert await other.entries("never", after=0, limit=9) == []
        await one.append(head_at("s", 3), log("s", 2, 3))
        await one.restore("s", log("s", 1, 3), snapshot_at(3), key="k")
        assert await other.entries("s", after=0, limit=9) == log("s", 2, 3)
        assert await other.items("s") is None
        assert await one.archive("s", step=3, key="k") is True
        await one.restore("s", log("s", 1, 3), snapshot_at(3), key="k")
        await one.append(head_at("s", 4), log("s", 4, 4))
        await one.snapshot("s", snapshot_at(4))
        await other.restore("s", log("s", 1, 3), snapshot_at(3), key="k")  # a second one that comes late
        assert await other.entries("s", after=0, limit=9) == log("s", 1, 4)
        assert await snapshot_of(one) == snapshot_at(4)

    async def test_a_stub_of_another_object_takes_nothing_back(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3), log("s", 1, 3))
        assert await one.archive("s", step=3, key="first") is True
        await one.restore("s", log("s", 1, 3), snapshot_at(3), key="first")
        await one.append(head_at("s", 4), log("s", 4, 4))
        assert await one.archive("s", step=4, key="second") is True
        await other.restore("s", log("s", 1, 3), snapshot_at(3), key="first")  # read before, and late
        assert await one.head("s") == head_at("s", 4, archive="second")
        assert await one.entries("s", after=0, limit=9) == []
        await other.restore("s", log("s", 1, 4), snapshot_at(4), key="second")
        assert await one.head("s") == head_at("s", 4)
        assert await one.entries("s", after=0, limit=9) == log("s", 1, 4)

    async def test_what_came_to_a_stub_stays_when_it_is_restored(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3), log("s", 1, 3))
        assert await one.archive("s", step=3, key="k") is True
        await other.append(head_at("s", 3), log("s", 2, 3))  # once more, late
        assert await one.head("s") == head_at("s", 3, archive="k")
        await other.append(head_at("s", 5, due=7.0), log("s", 4, 5), members=["ben"])
        assert await one.head("s") == head_at("s", 5, due=7.0, archive="k")
        await one.restore("s", log("s", 1, 3), snapshot_at(3), key="k")
        assert await other.head("s") == head_at("s", 5, due=7.0)
        assert await other.entries("s", after=0, limit=9) == log("s", 1, 5)
        assert await snapshot_of(other) == snapshot_at(3)

    async def test_another_entry_than_one_that_came_to_a_stub_is_not_taken_back(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3), log("s", 1, 3))
        assert await one.archive("s", step=3, key="k") is True
        await other.append(head_at("s", 4), log("s", 4, 4))
        with pytest.raises(AlreadyExistsError):
            await one.restore("s", [*log("s", 1, 3), entry_at("s", 4, "mine", digest=b"mine")], snapshot_at(3), key="k")
        assert await other.head("s") == head_at("s", 4, archive="k")
        assert await other.entries("s", after=0, limit=9) == log("s", 4, 4)
        assert await other.items("s") is None

    async def test_of_a_stub_that_was_purged_nothing_is_taken_back(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3, due=5.0), log("s", 1, 3), members=["ben"])
        assert await one.archive("s", step=3, key="k") is True
        await other.append(head_at("s", 4, due=6.0), log("s", 4, 4))
        await other.purge("s")
        for _ in range(2):
            assert await one.head("s") == head_at("s", 4, key=None)  # and it is no stub any more
            assert await one.entries("s", after=0, limit=9) == [purged(entry) for entry in log("s", 4, 4)]
            assert await one.items("s") is None
            assert await one.find(Query("acme", member="ben"), after=None, limit=9) == []
            await one.restore("s", log("s", 1, 3), snapshot_at(3), key="k")

    async def test_the_key_of_a_stub_can_be_replaced(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3, key=b"old"), log("s", 1, 3))
        assert await one.archive("s", step=3, key="k") is True
        assert await other.rewrap("s", old=b"old", new=b"new") is True
        await other.defer("s", step=3, due=later(1))
        stub = head_at("s", 3, key=b"new", due=later(1).timestamp(), archive="k")
        assert await one.head("s") == stub
        await one.restore("s", log("s", 1, 3), snapshot_at(3), key="k")
        assert await other.head("s") == replace(stub, archive=None)

    async def test_a_snapshot_that_comes_to_a_stub_is_not_kept(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3), log("s", 1, 3))
        assert await one.archive("s", step=3, key="k") is True
        await other.snapshot("s", snapshot_at(3))
        assert await one.items("s") is None
        assert await one.head("s") == head_at("s", 3, archive="k")

    async def test_of_racing_archivers_exactly_one_makes_the_stub(self, stores: Pair) -> None:
        for number in range(6):
            session = f"s{number}"
            await stores[0].append(head_at(session, 3), log(session, 1, 3))
            made = await asyncio.gather(
                *(stores[at % 2].archive(session, step=3, key=f"{number} {at}") for at in range(8))
            )
            assert made.count(True) == 1
            assert await stores[1].head(session) == head_at(session, 3, archive=f"{number} {made.index(True)}")

    async def test_of_a_stub_and_an_append_that_race_nothing_is_lost(self, stores: Pair) -> None:
        """Either the session is no stub, or what was appended is beside it."""
        for number in range(12):
            session = f"s{number}"
            await stores[0].append(head_at(session, 3), log(session, 1, 3))
            calls: list[Any] = [
                stores[0].archive(session, step=3, key="k"),
                stores[1].append(head_at(session, 4), log(session, 4, 4)),
            ]
            made = (await asyncio.gather(*calls[:: 1 - 2 * (number % 2)]))[number % 2]
            head = await stores[1].head(session)
            assert head == head_at(session, 4, archive="k" if made else None)
            left = await stores[0].entries(session, after=0, limit=9)
            assert left == log(session, 4 if made else 1, 4)

    async def test_making_a_stub_and_taking_it_back_are_one_step_each(self, stores: Pair) -> None:
        one, other = stores
        whole, snapshot = log("s", 1, 60), snapshot_at(60, [b"%03d" % number for number in range(60)])
        await one.append(head_at("s", 60), whole)
        await one.snapshot("s", snapshot)
        over = asyncio.Event()

        async def move() -> None:
            for number in range(12):
                assert await one.archive("s", step=60, key=f"k{number}") is True
                await asyncio.sleep(0.002)
                await one.restore("s", whole, snapshot, key=f"k{number}")
                await asyncio.sleep(0.002)
            over.set()

        moving = asyncio.ensure_future(move())
        while not over.is_set() and not moving.done():
            before = await other.head("s")
            kept = await other.entries("s", after=0, limit=99)
            assert kept in ([], whole)
            assert await snapshot_of(other) in (None, snapshot)
            after = await other.head("s")
            assert before is not None
            assert after is not None
            if before == after:  # and so it was all the while, for each stub has a name of its own
                assert before.archive is None or kept == []
            await asyncio.sleep(0)
        await moving

    async def test_a_stub_outlives_the_store_and_so_does_what_is_taken_back(self, connect: Connect) -> None:
        first = await opened(connect)
        for session in ("s", "t"):
            await first.append(head_at(session, 3), log(session, 1, 3))
            assert await first.archive(session, step=3, key="k") is True
        await first.restore("t", log("t", 1, 3), snapshot_at(3), key="k")
        await first.close()
        second = await opened(connect)
        assert await second.head("s") == head_at("s", 3, archive="k")
        assert await second.entries("s", after=0, limit=9) == []
        assert await second.head("t") == head_at("t", 3)
        assert await second.entries("t", after=0, limit=9) == log("t", 1, 3)
        assert await snapshot_of(second, "t") == snapshot_at(3)
        await second.close()

    async def test_a_session_of_many_megabytes_is_taken_down_and_back(self, stores: Pair) -> None:
        one, other = stores
        whole = [entry_at("s", step, payload=content(f"{step}", 10_000)) for step in range(1, 1_001)]
        snapshot = snapshot_at(1_000, [b"%04d" % number for number in range(2_000)], 5_000)
        await one.append(head_at("s", 1_000), whole)
        await one.snapshot("s", snapshot)
        assert await snapshot_of(other) == snapshot
        assert await one.archive("s", step=1_000, key="k") is True
        await one.restore("s", whole, snapshot, key="k")
        assert await other.entries("s", after=0, limit=9_999) == whole
        assert await snapshot_of(other) == snapshot

    async def test_how_much_is_held_is_known(self, stores: Pair) -> None:
        one, other = stores
        assert (await one.size()).sessions == (await one.size()).archived == 0
        empty = (await one.size()).bytes
        for number in range(5):
            await one.append(head_at(f"s{number}", 2), [entry_at(f"s{number}", 1, payload=content("p", 100_000))])
        for number in range(2):
            assert await one.archive(f"s{number}", step=2, key="k") is True
        size = await other.size()
        assert (size.sessions, size.archived) == (5, 2)
        assert empty + 300_000 < size.bytes < empty + 10_000_000
        await one.restore("s0", [], EMPTY, key="k")
        await one.purge("s1")
        size = await other.size()
        assert (size.sessions, size.archived) == (5, 0)

    # -- change ids --------------------------------------------------------------------------------------------------

    async def test_an_entry_is_found_by_its_change_id(self, stores: Pair) -> None:
        one, other = stores
        odd = ["c", "C", "c ", "'", "%", "c\0", "ключ", "x" * 200]
        entries = [entry_at("s", step, change) for step, change in enumerate(odd, 1)]
        await one.append(head_at("s", len(odd)), entries)
        await one.append(head_at("t", 1), [entry_at("t", 1, "of t")])
        for entry in entries:
            assert await other.change("s", entry.change) == entry
        for session, change in (("s", "of t"), ("s", "none"), ("t", "c"), ("never", "c")):
            assert await other.change(session, change) is None
        await one.purge("s")
        assert await other.change("s", "c ") == purged(entries[2])

    # -- histories that part -----------------------------------------------------------------------------------------

    async def test_another_head_at_the_same_step_is_refused(self, stores: Pair) -> None:
        """A history that has parted from the one kept is never taken for it, even where no entry shows it."""
        one, other = stores
        await one.append(head_at("s", 3), log("s", 1, 3), members=["ben"])
        parted = head_at("s", 3, digest=b"another", sealed=b"another")
        for entries in ([], log("s", 1, 2)):
            with pytest.raises(AlreadyExistsError):
                await other.append(parted, entries, members=["cy"])
        assert await one.head("s") == head_at("s", 3)
        assert await one.find(Query("acme", member="cy"), after=None, limit=9) == []
        await other.append(head_at("s", 3, sealed=b"again"), [])  # the same history
        assert await one.head("s") == head_at("s", 3)
        assert await one.archive("s", step=3, key="k") is True
        with pytest.raises(AlreadyExistsError):
            await other.append(parted, [])
        assert await one.head("s") == head_at("s", 3, archive="k")

    async def test_a_change_id_stands_at_one_step_only(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3), log("s", 1, 3))
        with pytest.raises(AlreadyExistsError):
            await other.append(head_at("s", 5), [entry_at("s", 4), entry_at("s", 5, "c2")])
        assert await one.head("s") == head_at("s", 3)
        assert await one.entries("s", after=0, limit=9) == log("s", 1, 3)
        with pytest.raises(AlreadyExistsError):
            await other.append(head_at("s", 5), [entry_at("s", 4), entry_at("s", 5, "c4")])
        assert await one.entries("s", after=0, limit=9) == log("s", 1, 3)
        await other.append(head_at("s", 4), log("s", 4, 4))
        await other.append(head_at("t", 1), [entry_at("t", 1, "c2")])  # another session's is another
        assert await one.head("s") == head_at("s", 4)
