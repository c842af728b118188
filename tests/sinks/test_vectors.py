"""The vector sink keeps the port's promises, and what is its own: what did not change is not embedded again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import apsw
import numpy as np
import pytest

from holdfast.embedders.lexical import LexicalEmbedder
from holdfast.errors import LiveMovedError, SinkUnavailableError, TamperedError, VerificationFailedError
from holdfast.sinks.vectors import VectorSink
from holdfast.testing.sink import (
    NOW,
    TARGET,
    Connect,
    SinkSuite,
    deliver,
    make,
    manifest,
    numbered,
    prepare,
    receipt_for,
)


class CountingEmbedder(LexicalEmbedder):
    """The lexical embedder, and which texts it was given."""

    def __init__(self, name: str = "lexical-hash-1") -> None:
        self.name = name
        self.given: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        self.given += texts
        return await super().embed(texts)


class TestVectorSink(SinkSuite):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return partial(VectorSink.open, tmp_path / "vectors.sqlite", embedder=LexicalEmbedder())


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
async def sink(tmp_path: Path, embedder: CountingEmbedder) -> AsyncIterator[VectorSink]:
    sink = VectorSink.open(tmp_path / "vectors.sqlite", embedder=embedder)
    yield sink
    await sink.close()


def counts(path: Path) -> tuple[int, ...]:
    """How many entries, records and vectors the file has."""
    db = apsw.Connection(str(path))
    try:
        return tuple(
            db.execute(query).get
            for query in ("SELECT count(*) FROM entry", "SELECT count(*) FROM record", "SELECT count(*) FROM vector")
        )
    finally:
        db.close()


async def test_only_text_that_changed_is_embedded_again(sink: VectorSink, embedder: CountingEmbedder) -> None:
    records = numbered("alpha", 10)
    forecast = await sink.forecast(TARGET, records)
    assert (forecast.records, forecast.new, forecast.embeds) == (10, 10, 10)
    assert forecast.tokens == sum(-(-len(record.text) // 4) for record in records)
    await deliver(sink, "r1", records)
    assert sorted(embedder.given) == sorted(record.text for record in records)
    embedder.given.clear()
    changed = [
        *records[:8],
        make("chunks/8", "quite another text", {}),
        make("chunks/9", records[9].text, {"new": "body"}),
    ]
    forecast = await sink.forecast(TARGET, changed)
    assert (forecast.new, forecast.embeds) == (2, 1)
    await deliver(sink, "r2", changed, previous="r1")
    assert embedder.given == ["quite another text"]


async def test_a_text_that_stands_in_several_records_is_embedded_once(
    sink: VectorSink, embedder: CountingEmbedder
) -> None:
    records = [make(f"chunks/{number}", "the same words", {"number": number}) for number in range(5)]
    assert (await sink.forecast(TARGET, records)).embeds == 1
    await sink.begin(TARGET, "r1", "a", now=NOW)
    await sink.stage(TARGET, "r1", "a", records, start=0)
    assert embedder.given == ["the same words"]
    assert await sink.verify(TARGET, "r1") == manifest(records)


async def test_a_failed_publication_does_not_have_to_embed_again(sink: VectorSink, embedder: CountingEmbedder) -> None:
    records = numbered("alpha", 6)
    await prepare(sink, "r1", records, attempt="a")
    await sink.abandon(TARGET, "r1")
    embedder.given.clear()
    await deliver(sink, "r1", records, attempt="b")
    assert embedder.given == []


async def test_tenants_share_no_vectors_so_a_forecast_tells_nothing(
    sink: VectorSink, embedder: CountingEmbedder
) -> None:
    records = numbered("alpha", 3)
    await deliver(sink, "r1", records, target="acme/a")
    forecast = await sink.forecast("rival/a", records)
    assert (forecast.new, forecast.embeds) == (3, 3)


async def test_a_fenced_attempt_is_refused_before_anything_is_embedded(
    sink: VectorSink, embedder: CountingEmbedder
) -> None:
    await sink.begin(TARGET, "r1", "a", now=NOW)
    await sink.begin(TARGET, "r1", "b", now=NOW)
    with pytest.raises(LiveMovedError):
        await sink.stage(TARGET, "r1", "a", numbered("alpha", 3), start=0)
    assert embedder.given == []


async def test_an_attempt_fenced_out_while_it_embeds_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    other = VectorSink.open(path, embedder=LexicalEmbedder())

    class Interrupted(LexicalEmbedder):
        async def embed(self, texts: Sequence[str]) -> list[bytes]:
            await other.begin(TARGET, "r1", "b", now=NOW)
            return await super().embed(texts)

    slow = VectorSink.open(path, embedder=Interrupted())
    await slow.begin(TARGET, "r1", "a", now=NOW)
    with pytest.raises(LiveMovedError):
        await slow.stage(TARGET, "r1", "a", numbered("alpha", 3), start=0)
    assert await other.verify(TARGET, "r1") == manifest([])
    assert counts(path) == (0, 0, 0)
    await slow.close()
    await other.close()


async def test_vectors_cleaned_away_while_others_are_embedded_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    other = VectorSink.open(path, embedder=LexicalEmbedder())
    shared = numbered("alpha", 3)
    await deliver(other, "r1", shared)
    await deliver(other, "r2", [], previous="r1")

    class Interrupted(CountingEmbedder):
        async def embed(self, texts: Sequence[str]) -> list[bytes]:
            await other.clean(TARGET, keep=0)
            return await super().embed(texts)

    embedder = Interrupted()
    sink = VectorSink.open(path, embedder=embedder)
    records = [*shared, make("chunks/new", "a new text", {})]
    await sink.begin(TARGET, "r3", "a", now=NOW)
    await sink.stage(TARGET, "r3", "a", records, start=0)
    assert embedder.given[0] == "a new text"
    assert sorted(embedder.given) == sorted(record.text for record in records)
    assert await sink.verify(TARGET, "r3") == manifest(records)
    await sink.close()
    await other.close()


async def test_another_embedder_embeds_everything_anew_and_mixes_with_nothing(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    old, new = CountingEmbedder("old-1"), CountingEmbedder("new-1")
    first = VectorSink.open(path, embedder=old)
    records = numbered("alpha", 3)
    await deliver(first, "r1", records)
    second = VectorSink.open(path, embedder=new)
    assert (await second.forecast(TARGET, records)).embeds == 3
    assert await second.search("acme", "alpha", limit=9) == []
    await deliver(second, "r2", records, previous="r1")
    assert sorted(new.given[1:]) == sorted(record.text for record in records)
    assert {hit.revision for hit in await second.search("acme", "alpha", limit=9)} == {"r2"}
    await first.close()
    await second.close()


async def test_what_nothing_holds_any_more_is_cleaned_away(sink: VectorSink, tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    await deliver(sink, "r1", numbered("alpha", 10))
    await deliver(sink, "r2", [*numbered("alpha", 4), make("chunks/x", "x", {})], previous="r1")
    await prepare(sink, "r3", numbered("gone", 5))
    await sink.abandon(TARGET, "r3")
    assert counts(path) == (15, 16, 16)
    await sink.clean(TARGET, keep=1)
    assert counts(path) == (15, 11, 11)
    await sink.clean(TARGET, keep=0)
    assert counts(path) == (5, 5, 5)
    assert len(await sink.search("acme", "alpha", limit=9)) >= 4


async def test_restaging_other_records_leaves_no_orphans(sink: VectorSink, tmp_path: Path) -> None:
    await sink.begin(TARGET, "r1", "a", now=NOW)
    await sink.stage(TARGET, "r1", "a", numbered("alpha", 3), start=0)
    await sink.stage(TARGET, "r1", "a", numbered("beta", 3), start=0)
    await sink.switch(TARGET, "r1", "a", receipt=receipt_for("r1", numbered("beta", 3)))
    await sink.clean(TARGET, keep=0)
    assert counts(tmp_path / "vectors.sqlite") == (3, 3, 3)


class BadEmbedder(LexicalEmbedder):
    """A model that gives vectors of the wrong length, or of no length."""

    def __init__(self, vector: bytes) -> None:
        self.vector = vector

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        return [self.vector for _ in texts]


@pytest.mark.parametrize(
    "vector",
    [b"", bytes(4 * 511), bytes(4 * 512), np.full(512, np.nan, "<f4").tobytes(), np.full(512, 3.0, "<f4").tobytes()],
    ids=["empty", "short", "zero", "nan", "long"],
)
async def test_a_vector_that_cannot_be_right_does_not_verify_and_is_made_again(tmp_path: Path, vector: bytes) -> None:
    path, records = tmp_path / "vectors.sqlite", numbered("alpha", 2)
    bad = VectorSink.open(path, embedder=BadEmbedder(vector))
    await prepare(bad, "r1", records)
    with pytest.raises(VerificationFailedError):
        await bad.verify(TARGET, "r1")
    await bad.close()
    good = VectorSink.open(path, embedder=LexicalEmbedder())
    await deliver(good, "r1", records, attempt="b")
    assert len(await good.search("acme", "alpha", limit=9)) == 2
    await good.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE record SET text = text || '!'",
        "UPDATE record SET body = x'7b'",
        "UPDATE record SET hash = ''",
        "UPDATE vector SET value = zeroblob(2048)",
        "DELETE FROM vector",
    ],
)
async def test_damage_on_disk_does_not_verify_and_staging_again_mends_it(tmp_path: Path, damage: str) -> None:
    path, records = tmp_path / "vectors.sqlite", numbered("alpha", 3)
    sink = VectorSink.open(path, embedder=LexicalEmbedder())
    await prepare(sink, "r1", records)
    db = apsw.Connection(str(path))
    db.execute(damage)
    db.close()
    with pytest.raises(VerificationFailedError):
        await sink.verify(TARGET, "r1")
    await sink.stage(TARGET, "r1", "a", records, start=0)
    assert await sink.verify(TARGET, "r1") == manifest(records)
    await sink.close()


async def test_live_vectors_of_the_wrong_size_are_reported(tmp_path: Path, sink: VectorSink) -> None:
    await deliver(sink, "r1", numbered("alpha", 3))
    db = apsw.Connection(str(tmp_path / "vectors.sqlite"))
    db.execute("UPDATE vector SET value = x'00'")
    db.execute("UPDATE flip SET receipt = x'00'")
    db.close()
    with pytest.raises(TamperedError):
        await sink.search("acme", "alpha", limit=3)
    with pytest.raises(TamperedError):
        await sink.live(TARGET)


async def test_the_score_is_the_cosine_of_query_and_text(sink: VectorSink, embedder: CountingEmbedder) -> None:
    records = [make(f"chunks/{n}", text, {}) for n, text in enumerate(["lease and fence", "fence", "a lease of land"])]
    await deliver(sink, "r1", records)
    hits = await sink.search("acme", "lease fence", limit=3)
    query = np.frombuffer(embedder.vectors(["lease fence"])[0], "<f4")
    for hit in hits:
        vector = np.frombuffer(embedder.vectors([hit.text])[0], "<f4")
        assert hit.score == pytest.approx(float(vector @ query), abs=1e-5)
    assert hits[0].text == "lease and fence"


async def test_equal_matches_come_in_the_order_of_targets_and_records(sink: VectorSink) -> None:
    for target in ("acme/b", "acme/a"):
        await deliver(sink, "r1", [make(f"chunks/{n}", "same words", {}) for n in range(3)], target=target)
    hits = await sink.search("acme", "same words", limit=4)
    assert [(hit.target, hit.key) for hit in hits] == [
        ("acme/a", "chunks/0"),
        ("acme/a", "chunks/1"),
        ("acme/a", "chunks/2"),
        ("acme/b", "chunks/0"),
    ]


async def test_many_tenants_are_searched_with_a_few_in_memory(sink: VectorSink) -> None:
    for number in range(40):
        await deliver(sink, "r1", [make("chunks/1", f"word{number} shared", {})], target=f"tenant{number}/a")
    for _ in range(2):
        for number in range(40):
            (hit,) = await sink.search(f"tenant{number}", "shared", limit=9)
            assert hit.text == f"word{number} shared"


async def test_a_closed_sink_says_so(tmp_path: Path) -> None:
    sink = VectorSink.open(tmp_path / "vectors.sqlite", embedder=LexicalEmbedder())
    await sink.close()
    await sink.close()
    with pytest.raises(SinkUnavailableError):
        await sink.begin(TARGET, "r1", "a", now=NOW)


async def test_publishers_of_different_targets_do_not_wait_for_each_other(sink: VectorSink) -> None:
    await asyncio.gather(
        *(deliver(sink, "r1", numbered(f"word{number}", 3), target=f"acme/{number}") for number in range(12))
    )
    assert len(await sink.search("acme", "shared", limit=99)) == 36
