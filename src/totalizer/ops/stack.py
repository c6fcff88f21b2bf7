"""All that `totalizer up` runs, in the order in which it is started and, reversed, stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from totalizer.clock import SYSTEM_CLOCK, Clock, utc_text
from totalizer.errors import OperationError
from totalizer.ops.embedded import EmbeddedPostgres, EmbeddedValkey
from totalizer.ops.embedded.server import EmbeddedServer
from totalizer.ops.lifeline import Lifeline
from totalizer.ops.log import LOG, tail
from totalizer.ops.plan import UpPlan
from totalizer.ops.process import ProcessId
from totalizer.ops.program import Command, Program, end_leftover
from totalizer.ops.reach import health, local_url
from totalizer.ops.secret import ensure_secret
from totalizer.ops.signals import StopRequest
from totalizer.ops.state import State, remove_state, write_state
from totalizer.ops.supervisor import Service

#: Seconds that the API may take until it says that it is ready.
READY_SECONDS_MAX = 90.0
#: Seconds between two questions to it, and between two looks at a command.
ASK_SECONDS = 0.05
#: Seconds between two words about a command that takes long.
TELL_SECONDS = 3.0
#: Names of the children whose leftovers are looked for.
CHILD_NAMES = ("api", "loader", "scheduler", "monitor", "migrate", "bootstrap")


class Stack:
    """The servers and programs of one data folder.

    Args:
        plan: what to start.
        stop: asked for by a signal; ends every wait.
        tell: shows a line to the person who started it.
        clock: time source.
    """

    def __init__(
        self, plan: UpPlan, stop: StopRequest, tell: Callable[[str], None], *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.plan = plan
        self.lifeline = Lifeline()
        self.servers: list[EmbeddedServer] = []
        self.programs: list[Program] = []
        self._stop, self._tell, self._clock = stop, tell, clock
        self._started_at = utc_text(clock.now_ns())
        self._postgres: EmbeddedPostgres | None = None
        self._valkey: EmbeddedValkey | None = None

    @property
    def services(self) -> list[Service]:
        """Everything, what others need first."""
        return [*self.servers, *self.programs]

    def start(self) -> None:
        """Start everything and wait until the API is ready.

        Raises:
            OperationError: something did not start, or stopping was asked for meanwhile. Call `stop_all` then.
        """
        for name in ("run", "log"):
            (self.plan.folder / name).mkdir(mode=0o700, exist_ok=True)
        self._make_servers()
        self._start_servers()
        for command in self.plan.setup_commands():
            self._run_to_end(command)
        self.programs = [self._program(command) for command in self.plan.programs()]
        for program in self.programs:
            program.start()
        self.keep_state()
        self._await_ready()

    def _make_servers(self) -> None:
        if self.plan.own_database:
            self._postgres = EmbeddedPostgres(
                self.plan.folder, ensure_secret(self.plan.folder), max_connections=self.plan.max_connections
            )
            self.servers.append(self._postgres)
        else:
            ensure_secret(self.plan.folder)
        if self.plan.own_redis:
            self._valkey = EmbeddedValkey(self.plan.folder)
            self.servers.append(self._valkey)

    def _start_servers(self) -> None:
        """Both at once; the first error is raised when both have come to an end."""
        if not self.servers:
            return
        with ThreadPoolExecutor(len(self.servers), "start") as pool:
            starts = [pool.submit(server.start, self._stop.asked) for server in self.servers]
        for start in starts:
            start.result()
        self._refuse_if_asked()

    def _environment(self) -> dict[str, str]:
        """What the children need to know; no secret: they read it from the data folder themselves."""
        environment = {"TOTALIZER_HOME": self.plan.home, "HOST": self.plan.host, "PORT": str(self.plan.port)}
        if self._postgres is not None:
            environment["DATABASE_URL"] = self._postgres.url
        if self._valkey is not None:
            environment["REDIS_URL"] = self._valkey.url
        return environment

    def _program(self, command: Command) -> Program:
        command = replace(command, environment={**command.environment, **self._environment()})
        return Program(command, self.plan.folder, self.lifeline, clock=self._clock)

    def _run_to_end(self, command: Command) -> None:
        program = self._program(command)
        try:
            program.start()
            self._await_end(program)
            self._refuse_if_asked()
            if program.exit_code() != 0:
                raise OperationError(program.exit_text())
        finally:
            program.stop(self._stop.hurried)

    def _await_end(self, program: Program) -> None:
        """Wait for a command; tell now and then what it last said."""
        tell_at = self._clock.monotonic() + TELL_SECONDS
        while program.alive() and not self._stop.wait(ASK_SECONDS):
            if self._clock.monotonic() >= tell_at:
                self._tell(f"still waiting for {program.name}: {tail(program.log_path, lines=1)}")
                tell_at = self._clock.monotonic() + TELL_SECONDS

    def _await_ready(self) -> None:
        deadline = self._clock.monotonic() + READY_SECONDS_MAX
        status, answer = 0, ""
        while self._clock.monotonic() < deadline:
            for program in self.programs:
                if not program.alive():
                    raise OperationError(program.exit_text())
            status, answer = health(self.plan.host, self.plan.port)
            if status == 200:
                return
            self._stop.wait(ASK_SECONDS)
            self._refuse_if_asked()
        said = f"status {status}: {answer}" if status else answer
        logs = "\n".join(f"{program.log_path} ends with:\n{tail(program.log_path)}" for program in self.programs)
        raise OperationError(f"the API was not ready within {READY_SECONDS_MAX:.0f} s ({said})\n{logs}")

    def _refuse_if_asked(self) -> None:
        if self._stop.asked():
            raise OperationError("the start was interrupted")

    def keep_state(self) -> None:
        """Write down what runs where, for the other commands."""
        me = ProcessId.of(os.getpid())
        assert me is not None
        write_state(self.plan.folder, self.state(me))

    def state(self, me: ProcessId) -> State:
        """What runs where now."""
        return State(
            pid=me.pid,
            created=me.created,
            started_at=self._started_at,
            url=local_url(self.plan.host, self.plan.port),
            dsn=None if self._postgres is None else self._postgres.url,
            redis_url=None if self._valkey is None else self._valkey.url,
            pids={service.name: service.pid for service in self.services if service.pid is not None},
        )

    def stop_all(self) -> None:
        """Stop everything in reverse order; one that cannot be stopped does not keep the others running.

        Raises:
            OperationError: naming what could not be stopped.
        """
        failures = []
        for service in reversed(self.services):
            try:
                service.stop(self._stop.hurried)
                LOG.info("%s has stopped", service.name)
            except (OSError, OperationError) as error:
                LOG.error("%s could not be stopped: %s", service.name, error)
                failures.append(f"{service.name}: {error}")
        self.lifeline.close()
        remove_state(self.plan.folder)
        if failures:
            raise OperationError("could not stop " + "; ".join(failures))


def end_leftovers(home: Path, seconds: float = 20.0) -> list[str]:
    """End the programs that a killed supervisor left on a data folder; returns their names.

    Args:
        home: absolute data folder, held by this process.
        seconds: how long each may take to end by itself.
    """
    return [name for name in CHILD_NAMES if end_leftover(home, name, seconds)]
