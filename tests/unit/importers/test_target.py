"""Where an import sends, and that a key goes nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from totalizer.errors import ConfigurationError
from totalizer.ops.importers.target import find_target


@pytest.fixture
def home(tmp_path: Path) -> Any:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").write_text(json.dumps({"url": "http://127.0.0.1:3000", "pid": 1}))
    (tmp_path / "api-key").write_text("local-key\n")
    return tmp_path


def found(url: Any, key: Any, home: Path, variables: Any) -> Any:
    target = find_target(url, key, home, variables)
    return target.url, target.key


def test_options_go_before_variables_before_the_running_stack(home: Path) -> None:
    variables = {"TOTALIZER_URL": "http://e", "TOTALIZER_API_KEY": "e"}
    assert found("https://o/", "o", home, variables) == ("https://o", "o")
    assert found(None, None, home, variables) == ("http://e", "e")
    assert found(None, None, home, {}) == ("http://127.0.0.1:3000", "local-key")
    assert found("http://127.0.0.1:3000/", None, home, {}) == ("http://127.0.0.1:3000", "local-key")


def test_the_local_key_goes_to_no_other_server(home: Path) -> None:
    for url in ("http://elsewhere", "http://127.0.0.1:3001"):
        with pytest.raises(ConfigurationError, match="no API key"):
            find_target(url, None, home, {})


def test_nothing_running_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="totalizer up"):
        find_target(None, None, tmp_path, {})


@pytest.mark.parametrize(
    "url", ["localhost:3000", "ftp://x", "http://", "http://u:p@x", "http://x:99999", "http://x?a"]
)
def test_an_address_that_cannot_be_is_refused(home: Path, url: Any) -> None:
    with pytest.raises(ConfigurationError):
        find_target(url, "k", home, {})


def test_a_key_that_could_change_the_request_is_refused(home: Path) -> None:
    with pytest.raises(ConfigurationError, match="no key has") as raised:
        find_target(None, "a\r\nX: y", home, {})
    assert "X: y" not in str(raised.value)


def test_a_damaged_state_file_is_named(home: Path) -> None:
    (home / "run" / "state.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"state\.json is damaged"):
        find_target(None, None, home, {})
