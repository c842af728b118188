"""Limits name what was counted, the figure and the most there may be."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.errors import LimitExceededError
from holdfast.model.limits import Limits, check_limit


@pytest.mark.parametrize("figure", [-1, 0, 9, 10])
def test_a_figure_up_to_the_limit_passes(figure: int) -> None:
    check_limit("items", figure, 10)


@pytest.mark.parametrize("figure", [11, 12_000])
def test_a_figure_beyond_the_limit_is_refused_with_its_name(figure: int) -> None:
    with pytest.raises(LimitExceededError) as refused:
        check_limit("items", figure, 10)
    assert refused.value.facts() == {"limit": "items", "figure": figure, "maximum": 10}
    assert str(refused.value) == f"items would be {figure:,}; the limit is 10. Nothing was changed."


def test_the_limits_are_as_promised_unless_set_otherwise() -> None:
    promised = {"session_bytes": 10_000_000, "items": 100, "item_bytes": 1_000_000, "depth": 64}
    assert promised.items() <= msgspec.structs.asdict(Limits()).items()
    assert all(bound > 0 for bound in msgspec.structs.asdict(Limits()).values())
