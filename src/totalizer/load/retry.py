"""Dead letters tried again: each in a transaction of its own, the way the loader stores any other line."""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.event import DAY, BatchHeader
from totalizer.load.floors import Floors
from totalizer.load.gather import Gathered, Origins, gather, marks_of
from totalizer.load.section import Partitions, SectionLoader
from totalizer.store import audit, dead_letters, fates, loading
from totalizer.store.audit import Change
from totalizer.store.dead_letters import DeadLetter
from totalizer.store.fates import Account, Fate, Fates
from totalizer.store.loading import Target


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

    @property
    def status(self) -> str:
        """Where the event is now: `quarantined`, `loaded`, `duplicate` or `conflict`."""
        if self.reason:
            return "quarantined"
        return "loaded" if self.fate.loaded else "duplicate" if self.fate.duplicate else "conflict"


class Mended(NamedTuple):
    """An event that is to be stored in a letter's place.

    Attributes:
        payload: one line as the collector makes it.
        fields: the names of what was replaced in it.
    """

    payload: bytes
    fields: tuple[str, ...]


class DeadLetterLoader:
    """Tries dead letters again.

    A letter's row vanishes in the transaction that stores its event, so that each is stored once, whoever is killed
    when; of two that try the same letter, one waits for the other and then finds what it left.

    Args:
        connection: as writer, autocommit.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._partitions, self._floors = Partitions(connection), Floors()
        self._floors.hold(connection)

    def retry(self, letter_id: int, organization_id: str | None = None, mended: Mended | None = None) -> Retried:
        """Store a letter's event, or find it a duplicate, or renew the reason for which it stays a dead letter.

        Args:
            letter_id: its number.
            organization_id: whose it must be; another's is as one that is not there. None for anybody's.
            mended: the event as it is to be stored in the letter's place; None to store what the letter holds.

        Raises:
            psycopg.Error: the database is to blame, not the event; nothing has changed.
        """
        letter = dead_letters.read_letter(self._connection, letter_id)
        if letter is None or organization_id not in (None, letter.organization_id):
            return Retried(letter_id, Fate())
        gathered = _gathered(letter, None if mended is None else mended.payload)
        # Outside of the transaction: a new partition locks others out until its transaction ends.
        names = {
            target: self._partitions.ensure(
                self._connection, target.event_type, {line[DAY] for line in lines}, self._floors
            )
            for target, lines in gathered.lines.items()
        }
        with self._connection.transaction():
            if not dead_letters.lock_letters(self._connection, [letter_id]):
                return Retried(letter_id, Fate())
            self._floors.hold(self._connection)
            retried = self._store(letter, gathered, names)
            audit.note(self._connection, _change(letter, retried, mended))
            return retried

    def _store(self, letter: DeadLetter, gathered: Gathered, names: dict[Target, dict[bytes, str] | None]) -> Retried:
        for unreadable in gathered.unreadable:
            dead_letters.refuse_again(self._connection, letter.id, letter.sqlstate, unreadable.reason)
            return Retried(letter.id, Fate(dead_lettered=1), unreadable.reason)
        found: Fates = {}
        sections: list[tuple[_Section, list[bytes]]] = []
        for target, lines in gathered.lines.items():
            section = _Section(self._connection, letter, target, names[target], gathered.origins[target], self._floors)
            section.load(lines)
            sections.append((section, lines))
            for account, fate in section.fates().items():
                found[account] = found.get(account, Fate()) + fate
            if section.reason:
                return Retried(letter.id, Fate(dead_lettered=1), section.reason)
            if marks := marks_of(target, (line for line in lines if line not in section.unmarked)):
                loading.add_marks(self._connection, sorted(marks))
        dead_letters.delete_letters(self._connection, [letter.id])
        self._note(letter, found, sections)
        return Retried(letter.id, sum(found.values(), start=Fate())._replace(accepted=0))

    def _note(self, letter: DeadLetter, found: Fates, sections: list[tuple[_Section, list[bytes]]]) -> None:
        """Change the books, and what receipts tell."""
        if not letter.in_ledger:
            # Its record counts from now on.
            fates.add_ledger(self._connection, found)
            sequence = fates.close_gap(self._connection, letter.id)
            for section, lines in sections if sequence is not None else ():
                fates.add_unstored(self._connection, letter.journal_id, section.unstored(lines, [sequence or 0]))
            return
        fate = sum(found.values(), start=Fate())._replace(accepted=0, dead_lettered=-1)
        fates.add_ledger(self._connection, {letter.account: fate})
        fates.settle_letter(
            self._connection, letter.id, "duplicate" if fate.duplicate else "conflict" if fate.conflict else None
        )


def _change(letter: DeadLetter, retried: Retried, mended: Mended | None) -> Change:
    after: dict[str, Any] = {"id": letter.id, "status": retried.status}
    if mended is None:
        return Change("dead_letter.retry", letter.event_type, letter.organization_id, after=after)
    after["fields"] = list(mended.fields)
    return Change("dead_letter.fix", letter.event_type, letter.organization_id, after=after)


class _Section(SectionLoader):
    """A section whose only line has been a dead letter; what is refused stays that letter.

    A record that was no batch, and is one for this version, may have many lines: of these each that is refused becomes
    a letter of its own.
    """

    def __init__(
        self, connection: Connection[Any], letter: DeadLetter, target: Target, partitions: dict[bytes, str] | None,
        origins: Origins, floors: Floors,
    ) -> None:  # fmt: skip
        super().__init__(connection, letter.journal_id, target, partitions, origins, floors)
        self._letter = letter
        self.reason = ""

    def _keep(self, account: Account, line: bytes, sqlstate: str, reason: str) -> int:
        if not self._letter.in_ledger:
            return super()._keep(account, line, sqlstate, reason)
        self.reason = reason
        dead_letters.refuse_again(self._connection, self._letter.id, sqlstate, reason)
        fates.renew_reason(self._connection, self._letter.id, sqlstate, reason)
        return self._letter.id


def _gathered(letter: DeadLetter, payload: bytes | None) -> Gathered:
    if not letter.in_ledger:
        return gather([letter.line], rows_max=1)
    origins = Origins([BatchHeader(letter.organization_id, letter.account.hour, ())])
    origins.add(0, 1)
    if payload is None:
        return Gathered({letter.target: [letter.line]}, [], 1, 1, {letter.target: origins})
    mended = gather([payload], rows_max=1)
    [(target, lines)] = mended.lines.items()
    return mended._replace(lines={target: lines}, origins={target: origins})
