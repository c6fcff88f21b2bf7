"""What an import tells: how far it is, what went wrong, and the sums at its end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.ops.importers.batch import Refused
from totalizer.ops.importers.display import Display
from totalizer.ops.importers.quarantine import Quarantine
from totalizer.ops.importers.source import Source

#: Problems shown one by one; the rest are counted.
SHOWN_MAX = 10


class Outcome(Enum):
    """How an import ended; the value is the exit status."""

    ALL_ACCEPTED = 0
    SOME_REJECTED = 1
    INTERRUPTED = 130


@dataclass
class Tally:
    """Sums of one import.

    Attributes:
        skipped: lines an earlier run had dealt with.
        read: lines read after those.
        accepted: events the server accepted, those it had already included.
        broken: lines that are no event.
        refused: events the server did not accept.
        seconds: how long it took.
    """

    skipped: int = 0
    read: int = 0
    accepted: int = 0
    broken: int = 0
    refused: int = 0
    seconds: float = 0.0

    @property
    def rejected(self) -> int:
        """Lines that were not counted; all are in the quarantine file."""
        return self.broken + self.refused

    @property
    def events_per_s(self) -> float:
        """Accepted events a second."""
        return self.accepted / self.seconds if self.seconds > 0 else 0.0


class Report:
    """Counts, shows and quarantines. For one import and one thread; only `notice` may be called from others.

    Args:
        quarantine: where rejected lines go.
        display: where progress and sentences go.
        clock: for the duration.
    """

    def __init__(self, quarantine: Quarantine, display: Display, clock: Clock = SYSTEM_CLOCK) -> None:
        self.tally = Tally()
        self.quarantine = quarantine
        self.interrupted = False
        self._display = display
        self._clock = clock
        self._started_at = clock.monotonic()

    @property
    def outcome(self) -> Outcome:
        """How it ended, as far as it is known now."""
        if self.interrupted:
            return Outcome.INTERRUPTED
        return Outcome.SOME_REJECTED if self.tally.rejected else Outcome.ALL_ACCEPTED

    def accepted(self, count: int) -> None:
        """Count events the server accepted."""
        self.tally.accepted += count

    def broken(self, source: Source, line: Refused) -> None:
        """Quarantine a line that is no event."""
        self.tally.broken += 1
        self._reject(source, line)

    def refused(self, source: Source, line: Refused) -> None:
        """Quarantine an event the server did not accept."""
        self.tally.refused += 1
        self._reject(source, line)

    def notice(self, sentence: str) -> None:
        """Tell the user something that needs no answer."""
        self._display.say(sentence)

    def progress(self, source: Source) -> None:
        """Show how far it is. Cheap: most calls show nothing."""
        if self._display.due():
            self.tally.seconds = self._clock.monotonic() - self._started_at
            self._display.show(source.progress(), self.tally.accepted, self.tally.events_per_s, self.tally.rejected)

    def finish(self, source: Source) -> None:
        """Make the quarantine durable and show the sums."""
        self.quarantine.close()
        self.tally.seconds = self._clock.monotonic() - self._started_at
        tally = self.tally
        if tally.rejected > SHOWN_MAX:
            self.notice(f"… and {tally.rejected - SHOWN_MAX} more")
        for note in source.notes:
            self.notice(note)
        place = f"rejected lines are in {self.quarantine.file}" if tally.rejected else None
        self._display.summary(self._rows(source), place)

    def _reject(self, source: Source, line: Refused) -> None:
        self.quarantine.add(*line)
        if self.tally.rejected <= SHOWN_MAX:
            self.notice(f"{source.noun} {line.line.number}: {line.reason}")

    def _rows(self, source: Source) -> list[tuple[str, str]]:
        tally = self.tally
        return [
            (f"{source.noun}s read", f"{tally.read:,}"),
            ("accepted", f"{tally.accepted:,}"),
            ("rejected", f"{tally.rejected:,}"),
            ("skipped, done before", f"{tally.skipped:,}"),
            ("seconds", f"{tally.seconds:.1f}"),
            ("events/s", f"{tally.events_per_s:,.0f}"),
        ]
