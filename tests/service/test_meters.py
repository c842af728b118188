"""The figures: what is counted, in a form Prometheus reads, with bounded labels and nothing of anybody's (S12, S16)."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from holdfast.compose import open_engine
from holdfast.engine.engine import Engine
from holdfast.engine.tiering import Tiers
from holdfast.errors import StoreUnavailableError
from holdfast.model.access import Principal
from holdfast.model.retention import Retention
from holdfast.model.session import LIFECYCLE, Header, Status
from holdfast.ports.hot import Backlog, HotSize
from holdfast.ports.observer import CLOSED, OPENED, PROBING
from holdfast.ports.warm import WarmSize
from holdfast.service import meters as metering
from holdfast.service.meters import Meters, Spread
from holdfast.settings import Settings
from holdfast.testing.clock import START, ManualClock
from holdfast.testing.front import ADMIN as FRONT_ADMIN
from holdfast.testing.front import ANA as FRONT_ANA
from holdfast.testing.front import Front, opened
from holdfast.testing.issuer import Issuer

ANA, OTHER = Principal("ana", "acme"), Principal("otto", "other")
ADMIN = Principal("ada", "acme", frozenset({"admin", "operator"}))
ITEMS = [("chunks/1", {"text": "one"})]

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: bytes) -> Figures:
    """Every sample, as Prometheus reads it."""
    found: Figures = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            name = (sample.name, frozenset(sample.labels.items()))
            assert name not in found, name
            found[name] = sample.value
    return found


def figure(found: Figures, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


async def taken(meters: Meters) -> Figures:
    return read(await meters.render())


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
async def watched(settings: Settings, clock: ManualClock, meters: Meters) -> AsyncIterator[Engine]:
    async with open_engine(settings, clock=clock, observer=meters) as engine:
        meters.attach(engine)
        yield engine


async def made(engine: Engine, who: Principal = ANA, **more: Any) -> str:
    return str((await engine.create(who, kind="knowledge", items=ITEMS, **more)).header.id)


def header(**other: Any) -> Header:
    return replace(Header("s1", "acme", "knowledge", 1, "ana", Status.DRAFT, START, START), **other)


# -- what is counted ---------------------------------------------------------------------------------------------------


async def test_sessions_that_are_draft_or_locked_are_counted_by_status_and_kind(
    watched: Engine, meters: Meters, clock: ManualClock
) -> None:
    def active(found: Figures) -> tuple[float | None, float | None]:
        draft, locked = (
            figure(found, "sessions_active", status=status, kind="knowledge") for status in ("draft", "locked")
        )
        return draft, locked

    assert active(await taken(meters)) == (0, 0)
    sessions = [await made(watched, who) for who in (ANA, ANA, OTHER)]
    assert active(await taken(meters)) == (3, 0)
    seal = (await watched.preview(sessions[0], ANA)).seal
    assert active(await taken(meters)) == (2, 1)
    await watched.publish(sessions[0], ANA, seal=seal)
    await watched.discard(sessions[1], ANA)
    assert active(await taken(meters)) == (1, 0)
    clock.advance(10 * 86_400)
    await watched.sweep(ADMIN)
    assert active(await taken(meters)) == (0, 0)
    await watched.revive(sessions[2], OTHER)
    assert active(await taken(meters)) == (1, 0)


async def test_operations_that_landed_are_counted_by_name(watched: Engine, meters: Meters) -> None:
    session = await made(watched, change_id="c1")
    assert await made(watched, change_id="c1") == session
    for version in (1, 2):
        async with watched.edit(session, ANA, expected=version) as draft:
            draft.put("chunks/1", {"text": f"{version}"})
    await watched.operate(session, ANA, "disable", {"keys": ["chunks/1"]}, expected=3)
    await watched.undo(session, ANA, expected=4)
    async with watched.edit(session, ANA, expected=5, operation="word-of-mine") as draft:
        draft.put("chunks/1", {"text": "mine"})
    lease = await watched.lease(session, ANA, "tab")
    await watched.release(await watched.renew(lease, ANA), ANA)
    with pytest.raises(Exception, match="at version 6"):
        await watched.undo(session, ANA, expected=1)
    found = await taken(meters)
    counted = {
        labels: value
        for (name, given), value in found.items()
        if name == "session_operations_total" and value
        for labels in [dict(given)["operation"]]
    }
    once = ("create", "disable", "undo", "other", "lease", "renew", "release")
    assert counted == dict.fromkeys(once, 1) | {"edit": 2}


async def test_every_known_operation_is_there_from_the_first_scrape_on(watched: Engine, meters: Meters) -> None:
    found = await taken(meters)
    declared = {operation.name for kind in watched.kinds.values() for operation in kind.operations}
    for operation in LIFECYCLE.keys() | declared | {"create", "undo", "redo", "restore", "lease", "other"}:
        assert figure(found, "session_operations_total", operation=operation) == 0


async def test_how_long_sessions_took_is_told_by_what_became_of_them(
    watched: Engine, meters: Meters, clock: ManualClock
) -> None:
    published, discarded, expired = [await made(watched, retention=Retention(ttl=5_000)) for _ in range(3)]
    clock.advance(100)
    await watched.publish(published, ANA, seal=(await watched.preview(published, ANA)).seal)
    clock.advance(400)
    await watched.discard(discarded, ANA)
    clock.advance(5_500)
    await watched.sweep(ADMIN)
    found = await taken(meters)
    for outcome, seconds in {"published": 100, "discarded": 500, "expired": 6_000}.items():
        assert figure(found, "session_duration_seconds_count", outcome=outcome) == 1
        assert figure(found, "session_duration_seconds_sum", outcome=outcome) == pytest.approx(seconds)
    assert figure(found, "session_duration_seconds_bucket", outcome="discarded", le="300.0") == 0
    assert figure(found, "session_duration_seconds_bucket", outcome="discarded", le="900.0") == 1
    assert expired


async def test_each_tier_is_timed_by_what_it_was_asked(watched: Engine, meters: Meters) -> None:
    session = await made(watched)
    await watched.ingest(ANA, b"# one\n\ntwo\n", "x.md")
    await watched.find(ANA)
    await watched.read(session, ANA)
    found = await taken(meters)
    for tier, operation in (("hot", "write"), ("hot", "head"), ("warm", "find"), ("warm", "counts"), ("cold", "put")):
        assert figure(found, "holdfast_store_duration_seconds_count", tier=tier, operation=operation)
    assert figure(found, "holdfast_store_duration_seconds_count", tier="hot", operation="write") == 2
    assert (figure(found, "holdfast_store_duration_seconds_sum", tier="hot", operation="write") or 0) > 0


async def test_what_waits_to_be_written_and_the_last_sweep_are_told(
    watched: Engine, meters: Meters, clock: ManualClock
) -> None:
    session = await made(watched)
    found = await taken(meters)
    assert figure(found, "holdfast_audit_pending") == 0
    assert figure(found, "holdfast_audit_age_seconds") == 0
    await watched.read(session, ANA)
    clock.advance(7)
    await watched.header(session, ANA)
    found = await taken(meters)
    assert figure(found, "holdfast_audit_pending") == 2
    assert figure(found, "holdfast_audit_age_seconds") == 7
    assert figure(found, "holdfast_sweep_age_seconds") == 7
    await watched.audit(ADMIN)
    await watched.sweep(ADMIN)
    clock.advance(3)
    found = await taken(meters)
    assert figure(found, "holdfast_sweep_age_seconds") == 3
    assert figure(found, "holdfast_audit_lost_total") == 0
    assert (figure(found, "holdfast_audit_age_seconds") or 0) <= 3


async def test_what_the_engine_could_not_do_by_itself_is_counted(meters: Meters) -> None:
    assert figure(await taken(meters), "holdfast_failures_total", what="sweep") == 0
    meters.failed("sweep", "tampered", "s1")
    meters.failed("keys", "URLError")
    found = await taken(meters)
    assert figure(found, "holdfast_failures_total", what="sweep") == 1
    assert figure(found, "holdfast_failures_total", what="keys") == 1


async def test_feeds_and_the_process_are_told_of(meters: Meters) -> None:
    meters.streams = 3
    found = await taken(meters)
    assert figure(found, "holdfast_streams_open") == 3
    if Path("/proc/self/stat").exists():
        assert (figure(found, "process_resident_memory_bytes") or 0) > 1_000_000
        assert (figure(found, "process_open_fds") or 0) > 0


async def test_a_store_that_does_not_answer_leaves_out_its_own_figures_only(
    watched: Engine, meters: Meters, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(watched)
    assert figure(await taken(meters), "sessions_active", status="draft", kind="knowledge") == 1

    async def counts() -> dict[tuple[str, str], int]:
        raise StoreUnavailableError("warm", "busy")

    monkeypatch.setattr(watched, "counts", counts)
    found = await taken(meters)
    assert figure(found, "sessions_active", status="draft", kind="knowledge") is None
    assert figure(found, "session_operations_total", operation="create") == 1


# -- the tiers ---------------------------------------------------------------------------------------------------------

STATE = Tiers(True, Backlog(12, 3.5, 1), (), HotSize(40, 4_000_000), WarmSize(900, 300, 70_000_000))


def standing(watched: Engine, monkeypatch: pytest.MonkeyPatch, *states: Tiers | Exception) -> None:
    """Let the tiers stand so at each question in turn, and then so for good."""
    left = list(states)

    async def tier_state() -> Tiers:
        state = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(state, Exception):
            raise state
        return state

    monkeypatch.setattr(watched, "tier_state", tier_state)


async def test_breakers_are_told_by_tier_and_an_outage_is_counted_once(meters: Meters) -> None:
    assert figure(await taken(meters), "holdfast_breaker_state", tier="hot") is None  # embedded: there are none

    async def told(tier: str) -> tuple[float | None, float | None]:
        found = await taken(meters)
        return (
            figure(found, "holdfast_breaker_state", tier=tier),
            figure(found, "holdfast_breaker_opened_total", tier=tier),
        )

    meters.broke("hot", CLOSED)
    meters.broke("warm", CLOSED)
    assert await told("hot") == (0, 0)
    for state, figures in ((OPENED, (2, 1)), (PROBING, (1, 1)), (OPENED, (2, 1)), (PROBING, (1, 1)), (CLOSED, (0, 1))):
        meters.broke("hot", state)
        assert await told("hot") == figures
    meters.broke("hot", OPENED)
    assert await told("hot") == (2, 2)
    assert await told("warm") == (0, 0)


async def test_how_the_tiers_stand_is_asked_at_each_scrape(
    watched: Engine, meters: Meters, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing(watched, monkeypatch, STATE, Tiers(True))
    found = await taken(meters)
    assert figure(found, "holdfast_flush_queue_entries") == 12
    assert figure(found, "holdfast_flush_lag_seconds") == 3.5
    assert figure(found, "holdfast_flush_dead_letters") == 1
    sessions = {tier: figure(found, "holdfast_tier_sessions", tier=tier) for tier in ("hot", "warm", "cold")}
    assert sessions == {"hot": 40, "warm": 900, "cold": 300}
    sizes = {tier: figure(found, "holdfast_tier_bytes", tier=tier) for tier in ("hot", "warm", "cold")}
    assert sizes == {"hot": 4_000_000, "warm": 70_000_000, "cold": None}
    found = await taken(meters)  # nothing of the last scrape is told again
    assert not [name for name, _ in found if name.startswith(("holdfast_flush", "holdfast_tier"))]


async def test_a_tier_that_is_down_leaves_out_its_own_figures_only(
    watched: Engine, meters: Meters, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing(watched, monkeypatch, Tiers(True, warm=STATE.warm), StoreUnavailableError("warm", "gone"))
    found = await taken(meters)
    assert figure(found, "holdfast_tier_sessions", tier="warm") == 900
    assert figure(found, "holdfast_tier_sessions", tier="hot") is None
    assert figure(found, "holdfast_flush_queue_entries") is None
    assert figure(found, "sessions_active", status="draft", kind="knowledge") == 0
    found = await taken(meters)
    assert figure(found, "holdfast_tier_sessions", tier="warm") is None
    assert figure(found, "sessions_active", status="draft", kind="knowledge") == 0


async def test_a_tier_that_is_silent_does_not_hold_up_a_scrape(
    watched: Engine, meters: Meters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of Prometheus wait for ten seconds, and one that is given up loses every figure."""
    assert metering.PATIENCE < 5
    monkeypatch.setattr(metering, "PATIENCE", 0.05)
    gate, asked = asyncio.Event(), []

    async def silent() -> Tiers:
        asked.append(1)
        await gate.wait()
        return STATE

    monkeypatch.setattr(watched, "tier_state", silent)
    for _ in range(5):
        found = await taken(meters)
        assert figure(found, "holdfast_tier_sessions", tier="warm") is None
        assert figure(found, "sessions_active", status="draft", kind="knowledge") == 0
    assert len(asked) == 1  # and questions do not pile up
    gate.set()
    await asyncio.sleep(0.01)
    assert figure(await taken(meters), "holdfast_tier_sessions", tier="warm") == 900
    assert len(asked) == 2


# -- the form ----------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[a-z_][a-z0-9_]*")


async def busy(watched: Engine, meters: Meters) -> bytes:
    session = await made(watched)
    await watched.discard(session, ANA)
    for status in (0, 101, 200, 304, 404, 500):
        meters.request('/odd"route\\with{n}\nlines', "GET", status, 0.1)
    meters.request("/slow", "POST", 200, 1e9)
    meters.broke("hot", CLOSED)

    async def tier_state() -> Tiers:
        return STATE

    vars(watched)["tier_state"] = tier_state
    return await meters.render()


async def test_the_text_is_what_prometheus_reads(watched: Engine, meters: Meters) -> None:
    """What ``promtool check metrics`` looks for, and that every histogram adds up."""
    text = (await busy(watched, meters)).decode()
    assert text.endswith("\n")
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert _NAME.fullmatch(family.name)
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        assert not family.name.endswith(("_count", "_sum", "_bucket", "_info"))
        assert "_total" not in family.name
        assert not re.search(r"(milli|micro|minutes|hours|ms$)", family.name)
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith("_total")
            assert not math.isnan(sample.value)
            assert all(_NAME.fullmatch(label) for label in sample.labels)
        if family.type == "histogram":
            adds_up(family.samples)
    assert text.count("# HELP ") == text.count("# TYPE ") == len(families)


def adds_up(samples: Iterable[Any]) -> None:
    """Buckets only grow, the last is without bound, and it holds as many as were counted."""
    buckets: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    counts: dict[frozenset[tuple[str, str]], float] = {}
    for sample in samples:
        labels = frozenset((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            buckets.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_count"):
            counts[labels] = sample.value
    assert buckets.keys() == counts.keys()
    for labels, found in buckets.items():
        assert found == sorted(found)
        assert [value for _, value in found] == sorted(value for _, value in found)
        assert found[-1] == (math.inf, counts[labels])


async def test_labels_come_back_as_they_were_given(watched: Engine, meters: Meters) -> None:
    found = read(await busy(watched, meters))
    name = "holdfast_http_request_duration_seconds_count"
    for status in ("none", "1xx", "2xx", "3xx", "4xx", "5xx"):
        assert figure(found, name, route='/odd"route\\with{n}\nlines', method="GET", status=status) == 1


def test_an_observation_on_a_bound_is_within_it() -> None:
    spread = Spread((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        spread.add(value)
    assert spread.counts == [2, 2, 1]
    assert spread.total == 7.5


async def test_names_that_others_make_up_do_not_make_figures_without_end(meters: Meters) -> None:
    for number in range(20_000):
        meters.request(f"/made-up/{number}", f"M{number}", 200 + number % 300, 0.1)
        meters.appended(header(), f"op-{number}", "ana", START)
    text = await meters.render()
    samples = read(text)
    assert len(samples) < 50_000
    assert figure(samples, "session_operations_total", operation="other") == 20_000
    routes = "holdfast_http_request_duration_seconds_count"
    assert sum(value for (name, _), value in samples.items() if name == routes) == 20_000


# -- S12, S16 ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def talkative(believing: Settings, issuer: Issuer, capfd: pytest.CaptureFixture[str]) -> AsyncIterator[Front]:
    """The whole service, writing down all it can."""
    async with opened(replace(believing, service=replace(believing.service, log="debug")), issuer) as front:
        yield front


async def test_s16_no_content_token_or_query_is_ever_in_the_figures_or_the_lines_of_a_service(
    talkative: Front, capfd: pytest.CaptureFixture[str]
) -> None:
    """The whole service, asked for everything there is to ask with canaries in every place that takes a word."""
    word = "canary4711"
    ana, admin = await talkative.client(FRONT_ANA), await talkative.client(FRONT_ADMIN)
    session, tag = await talkative.make(title=word)
    change = {"changes": [{"put": f"chunks/{word}", "body": {"text": word}}]}
    answers = [
        await ana.patch(f"{session}?group={word}", json=change, headers={"if-match": tag, "idempotency-key": word}),
        await ana.patch(f"{session}?{word}={word}", content=word, headers={"content-type": word, "if-match": word}),
        await ana.get(f"/v1/search?query={word}&q={word}"),
        await ana.get(f"/v1/sessions?text={word}&after={word}"),
        await ana.get(f"/v1/{word}?{word}", headers={"authorization": f"Bearer {word}", "x-request-id": f"{word} x"}),
        await ana.get(session, headers={"authorization": f"Bearer {word}.{word}.{word}"}),
        await ana.post(f"{session}/operations/{word}", json={word: word}),
        await ana.post("/v1/sources", files={"file": (f"{word}.md", word.encode())}),
        await ana.get(f"{session}/items/chunks/{word}"),
    ]
    for path, operations in talkative.document["paths"].items():
        for method in operations:
            if "events" not in path:
                url = path.format_map(Words(word))
                answers.append(await ana.request(method, f"{url}?{word}={word}", json={word: word}))
    metrics = (await admin.get("/metrics")).text
    assert len(answers) > 40
    assert any(answer.is_success for answer in answers)
    token = talkative.token(FRONT_ANA)
    lines = "".join(capfd.readouterr())
    said = metrics + lines
    assert "session_operations_total" in metrics
    assert lines.count('"event":"session_updated"') >= 1
    assert lines.count('"event":"request"') > 40
    assert [secret for secret in (word, token, token.split(".")[2]) if secret in said] == []


class Words(dict[str, str]):
    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def __missing__(self, name: str) -> str:
        return self._word
