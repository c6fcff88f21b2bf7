"""Dead letters dropped: written to a file first, so that nothing is lost."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg import Connection

from totalizer.load.copy_text import values_of
from totalizer.load.drop_file import DropFile
from totalizer.store import audit, dead_letters, fates
from totalizer.store.dead_letters import DeadLetter
from totalizer.store.fates import Fate, Fates

#: Letters written, synced and deleted in one transaction. A letter has up to some megabytes.
BATCH_LETTERS = 100


def letter_record(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as JSON can hold it: `line` is base64 of its bytes, `values` what its columns would have got."""
    record = letter._asdict()
    record["line"] = base64.b64encode(letter.line).decode()
    return {**record, "values": values_of(letter.columns, letter.line)}


def drop_letters(connection: Connection[Any], ids: Sequence[int], file: Path) -> Iterator[int]:
    """Move dead letters into a new file of JSON lines, and count them as dropped.

    A letter is deleted after its line in the file is on disk. Whoever is killed between leaves it in both places, and
    not in none.

    Args:
        connection: as writer, autocommit.
        ids: the letters' numbers. Those that are not there any more are passed over.
        file: made, readable by this user only; its folder must exist.

    Yields:
        How many letters were dropped by each transaction.

    Raises:
        OperationError: the file exists already, or the disk refuses; letters not reported as dropped are still there.
        psycopg.Error: the database is to blame; so it is then, too.
    """
    with DropFile(file) as kept:
        for start in range(0, len(ids), BATCH_LETTERS):
            with connection.transaction():
                letters = dead_letters.lock_letters(connection, ids[start : start + BATCH_LETTERS])
                kept.append([letter_record(letter) for letter in letters])
                drop_locked(connection, letters)
            yield len(letters)


def drop_locked(connection: Connection[Any], letters: Sequence[DeadLetter]) -> None:
    """Delete letters and count them as dropped.

    Args:
        connection: as writer, in the transaction that has locked them.
        letters: whose contents are kept elsewhere, or are not wanted any more.
    """
    dead_letters.delete_letters(connection, [letter.id for letter in letters])
    audit.note_dropped(connection, "dead_letter.drop", letters)
    found: Fates = {}
    for letter in letters:
        if letter.in_ledger:
            found[letter.account] = found.get(letter.account, Fate()) + Fate(dead_lettered=-1, dropped=1)
            fates.settle_letter(connection, letter.id, "dropped")
    fates.add_ledger(connection, found)
