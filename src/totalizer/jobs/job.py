"""What a job is, and what its body is given when it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from psycopg import Connection

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError, TotalizerError
from totalizer.jobs.schedule import Schedule
from totalizer.settings import Settings
from totalizer.store.roles import Role
from totalizer.store.runs import Known, note_progress

#: Queues, so that long recomputing does not keep short upkeep waiting.
AGGREGATION, MAINTENANCE = "aggregation", "maintenance"
#: The part of a job's time after which it is told to stop; the rest is for stopping.
SOFT_PART = 11 / 12
#: Seconds between two notes of how far a run is.
PROGRESS_S = 2.0


class PartlyDone(TotalizerError):
    """A job could not do all of its work.

    Args:
        message: what it could not do, why, and what to do about it.
        result: what it did, as a job's body returns it.
    """

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


class Body(Protocol):
    """What a job does. Its docstring is the job's description."""

    __doc__: str | None

    def __call__(self, context: Context, /) -> dict[str, Any]:
        """Do it; returns what was done, as JSON can hold it. `rows` is how many were changed.

        Raises:
            PartlyDone: some of it could not be done; the run failed, and its result is kept all the same.
            Exception: the run failed.
        """
        ...


class Job(NamedTuple):
    """Something done again and again, or by hand.

    Attributes:
        name: what it is called everywhere.
        run: does it once.
        limit: after this a run's connections are ended; it is told to stop a little before.
        schedule: when; None for by hand only.
        queue: of Celery.
        enabled: False if its flag switches its schedule off.
        continuous: True for one that looks for work all the time: its runs are recorded by the hour, and it rests four
            times as long as it worked.
        arguments: those it can be given, with what they mean.
        required: those of them that it must be given.
    """

    name: str
    run: Body
    limit: timedelta
    schedule: Schedule | None
    queue: str = MAINTENANCE
    enabled: bool = True
    continuous: bool = False
    arguments: Mapping[str, str] = {}
    required: frozenset[str] = frozenset()

    @property
    def soft_limit(self) -> timedelta:
        """After this a run is told to stop, and its statements are cancelled."""
        return self.limit * SOFT_PART

    @property
    def description(self) -> str:
        """What it does, in a sentence."""
        return (self.run.__doc__ or "").partition("\n")[0]

    def known(self, now: datetime) -> Known:
        """Its line in the database's table of jobs."""
        following = self.schedule.after(now) if self.schedule and self.enabled and not self.continuous else None
        return Known(
            self.name, self.description, self.schedule.text if self.schedule else None, self.queue, self.soft_limit,
            self.limit, self.enabled, not self.required, following,
        )  # fmt: skip

    def check(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """The arguments that were given, as text.

        Raises:
            OperationError: it takes no such argument, or one is missing.
        """
        given = {name: str(value) for name, value in arguments.items() if value is not None}
        for name in given:
            if name not in self.arguments:
                known = ", ".join(self.arguments) or "none"
                raise OperationError(f"{self.name} takes no argument {name!r}; it takes {known}")
        if missing := sorted(self.required - given.keys()):
            raise OperationError(f"{self.name} needs the argument {missing[0]!r}: {self.arguments[missing[0]]}")
        return given


class Leash(Protocol):
    """What holds a run to its limits."""

    def check(self) -> None:
        """Nothing, as long as the run may go on.

        Raises:
            JobStopped: it may not.
        """
        ...

    def open(self, role: Role) -> Connection[Any]:
        """A further connection, which the limits hold too; closed at the end of the run. From any thread.

        Raises:
            JobStopped: the run's connections were ended.
        """
        ...


class Context:
    """What a body is given.

    Args:
        connection: as refresher, autocommit. It holds the job's lock: what is written over it is written by the one
            who may. A body that writes elsewhere has a fence of its own there; `run_id` grows from run to run.
        leash: holds it to its limits.
        run_id: the run's number.
        settings: of this process.
        arguments: what it was given, checked.
        scheduled_for: the moment of its schedule; None if it was asked for by hand.
        done_for: the last moment for which it was done before; None if for none.
        progress: shown how far the run is; None if nobody looks.
        clock: time source.
    """

    def __init__(
        self, connection: Connection[Any], leash: Leash, run_id: int, settings: Settings, *,
        arguments: Mapping[str, str], scheduled_for: datetime | None, done_for: datetime | None,
        progress: Callable[[int, int], None] | None = None, clock: Clock = SYSTEM_CLOCK,
    ) -> None:  # fmt: skip
        self.connection, self.run_id, self.settings = connection, run_id, settings
        self.arguments, self.scheduled_for, self.done_for = arguments, scheduled_for, done_for
        self.clock = clock
        self._leash, self._show = leash, progress
        self._noted_at = float("-inf")

    def check(self) -> None:
        """Nothing, as long as the run may go on. Call it between two pieces of work.

        Raises:
            JobStopped: it may not.
        """
        self._leash.check()

    def open(self, role: Role) -> Connection[Any]:
        """A further connection, autocommit, which the limits hold too; closed at the end of the run. From any thread.

        Raises:
            StoreUnavailable: the database cannot be reached.
            JobStopped: the run's connections were ended.
        """
        return self._leash.open(role)

    def progress(self, done: int, of: int) -> None:
        """Tell how far the run is, in pieces of any kind; between two transactions.

        Raises:
            JobStopped: it may not go on.
        """
        self.check()
        if self._show is not None:
            self._show(done, of)
        now = self.clock.monotonic()
        if now - self._noted_at >= PROGRESS_S:
            self._noted_at = now
            note_progress(self.connection, self.run_id, done, of)
