"""Reading catalog files: TOML in, a checked Catalog out, or an error naming file, key and reason."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from totalizer.catalog.measures import FIELD_KINDS, KINDS
from totalizer.catalog.model import FIXED_COLUMNS, Catalog, EventType, Field, FieldType, Measure, Rollup
from totalizer.catalog.quoting import NAME
from totalizer.errors import CatalogError

_FIELD_KEYS = {
    "type", "required", "wire", "minimum", "maximum", "length_min", "length_max", "values", "scale", "description",
}  # fmt: skip
_EVENT_TYPE_KEYS = {"title", "route", "time", "time_wire", "subject", "partition", "fields"}
_ROLLUP_KEYS = {"title", "event_type", "dimensions", "measures"}
_MEASURE_KEYS = {"kind", "field"}
#: Path segments under /api/metrics/ that are not event types.
_TAKEN_ROUTES = {
    "batch", "aggregated", "dashboard", "real-time", "query", "export", "health", "stats", "performance", "receipts",
    "live",
}  # fmt: skip
#: The most characters of one text field; PostgreSQL index rows and COPY lines stay small.
TEXT_LENGTH_MAX = 65_536
INTEGER_LIMIT = 2**63
#: Bytes of a rollup's text dimensions; a PostgreSQL index row holds 2704.
KEY_BYTES_MAX = 2400


class _At:
    """A place in a file: raises errors that name it."""

    def __init__(self, file: str, *path: str) -> None:
        self.file, self.path = file, path

    def below(self, *names: str) -> _At:
        return _At(self.file, *self.path, *names)

    def wrong(self, reason: str) -> CatalogError:
        return CatalogError(self.file, ".".join(self.path), reason)

    def table(self, value: Any, known: set[str] | None = None) -> dict[str, Any]:
        """`value`, which must be a table holding only known keys."""
        if not isinstance(value, dict):
            raise self.wrong(f"must be a table, not {value!r}")
        for key in value:
            if known is not None and key not in known:
                raise self.below(key).wrong(f"unknown key; known here: {', '.join(sorted(known))}")
        return value

    def get(self, table: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
        """`table[key]`, which must be of that type; with no default it must be there."""
        if key not in table:
            if default is None:
                raise self.below(key).wrong("is missing")
            return default
        value = table[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.below(key).wrong(f"must be a {kind.__name__}, not {value!r}")
        return value

    def name(self, name: str) -> str:
        """`name`, which must be a plain identifier."""
        if not NAME.fullmatch(name):
            raise self.wrong("a name is lower-case letters, digits and _, starts with a letter, 48 at most")
        return name

    def strings(self, table: dict[str, Any], key: str) -> tuple[str, ...]:
        """`table[key]`, a list of different strings; empty when absent."""
        values = table.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.below(key).wrong(f"must be a list of strings, not {values!r}")
        if len(set(values)) != len(values):
            raise self.below(key).wrong(f"names one thing twice: {values!r}")
        return tuple(values)


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
        at = _At(file)
        at.table(document, {"event_type", "rollup"})
        for name, table in at.below("event_type").table(document.get("event_type", {})).items():
            here = at.below("event_type", name)
            _add(
                event_types,
                name,
                _event_type(here, name, here.table(table, _EVENT_TYPE_KEYS), event_types),
                here,
            )
        for name, table in at.below("rollup").table(document.get("rollup", {})).items():
            here = at.below("rollup", name)
            _add(rollups, name, _rollup(here, name, here.table(table, _ROLLUP_KEYS), event_types), here)
    return Catalog(event_types, rollups)


def _add(known: dict[str, Any], name: str, item: Any, at: _At) -> None:
    if name in known:
        raise at.wrong(f"is declared in {known[name].file} already; choose another name")
    known[name] = item


def _event_type(at: _At, name: str, table: dict[str, Any], known: dict[str, EventType]) -> EventType:
    at.name(name)
    route = at.get(table, "route", str, name)
    if route in _TAKEN_ROUTES or "/" in route or any(route == other.route for other in known.values()):
        raise at.below("route").wrong(f"{route!r} is taken or not one path segment")
    partition = at.get(table, "partition", str, "day")
    if partition not in ("day", "month"):
        raise at.below("partition").wrong(f"must be 'day' or 'month', not {partition!r}")
    time_field = at.below("time").name(at.get(table, "time", str))
    fields = tuple(
        _field(at.below("fields", key), key, value)
        for key, value in at.below("fields").table(at.get(table, "fields", dict)).items()
    )
    _no_name_twice(at, (*FIXED_COLUMNS, time_field), fields)
    subject = at.get(table, "subject", str)
    if all(field.name != subject for field in fields):
        raise at.below("subject").wrong(f"{subject!r} is none of its fields")
    return EventType(
        name=name, title=at.get(table, "title", str, name), route=route, time_field=time_field,
        time_wire=at.get(table, "time_wire", str, time_field), subject_field=subject, partition=partition,
        fields=fields, file=at.file,
    )  # fmt: skip


def _no_name_twice(at: _At, fixed: tuple[str, ...], fields: tuple[Field, ...]) -> None:
    keys = {"id", "source"}
    for field in fields:
        if field.name in fixed:
            raise at.below("fields", field.name).wrong("this name is a column every event table has")
        if field.key in keys:
            raise at.below("fields", field.name).wrong(f"the key {field.key!r} is taken in sent events")
        keys.add(field.key)


def _field(at: _At, name: str, value: Any) -> Field:
    table = at.table(value, _FIELD_KEYS)
    at.name(name)
    text = at.get(table, "type", str)
    try:
        kind = FieldType(text)
    except ValueError:
        allowed = ", ".join(item.value for item in FieldType)
        raise at.below("type").wrong(f"{text!r} is no type; use one of {allowed}") from None
    _only_for(at, table, kind)
    field = Field(
        name=name, type=kind, required=at.get(table, "required", bool, False),
        wire=at.get(table, "wire", str, name) if "wire" in table else None,
        minimum=_bound(at, table, "minimum", kind), maximum=_bound(at, table, "maximum", kind),
        length_min=at.get(table, "length_min", int, 0), length_max=at.get(table, "length_max", int, 1000),
        values=at.strings(table, "values"), scale=at.get(table, "scale", int, 6),
        description=at.get(table, "description", str, "") if "description" in table else "",
    )  # fmt: skip
    _check_bounds(at, field)
    return field


def _only_for(at: _At, table: dict[str, Any], kind: FieldType) -> None:
    """Refuse keys that mean nothing for the type."""
    allowed: dict[str, Callable[[FieldType], bool]] = {
        "minimum": lambda kind: kind.numeric,
        "maximum": lambda kind: kind.numeric,
        "length_min": lambda kind: kind is FieldType.TEXT,
        "length_max": lambda kind: kind is FieldType.TEXT,
        "values": lambda kind: kind is FieldType.TEXT,
        "scale": lambda kind: kind is FieldType.DECIMAL,
    }
    for key, test in allowed.items():
        if key in table and not test(kind):
            raise at.below(key).wrong(f"means nothing for a field of type {kind.value!r}")


def _bound(at: _At, table: dict[str, Any], key: str, kind: FieldType) -> float | int | None:
    if key not in table:
        return None
    value: float | int = table[key]
    wanted = (int,) if kind is FieldType.INTEGER else (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise at.below(key).wrong(f"must be a number that fits the type, not {value!r}")
    if kind is FieldType.INTEGER and not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise at.below(key).wrong(f"{value} does not fit 64 bits")
    return value


def _check_bounds(at: _At, field: Field) -> None:
    if field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:
        raise at.below("minimum").wrong(f"{field.minimum} is above the maximum {field.maximum}")
    if not 0 <= field.length_min <= field.length_max <= TEXT_LENGTH_MAX:
        raise at.below("length_max").wrong(f"must lie between length_min and {TEXT_LENGTH_MAX}")
    if not 0 <= field.scale <= 18:
        raise at.below("scale").wrong(f"must lie between 0 and 18, not {field.scale}")


def _rollup(at: _At, name: str, table: dict[str, Any], event_types: dict[str, EventType]) -> Rollup:
    at.name(name)
    type_name = at.get(table, "event_type", str)
    event_type = event_types.get(type_name)
    if event_type is None:
        raise at.below("event_type").wrong(f"no event type {type_name!r}; known: {', '.join(sorted(event_types))}")
    dimensions = at.strings(table, "dimensions")
    for dimension in dimensions:
        field = event_type.field(dimension)
        if field is None or not field.type.groupable:
            raise at.below("dimensions").wrong(f"{dimension!r} is no field of {type_name} that can be grouped by")
    _fit_an_index(at.below("dimensions"), [field for field in event_type.fields if field.name in dimensions])
    declared = at.below("measures").table(at.get(table, "measures", dict))
    measures = tuple(_measure(at.below("measures", key), key, value, event_type) for key, value in declared.items())
    if not measures:
        raise at.below("measures").wrong("names no measure")
    for measure in measures:
        if measure.name in dimensions or measure.name in ("organization_id", "bucket", "day"):
            raise at.below("measures", measure.name).wrong("this name is taken by a column of the rollup")
    return Rollup(name, at.get(table, "title", str, name), type_name, dimensions, measures, at.file)


def _fit_an_index(at: _At, fields: list[Field]) -> None:
    """A rollup's key is one index row: texts too long for it would stop the rollup, so they are refused here."""
    worst = sum(4 * (max(map(len, field.values)) if field.values else field.length_max)
                for field in fields if field.type is FieldType.TEXT)  # fmt: skip
    if worst > KEY_BYTES_MAX:
        raise at.wrong(f"its texts can take {worst} bytes, more than {KEY_BYTES_MAX}; lower the length_max of some")


def _measure(at: _At, name: str, value: Any, event_type: EventType) -> Measure:
    table = at.table(value, _MEASURE_KEYS)
    at.name(name)
    kind = at.get(table, "kind", str)
    if kind not in KINDS:
        raise at.below("kind").wrong(f"{kind!r} is no kind of measure; use one of {', '.join(KINDS)}")
    if kind not in FIELD_KINDS:
        if "field" in table:
            raise at.below("field").wrong(f"a {kind} takes no field")
        return Measure(name, kind)
    field = event_type.field(at.get(table, "field", str))
    if field is None or not field.type.numeric:
        raise at.below("field").wrong(f"{table['field']!r} is no numeric field of {event_type.name}")
    return Measure(name, kind, field.name)
