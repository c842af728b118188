"""S19: every verb leaves its line, refused ones too; an edited, deleted, reordered or cut-off line is found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast.engine.clock import SystemChance
from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError, PermissionDeniedError, SessionNotFoundError
from holdfast.model.access import Principal, Role
from holdfast.model.audit import AuditLine
from holdfast.ports.warm import ChainEnd, WarmStore
from holdfast.settings import Settings
from holdfast.stores.keys.file import KeyFile
from holdfast.testing.clock import ManualClock

ANA, VIC, EVE = Principal("ana"), Principal("vic"), Principal("eve")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
ITEMS = [("chunks/1", {"text": "one"})]


@contextmanager
def database(settings: Settings) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(settings.home / "holdfast.sqlite"))
    connection.set_busy_timeout(5_000)
    try:
        yield connection
    finally:
        connection.close()


async def start(engine: Engine) -> str:
    session = str((await engine.create(ANA, kind="knowledge", items=ITEMS)).id)
    await engine.grant(session, ANA, "vic", Role.VIEWER)
    for version in range(1, 4):
        async with engine.edit(session, ANA, expected=version) as draft:
            draft.put("chunks/1", {"text": f"{version}"})
    return session


async def problems(engine: Engine) -> set[str]:
    return {problem.code for verified in [one async for one in engine.verify(ROOT)] for problem in verified.problems}


async def test_s19_every_change_leaves_a_line_with_who_what_when_and_which_version(
    engine: Engine, clock: ManualClock
) -> None:
    session = await start(engine)
    clock.advance(5)
    await engine.undo(session, ANA, expected=4)
    await engine.label(session, ANA, "x")
    await engine.read(session, VIC)
    lines = await engine.audit(ANA, session_id=session)
    assert [(line.actor, line.verb, line.version, line.outcome) for line in lines] == [
        ("ana", "create", 1, "ok"),
        ("ana", "grant", 1, "ok"),
        ("ana", "edit", 2, "ok"),
        ("ana", "edit", 3, "ok"),
        ("ana", "edit", 4, "ok"),
        ("ana", "undo", 5, "ok"),
        ("ana", "label", 5, "ok"),
        ("vic", "read", 5, "ok"),
    ]
    assert all(line.session == session and line.tenant == "default" for line in lines)
    assert [(line.at - lines[0].at).total_seconds() for line in lines] == [0.0] * 5 + [5.0] * 3


async def test_s19_what_was_refused_leaves_a_line_with_the_reason(engine: Engine) -> None:
    session = await start(engine)

    async def refused(verb: str, code: str, who: Principal, call: Callable[[], Any]) -> tuple[str, str, str]:
        with pytest.raises(HoldfastError):
            await call()
        return who.id, verb, code

    async def edit(who: Principal, **more: Any) -> None:
        async with engine.edit(session, who, **more) as draft:
            draft.put("chunks/1", {"text": more.pop("text", "x")} if "text" in more else {"words": "x"})

    expected = [
        await refused("edit", "version-required", ANA, lambda: edit(ANA)),
        await refused("edit", "permission-denied", EVE, lambda: edit(EVE, expected=4)),
        await refused("edit", "permission-denied", VIC, lambda: edit(VIC, expected=4)),
        await refused("edit", "invalid-item", ANA, lambda: edit(ANA, expected=4)),
        await refused("edit", "invalid-change", ANA, lambda: edit(ANA, expected=4, change_id="x" * 300)),
        await refused("undo", "version-conflict", ANA, lambda: engine.undo(session, ANA, expected=1)),
        await refused("redo", "nothing-to-undo", ANA, lambda: engine.redo(session, ANA, expected=4)),
        await refused("undo", "invalid-change", ANA, lambda: engine.undo(session, ANA, expected=4, change_id="")),
        await refused("read", "session-not-found", ANA, lambda: engine.read("a" * 32, ANA)),
        await refused("read", "version-not-found", ANA, lambda: engine.read(session, ANA, version=9)),
        await refused("split", "invalid-change", ANA, lambda: engine.operate(session, ANA, "split", {}, expected=4)),
        await refused("fly", "unknown-operation", ANA, lambda: engine.operate(session, ANA, "fly", {}, expected=4)),
        await refused("publish", "not-draft", ANA, lambda: engine.publish(session, ANA, seal="x")),
        await refused("create", "unknown-kind", ANA, lambda: engine.create(ANA, kind="nothing")),
        await refused("ingest", "invalid-change", ANA, lambda: engine.ingest(ANA, b"", "a.md")),
        await refused("sweep", "permission-denied", ANA, lambda: engine.sweep(ANA)),
        await refused("rotate-keys", "permission-denied", ANA, lambda: engine.rotate_keys(ANA)),
        await refused("audit", "permission-denied", ANA, lambda: engine.audit(ANA)),
        await refused("audit", "permission-denied", EVE, lambda: engine.audit(EVE, session_id=session)),
        await refused("lease", "invalid-change", ANA, lambda: engine.lease(session, ANA, "")),
        await refused("find", "invalid-cursor", ANA, lambda: engine.find(ANA, after="?")),
        await refused("feed", "invalid-cursor", ANA, lambda: engine.feed(session, ANA, after="?")),
    ]
    told = [(line.actor, line.verb, line.outcome) for line in await engine.audit(ROOT, limit=1000)]
    assert [line for line in expected if line not in told] == []


async def test_s19_lines_outlive_the_engine_and_come_from_every_engine_in_one_chain(opens: Any) -> None:
    engines = [await opens() for _ in range(3)]
    session = await start(engines[0])

    async def ask(engine: Engine, n: int) -> None:
        with pytest.raises(PermissionDeniedError):
            await engine.rename(session, VIC, f"{n}")
        await engine.audit(ROOT)  # writes what has been taken down

    for n in range(5):
        await asyncio.gather(*(ask(engine, n) for engine in engines))
    again = await opens()
    lines = await again.audit(ROOT, limit=1000)
    assert sum(line.count for line in lines if line.verb == "rename") == 15
    assert await problems(again) == set()


async def test_s19_lines_go_on_when_the_key_of_their_chain_is_lost(opens: Any, settings: Settings) -> None:
    engine = await opens()
    session = await start(engine)
    with pytest.raises(HoldfastError):
        await engine.read(session, EVE)
    await engine.audit(ROOT)
    (settings.home / "keys.json").unlink()
    KeyFile.open(settings.key_path, SystemChance())
    again = await opens()
    with pytest.raises(HoldfastError) as caught:
        await again.read(session, ANA)
    assert caught.value.code == "unreadable"
    lines = [(line.actor, line.verb, line.outcome) for line in await again.audit(ROOT, limit=1000)]
    assert ("eve", "read", "permission-denied") in lines
    assert ("ana", "read", "unreadable") in lines
    verified = {one.chain: one.ok async for one in again.verify(ROOT) if one.chain}
    assert verified.pop("default") is False  # the first chain cannot be checked any more
    assert list(verified.values()) == [True]


async def test_s19_a_burst_of_lines_is_written_and_so_is_what_comes_after_it(opens: Any, settings: Settings) -> None:
    engine = await opens()

    async def written() -> int:
        with database(settings) as connection:
            return int(connection.execute("SELECT coalesce(max(seq), 0) FROM audit").get)

    for n in range(5_000):
        with pytest.raises(HoldfastError):
            await engine.read(f"{n:032}", ANA)
    while await written() < 4_096:
        await asyncio.sleep(0.01)
    with pytest.raises(HoldfastError):
        await engine.read("last", ANA)
    while await written() < 5_001:
        await asyncio.sleep(0.01)


# -- tampering with the chain ------------------------------------------------------------------------------------------

CHAIN = {
    "edit": "UPDATE audit SET line = replace(line, '\"eve\"', '\"ana\"') WHERE seq = 2",
    "edit of a column": "UPDATE audit SET session = 'elsewhere' WHERE seq = 2",
    "edit of the tenant": "UPDATE audit SET tenant = 'elsewhere' WHERE seq = 2",
    "delete": "DELETE FROM audit WHERE seq = 3",
    "delete of the first": "DELETE FROM audit WHERE seq = 1",
    "truncate": "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
    "truncate with its end": (
        "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit);"
        "UPDATE audit_chain SET seq = seq - 1, mac = (SELECT mac FROM audit ORDER BY seq DESC LIMIT 1)"
    ),
    "truncate to nothing": "DELETE FROM audit",
    "loss of the end": "DELETE FROM audit_chain",
    "reorder": (
        "UPDATE audit SET seq = -2 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3;"
        "UPDATE audit SET seq = 3 WHERE seq = -2"
    ),
    "forged line": (
        "INSERT INTO audit (chain, seq, tenant, session, line, mac)"
        " SELECT chain, seq + 1, tenant, session, line, mac FROM audit ORDER BY seq DESC LIMIT 1"
    ),
    "forged end": 'UPDATE audit_chain SET "end" = zeroblob(length("end"))',
}


@pytest.mark.parametrize("how", CHAIN)
async def test_s19_tampering_with_the_audit_chain_is_found(opens: Any, settings: Settings, how: str) -> None:
    engine = await opens()
    session = await start(engine)
    for n in range(6):
        with pytest.raises(HoldfastError):
            await engine.read(session, Principal("eve") if n % 2 else Principal(f"eve{n}"))
        await engine.audit(ROOT)
    assert await problems(engine) == set()
    with database(settings) as connection:
        before = connection.execute("SELECT count(*), sum(seq), group_concat(line) FROM audit").get
        if how.startswith("edit"):
            assert connection.execute("SELECT count(*) FROM audit WHERE seq = 2").get == 1
            line = connection.execute("SELECT line FROM audit WHERE seq = 2").get
            if how == "edit":
                connection.execute("UPDATE audit SET line = ? WHERE seq = 2", (bytes(line).replace(b'"r', b'"R', 1),))
                assert connection.execute("SELECT line FROM audit WHERE seq = 2").get != line
        if how != "edit":
            connection.execute(CHAIN[how])
        assert before
    assert await problems(await opens()) == {"audit-chain"}


LOG = {
    "edit": "UPDATE log SET header = ? WHERE step = 3",
    "delete": "DELETE FROM log WHERE step = 3",
    "truncate": "DELETE FROM log WHERE step = 5",
    "reorder": (
        "UPDATE log SET step = -3 WHERE step = 3; UPDATE log SET step = 3 WHERE step = 4;"
        "UPDATE log SET step = 4 WHERE step = -3"
    ),
    "content": "UPDATE log SET payload = (SELECT payload FROM log WHERE step = 4) WHERE step = 3",
}


@pytest.mark.parametrize("how", LOG)
async def test_s19_tampering_with_a_session_s_log_is_found(opens: Any, settings: Settings, how: str) -> None:
    engine = await opens()
    session = await start(engine)
    other = await start(engine)
    with database(settings) as connection:
        number = connection.execute("SELECT no FROM session WHERE id = ?", (session,)).get
        statements = LOG[how].replace("WHERE step", f"WHERE session = {number} AND step")
        header = connection.execute("SELECT header FROM log WHERE session = ? AND step = 3", (number,)).get
        connection.execute(statements, (bytes(header).replace(b"ana", b"eve"),) if how == "edit" else None)
    again = await opens()
    wrong = {one.session for one in [one async for one in again.verify(ROOT)] if not one.ok}
    assert wrong == {session}
    assert (await again.read(other, ANA)).version == 4


async def test_s19_the_audit_of_a_session_is_for_its_owner_an_admin_and_an_auditor(engine: Engine) -> None:
    session = await start(engine)
    for who in (ANA, ROOT, Principal("otto", roles=frozenset({"auditor"}))):
        assert len(await engine.audit(who, session_id=session, limit=1000)) >= 5
    with pytest.raises(PermissionDeniedError):
        await engine.audit(VIC, session_id=session)


async def test_s19_lines_hold_no_content(engine: Engine, settings: Settings) -> None:
    canary = "canary-5d1f"
    session = str((await engine.create(ANA, kind="knowledge", title=canary, items=[("chunks/1", {"text": canary})])).id)
    for arguments in ({"key": canary, "text": canary}, {canary: canary}):
        with pytest.raises(HoldfastError):
            await engine.operate(session, ANA, "edit", arguments, expected=1)
    await engine.search(ANA, canary)
    await engine.find(ANA, text=canary)
    await engine.audit(ROOT)
    with database(settings) as connection:
        lines = b"".join(bytes(line) for (line,) in connection.execute("SELECT line FROM audit"))
    assert lines
    assert canary.encode() not in lines


def test_the_path_of_the_database_is_where_the_settings_say(settings: Settings) -> None:
    assert Path(settings.hot_url.removeprefix("sqlite://")) == settings.home / "holdfast.sqlite"


async def test_following_is_told_of_once_while_it_goes_on_and_when_it_is_left(engine: Engine) -> None:
    session = str((await engine.create(ANA, kind="knowledge", items=[("chunks/1", {"text": "one"})])).id)

    async def told() -> list[str]:
        lines = await engine.audit(ROOT)
        return [line.outcome for line in lines if line.verb == "follow"]

    pages = engine.follow(session, ANA, idle=0.01)
    await anext(pages)
    assert await told() == ["ok"]
    await anext(pages)
    await pages.aclose()
    assert await told() == ["ok"]
    with pytest.raises(SessionNotFoundError):
        await anext(engine.follow(session, Principal("eve")))
    assert await told() == ["ok", "permission-denied"]


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_the_audit_is_read_page_by_page(opens: Any, settings: Settings, limit: int) -> None:
    engine = await opens()
    sessions = [str((await engine.create(ANA, kind="knowledge", items=ITEMS)).id) for _ in range(3)]
    for session in sessions:
        for look in (engine.read, engine.header, engine.history, engine.export):
            await look(session, ANA)
    whole = await engine.audit(ROOT, limit=1000)
    assert len(whole) == 12
    paged: list[AuditLine] = []
    while page := await engine.audit(ROOT, after=len(paged), limit=limit):
        if len(paged) >= len(whole):  # the reading is told of too
            break
        paged += page
    assert paged[: len(whole)] == whole
    with database(settings) as connection:  # lines of a second chain, as there are once the key of the first was lost
        connection.execute("UPDATE audit SET chain = 'default/k2' WHERE chain = 'default' AND seq > 5")
        connection.execute("INSERT INTO audit_chain SELECT 'default/k2', seq, mac, \"end\" FROM audit_chain")
    again = await opens()
    assert [line async for line in again._audit.lines("default")][: len(whole)] == whole
    assert (await again.audit(ROOT, after=3, limit=limit))[:9] == whole[3 : 3 + limit]


async def test_s19_a_verify_that_is_left_leaves_its_line(engine: Engine) -> None:
    for _ in range(2):
        await start(engine)
    found = engine.verify(ROOT)
    assert (await anext(found)).ok
    await found.aclose()  # type: ignore[attr-defined]
    assert [(line.actor, line.outcome) for line in await engine.audit(ROOT) if line.verb == "verify"] == [
        ("root", "ok")
    ]


async def test_only_a_session_that_is_there_is_verified(engine: Engine) -> None:
    session, another = await start(engine), Principal("otto", "another", frozenset({"auditor"}))
    assert [one.session async for one in engine.verify(ROOT, session)] == [session]
    for who, name in ((ROOT, "nosuch"), (ROOT, "ö"), (another, session)):
        with pytest.raises(SessionNotFoundError):
            await anext(engine.verify(who, name))
    told = {line.outcome for line in await engine.audit(another) if line.verb == "verify"}
    assert told == {"permission-denied"}  # the audit is told that it is there, who asked is not
    outcomes = [line.outcome for line in await engine.audit(ROOT) if line.verb == "verify"]
    assert outcomes == ["ok", "session-not-found", "session-not-found"]


class Meanwhile:
    """A warm store that lets somebody act right after it has said where the chains end."""

    def __init__(self, store: WarmStore) -> None:
        self._store = store
        self.act: Callable[[], Awaitable[None]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def chains(self) -> dict[str, ChainEnd]:
        found = await self._store.chains()
        act, self.act = self.act, None
        if act is not None:
            await act()
        return found


@pytest.mark.parametrize("begun", [True, False])
async def test_s19_lines_that_come_while_a_chain_is_verified_break_nothing(opens: Any, begun: bool) -> None:
    stores: list[Meanwhile] = []

    def wrap(store: WarmStore) -> Any:
        stores.append(Meanwhile(store))
        return stores[-1]

    verifying, writing = await opens(wrap_warm=wrap), await opens()
    session = str((await writing.create(ANA, kind="knowledge", items=ITEMS)).id)

    async def write() -> None:
        await writing.header(session, ANA)
        await writing.audit(ROOT)  # the lines taken down are written first

    if begun:
        await write()
    async for found in verifying.verify(ROOT):
        assert found.ok, found
        if found.session:
            stores[0].act = write
    assert stores[0].act is None
