"""Who imports whom: the contracts of pyproject.toml hold."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "pyproject.toml"


def test_every_import_contract_is_kept() -> None:
    lint = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run(
        [sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_are_the_four_of_the_house() -> None:
    configuration = tomllib.loads(CONFIGURATION.read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = {contract["id"]: contract["type"] for contract in configuration["contracts"]}
    assert contracts == {
        "layers": "layers",
        "acyclic": "acyclic_siblings",
        "protected": "protected",
        "tiers": "independence",
    }
    assert configuration["contracts"][0]["exhaustive"] is True


def test_nothing_inside_imports_from_the_package_root() -> None:
    # The contracts cannot see this one: the root stands in no layer. A module taken from it by name is no such import.
    package = ROOT / "src" / "holdfast"
    found = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "holdfast":
                taken = [alias.name for alias in node.names if not is_module(package, alias.name)]
            elif isinstance(node, ast.Import):
                taken = [alias.name for alias in node.names if alias.name == "holdfast"]
            else:
                continue
            found += [f"{path.relative_to(package)}:{node.lineno} {name}" for name in taken]
    assert found == []


def is_module(package: Path, name: str) -> bool:
    return (package / name).is_dir() or (package / f"{name}.py").is_file()
