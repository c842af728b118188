"""S16, S18: no content at rest in the clear, in a log or in an error; nothing in the package runs what it reads."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError
from holdfast.model.access import Principal, Role
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock

ANA, EVE = Principal("ana"), Principal("eve")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
SOURCE = Path(str(holdfast.__file__)).parent


class Canaries:
    """Words that stand nowhere else, one for each place that content is put into."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def __call__(self, where: str) -> str:
        self.given.append(f"canary{len(self.given):04}x{hash(where) & 0xFFFFFF:06x}")
        return self.given[-1]


def leaks(home: Path, canaries: list[str], published: bool) -> list[str]:
    """Where a canary stands in the clear in any file below the home, the WAL included; also as UTF-16 or hex."""
    found = []
    for path in home.rglob("*"):
        if not path.is_file() or (not published and path.name.startswith("vectors")):
            continue
        data = path.read_bytes()
        for canary in canaries:
            for form in (canary.encode(), canary.encode("utf-16-le"), canary.encode().hex().encode()):
                if form in data:
                    found.append(f"{canary} in {path.name}")
    return found


async def live_through(engine: Engine, clock: ManualClock, canary: Canaries) -> list[str]:
    """Put content into every verb that takes some; returns what the refusals said."""
    said: list[str] = []

    async def refused(call: Any) -> None:
        with pytest.raises(HoldfastError) as caught:
            await call
        said.append(f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}")

    session = (
        await engine.create(
            ANA,
            kind="knowledge",
            title=canary("title"),
            items=[
                ("chunks/1", {"text": canary("text"), "metadata": {canary("name"): canary("value")}}),
                (f"chunks/{canary('key')}", {"text": canary("text")}),
            ],
            target=canary("target"),
        )
    ).id
    source = await engine.ingest(ANA, f"# {canary('heading')}\n\n{canary('source')}\n".encode(), f"{canary('file')}.md")
    for version in range(1, 12):
        async with engine.edit(session, ANA, expected=version, group="g") as draft:
            draft.put("chunks/1", {"text": canary("edit") + " word" * 2_000})
    await engine.undo(session, ANA, expected=12)
    await engine.redo(session, ANA, expected=13)
    await engine.operate(session, ANA, "insert", {"text": canary("insert")}, expected=14)
    await engine.label(session, ANA, canary("label"))
    await engine.rename(session, ANA, canary("rename"))
    await engine.grant(session, ANA, "vic", Role.VIEWER)
    await engine.find(ANA, text=canary("find"))
    await engine.search(ANA, canary("search"))
    await engine.export(session, ANA)
    word = canary("refused")
    await refused(engine.operate(session, ANA, "edit", {"key": "chunks/1", "text": [word]}, expected=15))
    await refused(engine.operate(session, ANA, "edit", {"key": "chunks/1", "unknown": word}, expected=15))
    await refused(engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "x", "unknown": word})]))
    await refused(engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": " ", "metadata": {"a": word}})]))
    await refused(engine.restore(session, ANA, 1, expected=3))
    with pytest.raises(HoldfastError) as caught:
        async with engine.edit(session, ANA, expected=3) as draft:
            draft.put("chunks/1", {"text": word})
    said.append(str(caught.value))  # its facts carry the items, for a merge; its sentence does not
    for call in (engine.read(session, EVE), engine.header(session, EVE), engine.audit(EVE, session_id=session)):
        await refused(call)
    await engine.preview(session, ANA)
    await engine.unlock(session, ANA)
    await engine.discard(source.id, ANA)
    clock.advance(3600)
    await engine.sweep(ROOT)
    await engine.rotate_keys(ROOT)
    return said


async def test_s16_no_canary_stands_in_the_clear_in_any_file_log_or_error(
    opens: Any, settings: Settings, clock: ManualClock, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = Canaries()
    engine = await opens()
    said = await live_through(engine, clock, canary)
    assert leaks(settings.home, canary.given, published=True) == []  # with the WAL as it stands
    await engine.close()
    assert leaks(settings.home, canary.given, published=True) == []
    written = caplog.text + "".join(capfd.readouterr()) + "".join(said)
    assert [word for word in canary.given if word in written] == []
    print(f"S16 canaries={len(canary.given)} files={len([*settings.home.rglob('*')])} hits=0")


async def test_s16_teeth_a_canary_that_is_published_is_found_in_the_sink(opens: Any, settings: Settings) -> None:
    engine = await opens()
    session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "canary-in-the-open"})])).id
    assert leaks(settings.home, ["canary-in-the-open"], published=True) == []
    await engine.publish(session, ANA, seal=(await engine.preview(session, ANA)).seal)
    assert leaks(settings.home, ["canary-in-the-open"], published=False) == []
    assert leaks(settings.home, ["canary-in-the-open"], published=True)


async def test_s16_what_is_kept_of_a_request_does_not_tell_two_equal_ones_apart_from_others(
    opens: Any, settings: Settings
) -> None:
    """Two sessions are given the same content under the same change id: nothing stored in the clear shows it."""
    import apsw

    engine = await opens()
    for _ in range(2):
        session = (await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "x"})])).id
        async with engine.edit(session, ANA, expected=1, change_id="c1") as draft:
            draft.put("chunks/1", {"text": "yes"})
    connection = apsw.Connection(str(settings.home / "holdfast.sqlite"))
    rows: list[Any] = connection.execute("SELECT header, payload, digest FROM log WHERE step = 2").fetchall()
    items = connection.execute("SELECT id, sealed FROM item").fetchall()
    connection.close()
    assert len(rows) == len(items) == 2
    for column in zip(*rows, strict=True):
        assert len(set(column)) == 2
    for column in zip(*items, strict=True):
        assert len(set(column)) == 2
    from holdfast.engine.sealing import decode_entry

    first, second = (decode_entry(header, "an entry") for header, _, _ in rows)
    assert first.fingerprint != second.fingerprint


# -- S18 ---------------------------------------------------------------------------------------------------------------

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle", "joblib", "code"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("numpy", "load"), ("np", "load")}
HOOKS = {"__reduce__", "__reduce_ex__", "__setstate__", "__getstate__"}


def unsafe(tree: ast.AST) -> Iterator[str]:
    """What could run what it reads: by import, by name, by attribute, by hook."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            yield from (f"{line}: import {one.name}" for one in node.names if one.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield f"{line}: from {node.module}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield f"{line}: {node.func.id}()"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in ATTRIBUTES or (node.value.id == "builtins" and node.attr in CALLS):
                yield f"{line}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.FunctionDef) and node.name in HOOKS:
            yield f"{line}: def {node.name}"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield f"{line}: allow_pickle"


def test_s18_nothing_in_the_package_runs_what_it_reads() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    found = [f"{path.relative_to(SOURCE)}:{what}" for path in files for what in unsafe(ast.parse(path.read_text()))]
    print(f"S18 files={len(files)} hits={len(found)}")
    assert len(files) > 50
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from marshal import loads",
        "import yaml\nyaml.load(x)",
        "eval(x)",
        "builtins.exec(x)",
        "class A:\n    def __reduce__(self): ...",
        "np.load(x, allow_pickle=True)",
        "f(allow_pickle=flag)",
        "import joblib.numpy_pickle",
    ],
)
def test_s18_teeth_what_could_is_found(code: str) -> None:
    assert list(unsafe(ast.parse(code)))
