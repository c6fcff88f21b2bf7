"""Types that are made ready where they are defined."""

from __future__ import annotations

import sys
from types import ModuleType

import msgspec
import pytest

from totalizer.prepared import prepared

MODULE = """
import msgspec

class Inner(msgspec.Struct):
    number: int

class Unprepared(msgspec.Struct):
    inner: "Inner"

class Prepared(msgspec.Struct):
    inner: "Inner"
"""


def test_what_is_prepared_has_its_fields_looked_at_once_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("of_types")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(MODULE, vars(module))
    assert prepared(module.Prepared) is module.Prepared
    del module.Inner  # who looks now finds nothing
    assert msgspec.convert({"inner": {"number": 1}}, module.Prepared).inner.number == 1
    with pytest.raises(NameError):
        msgspec.convert({"inner": {"number": 1}}, module.Unprepared)
