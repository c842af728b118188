"""docs/service.md says what the service has: its tables are made from the code, its figures are those of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from holdfast.compose import open_engine
from holdfast.engine.tiering import Tiers
from holdfast.model.access import Principal
from holdfast.ports.hot import Backlog, HotSize
from holdfast.ports.observer import CLOSED
from holdfast.ports.warm import WarmSize
from holdfast.service import bodies, protocol
from holdfast.service.app import create_app
from holdfast.service.auth import authenticator, keys
from holdfast.service.auth.caller import MOST_TOKEN
from holdfast.service.auth.jwks import ALGORITHMS, LEAST_RSA_BITS
from holdfast.service.logs import EVENTS, UPDATED
from holdfast.service.meters import Meters
from holdfast.service.problems import STATUSES
from holdfast.settings import SETTINGS, Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
SOURCES = ROOT / "src" / "holdfast"

HEADERS = {"If-Match": "M", "If-None-Match": "N", "Idempotency-Key": "K", "Prefer": "P", "Last-Event-ID": "L"}


def routes_table(document: dict[str, Any]) -> str:
    """Every route of an OpenAPI document, with its verb, what it heeds, and what it does."""
    lines = ["| route | verb | takes | what it does |", "|---|---|---|---|"]
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            parameters = told.get("parameters", ())
            marks = " ".join(f"**{mark}**" for name, mark in HEADERS.items() if name in named(parameters, "header"))
            query = " ".join(f"`{name}`" for name in named(parameters, "query"))
            said = " ".join(told["description"].split())
            cells = (f"`{method.upper()} {path}`", f"`{told['x-holdfast-verb']}`", f"{marks} {query}".strip(), said)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def named(parameters: Any, where: str) -> list[str]:
    return [parameter["name"] for parameter in parameters if parameter["in"] == where]


def statuses_table() -> str:
    """The codes of each HTTP status."""
    lines = ["| status | code |", "|---|---|"]
    for status, codes in groupby(sorted(STATUSES, key=lambda code: (STATUSES[code], code)), STATUSES.__getitem__):
        lines.append(f"| {status} | {', '.join(f'`{code}`' for code in codes)} |")
    return "\n".join(lines) + "\n"


def events_table() -> str:
    """The event of each operation."""
    lines = ["| event | operation |", "|---|---|"]
    lines += [f"| `{event}` | `{operation}` |" for operation, event in EVENTS.items()]
    lines.append(f"| `{UPDATED}` | every other: `edit`, `undo`, `redo`, `restore`, and those of a kind |")
    return "\n".join(lines) + "\n"


def metrics_table(text: str) -> str:
    """Every metric of a rendered page but those of the process: type, labels, meaning."""
    meanings = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        if name.startswith("process_"):
            continue
        sample = re.search(rf"^{name}(?:_bucket)?(?:\{{(.*)\}})? ", text, re.MULTILINE)
        assert sample is not None, f"nothing was counted of {name}"
        labels = [label for label in re.findall(r'(\w+)="', sample[1] or "") if label != "le"]
        lines.append(f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meanings[name]} |")
    return "\n".join(lines) + "\n"


def part(name: str) -> str:
    """The part of the page that is made from the code."""
    _, begun, rest = PAGE.partition(f"<!-- made from the code: {name} -->\n")
    table, ended, _ = rest.partition("<!-- to here -->")
    assert begun, f"docs/service.md has no mark for its {name}"
    assert ended, f"the {name} of docs/service.md have no end"
    return table


def rows(name: str) -> Iterator[str]:
    return (line for line in part(name).splitlines() if line.startswith("| `"))


def same(name: str, made: str) -> None:
    assert part(name) == made, f"write the {name} of docs/service.md anew:\n{made}"


def test_the_table_of_routes_is_the_document(tmp_path: Path) -> None:
    """S01: what a principal must be allowed is told of every route."""
    same("routes", routes_table(create_app(Settings(home=tmp_path)).openapi()))
    assert len(list(rows("routes"))) > 60


def test_the_table_of_statuses_is_the_one_of_the_code() -> None:
    same("statuses", statuses_table())


def test_the_table_of_events_is_the_one_of_the_code() -> None:
    same("events", events_table())


async def test_the_table_of_metrics_is_what_is_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meters = Meters()
    meters.request("/v1/sessions", "POST", 201, 0.001)
    meters.broke("hot", CLOSED)

    async def tier_state() -> Tiers:
        return Tiers(True, Backlog(0, 0.0, 0), (), HotSize(0, 0), WarmSize(0, 0, 0))

    async with open_engine(Settings(home=tmp_path), observer=meters) as engine:
        monkeypatch.setattr(engine, "tier_state", tier_state)
        meters.attach(engine)
        await engine.create(Principal("ana"), kind="knowledge")
        same("metrics", metrics_table((await meters.render()).decode()))


def test_every_other_event_is_told() -> None:
    """Those that the service writes by name, and those of what the engine does by itself and could not."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted(SOURCES.rglob("*.py")))
    written = set(re.findall(r"\blogs?\.(?:event|log\.\w+|warning|error|debug)\(\s*\"(\w+)\"", source))
    failed = {f"{what}_failed" for what in re.findall(r"observer\.failed\(\"(\w+)\"", source)}
    assert {"service_started", "service_stopped", "store_slow"} <= written
    assert {"sweep_failed", "keys_failed", "revocations_failed"} <= failed
    assert [name for name in sorted(written | failed) if f"`{name}`" not in PAGE] == []


def test_every_setting_that_the_page_names_is_one() -> None:
    known = {setting.name for setting in SETTINGS}
    told = set(re.findall(r"`((?:service|auth|limits)\.[a-z_]+)(?: = [^`]*)?`", PAGE))
    assert len(told) > 20
    assert told <= known


@pytest.mark.parametrize(
    ("said", "figure"),
    [
        ("| target; head of a request; header fields | {:,} bytes", protocol.MOST_TARGET),
        ("{:,} bytes; 100 | 431 |", protocol.MOST_HEAD),
        ("bytes; {} | 431 |", protocol.MOST_FIELDS),
        ("and {:,} bytes a second on average", protocol.LEAST_RATE),
        ("`limits.depth` and {}", bodies.AROUND),
        ("| {:,} bytes | 422 |", bodies.NAME),
        ("| {} MB, or one and a half times", bodies.ROOM // 1_000_000),
        ("has\n{:,} bytes at most", MOST_TOKEN),
        ("RSA from {:,} bits on", LEAST_RSA_BITS),
        ("may take {:g} seconds and 256 KiB", keys.FETCH_SECONDS),
        ("of {} bytes or more; weak ones", keys.LEAST_SECRET),
        ("`auth.leeway`, {:g} seconds at most", authenticator.MOST_LEEWAY),
    ],
)
def test_a_figure_is_the_one_of_the_code(said: str, figure: float) -> None:
    assert said.format(figure) in PAGE


def test_what_the_page_says_of_keys_is_so() -> None:
    assert keys.MOST_BYTES == 256 * 1_024
    assert (keys.REFRESH_SECONDS, keys.APART_SECONDS, keys.LOOK_SECONDS, keys.KEEP_SECONDS) == (600, 10, 1, 86_400)
    assert all(f"`{family}`" in PAGE for family in ALGORITHMS)
