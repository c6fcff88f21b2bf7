"""How the source is cut: short files, and a docstring on everything that others may use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

LINES_MAX = 300


def test_a_file_is_short_enough_to_be_read_at_once(source: list[Any]) -> None:
    long = {module.path: lines for module in source if (lines := module.text.count("\n")) > LINES_MAX}
    assert long == {}


def undocumented(path: str, node: ast.AST, described: set[str]) -> Iterator[str]:
    """Public classes and functions without a docstring; a method may leave it to a protocol or abstract class."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or child.name.startswith("_"):
            continue
        if ast.get_docstring(child) is None and child.name not in described:
            yield f"{path}:{child.lineno} {child.name}"
        if isinstance(child, ast.ClassDef):
            yield from undocumented(path, child, described)


def test_everything_public_has_a_docstring(source: list[Any]) -> None:
    missing = [module.path for module in source if ast.get_docstring(module.tree) is None]
    # Methods that a protocol or abstract class of ours describes, once for all that have its form.
    described = {
        method.name
        for module in source
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) in ("Protocol", "ABC") for base in node.bases)
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(method)
    }
    for module in source:
        if "/migrations/" in module.path:  # Alembic calls upgrade and downgrade, nobody else
            continue
        missing += undocumented(module.path, module.tree, described)
    assert missing == [], "\n".join(missing)


def test_a_docstring_begins_with_a_sentence(source: list[Any]) -> None:
    """The first line stands alone: it is what an index shows."""
    wrong = []
    for module in source:
        for node in [module.tree, *ast.walk(module.tree)]:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                head, _, rest = text.partition("\n")
                if rest and rest.strip() and not rest.startswith("\n"):
                    wrong.append(f"{module.path}:{getattr(node, 'lineno', 1)} {head}")
    assert wrong == [], "\n".join(wrong)
