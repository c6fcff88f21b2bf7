"""`totalizer query` and `totalizer export` against a running server."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from integration.query.test_export_over_http import CELLS, event, may_export, send, two  # noqa: F401
from support import new_organization
from totalizer.client import Client, ServerUnreachable
from totalizer.client import download as downloads
from totalizer.ops.answers import bar, bar_measure, spark
from totalizer.ops.commands.query import export

RANGE = ("--start", "2025-04-01", "--end", "2025-04-01")


def run(stack: Any, folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "totalizer", *arguments], cwd=folder, capture_output=True, check=False,
        env={**os.environ, "TOTALIZER_URL": stack.url, "TOTALIZER_API_KEY": stack.key, "COLUMNS": "240"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()
    return done


def test_query_as_table_json_csv_and_chart(two: Any, tmp_path: Path) -> None:  # noqa: F811
    mine, _ = two
    table = run(mine, tmp_path, "query", "--metric", "executions", *RANGE).stdout.decode()
    assert table.count("2025-04-01T") == len(CELLS)
    assert "█" * 24 in table
    assert "executions  " + "█" * len(CELLS) in table, "a line of blocks, all of the same height"
    as_json = run(mine, tmp_path, "query", "--group-by", "command_name", "--window", "1d", "--format", "json", *RANGE)
    assert {row["command_name"] for row in json.loads(as_json.stdout)["data"]} == set(CELLS)
    as_csv = run(
        mine, tmp_path, "query", "--group-by", "command_name", "--window", "1d", "--format", "csv", *RANGE,
        "--filter", "command_name==1+1", "--chart", "a.png", "--previous",
    )  # fmt: skip
    [row] = csv.DictReader(io.StringIO(as_csv.stdout.decode(), newline=""))
    assert (row["command_name"], row["executions"], row["previous.executions"]) == ("'=1+1", "1", "")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    run(mine, tmp_path, "query", "--metric", "executions", *RANGE, "--chart", "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert b"ends neither" in run(mine, tmp_path, "query", "--chart", "a.gif", code=2).stderr
    assert b"event_type=dreams" in run(mine, tmp_path, "query", "--event-type", "dreams", code=1).stderr


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "parquet"])
def test_export_into_files(two: Any, tmp_path: Path, form: str) -> None:  # noqa: F811
    mine, _ = two
    done = run(mine, tmp_path, "export", "--format", form, *RANGE, "--raw")
    run(mine, tmp_path, "export", "--format", form, *RANGE, "--raw", "--output", "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    if form in ("csv", "ndjson"):
        assert (tmp_path / "out").read_bytes() == done.stdout
    run(mine, tmp_path, "export", "--format", form, "--totals", "--group-by", "command_name", *RANGE, "--output", "t")
    assert (tmp_path / "t").stat().st_size > 100


def test_export_of_what_is_new(two: Any, tmp_path: Path) -> None:  # noqa: F811
    stack = may_export(new_organization(two[0].running))
    wanted: list[str] = []
    for round_ in range(3):
        names = [f"r{round_}c{number}" for number in range(3)]
        send(stack, {"command_executions": [event(number, f"r{round_}c") for number in range(3)]})
        stack.drain()
        out = run(stack, tmp_path, "export", "--cursor-file", "cursor").stdout
        assert [json.loads(line)["command_name"] for line in out.splitlines()] == names
        wanted += names
    assert run(stack, tmp_path, "export", "--cursor-file", "cursor").stdout == b""


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_a_download_goes_on_where_it_stopped(two: Any, tmp_path: Path, form: str) -> None:  # noqa: F811
    mine, _ = two
    with Client(mine.url, mine.key) as client:
        whole, _ = client.download(tmp_path / "whole", form)
        counts: list[int] = []

        def stop(count: int) -> None:
            counts.append(count)
            if len(counts) == 2:
                # As a kill while the third chunk is written: what is behind the state is of no use.
                with (tmp_path / "part.part").open("ab") as part:
                    part.write(b"half a li")
                raise ServerUnreachable("stopped")

        with pytest.raises(ServerUnreachable):
            client.download(tmp_path / "part", form, chunk=5, told=stop)
        # What arrives meanwhile is of the next export, not of this one.
        events, cursor = client.download(tmp_path / "part", form, chunk=5, told=counts.append)
        assert (events, counts) == (whole, [5, 10, 12])
        assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()
        assert client.download(tmp_path / "next", form, after=cursor)[0] == 0
        assert client.download(tmp_path / "few", form, chunk=5, limit=7)[0] == 7
        assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "next", "part", "whole"]


@pytest.mark.parametrize(
    ("form", "data"),
    [("csv", b'a,b\r\n1,2\r\n"the export broke off here'), ("ndjson", b'{"a":1,"b":2}\n{"the export broke off here')],
)
def test_a_chunk_that_broke_off_is_seen(form: str, data: bytes) -> None:
    with pytest.raises(ServerUnreachable, match="broke off"):
        downloads._last(form, data)


def test_what_divides_totals_is_not_passed_over_for_events() -> None:
    for divided in ({"group_by": ["team_id"]}, {"window": "1d"}):
        with pytest.raises(typer.BadParameter, match="--totals"):
            export(**divided)  # type: ignore[arg-type]


def test_bars_and_blocks() -> None:
    assert (bar(1, 2, 4), bar(2, 2, 4), bar(0, 2, 4), bar(1, 0)) == ("██", "████", "", "")
    assert spark([0, 1, 2]) == "▁▅█"
    assert spark([]) == spark([0.0])[:0]
    rows = [{"a": "x", "b": None, "c": 1}, {"a": "y", "b": -1, "c": 0}]
    assert bar_measure(rows, ["a", "b", "c"]) == "c"
