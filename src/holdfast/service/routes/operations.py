"""The operations that kinds declare: a route each, made from the declaration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import Request
from starlette.responses import Response

from holdfast.ports.kind import Kind, Operation
from holdfast.service import answers
from holdfast.service.conditions import change_id as named
from holdfast.service.conditions import seen
from holdfast.service.parameters import ChangeId, Fence, Group, IfMatch, Prefer, Rebase, SessionId
from holdfast.service.routing import Routes
from holdfast.service.service import Who, service_of


def routes_of(kinds: Iterable[Kind]) -> Routes:
    """A route for every name of an operation; kinds that share a name share the route, each with its own arguments."""
    routes, by_name = Routes("operations"), dict[str, list[tuple[Kind, Operation]]]()
    for kind in kinds:
        for operation in kind.operations:
            by_name.setdefault(operation.name, []).append((kind, operation))
    for name, declared in sorted(by_name.items()):
        _declare(routes, name, declared)
    return routes


def _declare(routes: Routes, name: str, declared: list[tuple[Kind, Operation]]) -> None:
    schemas = [_schema(kind, operation) for kind, operation in declared]
    body = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    collection = sorted(declared[0][0].bodies)[0]

    async def operate(
        request: Request,
        session: SessionId,
        who: Who,
        if_match: IfMatch = None,
        change_id: ChangeId = None,
        prefer: Prefer = None,
        rebase: Rebase = False,
        group: Group = None,
        fence: Fence = None,
    ) -> Response:
        service = service_of(request)
        arguments: dict[str, Any] = await service.take(request, dict)
        made = await service.engine.operate(
            session,
            who,
            name,
            arguments,
            expected=seen(if_match),
            rebase=rebase,
            change_id=named(change_id),
            group=group,
            fence=fence,
        )
        return await answers.written(service, made, who, prefer)

    operate.__name__ = f"operate_{name.replace('-', '_')}"
    operate.__doc__ = "\n\n".join(
        f"{operation.summary} (`{kind.name}`{', may be sent without a version' if operation.commutative else ''})"
        for kind, operation in declared
    )
    routes.commit(
        "POST",
        f"/sessions/{{session}}/operations/{name}",
        "edit",
        media={"application/json": {"schema": body, "example": _example(schemas[0], collection)}},
        errors=("unknown-operation",),
        summary=" · ".join(dict.fromkeys(operation.summary.rstrip(".") for _, operation in declared)),
    )(operate)


def _schema(kind: Kind, operation: Operation) -> dict[str, Any]:
    """The arguments of an operation, without a reference to anything outside of them."""
    schema = msgspec.json.schema(operation.arguments)
    defined = schema.pop("$defs", {})
    return {**_written_out(schema, defined), "title": f"{kind.name}.{operation.name}"}


def _written_out(schema: Any, defined: dict[str, Any]) -> Any:
    """A schema with every type it refers to in its place. A type that holds itself has no end: kinds have none."""
    if isinstance(schema, list):
        return [_written_out(one, defined) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _written_out(defined[schema["$ref"].rpartition("/")[2]], defined)
    return {name: _written_out(inner, defined) for name, inner in schema.items()}


def _example(schema: dict[str, Any], collection: str) -> Any:
    """Arguments as they may look: those that are wanted. What is called a key names an item of a collection."""
    text = "Some text."
    shown: dict[str, Any] = {"string": text, "integer": 1, "number": 0.5, "boolean": True, "object": {"note": text}}
    keys = [f"{collection}/0001", f"{collection}/0002"]
    found = {}
    for name in schema.get("required", ()):
        kind = schema["properties"][name].get("type")
        found[name] = keys if name == "keys" else keys[0] if name == "key" else shown.get(str(kind), [])
    return found
