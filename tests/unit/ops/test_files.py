"""Records, state, lock, logs, folders: the supervisor's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from totalizer.errors import OperationError
from totalizer.ops.embedded.config import PostgresConfig
from totalizer.ops.embedded.folders import SOCKET_PATH_BYTES_MAX, Folders
from totalizer.ops.lock import hold_folder, holder_of, lock_path
from totalizer.ops.log import LOG, log_to_file, open_log, stop_logging, tail
from totalizer.ops.plan import PLAN_VARIABLE, UpPlan
from totalizer.ops.process import ProcessId
from totalizer.ops.record import RunRecord, forget, read_json, write_private
from totalizer.ops.rotation import LOOK_SECONDS, Rotation
from totalizer.ops.screen import screen
from totalizer.ops.state import State, read_state, remove_state, state_path, write_state
from unit.edge.daemon.parts import HandClock


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("first, and long", "second"):
        write_private(path, text)
        assert path.read_text() == text
        assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x", "created": 1}', '{"pid": 1}'])
def test_a_damaged_record_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "api.json").write_text(text)
    assert RunRecord.read(tmp_path, "api") is None


def test_records_come_back(tmp_path: Path) -> None:
    record = RunRecord(ProcessId(12, 34.5), "print")
    record.write(tmp_path, "api")
    assert RunRecord.read(tmp_path, "api") == record
    forget(tmp_path, "api")
    forget(tmp_path, "api")
    assert read_json(tmp_path / "api.json") is None


def test_the_state_comes_back_and_knows_whether_it_runs(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    me = ProcessId.of(os.getpid())
    assert me is not None
    state = State(me.pid, me.created, "now", "http://127.0.0.1:1", "dsn", None, {"api": 3})
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert state.running()
    assert not State(me.pid, me.created - 60, "then", "http://x", None, None).running()
    state_path(tmp_path).write_text(json.dumps({"version": "from another time"}))
    assert read_state(tmp_path) is None
    remove_state(tmp_path)
    assert read_state(tmp_path) is None


def test_the_screen_shows_what_a_person_needs(tmp_path: Path) -> None:
    state = State(1, 2.0, "now", "http://127.0.0.1:3000", "postgresql:///x?host=/[run]", "unix:///v", {"api": 77})
    text = screen(state, tmp_path, 1.23)
    for part in ("1.2 s", "http://127.0.0.1:3000/", "totalizer psql", "unix:///v", str(tmp_path), "api 77"):
        assert part in text
    assert r"host=/\[run]" in text, "brackets in a path would be taken for markup"


def test_one_process_holds_a_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert holder_of(home) is None
    with hold_folder(home) as holder:
        assert holder_of(home) == holder
        with pytest.raises(OperationError, match=rf"pid {os.getpid()}, started {holder.started_at}"), hold_folder(home):
            pass
    assert holder_of(home) is None


def test_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from totalizer.ops.lock import hold_folder\n"
        "with hold_folder(pathlib.Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    held = holder_of(tmp_path)
    assert held is not None
    assert held.pid == child.pid
    child.kill()
    child.communicate()
    with hold_folder(tmp_path):
        assert lock_path(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(OperationError, match=r"cannot use .*/home"), hold_folder(tmp_path / "home"):
        pass


def test_logs_are_set_aside_when_large_while_they_are_written(tmp_path: Path) -> None:
    clock, path = HandClock(), tmp_path / "log" / "api.log"
    rotation = Rotation(path.parent, bytes_max=3, files=2, clock=clock)
    with open_log(path) as log:
        for text in (b"one\n", b"two\n", b"three\n", b"4\n"):
            log.write(text)
            log.flush()
            rotation.look()
            clock.sleep(LOOK_SECONDS)
    found = {each.name: each.read_text() for each in path.parent.iterdir()}
    assert found == {"api.log": "4\n", "api.log.1": "three\n", "api.log.2": "two\n"}
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


def test_no_log_is_looked_at_all_the_time_and_none_is_kept_that_is_not_wanted(tmp_path: Path) -> None:
    clock, path = HandClock(), tmp_path / "api.log"
    rotation = Rotation(tmp_path, bytes_max=1, files=0, clock=clock)
    rotation.look()
    path.write_text("long")
    rotation.look()
    assert path.read_text() == "long"
    clock.sleep(LOOK_SECONDS)
    rotation.look()
    assert path.read_text() == ""
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_that_cannot_be_set_aside_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()
    (tmp_path / "api.log").write_text("long")
    (tmp_path / "api.log.1").mkdir()
    rotation = Rotation(tmp_path, bytes_max=1, files=1, clock=clock)
    for _ in range(3):
        rotation.look()
        clock.sleep(LOOK_SECONDS)
    [line] = caplog.messages
    assert "api.log cannot be set aside" in line
    assert (tmp_path / "api.log").read_text() == "long"


def test_the_supervisor_s_lines_have_the_form_of_all_others(tmp_path: Path) -> None:
    handler = log_to_file(tmp_path / "up.log")
    try:
        LOG.error('%s has ended: "ü"', "api")
    finally:
        stop_logging(handler)
    line = json.loads((tmp_path / "up.log").read_text())
    assert (line["event"], line["level"], line["component"]) == ('api has ended: "ü"', "error", "up")
    assert line["timestamp"].endswith("Z")


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path) == "(its log is empty)"
    path.write_text("\n".join(str(number) for number in range(100_000)))
    assert tail(path, lines=2) == "99998\n99999"


@pytest.mark.parametrize("name", ["short", "x" * 90, "a b", "a,b", "ü", "a%b", "a'b"])
def test_sockets_have_plain_short_paths(name: str) -> None:
    folders = Folders.of(Path("/tmp") / name)
    path = str(folders.postgres_sockets / ".s.PGSQL.5432")
    assert len(path.encode()) <= SOCKET_PATH_BYTES_MAX
    assert (folders.runtime == folders.run) == (name == "short")
    assert Folders.of(Path("/tmp") / name) == folders


def test_two_long_homes_have_two_socket_folders() -> None:
    assert Folders.of(Path("/tmp") / ("x" * 90)).runtime != Folders.of(Path("/tmp") / ("y" * 90)).runtime


def test_durability_is_on_unless_a_test_asks(tmp_path: Path) -> None:
    text = PostgresConfig().text(Folders.of(tmp_path))
    for line in ("fsync = 'on'", "synchronous_commit = 'on'", "full_page_writes = 'on'", "listen_addresses = ''"):
        assert line in text.splitlines()
    assert "fsync = 'off'" in PostgresConfig(fsync=False).text(Folders.of(tmp_path)).splitlines()


def test_a_plan_survives_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = UpPlan(str(tmp_path), "0.0.0.0", 4000, own_database=False, program=("a", "b"))
    monkeypatch.setenv(PLAN_VARIABLE, plan.encode())
    assert UpPlan.from_environment() == plan
    assert PLAN_VARIABLE not in os.environ
    assert plan.setup_commands()[0].arguments == ("a", "b", "migrate", "--wait")
    (tmp_path / "api-key").touch()
    assert [command.name for command in plan.setup_commands()] == ["migrate"]
