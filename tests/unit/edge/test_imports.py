"""What a program pays that imports the library: the modules that come with it. No time is measured here."""

from __future__ import annotations

import subprocess
import sys

import pytest

import totalizer.edge
import totalizer.journal

MODULES = "; import sys; print(*sys.modules)"


def modules_of(program: str) -> set[str]:
    """What is imported when a program has run, beside what an empty one has."""
    loaded = [
        subprocess.run([sys.executable, "-c", each + MODULES], capture_output=True, text=True, check=True).stdout
        for each in (program, "pass")
    ]
    return set(loaded[0].split()) - set(loaded[1].split())


#: Heavy, and of no use before they are asked for.
HEAVY = {
    "asyncio", "urllib3", "http.client", "ssl", "socket", "email", "hashlib", "rich", "typer", "apscheduler", "apprise",
    "psutil", "psycopg", "litestar", "subprocess", "multiprocessing", "concurrent.futures", "totalizer.settings",
    "totalizer.catalog", "totalizer.event",
}  # fmt: skip


def test_importing_brings_in_itself_and_the_errors_alone() -> None:
    loaded = modules_of("from totalizer.edge import SmartBatchAggregator, FlushError, ValidationError")
    own = {name for name in loaded if name.startswith("totalizer")}
    assert own == {"totalizer", "totalizer.edge", "totalizer.edge.aggregator", "totalizer.errors"}
    assert loaded.isdisjoint({"msgspec", "logging", "inspect", "uuid", "re", *HEAVY} - _everybodys())


def test_one_that_is_made_and_takes_nothing_opens_no_journal() -> None:
    program = (
        "import tempfile; from totalizer.edge import SmartBatchAggregator;"
        "SmartBatchAggregator(data_path=tempfile.mkdtemp()).shutdown()"
    )
    loaded = modules_of(program)
    assert "totalizer.edge.options" in loaded
    assert loaded.isdisjoint({"totalizer.edge.engine", "totalizer.journal.journal", "totalizer.journal.reader", *HEAVY})


def _everybodys() -> set[str]:
    """What `typing` and the like bring in themselves, which differs from Python to Python."""
    return modules_of("import os, threading, weakref, types, typing, enum")


@pytest.mark.parametrize("package", [totalizer.edge, totalizer.journal])
def test_every_name_is_there_when_it_is_asked_for(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert names == sorted(names)
    assert set(names) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in names)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # type: ignore[attr-defined]  # noqa: B018
