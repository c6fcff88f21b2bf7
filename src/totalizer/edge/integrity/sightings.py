"""Where each entry was seen, so that one that is in two places is noticed, however many there are."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from types import TracebackType

import msgspec

from totalizer.edge.batch import Entry
from totalizer.edge.integrity.verdict import Finding, Level

#: Ids named in a finding; the rest is counted.
NAMED_MAX = 3
#: The kind of files that are the last place of their entries.
DELIVERED = "batch"

_encode = msgspec.json.Encoder(order="deterministic").encode


class _Relation(Enum):
    """What it means that an entry was seen before."""

    DIFFERS = "with other contents; find out which one counts, and give the other another id"
    TWICE = "so that who adds the files up counts them twice; a server counts them once. Remove one of the two"
    WITHIN = "more than once; they are counted once"
    UNFINISHED = "since its delivery is not finished, or was repeated; they are counted once"


class Sightings:
    """Remembers entries by id, in a temporary database of SQLite that goes to the disk when it grows large."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("CREATE TABLE seen (id BLOB PRIMARY KEY, contents BLOB, place INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")
        self._places: list[tuple[Path, str]] = []

    def see(self, path: Path, kind: str, entries: Iterable[Entry]) -> Iterator[Finding]:
        """Take note of a file's entries; what is wrong with those that were seen before.

        Args:
            path: of the file, or the journal's folder.
            kind: as `Verdict.kind`.
            entries: with their ids.
        """
        self._places.append((path, kind))
        met: dict[tuple[_Relation, Path], list[str]] = {}
        for entry in entries:
            found = self._meet(entry)
            if found is not None:
                met.setdefault(found, []).append(str(entry.get("id")))
        return (_finding(relation, other, ids) for (relation, other), ids in met.items())

    def close(self) -> None:
        """Give the memory back."""
        self._database.close()

    def __enter__(self) -> Sightings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _meet(self, entry: Entry) -> tuple[_Relation, Path] | None:
        """Note an entry; if it was there, in what way and where."""
        place = len(self._places) - 1
        key, contents = _digest(str(entry.get("id")).encode(errors="replace")), _digest(_encode(entry))
        insert = "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)"
        if self._database.execute(insert, (key, contents, place)).rowcount:
            return None
        row = self._database.execute("SELECT contents, place FROM seen WHERE id = ?", (key,)).fetchone()
        other = self._places[row[1]]
        if row[0] != contents:
            return _Relation.DIFFERS, other[0]
        if row[1] == place:
            return _Relation.WITHIN, other[0]
        twice = other[1] == self._places[place][1] == DELIVERED
        return (_Relation.TWICE if twice else _Relation.UNFINISHED), other[0]


def _finding(relation: _Relation, other: Path, ids: list[str]) -> Finding:
    level = Level.NOTE if relation is _Relation.UNFINISHED else Level.PROBLEM
    where = "in it" if relation is _Relation.WITHIN else f"in {other} too"
    what = "entry is" if len(ids) == 1 else "entries are"
    named = ", ".join(ids[:NAMED_MAX]) + (", …" if len(ids) > NAMED_MAX else "")
    return Finding(level, f"{len(ids)} {what} {where}, {relation.value} ({named})")


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
