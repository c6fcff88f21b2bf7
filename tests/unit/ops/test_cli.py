"""The command line as a person meets it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import totalizer
from totalizer.ops.cli import COMMANDS
from totalizer.ops.console import exit_code_of
from totalizer.store import roles
from totalizer.store.password import password_for


def run(*arguments: str, code: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    command = ["-c", code, *arguments] if code else ["-m", "totalizer", *arguments]
    return subprocess.run([sys.executable, *command], env={**kept, **variables}, capture_output=True, text=True)


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"totalizer {totalizer.__version__}\n")


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert [name for name in COMMANDS if name not in done.stdout] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: totalizer {command}" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",), ("up", "--port", "x"), ("keys", "revoke"), ("psql", "--role", "x"), ("status", "5"),
        ("status", "--watch", "0.1"),
    ],
)  # fmt: skip
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_error_is_one_line_and_1(tmp_path: Path) -> None:
    done = run("keys", "list", "--home", str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "totalizer up" in done.stderr


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    done = run("--debug", "keys", "list", "--home", str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_wrong_setting_is_named_with_its_value(tmp_path: Path) -> None:
    done = run("up", "--home", str(tmp_path), PORT="70000")
    assert done.returncode == 1
    assert "PORT='70000'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_status_of_nothing_is_3(tmp_path: Path) -> None:
    done = run("status", "--home", str(tmp_path))
    assert (done.returncode, done.stdout) == (3, f"nothing runs on {tmp_path.resolve()}; `totalizer up` starts it\n")


def test_down_of_nothing_is_harmless(tmp_path: Path) -> None:
    assert run("down", "--home", str(tmp_path / "none")).returncode == 0
    assert not (tmp_path / "none").exists()


def test_the_client_alone_says_what_a_server_command_needs(tmp_path: Path) -> None:
    """With the server's libraries out of reach, every server command names the extra, and the client's still load."""
    hide = (
        "import sys\n"
        "server = 'psycopg pydantic_settings psutil structlog granian litestar alembic'\n"
        "sys.modules.update(dict.fromkeys(server.split()))\n"
        "sys.argv[0] = 'totalizer'\n"
        "from totalizer.ops.cli import main\n"
        "main()\n"
    )
    for command in (["up"], ["down"], ["serve"], ["psql"], ["verify"], ["keys", "list"], ["catalog", "list"]):
        done = run(*command, code=hide, TOTALIZER_HOME=str(tmp_path))
        assert (done.returncode, "pip install 'totalizer[server]'" in done.stderr) == (1, True), (command, done.stderr)
    assert run("import", "--help", code=hide).returncode == 0


def test_ctrl_c_is_130() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert exit_code_of(interrupted, debug=lambda: False) == 130


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: 1 // 0, debug=lambda: False)


def test_the_supervisor_loads_no_library_that_it_does_not_need() -> None:
    heavy = (
        "psycopg",
        "pydantic",
        "litestar",
        "granian",
        "alembic",
        "sqlalchemy",
        "structlog",
        "typer",
        "ssl",
        "redis",
    )
    code = f"import sys, totalizer.ops.up; print([name for name in {heavy!r} if name in sys.modules])"
    assert run(code=code).stdout == "[]\n"


def test_supervisor_and_store_derive_the_same_passwords() -> None:
    assert roles.password_for("a secret", "postgres") == password_for("a secret", "postgres")
