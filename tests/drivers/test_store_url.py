"""The URL of a store, taken apart."""

from __future__ import annotations

import pytest

from holdfast.drivers.store_url import StoreUrl
from holdfast.errors import ConfigurationError


def test_what_is_named_is_read_and_the_rest_is_as_usual() -> None:
    url = StoreUrl("x://h/p?a=1.5&b=8&c=no&b=9", "That URL")
    assert (url.parts.netloc, url.parts.path) == ("h", "/p")
    assert (url.number("a", 2.0, 0, 3), url.number("z", 2.0, 0, 3)) == (1.5, 2.0)
    assert (url.count("b", 1, 1, 9), url.count("z", 1, 1, 9)) == (9, 1)
    assert (url.flag("c", True), url.flag("z", True), url.flag("z", False)) == (False, True, False)
    url.check_known("x://", {"a", "b", "c"})


@pytest.mark.parametrize("rest", ["h?nothing", "h?a=1&", "[h?a=1"])
def test_what_makes_no_sense_cannot_be_read_and_is_not_shown(rest: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^That URL cannot be read\.$"):
        StoreUrl(f"x://me:hunter2@{rest}", "That URL")


@pytest.mark.parametrize("text", ["", " 8", "+8", "8.0", "-1", "0", "10", "²", "0000000008", "9" * 5_000, "hunter2"])
def test_a_count_is_digits_within_its_bounds(text: str) -> None:
    url = StoreUrl("x://h", "That URL", where=" there")
    url.query["n"] = text
    with pytest.raises(ConfigurationError, match=r"^n there is a number from 1 to 9\.$"):
        url.count("n", 1, 1, 9)


@pytest.mark.parametrize("text", ["", "nan", "inf", "-0.1", "3.1", "hunter2"])
def test_a_number_is_within_its_bounds(text: str) -> None:
    url = StoreUrl(f"x://h?n={text}", "That URL", where=" there")
    with pytest.raises(ConfigurationError, match=r"^n there is a number from 0 to 3\.$"):
        url.number("n", 1, 0, 3)


def test_what_is_not_known_is_named_and_its_value_is_not_shown() -> None:
    url = StoreUrl("x://h?colour=hunter2&b=1", "That URL")
    with pytest.raises(ConfigurationError, match=r"^x:// takes no colour in its query; it takes a, b\.$"):
        url.check_known("x://", {"b", "a"})
    with pytest.raises(ConfigurationError, match=r"it takes none\.$"):
        url.check_known("x://", ())
    with pytest.raises(ConfigurationError, match=r"^colour is on or off\.$"):
        url.flag("colour", True)
    assert "hunter2" not in repr(url)
