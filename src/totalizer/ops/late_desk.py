"""What operators do with late events, on the database of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from totalizer.app import dsn_of
from totalizer.errors import OperationError
from totalizer.load.late_drop import drop_late
from totalizer.ops.importers.checkpoint import make_private_folder
from totalizer.rollup.late import apply_late
from totalizer.settings import Settings
from totalizer.store import late
from totalizer.store.audit import os_user
from totalizer.store.connect import connected
from totalizer.store.late import LateEvent, Selection
from totalizer.store.roles import Role

#: The data folder's folder of what was dropped.
FOLDER = "late-events"


def listed(
    settings: Settings, selection: Selection, limit: int
) -> tuple[list[LateEvent], dict[tuple[str | None, str, str], int]]:
    """The newest that are selected, and how many there are by organisation, event type and state."""
    with connected(dsn_of(settings, Role.REFRESHER)) as connection:
        return late.list_late(connection, selection, limit), late.count_late(connection, selection)


def ids_of(settings: Settings, selection: Selection) -> Sequence[int]:
    """The numbers of those that are selected, oldest first.

    Raises:
        OperationError: some were named that are not there in that state.
    """
    with connected(dsn_of(settings, Role.REFRESHER)) as connection:
        found = late.late_ids(connection, selection)
    if missing := sorted(set(selection.ids or ()) - set(found)):
        named = ", ".join(map(str, missing))
        raise OperationError(f"no late event {named} that waits; `totalizer late list` shows those there are")
    return found


def apply(settings: Settings, ids: Sequence[int]) -> tuple[int, dict[str, Any]]:
    """Say that held events count, and add all that is late; returns how many were held, and what `apply_late` does."""
    with connected(dsn_of(settings, Role.REFRESHER)) as connection:
        return late.release(connection, ids), apply_late(connection, os_user())


def drop(settings: Settings, ids: Sequence[int], file: Path) -> int:
    """Move late events into a new file; returns how many.

    Raises:
        OperationError: the file cannot be made or written.
    """
    folder = settings.home.expanduser().resolve() / FOLDER
    if file.parent == folder:
        make_private_folder(folder)
    with connected(dsn_of(settings, Role.WRITER)) as connection:
        return sum(drop_late(connection, ids, file))


def default_file(settings: Settings, now: datetime) -> Path:
    """A file in the data folder; `drop` makes the folder it is in."""
    return settings.home.expanduser().resolve() / FOLDER / f"dropped-{now:%Y%m%dT%H%M%S.%fZ}.ndjson"
