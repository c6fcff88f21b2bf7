"""The rules for Prometheus and the dashboard for Grafana ask for metrics, labels and values that there are."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from totalizer.errors import Refusal
from totalizer.health.table import BY_NAME
from totalizer.metrics.table import COMPONENTS, METRICS, PROCESSES

ROOT = Path(__file__).parents[2]
KNOWN = {metric.name: metric for metric in (PROCESSES, *METRICS.values())}
#: What Prometheus itself adds, and a histogram's own.
ADDED = {"instance", "le"}
#: Values of labels that are known, by label.
VALUES = {
    "check": set(BY_NAME), "component": {*COMPONENTS, "worker"}, "kind": {"ingest", "ask"},
    "status": {"1xx", "2xx", "3xx", "4xx", "5xx", "none"}, "code": {refusal.value for refusal in Refusal},
    "found": {"process", "redis", "shared", "unchanged", "missed"}, "state": {"done"},
}  # fmt: skip
#: Columns of a dashboard of Grafana.
COLUMNS = 24


def check(expression: str) -> set[str]:
    """The metrics that an expression asks for, each with labels and values that there are."""
    assert expression.count("(") == expression.count(")"), expression
    asked = re.findall(r"(totalizer_\w+)(?:\{([^}]*)\})?", expression)
    assert asked, expression
    labels: set[str] = set()
    for name, matchers in asked:
        base = KNOWN.get(name) or KNOWN[re.sub(r"_(bucket|sum|count)$", "", name)]
        assert (base.kind == "histogram") == (name != base.name), name
        assert base.kind == "gauge" or re.search(rf"(rate|increase)\({name}\b", expression), expression
        labels |= {*base.labels, *ADDED}
        for label, value in re.findall(r'(\w+)(?:!=|=~|!~|=)"([^"]*)"', matchers):
            assert label in {*base.labels, *ADDED}, expression
            assert value == "$instance" or set(value.split("|")) <= VALUES[label], expression
    grouped = {each.strip() for found in re.findall(r"\bby \(([^)]*)\)", expression) for each in found.split(",")}
    assert grouped <= labels, expression
    return {name for name, _ in asked}


def dashboard() -> Any:
    return json.loads((ROOT / "deploy/grafana/totalizer.json").read_text("utf-8"))


def test_every_rule_is_whole_and_asks_for_what_there_is() -> None:
    document = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text("utf-8"))
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) == 11
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "remedy"}
        check(rule["expr"])
        told = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert told <= {label for found in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in found.split(", ")}


def test_every_panel_asks_for_what_there_is_and_every_metric_has_one() -> None:
    shown: set[str] = set()
    for panel in dashboard()["panels"]:
        assert panel["type"] == "row" or panel["targets"], panel["title"]
        for target in panel.get("targets", ()):
            names = check(target["expr"])
            assert target["expr"].count("totalizer_") == target["expr"].count('instance=~"$instance"'), target["expr"]
            told = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = {label for found in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in found.split(", ")}
            assert told <= kept or (told == {"instance"} and not kept), target
            shown |= {re.sub(r"_(bucket|sum|count)$", "", name) if name not in KNOWN else name for name in names}
    # Those of the last minute are for the service's own health: panels have the histogram.
    assert KNOWN.keys() - shown == {
        "totalizer_metrics_lost_total", "totalizer_minute_requests", "totalizer_minute_request_seconds",
    }  # fmt: skip


def test_the_dashboard_can_be_provisioned_on_any_data_source() -> None:
    document = dashboard()
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    check(re.sub(r"label_values\((\w+), (\w+)\)", r"sum by (\2) (\1)", variables["instance"]["definition"]))
    sources = [panel["datasource"] for panel in document["panels"] if panel["type"] != "row"]
    sources += [target["datasource"] for panel in document["panels"] for target in panel.get("targets", ())]
    assert {source["uid"] for source in sources} == {"${datasource}"}
    assert "__inputs" not in document
    assert document.get("id") is None
    assert re.fullmatch(r"[a-z0-9-]{1,40}", document["uid"])
    [provider] = yaml.safe_load((ROOT / "deploy/grafana/provider.yaml").read_text("utf-8"))["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] >= 0 and place["w"] > 0 and place["x"] + place["w"] <= COLUMNS for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
