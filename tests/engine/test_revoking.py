"""S09: who may take which tokens back, how long that is kept, and that it is told of."""

from __future__ import annotations

import time
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.engine.engine import Engine
from holdfast.engine.revoking import MOST_OWN
from holdfast.errors import InvalidChangeError, LimitExceededError, PermissionDeniedError
from holdfast.model.access import Principal
from holdfast.model.revocation import Revocation
from holdfast.settings import Settings
from holdfast.settings.sections import Auth

ANA, BEN = Principal("ana", "acme"), Principal("ben", "acme")
ROOT = Principal("root", "acme", frozenset({"admin"}))
AUDITOR = Principal("otto", "acme", frozenset({"auditor"}))
ELSEWHERE = Principal("root", "other", frozenset({"admin"}))
LONGEST = 86_520.0


async def test_s09_an_admin_may_revoke_for_anybody_of_the_tenant(engine: Engine) -> None:
    start = time.time()
    made = [
        await engine.revoke(ROOT, token="t1"),
        await engine.revoke(ROOT, token="t2", principal="ana"),
        await engine.revoke(ROOT, principal="ana"),
        await engine.revoke(ROOT, everybody=True),
    ]
    about = [(one.tenant, one.token, one.principal, one.by) for one in made]
    assert about == [
        ("acme", "t1", "", "root"),
        ("acme", "t2", "ana", "root"),
        ("acme", "", "ana", "root"),
        ("acme", "", "", "root"),
    ]
    assert [one.before for one in made[:2]] == [0, 0]
    for one in made[2:]:
        assert start <= one.before <= time.time()
    for one in made:
        assert start + LONGEST <= one.until <= time.time() + LONGEST
    assert await engine.revocations(ROOT) == made


async def test_s09_anybody_may_revoke_what_is_his_own_and_no_more(engine: Engine) -> None:
    own = await engine.revoke(ANA, principal="ana")
    assert (own.principal, own.token) == ("ana", "")
    for principal in (None, "ana"):
        one = await engine.revoke(ANA, token="t1", principal=principal)
        assert (one.principal, one.token) == ("ana", "t1")  # bound to her: of a token of Ben's it says nothing
    stands = await engine.revocations(ANA)
    for who in (ANA, AUDITOR, Principal("eve", "acme", frozenset({"owner", "Admin"}))):
        refused: list[dict[str, Any]] = [
            {"principal": "ben"},
            {"token": "t2", "principal": "ben"},
            {"everybody": True},
            {"principal": ""},
            {"token": "t2", "principal": ""},
        ]
        for given in refused:
            with pytest.raises(PermissionDeniedError):
                await engine.revoke(who, **given)
    assert await engine.revocations(ROOT) == stands


async def test_s09_what_is_revoked_is_told_to_whom_it_concerns(engine: Engine) -> None:
    hers, his = await engine.revoke(ANA, token="t1"), await engine.revoke(ROOT, principal="ben")
    any_of, all_of = await engine.revoke(ROOT, token="t2"), await engine.revoke(ROOT, everybody=True)
    await engine.revoke(ELSEWHERE, principal="ana")
    assert await engine.revocations(ROOT) == [hers, his, any_of, all_of]
    assert await engine.revocations(ANA) == [hers]
    assert await engine.revocations(BEN) == [his]
    assert await engine.revocations(AUDITOR) == []
    assert [one.tenant for one in await engine.revocations(ELSEWHERE)] == ["other"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"before": 1.0},
        {"everybody": True, "token": "t"},
        {"everybody": True, "principal": "ana"},
        {"token": ""},
        {"token": "t" * 201},
        {"token": "\ud800"},
        {"principal": ""},
        {"principal": "p" * 201},
        {"token": "t", "before": 1.0},
        {"token": "t", "until": 1.0},
        {"token": "t", "until": float("nan")},
        {"token": "t", "until": float("inf")},
        {"principal": "ana", "until": 9e9},
        {"principal": "ana", "before": 0.0},
        {"principal": "ana", "before": -1.0},
        {"principal": "ana", "before": 9e9},
        {"principal": "ana", "before": float("nan")},
        {"everybody": True, "before": float("inf")},
    ],
)
async def test_what_makes_no_sense_is_refused(given: dict[str, Any], engine: Engine) -> None:
    with pytest.raises(InvalidChangeError):
        await engine.revoke(ROOT, **given)
    assert await engine.revocations(ROOT) == []


async def test_s09_a_revocation_is_kept_as_long_as_such_a_token_could_live(settings: Settings, opens: Any) -> None:
    engine = await opens(replace(settings, auth=Auth(lifetime=604_800.0, leeway=30.0)))
    start = time.time()
    many: list[dict[str, Any]] = [
        {"token": "t"},
        {"principal": "ana"},
        {"principal": "ben", "before": start - 1_000},
        {"everybody": True},
    ]
    for given in many:
        one = await engine.revoke(ROOT, **given)
        assert one.until >= start + 604_800 + 30
    short = await engine.revoke(ROOT, token="short", until=start + 500)
    assert short.until == start + 500
    bounded = await engine.revoke(ROOT, token="bounded", until=start + 1e9)
    assert bounded.until <= time.time() + 604_860


async def test_s09_an_earlier_time_does_not_weaken_a_later_one(engine: Engine) -> None:
    first = await engine.revoke(ROOT, principal="ana")
    again = await engine.revoke(ANA, principal="ana", before=first.before - 500)
    assert again.before == first.before
    assert again.until >= first.until
    assert await engine.revocations(ANA) == [again]


async def test_s09_who_is_no_admin_cannot_fill_the_store(engine: Engine) -> None:
    for number in range(MOST_OWN):
        await engine.revoke(ANA, token=f"t{number}")
    with pytest.raises(LimitExceededError):
        await engine.revoke(ANA, token="one more")
    await engine.revoke(ANA, token="t7")  # again is no more
    await engine.revoke(ANA, principal="ana")
    await engine.revoke(BEN, token="one more")
    await engine.revoke(ROOT, token="one more")
    assert len(await engine.revocations(ROOT)) == MOST_OWN + 3


async def test_s09_whoever_listens_is_told_before_the_revoker(engine: Engine) -> None:
    heard: list[Revocation] = []
    engine.revoking.listen(heard.append)
    made = await engine.revoke(ANA, token="t")
    assert heard == [made]
    with pytest.raises(PermissionDeniedError):
        await engine.revoke(ANA, principal="ben")
    assert heard == [made]


async def test_s09_another_engine_on_the_same_home_reads_it(opens: Any) -> None:
    one, other = await opens(), await opens()
    _, after = await other.revoking.since(0)
    made = [await one.revoke(ANA, token="t"), await one.revoke(ELSEWHERE, everybody=True)]
    found, after = await other.revoking.since(after)
    assert found == made  # of every tenant
    assert await other.revoking.since(after) == ([], after)


async def test_s19_what_was_revoked_and_what_was_refused_is_audited(engine: Engine) -> None:
    await engine.revoke(ANA, token="t")
    await engine.revocations(ANA)
    with pytest.raises(PermissionDeniedError):
        await engine.revoke(ANA, principal="ben")
    with pytest.raises(InvalidChangeError):
        await engine.revoke(ANA)
    lines = {(line.actor, line.verb, line.outcome) for line in await engine.audit(ROOT)}
    assert lines == {
        ("ana", "revoke", "ok"),
        ("ana", "revocations", "ok"),
        ("ana", "revoke", "permission-denied"),
        ("ana", "revoke", "invalid-change"),
    }
