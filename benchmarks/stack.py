"""A stack of one's own: `totalizer up` on a fresh folder, and nothing left of it in the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import OperationError
from totalizer.ops.down import bring_down
from totalizer.ops.embedded.folders import Folders
from totalizer.ops.log import tail
from totalizer.ops.reach import health
from totalizer.ops.state import read_state
from totalizer.settings import Settings, load_settings

#: Seconds that a start may take on a slow machine, and a stop.
START_SECONDS_MAX, STOP_SECONDS_MAX = 120.0, 90.0
#: Seconds that a client or a bare server may take to end.
CHILD_SECONDS_MAX = 10.0
#: Seconds between two looks at a stack that starts.
LOOK_SECONDS = 0.02
#: What would lead the stack to another database, folder, port or catalog. Other settings are honoured: so they can be
#: measured.
_LEADING_AWAY = (
    "DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD", "REDIS_URL", "TOTALIZER_SECRET",
    "TOTALIZER_HOME", "TOTALIZER_CATALOG", "HOST", "PORT",
)  # fmt: skip
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stack:
    """The embedded stack on one folder.

    Args:
        root: an empty folder; the log goes there, the data folder below.

    Attributes:
        home: the data folder.
        port: of the API.
    """

    def __init__(self, root: Path) -> None:
        self.home, self._log = root / "home", root / "up.log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> float:
        """Start it; returns the seconds until the API says that it is ready.

        Args:
            settings: by variable, weaker than the environment's.

        Raises:
            OperationError: it does not start.
        """
        started = SYSTEM_CLOCK.monotonic()
        with self._log.open("ab") as log:
            # A session of its own: a terminal's Ctrl-C comes to us alone, and we stop it in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "totalizer", "up", "--home", str(self.home), "--port", str(self.port)],
                cwd=self._log.parent, env=environment(settings), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        while health("127.0.0.1", self.port)[0] != 200:
            if self._process.poll() is not None or SYSTEM_CLOCK.monotonic() - started > START_SECONDS_MAX:
                raise OperationError(f"`totalizer up` did not get ready; it said:\n{tail(self._log)}")
            SYSTEM_CLOCK.sleep(LOOK_SECONDS)
        return SYSTEM_CLOCK.monotonic() - started

    def stop(self) -> None:
        """Stop everything and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        with undisturbed():
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            bring_down(self.home.resolve())  # what a supervisor that did not end by itself left behind

    def processes(self) -> list[psutil.Process]:
        """Every process of the running stack, the supervisor first."""
        assert self._process is not None, "the stack is not running"
        supervisor = psutil.Process(self._process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def settings(self) -> Settings:
        """Settings that lead to this stack's database, whatever the environment says."""
        state = read_state(self.home)
        if state is None or state.dsn is None:
            raise OperationError(f"the stack on {self.home} does not say where its database is")
        secret = (self.home / "secret").read_text("utf-8").strip()
        return load_settings(
            TOTALIZER_HOME=self.home, DATABASE_URL=state.dsn, TOTALIZER_SECRET=secret, TOTALIZER_CATALOG=""
        )

    def api_key(self) -> str:
        """The key that the first start made."""
        return (self.home / "api-key").read_text("utf-8").strip()


@contextmanager
def fresh_stack(**settings: str) -> Iterator[Stack]:
    """A stack that has just been started in a temporary folder (TMPDIR); in the end it is stopped and removed.

    Args:
        settings: by variable, weaker than the environment's.
    """
    root = Path(tempfile.mkdtemp(prefix="totalizer-bench-"))
    stack = Stack(root)
    try:
        stack.start(**settings)
        yield stack
    finally:
        with undisturbed():
            stack.stop()
            shutil.rmtree(Folders.of(stack.home).runtime, ignore_errors=True)  # outside `root` if that is a long path
            shutil.rmtree(root)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Finish this whatever signals come: an impatient Ctrl-C must not leave servers behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """End a child that was started in a session of its own, with its children, and wait for it."""
    with undisturbed():
        process.terminate()
        try:
            process.wait(CHILD_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """That of a server: what is given here is weaker than what this process has, but for what would lead away."""
    given = {name: value for name, value in os.environ.items() if name.upper() not in _LEADING_AWAY}
    # What is measured is the server, not how soon it says that it is enough.
    return {"RATE_LIMIT_MAX_REQUESTS": "0", **settings, **given}
