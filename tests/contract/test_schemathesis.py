"""The contract, as somebody else reads it: schemathesis makes requests from the OpenAPI document, right ones and wrong
ones, alone and one after another, and holds every answer against what the document says (F23).

``HOLDFAST_TEST_CONTRACT_CASES`` says how much is left to chance: so many requests at most, for those that come out
alike are made once (700 here; ``make contract`` asks for 100,000). ``HOLDFAST_TEST_SEED`` says where it begins.
Beside them stand some 3,000 requests that follow from the document by rule.

Of schemathesis's checks one does not apply: ``object_level_authorization`` wants a second identity, and
``tests/service/test_access.py`` asks with ten.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.engine import Status, events, from_schema
from schemathesis.generation.case import Case
from schemathesis.generation.meta import TestPhase
from schemathesis.hooks import unregister_all
from schemathesis.python import asgi
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.model.access import Principal
from holdfast.service.app import create_app
from holdfast.service.conditions import NAMES_STATE
from holdfast.service.edge import Edge
from holdfast.settings import Settings
from holdfast.settings.sections import Service
from holdfast.testing.front import ADMIN, ANA, CHUNKS
from holdfast.testing.issuer import Issuer

pytestmark = pytest.mark.no_cover  # repeats what others measure once

CASES = int(os.environ.get("HOLDFAST_TEST_CONTRACT_CASES", "700"))
SEED = int(os.environ.get("HOLDFAST_TEST_SEED", "1"))
STEPS = 8
"""Requests of one story, at most."""

# What a request that fits the document may be answered with. What JSON Schema cannot say, a session's state or a kind
# may still refuse; but a request that fits is never one that cannot be read.
ACCEPTED = ["2xx", "3xx", 401, 403, 404, 409, 410, 412, 422, 428, 429]
# What a request that does not fit may be answered with: a session that is over or has moved on is told of before the
# content of the body is looked at.
REJECTED = [400, 401, 403, 404, 405, 409, 410, 412, 415, 422, 428, 429]

SWITCHED_OFF: list[dict[str, Any]] = [
    {  # a cursor is text of any kind to the document, and one that nobody gave out is a 400
        "include-operation-id": ["list_sessions", "read_feed", "follow"],
        "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, 400]}},
    },
    {  # within its grace a session that was thrown away is there to be had back, and so is its past
        "include-operation-id": ["read_header", "export_session", "read_feed", "follow", "session_audit"],
        "checks": {"use_after_free": {"enabled": False}},
    },
]


Until = Callable[["Outcome"], bool]


class Contract:
    """A service on a home of its own, and schemathesis before it."""

    def __init__(self, home: Path, who: Principal, around: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> None:
        issuer = Issuer("HS")
        bounds = Service(rate=1_000_000, burst=1_000_000, log="error", heartbeat=0.5)
        settings = Settings(home=home, auth=issuer.auth(), service=bounds)
        app = create_app(settings)
        self.app = around(Edge(app, app.state.service))
        expires = int(time.time()) + 43_200  # a long run takes longer than a token usually lives
        self.token = issuer.token(who.id, tenant=who.tenant, roles=sorted(who.roles), exp=expires)
        self.tags: dict[str, str] = {}
        self.asked = 0

    def schema(self, seed: int = SEED, **phases: Mapping[str, Any]) -> Any:
        """The document, loaded as anybody would."""
        every = ("examples", "coverage", "fuzzing", "stateful")
        authorization = {"Authorization": f"Bearer {self.token}"}
        config = SchemathesisConfig.from_dict(
            {
                "seed": seed,
                "headers": authorization,
                "generation": {"deterministic": True, "database": "none"},
                "phases": {phase: {"enabled": phase in phases, **phases.get(phase, {})} for phase in every},
                "checks": {
                    "positive_data_acceptance": {"expected-statuses": ACCEPTED},
                    "negative_data_rejection": {"expected-statuses": REJECTED},
                },
                "operations": SWITCHED_OFF,
                "request-timeout": 5,
                "max-stream-events": 1,
                "continue-on-failure": True,
                "cache": {"enabled": False},
            }
        )
        return schemathesis.openapi.from_asgi("/openapi.json", self.app, config=config, headers=authorization)

    def run(self, schema: Any, outcome: Outcome | None = None, until: Until = lambda outcome: False) -> Outcome:
        """Everything of it, or no more than is asked for; added to an outcome of before, if there is one."""
        outcome = outcome or Outcome()
        stream = from_schema(schema).execute()
        for event in stream:
            outcome.hear(event)
            if until(outcome):
                stream.stop()
        print(outcome)
        return outcome

    # -- what schemathesis cannot know ---------------------------------------------------------------------------------

    def seed(self, schema: Any) -> None:
        """Sessions that are really there, and requests that know where they stand."""
        creation = schema.find_operation_by_id("create_session")
        items = [{"key": key, "body": body} for key, body in CHUNKS.items()]
        for number in range(8):
            case = creation.Case(body={"kind": "knowledge", "title": f"{number}", "items": items})
            case.media_type = "application/json"
            self.after_call(case, case.call(headers={"Authorization": f"Bearer {self.token}"}))
        # Hooks are the whole process's; the fixture takes them away again.
        schemathesis.hook("before_call")(lambda context, case, kwargs: self.before_call(case))
        schemathesis.hook("after_call")(lambda context, case, response: self.after_call(case, response))
        # Two things that a schema of any value cannot say: an integer beyond 64 bits is refused wherever it stands, and
        # a whole number is written without a fraction.
        schemathesis.hook("filter_body")(lambda context, body: all(map(is_kept, numbers(body))))

    def before_call(self, case: Case[Any]) -> None:
        """Of the requests that are meant well, most are for a session that is there, and name the state it is in.

        In a story that is left to the links: told again, it has to go the same way.
        """
        operation = name_of(case.operation)
        if operation == "revoke" and isinstance(case.body, dict):  # of anybody's token but our own
            case.body.pop("everybody", None)
            if "principal" in case.body:
                case.body["principal"] = "zoe"
        meta = case.meta
        if meta is None or not meta.generation.mode.is_positive:
            return
        if operation == "create_session" and isinstance(case.body, dict):
            case.body["kind"] = "knowledge"
            case.body["items"] = [{"key": key, "body": body} for key, body in CHUNKS.items()]
        is_story = meta.phase.name is TestPhase.STATEFUL
        session = (case.path_parameters or {}).get("session")
        if session is not None and not is_story and session not in self.tags:
            self.asked += 1
            if self.asked % 8:
                session = case.path_parameters["session"] = list(self.tags)[self.asked % len(self.tags)]
        tag = case.headers.get("If-Match")
        if tag is not None and not is_story and self.asked % 4:
            case.headers["If-Match"] = self.tags.get(str(session), '"1"')
        elif tag is not None and re.fullmatch(NAMES_STATE, tag) is None:
            # Schemathesis makes up no value with a quote in it, takes a wrong one, and calls it right.
            case.headers["If-Match"] = '"1"'

    def after_call(self, case: Case[Any], response: Response) -> None:
        """Remember the sessions there are and their states; forget those that are gone."""
        tag = response.headers.get("etag")
        session = (case.path_parameters or {}).get("session")
        if response.status_code == 201 and tag:
            session = response.json()["id"]
        if not session or case.method == "GET":
            return
        if tag and response.status_code < 300:
            self.tags[session] = tag[0]
        gone = response.status_code == 410 or name_of(case.operation) == "discard_session"
        if gone and len(self.tags) > 4:
            self.tags.pop(session, None)


class Outcome:
    """What has come of a run.

    Attributes:
        failures: by operation, check and what it says: a request that shows it.
        statuses: how often each was answered; ``succeeded``: the operations that have done what they were asked.
    """

    def __init__(self) -> None:
        self.failures: dict[tuple[str, str, str], str] = {}
        self.statuses: Counter[int] = Counter()
        self.succeeded: Counter[str] = Counter()
        self.errors: list[str] = []

    @property
    def cases(self) -> int:
        return self.statuses.total()

    @property
    def checks(self) -> set[str]:
        """The checks that failed."""
        return {check for _, check, _ in self.failures}

    def hear(self, event: events.EngineEvent) -> None:
        if isinstance(event, events.NonFatalError | events.FatalError):
            self.errors.append(str(getattr(event, "info", event)))
        if not isinstance(event, events.ScenarioFinished):
            return
        recorder = event.recorder
        for name, interaction in recorder.interactions.items():
            status = interaction.response.status_code if interaction.response is not None else 0
            self.statuses[status] += 1
            if 200 <= status < 300:
                self.succeeded[name_of(recorder.cases[name].value.operation)] += 1
        for name, checks in recorder.checks.items():
            for check in checks:
                if check.status == Status.FAILURE and check.failure_info is not None:
                    failure = check.failure_info.failure
                    where = recorder.cases[name].value.operation.label
                    found = (where, check.name, f"{failure.title}: {failure.message}")
                    self.failures.setdefault(found, check.failure_info.code_sample)

    def __str__(self) -> str:
        return f"F23 seed={SEED} cases={self.cases} statuses={dict(sorted(self.statuses.items()))}"

    def assert_clean(self) -> None:
        assert self.errors == []
        assert not self.failures, "\n".join(f"{found}\n    {how}" for found, how in self.failures.items())
        assert not [status for status in self.statuses if status >= 500 or status == 0]


def only(schema: Any, *names: str) -> Any:
    """A document without all operations but these."""
    return schema.exclude(lambda context: name_of(context.operation) not in names)


def name_of(operation: Any) -> str:
    return str(operation.definition.raw["operationId"])


def numbers(value: Any) -> Iterator[int | float]:
    """Every number in a body."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def is_kept(number: float) -> bool:
    return not number.is_integer() if isinstance(number, float) else abs(number) < 2**63


Make = Callable[..., Contract]


@pytest.fixture
def contract(tmp_path: Path) -> Iterator[Make]:
    """Makes services; they are closed after the test."""
    made: list[Contract] = []

    def make(who: Principal = ANA, around: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> Contract:
        made.append(Contract(tmp_path / f"home-{len(made)}", who, around))
        return made[-1]

    yield make
    unregister_all()
    asgi.shutdown_lifespans()


# -- alone ------------------------------------------------------------------------------------------------------------


def test_every_case_that_the_document_names_is_answered_as_it_says(contract: Make) -> None:
    """Each bound of each parameter and field, kept and broken; missing, of another type, twice; every other method."""
    asked = contract(ADMIN)
    schema = asked.schema(examples={}, coverage={})
    asked.seed(schema)
    outcome = asked.run(schema)
    outcome.assert_clean()
    assert outcome.cases > 1_000
    assert len(outcome.succeeded) > 40


@pytest.mark.parametrize("who", [ANA, ADMIN], ids=lambda who: who.id)
def test_what_chance_makes_of_the_document_is_answered_as_it_says(contract: Make, who: Principal) -> None:
    asked = contract(who)
    examples = max(2, CASES // 4 // 66)
    schema = asked.schema(fuzzing={"generation": {"max-examples": examples}})
    asked.seed(schema)
    outcome = asked.run(schema)
    outcome.assert_clean()
    assert outcome.cases >= CASES // 8


# -- one after another ------------------------------------------------------------------------------------------------


@pytest.fixture
def beginnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stories begin with what makes a session: schemathesis would begin with any POST that has links, on no session."""
    monkeypatch.setattr(
        "schemathesis.specs.openapi.stateful.is_likely_root_transition",
        lambda operation, node, produced: name_of(operation) in ("create_session", "ingest"),
    )


@pytest.mark.usefixtures("beginnings")
def test_stories_that_follow_the_links_are_answered_as_the_document_says(contract: Make) -> None:
    """What was made is there, what was thrown away is not, and each step knows what the one before was told."""
    asked, outcome, rounds, many = contract(), Outcome(), 0, CASES // 4
    while outcome.cases < many:  # hypothesis ends a round when a story that it tells again goes another way
        schema = asked.schema(SEED + rounds, stateful={"max-steps": STEPS, "generation": {"max-examples": 100}})
        if rounds == 0:
            asked.seed(schema)
        rounds += 1
        asked.run(schema, outcome, until=lambda outcome: outcome.cases >= many)
        outcome.assert_clean()
    assert outcome.statuses[201] > many // 20
    assert len(outcome.succeeded) > 8


# -- teeth ------------------------------------------------------------------------------------------------------------


class Broken:
    """An application one of whose routes does not do what the document says of it."""

    def __init__(self, app: ASGIApp, how: str) -> None:
        self._app, self._how, self._deleted = app, how, set[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope.get("path", ""), scope.get("method", "")
        if scope["type"] == "http" and path == "/v1/whoami":
            return await self._whoami(scope, receive, send)
        if scope["type"] == "http" and path.startswith("/v1/sessions/"):
            if method == "DELETE":
                self._deleted.add(path)
            if method == "GET" and self._how == "forgets":
                return await said(send, 404, b"{}")
            if method == "GET" and self._how == "keeps" and path in self._deleted:
                return await said(send, 200, b"{}", JSON)
        return await self._app(scope, receive, send)

    async def _whoami(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = any(name == b"authorization" and len(value) > 40 for name, value in scope["headers"])
        right = b'{"id":"ana","tenant":"default","roles":[]}'
        if self._how == "lets in" or (known and scope["method"] == "GET"):
            if self._how == "crashes":
                return await said(send, 500, b'{"type":"x","title":"x","status":500,"detail":"x","code":"service"}')
            if self._how == "makes up a status":
                return await said(send, 418, right, JSON)
            if self._how == "makes up a media type":
                return await said(send, 200, right, b"text/html")
            if self._how == "leaves a field out":
                return await said(send, 200, b'{"id":"ana"}', JSON)
            if self._how == "lets in":
                return await said(send, 200, right, JSON)
        if self._how == "takes any method" and known:
            return await said(send, 200, right, JSON)
        return await self._app(scope, receive, send)


JSON = b"application/json"


async def said(send: Send, status: int, body: bytes, media: bytes = b"application/problem+json") -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", media)]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("crashes", "not_a_server_error"),
        ("makes up a status", "status_code_conformance"),
        ("makes up a media type", "content_type_conformance"),
        ("leaves a field out", "response_schema_conformance"),
        ("lets in", "ignored_auth"),
        ("takes any method", "unsupported_method"),
    ],
)
def test_a_route_that_is_not_as_the_document_says_is_caught(contract: Make, how: str, check: str) -> None:
    asked = contract(around=lambda app: Broken(app, how))
    schema = asked.schema(coverage={}, fuzzing={"generation": {"max-examples": 5}})
    outcome = asked.run(only(schema, "whoami"))
    assert check in outcome.checks


@pytest.mark.usefixtures("beginnings")
@pytest.mark.parametrize(("how", "check"), [("forgets", "ensure_resource_availability"), ("keeps", "use_after_free")])
def test_a_story_that_does_not_hold_together_is_caught(contract: Make, how: str, check: str) -> None:
    asked = contract(around=lambda app: Broken(app, how))
    schema = asked.schema(stateful={"max-steps": STEPS, "generation": {"max-examples": 60}})
    asked.seed(schema)
    of_one = only(schema, "create_session", "read_session", "export_session", "discard_session")
    outcome = asked.run(of_one, until=lambda outcome: check in outcome.checks)
    assert check in outcome.checks
