"""The benchmarks keep up with the code they measure."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no part of the package: found from the project's folder, as script/bench finds them."""
    monkeypatch.syspath_prepend(str(root))


def test_every_benchmark_can_be_loaded_and_is_documented(root: Path) -> None:
    listed = import_module("benchmarks.__main__").BENCHMARKS
    page = (root / "docs/reference/benchmarks.md").read_text("utf-8")
    for name in listed:
        assert callable(import_module(f"benchmarks.{name}").run)
        assert f"script/bench {name}" in page
    assert all(sys.modules[f"benchmarks.{name}"].__file__ == str(root / f"benchmarks/{name}.py") for name in listed)


def test_every_module_of_the_benchmarks_can_be_loaded(root: Path) -> None:
    names = [path.stem for path in (root / "benchmarks").glob("*.py") if path.stem not in ("__init__", "__main__")]
    assert len(names) > 10
    for name in names:
        import_module(f"benchmarks.{name}")
