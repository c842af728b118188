"""The OpenAPI document says all there is, and all it says is so: F22 and F23 are made from it.

A verb of the engine without a route, an argument that no route takes, a code without a status: each fails here.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from starlette.routing import Route

from holdfast import errors
from holdfast.compose import kinds
from holdfast.engine.engine import Engine
from holdfast.errors import HoldfastError
from holdfast.service import problems, routing
from holdfast.service.routing import OPEN, Routes
from holdfast.testing.document import Operation, references

ROUTES_OF_VERBS: Mapping[str, set[str]] = {
    "create": {"create_session"},
    "ingest": {"ingest"},
    "find": {"list_sessions"},
    "read": {"read_session", "read_version", "list_items", "read_item"},
    "header": {"read_header"},
    "history": {"read_history"},
    "diff": {"read_diff"},
    "feed": {"read_feed"},
    "follow": {"follow"},
    "export": {"export_session"},
    "edit": {"edit_session", "put_item", "patch_item", "delete_item"},
    "operate": {f"operate_{op.name.replace('-', '_')}" for kind in kinds().values() for op in kind.operations},
    "undo": {"undo"},
    "redo": {"redo"},
    "preview_undo": {"preview_undo"},
    "preview_redo": {"preview_redo"},
    "restore": {"restore"},
    "label": {"set_label"},
    "labels": {"list_labels"},
    "rename": {"rename_session"},
    "grant": {"grant", "withdraw"},
    "preview": {"preview"},
    "unlock": {"unlock"},
    "take_over": {"take_over"},
    "publish": {"publish"},
    "receipts": {"list_receipts"},
    "rollback": {"rollback"},
    "reopen": {"reopen"},
    "search": {"search"},
    "discard": {"discard_session"},
    "revive": {"revive_session"},
    "touch": {"touch"},
    "extend": {"extend"},
    "suspend": {"suspend"},
    "archive": {"archive"},
    "rehydrate": {"rehydrate"},
    "sweep": {"sweep"},
    "lease": {"take_lease"},
    "renew": {"renew_lease"},
    "release": {"release_lease"},
    "leased": {"list_participants"},
    "audit": {"session_audit", "tenant_audit"},
    "verify": {"verify"},
    "tiers": {"read_tiers"},
    "flush": {"flush_tiers"},
    "keys": {"list_keys"},
    "rotate_keys": {"rotate_keys"},
    "revoke": {"revoke"},
    "revocations": {"list_revocations"},
    "health": {"health"},
    "counts": {"metrics"},
    "lags": {"metrics"},
    "tier_state": {"metrics"},
}
"""Each verb of the engine, and the operations that do it."""

NOT_ROUTED = {
    "start": "it is the beginning of the service, which nobody asks for over HTTP",
    "close": "it is its end",
}

OF_THE_SERVICE = {"live", "ready", "whoami", "list_kinds", "openapi"}
"""Operations that are no verb of the engine."""


# -- the document holds together --------------------------------------------------------------------------------------


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    referred = list(references(document))
    assert len(referred) > 100
    for reference in referred:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_every_schema_is_used(document: dict[str, Any]) -> None:
    used = set(references(document))
    assert {name for name in document["components"]["schemas"] if f"#/components/schemas/{name}" not in used} == set()


def test_a_schema_has_one_meaning(document: dict[str, Any]) -> None:
    """Two types of one name would be told as one."""
    assert "Problem" not in routing.components(Routes("t").types)
    problems_of = document["components"]["schemas"]["Verified"]["properties"]["problems"]["items"]["$ref"]
    flaw = document["components"]["schemas"][problems_of.rpartition("/")[2]]
    assert flaw["properties"].keys() == {"code", "what", "unavailable"}


def test_every_operation_says_what_it_is(told: list[Operation]) -> None:
    names = [operation.name for operation in told]
    assert len(set(names)) == len(names) > 60
    for operation in told:
        assert operation.said["summary"], operation
        assert len(operation.said["description"]) > 10, operation
        assert len(operation.said["tags"]) == 1, operation
        assert "``" not in operation.said["description"], operation


def test_every_parameter_says_what_it_is(told: list[Operation]) -> None:
    dumb = [
        (operation.name, parameter["name"])
        for operation in told
        for parameter in operation.said.get("parameters", ())
        if not parameter.get("description")
    ]
    assert dumb == []


def test_every_body_has_its_schema_and_an_example_that_fits_it(document: dict[str, Any], told: list[Operation]) -> None:
    bodies = 0
    for operation in told:
        for media, said in operation.bodies.items():
            assert said["schema"], (operation.name, media)
            bodies += 1
            fits(document, said["schema"], said["example"], f"{operation.name} {media}")
    assert bodies > 25


def test_an_example_keeps_what_is_null(document: dict[str, Any], told: list[Operation]) -> None:
    """To a merge patch null is the word for removing; in an answer it says that there is none."""
    by_name = {operation.name: operation for operation in told}
    merge = by_name["edit_session"].bodies["application/merge-patch+json"]["example"]
    assert None in merge["chunks"].values()
    for name, media in (("read_session", "application/json"), ("export_session", "application/json")):
        assert "null" in json.dumps(by_name[name].said["responses"]["200"]["content"][media]["example"])


def test_a_summary_says_what_an_operation_does_and_not_what_it_is_called(told: list[Operation]) -> None:
    summaries = {operation.name: operation.said["summary"] for operation in told}
    assert summaries["operate_split"] == "Cut a chunk in two"
    assert summaries["edit_session"] == "Change items"
    for name, summary in summaries.items():
        assert summary.lower() != name.replace("_", " "), name
        assert 10 <= len(summary) <= 120, name
        assert summary[-1] not in ".:;,", name
        assert "\n" not in summary, name


def test_every_answer_has_its_schema_and_an_example_that_fits_it(
    document: dict[str, Any], told: list[Operation]
) -> None:
    for operation in told:
        done = {status: said for status, said in operation.said["responses"].items() if status[0] == "2"}
        assert done, operation
        for status, said in done.items():
            if status == "204":
                assert "content" not in said, operation
                continue
            ((_, content),) = said["content"].items()
            assert content["schema"], operation
            fits(document, content["schema"], content["example"], f"{operation.name} {status}")
            if "$ref" in content["schema"]:
                left_out = properties(document, content["schema"]) - content["example"].keys() - _LEFT_OUT
                assert left_out == set(), operation


_LEFT_OUT = {"count", "proof"}
"""Fields of an audit line that are there where they say something."""


def test_the_example_of_an_event_holds_an_entry(document: dict[str, Any], told: list[Operation]) -> None:
    follow = next(operation for operation in told if operation.name == "follow")
    example = follow.said["responses"]["200"]["content"]["text/event-stream"]["example"]
    fits(document, {"$ref": "#/components/schemas/Entry"}, json.loads(example["data"]), "follow")


def test_every_failure_is_a_problem_with_an_example_of_each_code(
    document: dict[str, Any], told: list[Operation]
) -> None:
    shown = set()
    for operation in told:
        failed = {status: said for status, said in operation.said["responses"].items() if status[0] in "45"}
        assert failed, operation
        for status, said in failed.items():
            content = said["content"][problems.MEDIA_TYPE]
            assert said["content"].keys() == {problems.MEDIA_TYPE}
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["examples"], (operation.name, status)
            for code, referred in content["examples"].items():
                shown.add(code)
                example = document["components"]["examples"][referred["$ref"].rpartition("/")[2]]
                assert example["value"]["code"] == code
                assert str(problems.STATUSES[code]) == status == str(example["value"]["status"])
                assert f"`{code}`" in said["description"]
                fits(document, content["schema"], example["value"], f"{operation.name} {status}")
    assert len(shown) > 30


def test_every_failure_that_any_answer_can_have_is_told_of(told: list[Operation]) -> None:
    for operation in told:
        codes = operation.codes
        assert {"invalid-request", "request-too-large", "service"} <= codes, operation
        if operation.verb != OPEN:
            assert {"unauthenticated", "rate-limited", "stopping", "store-unavailable"} <= codes, operation
        if operation.of_session:
            assert {"session-not-found", "session-gone", "permission-denied"} <= codes, operation
        assert ("media-type" in codes) == ("requestBody" in operation.said), operation


def test_every_link_leads_from_an_answer_to_an_operation_that_takes_what_it_gives(
    document: dict[str, Any], told: list[Operation]
) -> None:
    by_name = {operation.name: operation for operation in told}
    sources = set()
    for operation in told:
        for status, said in operation.said["responses"].items():
            for name, link in said.get("links", {}).items():
                sources.add(operation.name)
                assert status[0] == "2"
                link = document["components"]["links"][link["$ref"].rpartition("/")[2]] if "$ref" in link else link
                assert link["operationId"] == name
                taken = {f"{one['in']}.{one['name']}" for one in by_name[name].said["parameters"]}
                assert link["parameters"].keys() <= taken
                for expression in link["parameters"].values():
                    if expression == "$response.header.ETag":
                        assert "ETag" in said["headers"], (operation.name, name)
    assert {"create_session", "ingest", "reopen", "preview", "take_lease"} <= sources


# -- nothing is left out ----------------------------------------------------------------------------------------------


def test_every_verb_of_the_engine_has_its_route(told: list[Operation]) -> None:
    """A verb that is new in the engine fails here until it has a route, or a reason to have none."""
    verbs = {name for name, _ in inspect.getmembers(Engine, inspect.isfunction) if not name.startswith("_")}
    assert verbs == ROUTES_OF_VERBS.keys() | NOT_ROUTED.keys()
    routed = set().union(*ROUTES_OF_VERBS.values())
    assert {operation.name for operation in told} == routed | OF_THE_SERVICE


def test_every_argument_of_a_verb_can_be_given_over_http(document: dict[str, Any], told: list[Operation]) -> None:
    """What the engine takes and no route does needs a reason here."""
    elsewhere = {
        "who": "the token says who asks",
        "session_id": "`session` of the path",
        "change_id": "`Idempotency-Key`",
        "expected": "`If-Match`",
        "unless": "`If-None-Match`",
        "lease": "`session` and `fence` of the path",
        "data": "the file of the form",
        "name": "the name of the file; a label's in the path",
        "query": "`q`",
        "idle": "how often a stream asks whether it may go on is the service's own business",
        "progress": "for the command line",
        "arguments": "the body",
    }
    reasons = {("operate", "operation"): "in the path"}
    by_name = {operation.name: operation for operation in told}
    missing = []
    for verb, routes in ROUTES_OF_VERBS.items():
        wanted = set(inspect.signature(getattr(Engine, verb)).parameters) - {"self"} - elsewhere.keys()
        given = set[str]()
        for name in routes:
            said = by_name[name].said
            given |= {parameter["name"] for parameter in said.get("parameters", ())}
            for content in said.get("requestBody", {}).get("content", {}).values():
                given |= properties(document, content["schema"])
        missing += [(verb, argument) for argument in sorted(wanted - given) if (verb, argument) not in reasons]
    assert missing == []


def test_every_operation_of_every_kind_has_its_route_and_its_arguments(told: list[Operation]) -> None:
    by_path = {operation.path: operation for operation in told}
    for kind in kinds().values():
        for operation in kind.operations:
            found = by_path.pop(f"/v1/sessions/{{session}}/operations/{operation.name}")
            assert (found.method, found.verb) == ("POST", "edit")
            assert operation.summary in found.said["description"]
            schema = found.said["requestBody"]["content"]["application/json"]["schema"]
            forms = {form["title"]: form for form in schema.get("anyOf", [schema])}
            form = forms[f"{kind.name}.{operation.name}"]
            assert form["properties"].keys() == set(operation.arguments.__struct_fields__)
            assert not list(references(form))
    assert not [path for path in by_path if "/operations/" in path]


def test_every_code_has_its_status_and_every_status_a_code() -> None:
    codes = {kind.code for kind in classes(HoldfastError)}
    assert codes == problems.STATUSES.keys()
    assert len(codes) == len(classes(HoldfastError))
    assert {
        kind.code for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, HoldfastError)
    } == codes
    for code, status in problems.STATUSES.items():
        assert 400 <= status < 600
        assert problems.example(code)["title"]


def test_no_fact_of_an_error_takes_a_name_of_rfc_9457() -> None:
    """A fact that is called ``status`` would be lost behind the status of the answer."""
    reserved = {"type", "title", "status", "detail", "instance", "code", "request"}
    for kind in classes(HoldfastError):
        taken = reserved & (set(inspect.signature(kind.__init__).parameters) - problems.RENAMED.keys())
        assert not taken or kind is errors.ServiceError, kind  # whose `request` is the id of the request itself


def test_no_route_is_outside_the_document_but_the_page(app: FastAPI, told: list[Operation]) -> None:
    known = {(operation.method, operation.path) for operation in told}
    outside = {
        (method, route.path_format)
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if (method, route.path_format) not in known
    }
    assert outside == {(method, path) for method in ("GET", "HEAD") for path in ("/", "/page/{name}")}
    assert all(isinstance(route, Route) for route in app.routes)  # no mount, no socket


# -- reading the document ---------------------------------------------------------------------------------------------


def fits(document: dict[str, Any], schema: dict[str, Any], value: Any, where: str) -> None:
    """Fail unless a value fits a schema of the document."""
    registry: Registry[Any] = Registry().with_resource("urn:it", DRAFT202012.create_resource(document))
    known = json.loads(json.dumps(schema).replace('"#/', '"urn:it#/'))
    found = [error.message for error in Draft202012Validator(known, registry=registry).iter_errors(value)]
    assert found == [], where


def properties(document: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return set(schema.get("properties", ()))


def classes(kind: type[HoldfastError]) -> list[type[HoldfastError]]:
    """A class and all below it that may be raised to somebody, but for those of tests."""
    found = [inner for inner in kind.__subclasses__() if inner.__module__.startswith("holdfast.")]
    return [kind, *(one for inner in found for one in classes(inner) if not one.__name__.startswith("_"))]
