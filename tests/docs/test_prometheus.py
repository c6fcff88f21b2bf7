"""The rules for Prometheus ask for metrics and labels that there are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from totalizer.metrics.table import METRICS, PROCESSES

ROOT = Path(__file__).parents[2]
KNOWN = {metric.name: metric for metric in (PROCESSES, *METRICS.values())}


def test_every_rule_is_whole_and_asks_for_what_there_is() -> None:
    document = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text("utf-8"))
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) == 9
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "remedy"}
        assert rule["expr"].count("(") == rule["expr"].count(")")
        asked = re.findall(r"(totalizer_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert asked, rule["alert"]
        for name, matchers in asked:
            base = KNOWN.get(name) or KNOWN[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert (base.kind == "histogram") == (name != base.name), name
            assert set(re.findall(r"(\w+)(?:!?=~?)", matchers)) <= set(base.labels), rule["alert"]
