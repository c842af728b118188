"""Every error arrives as it was raised: through a problem document and back, same class, sentence and facts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from holdfast import errors
from holdfast.client.problems import error_of, rebuilt
from holdfast.errors import (
    HoldfastError,
    LeaseHeldError,
    NotDraftError,
    ServiceError,
    SessionGoneError,
    UnavailableError,
    VersionConflictError,
)
from holdfast.model.change import Conflict
from holdfast.service.problems import described

NOW = datetime(2026, 11, 20, 12, 30, 15, 250_000, tzinfo=UTC)
CONFLICT = Conflict("chunks/1", {"text": "a", "n": [1, 2.5, None]}, None, {"text": "ü"})
SAMPLES: dict[str, Any] = {
    "int": 7,
    "float": 1.25,
    "str": "it's “so”",
    "str | None": "x",
    "datetime": NOW,
    "datetime | None": NOW + timedelta(hours=1),
    "Sequence[Any]": (CONFLICT, Conflict("b", 1, 2, 3)),
    "Iterable[str]": ["b", "a"],
}


def tree(kind: type[HoldfastError]) -> Iterator[type[HoldfastError]]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from tree(below)


KINDS = list(tree(HoldfastError))


def made(kind: type[HoldfastError], *, bare: bool) -> HoldfastError:
    """An error with something in each of its arguments, or with nothing in those that need nothing."""
    given: dict[str, Any] = {}
    made = kind.__init__
    for one in list(inspect.signature(made).parameters.values())[1:] if inspect.isfunction(made) else ():
        hint = str(one.annotation)
        if bare and "None" in hint:
            given[one.name] = None
        elif not (bare and one.default is not one.empty):
            given[one.name] = SAMPLES[hint]
    return kind(**given)


def sent(error: HoldfastError) -> HoldfastError:
    return error_of(msgspec.json.encode(described(error)), 500)


@pytest.mark.parametrize("bare", [False, True], ids=["full", "bare"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_an_error_survives_the_way(kind: type[HoldfastError], bare: bool) -> None:
    error = made(kind, bare=bare)
    back = sent(error)
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.facts() == error.facts()
    assert {name: type(value) for name, value in back.facts().items()} == {
        name: type(value) for name, value in error.facts().items()
    }


def test_a_conflict_can_be_merged_and_a_time_be_waited_for() -> None:
    error = sent(VersionConflictError("s", 7, 8, [CONFLICT]))
    assert isinstance(error, VersionConflictError)
    assert error.conflicts == (CONFLICT,)
    held = sent(LeaseHeldError("agent-7", NOW))
    assert isinstance(held, LeaseHeldError)
    assert held.until == NOW


def test_the_status_of_a_session_is_not_that_of_the_answer() -> None:
    """RFC 9457 has the name ``status`` for the answer's."""
    gone, locked = sent(SessionGoneError("s", "expired", None)), sent(NotDraftError("s", "locked", "edit"))
    assert (gone.facts()["status"], locked.facts()["status"]) == ("expired", "locked")


@pytest.mark.parametrize(
    "problem",
    [
        {"code": "session-gone", "detail": "Gone."},
        {"code": "session-gone", "detail": "Gone.", "session": 7, "session_status": [], "restorable_until": "x"},
        {"code": "lease-held", "detail": "Gone.", "holder": "a", "until": "not a time"},
        {"code": "version-conflict", "detail": "Gone.", "session": "s", "expected": 1, "actual": 2, "conflicts": [7]},
        {"code": "rate-limited", "detail": "Gone.", "what": "x", "retry_after": {}},
    ],
)
def test_facts_of_another_version_do_not_hide_the_error(problem: dict[str, Any]) -> None:
    error = rebuilt(problem)
    assert error.code == problem["code"]
    assert str(error) == "Gone."
    assert set(error.facts().values()) == {None}


def test_a_fact_that_an_older_service_does_not_tell_leaves_the_others() -> None:
    told = {"code": "permission-denied", "detail": "Not you.", "principal": "ana", "verb": "metrics"}
    assert rebuilt(told).facts() == {"principal": "ana", "verb": "metrics", "roles": ()}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<html>Bad gateway</html>", "status 502"),
        (b"", "status 502"),
        (b"[1]", "status 502"),
        (b"\xff\xfe", "status 502"),
        (b'{"code":"brand-new","detail":"Not so."}', "status 502: Not so."),
        (b'{"code":"__class__","detail":7}', "status 502"),
        (b'{"code":["error"]}', "status 502"),
    ],
)
def test_what_is_not_known_is_an_error_of_the_service(data: bytes, said: str) -> None:
    error = error_of(data, 502)
    assert type(error) is ServiceError
    assert isinstance(error, UnavailableError)
    assert said in str(error)


def test_a_class_that_is_not_ours_never_stands_for_a_code() -> None:
    class Impostor(errors.SessionNotFoundError):
        pass

    assert type(sent(errors.SessionNotFoundError("s"))) is errors.SessionNotFoundError
    assert Impostor.code == "session-not-found"
