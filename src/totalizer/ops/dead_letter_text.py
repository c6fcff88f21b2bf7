"""How dead letters look: tables and lines for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from rich.markup import escape
from rich.table import Column, Table

from totalizer.load.copy_text import values_of
from totalizer.load.drop import letter_record
from totalizer.load.gather import NO_ORGANIZATION
from totalizer.load.retry import Retried
from totalizer.store.dead_letters import DeadLetter, Listed, Reason
from totalizer.store.fates import Fate

#: Columns of the names in front of values.
NAME_WIDTH = 16
#: Characters of a reason in a table; `show` has all of it.
REASON_WIDTH = 100


def list_table(letters: Sequence[Listed], reasons: Sequence[Reason]) -> Iterator[Table | str]:
    """The letters, then how many each reason has, as Rich shows them."""
    if not reasons:
        yield "no dead letters"
        return
    table = Table(Column("id", no_wrap=True), "refused", "organisation", "event type", "code", "reason", "retries")
    for letter in letters:
        owner = letter.organization or _owner(letter.organization_id)
        cells = (str(letter.id), f"{letter.created_at:%Y-%m-%d %H:%M:%S}", owner, letter.event_type, letter.sqlstate)
        table.add_row(*(escape(_plain(cell)) for cell in cells), _short(letter.reason), str(letter.retries or ""))
    yield table
    counts = Table(Column("letters", justify="right"), "event type", "code", "reason, for example")
    for reason in reasons:
        name, code = escape(_plain(reason.event_type)), escape(reason.sqlstate)
        counts.add_row(f"{reason.letters:,}", name, code, _short(reason.example))
    yield counts
    total = sum(reason.letters for reason in reasons)
    if total > len(letters):
        yield f"{total:,} in all; the newest {len(letters):,} are listed"


def list_json(letters: Sequence[Listed], reasons: Sequence[Reason]) -> str:
    """The same as one JSON object; `total` counts those that are not listed, too."""
    total = sum(reason.letters for reason in reasons)
    return _json(
        {
            "dead_letters": [letter._asdict() for letter in letters],
            "reasons": [reason._asdict() for reason in reasons],
            "total": total,
        }
    )


def letter_json(letter: DeadLetter) -> str:
    """All of a letter as JSON: its line in base64, and the values in it."""
    return _json(letter_record(letter))


def letter_lines(letter: DeadLetter) -> str:
    """All of a letter, a line for each of its parts; what a terminal would obey is shown as `\\x1b`."""
    rows = [
        ("id", str(letter.id)),
        ("organisation", _owner(letter.organization_id)),
        ("event type", letter.event_type),
        ("refused", f"{letter.created_at:%Y-%m-%d %H:%M:%S.%f} UTC"),
        ("retries", f"{letter.retries}" + (f", last at {letter.retried_at}" if letter.retried_at else "")),
        ("code", letter.sqlstate),
        ("journal", letter.journal_id),
    ]
    text = "\n".join(f"{name:<{NAME_WIDTH}}{_plain(value)}" for name, value in rows)
    reason = "\n".join(_plain(line) for line in letter.reason.splitlines())
    return f"{text}\n\nreason\n{reason}\n\nvalues\n{_values(letter)}\n\nbytes, as Python writes them\n{letter.line!r}"


def retried_line(retried: Sequence[Retried]) -> str:
    """What became of all of them, in one line."""
    fate = sum((one.fate for one in retried), start=Fate())
    parts = [
        f"{fate.loaded:,} loaded",
        f"{fate.duplicate:,} were stored already",
        f"{fate.conflict:,} were stored with other contents",
        f"{fate.dead_lettered:,} refused again",
    ]
    if gone := sum(one.fate == Fate() for one in retried):
        parts.append(f"{gone:,} were gone")
    return ", ".join(parts)


def refusal_line(one: Retried) -> str:
    """Why a letter stays."""
    return f"{one.id}: {_plain(one.reason.partition(chr(10))[0])}"


def _values(letter: DeadLetter) -> str:
    if not letter.in_ledger:
        return "(the record is no batch)"
    values = values_of(letter.columns, letter.line)
    if values is None:
        return f"(the line does not divide into {len(letter.columns)} columns)"
    width = max(NAME_WIDTH, *(len(name) + 2 for name in values))
    return "\n".join(f"{name:<{width}}{'null' if value is None else _plain(value)}" for name, value in values.items())


def _owner(organization_id: str) -> str:
    return "unknown" if organization_id == NO_ORGANIZATION else organization_id


def _short(reason: str) -> str:
    first = reason.partition("\n")[0]
    return escape(_plain(first if len(first) <= REASON_WIDTH else first[: REASON_WIDTH - 1] + "…"))


def _plain(text: str) -> str:
    """Text that moves no cursor: a sender chose it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
