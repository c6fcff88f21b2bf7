"""The settings and database of the stack that a command is about: the running one's, else the environment's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from totalizer.errors import OperationError
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.ops.state import State
    from totalizer.settings import Settings


def own_settings(home: Path | None = None, port: int | None = None, **more: object) -> Settings:
    """The settings of the environment.

    Args:
        home: data folder, stronger than TOTALIZER_HOME.
        port: stronger than PORT.
        more: further values by variable name, stronger than the environment; None if not given.

    Raises:
        ConfigurationError: a value cannot be used.
        OperationError: the server's libraries are not installed.
    """
    overrides: dict[str, object] = {"TOTALIZER_HOME": home, "PORT": port, **more}
    settings: Settings = server_part("totalizer.settings").load_settings(**overrides)
    return settings


def stack_settings(home: Path | None = None, **more: object) -> Settings:
    """The settings with which a command reaches the database.

    Those of the environment if they name one, else those of the stack that runs on the data folder.

    Args:
        home: data folder, stronger than TOTALIZER_HOME.
        more: further values by variable name, stronger than the environment; None if not given.

    Raises:
        ConfigurationError: a value cannot be used.
        OperationError: no database is named and none runs.
    """
    settings = own_settings(home, None, **more)
    folder = settings.home.expanduser().resolve()
    state: State | None = server_part("totalizer.ops.state").read_state(folder)
    if state is None or not state.running():
        if settings.database_configured():
            return settings
        raise OperationError(
            f"no database: nothing runs on {folder}. Start it with `totalizer up`, or set DATABASE_URL"
        )
    overrides: dict[str, object] = {
        "TOTALIZER_HOME": folder,
        "DATABASE_URL": None if settings.database_configured() else state.dsn,
        "REDIS_URL": None if settings.redis_url is not None else state.redis_url,
        **more,
    }
    found: Settings = server_part("totalizer.settings").load_settings(**overrides)
    return found
