"""What both embedded servers share: start or take over, look after, end more and more firmly."""

from __future__ import annotations

import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError
from totalizer.ops.embedded.folders import Folders
from totalizer.ops.log import LOG, open_log, tail
from totalizer.ops.process import ProcessId, wait_patiently, wait_until
from totalizer.ops.record import RunRecord, forget
from totalizer.ops.signals import never

#: Seconds a server may take until it answers. Recovery after a power cut reads up to 4 GB of log.
START_SECONDS_MAX = 600.0


class EmbeddedServer(ABC):
    """A server process on a data folder: `with` starts and stops it.

    `start` blocks until the server answers and may raise OperationError; `stop` blocks until it has ended, within the
    sum of its steps; `alive` never blocks. One that a killed supervisor left behind is taken over if it was started
    with the same configuration, else stopped and started again.

    Args:
        home: data folder; made when missing.
        clock: time source.
    """

    #: Name in messages, records and of the log.
    name: str
    #: Signals and seconds to stop it, the gentlest first.
    stop_steps: tuple[tuple[signal.Signals, float], ...]

    def __init__(self, home: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.folders = Folders.of(home)
        self.log_path = self.folders.logs / f"{self.name}.log"
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._process: ProcessId | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it is started."""
        return None if self._process is None else self._process.pid

    def alive(self) -> bool:
        """True while the server process runs."""
        if self._child is not None:
            return self._child.poll() is None
        return self._process is not None and self._process.running()

    def start(self, cancelled: Callable[[], bool] = never) -> None:
        """Start the server, or take over the one that runs, and wait until it answers.

        Args:
            cancelled: asked while waiting; True ends the wait.

        Raises:
            OperationError: it cannot be started (with the end of its log), or the wait was cancelled.
        """
        self.folders.make()
        self._prepare()
        if not self._take_over():
            self._before_launch()
            self._launch()
        try:
            self._await_ready(cancelled)
        except BaseException:
            self.stop(hurried=lambda: True)
            raise

    def _take_over(self) -> bool:
        """True if one runs already and can be kept; one that cannot is stopped."""
        found = self._find_running()
        if found is None:
            return False
        record = RunRecord.read(self.folders.run, self.name)
        self._process, self._child = found, None
        if record is not None and record.process.pid == found.pid and record.fingerprint == self._fingerprint():
            LOG.info("%s still runs as pid %d: taking it over", self.name, found.pid)
            return True
        LOG.info("%s still runs as pid %d with another configuration: stopping it", self.name, found.pid)
        self.stop()
        return False

    def _launch(self) -> None:
        with open_log(self.log_path) as log:
            try:
                self._child = subprocess.Popen(
                    self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    **self._launch_options(),
                )  # fmt: skip
            except OSError as error:
                raise OperationError(f"cannot run {self._command()[0]}: {error}") from error
        self._process = ProcessId.of(self._child.pid)
        if self._process is not None:
            RunRecord(self._process, self._fingerprint()).write(self.folders.run, self.name)

    def _await_ready(self, cancelled: Callable[[], bool]) -> None:
        answered = False

        def settled() -> bool:
            nonlocal answered
            answered = self.answers()
            return answered or cancelled() or not self.alive()

        wait_until(settled, START_SECONDS_MAX, self._clock)
        if answered:
            return
        if cancelled():
            raise OperationError(f"the start of {self.name} was interrupted")
        what = f"did not answer within {START_SECONDS_MAX:.0f} s" if self.alive() else "ended while starting"
        raise OperationError(f"{self.name} {what}; {self.log_path} ends with:\n{tail(self.log_path)}")

    def stop(self, hurried: Callable[[], bool] = never) -> None:
        """Stop the server, gently first; does nothing if it does not run.

        Args:
            hurried: asked while waiting; True shortens every wait to one second.
        """
        for number, seconds in self.stop_steps:
            if not self.alive():
                break
            self._send(number)
            if not wait_patiently(lambda: not self.alive(), seconds, hurried, self._clock):
                LOG.warning("%s did not end on %s", self.name, number.name)
        self._child = self._process = None
        self._after_stop()
        forget(self.folders.run, self.name)
        self.folders.clean()

    def stop_if_running(self) -> bool:
        """Stop the server that runs on this folder, whoever started it; True if there was one."""
        self._process, self._child = self._find_running(), None
        if self._process is None:
            return False
        self.stop()
        return True

    def exit_text(self) -> str:
        """That it ended, with the end of its log."""
        return f"{self.name} ended unexpectedly; {self.log_path} ends with:\n{tail(self.log_path)}"

    def _send(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(number)
        elif self._process is not None:
            self._process.send(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def answers(self) -> bool:
        """True if the server takes requests now; never blocks for more than a second."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make folders and configuration, whether or not the server runs."""

    @abstractmethod
    def _find_running(self) -> ProcessId | None:
        """The server that runs on this folder now, whoever started it."""

    @abstractmethod
    def _before_launch(self) -> None:
        """Clear what a dead server left behind."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Program and arguments."""

    @abstractmethod
    def _launch_options(self) -> dict[str, Any]:
        """Further arguments for subprocess."""

    @abstractmethod
    def _fingerprint(self) -> str:
        """Digest of program and configuration."""

    @abstractmethod
    def _after_stop(self) -> None:
        """Clear what this server leaves behind when it was killed."""
