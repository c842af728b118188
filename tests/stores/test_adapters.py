"""The table of URL schemes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError, MissingExtraError
from holdfast.stores import TIERS, adapter


@pytest.mark.parametrize(("tier", "scheme"), [(tier, scheme) for tier, known in TIERS.items() for scheme in known])
def test_every_scheme_leads_to_a_class_that_can_be_opened(tier: str, scheme: str) -> None:
    assert callable(adapter(tier, f"{scheme}://somewhere").open)


@pytest.mark.parametrize("url", ["ftp://host/x", "/srv/x", ""])
@pytest.mark.parametrize("tier", TIERS)
def test_a_scheme_nobody_serves_is_refused_with_those_that_are_served(tier: str, url: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"there are: {', '.join(TIERS[tier])}")):
        adapter(tier, url)


def test_a_driver_that_is_not_installed_names_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_adapter.py").write_text("import a_driver_not_installed.client\n")
    monkeypatch.syspath_prepend(tmp_path)
    tiers = {"hot": {"needy": "needy_adapter:NeedyHotStore"}}
    with pytest.raises(MissingExtraError, match=r"pip install 'holdfast\[needy\]'"):
        adapter("hot", "needy://", tiers=tiers, drivers={"a_driver_not_installed": "needy"})
    # A module that is missing for another reason is a fault of ours and is not dressed up.
    with pytest.raises(ModuleNotFoundError):
        adapter("hot", "needy://", tiers=tiers)
    assert "needy_adapter" not in sys.modules
