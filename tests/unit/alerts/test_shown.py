"""What stands, from the file of this machine's monitor."""

from __future__ import annotations

from pathlib import Path

from totalizer.alerts.shown import standing_in
from totalizer.edge.daemon.alerts import STATE_FILE
from unit.alerts.test_watch import BAD_LEDGER, NO_REDIS, Scene


def test_what_the_monitor_knows_is_shown_without_a_database(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.look(4, **BAD_LEDGER, **NO_REDIS)
    found = {each["key"]: (each["rule"], each["severity"]) for each in standing_in(tmp_path, "here")}
    assert found == {"ledger": ("ledger", "critical"), "redis@here": ("redis", "warning")}
    assert all(each["since"].tzinfo is not None for each in standing_in(tmp_path, "here"))


def test_no_file_and_a_torn_one_show_nothing(tmp_path: Path) -> None:
    assert standing_in(tmp_path, "here") == []
    (tmp_path / STATE_FILE).write_text("{")
    assert standing_in(tmp_path, "here") == []
