"""The order of work of every import: skip what was done, read, batch, send, settle, remember."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from contextlib import closing

from totalizer.errors import OperationError
from totalizer.ops.importers.batch import Batch, Item, Refused, encode_item
from totalizer.ops.importers.checkpoint import Checkpoint, Mark
from totalizer.ops.importers.reading import Lines
from totalizer.ops.importers.report import Report, Tally
from totalizer.ops.importers.sender import IN_FLIGHT_MAX, Sender, StoppedError
from totalizer.ops.importers.source import Broken, Line, PrefixDigest, Source


def run_import(source: Source, sender: Sender, checkpoint: Checkpoint | None, report: Report) -> Tally:
    """Send all events of a source that have not been sent yet.

    Batches are settled in the order of the input, so the checkpoint never passes a line that is not acknowledged or
    quarantined. When the sender's stop is asked for, what was read is sent once more without retries, the place is
    saved and `report.interrupted` is set.

    Args:
        source: the input.
        sender: closed by the caller; of no more use when an error was raised.
        checkpoint: where the place is kept; None if the input cannot be read twice.
        report: gets every rejected line; finished here, whatever happens.

    Returns:
        the sums.

    Raises:
        OperationError: the input cannot be read further, the server refuses all or is away too long, or the disk of
            the data folder refuses. What was acknowledged until then is remembered.
    """
    run = _Run(source, sender, checkpoint, report)
    try:
        run.all()
    except StoppedError:
        report.notice("stopped; start the same import again to go on from here")
    finally:
        sender.stop.ask()
        report.interrupted = sender.stop.signalled
        run.remember()
        report.finish(source)
    return report.tally


class _Run:
    """One pass over a source."""

    def __init__(self, source: Source, sender: Sender, checkpoint: Checkpoint | None, report: Report) -> None:
        self._source, self._sender, self._checkpoint, self._report = source, sender, checkpoint, report
        self._digest = PrefixDigest()
        self._batch = Batch()
        self._under_way: deque[tuple[Batch, Future[list[Refused]] | None]] = deque()

    def all(self) -> None:
        """Read, send and settle everything, or what can be until a stop is asked for."""
        try:
            self._pump()
        except OperationError:
            # The input failed, or the sender did: then settling raises the same error at the same batch again.
            self._settle_all()
            raise
        self._settle_all()
        if self._sender.stop.asked:
            raise StoppedError
        if not self._report.tally.read and not self._report.tally.skipped:
            self._report.notice("nothing to import")

    def remember(self) -> None:
        """Make the quarantine and the place after the last settled batch durable, in this order."""
        self._report.quarantine.sync()
        if self._checkpoint is not None:
            self._checkpoint.save()

    def _pump(self) -> None:
        with closing(self._new_lines()) as lines:
            for line in lines:
                self._report.progress(self._source)
                if line is not None:
                    self._take(line)
                else:
                    # Nothing to read for a moment: what there is should not wait for more.
                    self._dispatch()
                    self._settle_done()
                if self._sender.stop.asked:
                    break
        self._dispatch()

    def _new_lines(self) -> Lines:
        """The lines after those an earlier run has dealt with."""
        lines = self._source.lines()
        mark = None if self._checkpoint is None else self._checkpoint.load()
        if mark is not None and not self._skip(lines, mark):
            self._report.notice("the input is not the one imported before, or has changed: starting over")
            lines.close()
            self._digest = PrefixDigest()
            lines = self._source.lines()
        with closing(lines):
            if not self._sender.stop.asked:
                yield from lines

    def _skip(self, lines: Lines, mark: Mark) -> bool:
        """Pass the lines before `mark`; False if they are not the same as then."""
        while self._digest.lines < mark.lines and not self._sender.stop.asked:
            try:
                line = next(lines)
            except StopIteration:
                return False
            self._report.progress(self._source)
            if line is not None:
                self._digest.add(line)
        if self._sender.stop.asked:
            return True
        same = self._digest.hexdigest() == mark.digest
        self._report.tally.skipped = mark.lines if same else 0
        return same

    def _take(self, line: Line) -> None:
        """Put a line into the batch, and the batch on its way when it is full."""
        self._report.tally.read += 1
        item = self._item(line)
        if isinstance(item, Broken):
            self._batch.add_broken(line, item.reason)
        else:
            if not self._batch.has_room_for(item, self._sender.events_max):
                self._dispatch()
            self._batch.add(item)
        if line.whole:
            self._digest.add(line)
        if self._batch.full_of_broken or len(self._batch.items) >= self._sender.events_max:
            self._dispatch()

    def _item(self, line: Line) -> Item | Broken:
        if line.damage is not None:
            return Broken(line.damage)
        event = self._source.read(line)
        if isinstance(event, Broken):
            return event
        try:
            return encode_item(event, line)
        except ValueError as error:
            return Broken(str(error))

    def _dispatch(self) -> None:
        """Put the batch on its way; block while there are too many."""
        if not self._batch:
            return
        batch, self._batch = self._batch, Batch()
        batch.mark = Mark(self._digest.lines, self._digest.hexdigest())
        self._under_way.append((batch, self._sender.submit(batch.items) if batch.items else None))
        while len(self._under_way) > IN_FLIGHT_MAX:
            self._settle_next()

    def _settle_all(self) -> None:
        while self._under_way:
            self._settle_next()

    def _settle_done(self) -> None:
        while self._under_way and ((future := self._under_way[0][1]) is None or future.done()):
            self._settle_next()

    def _settle_next(self) -> None:
        """Count the answer to the oldest batch; without an answer the batch stays the oldest."""
        batch, future = self._under_way[0]
        refused = [] if future is None else future.result()
        self._under_way.popleft()
        self._report.accepted(len(batch.items) - len(refused))
        counted = [(line, self._report.broken) for line in batch.broken]
        counted += [(line, self._report.refused) for line in refused]
        for line, count in sorted(counted, key=lambda each: each[0].line.number):
            count(self._source, line)
        if self._checkpoint is not None and batch.mark is not None:
            self._checkpoint.advance(batch.mark)
            if self._checkpoint.due():
                self.remember()
