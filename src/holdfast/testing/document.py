"""The service's OpenAPI document, read: each of its operations, and a request that it takes.

For tests that walk all there is, so that a route nobody has thought of is not left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from holdfast.service import problems

SOME: Mapping[str, str] = {
    "collection": "chunks",
    "name": "0001",
    "label": "first",
    "principal": "zoe",
    "version": "1",
    "fence": "1",
    "before": "0",
    "after": "1",
    "q": "tides",
}
"""A value of each parameter that a request cannot do without, but for ``session``."""

_UPLOAD = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="tides.md"\r\n\r\n'
    b"# Tides\n\nThe sea rises twice a day.\r\n--x--\r\n"
)


class Ask(NamedTuple):
    """A request: what is to be given to a client's ``request``."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes


class Operation(NamedTuple):
    """An operation of the document, and all that is said of it there."""

    method: str
    path: str
    said: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.said["operationId"])

    @property
    def verb(self) -> str:
        """The policy it names, ``None`` if it names none."""
        return str(self.said.get("x-holdfast-verb"))

    @property
    def of_session(self) -> bool:
        """Whether it is of one session."""
        return "{session}" in self.path

    @property
    def codes(self) -> set[str]:
        """The codes it says it can fail with."""
        return {
            code
            for said in self.said["responses"].values()
            for code in said.get("content", {}).get(problems.MEDIA_TYPE, {}).get("examples", ())
        }

    @property
    def bodies(self) -> Mapping[str, Any]:
        """The bodies it takes, by media type."""
        content: Mapping[str, Any] = self.said.get("requestBody", {}).get("content", {})
        return content

    def takes(self, name: str) -> bool:
        """Whether it takes a parameter."""
        return any(parameter["name"] == name for parameter in self.said.get("parameters", ()))

    def ask(self, session: str = "none", **headers: str) -> Ask:
        """A request with all that is wanted and the example of the body; for an upload, a small document."""
        path, query = self.path, []
        for parameter in self.said.get("parameters", ()):
            name = parameter["name"]
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", quote(session if name == "session" else SOME[name], safe=""))
            elif parameter["in"] == "query" and parameter["required"]:
                query.append(f"{name}={SOME[name]}")
        url = f"{path}?{'&'.join(query)}" if query else path
        for media, body in self.bodies.items():
            if media == "multipart/form-data":
                return Ask(self.method, url, {**headers, "content-type": f"{media}; boundary=x"}, _UPLOAD)
            return Ask(self.method, url, {**headers, "content-type": media}, msgspec.json.encode(body["example"]))
        return Ask(self.method, url, headers, b"")


def operations(document: Mapping[str, Any]) -> list[Operation]:
    """Every operation of a document."""
    return [
        Operation(method.upper(), path, said)
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]


def references(value: Any) -> Iterator[str]:
    """Every reference in a document or a part of it."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)
