"""The benchmark: that it measures what it says, not how fast it is."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from holdfast.bench import report, run, workloads
from holdfast.bench.floor import BareFile
from holdfast.bench.report import Row
from holdfast.bench.rounds import Plan
from holdfast.compose import open_engine
from holdfast.settings import Settings
from holdfast.testing.servers import needed

TINY = Plan(rounds=2, seconds=0.02, warm=0.05, edits=40, patience=20.0, sessions=3, clients=8, pace=0.04, restored=1)
NAMES = ("commit.one", "commit.tasks32", "load20", "growth", "bytes_per_edit")
OVER_HTTP = ("http.read", "http.edit")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """One tiny run, with sessions of 60 items for many."""
    import asyncio

    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workloads, "MANY", 60)
        made = asyncio.run(run(folder=folder, plan=TINY))
    assert list(folder.iterdir()) == [], "the temporary homes were not cleared away"
    return made


def test_a_run_has_every_row_that_the_design_asks_for_once(rows: list[Row]) -> None:
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert {f"embedded.{name}" for name in NAMES} <= set(names)
    assert {name for name in report.REACH if name.startswith(("embedded.", "http."))} <= set(names)


def test_a_run_has_the_rows_of_the_distributed_tiers(rows: list[Row]) -> None:
    needed("redis-server", "valkey-server")
    needed("postgres")
    names = {row.name for row in rows}
    assert set(report.REACH) <= names
    assert {"redis.watch.one", "redis.watch.tasks32"} <= names
    assert {"redis.commit.one.everysec", "redis.commit.tasks32.everysec", "redis.load20.first"} <= names
    assert {"tiers.rehydrate.growth", "tiers.restore.growth"} <= names


def test_a_run_has_the_rates_over_http_and_how_long_one_waits(rows: list[Row]) -> None:
    units = {row.name: row.unit for row in rows}
    for name in OVER_HTTP:
        assert units[name] == "1/s"
        waits = [row for row in rows if row.name.startswith(f"{name}.")]
        assert [row.name for row in waits] == [f"{name}.{share}" for share in ("p50", "p95", "p99")]
        assert {row.unit for row in waits} == {"µs"}
        for side in ([row.ours for row in waits], [row.floor for row in waits]):
            assert side == sorted(side), "the slowest waited less than the one in the middle"


def test_the_figures_of_a_row_fit_together(rows: list[Row]) -> None:
    for row in rows:
        assert row.ours > 0, row
        assert row.floor > 0, row
        assert row.ratio == pytest.approx(row.ours / row.floor, rel=0.01), row
        assert row.spread >= 0, row
        assert row.rounds in (1, TINY.rounds), row


def test_what_is_kept_for_an_edit_is_more_than_the_edit(rows: list[Row]) -> None:
    kept = next(row for row in rows if row.name == "embedded.bytes_per_edit")
    assert kept.unit == "B"
    assert kept.floor == workloads.ITEM_BYTES
    assert workloads.ITEM_BYTES < kept.ours < 8 * workloads.ITEM_BYTES


def test_the_files_hold_the_rows_as_a_list_and_the_machine_apart(rows: list[Row], tmp_path: Path) -> None:
    report.write(rows, report.machine(tmp_path, quick=True), tmp_path / "out" / "latest.json")
    written = json.loads((tmp_path / "out" / "latest.json").read_text())
    assert [set(row) for row in written] == [{"name", "ours", "floor", "ratio", "unit", "rounds", "spread"}] * len(rows)
    assert written[0]["name"] == rows[0].name
    facts = json.loads((tmp_path / "out" / "machine.json").read_text())
    assert facts["fdatasync"] > 0
    assert facts["sqlite"] == apsw.sqlite_lib_version()


def test_the_table_says_of_each_bound_whether_it_is_met() -> None:
    told = report.cells(
        [
            report.row("embedded.commit.one", "µs", [300.0, 320.0, 310.0], [200.0, 200.0, 200.0]),
            report.row("embedded.commit.tasks32", "1/s", [500.0], [1_000.0]),
            report.row("embedded.undo", "µs", [900.0], [200.0]),
        ]
    )
    met, reach = report.COLUMNS.index("met"), report.COLUMNS.index("reach")
    assert [(row[reach], row[met]) for row in told] == [("<= 1.5x", "no"), (">= 0.4x", "yes"), ("", "")]


def test_a_row_is_the_medians_of_its_rounds_and_the_spread_of_their_ratios() -> None:
    row = report.row("x", "µs", [10.0, 30.0, 20.0], [10.0, 10.0, 10.0])
    assert (row.ours, row.floor, row.ratio, row.rounds) == (20.0, 10.0, 2.0, 3)
    assert row.spread == pytest.approx(0.5)  # quartiles 1.5 and 2.5 about 2.0


async def test_the_floor_writes_rows_of_the_sizes_that_the_engine_writes(tmp_path: Path) -> None:
    async with open_engine(Settings(home=tmp_path)) as engine:
        writer = await workloads.Writer.create(engine, 3)
        for _ in range(2):
            await writer.commit()
        bare = BareFile.like(tmp_path / workloads.FILE, tmp_path / "bare.sqlite")
        (session,) = bare.sessions()
        bare.commit(session.rows())
        await writer.commit()
        ours = apsw.Connection(str(tmp_path / workloads.FILE))
        for sizes in (
            "SELECT step, version, length(header), length(payload), length(digest), length(change) FROM log"
            " ORDER BY step DESC LIMIT 1",
            "SELECT step, version, length(digest), length(sealed) FROM session",
            "SELECT version, length(id), length(sealed) FROM item ORDER BY version DESC LIMIT 1",
            "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name IN ('session', 'item', 'log') ORDER BY name",
        ):
            mine, floor = ours.execute(sizes).fetchall(), bare.connection.execute(sizes).fetchall()
            # a number with one digit more in a sealed header is a byte more
            assert _near(mine, floor), (sizes, mine, floor)
        assert bare.connection.pragma("synchronous") == 2
        assert bare.connection.pragma("journal_mode") == "wal"
        ours.close()
        bare.close()


async def test_the_floor_refuses_a_commit_from_where_the_session_no_longer_stands(tmp_path: Path) -> None:
    async with open_engine(Settings(home=tmp_path)) as engine:
        await workloads.Writer.create(engine, 3)
        bare = BareFile.like(tmp_path / workloads.FILE, tmp_path / "bare.sqlite")
        (session,) = bare.sessions()
        rows = session.rows()
        bare.commit(rows)
        with pytest.raises(LookupError):
            bare.commit(rows)
        bare.close()


async def test_a_commit_that_changes_nothing_is_not_measured(tmp_path: Path) -> None:
    async with open_engine(Settings(home=tmp_path)) as engine:
        writer = await workloads.Writer.create(engine, 3)
        again = workloads.Writer(engine, writer.session, 3, 0)
        again.version = writer.version
        with pytest.raises(LookupError):
            await again.commit()


def _near(mine: object, floor: object) -> bool:
    if isinstance(mine, int) and isinstance(floor, int):
        return abs(mine - floor) <= 2
    if isinstance(mine, list | tuple) and isinstance(floor, list | tuple):
        return len(mine) == len(floor) and all(_near(*pair) for pair in zip(mine, floor, strict=True))
    return mine == floor
