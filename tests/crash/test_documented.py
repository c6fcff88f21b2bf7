"""The table of faults in docs/reference/durability.md names tests that exist, and every file of tests here."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs/reference/durability.md"


def test_every_named_test_exists_and_every_file_is_named() -> None:
    text = PAGE.read_text("utf-8")
    paths = list(TESTS.rglob("test_*.py"))
    sources = [path.read_text("utf-8") for path in paths]
    named = set(re.findall(r"`(?:tests/[a-z/]+/)?(test_\w+\.py)`", text))
    assert named <= {path.name for path in paths}
    functions = set(re.findall(r"`(test_\w+)`", text))
    assert len(functions) > 10
    assert {name for name in functions if not any(f"def {name}(" in source for source in sources)} == set()
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")} - {
        "test_oracle.py",
        "test_found.py",
        Path(__file__).name,
    }
    assert here <= named
