"""Requests that mean harm (F19, S20), each with the code it must be refused with; and a few that are legal.

A body is made only when it is asked for: most are 10 MB.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

LIMIT = 10_000_000
"""Bytes a body may have."""

CHANGES, MERGE, PATCH = "application/json", "application/merge-patch+json", "application/json-patch+json"


class Case(msgspec.Struct, frozen=True):
    """A request: its body, and the code it must be refused with; none where it is legal."""

    body: Callable[[], bytes]
    code: str | None = "invalid-request"
    media: str = CHANGES
    headers: Mapping[str, str] = {}


def put(body: bytes, media: str = CHANGES) -> bytes:
    """A body of an item, in a change-set."""
    return b'{"changes":[{"put":"chunks/1","body":' + body + b"}]}"


def filled(before: bytes, middle: bytes, after: bytes, size: int = LIMIT) -> bytes:
    """As many of the middle as there is room for."""
    return before + middle * ((size - len(before) - len(after)) // len(middle)) + after


def padded(before: bytes, after: bytes, size: int = LIMIT) -> bytes:
    return before + b"x" * (size - len(before) - len(after)) + after


def array(element: bytes) -> bytes:
    return put(filled(b"[", element + b",", b"0]", LIMIT - 100))


def names(count: int, form: bytes = b'"%x":1') -> bytes:
    return b"{" + b",".join(form % number for number in range(count)) + b"}"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def doubling(count: int, place: str) -> list[dict[str, Any]]:
    """Operations that copy all there is below a place into it, again and again."""
    first = {"op": "add", "path": place, "value": {"a": "x" * 100}}
    return [first, *({"op": "copy", "from": place, "path": f"{place}/{number}"} for number in range(count))]


def patch(*operations: dict[str, Any]) -> bytes:
    return json.dumps(operations, separators=(",", ":")).encode()


def in_pieces(size: int) -> Case:
    return Case(lambda: b"x" * size, "request-too-large", headers={"transfer-encoding": "chunked"})


EMOJI = "\N{GRINNING FACE}".encode()
DEEPER = [{"op": "copy", "from": "/chunks/1", "path": "/chunks/1" + "/a" * 2**at} for at in range(10)]
AGAIN = [{"op": "copy", "from": "/chunks/1", "path": "/chunks/2"}, {"op": "remove", "path": "/chunks/2"}] * 500

CASES: Mapping[str, Case] = {
    # as large as may be, and larger
    "10 MB": Case(lambda: padded(b'{"changes":[{"put":"chunks/1","body":{"text":"', b'"}}]}'), "limit-exceeded"),
    "10 MB + 1": Case(lambda: b"x" * (LIMIT + 1), "request-too-large"),
    "10 MB + 1 in pieces": in_pieces(LIMIT + 1),
    "40 MB in pieces": in_pieces(4 * LIMIT),
    "10 MB string": Case(lambda: padded(b'"', b'"')),
    "10 MB of wide characters": Case(lambda: put(filled(b'"', EMOJI + b"x" * 40, b'"', LIMIT - 100)), "limit-exceeded"),
    "10 MB of wide escapes": Case(lambda: put(filled(b'"', rb"\ud83d\ude00", b'"', LIMIT - 100)), "limit-exceeded"),
    "10 MB of escapes": Case(lambda: put(filled(b'"', rb"\"", b'"', LIMIT - 100)), "limit-exceeded"),
    "10 MB of blanks": Case(lambda: b" " * LIMIT),
    "10 MB of quotes": Case(lambda: b'"' * LIMIT),
    "10 MB of escapes without an end": Case(lambda: filled(b'"', rb"\"", b"")),
    "10 MB of colons": Case(lambda: b":" * LIMIT),
    "10 MB of zeros": Case(lambda: b"\0" * LIMIT),
    # many, and deep
    "empty arrays": Case(lambda: array(b"[]"), "limit-exceeded"),
    "empty objects": Case(lambda: array(b"{}"), "limit-exceeded"),
    "small objects": Case(lambda: array(b'{"":0}'), "limit-exceeded"),
    "numbers": Case(lambda: array(b"1"), "limit-exceeded"),
    "fractions": Case(lambda: array(b"1.5"), "limit-exceeded"),
    "short strings": Case(lambda: array(b'"a"'), "limit-exceeded"),
    "deep columns": Case(lambda: array(b'{"":' * 70 + b"0" + b"}" * 70), "limit-exceeded"),
    "10^6 names": Case(lambda: put(names(10**6)[: LIMIT - 100].rpartition(b",")[0] + b"}"), "limit-exceeded"),
    "10^5 long names": Case(lambda: put(names(99_000, b'"%092d":1')), "limit-exceeded"),
    "a name of 10 MB": Case(lambda: padded(b'{"', b'":1}'), "limit-exceeded"),
    "10^5 nested [": Case(lambda: b"[" * 10**5, "limit-exceeded"),
    "10^5 nested [ with their ]": Case(lambda: put(b"[" * 10**5 + b"]" * 10**5), "limit-exceeded"),
    "10^5 nested {": Case(lambda: b'{"a":' * 10**5, "limit-exceeded"),
    "100 nested": Case(lambda: put(b"[" * 100 + b"]" * 100), "limit-exceeded"),
    # text
    "bad UTF-8": Case(lambda: put(b'"\xff"')),
    "bad UTF-8 at the end of 9 MB": Case(lambda: put(b'"' + b"x" * 9_000_000 + b'\xe2\x82"')),
    "an overlong zero": Case(lambda: put(b'"\xc0\x80"')),
    "a surrogate as UTF-8": Case(lambda: put(b'"\xed\xa0\x80"')),
    "a lone surrogate": Case(lambda: put(rb'"\ud800 and more"')),
    "a lone surrogate in a name": Case(lambda: put(rb'{"\udc00":1}')),
    "a byte order mark": Case(lambda: b"\xef\xbb\xbf" + put(b"1")),
    "UTF-16": Case(lambda: put(b"1").decode().encode("utf-16")),
    "gzip": Case(
        lambda: gzip.compress(put(b'"' + b"x" * 10**7 + b'"')), "media-type", headers={"content-encoding": "gzip"}
    ),
    "gzip that says nothing": Case(lambda: gzip.compress(put(b"1"))),
    "another media type": Case(lambda: put(b"1"), "media-type", "text/plain"),
    "another charset": Case(lambda: put(b"1"), "media-type", "application/json; charset=utf-16"),
    # numbers
    "1e400": Case(lambda: put(b"1e400")),
    "-1e400": Case(lambda: put(b"-1E+400")),
    "10^4 digits": Case(lambda: put(b"9" * 10**4)),
    "10 MB of digits": Case(lambda: put(b"9" * (LIMIT - 100))),
    "23 digits": Case(lambda: put(b"9" * 23)),
    "NaN": Case(lambda: put(b"NaN")),
    "Infinity": Case(lambda: put(b"-Infinity")),
    # two readings
    "twice": Case(lambda: b'{"changes":[],"changes":[]}'),
    "twice inside": Case(lambda: put(b'{"text":"a","text":"b"}')),
    "twice by an escape": Case(lambda: put(rb'{"text":"a","te\u0078t":"b"}')),
    "twice in 9 MB": Case(lambda: put(b'{"a":1,"b":"' + b"x" * 9_000_000 + b'","a":2}')),
    "trailing garbage": Case(lambda: put(b"1") + b"]"),
    "two documents": Case(lambda: put(b"1") * 2),
    "cut off": Case(lambda: put(b"1")[:-1]),
    "an operation with two ops": Case(lambda: b'[{"op":"remove","path":"/chunks/1","op":"test"}]', media=PATCH),
    # patches
    "10^5 operations": Case(
        lambda: patch(*[{"op": "test", "path": "/a", "value": 1}] * 10**5), "limit-exceeded", PATCH
    ),
    "10^4 operations": Case(
        lambda: patch(*[{"op": "test", "path": "/a", "value": 1}] * 10**4), "limit-exceeded", PATCH
    ),
    "copy bomb": Case(lambda: patch(*doubling(19, "/chunks/1")), "limit-exceeded", PATCH),
    "copy bomb of 1,000 operations": Case(lambda: patch(*doubling(999, "/chunks/1")), "limit-exceeded", PATCH),
    "copies that are removed": Case(
        lambda: patch({"op": "add", "path": "/chunks/1/a", "value": [0] * 30_000}, *AGAIN[:998]),
        "limit-exceeded",
        PATCH,
    ),
    "copies into the depths": Case(
        lambda: patch({"op": "add", "path": "/chunks/1", "value": nested(2)}, *DEEPER), "limit-exceeded", PATCH
    ),
    "a pointer of 5 * 10^6 steps": Case(
        lambda: patch({"op": "remove", "path": "/a" * 4_900_000}), "invalid-change", PATCH
    ),
    "a pointer into nothing": Case(lambda: patch({"op": "remove", "path": "/chunks/9/text"}), "invalid-change", PATCH),
    "deep operations": Case(
        lambda: patch({"op": "add", "path": "/chunks/1/a", "value": nested(70)}), "limit-exceeded", PATCH
    ),
    "a deep merge patch": Case(lambda: json.dumps({"chunks": {"1": nested(70)}}).encode(), "limit-exceeded", MERGE),
    "a deeper merge patch": Case(
        lambda: b'{"chunks":{"1":' + b'{"a":' * 10**5 + b"1" + b"}" * 10**5 + b"}}", "limit-exceeded", MERGE
    ),
    "a merge patch of 10^4 items": Case(lambda: b'{"chunks":' + names(10**4) + b"}", "limit-exceeded", MERGE),
    "a merge patch of no object": Case(lambda: b"[1]", "invalid-request", MERGE),
}

LEGAL: Mapping[str, Case] = {
    "a small change-set": Case(lambda: put(b'{"text":"new"}'), None),
    "10 MB in ten items": Case(
        lambda: (
            b'{"changes":['
            + b",".join(
                b'{"put":"chunks/%d","body":{"text":"%b"}}' % (number, b"as it was, " * 90_000) for number in range(10)
            )
            + b"]}"
        ),
        None,
    ),
    "a patch of 1,000 operations": Case(
        lambda: patch(*[{"op": "replace", "path": "/chunks/1/text", "value": "new"}] * 1_000), None, PATCH
    ),
}
