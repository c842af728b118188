"""The suite for adapters of the warm tier: every sentence of ``ports/warm.py`` has its test here.

What needs a fault (a full store, one that does not answer) is an adapter's own to test.
"""

from __future__ import annotations

import asyncio
import itertools
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.errors import AlreadyExistsError
from holdfast.model.cursor import PageCursor
from holdfast.model.session import SealedHead
from holdfast.ports.warm import AuditRow, ChainEnd, Query
from holdfast.testing.handles import opened
from holdfast.testing.revocation import RevocationSuite
from holdfast.testing.samples import NOW, content, entry_at, head_at, purged
from holdfast.testing.stub import StubSuite
from holdfast.testing.warm_handles import Connect, Pair, lines, log, mac

ACME = Query("acme")
ODD = [
    "s",
    "S",
    "s ",
    "s:1",
    "s/1",
    "s*",
    "s%",
    "s_",
    "{s}",
    "[s]",
    "ключ",
    "s\n",
    "'",
    '"\\',
    "s\0",
    "s\1",
    "s\1\2",
    "\0\1",
]
"""Names that an adapter might mix up, or cannot store as they are."""


class WarmStoreSuite(StubSuite, RevocationSuite):
    """Subclass it and give ``connect``: called twice, it gives two handles on the same, at first empty, data."""

    # -- the log -----------------------------------------------------------------------------------------------------

    async def test_all_who_open_a_store_know_it_by_one_name(self, stores: Pair) -> None:
        one, other = stores
        name = await one.identity()
        assert name
        assert [await store.identity() for store in (other, one)] == [name, name]

    async def test_of_a_session_that_is_not_there_there_is_nothing(self, stores: Pair) -> None:
        one, _ = stores
        assert await one.head("s") is None
        assert await one.entries("s", after=0, limit=9) == []
        assert await one.at("s", [1, 2]) == {}
        assert await one.find(ACME, after=None, limit=9) == []
        assert await one.audit() == []
        assert await one.chains() == {}

    async def test_entries_and_the_head_they_lead_to_are_kept_and_seen_by_all(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3), log("s", 1, 3))
        for store in stores:
            assert await store.head("s") == head_at("s", 3)
            assert await store.entries("s", after=0, limit=9) == log("s", 1, 3)
        await other.append(head_at("s", 5), log("s", 4, 5))
        assert await one.head("s") == head_at("s", 5)
        assert await one.entries("s", after=0, limit=9) == log("s", 1, 5)
        await other.append(head_at("empty", 1), [])
        assert await one.head("empty") == head_at("empty", 1)

    async def test_what_is_kept_outlives_the_store(self, connect: Connect) -> None:
        first = await opened(connect)
        await first.append(head_at("s", 3), log("s", 1, 3))
        assert await first.record(lines("acme", 1, 2), end=b"end")
        await first.close()
        second = await opened(connect)
        assert await second.head("s") == head_at("s", 3)
        assert await second.entries("s", after=0, limit=9) == log("s", 1, 3)
        assert await second.audit() == lines("acme", 1, 2)
        assert await second.chains() == {"acme": ChainEnd(2, mac("acme", 2), b"end")}
        await second.close()

    @pytest.mark.parametrize(
        "fields",
        [
            {"due": 1_767_323_045.678901, "created": 0.1, "key": b""},
            {"due": 0.0, "key": None, "sealed": b""},
            {"sealed": content("long", 1_000_000), "status": "locked", "version": 0},
            {"tenant": "ténant", "owner": "o\n\U0001f600", "kind": "", "digest": bytes(range(256))},
        ],
    )
    async def test_a_head_comes_back_as_it_was_kept(self, stores: Pair, fields: dict[str, Any]) -> None:
        one, other = stores
        await one.append(head_at("s", 1, **fields), [])
        assert await other.head("s") == head_at("s", 1, **fields)
        tenant = fields.get("tenant", "acme")
        assert await other.find(Query(tenant), after=None, limit=9) == [head_at("s", 1, **fields)]

    async def test_every_field_of_a_newer_head_that_can_change_is_kept(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 1), [])
        newer = head_at("s", 2, owner="ben", status="locked", version=1, due=1.5, sealed=b"new")
        await other.append(newer, [])
        assert await one.head("s") == newer

    async def test_names_of_any_text_are_kept_apart_and_come_back(self, stores: Pair) -> None:
        one, other = stores
        for number, name in enumerate(ODD):
            await one.append(
                head_at(name, 2, tenant=name, owner=name, kind=name), log(name, 1, 1), members=[f"{name} too"]
            )
            await one.append(head_at(name, 2), [entry_at(name, 2, name)])
            assert await one.record([AuditRow(name, 1, name, name, b"line", b"%d" % number)], end=b"")
        for number, name in enumerate(ODD):
            head = head_at(name, 2, tenant=name, owner=name, kind=name)
            assert await other.head(name) == head
            assert await other.entries(name, after=0, limit=9) == [entry_at(name, 1), entry_at(name, 2, name)]
            for query in (Query(name, name, name), Query(name, member=name), Query(name, member=f"{name} too")):
                assert await other.find(query, after=None, limit=9) == [head]
            line = AuditRow(name, 1, name, name, b"line", b"%d" % number)
            assert await other.audit(tenant=name, session=name, chain=name) == [line]
        assert await other.counts() == {("draft", name): 1 for name in ODD}
        assert set(await other.chains()) == set(ODD)
        assert [head.id for head in await other.find(Query(), after=None, limit=99)] == sorted(ODD, reverse=True)

    async def test_an_entry_comes_back_as_it_was_kept(self, stores: Pair) -> None:
        one, other = stores
        odd = entry_at(
            "s", 1, "ключ \n'\"", commit=False, version=0, header=b"", payload=content("p", 300_000), digest=b"\0"
        )
        await one.append(head_at("s", 1), [odd])
        assert await other.entries("s", after=0, limit=1) == [odd]

    async def test_entries_that_are_there_already_change_nothing_any_number_of_times(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 4), log("s", 1, 4))
        for _ in range(3):
            await other.append(head_at("s", 4), log("s", 1, 4))
            await one.append(head_at("s", 4), log("s", 2, 3))
        await one.append(head_at("s", 5), [*log("s", 4, 5), *log("s", 4, 5)])
        assert await other.entries("s", after=0, limit=99) == log("s", 1, 5)
        assert await other.head("s") == head_at("s", 5)

    async def test_entries_are_kept_in_any_order(self, stores: Pair) -> None:
        orders = list(itertools.permutations(range(1, 5)))
        for number, order in enumerate(orders):
            session = f"s{number}"
            for at, step in enumerate(order):
                await stores[at % 2].append(head_at(session, step), log(session, step, step))
            assert await stores[0].head(session) == head_at(session, 4)
            await stores[0].append(head_at(session, 6), log(session, 5, 6)[::-1])
            assert await stores[1].entries(session, after=0, limit=99) == log(session, 1, 6)
            assert await stores[1].head(session) == head_at(session, 6)

    async def test_the_change_ids_of_a_log_are_read_up_to_a_step(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 40), log("s", 1, 40))
        await one.append(head_at("t", 1), [entry_at("t", 1, "theirs")])
        assert await other.changes("s", below=31) == {f"c{step}": step for step in range(1, 31)}
        assert await other.changes("s", below=99) == {f"c{step}": step for step in range(1, 41)}
        assert await other.changes("s", below=1) == await other.changes("never", below=9) == {}
        odd = entry_at("s", 41, "  a ключ: 'quoted'\t")
        await one.append(head_at("s", 41), [odd])
        assert (await other.changes("s", below=42))[odd.change] == 41

    async def test_an_older_head_changes_nothing(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 5, status="locked", due=5.0), log("s", 5, 5))
        await other.append(head_at("s", 3, key=b"older", due=3.0), log("s", 1, 3))
        assert await one.head("s") == head_at("s", 5, status="locked", due=5.0)
        assert await one.entries("s", after=0, limit=9) == [*log("s", 1, 3), *log("s", 5, 5)]

    @pytest.mark.parametrize("at", [0, 1, 2])
    async def test_another_entry_at_a_step_is_refused_and_nothing_of_the_call_is_kept(
        self, stores: Pair, at: int
    ) -> None:
        one, other = stores
        await one.append(head_at("s", 3), log("s", 3, 3))
        mine = [entry_at("s", 4), entry_at("s", 5)]
        mine.insert(at, entry_at("s", 3, "mine", digest=b"mine"))
        with pytest.raises(AlreadyExistsError):
            await other.append(head_at("s", 5), mine)
        assert await one.entries("s", after=0, limit=9) == log("s", 3, 3)
        assert await one.head("s") == head_at("s", 3)
        same_change = entry_at("s", 3, payload=b"mine", digest=b"mine")
        with pytest.raises(AlreadyExistsError):
            await other.append(head_at("s", 4), [entry_at("s", 4), same_change])
        assert await one.entries("s", after=0, limit=9) == log("s", 3, 3)

    async def test_a_refused_append_does_not_harm_those_sent_with_it(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 1), log("s", 1, 1))
        outcomes = await asyncio.gather(
            *(other.append(head_at(f"t{number}", 2), log(f"t{number}", 1, 2)) for number in range(8)),
            other.append(head_at("s", 2), [entry_at("s", 1, "mine", digest=b"mine")]),
            *(other.append(head_at(f"u{number}", 2), log(f"u{number}", 1, 2)) for number in range(8)),
            return_exceptions=True,
        )
        assert [at for at, outcome in enumerate(outcomes) if outcome is not None] == [8]
        assert isinstance(outcomes[8], AlreadyExistsError)
        for session in [f"{letter}{number}" for letter in "tu" for number in range(8)]:
            assert await one.entries(session, after=0, limit=9) == log(session, 1, 2)

    async def test_racing_appends_of_one_log_keep_each_entry_once(self, stores: Pair) -> None:
        whole = log("s", 1, 60)
        chance = Random(7)  # noqa: S311 - an order to repeat, not a secret
        parts = []
        for _ in range(40):
            start = chance.randrange(60)
            part = whole[start : start + chance.randrange(1, 12)]
            parts.append((head_at("s", part[-1].step), part))
        parts += [(head_at("s", step), [entry_at("s", step)]) for step in range(1, 61)]
        chance.shuffle(parts)
        await asyncio.gather(*(stores[at % 2].append(head, part) for at, (head, part) in enumerate(parts)))
        assert await stores[0].entries("s", after=0, limit=99) == whole
        assert await stores[1].head("s") == head_at("s", 60)

    async def test_of_racing_entries_at_one_step_exactly_one_is_kept(self, stores: Pair) -> None:
        for step in range(1, 9):
            racers = [entry_at("s", step, f"{step}-{at}", digest=b"%d" % at) for at in range(12)]
            outcomes = await asyncio.gather(
                *(
                    stores[at % 2].append(head_at("s", step, sealed=b"%d" % at), [racer])
                    for at, racer in enumerate(racers)
                ),
                return_exceptions=True,
            )
            won = [at for at, outcome in enumerate(outcomes) if outcome is None]
            assert len(won) == 1
            assert sum(isinstance(outcome, AlreadyExistsError) for outcome in outcomes) == 11
            assert await stores[0].entries("s", after=step - 1, limit=9) == [racers[won[0]]]
            assert await stores[1].head("s") == head_at("s", step, sealed=b"%d" % won[0])

    async def test_entries_come_in_order_beyond_a_step_and_up_to_a_limit(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 30), log("s", 1, 30))
        await one.append(head_at("t", 3), log("t", 1, 3))
        assert await other.entries("s", after=7, limit=5) == log("s", 8, 12)
        assert await other.entries("s", after=28, limit=5) == log("s", 29, 30)
        assert await other.entries("s", after=30, limit=5) == []

    async def test_a_page_of_the_log_ends_with_the_entry_that_fills_its_room(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 9), log("s", 1, 9))
        size = len(log("s", 1, 1)[0].payload)
        assert await other.entries("s", after=0, limit=9, room=1) == log("s", 1, 1)
        assert await other.entries("s", after=2, limit=9, room=2 * size) == log("s", 3, 4)
        assert await other.entries("s", after=2, limit=9, room=2 * size + 1) == log("s", 3, 5)
        assert await other.entries("s", after=2, limit=2, room=9 * size) == log("s", 3, 4)

    async def test_entries_at_some_steps_come_by_step_without_those_that_are_not_there(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 12), log("s", 1, 12))
        assert await other.at("s", [9, 2, 2, 13, 0, -1]) == {2: entry_at("s", 2), 9: entry_at("s", 9)}
        assert await other.at("s", []) == {}
        assert await other.at("s", range(3_000)) == {entry.step: entry for entry in log("s", 1, 12)}

    # -- the catalogue -----------------------------------------------------------------------------------------------

    async def test_sessions_are_found_newest_first_by_creation(self, stores: Pair) -> None:
        one, other = stores
        ages = {"b": 30.0, "c": 20.5, "a": 20.0, "d": -1.0}
        for session, created in ages.items():
            await one.append(head_at(session, 1, created=created), [])
        await one.append(head_at("d", 9, created=-1.0), [])  # a new step does not make a session newer
        found = await other.find(ACME, after=None, limit=9)
        assert [head.id for head in found] == ["b", "c", "a", "d"]
        assert found[3] == head_at("d", 9, created=-1.0)
        assert await other.find(ACME, after=None, limit=2) == found[:2]

    async def test_every_filter_asks_what_it_names_and_none_asks_nothing(self, stores: Pair) -> None:
        one, other = stores
        values = {
            "tenant": ["acme", "other"],
            "owner": ["ana", "ben"],
            "kind": ["knowledge", "graph"],
            "status": ["draft", "locked", "discarded"],
        }
        made = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
        for number, fields in enumerate(made):
            await one.append(head_at(f"{number:02}", 1, **fields), [])
        optional = ("owner", "kind", "status")
        for tenant in [*values["tenant"], "nobody"]:
            for asked in itertools.product(*([None, *values[name], "nobody"] for name in optional)):
                query = Query(tenant, *asked)
                wanted = {"tenant": tenant} | {n: v for n, v in zip(optional, asked, strict=True) if v is not None}
                found = await other.find(query, after=None, limit=99)
                assert [head.id for head in found] == [
                    f"{number:02}" for number in reversed(range(len(made))) if wanted.items() <= made[number].items()
                ]

    @pytest.mark.parametrize("limit", [1, 2, 5, 99])
    async def test_a_principal_s_sessions_are_its_own_and_those_it_is_a_member_of(
        self, stores: Pair, limit: int
    ) -> None:
        one, other = stores
        shared: dict[str, list[str] | None] = {"a": ["ben"], "b": None, "c": ["cy", "ben"], "d": [], "e": ["cy"]}
        for number, (session, members) in enumerate(shared.items()):
            await one.append(head_at(session, 1, created=number // 2), [], members=members)
        await one.append(head_at("of-ben", 1, owner="ben", created=1.0), [])
        await one.append(head_at("of-ben-too", 1, owner="ben", created=0.5), [], members=["ben", "cy"])
        await one.append(head_at("elsewhere", 1, tenant="other", owner="ben"), [], members=["cy"])

        async def seen(member: str, **wanted: str) -> list[str]:
            found: list[SealedHead] = []
            after = None
            while page := await other.find(Query("acme", member=member, **wanted), after=after, limit=limit):
                found += page
                after = PageCursor(page[-1].created, page[-1].id)
            return [head.id for head in found]

        assert await seen("ben") == ["of-ben", "c", "of-ben-too", "a"]
        assert await seen("cy") == ["e", "c", "of-ben-too"]
        assert await seen("ana") == ["e", "d", "c", "b", "a"]
        assert await seen("ben", owner="ana") == ["c", "a"]
        assert await seen("ben", owner="ben") == ["of-ben", "of-ben-too"]
        assert await seen("ben", kind="graph") == await seen("ben", status="locked") == await seen("eve") == []

    async def test_members_change_with_a_newer_head_and_no_other(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 4), [], members=["ben"])
        await one.append(head_at("s", 3), [], members=["cy"])  # late
        await one.append(head_at("s", 4), [], members=["cy"])  # again
        await one.append(head_at("s", 5), [])
        ben, cy = Query("acme", member="ben"), Query("acme", member="cy")
        assert [head.step for head in await other.find(ben, after=None, limit=9)] == [5]
        assert await other.find(cy, after=None, limit=9) == []
        await one.append(head_at("s", 6), [], members=["cy"])
        assert await other.find(ben, after=None, limit=9) == []
        assert [head.step for head in await other.find(cy, after=None, limit=9)] == [6]

    @pytest.mark.parametrize("limit", [1, 3, 7, 20])
    async def test_pages_go_on_beyond_a_cursor_and_miss_none_of_one_creation_time(
        self, stores: Pair, limit: int
    ) -> None:
        one, other = stores
        for number in range(20):
            created = NOW.timestamp() + number // 8 * 1e-6
            await one.append(head_at(f"s{number * 7 % 20:02}", 1, created=created), [])
        pages: list[list[SealedHead]] = []
        after = None
        while len(pages) < 25 and (not pages or pages[-1]):
            pages.append(await other.find(ACME, after=after, limit=limit))
            if pages[-1]:
                after = PageCursor(pages[-1][-1].created, pages[-1][-1].id)
        found = [head for page in pages for head in page]
        assert len({head.id for head in found}) == len(found) == 20
        assert [head.created for head in found] == sorted((head.created for head in found), reverse=True)
        assert found == await one.find(ACME, after=None, limit=99)
        assert all(len(page) == limit for page in pages[:-2])

    async def test_a_cursor_stands_where_its_session_was_even_if_newer_ones_come(self, stores: Pair) -> None:
        one, other = stores
        for number in range(4):
            await one.append(head_at(f"s{number}", 1, created=float(number)), [])
        first = await other.find(ACME, after=None, limit=2)
        await one.append(head_at("newest", 1, created=9.0), [])
        rest = await other.find(ACME, after=PageCursor(first[-1].created, first[-1].id), limit=9)
        assert [head.id for head in [*first, *rest]] == ["s3", "s2", "s1", "s0"]
        elsewhere = PageCursor(1.5, "no session")
        assert [head.id for head in await other.find(ACME, after=elsewhere, limit=9)] == ["s1", "s0"]

    async def test_sessions_under_way_are_counted_by_status_and_kind_over_all_tenants(self, stores: Pair) -> None:
        one, other = stores
        assert await one.counts() == {}
        values = itertools.product(["acme", "other"], ["draft", "locked", "published", "discarded", "expired"])
        for number, (tenant, status) in enumerate(values):
            for kind in ("knowledge", "graph")[: 1 + number % 2]:
                await one.append(head_at(f"{number}{kind}", 1, tenant=tenant, status=status, kind=kind), [])
        counted = {("draft", "knowledge"): 2, ("draft", "graph"): 1, ("locked", "knowledge"): 2, ("locked", "graph"): 1}
        assert await other.counts() == counted
        await one.append(head_at("0knowledge", 2, tenant="acme", status="locked", kind="knowledge"), [])
        await one.append(head_at("5graph", 2, tenant="other", status="published", kind="graph"), [])
        counted = {("draft", "knowledge"): 1, ("locked", "knowledge"): 3, ("locked", "graph"): 1}
        assert await other.counts() == counted

    # -- keys and purging --------------------------------------------------------------------------------------------

    async def test_the_data_key_is_kept_at_the_first_append_only(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 2), [])
        await other.append(head_at("s", 3, key=b"another"), log("s", 3, 3))
        assert await one.head("s") == head_at("s", 3)
        await other.append(head_at("s", 4, key=None), [])
        assert await one.head("s") == head_at("s", 4)

    async def test_a_wrapped_key_is_replaced_if_it_is_still_the_old_one(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 2, key=b"old"), log("s", 1, 2))
        await one.append(head_at("t", 1, key=b"old"), [])
        assert await other.rewrap("s", old=b"stale", new=b"new") is False
        assert await other.rewrap("never", old=b"old", new=b"new") is False
        assert await one.head("s") == head_at("s", 2, key=b"old")
        assert await other.rewrap("s", old=b"old", new=b"new") is True
        assert await one.head("s") == head_at("s", 2, key=b"new")
        assert await one.head("t") == head_at("t", 1, key=b"old")
        assert await other.entries("s", after=0, limit=9) == log("s", 1, 2)

    async def test_a_late_head_does_not_bring_back_a_key_that_was_replaced_or_destroyed(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 1, key=b"old"), [])
        assert await one.rewrap("s", old=b"old", new=b"new") is True
        await other.append(head_at("s", 2, key=b"old"), [])
        assert await one.head("s") == head_at("s", 2, key=b"new")
        assert await other.rewrap("s", old=b"new", new=None) is True
        await one.append(head_at("s", 3, key=b"old"), [])
        assert await other.head("s") == head_at("s", 3, key=None)
        for old in (b"old", b"new", b""):
            assert await one.rewrap("s", old=old, new=b"newest") is False

    async def test_of_racing_rewraps_exactly_one_succeeds(self, stores: Pair) -> None:
        await stores[0].append(head_at("s", 1, key=b"old"), [])
        replaced = await asyncio.gather(*(stores[at % 2].rewrap("s", old=b"old", new=b"%d" % at) for at in range(12)))
        assert replaced.count(True) == 1
        assert await stores[1].head("s") == head_at("s", 1, key=b"%d" % replaced.index(True))

    async def test_a_purge_removes_the_content_and_leaves_head_and_headers(self, stores: Pair) -> None:
        one, other = stores
        for session in ("s", "t"):
            await one.append(head_at(session, 5, due=1.0), log(session, 1, 5), members=["ben"])
        left = [purged(entry) for entry in log("s", 1, 5)]
        for _ in range(2):  # and once more changes nothing
            await one.purge("s")
            assert await other.head("s") == head_at("s", 5, key=None)
            assert await other.entries("s", after=0, limit=9) == left
            assert await other.at("s", [3]) == {3: left[2]}
            found = await other.find(Query("acme", member="ben"), after=None, limit=9)
            assert found == [head_at("t", 5, due=1.0)]
        assert await other.entries("t", after=0, limit=9) == log("t", 1, 5)

    async def test_a_session_whose_key_was_destroyed_is_purged_like_any_other(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3, key=b"old"), log("s", 1, 3))
        assert await one.rewrap("s", old=b"old", new=None) is True
        await other.purge("s")
        assert await one.entries("s", after=0, limit=9) == [purged(entry) for entry in log("s", 1, 3)]

    async def test_of_what_comes_to_a_purged_session_only_the_hashes_are_kept(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 3), log("s", 1, 3))
        await one.purge("s")
        late = head_at("s", 6, status="discarded", due=2.0)
        await other.append(late, log("s", 2, 6), members=["ben"])  # and some of it again
        assert await one.find(Query("acme", member="ben"), after=None, limit=9) == []
        await other.append(head_at("s", 4), log("s", 4, 5))
        assert await one.entries("s", after=0, limit=9) == [purged(entry) for entry in log("s", 1, 6)]
        assert await one.head("s") == replace(late, key=None)
        with pytest.raises(AlreadyExistsError):
            await one.append(head_at("s", 7), [entry_at("s", 3, "mine", digest=b"mine")])
        await other.purge("s")  # and what is late was due once more
        assert await one.head("s") == head_at("s", 6, status="discarded", key=None)
        assert await one.entries("s", after=0, limit=9) == [purged(entry) for entry in log("s", 1, 6)]

    async def test_purging_a_session_that_is_not_there_is_no_error(self, stores: Pair) -> None:
        one, other = stores
        await one.append(head_at("s", 2), log("s", 1, 2))
        await one.purge("never")
        assert await other.head("never") is None
        assert await other.head("s") == head_at("s", 2)
        assert await other.entries("s", after=0, limit=9) == log("s", 1, 2)

    async def test_of_appends_that_race_with_a_purge_no_payload_is_left(self, stores: Pair) -> None:
        for number in range(12):
            session = f"s{number}"
            await stores[0].append(head_at(session, 1), log(session, 1, 1))
            appends = [
                stores[step % 2].append(head_at(session, step), log(session, step, step)) for step in range(2, 9)
            ]
            appends.insert(number % 8, stores[number % 2].purge(session))
            await asyncio.gather(*appends)
            assert await stores[1].head(session) == head_at(session, 8, key=None)
            kept = await stores[0].entries(session, after=0, limit=99)
            assert kept == [purged(entry) for entry in log(session, 1, 8)]

    async def test_a_purge_is_one_step(self, stores: Pair) -> None:
        one, other = stores
        for number in range(8):
            await one.append(head_at(f"s{number}", 40, due=1.0), log(f"s{number}", 1, 40))

        async def purge() -> None:
            for number in range(8):
                await one.purge(f"s{number}")

        purging = asyncio.ensure_future(purge())
        while not purging.done():
            for number in range(8):
                whole = log(f"s{number}", 1, 40)
                kept = await other.entries(f"s{number}", after=0, limit=99)
                assert kept in (whole, [purged(entry) for entry in whole])
                if kept != whole:  # read before the head: by now that is purged too
                    assert await other.head(f"s{number}") == head_at(f"s{number}", 40, key=None)
            await asyncio.sleep(0)
        await purging

    # -- the audit ---------------------------------------------------------------------------------------------------

    async def test_lines_that_follow_a_chains_last_are_appended(self, stores: Pair) -> None:
        one, other = stores
        assert await one.record(lines("acme", 1, 3), end=b"e3") is True
        assert await other.record(lines("acme", 4, 4), end=b"e4") is True
        assert await one.record(lines("other", 1, 1), end=b"o1") is True
        for store in stores:
            assert await store.audit(chain="acme") == lines("acme", 1, 4)
            assert await store.chains() == {
                "acme": ChainEnd(4, mac("acme", 4), b"e4"),
                "other": ChainEnd(1, mac("other", 1), b"o1"),
            }

    @pytest.mark.parametrize(("first", "last"), [(1, 1), (3, 3), (2, 6), (5, 5), (0, 4)])
    async def test_lines_that_do_not_follow_are_refused_and_none_is_appended(
        self, stores: Pair, first: int, last: int
    ) -> None:
        one, other = stores
        await one.record(lines("acme", 1, 3), end=b"e3")
        assert await other.record(lines("acme", first, last), end=b"mine") is False
        assert await other.record(lines("new", 2, 3), end=b"mine") is False
        assert await one.audit() == lines("acme", 1, 3)
        assert await one.chains() == {"acme": ChainEnd(3, mac("acme", 3), b"e3")}
        assert await other.record(lines("acme", 4, 4), end=b"e4") is True

    async def test_of_racing_lines_exactly_one_is_appended_at_each_number(self, stores: Pair) -> None:
        for seq in range(1, 11):
            racers = [replace(lines("acme", seq, seq)[0], line=b"%d" % at, mac=b"mac %d" % at) for at in range(12)]
            landed = await asyncio.gather(
                *(stores[at % 2].record([racer], end=b"end %d" % at) for at, racer in enumerate(racers))
            )
            assert landed.count(True) == 1
            won = landed.index(True)
            assert await stores[0].audit(after=("acme", seq - 1)) == [racers[won]]
            assert await stores[1].chains() == {"acme": ChainEnd(seq, b"mac %d" % won, b"end %d" % won)}

    async def test_a_chain_and_its_end_are_of_one_moment(self, stores: Pair) -> None:
        one, other = stores

        async def record() -> None:
            for seq in range(1, 41, 2):
                assert await one.record(lines("acme", seq, seq + 1), end=b"end %d" % (seq + 1))

        recording = asyncio.ensure_future(record())
        while not recording.done():
            ends = await other.chains()
            kept = await other.audit(chain="acme")
            if ends:  # the lines were read after the end: there are as many, or more by whole calls
                assert len(kept) >= ends["acme"].seq
                assert ends["acme"] == ChainEnd(
                    ends["acme"].seq, mac("acme", ends["acme"].seq), b"end %d" % ends["acme"].seq
                )
            assert len(kept) % 2 == 0
            await asyncio.sleep(0)
        await recording

    async def test_audit_lines_come_by_chain_and_number_beyond_a_place(self, stores: Pair) -> None:
        one, other = stores
        for chain, count in {"b": 12, "a": 3, "c": 1}.items():
            await one.record(lines(chain, 1, count), end=b"")
        whole = [*lines("a", 1, 3), *lines("b", 1, 12), *lines("c", 1, 1)]
        assert await other.audit() == whole
        assert await other.audit(limit=5) == whole[:5]
        assert await other.audit(after=("a", 2)) == whole[2:]
        assert await other.audit(after=("b", 9), limit=2) == whole[12:14]
        assert await other.audit(after=("b", 99)) == whole[15:]
        assert await other.audit(after=("c", 1)) == []

    async def test_each_filter_of_the_audit_may_be_none(self, stores: Pair) -> None:
        one, other = stores
        made: list[AuditRow] = []
        for chain in ("acme", "other"):
            rows = [
                replace(row, tenant=tenant, session=session)
                for row, (tenant, session) in zip(
                    lines(chain, 1, 6), itertools.product(["acme", "other"], ["", "s", "t"]), strict=True
                )
            ]
            assert await one.record(rows, end=b"")
            made += rows
        for of_tenant, of_session, of_chain in itertools.product(
            [None, "acme", "other", "nobody"], [None, "", "s", "nobody"], [None, "acme", "nobody"]
        ):
            wanted = [
                row
                for row in made
                if of_tenant in (None, row.tenant)
                and of_session in (None, row.session)
                and of_chain in (None, row.chain)
            ]
            assert await other.audit(tenant=of_tenant, session=of_session, chain=of_chain) == wanted
            after = await other.audit(tenant=of_tenant, session=of_session, chain=of_chain, after=("acme", 4), limit=3)
            assert after == [row for row in wanted if (row.chain, row.seq) > ("acme", 4)][:3]

    # -- closing -----------------------------------------------------------------------------------------------------

    async def test_an_append_whose_caller_is_cancelled_is_awaited_to_its_outcome(self, stores: Pair) -> None:
        one, other = stores
        cancelled = 0
        for round in range(20):
            session = f"s{round}"
            sending = asyncio.ensure_future(one.append(head_at(session, 2), log(session, 1, 2)))
            for _ in range(round % 5):
                await asyncio.sleep(0)
            sending.cancel()
            outcome = (await asyncio.gather(sending, return_exceptions=True))[0]
            cancelled += isinstance(outcome, asyncio.CancelledError)
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
            head, kept = await other.head(session), await other.entries(session, after=0, limit=9)
            assert (head, kept) in [(None, []), (head_at(session, 2), log(session, 1, 2))]
            assert outcome is not None or kept
            # Another append of the same handle has gone through: had the first been left on its way, it would show.
            await one.append(head_at(f"t{round}", 1), [])
            for _ in range(10):
                await asyncio.sleep(0)
            assert await other.head(session) == head
        assert cancelled

    async def test_closing_finishes_the_writes_already_sent(self, connect: Connect) -> None:
        first = await opened(connect)
        sending = [
            asyncio.ensure_future(first.append(head_at(f"s{number}", 2), log(f"s{number}", 1, 2)))
            for number in range(40)
        ]
        recording = asyncio.ensure_future(first.record(lines("acme", 1, 1), end=b""))
        await asyncio.sleep(0)  # each has been sent, none has been answered
        await first.close()
        await asyncio.gather(*sending)
        assert await recording is True
        second = await opened(connect)
        for number in range(40):
            assert await second.entries(f"s{number}", after=0, limit=9) == log(f"s{number}", 1, 2)
        assert await second.audit() == lines("acme", 1, 1)
        await second.close()

    async def test_a_store_can_be_closed_twice(self, connect: Connect) -> None:
        store = await opened(connect)
        await store.close()
        await store.close()
