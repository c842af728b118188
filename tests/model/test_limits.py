"""Limits name what was counted, the figure and the most there may be."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.errors import _SETTINGS, LimitExceededError
from holdfast.model.limits import Limits, check_limit


@pytest.mark.parametrize("figure", [-1, 0, 9, 10])
def test_a_figure_up_to_the_limit_passes(figure: int) -> None:
    check_limit("items", figure, 10)


@pytest.mark.parametrize("figure", [11, 12_000])
def test_a_figure_beyond_the_limit_is_refused_with_its_name(figure: int) -> None:
    with pytest.raises(LimitExceededError) as refused:
        check_limit("items", figure, 10)
    assert refused.value.facts() == {"limit": "items", "figure": figure, "maximum": 10}
    assert str(refused.value) == "items: more than 10, which is the limit. Make it smaller. Nothing was changed."


@pytest.mark.parametrize(
    ("limit", "setting"),
    [("items in a session", "items"), ("JSON depth", "depth"), ("operations in one change-set", "operations")],
)
def test_a_limit_that_is_a_setting_is_told_with_it_and_not_with_where_counting_stopped(
    limit: str, setting: str
) -> None:
    with pytest.raises(LimitExceededError, match="more than 100, which is the limit") as refused:
        check_limit(limit, 101, 100)
    assert f"raise the setting `limits.{setting}`" in str(refused.value)
    assert "101" not in str(refused.value)


def test_every_setting_that_an_error_names_is_one() -> None:
    there = {f"limits.{name}" for name in Limits.__struct_fields__}
    assert set(_SETTINGS.values()) == there


def test_the_limits_are_as_promised_unless_set_otherwise() -> None:
    promised = {"session_bytes": 10_000_000, "items": 100, "item_bytes": 1_000_000, "depth": 64}
    assert promised.items() <= msgspec.structs.asdict(Limits()).items()
    assert all(bound > 0 for bound in msgspec.structs.asdict(Limits()).values())
