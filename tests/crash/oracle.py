"""The one who knows: what was sent, what was acknowledged, and therefore what must be found afterwards.

It shares no code with what it judges: it keeps its own ledger outside the folder under test, computes what every
event must contain from the event's name alone, and reads journals and tables for itself.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash import tally
from totalizer.journal import BEGINNING, JournalReader, Position

USER = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
#: Longest payload of a journal record here: several pages, so that a torn write can tear it.
PAYLOAD_BYTES_MAX = 6000


def payload_of(name: str) -> bytes:
    """The journal record of an event: its name and then bytes that follow from it, never a zero among them."""
    randomness = random.Random(name)
    length = randomness.choice((0, 10, 700, 4096, randomness.randrange(PAYLOAD_BYTES_MAX)))
    return name.encode() + b"|" + randomness.randbytes(length).replace(b"\0", b"\1")


def event_of(name: str, *, keyed: bool = True, altered: bool = False) -> dict[str, Any]:
    """The event as a sender writes it: every field follows from the name, which is also kept in its context.

    Args:
        name: of the event.
        keyed: True if the name is sent as the event's id.
        altered: True for other contents under the same name.
    """
    digest = hashlib.sha256(name.encode() + b"!" * altered).hexdigest()
    event = {
        "user_id": USER, "command_name": f"command {digest[:2]}", "execution_time_ms": int(digest[:5], 16),
        "status": "success" if digest[0] < "8" else "error", "error_message": digest * (int(digest[3], 16) + 1),
        "context": {"of": name, "digest": digest},
    }  # fmt: skip
    return {**event, "id": name} if keyed else event


@dataclass
class Known:
    """What a ledger says.

    Attributes:
        sent: names of events handed over, in order, once for each time.
        acknowledged: names of those that were acknowledged.
        read: names of records that a reader has dealt with, in order.
        position: how far that reader is.
    """

    sent: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    position: Position = BEGINNING


class Ledger:
    """A file to which each statement is appended by one system call, so that a killed process takes none back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def sent(self, *names: str) -> None:
        """These are about to be handed over."""
        self._append("sent", names)

    def acknowledged(self, *names: str) -> None:
        """These were acknowledged."""
        self._append("acknowledged", names)

    def read_to(self, position: Position, *names: str) -> None:
        """A reader has dealt with these, and is at a position now."""
        self._append("read", [f"{position.segment}:{position.offset}", *names])

    def known(self) -> Known:
        """Everything said so far, by whatever process."""
        known = Known()
        for line in self._path.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # the process was killed before it had said it
            verb, *words = line.split()
            if verb == "read":
                segment, offset = words[0].split(":")
                known.position = Position(int(segment), int(offset))
                known.read += words[1:]
            else:
                (known.sent if verb == "sent" else known.acknowledged).extend(words)
        return known

    def close(self) -> None:
        """Close the file. Nothing happens the second time."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, verb: str, words: Iterable[str]) -> None:
        os.write(self._descriptor, f"{' '.join([verb, *words])}\n".encode())


@dataclass(frozen=True)
class Verdict:
    """How what is found differs from what must be; empty in every part if the promise was kept.

    Attributes:
        lost: acknowledged and not there.
        doubled: there more than once.
        altered: there with other contents.
        invented: there and never sent.
        books: what does not add up in the database's own accounts.
    """

    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    books: tuple[str, ...] = ()


KEPT = Verdict()


def judge(known: Known, found: Iterable[tuple[str, Any]], contents_of: Callable[[str], Any]) -> Verdict:
    """Hold what is found, as (name, contents), against what is known."""
    found = list(found)
    times = Counter(name for name, _ in found)
    sent = set(known.sent)
    verdict = Verdict(
        lost=tuple(sorted(set(known.acknowledged) - times.keys())),
        doubled=tuple(sorted(name for name, count in times.items() if count > 1)),
        altered=tuple(sorted(name for name, contents in found if name in sent and contents != contents_of(name))),
        invented=tuple(sorted(times.keys() - sent)),
    )
    tally.found(len(verdict.lost), len(verdict.doubled))
    return verdict


def judge_journal(folder: Path, known: Known) -> Verdict:
    """Read a journal from where the ledger's reader left off, and judge it with what that one has read."""
    found: list[tuple[str, Any]] = [(name, payload_of(name)) for name in known.read]
    with JournalReader(folder) as reader:
        position = known.position
        while records := reader.read(position, records_max=1000, bytes_max=1 << 22):
            found += [(_name_in(record.payload), record.payload) for record in records]
            position = records[-1].position_after
        books = tuple(f"damage: {damage}" for damage in reader.damage)
    verdict = judge(known, found, payload_of)
    return Verdict(verdict.lost, verdict.doubled, verdict.altered, verdict.invented, books)


def _name_in(payload: bytes) -> str:
    return payload.split(b"|", 1)[0].decode(errors="backslashreplace")
