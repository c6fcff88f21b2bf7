"""The daemon's own dependencies, imported when they are needed, with a clear word if they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from totalizer.errors import ConfigurationError


def need(module: str) -> Any:
    """A module of the `daemon` extra.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise ConfigurationError(
            f"the recovery daemon needs {error.name}, which is not installed: pip install 'totalizer[daemon]'"
        ) from None
