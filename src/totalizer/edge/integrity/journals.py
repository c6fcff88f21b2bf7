"""The journals of waiting entries: whether they can be read, what was damaged in them, what waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from totalizer.edge.batch import Entry
from totalizer.edge.integrity.sightings import Sightings
from totalizer.edge.integrity.verdict import Finding, Verdict, notes, problems
from totalizer.edge.records import ENTRY, ENTRY_HEADER_BYTES, Fold
from totalizer.errors import JournalFailed
from totalizer.journal import BEGINNING, Damage, JournalReader, Record, journals_in, quarantined

#: Records and bytes read at once.
_RECORDS_MAX, _READ_BYTES_MAX = 4096, 1 << 20

_decode = msgspec.json.Decoder(dict[str, object]).decode


def journal_verdicts(root: Path, sightings: Sightings, *, full: bool) -> Iterator[Verdict]:
    """A verdict for each journal below a folder.

    Args:
        root: folder of the journals; it may be missing.
        sightings: of the entries of all files.
        full: read them whole, and hold what waits in them against the files.
    """
    try:
        folders = journals_in(root)
    except JournalFailed as error:
        yield Verdict(root, "journal", 0, tuple(problems([str(error)])))
        return
    for folder in folders:
        yield _verdict(folder, sightings, full)


def _verdict(folder: Path, sightings: Sightings, full: bool) -> Verdict:
    try:
        with JournalReader(folder) as reader:
            fold = Fold()
            for record in _records(reader):
                fold.take([record])
            findings = list(sightings.see(folder, "journal", _waiting(reader, fold))) if full else []
            findings.extend(_damages([*quarantined(folder), *reader.damage]))
    except JournalFailed as error:
        return Verdict(folder, "journal", 0, tuple(problems([str(error)])))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Verdict(folder, "journal", 0, tuple(problems([f"a record in it is none of this library: {error}"])))
    if fold.waiting:
        findings.extend(notes([f"{fold.waiting} entries wait in it"]))
    return Verdict(folder, "journal", fold.waiting, tuple(findings))


def _records(reader: JournalReader) -> Iterator[Record]:
    position = BEGINNING
    while records := reader.read(position, records_max=_RECORDS_MAX, bytes_max=_READ_BYTES_MAX):
        yield from records
        position = records[-1].position_after


def _waiting(reader: JournalReader, fold: Fold) -> Iterator[Entry]:
    """What waits, as of when the journal was folded."""
    through = fold.through
    for record in _records(reader):
        if record.sequence > through and record.payload[:1] == bytes([ENTRY]):
            yield _decode(record.payload[ENTRY_HEADER_BYTES:])


def _damages(damages: list[Damage]) -> Iterator[Finding]:
    """Each damage once, whether this reading or an earlier one met it."""
    for damage in dict.fromkeys((item.segment, item.offset, item.reason, item.records_lost) for item in damages):
        segment, offset, reason, lost = damage
        count = "an unknown number of" if lost is None else str(lost)
        yield from problems([f"segment {segment:016x} at byte {offset}: {reason}; {count} records are lost"])
