"""docs/reference/api.md, made from the description that a running server gives of itself.

`script/api-reference` writes the page; a test compares it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from support import RunningStack

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/api.md"
PATH = "/api/docs/openapi.json"
#: How the page is made anew.
COMMAND = "script/api-reference"
#: Characters of a line of an example.
WIDTH = 110
_HEAD = """# API

<!-- Made by `script/api-reference` from the API's description of itself. -->

Every route of a running server, as it describes itself at `/api/docs` and `/api/docs/openapi.json`; with a catalog of
your own, its event types are there too. What the routes are for is told on the page about [HTTP](http.md). The
[WebSocket](live.md#websocket) and [the operator's page](http.md#the-operators-page) are none of them.

What a route *needs* is an action that the key's scopes or the token's role [allow](access.md). Refusals have other
statuses than those below, and are [problem documents](errors.md). Parameters and members with \\* are always there.
"""
_TYPES = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "object",
    "array": "list", "null": "null",
}  # fmt: skip
_FORMATS = {"date-time": "time", "uuid": "UUID", "binary": "bytes"}

#: In the order in which one needs them.
_TAGS = (
    "Sending events", "What became of events", "Asking", "Live windows", "Exports", "Usage", "Keys", "Jobs", "Alerts",
    "Audit", "Health",
)  # fmt: skip

Json = dict[str, Any]
#: A route: path, method in capitals, what is said of it.
Operation = tuple[str, str, Json]


def operations(document: Json) -> list[Operation]:
    """Every route with each of its methods, by path: the server's own order differs from start to start."""
    return [
        (path, method.upper(), operation)
        for path, methods in sorted(document["paths"].items())
        for method, operation in methods.items()
    ]


def page(document: Json) -> str:
    """The page about an API's description."""
    by_tag: dict[str, list[Operation]] = {}
    for operation in operations(document):
        by_tag.setdefault(operation[2]["tags"][0], []).append(operation)
    pieces = [_HEAD]
    for tag in sorted(by_tag, key=_TAGS.index):
        pieces.append(f"## {tag}\n")
        pieces.append(_overview(by_tag[tag]))
        for family in families(by_tag[tag]):
            pieces += _family(family)
    return "\n".join(pieces)


def families(some: list[Operation]) -> list[list[Operation]]:
    """Routes that do the same to different kinds of events: their summaries differ after a colon."""
    found: dict[tuple[str, str], list[Operation]] = {}
    for path, method, operation in some:
        what, colon, _ = operation["summary"].partition(":")
        found.setdefault((method, what if colon else path), []).append((path, method, operation))
    return list(found.values())


def request_of(path: str, operation: Json) -> tuple[str, str | None, Any]:
    """The example of a request: path with its query, content type, body."""
    given = [parameter for parameter in operation.get("parameters", ()) if "example" in parameter]
    for parameter in given:
        path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter["example"]), safe=""))
    asked = [(each["name"], each["example"]) for each in given if each["in"] == "query"]
    content = operation.get("requestBody", {}).get("content", {})
    media_type = next(iter(content), None)
    return f"{path}?{urlencode(asked)}" if asked else path, media_type, content.get(media_type, {}).get("example")


def _overview(some: list[Operation]) -> str:
    rows = [f"| `{method} {path}` | {_needs(operation)} | {operation['summary']} |" for path, method, operation in some]
    return "\n".join(["| route | needs | |", "|---|---|---|", *rows, ""])


def _needs(operation: Json) -> str:
    names = [name for scheme in operation.get("security", ())[:1] for names in scheme.values() for name in names]
    return ", ".join(f"`{name}`" for name in names)


def _family(family: list[Operation]) -> Iterator[str]:
    path, method, operation = family[0]
    if len(family) == 1:
        end = "" if operation["summary"].endswith("?") else "."
        yield f"### `{method} {path}`\n\n{operation['summary']}{end} {_description(operation)}\n"
        yield from _parameters(operation)
        yield from _bodies(operation)
    else:
        what = operation["summary"].partition(":")[0]
        yield f"### {what}\n\n{_description(operation)}\n"
        yield from _parameters(operation)
        for each_path, _, each in family:
            yield f"`{method} {each_path}`: {each['summary'].partition(': ')[2]}.\n"
            if "requestBody" in each:
                yield from _bodies(each)
    yield from _answers(operation)
    yield from _example(path, method, operation)


def _description(operation: Json) -> str:
    needs = f"Needs {_needs(operation)}." if operation.get("security") else "Anybody may ask."
    return " ".join([*operation.get("description", "").split(), needs])


def _parameters(operation: Json) -> Iterator[str]:
    rows = [
        [f"`{each['name']}`" + (" \\*" if each.get("required") else ""), each["in"], each.get("description", "")]
        for each in operation.get("parameters", ())
    ]
    if rows:
        yield _table(["parameter", "in", "meaning"], rows)


def _bodies(operation: Json) -> Iterator[str]:
    body = operation.get("requestBody")
    if body is None:
        return
    told: dict[str, list[str]] = {}
    for media_type, content in body["content"].items():
        told.setdefault(json.dumps(content["schema"]), []).append(f"`{media_type}`")
    for schema, names in told.items():
        need = "" if body.get("required") else ", may be left out"
        yield from _members(f"body, {', '.join(names)}{need}", json.loads(schema))


def _answers(operation: Json) -> Iterator[str]:
    for status, answer in operation["responses"].items():
        if status == "default":
            continue
        if "content" not in answer:
            yield f"**{status}**: {answer['description']}\n"
        for media_type, content in answer.get("content", {}).items():
            yield from _members(f"{status}, `{media_type}`", content["schema"], deep=True)


def _members(title: str, schema: Json, *, deep: bool = False) -> Iterator[str]:
    forms = schema.get("anyOf") or schema.get("oneOf") or [schema]
    for number, form in enumerate(forms):
        rows = [[f"`{name}`{mark}", kind, about] for name, mark, kind, about in _flat(form, "", deep)]
        head = f"{title}{', or' if number else ''}"
        if rows:
            yield _table([head, "holds", "meaning"], rows)
        else:
            yield f"{head}: {_kind(form)}. {form.get('description', '')}".rstrip() + "\n"


def _flat(schema: Json, before: str, deep: bool) -> Iterator[tuple[str, str, str, str]]:
    for name, each in schema.get("properties", {}).items():
        mark = " \\*" if name in schema.get("required", ()) else ""
        yield before + name, mark, _kind(each), each.get("description", "")
        if deep:
            yield from _flat(each, f"{before}{name}.", deep)
            yield from _flat(each.get("items", {}), f"{before}{name}[].", deep)
            if isinstance(more := each.get("additionalProperties"), dict):
                yield from _flat(more, f"{before}{name}.*.", deep)


def _kind(schema: Json) -> str:
    if "oneOf" in schema or "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema.get("oneOf") or schema["anyOf"])
    names = schema.get("type", [])
    kinds = [_TYPES[name] for name in ([names] if isinstance(names, str) else names)]
    if "format" in schema and kinds:
        kinds[0] = _FORMATS.get(schema["format"], kinds[0])
    if schema.get("enum"):
        kinds[0] = ", ".join("null" if value is None else f"`{value}`" for value in schema["enum"])
        kinds = kinds[:1]
    if "items" in schema:
        items = schema["items"]
        kinds[0] = f"list of {items['title']}" if "title" in items else f"list: {_kind(items)}"
    return (" or ".join(kinds) or "any value") + _bounds(schema)


def _bounds(schema: Json) -> str:
    for end, unit in (("imum", ""), ("Length", " characters"), ("Items", "")):
        least, most = schema.get(f"min{end}"), schema.get(f"max{end}")
        if most is not None:
            return (
                f", {least} to {most}{unit}" if least is not None and (least or not unit) else f", up to {most}{unit}"
            )
        if least is not None and not unit:
            return f", from {least}"
    return ""


def _example(path: str, method: str, operation: Json) -> Iterator[str]:
    target, media_type, body = request_of(path, operation)
    lines = [f"{method} {target}"]
    if operation.get("security"):
        lines.append("Authorization: Bearer tz_…")
    if body is not None:
        lines += [f"Content-Type: {media_type}", "", shown(body)]
    yield _block("http", "\n".join(lines))
    for answer in operation["responses"].values():
        for content in answer.get("content", {}).values():
            if "example" in content:
                yield _block("json" if not isinstance(content["example"], str) else "", shown(content["example"]))
                return


def shown(value: Any, indent: int = 0) -> str:
    """A value as JSON, in short lines; a text as it is."""
    if isinstance(value, str) and not indent:
        return value.replace("\r\n", "\n").rstrip("\n")
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    within, between = "\n" + " " * (indent + 2), ",\n" + " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {shown(each, indent + 2)}" for key, each in value.items()]
        return "{" + within + between.join(parts) + "\n" + " " * indent + "}"
    return "[" + within + between.join(shown(each, indent + 2) for each in value) + "\n" + " " * indent + "]"


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        stack = RunningStack(Path(folder) / "home")
        try:
            document = urllib3.request("GET", stack.url + PATH).json()
        finally:
            stack.stop()
    PAGE.write_text(page(document), "utf-8")


if __name__ == "__main__":
    main()
