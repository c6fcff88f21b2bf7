"""docs/howto/notebook.md: its cells are run one after the other, as a notebook does."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import urllib3

from integration.query.test_export_over_http import may_export
from support import Stack
from totalizer.errors import ConfigurationError

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "notebook.md"
USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
SHOWN = """\
2025-04-01 build 2 25
2025-04-01 plan 1 15
2025-04-02 plan 1 400
most on one day: build 2
slowest: plan 400 ms
new since then: 0
columns: ['executed_at', 'id']
in the last hour: {'plan': 1}
"""


def command(name: str, duration_ms: int, **more: str) -> dict[str, Any]:
    return {"user_id": USER, "command_name": name, "execution_time_ms": duration_ms, "status": "success", **more}


def test_its_cells_do_what_they_say(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = may_export(stack)
    events = [
        command("build", 20, executed_at="2025-04-01T08:00:00Z"),
        command("build", 30, executed_at="2025-04-01T09:00:00Z"),
        command("plan", 15, executed_at="2025-04-01T09:30:00Z"),
        command("plan", 400, executed_at="2025-04-01T22:30:00Z"),
        command("plan", 10),
    ]
    sent = urllib3.request(
        "POST", f"{stack.url}/api/metrics/batch", json={"command_executions": events},
        headers={"authorization": f"Bearer {stack.key}"},
    )  # fmt: skip
    assert sent.status == 202, sent.data
    stack.drain()
    monkeypatch.setenv("TOTALIZER_URL", stack.url)
    monkeypatch.setenv("TOTALIZER_API_KEY", stack.key)
    monkeypatch.chdir(tmp_path)
    cells = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(cells) == 8
    names: dict[str, Any] = {}
    for cell in cells:
        if "pandas" in cell and find_spec("pandas") is None:
            with pytest.raises(ConfigurationError, match="pip install pandas"):
                exec(cell, names)
            continue
        exec(cell, names)
    shown = [line for line in capsys.readouterr().out.splitlines() if line in SHOWN.splitlines()]
    assert shown == SHOWN.splitlines()
