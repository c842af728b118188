"""The suite for sinks: every sentence of ``ports/sink.py`` has its test here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.errors import ConflictError, LiveMovedError, VerificationFailedError
from holdfast.ports.sink import Hit, Manifest, Receipt, Record, Sink, manifest_of, record_digest
from holdfast.testing.handles import Connecting, opened

Connect = Connecting[Sink]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TARGET = "acme/handbook"


class SinkSuite:
    """Subclass it and give ``connect``: called twice, it gives two handles on the same, at first empty, data.

    Attributes:
        searches: whether the sink has a search.
    """

    searches = True

    @pytest.fixture
    def connect(self) -> Connect:
        raise NotImplementedError("the binding of the suite gives `connect`")

    @pytest.fixture
    async def sinks(self, connect: Connect) -> AsyncIterator[tuple[Sink, Sink]]:
        pair = (await opened(connect), await opened(connect))
        yield pair
        for sink in pair:
            await sink.close()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def test_where_nothing_was_published_nothing_is_live(self, sinks: Any) -> None:
        one, _ = sinks
        assert await one.live(TARGET) is None
        assert await one.records(TARGET) == []
        assert await one.published(TARGET, "r1") is None
        assert await one.search("acme", "word", limit=5) == []

    async def test_what_is_published_is_live_for_every_handle_in_order(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 12)
        receipt = await deliver(one, "r1", records)
        assert receipt.revision == "r1"
        for sink in (one, other):
            assert await sink.live(TARGET) == receipt
            assert await sink.records(TARGET) == records
            assert await sink.published(TARGET, "r1") == receipt

    async def test_what_is_published_outlives_the_handle(self, connect: Connect) -> None:
        first = await opened(connect)
        records = numbered("alpha", 3)
        receipt = await deliver(first, "r1", records)
        await first.close()
        second = await opened(connect)
        assert await second.live(TARGET) == receipt
        assert await second.records(TARGET) == records
        await second.close()

    async def test_a_publication_without_records_is_one(self, sinks: Any) -> None:
        one, other = sinks
        receipt = await deliver(one, "r1", [])
        assert receipt.manifest.count == 0
        assert await other.live(TARGET) == receipt
        assert await other.records(TARGET) == []

    async def test_a_record_comes_back_as_it_went_in(self, sinks: Any) -> None:
        one, other = sinks
        odd = [
            make("chunks/1", "line\nline\r\n\u2028 end \U0001f600 \x0b", {"ключ": [1, 2.5, None, True, {"": "x"}]}),
            make("chunks/2", "", {"no": "text"}),
            make("chunks/ü 3", "same", []),
            make("chunks/4", "same", "a body that is text"),
        ]
        await deliver(one, "r1", odd)
        assert await other.records(TARGET) == odd

    @pytest.mark.parametrize(
        "target",
        [
            "acme/../../up",
            "..",
            ".",
            "acme/a b",
            "acme/%2e",
            "ACME/Handbook",
            "acme/ünï",
            "acme/\n",
            "acme/" + "x" * 900,
            "",
        ],
    )
    async def test_targets_of_any_name_do_not_touch_each_other(self, sinks: Any, target: str) -> None:
        one, other = sinks
        mine, theirs = numbered("alpha", 2), numbered("beta", 3)
        await deliver(one, "r1", theirs, target="acme/handbook")
        await deliver(one, "r1", mine, target=target)
        assert await other.records(target) == mine
        assert await other.records("acme/handbook") == theirs
        assert (await other.live(target)).target == target

    async def test_a_forecast_counts_what_is_new_and_changes_nothing(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 4)
        assert (await one.forecast(TARGET, records)).new == 4
        await deliver(one, "r1", records)
        changed = [*records[:3], make(records[3].key, "another text", {})]
        forecast = await other.forecast(TARGET, changed)
        assert (forecast.records, forecast.new) == (4, 1)
        assert forecast.embeds <= forecast.records
        assert (forecast.tokens > 0) is (forecast.embeds > 0)
        same = await other.forecast(TARGET, records)
        assert (same.new, same.embeds, same.tokens) == (0, 0, 0)
        assert await other.records(TARGET) == records

    # -- staging -----------------------------------------------------------------------------------------------------

    async def test_what_is_staged_is_not_seen_by_readers(self, sinks: Any) -> None:
        one, other = sinks
        old, new = numbered("alpha", 3), numbered("beta", 3)
        receipt = await deliver(one, "r1", old)
        await prepare(one, "r2", new)
        for sink in (one, other):
            assert await sink.live(TARGET) == receipt
            assert await sink.records(TARGET) == old
            assert await sink.published(TARGET, "r2") is None
            assert texts(await sink.search("acme", "beta", limit=9)).isdisjoint(record.text for record in new)

    async def test_records_may_be_staged_in_parts_and_the_parts_again(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 10)
        await one.begin(TARGET, "r1", "a", now=NOW)
        for start in (5, 0, 5):
            await one.stage(TARGET, "r1", "a", records[start : start + 5], start=start)
        await other.stage(TARGET, "r1", "a", records[3:8], start=3)
        await other.stage(TARGET, "r1", "a", [], start=10)
        assert await other.verify(TARGET, "r1") == manifest(records)
        await other.switch(TARGET, "r1", "a", receipt=receipt_for("r1", records))
        assert await one.records(TARGET) == records

    async def test_beginning_again_with_the_same_attempt_changes_nothing(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 3)
        await one.begin(TARGET, "r1", "a", now=NOW)
        await one.stage(TARGET, "r1", "a", records, start=0)
        await other.begin(TARGET, "r1", "a", now=NOW + timedelta(seconds=9))
        assert await one.verify(TARGET, "r1") == manifest(records)

    async def test_a_new_attempt_starts_empty_and_fences_the_old_one_out(self, sinks: Any) -> None:
        one, other = sinks
        old, new = numbered("alpha", 5), numbered("beta", 2)
        await one.begin(TARGET, "r1", "a", now=NOW)
        await one.stage(TARGET, "r1", "a", old, start=0)
        await other.begin(TARGET, "r1", "b", now=NOW)
        assert await other.verify(TARGET, "r1") == manifest([])
        with pytest.raises(LiveMovedError):
            await one.stage(TARGET, "r1", "a", old, start=0)
        with pytest.raises(LiveMovedError):
            await one.begin(TARGET, "r1", "a", now=NOW)
        await other.stage(TARGET, "r1", "b", new, start=0)
        with pytest.raises(LiveMovedError):
            await one.switch(TARGET, "r1", "a", receipt=receipt_for("r1", new))
        assert await one.live(TARGET) is None
        await other.switch(TARGET, "r1", "b", receipt=receipt_for("r1", new))
        assert await one.records(TARGET) == new

    async def test_an_attempt_that_was_never_begun_is_refused(self, sinks: Any) -> None:
        one, _ = sinks
        with pytest.raises(LiveMovedError):
            await one.stage(TARGET, "r1", "a", numbered("alpha", 1), start=0)
        with pytest.raises(LiveMovedError):
            await one.switch(TARGET, "r1", "a", receipt=receipt_for("r1", []))
        assert await one.live(TARGET) is None

    async def test_an_abandoned_revision_is_gone_and_its_attempt_fenced_out(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 3)
        await prepare(one, "r1", records)
        await other.abandon(TARGET, "r1")
        await other.abandon(TARGET, "r1")
        with pytest.raises(VerificationFailedError):
            await one.verify(TARGET, "r1")
        for refused in (
            one.stage(TARGET, "r1", "a", records, start=0),
            one.begin(TARGET, "r1", "a", now=NOW),
            one.switch(TARGET, "r1", "a", receipt=receipt_for("r1", records)),
        ):
            with pytest.raises(LiveMovedError):
                await refused
        assert await one.live(TARGET) is None
        receipt = await deliver(one, "r1", records, attempt="b")
        assert await other.live(TARGET) == receipt

    async def test_abandoning_what_is_live_was_live_or_never_was_changes_nothing(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 3)
        first = await deliver(one, "r1", records)
        await one.abandon(TARGET, "r1")
        await one.abandon(TARGET, "never")
        assert await other.live(TARGET) == first
        assert await other.records(TARGET) == records
        second = await deliver(one, "r2", numbered("beta", 1), previous="r1")
        await one.abandon(TARGET, "r1")
        await other.rollback(TARGET, receipt=undoing(second, to="r1"))
        assert await one.records(TARGET) == records

    async def test_a_revision_that_is_live_or_was_is_left_as_it_is(self, sinks: Any) -> None:
        one, other = sinks
        records, others = numbered("alpha", 3), numbered("beta", 3)
        first = await deliver(one, "r1", records)
        for _ in ("live", "was live"):
            await other.begin(TARGET, "r1", "b", now=NOW)
            await other.stage(TARGET, "r1", "b", others, start=0)
            assert await other.verify(TARGET, "r1") == manifest(records)
            assert await other.switch(TARGET, "r1", "b", receipt=receipt_for("r1", others)) == first
            if (await one.live(TARGET)).revision == "r1":
                await deliver(one, "r2", others, previous="r1")
        assert await one.records(TARGET) == others

    # -- verifying ---------------------------------------------------------------------------------------------------

    async def test_verify_counts_and_hashes_what_is_staged(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 7)
        await prepare(one, "r1", records)
        assert await other.verify(TARGET, "r1") == manifest(records) == manifest_of((r.key, r.digest) for r in records)
        await one.switch(TARGET, "r1", "a", receipt=receipt_for("r1", records))
        assert await other.verify(TARGET, "r1") == manifest(records)

    async def test_what_was_never_begun_does_not_verify(self, sinks: Any) -> None:
        with pytest.raises(VerificationFailedError):
            await sinks[0].verify(TARGET, "r1")

    async def test_a_missing_record_does_not_verify(self, sinks: Any) -> None:
        one, _ = sinks
        records = numbered("alpha", 4)
        await one.begin(TARGET, "r1", "a", now=NOW)
        await one.stage(TARGET, "r1", "a", records[:1], start=0)
        await one.stage(TARGET, "r1", "a", records[2:], start=2)
        with pytest.raises(VerificationFailedError):
            await one.verify(TARGET, "r1")

    async def test_two_records_of_one_key_do_not_verify(self, sinks: Any) -> None:
        one, _ = sinks
        await prepare(one, "r1", [make("chunks/1", "alpha", {}), make("chunks/1", "beta", {})])
        with pytest.raises(VerificationFailedError):
            await one.verify(TARGET, "r1")

    async def test_a_record_that_is_not_what_its_digest_says_does_not_verify(self, sinks: Any) -> None:
        one, _ = sinks
        await prepare(one, "r1", [Record("chunks/1", "alpha", {}, record_digest("beta", {}))])
        with pytest.raises(VerificationFailedError):
            await one.verify(TARGET, "r1")

    # -- switching ---------------------------------------------------------------------------------------------------

    async def test_a_switch_asked_for_again_gives_the_receipt_that_was_kept(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 2)
        kept = await deliver(one, "r1", records)
        later = receipt_for("r1", records, at=NOW + timedelta(hours=1))
        assert await other.switch(TARGET, "r1", "a", receipt=later) == kept
        await deliver(one, "r2", numbered("beta", 2), previous="r1")
        assert await other.switch(TARGET, "r1", "a", receipt=later) == kept
        assert (await one.live(TARGET)).revision == "r2"
        assert await one.published(TARGET, "r1") == kept

    async def test_a_switch_from_something_else_than_what_is_live_is_refused(self, sinks: Any) -> None:
        one, other = sinks
        first = await deliver(one, "r1", numbered("alpha", 2))
        new = numbered("beta", 2)
        await prepare(other, "r2", new)
        for previous in (None, "r0", "r2"):
            with pytest.raises(LiveMovedError):
                await other.switch(TARGET, "r2", "a", receipt=receipt_for("r2", new, previous))
            assert await one.live(TARGET) == first
        assert await one.published(TARGET, "r2") is None
        await other.switch(TARGET, "r2", "a", receipt=receipt_for("r2", new, "r1"))
        assert await one.records(TARGET) == new

    async def test_a_switch_to_what_the_receipt_does_not_say_is_refused(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 3)
        await prepare(one, "r1", records[:2])
        for receipt in (receipt_for("r1", records), receipt_for("r2", records[:2])):
            with pytest.raises(VerificationFailedError):
                await one.switch(TARGET, "r1", "a", receipt=receipt)
        assert await other.live(TARGET) is None

    async def test_what_was_rolled_back_is_not_made_live_again(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 2)
        receipt = await deliver(one, "r1", records)
        await one.rollback(TARGET, receipt=undoing(receipt, to=None))
        await other.begin(TARGET, "r1", "b", now=NOW)
        for attempt in ("a", "b"):
            with pytest.raises(LiveMovedError):
                await other.switch(TARGET, "r1", attempt, receipt=receipt_for("r1", records))
        assert await other.live(TARGET) is None
        assert await other.published(TARGET, "r1") == receipt

    async def test_of_two_that_switch_at_once_one_wins_and_one_is_told(self, sinks: Any) -> None:
        previous = None
        for turn in range(8):
            names = [f"r{turn}-{number}" for number in range(4)]
            records = {name: numbered(name, 3) for name in names}
            for at, name in enumerate(names):
                await prepare(sinks[at % 2], name, records[name])
            outcomes = await asyncio.gather(
                *(
                    sinks[at % 2].switch(TARGET, name, "a", receipt=receipt_for(name, records[name], previous))
                    for at, name in enumerate(names)
                ),
                return_exceptions=True,
            )
            won = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
            assert len(won) == 1
            assert all(isinstance(outcome, Receipt | LiveMovedError) for outcome in outcomes)
            for sink in sinks:
                assert await sink.live(TARGET) == won[0]
                assert await sink.records(TARGET) == records[str(won[0].revision)]
            previous = won[0].revision

    async def test_the_same_switch_sent_many_times_at_once_has_one_receipt(self, sinks: Any) -> None:
        records = numbered("alpha", 3)
        await prepare(sinks[0], "r1", records)
        asked = [receipt_for("r1", records, at=NOW + timedelta(seconds=second)) for second in range(6)]
        given = await asyncio.gather(
            *(sinks[at % 2].switch(TARGET, "r1", "a", receipt=receipt) for at, receipt in enumerate(asked))
        )
        assert len({receipt.at for receipt in given}) == 1
        assert await sinks[1].live(TARGET) == given[0]

    async def test_of_many_attempts_at_one_revision_one_switches(self, sinks: Any) -> None:
        records = numbered("alpha", 3)

        async def attempt(number: int) -> Receipt | ConflictError:
            sink = sinks[number % 2]
            try:
                return await deliver(sink, "r1", records, attempt=f"a{number}", at=NOW + timedelta(seconds=number))
            except (LiveMovedError, VerificationFailedError) as error:
                return LiveMovedError(TARGET, None, str(error))

        outcomes = await asyncio.gather(*(attempt(number) for number in range(6)))
        receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
        assert receipts
        assert len({receipt.at for receipt in receipts}) == 1
        assert await sinks[0].records(TARGET) == records

    async def test_readers_see_a_whole_revision_and_never_none_while_others_are_published(self, sinks: Any) -> None:
        writer, reader = sinks
        await deliver(writer, "r0", numbered("word0", 6))
        done = asyncio.Event()

        async def publish() -> None:
            for turn in range(1, 13):
                await deliver(writer, f"r{turn}", numbered(f"word{turn}", 6), previous=f"r{turn - 1}")
                await writer.clean(TARGET, keep=1)
            done.set()

        seen: set[str] = set()
        task = asyncio.create_task(publish())
        while not done.is_set() and not task.done():
            records = await reader.records(TARGET)
            words = {record.text.split()[0] for record in records}
            assert len(records) == 6
            assert len(words) == 1
            seen |= words
            hits = await reader.search("acme", "shared", limit=20)
            assert len({hit.revision for hit in hits}) == len({hit.text.split()[0] for hit in hits}) == self.searches
            assert len(hits) == 6 * self.searches
            await asyncio.sleep(0)
        await task
        assert {record.text.split()[0] for record in await reader.records(TARGET)} == {"word12"}

    # -- rolling back ------------------------------------------------------------------------------------------------

    async def test_a_rollback_makes_what_was_live_before_live_again(self, sinks: Any) -> None:
        one, other = sinks
        old = numbered("alpha", 3)
        await deliver(one, "r1", old)
        second = await deliver(one, "r2", numbered("beta", 3), previous="r1")
        back = await one.rollback(TARGET, receipt=undoing(second, to="r1"))
        assert (back.revision, back.rolls_back) == ("r1", "r2")
        for sink in (one, other):
            assert await sink.live(TARGET) == back
            assert await sink.records(TARGET) == old
            assert texts(await sink.search("acme", "beta", limit=9)) <= {record.text for record in old}

    async def test_a_rollback_to_nothing_leaves_nothing_live(self, sinks: Any) -> None:
        one, other = sinks
        first = await deliver(one, "r1", numbered("alpha", 3))
        back = await one.rollback(TARGET, receipt=undoing(first, to=None))
        assert back.revision is None
        for sink in (one, other):
            assert await sink.live(TARGET) is None
            assert await sink.records(TARGET) == []
            assert await sink.search("acme", "alpha", limit=9) == []
        again = await deliver(other, "r2", numbered("beta", 2), previous=None)
        assert await one.live(TARGET) == again

    async def test_a_rollback_asked_for_again_gives_the_receipt_that_was_kept(self, sinks: Any) -> None:
        one, other = sinks
        await deliver(one, "r1", numbered("alpha", 3))
        second = await deliver(one, "r2", numbered("beta", 3), previous="r1")
        asked = undoing(second, to="r1")
        kept = await one.rollback(TARGET, receipt=asked)
        later = undoing(second, to="r1", at=NOW + timedelta(hours=2))
        assert await other.rollback(TARGET, receipt=later) == kept
        await deliver(one, "r3", numbered("gamma", 3), previous="r1")
        assert await other.rollback(TARGET, receipt=later) == kept
        assert (await one.live(TARGET)).revision == "r3"

    async def test_a_rollback_of_what_is_not_live_is_refused(self, sinks: Any) -> None:
        one, other = sinks
        first = await deliver(one, "r1", numbered("alpha", 3))
        second = await deliver(one, "r2", numbered("beta", 3), previous="r1")
        with pytest.raises(LiveMovedError):
            await other.rollback(TARGET, receipt=undoing(first, to=None))
        with pytest.raises(LiveMovedError):
            await other.rollback("acme/other", receipt=undoing(first, to=None))
        assert await one.live(TARGET) == second

    async def test_a_rollback_to_what_is_not_kept_is_refused(self, sinks: Any) -> None:
        one, other = sinks
        await deliver(one, "r1", numbered("alpha", 3))
        second = await deliver(one, "r2", numbered("beta", 3), previous="r1")
        await prepare(one, "staged", numbered("gamma", 1))
        for unknown in ("never", "staged", "r2"):
            with pytest.raises(VerificationFailedError):
                await other.rollback(TARGET, receipt=undoing(second, to=unknown))
        await one.clean(TARGET, keep=0)
        with pytest.raises(VerificationFailedError):
            await other.rollback(TARGET, receipt=undoing(second, to="r1"))
        assert await one.live(TARGET) == second

    async def test_of_two_rollbacks_at_once_one_receipt_is_kept(self, sinks: Any) -> None:
        one, other = sinks
        await deliver(one, "r1", numbered("alpha", 3))
        second = await deliver(one, "r2", numbered("beta", 3), previous="r1")
        asked = [undoing(second, to="r1", at=NOW + timedelta(seconds=number)) for number in range(6)]
        given = await asyncio.gather(
            *(sinks[at % 2].rollback(TARGET, receipt=receipt) for at, receipt in enumerate(asked))
        )
        assert len({receipt.at for receipt in given}) == 1
        assert await other.live(TARGET) == given[0]

    # -- cleaning ----------------------------------------------------------------------------------------------------

    async def test_cleaning_keeps_what_is_live_and_so_many_before_it(self, sinks: Any) -> None:
        one, other = sinks
        receipts = [await deliver(one, "r0", numbered("word0", 2))]
        for turn in range(1, 6):
            receipts.append(await deliver(one, f"r{turn}", numbered(f"word{turn}", 2), previous=f"r{turn - 1}"))
        assert await other.clean(TARGET, keep=2) == 3
        assert await other.clean(TARGET, keep=2) == 0
        assert await one.records(TARGET) == numbered("word5", 2)
        for turn in (5, 4):
            await one.rollback(TARGET, receipt=undoing(receipts[turn], to=f"r{turn - 1}"))
            assert await other.records(TARGET) == numbered(f"word{turn - 1}", 2)
        with pytest.raises(VerificationFailedError):
            await one.rollback(TARGET, receipt=undoing(receipts[3], to="r2"))

    async def test_receipts_outlive_cleaning(self, sinks: Any) -> None:
        one, other = sinks
        records = numbered("alpha", 2)
        first = await deliver(one, "r1", records)
        await deliver(one, "r2", numbered("beta", 2), previous="r1")
        await one.clean(TARGET, keep=0)
        assert await other.published(TARGET, "r1") == first
        assert await other.switch(TARGET, "r1", "a", receipt=receipt_for("r1", records)) == first

    async def test_cleaning_drops_what_was_rolled_back(self, sinks: Any) -> None:
        one, other = sinks
        old = numbered("alpha", 2)
        await deliver(one, "r1", old)
        second = await deliver(one, "r2", numbered("beta", 2), previous="r1")
        back = await one.rollback(TARGET, receipt=undoing(second, to="r1"))
        assert await other.clean(TARGET, keep=5) == 1
        assert await one.records(TARGET) == old
        assert await one.live(TARGET) == back

    async def test_cleaning_leaves_what_is_being_staged(self, sinks: Any) -> None:
        one, other = sinks
        await deliver(one, "r1", numbered("alpha", 2))
        new = numbered("beta", 4)
        await prepare(one, "r2", new)
        assert await other.clean(TARGET, keep=0) == 0
        assert await other.clean("acme/nothing", keep=0) == 0
        assert await one.verify(TARGET, "r2") == manifest(new)
        await one.switch(TARGET, "r2", "a", receipt=receipt_for("r2", new, "r1"))
        assert await other.records(TARGET) == new

    async def test_cleaning_one_target_hurts_no_other_that_holds_the_same_records(self, sinks: Any) -> None:
        one, other = sinks
        shared = numbered("alpha", 3)
        await deliver(one, "r1", shared)
        await deliver(one, "r1", shared, target="acme/other")
        await prepare(one, "r9", shared, target="acme/third")
        await deliver(one, "r2", numbered("beta", 1), previous="r1")
        assert await one.clean(TARGET, keep=0) == 1
        assert await other.records("acme/other") == shared
        assert await other.verify("acme/other", "r1") == manifest(shared)
        assert await other.verify("acme/third", "r9") == manifest(shared)

    # -- searching ---------------------------------------------------------------------------------------------------

    async def test_a_search_finds_the_best_live_records_of_the_tenant_best_first(self, sinks: Any) -> None:
        one, other = sinks
        if not self.searches:
            pytest.skip("this sink has no search")
        wanted = make("chunks/3", "A lease is the timed right to write.", {"n": 3})
        await deliver(one, "r1", [*numbered("penguin", 2), wanted, make("chunks/4", "", {"no": "text"})])
        await deliver(one, "r1", [make("chunks/1", "A lease elsewhere, timed.", {})], target="acme/more")
        await deliver(one, "r1", [make("chunks/1", "A lease is the timed right to write.", {})], target="rival/all")
        hits = await other.search("acme", "timed right to write: the lease", limit=3)
        assert (hits[0].target, hits[0].revision, hits[0].key) == (TARGET, "r1", "chunks/3")
        assert (hits[0].text, hits[0].body) == (wanted.text, {"n": 3})
        assert "acme/more" in {hit.target for hit in hits}
        assert all(hit.target != "rival/all" for hit in hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert [hit.target for hit in await other.search("rival", "lease", limit=3)] == ["rival/all"]

    async def test_a_search_gives_no_more_than_asked_for(self, sinks: Any) -> None:
        one, other = sinks
        await deliver(one, "r1", numbered("alpha", 9))
        for limit in (0, 1, 4):
            assert len(await other.search("acme", "alpha", limit=limit)) == (limit if self.searches else 0)
        assert await other.search("acme", " ", limit=9) == []

    async def test_a_search_finds_only_what_is_live_now(self, sinks: Any) -> None:
        one, other = sinks
        first = await deliver(one, "r1", numbered("alpha", 2))
        assert len(await other.search("acme", "alpha", limit=9)) == 2 * self.searches
        second = await deliver(one, "r2", numbered("zebra", 2), previous="r1")
        assert {hit.revision for hit in await other.search("acme", "zebra", limit=9)} == (
            {"r2"} if self.searches else set()
        )
        await one.rollback(TARGET, receipt=undoing(second, to="r1"))
        assert {hit.revision for hit in await other.search("acme", "alpha", limit=9)} == (
            {"r1"} if self.searches else set()
        )
        await one.rollback(TARGET, receipt=undoing(first, to=None))
        assert await other.search("acme", "alpha", limit=9) == []


def make(key: str, text: str, body: Any) -> Record:
    """A record with its digest."""
    return Record(key, text, body, record_digest(text, body))


def numbered(word: str, count: int) -> list[Record]:
    """Records whose texts all have one word, so that a mixture of two revisions shows."""
    return [make(f"chunks/{number}", f"{word} shared number {number}", {"number": number}) for number in range(count)]


def manifest(records: Sequence[Record]) -> Manifest:
    return manifest_of((record.key, record.digest) for record in records)


def receipt_for(
    revision: str,
    records: Sequence[Record],
    previous: str | None = None,
    *,
    target: str = TARGET,
    at: datetime = NOW,
) -> Receipt:
    """The receipt a publisher would bring to the switch."""
    return Receipt("s1", 7, f"seal of {revision}", target, revision, previous, manifest(records), "ana", at)


def undoing(receipt: Receipt, *, to: str | None, at: datetime = NOW) -> Receipt:
    """The receipt with which a publication is rolled back."""
    return Receipt(
        receipt.session,
        receipt.version,
        receipt.seal,
        receipt.target,
        to,
        receipt.revision,
        receipt.manifest,
        "ben",
        at,
        receipt.revision,
    )


def texts(hits: Sequence[Hit]) -> set[str]:
    return {hit.text for hit in hits}


async def prepare(
    sink: Sink, revision: str, records: Sequence[Record], *, attempt: str = "a", target: str = TARGET
) -> None:
    """Begin and stage, in two parts."""
    await sink.begin(target, revision, attempt, now=NOW)
    half = len(records) // 2
    await sink.stage(target, revision, attempt, records[:half], start=0)
    await sink.stage(target, revision, attempt, records[half:], start=half)


async def deliver(
    sink: Sink,
    revision: str,
    records: Sequence[Record],
    *,
    previous: str | None = None,
    attempt: str = "a",
    target: str = TARGET,
    at: datetime = NOW,
) -> Receipt:
    """The whole way of a publication: begin, stage, verify, switch."""
    await prepare(sink, revision, records, attempt=attempt, target=target)
    found = await sink.verify(target, revision)
    if found != manifest(records):
        raise VerificationFailedError(revision, "something else is staged")
    return await sink.switch(
        target, revision, attempt, receipt=receipt_for(revision, records, previous, target=target, at=at)
    )
