"""Bodies of requests: what is read, and what of JSON is taken (S20, F19)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from holdfast.errors import (
    HoldfastError,
    InvalidRequestError,
    LimitExceededError,
    MediaTypeError,
    RequestTooLargeError,
)
from holdfast.service import bodies

SECRET = "the-launch-code"


class Form(msgspec.Struct, forbid_unknown_fields=True):
    title: str = ""
    count: int = 0
    kind: Literal["a", "b"] = "a"
    inner: list[Form] = []


class Kept(msgspec.Struct):
    body: msgspec.Raw


class Sent:
    """A request as a server hands it over: pieces one by one; tells how many were taken."""

    broken = False

    def __init__(self, *pieces: bytes, **headers: str) -> None:
        self.pieces, self.taken = list(pieces), 0
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.request = Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, self.receive)

    async def receive(self) -> dict[str, Any]:
        self.taken += 1
        if self.broken and not self.pieces:
            return {"type": "http.disconnect"}
        piece = self.pieces.pop(0) if self.pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces) or self.broken}


# -- reading -----------------------------------------------------------------------------------------------------------


async def test_a_body_in_pieces_is_read_whole() -> None:
    assert await bodies.read(Sent(b"ab", b"", b"cd").request, 4) == b"abcd"


async def test_a_body_that_says_it_is_too_large_is_refused_before_any_of_it_is_read() -> None:
    sent = Sent(b"x" * 11, content_length="11")
    with pytest.raises(RequestTooLargeError) as refused:
        await bodies.read(sent.request, 10)
    assert sent.taken == 0
    assert refused.value.maximum == 10


@pytest.mark.parametrize("headers", [{}, {"content_length": "3"}, {"transfer_encoding": "chunked"}])
async def test_a_body_that_turns_out_too_large_is_refused_at_the_byte_too_many(headers: dict[str, str]) -> None:
    sent = Sent(b"x" * 6, b"x" * 4, b"x", *[b"x" * 10] * 1_000, **headers)
    with pytest.raises(RequestTooLargeError):
        await bodies.read(sent.request, 10)
    assert sent.taken == 3


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert len(await bodies.read(Sent(b"x" * 6, b"x" * 4, content_length="10").request, 10)) == 10


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", "0x10", "+5", "٣", "5, 5"])
async def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    with pytest.raises(InvalidRequestError):
        await bodies.read(Sent(b"x", content_length=length).request, 10)


async def test_a_length_of_a_thousand_digits_is_too_large() -> None:
    with pytest.raises(RequestTooLargeError):
        await bodies.read(Sent(b"x", content_length="9" * 1_000).request, 10)


async def test_a_sender_that_goes_away_leaves_no_half_body() -> None:
    sent = Sent(b"half of")
    sent.broken = True
    with pytest.raises(ClientDisconnect):
        await bodies.read(sent.request, 100)


# -- media types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_a_media_type_is_known_in_any_case_and_with_the_charset_it_has_anyway(line: str) -> None:
    assert bodies.media(Sent(content_type=line).request, [bodies.JSON]) == bodies.JSON


@pytest.mark.parametrize(
    "line",
    [
        "",
        "text/plain",
        "application/jsonp",
        "application/json, text/plain",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json; version=2",
        "application/json; boundary=x",
        "application/merge-patch+json",
    ],
)
def test_another_media_type_or_parameter_is_refused(line: str) -> None:
    with pytest.raises(MediaTypeError) as refused:
        bodies.media(Sent(content_type=line).request, [bodies.JSON])
    assert refused.value.allowed == (bodies.JSON,)


def test_no_media_type_and_two_of_them_are_refused() -> None:
    with pytest.raises(MediaTypeError):
        bodies.media(Sent().request, [bodies.JSON])
    twice = [(b"content-type", b"application/json"), (b"content-type", b"text/plain")]
    with pytest.raises(MediaTypeError):
        bodies.media(Request({"type": "http", "headers": twice}), [bodies.JSON])


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "deflate"])
def test_a_body_that_is_packed_is_refused(coding: str) -> None:
    sent = Sent(content_type=bodies.JSON, content_encoding=coding)
    with pytest.raises(MediaTypeError):
        bodies.media(sent.request, [bodies.JSON])


def test_the_coding_that_changes_nothing_is_taken() -> None:
    sent = Sent(content_type=bodies.JSON, content_encoding="Identity")
    assert bodies.media(sent.request, [bodies.JSON]) == bodies.JSON


def test_an_upload_names_its_boundary() -> None:
    sent = Sent(content_type="multipart/form-data; boundary=x")
    assert bodies.media(sent.request, ["multipart/form-data"]) == "multipart/form-data"


# -- strict JSON -------------------------------------------------------------------------------------------------------

GOOD: Sequence[tuple[bytes, Any]] = [
    (b"null", None),
    (b' {"a" : [1, 2.5, "x", true, {}]}\r\n', {"a": [1, 2.5, "x", True, {}]}),
    (b"[18446744073709551615,-9223372036854775808]", [2**64 - 1, -(2**63)]),
    (b"[1e308,1E-400,0.1234567890123456789012345,-0.0]", [1e308, 0.0, 0.12345678901234568, -0.0]),
    (b'["12345678901234567890","1e400","9e+999 and 0e0001"]', ["12345678901234567890", "1e400", "9e+999 and 0e0001"]),
    ('{"é😀":"é"}'.encode(), {"é😀": "é"}),
    (rb'["\ud83d\ude00","\\ud800","\u0000","\"[{"]', ["😀", "\\ud800", "\0", '"[{']),
    (b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}', {"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]}),
    (b"[" * 80 + b"]" * 80, None),
    (b'{"":' * 80 + b"1" + b"}" * 80, None),
]

BAD: Sequence[tuple[str, bytes]] = [
    ("nothing", b""),
    ("blank", b" \n"),
    ("not JSON", b"hello"),
    ("cut off", b'{"a":[1,2'),
    ("a comma too many", b"[1,]"),
    ("trailing garbage", b"{}x"),
    ("two documents", b"{} {}"),
    ("comment", b"{}//"),
    ("single quotes", b"{'a':1}"),
    ("a zero in front", b"[01]"),
    ("control character", b'["\x01"]'),
    ("NaN", b"[NaN]"),
    ("Infinity", b"[Infinity]"),
    ("-Infinity", b"[-Infinity]"),
    ("1e400", b"[1e400]"),
    ("-1E+400", b"[-1E+400]"),
    ("1.5e0400", b"[1.5e0400]"),
    ("400 digits and a fraction", b"[" + b"9" * 400 + b".5]"),
    ("65 bits", b"[18446744073709551616]"),
    ("-64 bits and one", b"[-9223372036854775809]"),
    ("23 digits", b"[" + b"1" * 23 + b"]"),
    ("10^4 digits", b"[" + b"1" * 10_000 + b"]"),
    ("10^4 digits after the point", b"[0." + b"1" * 10_000 + b"]"),
    ("the mark of UTF-8", b"\xef\xbb\xbf{}"),
    ("UTF-16", '{"a":1}'.encode("utf-16")),
    ("UTF-16 without a mark", '{"a":1}'.encode("utf-16-le")),
    ("Latin-1", '["é"]'.encode("latin-1")),
    ("an overlong slash", b'["\xc0\xaf"]'),
    ("a surrogate as UTF-8", b'["\xed\xa0\x80"]'),
    ("beyond Unicode", b'["\xf4\x90\x80\x80"]'),
    ("UTF-8 cut off", b'["\xf0\x9f\x98"]'),
    ("bad UTF-8 in a name", b'{"\xff":1}'),
    ("half a pair", rb'["\ud83d"]'),
    ("half a pair and text", rb'["\ud83dabcdefgh"]'),
    ("the other half", rb'["\ude00 and more"]'),
    ("halves in the wrong order", rb'["\ude00\ud83d"]'),
    ("half a pair in a name", rb'{"\ud83d":1}'),
    ("twice", b'{"a":1,"a":1}'),
    ("twice, far apart", b'{"a":1,"b":{"a":2},"c":[{"a":3}],"a":4}'),
    ("twice, inside", b'[{"x":{"a":1,"b":2,"a":3}}]'),
    ("twice, written otherwise", rb'{"a":1,"\u0061":2}'),
    ("twice, with an escape each", rb'{"\n":1,"\u000a":2}'),
    ("twice, not ASCII", '{"é":1,"\\u00e9":2}'.encode()),
    ("twice, with spaces", b'{"a" : 1 , "a"\n:\t2}'),
    ("81 levels", b"[" * 81 + b"]" * 81),
    ("81 levels of objects", b'{"a":' * 81 + b"1" + b"}" * 81),
    ("81 levels, the last one empty", b"[" * 80 + b"{}" + b"]" * 80),
    ("100,000 levels", b"[" * 100_000),
    ("100,000 levels, closed", b"[" * 100_000 + b"]" * 100_000),
]


@pytest.fixture(params=["small", "large"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways a body is checked: as a small one, and as if it were large."""
    if request.param == "large":
        monkeypatch.setattr(bodies, "_MOST_GROWTH", bodies.ROOM)
    return str(request.param)


@pytest.mark.parametrize(("data", "value"), GOOD)
def test_json_in_the_strict_sense_is_taken(way: str, data: bytes, value: Any) -> None:
    found = bodies.decode(data, object)
    assert found == (json.loads(data) if value is None else value)


@pytest.mark.parametrize("data", [data for _, data in BAD], ids=[name for name, _ in BAD])
@pytest.mark.parametrize("wanted", [object, msgspec.Raw], ids=["decoded", "kept as bytes"])
def test_s20_f19_json_that_two_readers_may_take_differently_is_refused(way: str, data: bytes, wanted: Any) -> None:
    with pytest.raises((InvalidRequestError, LimitExceededError)):
        bodies.decode(data, wanted)


def test_most_of_these_bodies_pass_a_lenient_decoder() -> None:
    """Teeth: what the standard library takes of the same list is what strictness is for."""
    passed = []
    for name, data in BAD:
        try:
            json.loads(data)
        except (ValueError, RecursionError):
            continue
        passed.append(name)
    assert len(passed) >= 20
    assert {"NaN", "1e400", "65 bits", "twice", "half a pair", "the mark of UTF-8"} - set(passed) <= {
        "the mark of UTF-8"
    }


def test_the_name_that_is_there_twice_is_told(way: str) -> None:
    with pytest.raises(InvalidRequestError, match="'tit\"le'"):
        bodies.decode(rb'{"x":{"tit\"le":1,"tit\u0022le":2}}', object)


def test_a_long_name_that_is_there_twice_is_not_told_whole(way: str) -> None:
    name = b'"' + b"n" * 9_000 + b'"'
    with pytest.raises(InvalidRequestError) as refused:
        bodies.decode(b"{%b:1,%b:2}" % (name, name), object)
    assert len(str(refused.value)) < 300


def plain() -> st.SearchStrategy[Any]:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
        ["", '"', "\\", "a", ":,[{}]"]
    )
    leaf = (
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    )
    return st.recursive(
        leaf | text, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5), max_leaves=20
    )


@given(plain(), st.booleans(), st.sampled_from([None, 0, 2]))
@settings(max_examples=300, deadline=None)
def test_every_plain_value_comes_back_from_either_way(value: Any, ascii_only: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert bodies.decode(data, object) == value
    bodies._check_large(data, bodies.DEPTH, bodies.ROOM)


Pairs = list[tuple[str, Any]]


class Object:
    """A JSON object as it is written, names and all."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def write(self) -> str:
        return "{" + ",".join(f"{json.dumps(name)}: {write(value)}" for name, value in self.pairs) + "}"

    @property
    def clashes(self) -> bool:
        names = [name for name, _ in self.pairs]
        return len(set(names)) < len(names) or any(clashes(value) for _, value in self.pairs)


def write(value: Any) -> str:
    if isinstance(value, Object):
        return value.write()
    return "[" + " , ".join(map(write, value)) + "]" if isinstance(value, list) else json.dumps(value)


def clashes(value: Any) -> bool:
    return value.clashes if isinstance(value, Object) else isinstance(value, list) and any(map(clashes, value))


def written() -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", "é", '"', "\\", ":", "a,"])
    return st.recursive(
        st.sampled_from([1, "a", '"a":', "{", "\\", None]),
        lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(names, inner), max_size=4).map(Object),
        max_leaves=12,
    )


@given(written())
@settings(max_examples=500, deadline=None)
def test_a_name_twice_is_found_wherever_it_is_and_nowhere_else(value: Any) -> None:
    data = write(value).encode()
    for check in (bodies._check_small, partial(bodies._check_large, room=bodies.ROOM)):
        try:
            check(data, 80)
        except InvalidRequestError:
            assert clashes(value)
        else:
            assert not clashes(value)


# -- types -------------------------------------------------------------------------------------------------------------


def test_a_body_becomes_a_value_of_its_type() -> None:
    assert bodies.decode(b'{"title":"x","inner":[{"count":2}]}', Form) == Form("x", inner=[Form(count=2)])


@pytest.mark.parametrize(
    ("data", "where", "reason"),
    [
        (b'{"title":1}', "$.title", "expected `string`, got `integer`"),
        (b'{"inner":[{},{"count":"%s"}]}' % SECRET.encode(), "$.inner[1].count", "expected `integer`, got `string`"),
        (b'{"kind":"%s"}' % SECRET.encode(), "$.kind", "it is none of the values allowed here: a, b"),
        (b'{"titel":"%s"}' % SECRET.encode(), "$", "object contains unknown field `titel`"),
        (b'{"inner":[{"x":1}]}', "$.inner[0]", "object contains unknown field `x`"),
        (b"[]", "$", "expected `object`, got `array`"),
        (b'{"count":1.0}', "$.count", "expected `integer`, got `number`"),
    ],
)
def test_what_does_not_fit_the_type_is_told_by_its_place_and_not_by_its_value(
    data: bytes, where: str, reason: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        bodies.decode(data, Form)
    assert (refused.value.where, refused.value.reason) == (where, reason)
    assert SECRET not in f"{refused.value}{refused.value.facts()}"


def test_an_unknown_field_with_a_long_name_is_not_told_whole() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        bodies.decode(b'{"%b":1}' % (b"n" * 9_000), Form)
    assert len(str(refused.value)) < 500


def test_a_part_may_be_kept_as_bytes_for_later(way: str) -> None:
    kept = bodies.decode(b'{"body": {"a": [1, 2]} }', Kept)
    assert bytes(kept.body) == b'{"a": [1, 2]}'


def test_a_refusal_names_no_content(way: str) -> None:
    for data in (b'{"a":"%b","a":1}', b'["%b", 1e400]', b'["%b", tru]', b'["%b\xff"]', b'["%b"'):
        with pytest.raises(HoldfastError) as refused:
            bodies.decode(data % SECRET.encode(), object)
        assert SECRET not in str(refused.value)


# -- room --------------------------------------------------------------------------------------------------------------


def test_what_takes_too_much_room_once_decoded_is_refused_and_what_takes_a_little_less_is_not() -> None:
    for piece in (b"1,", b"[],", b"{},", b'"a",', b'{"a":1},', "'é',".encode().replace(b"'", b'"')):
        few, many = (b"[" + piece * count + b"1]" for count in (100_000 // (50 * len(piece)), 100_000))
        assert bodies.decode(few, object, room=100_000)
        with pytest.raises(LimitExceededError) as refused:
            bodies.decode(many, object, room=100_000)
        assert refused.value.figure > refused.value.maximum == 100_000


def test_a_text_takes_as_much_as_its_widest_character() -> None:
    """CPython keeps every character of a string in as many bytes as the widest needs."""
    long = b"x" * 40_000
    for data in (b'["%b"]' % long, b'["%b%b"]' % (long, "é".encode()), b'["%b\\n"]' % long):
        assert bodies.decode(data, object, room=70_000)
    for wide in ("中".encode(), rb"\u4e2d", "😀".encode(), rb"\ud83d\ude00"):
        with pytest.raises(LimitExceededError):
            bodies.decode(b'{"a":"%b%b"}' % (long, wide), object, room=70_000)


def test_a_name_of_more_than_ten_thousand_bytes_is_refused_in_a_large_body() -> None:
    pad = b"x" * (bodies.ROOM // bodies._MOST_GROWTH)
    assert bodies.decode(b'{"%b":"%b"}' % (b"n" * 10_000, pad), object)
    with pytest.raises(LimitExceededError):
        bodies.decode(b'{"%b":"%b"}' % (b"n" * 10_001, pad), object)


# -- all of it ---------------------------------------------------------------------------------------------------------


async def test_a_json_body_is_taken() -> None:
    sent = Sent(b'{"tit', b'le":"x"}', content_type="application/json; charset=utf-8")
    assert await bodies.take(sent.request, Form, 100) == Form("x")


async def test_a_body_of_another_type_is_refused_before_it_is_read() -> None:
    sent = Sent(b"title=x", content_type="application/x-www-form-urlencoded")
    with pytest.raises(MediaTypeError):
        await bodies.take(sent.request, Form, 100)
    assert sent.taken == 0


async def test_a_body_without_a_type_is_refused_for_that() -> None:
    with pytest.raises(MediaTypeError):
        await bodies.take(Sent(b"{}").request, Form, 100)


@pytest.mark.parametrize(
    "headers", [{}, {"content_length": "0"}, {"content_type": "application/json", "transfer_encoding": "chunked"}]
)
async def test_no_body_is_told_apart_from_a_bad_one_and_may_be_left_out_where_there_is_a_default(
    headers: dict[str, str],
) -> None:
    with pytest.raises(InvalidRequestError, match="there is no body"):
        await bodies.take(Sent(**headers).request, Form, 100)
    assert await bodies.take(Sent(**headers).request, Form, 100, default=Form("y")) == Form("y")


async def test_a_blank_body_is_not_a_missing_one() -> None:
    sent = Sent(b" \n", content_type=bodies.JSON)
    with pytest.raises(InvalidRequestError, match="the body is empty"):
        await bodies.take(sent.request, Form, 100, default=Form())


async def test_a_larger_limit_gives_more_room() -> None:
    data = b'["' + "中".encode() + b"x" * 9_000_000 + b'"]'
    with pytest.raises(LimitExceededError):
        await bodies.take(Sent(data, content_type=bodies.JSON).request, list[Any], 10_000_000)
    assert await bodies.take(Sent(data, content_type=bodies.JSON).request, list[Any], 20_000_000)
