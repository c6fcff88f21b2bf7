"""The lock: every package with its exact version and hashes, from no place in particular."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ENTRY = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^\s;]+)(?P<marker>\s*;.*?)?(?P<hashes>(\s--hash=\S+)*)"
)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(root: Path) -> dict[str, re.Match[str]]:
    """Entries of the lock by name; an entry goes over several lines, each but the last ending in a backslash."""
    text = (root / "requirements.lock").read_text()
    joined = re.sub(r"\s*\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    found = {}
    for line in filter(None, map(str.strip, joined.splitlines())):
        match = ENTRY.fullmatch(line)
        assert match is not None, line[:100]
        assert match["name"] not in found, f"{match['name']} is there twice"
        found[match["name"]] = match
    return found


def test_every_entry_is_pinned_and_has_hashes(root: Path) -> None:
    for name, match in entries(root).items():
        hashes = match["hashes"].split()
        assert hashes, f"{name} has no hash"
        assert all(HASH.fullmatch(item) for item in hashes), name


def test_the_lock_names_no_address(root: Path) -> None:
    text = (root / "requirements.lock").read_text()
    assert not re.search(r"://|--index|--find-links|--trusted|file:|git\+| @ ", text)


def test_every_declared_dependency_is_locked(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[<>=~! ;]", item)[0] for group in groups for item in group} - {"totalizer"}
    declared = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    assert declared - entries(root).keys() == set()
