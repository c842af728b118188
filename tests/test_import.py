"""``import holdfast`` is light, and gives the public names and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

import holdfast
from holdfast import errors

HEAVY = ("apsw", "cryptography", "fastapi", "numpy", "obstore", "rich", "semantic_text_splitter", "typer", "asyncio")


def loaded_after(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


def test_importing_holdfast_loads_nothing_heavy() -> None:
    loaded = loaded_after("import holdfast")
    assert "holdfast.errors" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_naming_the_settings_loads_nothing_heavy() -> None:
    loaded = loaded_after("from holdfast import Settings\nSettings.load({'HOME': '/nonexistent'})")
    assert "holdfast.settings" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_check_of_lightness_sees_what_is_loaded() -> None:
    assert "obstore" in loaded_after("import holdfast.stores.cold.objects")


@pytest.mark.parametrize("name", holdfast.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(holdfast, name) is not None
    assert name in dir(holdfast)


def test_every_error_is_public() -> None:
    ours = {
        name for name, found in vars(errors).items() if isinstance(found, type) and found.__module__ == errors.__name__
    }
    assert ours <= set(holdfast.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        holdfast.nothing_of_the_kind  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    assert holdfast.__version__.count(".") == 2
