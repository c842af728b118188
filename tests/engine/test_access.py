"""S02, S03, S10: somebody else's session is a missing one, what the server sets cannot be written, ids tell nothing."""

# ruff: noqa: PT012, PT017 - an edit is a block; any of several errors will do

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import (
    HoldfastError,
    InvalidChangeError,
    InvalidItemError,
    PermissionDeniedError,
    SessionNotFoundError,
)
from holdfast.model.access import Principal, Role
from holdfast.model.lease import Lease
from holdfast.model.retention import Retention
from holdfast.model.session import Header
from holdfast.settings import Settings
from holdfast.testing.clock import ManualClock

ANA = Principal("ana")
ROOT = Principal("root", roles=frozenset({"admin", "operator"}))
ADMIN, AUDITOR, OPERATOR = (
    Principal(f"an {role}", roles=frozenset({role})) for role in ("admin", "auditor", "operator")
)
STRANGERS = {
    "a stranger": Principal("eve"),
    "the namesake in another tenant": Principal("ana", tenant="other"),
    "the admin of another tenant": Principal("root", tenant="other", roles=frozenset({"admin", "auditor"})),
    "a stranger with a made-up role": Principal("eve", roles=frozenset({"owner", "editor"})),
    "a stranger named like the system": Principal("holdfast"),
}
MISSING = "a" * 32
ITEMS = [("chunks/1", {"text": "one"})]

Call = Callable[[Engine, str, Principal], Awaitable[Any]]


def lease_of(session: str) -> Lease:
    from holdfast.testing.clock import START

    return Lease(session, "tab", 1, START)


async def edit(engine: Engine, session: str, who: Principal) -> None:
    async with engine.edit(session, who, expected=2) as draft:
        draft.put("chunks/1", {"text": "two"})


async def follow(engine: Engine, session: str, who: Principal) -> None:
    async for _ in engine.follow(session, who):
        return


async def grant(engine: Engine, session: str, who: Principal) -> None:
    await engine.grant(session, who, "eve", Role.EDITOR)


async def operate(engine: Engine, session: str, who: Principal) -> None:
    await engine.operate(session, who, "edit", {"key": "chunks/1", "text": "two"}, expected=2)


CALLS: dict[str, Call] = {
    "edit": edit,
    "operate": operate,
    "follow": follow,
    "grant": grant,
    "read": lambda engine, session, who: engine.read(session, who),
    "header": lambda engine, session, who: engine.header(session, who),
    "history": lambda engine, session, who: engine.history(session, who),
    "diff": lambda engine, session, who: engine.diff(session, who, 1, 2),
    "feed": lambda engine, session, who: engine.feed(session, who),
    "export": lambda engine, session, who: engine.export(session, who),
    "labels": lambda engine, session, who: engine.labels(session, who),
    "receipts": lambda engine, session, who: engine.receipts(session, who),
    "leased": lambda engine, session, who: engine.leased(session, who),
    "preview_undo": lambda engine, session, who: engine.preview_undo(session, who),
    "preview_redo": lambda engine, session, who: engine.preview_redo(session, who),
    "undo": lambda engine, session, who: engine.undo(session, who, expected=2),
    "redo": lambda engine, session, who: engine.redo(session, who, expected=2),
    "restore": lambda engine, session, who: engine.restore(session, who, 1, expected=2),
    "label": lambda engine, session, who: engine.label(session, who, "mine"),
    "rename": lambda engine, session, who: engine.rename(session, who, "mine"),
    "preview": lambda engine, session, who: engine.preview(session, who),
    "unlock": lambda engine, session, who: engine.unlock(session, who),
    "take_over": lambda engine, session, who: engine.take_over(session, who),
    "publish": lambda engine, session, who: engine.publish(session, who, seal="0" * 64),
    "rollback": lambda engine, session, who: engine.rollback(session, who),
    "reopen": lambda engine, session, who: engine.reopen(session, who),
    "discard": lambda engine, session, who: engine.discard(session, who),
    "revive": lambda engine, session, who: engine.revive(session, who),
    "touch": lambda engine, session, who: engine.touch(session, who),
    "extend": lambda engine, session, who: engine.extend(session, who, seconds=None),
    "suspend": lambda engine, session, who: engine.suspend(session, who),
    "archive": lambda engine, session, who: engine.archive(session, who),
    "rehydrate": lambda engine, session, who: engine.rehydrate(session, who),
    "lease": lambda engine, session, who: engine.lease(session, who, "tab"),
    "renew": lambda engine, session, who: engine.renew(lease_of(session), who),
    "release": lambda engine, session, who: engine.release(lease_of(session), who),
    "audit": lambda engine, session, who: engine.audit(who, session_id=session),
}
SERVICE = {"sweep", "verify", "tiers", "flush", "keys", "rotate_keys"}
ANYBODY = {"create", "ingest", "find", "search", "counts", "lags", "health", "tier_state", "start", "close"} | {
    "revoke",
    "revocations",
}

READ = {"read", "header", "history", "diff", "feed", "follow", "export", "labels", "receipts", "leased"}
WRITE = {"edit", "operate", "undo", "redo", "preview_undo", "preview_redo", "lease", "renew", "release", "touch"}
STEER = {"label", "restore", "rename", "preview", "unlock", "take_over", "publish", "reopen", "extend", "suspend"} | {
    "archive",
    "rehydrate",
}
OWN = {"rollback", "discard", "revive", "grant", "audit"}
MAY = {
    "viewer": READ,
    "participant": READ | WRITE,
    "editor": READ | WRITE | STEER,
    "owner": READ | WRITE | STEER | OWN,
    "admin": READ | WRITE | STEER | OWN,
    "auditor": {"header", "receipts", "audit"},
}


def public() -> set[str]:
    return {name for name, _ in inspect.getmembers(Engine, inspect.isfunction) if not name.startswith("_")}


def test_s02_every_verb_of_the_engine_is_in_the_table() -> None:
    assert public() == CALLS.keys() | SERVICE | ANYBODY
    assert MAY["owner"] == CALLS.keys()


async def sessions(engine: Engine, clock: ManualClock) -> dict[str, str]:
    """A session of Ana's in every status, version 2 each."""

    async def one(ttl: float | None = None) -> str:
        made = await engine.create(ANA, kind="knowledge", title="t", items=ITEMS, retention=Retention(ttl=ttl))
        await engine.operate(made.id, ANA, "insert", {"text": "two"}, expected=1)
        return str(made.id)

    found = {"purged": await one()}
    await engine.discard(found["purged"], ANA)
    clock.advance(604_801)
    await engine.sweep(ROOT)
    found["expired"] = await one(60)
    clock.advance(61)
    found |= {"draft": await one(), "locked": await one(), "published": await one(), "discarded": await one()}
    await engine.preview(found["locked"], ANA)
    await engine.publish(found["published"], ANA, seal=(await engine.preview(found["published"], ANA)).seal)
    await engine.discard(found["discarded"], ANA)
    return found


async def refusal(call: Call, engine: Engine, session: str, who: Principal) -> tuple[Any, ...]:
    with pytest.raises(HoldfastError) as caught:
        await call(engine, session, who)
    error = caught.value
    facts = {name: str(value).replace(session, "<id>") for name, value in error.facts().items()}
    return type(error), error.code, str(error).replace(session, "<id>"), facts, error.args != ()


async def test_s02_somebody_else_s_session_is_told_of_like_a_missing_one(opens: Any, clock: ManualClock) -> None:
    engine = await opens()
    there = await sessions(engine, clock)
    tried = 0
    for each in (engine, await opens()):  # one that has the sessions at hand, one that has not
        for name, call in CALLS.items():
            for who in STRANGERS.values():
                missing = await refusal(call, each, MISSING, who)
                assert missing[0] is SessionNotFoundError, name
                for status, session in there.items():
                    tried += 1
                    assert await refusal(call, each, session, who) == missing, f"{name} of a {status} session"
    print(f"S02 verbs={len(CALLS)} principals={len(STRANGERS)} statuses={len(there)} tried={tried} leaks=0")
    for who in STRANGERS.values():
        assert (await engine.find(who)).headers == ()


async def test_s02_a_damaged_session_is_told_of_to_strangers_like_a_missing_one(opens: Any, settings: Settings) -> None:
    import apsw

    engine = await opens()
    session = str((await engine.create(ANA, kind="knowledge", items=ITEMS)).id)
    broken = str((await engine.create(ANA, kind="knowledge", items=ITEMS)).id)
    connection = apsw.Connection(str(settings.home / "holdfast.sqlite"))
    connection.execute("UPDATE session SET key = NULL WHERE id = ?", (session,))
    connection.execute("UPDATE session SET sealed = zeroblob(length(sealed)) WHERE id = ?", (broken,))
    connection.close()
    again = await opens()
    for name, call in CALLS.items():
        for who in STRANGERS.values():
            missing = await refusal(call, again, MISSING, who)
            for damaged in (session, broken):
                assert await refusal(call, again, damaged, who) == missing, name
    for damaged in (session, broken):
        with pytest.raises(HoldfastError) as caught:
            await again.read(damaged, ANA)
        assert caught.value.code in ("unreadable", "tampered")


@pytest.mark.parametrize("role", MAY)
async def test_s02_each_role_may_do_what_the_table_says_and_nothing_else(engine: Engine, role: str) -> None:
    who = {"owner": ANA, "admin": ADMIN, "auditor": AUDITOR, "operator": OPERATOR}.get(role, Principal(f"the {role}"))
    refused = set()
    for name, call in CALLS.items():
        session = str((await engine.create(ANA, kind="knowledge", items=ITEMS)).id)
        await engine.operate(session, ANA, "insert", {"text": "two"}, expected=1)
        if role in ("viewer", "participant", "editor"):
            await engine.grant(session, ANA, who.id, Role(role))
        step = (await engine.header(session, ANA)).step
        try:
            await call(engine, session, who)
        except PermissionDeniedError as error:
            refused.add(name)
            assert error.principal == who.id
            assert (await engine.header(session, ANA)).step == step
        except HoldfastError as error:  # allowed, and not possible in that status
            assert error.code in ("not-draft", "nothing-to-undo", "seal-mismatch", "lease-lost"), f"{name}: {error}"
    assert refused == CALLS.keys() - MAY[role]


async def test_s02_service_verbs_are_for_service_roles(engine: Engine) -> None:
    async def verify(who: Principal) -> None:
        async for _ in engine.verify(who):
            pass

    calls: dict[str, Callable[[Principal], Awaitable[Any]]] = {
        "sweep": engine.sweep,
        "verify": verify,
        "keys": engine.keys,
        "rotate_keys": engine.rotate_keys,
        "audit": engine.audit,
    }
    for name, call in calls.items():
        for who in (ANA, STRANGERS["a stranger with a made-up role"]):
            with pytest.raises(PermissionDeniedError):
                await call(who)
        for who in (ADMIN, AUDITOR):
            if name in ("sweep", "keys", "rotate_keys"):  # which reach every tenant
                with pytest.raises(PermissionDeniedError):
                    await call(who)
            else:
                await call(who)
    for call in (engine.sweep, engine.keys, engine.rotate_keys):
        await call(OPERATOR)
    for call in (verify, engine.audit):
        with pytest.raises(PermissionDeniedError):
            await call(OPERATOR)


async def test_s02_tenants_do_not_meet(engine: Engine, clock: ManualClock) -> None:
    """Not in listings, search, audit, verification, targets or quotas, though they use the same names."""
    here, there = Principal("ana", tenant="here"), Principal("ana", tenant="there")
    hers = await engine.create(here, kind="knowledge", title="lamp", items=[("chunks/1", {"text": "lamp"})], target="x")
    theirs = await engine.create(
        there, kind="knowledge", title="lamp", items=[("chunks/1", {"text": "oil"})], target="x"
    )
    for who, session in ((here, hers), (there, theirs)):
        await engine.publish(session.id, who, seal=(await engine.preview(session.id, who)).seal)
        assert [header.id for header in (await engine.find(who, text="lamp")).headers] == [session.id]
    assert {hit.text for hit in await engine.search(here, "lamp oil")} == {"lamp"}
    assert {hit.text for hit in await engine.search(there, "lamp oil")} == {"oil"}
    await engine.rollback(hers.id, here)
    assert {hit.text for hit in await engine.search(there, "lamp oil")} == {"oil"}
    admin = Principal("root", tenant="here", roles=frozenset({"admin"}))
    assert {line.tenant for line in await engine.audit(admin)} == {"here"}
    verified = [one async for one in engine.verify(admin)]
    assert [one.session for one in verified if one.session] == [hers.id]
    assert [one.chain for one in verified if not one.session] == ["here"]


@pytest.mark.parametrize("tenant", ["a/b", "", "/", "x" * 201, "\ud800"])
def test_s02_a_tenant_s_name_cannot_reach_into_another_s(tenant: str) -> None:
    with pytest.raises(InvalidChangeError):
        Principal("ana", tenant=tenant)


async def test_s02_a_right_taken_away_ends_with_the_next_verb(opens: Any) -> None:
    engine, other = await opens(), await opens()
    session = str((await engine.create(ANA, kind="knowledge", items=ITEMS)).id)
    ben = Principal("ben")
    await engine.grant(session, ANA, "ben", Role.EDITOR)
    await other.read(session, ben)
    following = other.follow(session, ben)
    await anext(following)
    await engine.grant(session, ANA, "ben", None)
    for call in CALLS.values():
        assert (await refusal(call, other, session, ben))[0] is SessionNotFoundError
    with pytest.raises(SessionNotFoundError):
        await anext(following)


# -- S03 ---------------------------------------------------------------------------------------------------------------

SERVER_SET = set(Header.__struct_fields__) - {"title", "kind", "retention", "target"}
ASKED = {
    "find": {"owner", "status", "tier"},  # filters
    "read": {"version"},
    "label": {"version"},
}


def test_s03_no_verb_takes_what_the_server_sets() -> None:
    for name in public():
        parameters = set(inspect.signature(getattr(Engine, name)).parameters) - {"self"}
        assert parameters & SERVER_SET <= ASKED.get(name, set()), name


async def test_s03_what_the_server_sets_comes_out_as_the_server_set_it(engine: Engine, clock: ManualClock) -> None:
    session = await engine.create(ANA, kind="knowledge", title="t", items=ITEMS, change_id="c")
    header = await engine.header(session.id, ANA)
    assert (header.owner, header.tenant, header.version, header.step, header.status) == (
        "ana",
        "default",
        1,
        1,
        "draft",
    )
    assert (header.created, header.grants, header.blobs, header.parent) == (clock.now(), {}, (), None)


@pytest.mark.parametrize(
    "key", ["_labels/x", "_receipts/000001", "chunks", "Chunks/1", "chunks/a/b", "../x", "chunks/"]
)
async def test_s03_notes_of_the_engine_cannot_be_written_as_items(engine: Engine, key: str) -> None:
    with pytest.raises(InvalidItemError):
        await engine.create(ANA, kind="knowledge", items=[(key, {"text": "x"})])
    session = (await engine.create(ANA, kind="knowledge", items=ITEMS)).id
    with pytest.raises(InvalidItemError):
        async with engine.edit(session, ANA, expected=1) as draft:
            draft.put(key, {"text": "x"})
    assert (await engine.header(session, ANA)).step == 1


@pytest.mark.parametrize("field", sorted(SERVER_SET | {"key", "position", "written", "actor"}))
async def test_s03_no_body_and_no_argument_smuggles_a_field_in(engine: Engine, field: str) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=ITEMS)).id
    with pytest.raises(InvalidItemError):
        async with engine.edit(session, ANA, expected=1) as draft:
            draft.put("chunks/1", {"text": "x", field: "eve"})
    if field != "key":
        with pytest.raises(InvalidChangeError):
            arguments = {"key": "chunks/1", "text": "x", field: "eve"}
            await engine.operate(session, ANA, "edit", arguments, expected=1)
    assert (await engine.header(session, ANA)).step == 1


@pytest.mark.parametrize(
    "name",
    [
        "publish",
        "create",
        "undo",
        "purge",
        "expire",
        "grant",
        "unlock",
        "reload",
        "end",
        "",
        "Edit",
        "x" * 65,
        "a b",
        "\ud800",
    ],
)
async def test_s03_an_edit_cannot_pass_for_another_verb_in_the_log(engine: Engine, name: str) -> None:
    session = (await engine.create(ANA, kind="knowledge", items=ITEMS)).id
    with pytest.raises(InvalidChangeError):
        async with engine.edit(session, ANA, expected=1, operation=name) as draft:
            draft.put("chunks/1", {"text": "x"})
    async with engine.edit(session, ANA, expected=1, operation="spell-check") as draft:
        draft.put("chunks/1", {"text": "y"})
    assert [line.verb for line in await engine.audit(ANA, session_id=session) if line.outcome == "ok"][:2] == [
        "create",
        "spell-check",
    ]


async def test_s03_what_was_read_cannot_be_turned_against_what_is_kept(engine: Engine) -> None:
    session = await engine.create(ANA, kind="knowledge", items=ITEMS)
    read = await engine.read(session.id, ANA)
    with pytest.raises((TypeError, AttributeError)):
        read.by_key.clear()  # type: ignore[attr-defined]
    read.items[0].body["text"] = "altered"
    with pytest.raises(AttributeError):
        setattr(read.header, "owner", "eve")  # noqa: B010 - the type checker knows better
    assert [item.body["text"] for item in (await engine.read(session.id, ANA)).items] == ["one"]


# -- S10 ---------------------------------------------------------------------------------------------------------------


async def test_s10_ids_are_of_128_random_bits_or_more_and_mean_nothing(engine: Engine) -> None:
    made = [await engine.create(ANA, kind="knowledge", title="same", items=ITEMS) for _ in range(200)]
    named = [await engine.create(ANA, kind="knowledge", items=ITEMS, change_id=f"{n}") for n in range(200)]
    ids = [session.id for session in made + named]
    assert len(set(ids)) == 400
    for name in ids:
        assert re.fullmatch(r"[a-z2-7]{32}", name)  # 32 characters of 5 bits: 160
    for at in range(32):  # no character stands still: no time, no counter, no host inside
        assert len({name[at] for name in ids}) > 16


async def test_s10_ids_of_the_same_change_differ_where_the_secret_does(tmp_path: Path, opens: Any) -> None:
    ids = set()
    for n in range(5):
        engine = await opens(Settings(home=tmp_path / f"{n}"))
        ids.add((await engine.create(ANA, kind="knowledge", items=ITEMS, change_id="make")).id)
    assert len(ids) == 5


async def test_s10_nobody_chooses_an_id_and_asking_for_one_makes_nothing(engine: Engine) -> None:
    for verb in ("create", "ingest", "reopen"):
        parameters = inspect.signature(getattr(Engine, verb)).parameters
        assert not {"id", "session", "name_of_session"} & set(parameters)
    with pytest.raises(TypeError):
        await engine.create(ANA, kind="knowledge", id="mine")  # type: ignore[call-arg]
    for asked in (MISSING, "", "x" * 10_000, "../../etc", "\ud800", "é", "a\0b", "' OR 1=1 --"):
        for call in CALLS.values():
            with pytest.raises(SessionNotFoundError):
                await call(engine, asked, ANA)
    assert (await engine.find(ROOT)).headers == ()
    lines = await engine.audit(ROOT, limit=100_000)
    assert all(len(line.session) <= 100 for line in lines)
    assert sum(line.outcome == "session-not-found" for line in lines) >= len(CALLS)
