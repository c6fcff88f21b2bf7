"""The one place where an import reads the environment: the client install has no settings module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

#: Data folder when none is named; the default of `totalizer up`.
HOME = ".totalizer"


def environment() -> Mapping[str, str]:
    """The variables of this process."""
    return os.environ


def home_folder(given: Path | None, variables: Mapping[str, str]) -> Path:
    """The data folder: as given, else `TOTALIZER_HOME`, else `.totalizer`."""
    return given if given is not None else Path(variables.get("TOTALIZER_HOME") or HOME)


def catalog_paths(given: list[Path], variables: Mapping[str, str]) -> list[Path]:
    """Further catalog files: as given, else those in `TOTALIZER_CATALOG`, separated by colons."""
    return given or [Path(part) for part in variables.get("TOTALIZER_CATALOG", "").split(":") if part]
