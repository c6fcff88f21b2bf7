"""HTML from nested calls. Every text is escaped; only what this module made is taken as it is."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any, TypeAlias

#: Elements that have no end tag.
_VOID = frozenset({"br", "hr", "input", "link", "meta"})


class Markup(str):
    """HTML that is whole and safe."""

    __slots__ = ()


#: What may stand in an element: text, numbers, HTML, several of them, nothing.
Child: TypeAlias = "str | int | float | Markup | Iterable[Child] | None"


def h(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """An element.

    Args:
        name: such as `td`.
        children: what stands in it; text is escaped, None is left out.
        attributes: by name, with `_` for `-`, and a `_` at the end of words that Python keeps for itself. True stands
            for one without a value; False and None leave it out.
    """
    opened = "".join(_attribute(key, value) for key, value in attributes.items() if value not in (None, False))
    if name in _VOID:
        return Markup(f"<{name}{opened}>")
    return Markup(f"<{name}{opened}>{''.join(_texts(children))}</{name}>")


def document(head: Iterable[Markup], body: Iterable[Markup]) -> bytes:
    """A whole page, in UTF-8."""
    html = h("html", h("head", h("meta", charset="utf-8"), head), h("body", body), lang="en")
    return f"<!doctype html>\n{html}\n".encode()


def _attribute(key: str, value: Any) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def _texts(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child
        elif isinstance(child, str | int | float):
            yield escape(str(child))
        else:
            yield from _texts(child)
