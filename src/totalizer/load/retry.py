"""Dead letters tried again: each in a transaction of its own, the way the loader stores any other line."""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.event import DAY
from totalizer.load.gather import Gathered, gather, marks_of
from totalizer.load.section import Partitions, SectionLoader
from totalizer.store import dead_letters, loading
from totalizer.store.dead_letters import DeadLetter
from totalizer.store.loading import Fate, Target

Fates = dict[tuple[str, str], Fate]


class Retried(NamedTuple):
    """What became of a letter.

    Attributes:
        id: its number.
        fate: of its lines; none of any if it was not there any more. A letter that stays has a dead-lettered line.
        reason: why it stays, else empty.
    """

    id: int
    fate: Fate
    reason: str = ""


class DeadLetterLoader:
    """Tries dead letters again.

    A letter's row vanishes in the transaction that stores its event, so that each is stored once, whoever is killed
    when; of two that try the same letter, one waits for the other and then finds what it left.

    Args:
        connection: as writer, autocommit.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._partitions = Partitions(connection)

    def retry(self, letter_id: int) -> Retried:
        """Store a letter's event, or find it a duplicate, or renew the reason for which it stays a dead letter.

        Raises:
            psycopg.Error: the database is to blame, not the event; nothing has changed.
        """
        letter = dead_letters.read_letter(self._connection, letter_id)
        if letter is None:
            return Retried(letter_id, Fate())
        gathered = _gathered(letter)
        # Outside of the transaction: a new partition locks others out until its transaction ends.
        names = {
            target: self._partitions.ensure(self._connection, target.event_type, {line[DAY] for line in lines})
            for target, lines in gathered.lines.items()
        }
        with self._connection.transaction():
            if not dead_letters.lock_letters(self._connection, [letter_id]):
                return Retried(letter_id, Fate())
            return self._store(letter, gathered, names)

    def _store(self, letter: DeadLetter, gathered: Gathered, names: dict[Target, dict[bytes, str] | None]) -> Retried:
        for unreadable in gathered.unreadable:
            dead_letters.refuse_again(self._connection, letter.id, letter.sqlstate, unreadable.reason)
            return Retried(letter.id, Fate(dead_lettered=1), unreadable.reason)
        fates: Fates = {}
        for target, lines in gathered.lines.items():
            section = _Section(self._connection, letter, target, names[target])
            section.load(lines)
            for key, fate in section.fates.items():
                fates[key] = fates.get(key, Fate()) + fate
            if section.reason:
                return Retried(letter.id, Fate(dead_lettered=1), section.reason)
            if marks := marks_of(target, (line for line in lines if line not in section.buried)):
                loading.add_marks(self._connection, sorted(marks))
        dead_letters.delete_letters(self._connection, [letter.id])
        loading.add_ledger(self._connection, _without(letter, fates))
        return Retried(letter.id, sum(fates.values(), start=Fate()))


class _Section(SectionLoader):
    """A section whose only line has been a dead letter; what is refused stays that letter.

    A record that was no batch, and is one for this version, may have many lines: of these each that is refused becomes
    a letter of its own.
    """

    def __init__(
        self, connection: Connection[Any], letter: DeadLetter, target: Target, partitions: dict[bytes, str] | None
    ) -> None:
        super().__init__(connection, letter.journal_id, target, partitions)
        self._letter = letter
        self.reason = ""

    def _keep(self, organization: str, line: bytes, sqlstate: str, reason: str) -> None:
        if not self._letter.in_ledger:
            super()._keep(organization, line, sqlstate, reason)
            return
        self.reason = reason
        dead_letters.refuse_again(self._connection, self._letter.id, sqlstate, reason)


def _gathered(letter: DeadLetter) -> Gathered:
    if letter.in_ledger:
        return Gathered({letter.target: [letter.line]}, [], 1, 1)
    return gather([letter.line], rows_max=1)


def _without(letter: DeadLetter, fates: Fates) -> Fates:
    """The fates, and one dead letter less."""
    if not letter.in_ledger:
        return fates
    key = (letter.organization_id, letter.event_type)
    return {**fates, key: fates.get(key, Fate()) + Fate(dead_lettered=-1)}
