"""What users may rely on is listed once in the code, and is found in the documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from totalizer.catalog import FieldType, load_catalog, read_event_types, read_fields, read_measures, read_rollups
from totalizer.catalog.measures import KINDS
from totalizer.collect.sanitise import DECIMAL_DIGITS_MAX, JSON_DEPTH_MAX
from totalizer.errors import STATUS_OF, Refusal
from totalizer.metrics.table import METRICS, PROCESSES
from totalizer.ops.cli import app
from totalizer.settings import Settings
from totalizer.store.audit import ACTIONS
from totalizer.window import Grain

COMMAND = typer.main.get_command(app)


def commands(group: Any = COMMAND, *names: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something: its name as it is typed, and itself."""
    context = group.make_context("totalizer", [], resilient_parsing=True)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, *names, name)
        else:
            yield " ".join((*names, name)), command


COMMANDS = dict(commands())


def table_rows(text: str) -> dict[str, list[str]]:
    """Rows of a document's tables by what stands in backquotes in their first column."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if line.startswith("| `") and (found := re.match(r"`([^`]+)`", cells[0])):
            rows[found[1]] = cells
    return rows


def page(root: Path, name: str) -> str:
    return (root / "docs/reference" / f"{name}.md").read_text("utf-8")


def test_every_setting_is_documented_with_its_default_and_nothing_else_is(root: Path) -> None:
    rows = table_rows(page(root, "settings"))
    fields = {str(field.validation_alias): field for field in Settings.model_fields.values()}
    assert rows.keys() == fields.keys()
    for name, field in fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        assert rows[name][1] == default, name
        assert rows[name][-1], name


def test_every_refusal_is_documented_with_its_status(root: Path) -> None:
    rows = table_rows(page(root, "errors"))
    codes = {refusal.value: str(STATUS_OF[refusal]) for refusal in Refusal}
    assert {code: row[1] for code, row in rows.items() if re.fullmatch(r"[a-z_]+", code)} == codes
    assert all(rows[code][2] and rows[code][3] for code in codes)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_its_options(root: Path, name: str) -> None:
    sections = re.split(r"(?m)^## ", page(root, "commands"))
    heading = re.compile(rf"`totalizer {name}[` ]")
    [section] = [text for text in sections if heading.search(text.split("\n")[0])]
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts if option.startswith("--")}
    assert {option for option in options - {"--help"} if f"`{option}" not in section} == set()
    arguments = {str(parameter.name) for parameter in COMMANDS[name].params if not parameter.opts[0].startswith("-")}
    assert {argument for argument in arguments if argument.upper() not in section.split("\n")[0]} == set()


def test_no_command_is_documented_that_does_not_exist(texts: dict[str, str]) -> None:
    """Wherever a document shows a command line, it begins with a command that there is."""
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    shown = re.compile(r"(?:^|`|\| )totalizer ([a-z][a-z0-9-]*)(?: ([a-z][a-z-]*)\b)?", re.MULTILINE)
    typed = [(path, *words) for path, text in texts.items() if path.endswith(".md") for words in shown.findall(text)]
    assert len(typed) > 50
    unknown = [
        f"{path}: totalizer {first} {second}"
        for path, first, second in typed
        if (f"{first} {second}" not in COMMANDS if first in groups and second else first not in {*COMMANDS, *groups})
    ]
    assert unknown == []


def test_readmes_scripts_and_links_exist(root: Path) -> None:
    text = (root / "README.md").read_text("utf-8")
    for script in set(re.findall(r"script/[a-z_]+", text)):
        assert (root / script).stat().st_mode & 0o111, script


def test_links_between_documents_lead_somewhere(root: Path, texts: dict[str, str]) -> None:
    broken = [
        f"{path}: {target}"
        for path, text in texts.items()
        if path.endswith(".md")
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
        if not (root / path).parent.joinpath(target).exists()
    ]
    assert broken == []


def anchors(text: str) -> set[str]:
    """Of a document's headings, as they are made where it is shown."""
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_into_documents_lead_to_a_heading(root: Path, texts: dict[str, str]) -> None:
    found = [
        (path, target, anchor)
        for path, text in texts.items()
        if path.endswith(".md")
        for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", text)
    ]
    assert found
    assert [
        f"{path}: {target}#{anchor}"
        for path, target, anchor in found
        if anchor not in anchors((root / path).parent.joinpath(target or Path(path).name).read_text("utf-8"))
    ] == []


def test_the_changelog_has_unreleased_on_top(root: Path) -> None:
    headings = re.findall(r"(?m)^## .*$", (root / "CHANGELOG.md").read_text("utf-8"))
    assert headings[0] == "## [Unreleased]"


def test_the_catalog_page_names_every_key_type_and_measure(root: Path) -> None:
    text = page(root, "catalog")
    keys = {
        *read_event_types._EVENT_TYPE_KEYS, *read_fields._FIELD_KEYS, *read_rollups._ROLLUP_KEYS,
        *read_measures._MEASURE_KEYS, *(kind.value for kind in FieldType), *KINDS,
    }  # fmt: skip
    assert {key for key in keys if f"`{key}`" not in text} == set()
    for limit in (read_fields.TEXT_LENGTH_MAX, read_rollups.KEY_BYTES_MAX, JSON_DEPTH_MAX, DECIMAL_DIGITS_MAX):
        assert re.search(rf"\b{limit}\b", text), limit


def test_the_catalog_page_lists_what_is_shipped(root: Path) -> None:
    rows = table_rows(page(root, "catalog"))
    for event_type in load_catalog().event_types.values():
        assert event_type.name in rows, event_type.name
        assert f"`{event_type.route}`" in rows[event_type.name]


def test_the_http_page_names_every_window_and_route(root: Path) -> None:
    text = page(root, "http")
    words = [*(grain.value for grain in Grain), *(kind.route for kind in load_catalog().event_types.values())]
    assert [word for word in words if f"`{word}`" not in text] == []


def test_every_decision_has_a_number_of_its_own_and_the_four_parts(root: Path) -> None:
    pages = sorted((root / "docs/adr").glob("*.md"))
    assert [int(path.name[:4]) for path in pages] == list(range(1, len(pages) + 1))
    for path in pages:
        text = path.read_text("utf-8")
        missing = [part for part in ("Context", "Decision", "Consequences") if f"**{part}.**" not in text]
        assert missing == [], path.name


def test_every_metric_is_documented_as_it_is(root: Path) -> None:
    rows = table_rows(page(root, "observability"))
    metrics = {metric.name: metric for metric in (PROCESSES, *METRICS.values())}
    assert rows.keys() == metrics.keys()
    for name, metric in metrics.items():
        assert rows[name][1] == metric.kind
        assert re.findall(r"`([^`]+)`", rows[name][2]) == list(metric.labels)


def test_every_action_of_the_audit_trail_is_documented(root: Path) -> None:
    rows = table_rows(page(root, "audit"))
    assert rows.keys() - {"api_key", "token", "command_line", "database"} == ACTIONS.keys()
    assert all(rows[action][1] and rows[action][2] for action in ACTIONS)
