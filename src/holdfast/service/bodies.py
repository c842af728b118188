"""Bodies of requests: read within a bound, and decoded strictly.

JSON is taken in one reading only (RFC 8259 leaves several open, and two readers who differ are a hole): UTF-8 without a
mark, no name twice in an object, numbers that every reader keeps, a bounded depth and a bounded size once decoded. What
is hostile is refused from its bytes, before anything is built from them: 10 MB of ``[],[],[]`` would become 240 MB.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect
from starlette.requests import ClientDisconnect, Request

from holdfast.errors import InvalidRequestError, LimitExceededError, MediaTypeError, RequestTooLargeError
from holdfast.model.limits import Limits
from holdfast.service.route import fields

T = TypeVar("T")

Body = bytes | bytearray
"""A request's body. One that came in pieces stays in what it was gathered in: as bytes it would be there twice."""

JSON = "application/json"

AROUND = 16
"""Levels of a JSON body that may stand around the body of an item."""

DEPTH = Limits().depth + AROUND
"""Levels of a JSON body under the default settings."""

ROOM = 15_000_000
"""Bytes a body of the default size may take once decoded, about."""

NAME = 10_000
"""Bytes of one name in an object."""

_SHOWN = 100
_INTEGERS = 2**63

# A token of JSON that is known to be well-formed. Each alternative begins with a character of its own, which lets the
# matcher skip to the next one quickly. The string that is an object's value goes with its colon, so any other string is
# an object's name or stands in an array. An empty container is one token, as nothing happens in it.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = rb"[ \t\r\n]*+"
_EMPTY = [rb"\[" + _SPACE + rb"\]", rb"\{" + _SPACE + rb"\}"]
_TOKEN = re.compile(b"|".join([b":" + _SPACE + _STRING, _STRING, *_EMPTY, *map(re.escape, b"[ ] { } ,".split())]))

# What values take in CPython, about: any value in its container, and more for a container, an object, a string or name.
# The most there can be from few bytes are objects in objects, {"":{"":...
_VALUE, _ARRAY_MORE, _OBJECT_MORE, _STRING_MORE = 40, 32, 170, 50
_MOST_GROWTH = 60
_TWO_BYTES = re.compile(rb"[\xc4-\xf4]|\\u")
_FOUR_BYTES = re.compile(rb"[\xf0-\xf4]|\\u[dD]")
_CONTINUATION = bytes(range(0x80, 0xC0))

# A number that a reader may not keep has 19 digits in a row, or an exponent of three.
_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
_MANY_DIGITS = b"0" * 19
_LONG_NUMBER = re.compile(b"|".join([_STRING, *(b"%c[-+.eE0-9]{4,}+" % first for first in b"-0123456789")]))
_LONGEST_NUMBER = 1_000
_WINDOW = 1_000_000

# A surrogate pair, or half of one that stands alone; a backslash that is itself escaped begins neither.
_SURROGATES = re.compile(
    rb"(?<!\\)(?:\\\\)*+\\u[dD](?:([89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|[89a-fA-F][0-9a-fA-F]{2})"
)
_AT = re.compile(r"\(byte (\d+)\)")
_NEAR = 60  # bytes before and after the place that msgspec names, where the reason is looked for

# What msgspec calls types, and what JSON does; the names stand in backticks, with a bar between them.
_TYPE_NAMES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}
_TYPES = re.compile(r"(?<=[`| ])(?:int|float|str|bool)(?=[`| ])")
_STEPS = re.compile(r"\.([^.\[]+)|(\[[^\]]*\])")

_well_formed = msgspec.json.Decoder(msgspec.Raw).decode


async def read(request: Request, most: int) -> Body:
    """The body of a request, of at most ``most`` bytes; ``b""`` where there is none.

    Raises:
        RequestTooLargeError: it says it is longer, before any of it is read, or turns out to be.
        InvalidRequestError: its length is not a number.
        ClientDisconnect: whoever sends it went away.
    """
    told = fields(request, b"content-length")
    if told:
        length = told[0]
        if not (length.isascii() and length.isdigit()):
            raise InvalidRequestError("Content-Length is not a number")
        if len(length) > 18 or int(length) > most:
            raise RequestTooLargeError("body", most)
    body: Body = b""
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part, more = message.get("body", b""), message.get("more_body", False)
        if len(body) + len(part) > most:
            raise RequestTooLargeError("body", most)
        if more and not body:  # grows in place; a list of pieces, joined at the end, leaves holes where they were
            body = bytearray()
        body += part
    return body


def media(request: Request, allowed: Sequence[str]) -> str:
    """The media type of a request, one of ``allowed``, in lower case and without parameters.

    Raises:
        MediaTypeError: another one, or none; a parameter but ``charset=utf-8`` (and the ``boundary`` of a multipart
            body); a body that is compressed, which nobody here unpacks.
    """
    coding = "".join(fields(request, b"content-encoding")[:1]).strip().lower()
    if coding not in ("", "identity"):
        raise MediaTypeError(f"Content-Encoding {coding[:_SHOWN]}", ("identity",))
    line = ", ".join(fields(request, b"content-type"))
    if line in allowed:
        return line
    kind, *parameters = (part.strip() for part in line.split(";"))
    kind = kind.lower()
    if kind not in allowed or not all(_is_known(kind, parameter) for parameter in parameters):
        raise MediaTypeError(line[:_SHOWN], allowed)
    return kind


def decode(data: Body, type: type[T], *, depth: int = DEPTH, room: int = ROOM) -> T:
    """JSON as a value of a type.

    Args:
        data: UTF-8.
        type: best a ``msgspec.Struct`` that forbids unknown fields. Fields of type ``msgspec.Raw`` cost no memory and
            have been checked like the rest.
        depth: levels of arrays and objects at most.
        room: bytes at most that it takes once decoded, estimated from above.
    Raises:
        InvalidRequestError: it is not JSON in the strict sense, or not of the type; says where, and no value.
        LimitExceededError: it is too deep, takes too much room, or a name is too long.
    """
    if not data or data.isspace():
        raise InvalidRequestError("the body is empty; a JSON document is wanted")
    try:
        _well_formed(data)
        if len(data) < room // _MOST_GROWTH:
            _check_small(data, depth)
        else:
            _check_large(data, depth, room)
        return cast(T, _decoder(cast(Hashable, type)).decode(data))
    except msgspec.ValidationError as error:
        raise _mismatch(error, type) from None
    except msgspec.DecodeError as error:
        raise InvalidRequestError(_malformed(data, str(error))) from None
    except json.JSONDecodeError as error:
        raise InvalidRequestError(f"the JSON is malformed: {error.msg}") from None
    except UnicodeDecodeError:
        raise InvalidRequestError("the body is not UTF-8") from None
    except RecursionError:
        raise LimitExceededError("JSON depth", depth + 1, depth) from None


async def take(
    request: Request,
    type: type[T],
    most: int,
    *,
    allowed: Sequence[str] = (JSON,),
    default: T | None = None,
    depth: int = DEPTH,
) -> T:
    """The JSON body of a request as a value of a type; ``default``, if there is one, where there is no body.

    Raises what ``read``, ``media`` and ``decode`` raise, and ``InvalidRequestError`` where there is no body.
    """
    told = bool(fields(request, b"content-type"))
    if told and fields(request, b"content-length")[:1] != ["0"]:
        media(request, allowed)
    data = await read(request, most)
    if not data:
        if default is not None:
            return default
        raise InvalidRequestError("there is no body; a JSON document is wanted")
    if not told:
        media(request, allowed)
    return decode(data, type, depth=depth, room=room_of(most))


def room_of(most: int) -> int:
    """Bytes that a body of at most ``most`` bytes may take once decoded."""
    return max(ROOM, most * 3 // 2)


def _is_known(kind: str, parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    if name.lower() == "charset":
        return value.strip('"').lower() in ("utf-8", "utf8")
    return (name.lower() == "boundary" and kind.startswith("multipart/")) or not parameter


@lru_cache(256)
def _decoder(type: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast(Any, type))


def _check_small(data: Body, depth: int) -> None:
    """Raise for a name twice in one object, for too deep and for numbers; by the decoder of the standard library."""
    _check_numbers(data)
    value = _decode_once(data.decode())
    if data.count(b"[") + data.count(b"{") > depth and not _is_shallow(value, depth):
        raise LimitExceededError("JSON depth", depth + 1, depth)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _twice(name)
            seen.add(name)
    return found


_decode_once = json.JSONDecoder(object_pairs_hook=_once).decode


def _is_shallow(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return True
    return False


def _check_large(data: Body, depth: int, room: int) -> None:
    """Raise for what ``_check_small`` raises for, and for too much; builds only the names of objects that are open.

    A value follows each comma and each opening bracket but that of an empty container.
    """
    if not data.isascii():
        text = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(data), _WINDOW):
            text.decode(data[start : start + _WINDOW])
        text.decode(b"", True)
    narrow = data.isascii() and b"\\u" not in data
    opened: list[set[bytes] | None] = []
    names: set[bytes] | None = None
    takes = 0
    for found in _TOKEN.finditer(data):
        start, end = found.span()
        first = data[start]
        if first == 0x2C:  # ,
            takes += _VALUE
        elif first == 0x22 or first == 0x3A:  # "..." or :"..."
            takes += _STRING_MORE + (end - start if narrow else _width(data, start, end))
            if first == 0x22 and names is not None:
                if end - start - 2 > NAME:
                    raise LimitExceededError("bytes of a name", end - start - 2, NAME)
                name = found[0] if b"\\" not in found[0] else msgspec.json.encode(msgspec.json.decode(found[0]))
                if name in names:
                    raise _twice(msgspec.json.decode(name))
                names.add(name)
        elif first == 0x7D or first == 0x5D:  # } ]
            names = opened.pop()
        else:  # [ or {, or an empty pair of them
            if len(opened) >= depth:
                raise LimitExceededError("JSON depth", depth + 1, depth)
            takes += _ARRAY_MORE
            if end - start == 1:
                opened.append(names)
                names = set() if first == 0x7B else None
                takes += _VALUE + (_OBJECT_MORE if first == 0x7B else 0)
        if takes > room:
            raise LimitExceededError("bytes of the body once decoded", takes, room)
    _check_numbers(data)


def _width(data: Body, start: int, end: int) -> int:
    """Bytes a string takes once decoded: all its characters take as much as the widest. Escapes count as written."""
    if _TWO_BYTES.search(data, start, end) is None:
        return end - start
    widest = 2 if _FOUR_BYTES.search(data, start, end) is None else 4
    windows = (data[at : min(at + _WINDOW, end)] for at in range(start, end, _WINDOW))
    return widest * sum(len(window.translate(None, _CONTINUATION)) for window in windows)


def _check_numbers(data: Body) -> None:
    """Raise for a number that not every reader keeps. Looks for a sign of one first, which takes 1 ns a byte."""
    for start in range(0, len(data), _WINDOW):
        alike = data[start : start + _WINDOW + len(_MANY_DIGITS)].translate(_ALIKE)
        if _MANY_DIGITS in alike or b"0e000" in alike or b"0e+000" in alike:
            break
    else:
        return
    for found in _LONG_NUMBER.finditer(data):
        if data[found.start()] != 0x22:
            if found.end() - found.start() > _LONGEST_NUMBER:
                said = f"a number of more than {_LONGEST_NUMBER:,} characters is not kept by every reader of JSON"
                raise InvalidRequestError(said)
            _check_number(found[0])


def _check_number(number: bytes) -> None:
    if number.lstrip(b"-").isdigit():
        if not -_INTEGERS <= int(number) < 2 * _INTEGERS:
            raise InvalidRequestError("an integer beyond 64 bits is not kept by every reader of JSON")
    elif math.isinf(float(number)):
        raise InvalidRequestError("a number beyond 1.8e308 is not kept by every reader of JSON")


def _twice(name: str) -> InvalidRequestError:
    shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
    return InvalidRequestError(f"the name {shown!r} is there twice in one object")


def _malformed(data: Body, said: str) -> str:
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the body begins with a byte order mark; send plain UTF-8"
    at = _AT.search(said)
    place = int(at[1]) if at else len(data)
    near = _SURROGATES.finditer(data, max(0, place - _NEAR), place + _NEAR)
    if (at is None or "hex" in said or "surrogate" in said) and any(found[1] is None for found in near):
        return r"a string is no valid text: it has half of a surrogate pair, a \ud800 to \udfff that stands alone"
    if said == "Input data was truncated":
        return "the JSON ends too early"
    return "the " + said


def _mismatch(error: msgspec.ValidationError, type: Any) -> InvalidRequestError:
    """What msgspec says, in the words of JSON, with the path apart and without the value that it quotes."""
    said, at, path = str(error).rpartition(" - at `")
    if not at:
        said, path = path, "$`"
    path = path[:-1]
    if said.startswith(("Invalid enum value ", "Invalid value ")):
        allowed = ", ".join(str(value) for value in sorted(_allowed(type, path), key=str))
        said = "it is none of the values allowed here" + (f": {allowed}" if allowed else "")
    elif said.startswith("Expected "):
        said = _TYPES.sub(lambda found: _TYPE_NAMES[found[0]], said)
    if path == "$" and hasattr(type, "MEANT"):
        said += f"; {type.MEANT}"
    if len(said) > 3 * _SHOWN:
        said = said[: 3 * _SHOWN] + "…"
    return InvalidRequestError(said[:1].lower() + said[1:], path[: 3 * _SHOWN])


def _allowed(type: Any, path: str) -> set[Any]:
    """The values that an enumeration, a literal or a tag may have at a path that msgspec has told."""
    here: list[Any] = _apart(inspect.type_info(type))
    values = set[Any]()
    for field, _ in _STEPS.findall(path):
        below = list[Any]()
        values = {one.tag for one in here if isinstance(one, inspect.StructType) and one.tag_field == field}
        for one in here:
            if field:
                below += [inner.type for inner in getattr(one, "fields", ()) if inner.encode_name == field]
            else:
                parts = (getattr(one, name, None) for name in ("item_type", "value_type"))
                below += [part for part in parts if part is not None] + list(getattr(one, "item_types", ()))
        here = [apart for inner in below for apart in _apart(inner)]
    for one in here:
        if isinstance(one, inspect.EnumType):
            values |= {member.value for member in one.cls}
        elif isinstance(one, inspect.LiteralType):
            values |= set(one.values)
    return values


def _apart(info: Any) -> list[Any]:
    """The types that a type is a choice of, without what is said about them."""
    if isinstance(info, inspect.Metadata):
        return _apart(info.type)
    return [apart for one in info.types for apart in _apart(one)] if isinstance(info, inspect.UnionType) else [info]
