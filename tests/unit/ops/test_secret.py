from __future__ import annotations

import threading
from pathlib import Path

import pytest

from totalizer.errors import ConfigurationError
from totalizer.ops.secret import ensure_secret, secret_path


@pytest.fixture(autouse=True)
def _no_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOTALIZER_SECRET", raising=False)


def test_it_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    first = ensure_secret(home)
    assert len(first) == 64
    assert ensure_secret(home) == first
    assert secret_path(home).stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in home.iterdir()] == ["secret"]


def test_two_installations_have_two_secrets(tmp_path: Path) -> None:
    assert ensure_secret(tmp_path / "a") != ensure_secret(tmp_path / "b")


def test_the_configured_one_wins_and_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTALIZER_SECRET", "from the environment")
    assert ensure_secret(tmp_path) == "from the environment"
    assert ensure_secret(tmp_path, "from the settings") == "from the settings"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TOTALIZER_SECRET is empty"):
        ensure_secret(tmp_path, "  ")
    secret_path(tmp_path).write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty; restore it"):
        ensure_secret(tmp_path)


def test_those_that_start_at_once_agree(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(ensure_secret(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
