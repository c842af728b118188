"""The URL of a Redis hot tier."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.drivers.redis_url import Address, RedisUrl
from holdfast.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://localhost", {"addresses": (Address("localhost", 6379),)}),
        ("redis://h:1/3", {"addresses": (Address("h", 1),), "db": 3}),
        ("redis://[::1]:7", {"addresses": (Address("::1", 7),)}),
        ("redis://[::1]", {"addresses": (Address("::1", 6379),)}),
        ("rediss://u:p%40@h?ca=/a.pem", {"username": "u", "password": "p@", "tls": True, "ca": "/a.pem"}),
        ("redis://:p@h", {"username": None, "password": "p"}),
        ("redis+sentinel://a,b:2/main/1", {"addresses": (Address("a", 26379), Address("b", 2)), "service": "main"}),
        ("redis+cluster://a:1,b:2?tls=on", {"addresses": (Address("a", 1), Address("b", 2)), "tls": True}),
        ("redis://h?prefix=x.y&partitions=8&durability=hot", {"prefix": "x.y", "partitions": 8, "durability": "hot"}),
        ("redis://h?timeout=2&connect=1.5&lanes=3", {"timeout": 2.0, "connect": 1.5, "lanes": 3}),
        ("redis://h?checks=off", {"checks": False}),
        ("redis+sentinel://h/m?sentinel_password=s", {"sentinel_password": "s"}),
    ],
)
def test_a_url_says_where_the_servers_are_and_what_is_promised(url: str, said: dict[str, Any]) -> None:
    read = RedisUrl.parse(url)
    assert {name: getattr(read, name) for name in said} == said


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("valkey://h", "no Redis URL"),
        ("redis://", "names its servers"),
        ("redis://h:x", "names its servers"),
        ("redis://h:70000", "names its servers"),
        ("redis://a,b", "one server"),
        ("redis://h/x", "number of a database"),
        ("redis://h/1/2", "number of a database"),
        ("redis+sentinel://h", "names the service"),
        ("redis+cluster://h/1", "only one"),
        ("redis://h?prefx=a", "takes no prefx"),
        ("redis://h?prefix={a}", "letters, digits"),
        ("redis://h?prefix=", "letters, digits"),
        ("redis://h?durability=warm", "disk or hot"),
        ("redis://h?partitions=0", "partitions in a Redis URL is a number from 1"),
        ("redis://h?partitions=1.5", "partitions in a Redis URL is a number from 1"),
        ("redis://h?timeout=nan", "timeout in a Redis URL is a number"),
        ("redis://h?checks=maybe", "checks in a Redis URL is on or off"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_what_is_allowed(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        RedisUrl.parse(url)


@pytest.mark.parametrize("url", ["redis://u:secret@h:x", "redis://u:secret@h?secret=secret", "redis://u:secret@h"])
def test_no_error_and_no_text_shows_the_password(url: str) -> None:
    try:
        said = repr(RedisUrl.parse(url)) + str(RedisUrl.parse(url))
    except ConfigurationError as error:
        said = str(error).replace("takes no secret", "")
    assert "secret" not in said.replace("sentinel_password", "")
