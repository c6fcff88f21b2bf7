"""The project's files, as the house rules look at them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Module(NamedTuple):
    """One Python file: where it is below the project's folder, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module


def _files() -> Iterator[Path]:
    """Every file that is or would be committed; without git, whatever lies outside hidden folders."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
        yield from (ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())
        return
    for path in ROOT.rglob("*"):
        below = path.relative_to(ROOT).parts
        if path.is_file() and not any(part.startswith(".") or part in ("__pycache__", "dist") for part in below):
            yield path


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def texts() -> dict[str, str]:
    """The text of every text file of the project, by its path below the project's folder."""
    found = {}
    for path in _files():
        content = path.read_bytes()
        if b"\0" not in content:
            found[path.relative_to(ROOT).as_posix()] = content.decode()
    return found


@pytest.fixture(scope="session")
def source(texts: dict[str, str]) -> list[Module]:
    """The modules of the package."""
    modules = [
        Module(path, text, ast.parse(text))
        for path, text in sorted(texts.items())
        if path.startswith("src/totalizer/") and path.endswith(".py")
    ]
    assert len(modules) > 100
    return modules
