from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from totalizer.errors import ConfigurationError
from totalizer.ops.lifeline import LIFELINE_VARIABLE, Lifeline, watch_lifeline

CHILD = """
import os, signal, sys, threading
from totalizer.ops.lifeline import watch_lifeline
signal.signal(signal.SIGTERM, lambda *_: (print("asked to end", flush=True), os._exit(3)))
watch_lifeline()
grandchild = os.system("test -z \\"$TOTALIZER_LIFELINE_FD\\"")
print("inherited" if grandchild else "running", flush=True)
signal.pause()
"""


def test_a_child_is_asked_to_end_when_its_supervisor_is_gone() -> None:
    lifeline = Lifeline()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True, pass_fds=(lifeline.reading_end,),
        env={**os.environ, **lifeline.environment()},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "running\n"
    assert child.poll() is None
    lifeline.close()
    assert child.communicate(timeout=30)[0] == "asked to end\n"
    assert child.returncode == 3


def test_without_a_supervisor_there_is_nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIFELINE_VARIABLE, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    assert watch_lifeline() is None
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("value", ["x", "987654"])
def test_a_wrong_descriptor_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(LIFELINE_VARIABLE, value)
    with pytest.raises(ConfigurationError, match=value):
        watch_lifeline()
