"""Reading catalog files: TOML in, a checked Catalog out, or an error naming file, key and reason."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from totalizer.catalog.model import Catalog, EventType, Rollup
from totalizer.catalog.place import At
from totalizer.catalog.read_event_types import read_event_type
from totalizer.catalog.read_rollups import read_rollup
from totalizer.errors import CatalogError


def load_catalog(paths: Iterable[Path] = ()) -> Catalog:
    """The shipped catalogs and those in `paths`.

    Args:
        paths: further `.toml` files, or folders of them.

    Raises:
        CatalogError: a file cannot be used; the message names file, key and reason.
    """
    shipped = resources.files("totalizer.catalog") / "shipped"
    texts = [(item.name, item.read_text("utf-8")) for item in shipped.iterdir() if item.name.endswith(".toml")]
    texts.sort()
    for path in paths:
        texts.extend(_texts_at(path))
    return parse_catalog(texts)


def _texts_at(path: Path) -> list[tuple[str, str]]:
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    try:
        return [(str(file), file.read_text("utf-8")) for file in files]
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(str(path), "-", f"cannot be read: {error}") from error


def parse_catalog(texts: Iterable[tuple[str, str]]) -> Catalog:
    """A catalog from (file name, TOML text) pairs; later files may use event types of earlier ones.

    Raises:
        CatalogError: see `load_catalog`.
    """
    event_types: dict[str, EventType] = {}
    rollups: dict[str, Rollup] = {}
    for file, text in texts:
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise CatalogError(file, "-", f"is not TOML: {error}") from error
        at = At(file)
        at.table(document, {"event_type", "rollup"})
        for name, value in at.below("event_type").table(document.get("event_type", {})).items():
            event_types[name] = read_event_type(at.below("event_type", name), name, value, event_types)
        for name, value in at.below("rollup").table(document.get("rollup", {})).items():
            rollups[name] = read_rollup(at.below("rollup", name), name, value, event_types, rollups)
    return Catalog(event_types, rollups)
