"""Where a running stack can be reached: written by `totalizer up`, read by the other commands."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from totalizer.ops.process import ProcessId
from totalizer.ops.record import read_json, write_private


@dataclass(frozen=True)
class State:
    """What runs on a data folder. Holds no password.

    Attributes:
        pid: process id of `totalizer up`.
        created: its creation time, in seconds since 1970-01-01 UTC.
        started_at: when it was started, UTC text.
        url: base of page and API, for example `http://127.0.0.1:3000`.
        dsn: the database without user and password when it is the embedded one; None for one from the environment.
        redis_url: the embedded Valkey; None for one from the environment.
        pids: process ids by name: postgres, valkey, api, loader, scheduler, monitor.
    """

    pid: int
    created: float
    started_at: str
    url: str
    dsn: str | None
    redis_url: str | None
    pids: dict[str, int] = field(default_factory=dict)

    def running(self) -> bool:
        """True while the `totalizer up` that wrote this runs."""
        return ProcessId(self.pid, self.created).running()


def state_path(home: Path) -> Path:
    """The file that holds the state."""
    return home / "run" / "state.json"


def write_state(home: Path, state: State) -> None:
    """Replace the state of the stack on `home`; mode 0600."""
    write_private(state_path(home), json.dumps(asdict(state), indent=2) + "\n")


def remove_state(home: Path) -> None:
    """Forget the state: nothing runs."""
    state_path(home).unlink(missing_ok=True)


def read_state(home: Path) -> State | None:
    """What was last started on `home` and not stopped; None if nothing. Ask `running()` whether it still runs.

    Raises:
        OperationError: the file belongs to another user.
    """
    value = read_json(state_path(home))
    try:
        return None if value is None else State(**value)
    except TypeError:  # written by another version: its processes are still found by their own records
        return None
