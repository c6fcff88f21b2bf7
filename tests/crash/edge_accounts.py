"""What the batching library must have kept, found by reading its folders after everything has been put right."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from crash.oracle import Known, Verdict, judge
from totalizer.edge import SmartBatchAggregator
from totalizer.edge.batch import decode_batch_file, decode_failed_file
from totalizer.edge.folder import Folders
from totalizer.edge.status import waiting
from totalizer.errors import BatchFileDamaged


def entry_of(name: str) -> dict[str, Any]:
    """The entry called `name`: every member follows from it. Some are longer than a page."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {
        "id": name,
        "userId": f"user {digest[:2]}",
        "action": "edit",
        "timestamp": 1_757_000_000_000 + int(digest[:4], 16),
        "metadata": {"digest": digest, "filling": digest[:7] * (int(digest[5:7], 16) ** 2 // 200)},
    }


def put_right(folders: Folders) -> list[str]:
    """What the next processes do: deliver what waits, try failed batches again. What would not be put right."""
    left = []
    with SmartBatchAggregator(data_path=folders.data, flush_on_sigterm=False) as aggregator:
        aggregator.flush()
        aggregator.adopt()
        for path in folders.failed_files():
            if aggregator.process_batch(decode_failed_file(path.read_bytes(), path.name).batch).success:
                path.unlink()
            else:
                left.append(f"not delivered: {path.name}")
    return left + [f"waits still: {status}" for status in waiting(folders) if status.waiting or status.error]


def judge_folders(folders: Folders, known: Known) -> Verdict:
    """Every entry in delivered files, after everything was put right, against what is known."""
    books = put_right(folders)
    books += [f"left: {path.name}" for path in _strays(folders)]
    found = []
    for path in folders.batch_files():
        try:
            entries = decode_batch_file(path.read_bytes(), path.name).entries
        except BatchFileDamaged as error:
            books.append(str(error))
        else:
            found += [(str(each["id"]), each) for each in entries]
    verdict = judge(known, found, entry_of)
    return Verdict(verdict.lost, verdict.doubled, verdict.altered, verdict.invented, tuple(books))


def _strays(folders: Folders) -> list[Path]:
    """Drafts, and files that could not be read."""
    return [*folders.data.rglob(".*.tmp"), *folders.errors.iterdir(), *folders.abandoned_files()]
