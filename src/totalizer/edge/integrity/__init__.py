"""Whether everything the batching library keeps on the disk is whole, private and in one place only."""

from __future__ import annotations

from collections.abc import Iterator

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.edge.folder import Folders
from totalizer.edge.integrity.files import FileCheck
from totalizer.edge.integrity.journals import journal_verdicts
from totalizer.edge.integrity.sightings import Sightings
from totalizer.edge.integrity.verdict import Finding, Level, Verdict
from totalizer.errors import EdgeError

__all__ = ["Finding", "Level", "Verdict", "verdicts"]


def verdicts(folders: Folders, *, full: bool = False, clock: Clock = SYSTEM_CLOCK) -> Iterator[Verdict]:
    """A verdict for every folder, file and journal of a data folder. Safe while aggregators and a daemon work on it.

    Files that are delivered or removed meanwhile are passed over. Memory stays small, however many entries there are.

    Args:
        folders: where everything is.
        full: also hold every entry against what an aggregator takes, and the waiting ones against the files.
        clock: for what is in the future.

    Raises:
        EdgeError: there is no data folder.
        OSError: a folder cannot be listed.
    """
    if not folders.data.is_dir():
        raise EdgeError(f"{folders.data} does not exist; name the folder of the batch files with --data-path")
    with Sightings() as sightings:
        # Journals first: what leaves them while this runs is met in a file, and not missed.
        yield from journal_verdicts(folders.journal, sightings, full=full)
        yield from FileCheck(folders, sightings, full=full, clock=clock).verdicts()
