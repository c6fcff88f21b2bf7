"""Batches that were given up: kept with the reasons, and put back when somebody asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from totalizer.clock import Clock
from totalizer.edge.batch import Entry, FailedBatch, RefusedEntry
from totalizer.edge.daemon.lock import LOCK_WAIT_S, Busy, recovery_lock
from totalizer.edge.daemon.log import Log
from totalizer.edge.daemon.scan import load_failed
from totalizer.edge.folder import Folders, remove_file, write_file
from totalizer.errors import BatchFileDamaged, BatchVersionUnknown, DaemonError


def keep_abandoned(failed: FailedBatch, folders: Folders, bytes_max: int) -> Path:
    """Write an abandoned batch durably; what an earlier file of the same batch holds is kept with it.

    Args:
        failed: with `abandoned_at`, and its refusals' indexes within its entries.
        folders: where to.
        bytes_max: an earlier file that is larger is left alone, and this one gets a further name.

    Returns:
        The file, which survives a power loss.

    Raises:
        OSError: the disk refuses.
    """
    path = folders.abandoned / failed.file_name
    number = 1
    while True:
        try:
            earlier = load_failed(path, bytes_max)
        except FileNotFoundError:
            break
        except (BatchFileDamaged, BatchVersionUnknown):  # not ours to mend; people look at this folder
            number += 1
            path = folders.abandoned / failed.file_name.replace(".abandoned", f".{number}.abandoned")
            continue
        failed = merged(earlier, failed)
        break
    write_file(path, failed.encode())
    return path


def put_back(path: Path, abandoned: FailedBatch, folders: Folders, bytes_max: int) -> None:
    """Make an abandoned batch a failed one that is due at once and has all its attempts before it.

    Args:
        path: its file.
        abandoned: what was read from that.
        folders: where to.
        bytes_max: a failed file of the same batch that is larger is not read.

    Raises:
        BatchFileDamaged, BatchVersionUnknown: a failed file of the same batch cannot be read; nothing was done.
        OSError: the disk refuses. Then the batch may be in both places, and putting it back again is safe.
    """
    failed = replace(abandoned, refusals=())
    target = folders.recovery / replace(failed, abandoned_at=None).file_name
    with contextlib.suppress(FileNotFoundError):  # a part of the batch may still wait
        failed = merged(load_failed(target, bytes_max), failed)
    failed = replace(failed, retry_count=0, next_retry_at=None, abandoned_at=None, refusals=(), file_path=str(target))
    write_file(target, failed.encode())
    remove_file(path)


def put_all_back(
    folders: Folders, batch_ids: Iterable[str] | None, bytes_max: int, clock: Clock, log: Log
) -> list[str]:  # fmt: skip
    """Put abandoned batches back.

    Args:
        folders: where they lie.
        batch_ids: which; None for all.
        bytes_max: larger files are not read.
        clock: for waiting.
        log: is told of each, and of those that are left since they cannot be read.

    Returns:
        The ids of those that were put back, each once.

    Raises:
        DaemonError: another process is busy with failed batches, and does not end.
        OSError: the disk refuses.
    """
    wanted = None if batch_ids is None else set(batch_ids)
    done: dict[str, None] = {}
    for path in folders.abandoned_files():
        try:
            with recovery_lock(folders, clock, LOCK_WAIT_S):
                abandoned = load_failed(path, bytes_max)
                if wanted is None or abandoned.batch_id in wanted:
                    put_back(path, abandoned, folders, bytes_max)
                    done[abandoned.batch_id] = None
                    log.info("batch_requeued", file=str(path))
        except FileNotFoundError:
            continue  # somebody was faster
        except (BatchFileDamaged, BatchVersionUnknown) as error:
            log.warning("batch_left", file=str(path), reason=str(error))
        except Busy:
            raise DaemonError("another process is busy with failed batches; try again") from None
    return list(done)


def merged(earlier: FailedBatch, later: FailedBatch) -> FailedBatch:
    """The later record of a batch with the entries of both, each once, and what was said about them."""
    entries = list(earlier.batch.entries)
    places = {_id(entry): place for place, entry in enumerate(entries)}
    for entry in later.batch.entries:
        if _id(entry) not in places:
            places[_id(entry)] = len(entries)
            entries.append(entry)
    refusals = {refusal.index: refusal for refusal in earlier.refusals}
    for refusal in later.refusals:
        place = places[_id(later.batch.entries[refusal.index])]
        refusals[place] = replace(refusal, index=place)
    batch = replace(later.batch, entries=tuple(entries))
    return replace(later, batch=batch, refusals=tuple(refusals[place] for place in sorted(refusals)))


def renumbered(refusals: Iterable[RefusedEntry], indexes: list[int]) -> tuple[RefusedEntry, ...]:
    """Refusals by their places in the batch that has only the entries at `indexes`."""
    place_of = {index: place for place, index in enumerate(indexes)}
    return tuple(replace(one, index=place_of[one.index]) for one in refusals if one.index in place_of)


def _id(entry: Entry) -> str:
    return str(entry["id"])
