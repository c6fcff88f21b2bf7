"""Loading the server's parts only when a command needs them: the client is installed without."""

from __future__ import annotations

import importlib
from types import ModuleType

from totalizer.errors import OperationError


def server_part(module: str) -> ModuleType:
    """Import a module of the server.

    Args:
        module: absolute name, for example `totalizer.app`.

    Raises:
        OperationError: a library of the `server` extra is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "totalizer"):
            raise
        raise OperationError(
            f"this command is part of the server, and {missing!r} is not installed: pip install 'totalizer[server]'"
        ) from error
