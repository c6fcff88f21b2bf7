"""What operators do with dead letters, on the database of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from psycopg import Connection

from totalizer.app import dsn_of
from totalizer.errors import OperationError
from totalizer.load.drop import drop_letters
from totalizer.load.retry import DeadLetterLoader, Retried
from totalizer.ops.importers.checkpoint import make_private_folder
from totalizer.settings import Settings
from totalizer.store import dead_letters
from totalizer.store.audit import command_line
from totalizer.store.connect import connect, in_plain_words
from totalizer.store.dead_letters import DeadLetter, Listed, Reason, Selection
from totalizer.store.roles import Role

#: The data folder's folder of what was dropped.
FOLDER = "dead-letters"


class DeadLetterOffice:
    """The dead letters of one database; for a with-block.

    Reads as the refresher, who sees every organisation's; changes as the writer, who stores events.

    Args:
        settings: which name the database and the data folder.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = ExitStack()

    def selection(
        self,
        *,
        ids: list[int] | None = None,
        organization: str | None = None,
        event_type: str | None = None,
        since: datetime | None = None,
    ) -> Selection:
        """What a person has named.

        Raises:
            OperationError: there is no organisation of that name.
        """
        with in_plain_words():
            owner = None
            if organization is not None:
                owner = dead_letters.organization_id_of(self._reader, organization)
        return Selection(ids, owner, event_type, since)

    def list(self, selection: Selection, limit: int) -> tuple[Sequence[Listed], Sequence[Reason]]:
        """The newest `limit` letters, and the reasons of all that are selected."""
        with in_plain_words():
            letters = dead_letters.list_letters(self._reader, selection, limit)
            return letters, dead_letters.count_by_reason(self._reader, selection)

    def read(self, letter_id: int) -> DeadLetter:
        """One letter.

        Raises:
            OperationError: there is none of that number.
        """
        with in_plain_words():
            letter = dead_letters.read_letter(self._reader, letter_id)
        if letter is None:
            raise OperationError(_missing([letter_id]))
        return letter

    def ids(self, selection: Selection) -> Sequence[int]:
        """The numbers of the selected letters, oldest first.

        Raises:
            OperationError: letters were named that are not there.
        """
        with in_plain_words():
            found = dead_letters.ids_of(self._reader, selection)
        if missing := sorted(set(selection.ids or ()) - set(found)):
            raise OperationError(_missing(missing))
        return found

    def retry(self, letter_id: int) -> Retried:
        """Try one letter again.

        Raises:
            StoreUnavailable: the database could not do it now; letters tried before are done.
        """
        with in_plain_words():
            return self._loader.retry(letter_id)

    def drop(self, ids: Sequence[int], file: Path) -> int:
        """Move letters into a new file; returns how many.

        Raises:
            OperationError: the file cannot be made or written.
            StoreUnavailable: the database could not do it now; what is dropped is in the file.
        """
        if file.parent == self._folder:
            make_private_folder(self._folder)
        with in_plain_words():
            return sum(drop_letters(self._writer, ids, file))

    def default_file(self, now: datetime) -> Path:
        """A file in the data folder; `drop` makes the folder it is in."""
        return self._folder / f"dropped-{now:%Y%m%dT%H%M%S.%fZ}.ndjson"

    @property
    def _folder(self) -> Path:
        return self._settings.home.expanduser().resolve() / FOLDER

    @cached_property
    def _reader(self) -> Connection[Any]:
        return self._connect(Role.REFRESHER)

    @cached_property
    def _writer(self) -> Connection[Any]:
        return self._connect(Role.WRITER)

    @cached_property
    def _loader(self) -> DeadLetterLoader:
        return DeadLetterLoader(self._writer)

    def _connect(self, role: Role) -> Connection[Any]:
        return self._open.enter_context(connect(dsn_of(self._settings, role), autocommit=True, actor=command_line()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


def _missing(ids: Sequence[int]) -> str:
    named = ", ".join(map(str, ids))
    return f"no dead letter {named}; `totalizer dead-letters list` shows those there are"
