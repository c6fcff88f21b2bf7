"""Calls that have one place only, or none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest

#: Dotted names → the modules that may use them, below src/totalizer.
ONE_PLACE = {
    "time.time": (),
    "time.time_ns": ("clock.py",),
    "time.monotonic": ("clock.py",),
    "time.monotonic_ns": (),
    "time.perf_counter": (),
    "time.sleep": ("clock.py",),
    "datetime.now": (),
    "datetime.utcnow": (),
    "datetime.today": (),
    "date.today": (),
    "os.getenv": (),
    "os.putenv": (),
    # The settings; where a process is to crash, for tests; what a supervisor and its children tell each other; what is
    # handed on to other programs whole.
    "os.environ": (
        "settings/__init__.py", "failpoint.py", "ops/lifeline.py", "ops/plan.py", "ops/program.py", "ops/secret.py",
        "ops/commands/up.py", "ops/commands/psql.py", "ops/embedded/account.py", "ops/importers/environment.py",
    ),
    "os.system": (),
    "eval": (),
    # The renderer of an event type is written from its declaration, see there.
    "exec": ("collect/render.py",),
    "pickle.loads": (),
    "print": (),
    "breakpoint": (),
}  # fmt: skip


def used_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted names with their lines: `time.time`, and `datetime.now` also in `datetime.datetime.now`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            owner = node.value
            if isinstance(owner, ast.Name | ast.Attribute):
                yield f"{owner.id if isinstance(owner, ast.Name) else owner.attr}.{node.attr}", node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("name", ONE_PLACE)
def test_a_call_is_used_in_its_places_only(source: list[Any], name: str) -> None:
    allowed = {f"src/totalizer/{path}" for path in ONE_PLACE[name]}
    users = {(module.path, line) for module in source for used, line in used_names(module.tree) if used == name}
    assert [f"{path}:{line}" for path, line in sorted(users) if path not in allowed] == []
    assert allowed <= {path for path, _ in users}, "the list names a place that does not use it any more"


def test_the_rule_sees_every_way_to_call() -> None:
    code = "import time\ntime.time()\nfrom os import environ\nx = datetime.datetime.now()\nprint(1)\nconsole.print(2)\n"
    assert {"time.time", "os.environ", "datetime.now", "print"} <= {name for name, _ in used_names(ast.parse(code))}
    assert ("print", 6) not in set(used_names(ast.parse(code)))


def handlers(source: list[Any]) -> Iterator[tuple[str, ast.ExceptHandler]]:
    for module in source:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler):
                yield f"{module.path}:{node.lineno}", node


def test_no_handler_is_bare(source: list[Any]) -> None:
    assert [place for place, handler in handlers(source) if handler.type is None] == []


def test_what_catches_everything_raises_or_reports_it(source: list[Any]) -> None:
    """`except Exception` and `except BaseException` must not swallow."""
    silent = []
    for place, handler in handlers(source):
        names = {node.id for node in ast.walk(handler.type or ast.Pass()) if isinstance(node, ast.Name)}
        if not names & {"Exception", "BaseException"}:
            continue
        inner = list(ast.walk(handler))
        calls = [
            node.func.attr for node in inner if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        ]
        reports = any(re.search(r"error|warning|exception|report|fail|hook", call) for call in calls)
        if not reports and not any(isinstance(node, ast.Raise) for node in inner):
            silent.append(place)
    assert silent == []


def test_nothing_is_left_to_do(texts: dict[str, str]) -> None:
    pattern = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    assert [path for path, text in texts.items() if path != "LICENSE" and pattern.search(text)] == []


def made_of(source: list[Any]) -> Iterator[tuple[str, str]]:
    """The types that are named where something is read by msgspec, with where that is."""
    for module in source:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr == "convert" and ast.unparse(node.func.value) == "msgspec":
                kinds = node.args[1:2]
            elif node.func.attr == "decode":
                kinds = [each.value for each in node.keywords if each.arg == "type"]
            else:
                continue
            for kind in kinds:
                yield from (
                    (name.id, f"{module.path}:{node.lineno}") for name in ast.walk(kind) if isinstance(name, ast.Name)
                )


def test_types_that_threads_may_meet_at_the_same_time_are_prepared(source: list[Any]) -> None:
    """The first look at one by two threads ends the process, see prepared.py."""
    structs: dict[str, list[tuple[str, ast.ClassDef]]] = {}
    for module in source:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and any("Struct" in ast.unparse(base) for base in node.bases):
                structs.setdefault(node.name, []).append((module.path, node))
    meant = [
        (where, struct)
        for name, where in made_of(source)
        for path, struct in structs.get(name, ())
        if not name.startswith("_") or where.startswith(f"{path}:")
    ]
    assert len(meant) > 10
    assert [
        f"{where}: {struct.name}"
        for where, struct in meant
        if "prepared" not in [ast.unparse(each) for each in struct.decorator_list]
    ] == []
