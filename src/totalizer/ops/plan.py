"""What `totalizer up` shall do, settled before the supervisor starts: it is a process of its own that stays small."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from totalizer.errors import ConfigurationError
from totalizer.ops.program import Command

#: The variable in which the command line hands the plan to the supervisor. It holds no secret.
PLAN_VARIABLE = "TOTALIZER_UP_PLAN"


@dataclass(frozen=True)
class UpPlan:
    """One start of the stack.

    Attributes:
        home: absolute data folder.
        host: address the API listens on.
        port: its TCP port.
        own_database: False if the environment names a PostgreSQL to use.
        own_redis: False if it names a Redis to use.
        scheduler: False if something else runs the jobs.
        max_connections: of the embedded PostgreSQL.
        log_level: debug, info, warning or error.
        log_format: auto, json or console.
        log_bytes, log_files: as `Rotation` has them.
        debug: True to show the traceback of an error.
        leftover_seconds: how long a program that a killed supervisor left may take to end by itself.
        program: what comes before a subcommand's name on a child's command line.
    """

    home: str
    host: str
    port: int
    own_database: bool = True
    own_redis: bool = True
    scheduler: bool = True
    max_connections: int = 60
    log_level: str = "info"
    log_format: str = "auto"
    log_bytes: int = 10 << 20
    log_files: int = 4
    debug: bool = False
    leftover_seconds: float = 20.0
    program: tuple[str, ...] = (sys.executable, "-m", "totalizer")

    @property
    def folder(self) -> Path:
        """The data folder."""
        return Path(self.home)

    def encode(self) -> str:
        """The plan as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> UpPlan:
        """The plan that the command line left, taken out of the environment.

        Raises:
            ConfigurationError: there is none.
        """
        text = os.environ.pop(PLAN_VARIABLE, None)
        if text is None:
            raise ConfigurationError("the supervisor is started by `totalizer up`")
        value = json.loads(text)
        return cls(**{**value, "program": tuple(value["program"])})

    def setup_commands(self) -> list[Command]:
        """What has to succeed, in this order, before the programs start."""
        migrate = ("migrate",) if self.own_database else ("migrate", "--wait")
        commands = [Command("migrate", (*self.program, *migrate))]
        if not (self.folder / "api-key").exists():
            commands.append(Command("bootstrap", (*self.program, "keys", "bootstrap")))
        return commands

    def programs(self) -> list[Command]:
        """The long-running children, in the order in which they are started; stopped in reverse."""
        scheduler = [Command("scheduler", (*self.program, "scheduler"), stop_seconds=15.0)] if self.scheduler else []
        return [
            # First, and so the last to stop: it tells what becomes of the others.
            Command("monitor", (*self.program, "monitor"), stop_seconds=15.0),
            *scheduler,
            # The loader stores what it has read before it ends.
            Command("loader", (*self.program, "load"), stop_seconds=20.0),
            Command("api", (*self.program, "serve"), stop_seconds=15.0),
        ]
