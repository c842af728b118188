"""S05, S09: what is revoked counts at once where it was revoked, and within a second in every other process."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast.engine.engine import Engine
from holdfast.errors import StoreUnavailableError, UnauthenticatedError
from holdfast.model.access import Principal
from holdfast.model.revocation import Revocation
from holdfast.ports.observer import Observer
from holdfast.service.auth import revoked as module
from holdfast.service.auth.caller import REVOKED, Authenticator, Caller
from holdfast.service.auth.revoked import EVERY, STALE, Revoked
from holdfast.testing.issuer import Issuer

ROOT = Principal("root", "acme", frozenset({"admin"}))
REVOKER = """
import asyncio, sys
from pathlib import Path
from holdfast.compose import open_engine
from holdfast.model.access import Principal
from holdfast.settings import Settings

async def main():
    async with open_engine(Settings(home=Path(sys.argv[1]))) as engine:
        print("ready", flush=True)
        for line in sys.stdin:
            await engine.revoke(Principal("root", "acme", frozenset({"admin"})), token=line.strip())
            print("revoked", flush=True)

asyncio.run(main())
"""


class Steady:
    """A clock of one's own for how long ago something was."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Watcher(Observer):
    """Keeps what it is told has failed."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []

    def failed(self, what: str, code: str, session: str = "") -> None:
        self.failures.append((what, code))

    def appended(self, *about: Any) -> None: ...
    def leased(self, *about: Any) -> None: ...
    def stored(self, *about: Any) -> None: ...
    def broke(self, *about: Any) -> None: ...


class Store:
    """In the place of ``Revoking``, where the store is to fail: answers with what it is given, or not at all."""

    def __init__(self) -> None:
        self.found: list[Revocation] = []
        self.error: Exception | None = None
        self.silent = False
        self.asked: list[int] = []

    def listen(self, hear: Any) -> None:
        pass

    async def since(self, after: int) -> tuple[list[Revocation], int]:
        self.asked.append(after)
        if self.silent:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.found[after:], len(self.found)


def caller(principal: str = "ana", token: str = "", issued: float = 500.0, tenant: str = "acme") -> Caller:
    return Caller(Principal(principal, tenant), token, issued, 9e9)


def one_token(token: str, principal: str = "", tenant: str = "acme", until: float = 9e9) -> Revocation:
    return Revocation(tenant, token, principal, 0.0, until, "root")


async def accepted(verifier: Authenticator, token: str) -> bool:
    try:
        await verifier.authenticate(f"Bearer {token}")
    except UnauthenticatedError as error:
        if error.reason != REVOKED:
            raise
        return False
    return True


# -- in the process where it is revoked --------------------------------------------------------------------------------


async def test_s09_one_token_is_revoked_at_once_and_no_other(believes: Any, engine: Engine, instant: Any) -> None:
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer)
    tokens = {name: issuer.token("ana", jti=name, tenant="acme") for name in ("t1", "t2")}
    tokens["of another tenant"] = issuer.token("ana", jti="t1", tenant="other")
    tokens["without an id"] = issuer.token("ana", tenant="acme")
    following = await verifier.authenticate(f"Bearer {tokens['t1']}")
    other = await verifier.authenticate(f"Bearer {tokens['t2']}")
    await engine.revoke(ROOT, token="t1")
    assert not verifier.stands(following)
    assert verifier.stands(other)
    assert {name for name, token in tokens.items() if not await accepted(verifier, token)} == {"t1"}
    assert not await accepted(verifier, issuer.token("ana", jti="t1", tenant="acme", exp=instant() + 700))


async def test_s09_all_tokens_of_a_principal_from_before_a_time_are_revoked(
    believes: Any, engine: Engine, instant: Any
) -> None:
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer)

    def token(principal: str, ago: float, tenant: str = "acme") -> str:
        return issuer.token(principal, tenant=tenant, iat=instant() - ago, jti=f"{principal} {ago}")

    old, new = token("ana", 100), token("ana", 50)
    others = [token("ben", 100), token("ana", 100, "other")]
    following = await verifier.authenticate(f"Bearer {old}")
    await engine.revoke(ROOT, principal="ana", before=instant() - 50)
    assert not verifier.stands(following)
    assert not await accepted(verifier, old)
    for stands in (new, *others):
        assert await accepted(verifier, stands)
    await engine.revoke(ROOT, everybody=True, before=instant() - 50)
    assert [await accepted(verifier, each) for each in (old, new, *others)] == [False, True, False, True]


async def test_s09_who_is_no_admin_ends_his_own_tokens_and_no_other_s(
    believes: Any, engine: Engine, instant: Any
) -> None:
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer)
    hers, his = issuer.token("ana", jti="t1", tenant="acme"), issuer.token("ben", jti="t2", tenant="acme")
    for token in ("t1", "t2"):
        await engine.revoke(Principal("ana", "acme"), token=token)
    assert not await accepted(verifier, hers)
    assert await accepted(verifier, his)


# -- in another process ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def revoker(home: Path) -> AsyncIterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", REVOKER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        yield process
    finally:
        process.communicate()


async def rounds_until_known(verifier: Any, process: subprocess.Popen[str], token: str, name: str) -> int | None:
    """How many more times the store was read before a revocation of another process was known; None: not in eight."""
    revoked, reads = verifier._revoked, 0
    read = revoked.read

    async def counted() -> None:
        nonlocal reads
        await read()
        reads += 1

    assert await accepted(verifier, token)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name}\n")
    process.stdin.flush()
    assert await asyncio.to_thread(process.stdout.readline) == "revoked\n"
    revoked.read = counted
    for _ in range(8):
        if not await accepted(verifier, token):
            return reads
        await asyncio.sleep(EVERY)
    return None


async def test_s09_a_revocation_of_another_process_is_known_within_a_second(
    believes: Any, instant: Any, tmp_path: Path
) -> None:
    """Known by the second read after it was acknowledged at the latest, and reads are half a second apart or less."""
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer)
    async with revoker(tmp_path / "home") as process:
        for number in range(5):
            token = issuer.token("ana", tenant="acme", jti=f"t{number}")
            rounds = await rounds_until_known(verifier, process, token, f"t{number}")
            assert rounds is not None
            assert rounds <= 2
    assert EVERY <= 0.5


class ReadsOnce(Revoked):
    """Broken on purpose: knows what was revoked when it was opened."""

    async def _watch(self) -> None:
        return


async def test_s09_a_process_that_reads_once_is_caught(
    believes: Any, instant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.service.auth import authenticator

    monkeypatch.setattr(authenticator, "Revoked", ReadsOnce)
    issuer = Issuer("ES", now=instant)
    verifier = await believes(issuer)
    async with revoker(tmp_path / "home") as process:
        token = issuer.token("ana", tenant="acme", jti="t1")
        assert await rounds_until_known(verifier, process, token, "t1") is None


async def test_s09_what_was_revoked_before_the_start_is_known_from_the_first_request(
    believes: Any, opens: Any, instant: Any
) -> None:
    issuer, earlier = Issuer("ES", now=instant), await opens()
    await earlier.revoke(ROOT, token="t1")
    verifier = await believes(issuer, await opens())
    assert not await accepted(verifier, issuer.token("ana", tenant="acme", jti="t1"))


# -- a store that does not answer --------------------------------------------------------------------------------------


async def test_while_the_store_fails_the_last_list_holds_and_the_watcher_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.001)
    store, watcher, steady = Store(), Watcher(), Steady()
    store.found = [one_token("t1")]
    revoked = Revoked(store, watcher, lambda: 1.0, steady)  # type: ignore[arg-type]
    await revoked.open()
    store.error = StoreUnavailableError("hot", "it is not there")
    for passed in (0.0, STALE - 0.1):
        steady.now += passed
        asked = len(store.asked)
        while len(store.asked) < asked + 3:
            await asyncio.sleep(0.001)
        assert watcher.failures == []
    steady.now += 0.2
    while not watcher.failures:
        await asyncio.sleep(0.001)
    assert watcher.failures == [("revocations", "store-unavailable")]
    assert revoked.age > STALE
    assert caller(token="t1") in revoked
    assert caller(token="t2") not in revoked
    steady.now += STALE
    while len(watcher.failures) < 2:
        await asyncio.sleep(0.001)
    store.error, store.found = None, [one_token("t1"), one_token("t2")]
    while caller(token="t2") not in revoked:
        await asyncio.sleep(0.001)
    assert revoked.age == 0
    await revoked.close()


async def test_a_store_that_hangs_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.001)
    monkeypatch.setattr(module, "ANSWER", 0.01)
    store, watcher, steady = Store(), Watcher(), Steady()
    revoked = Revoked(store, watcher, lambda: 1.0, steady)  # type: ignore[arg-type]
    await revoked.open()
    store.silent = True
    steady.now += STALE
    while len(store.asked) < 4:
        await asyncio.sleep(0.001)
    assert watcher.failures == [("revocations", "TimeoutError")]
    store.silent, store.found = False, [one_token("t1")]
    while caller(token="t1") not in revoked:
        await asyncio.sleep(0.001)
    await revoked.close()


async def test_while_nothing_is_known_the_service_does_not_start(
    believes: Any, engine: Engine, instant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(after: int) -> Any:
        raise StoreUnavailableError("hot", "it is not there")

    monkeypatch.setattr(engine.revoking, "since", fails)
    before = asyncio.all_tasks()
    with pytest.raises(StoreUnavailableError):
        await believes(Issuer("ES", now=instant))
    assert asyncio.all_tasks() == before


async def test_a_store_that_counts_from_a_lower_number_is_read_whole_after_a_while() -> None:
    """As one does that lost what it was last told."""
    store, steady = Store(), Steady()
    store.found = [one_token(f"t{number}") for number in range(5)]
    revoked = Revoked(store, None, lambda: 1.0, steady)  # type: ignore[arg-type]
    await revoked.read()
    store.found = [one_token("t9")]
    await revoked.read()
    assert caller(token="t9") not in revoked
    steady.now += 10
    await revoked.read()
    assert caller(token="t9") in revoked
    assert caller(token="t0") in revoked
    assert store.asked == [0, 5, 0]


# -- the rule ----------------------------------------------------------------------------------------------------------


def takes_back(one: Revocation, who: Caller) -> bool:
    """The rule as it is told: slow, and by every revocation in turn."""
    about = one.tenant == who.principal.tenant and one.principal in ("", who.principal.id)
    return about and (one.token == who.token if one.token else who.issued < one.before)


async def test_s09_what_is_known_agrees_with_the_rule() -> None:
    random = Random(9)
    names, tokens, tenants = ("ana", "ben"), ("", "t1", "t2"), ("acme", "other")
    hits = 0
    for _ in range(300):
        made: list[Revocation] = []
        for _ in range(random.randrange(5)):
            token = random.choice(tokens)
            before = 0.0 if token else random.choice((400.0, 500.0, 500.5, 600.0))
            principal = random.choice(("", *names))
            made.append(Revocation(random.choice(tenants), token, principal, before, 9e9, "root"))
        revoked = Revoked(Store(), None, lambda: 1.0)  # type: ignore[arg-type]
        for one in made:
            revoked.add(one)
        for who in (caller(n, t, i, e) for n in names for t in tokens for i in (450.0, 500.0, 550.0) for e in tenants):
            wanted = any(takes_back(one, who) for one in made)
            assert (who in revoked) is wanted, (made, who)
            hits += wanted
    assert hits > 1_000


async def test_what_has_lapsed_is_let_go_of() -> None:
    store, steady, now = Store(), Steady(), [1_000.0]
    revoked = Revoked(store, None, lambda: now[0], steady)  # type: ignore[arg-type]
    for number in range(100):
        revoked.add(one_token(f"t{number}", until=1_001 + number))
        revoked.add(Revocation("acme", "", f"p{number}", 900.0, 1_001 + number, "root"))
    now[0], steady.now = 1_050.0, steady.now + 10
    await revoked.read()
    assert len(revoked._tokens) == len(revoked._before) == 50
