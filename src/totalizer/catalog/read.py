"""Reading catalog files: TOML in, a checked Catalog out, or an error naming file, key and reason."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from totalizer.catalog.measures import FIELD_KINDS, KINDS, states
from totalizer.catalog.model import FIXED_COLUMNS, Catalog, EventType, Field, FieldType, Measure, Rollup
from totalizer.catalog.place import At
from totalizer.errors import CatalogError

_FIELD_KEYS = {
    "type", "required", "wire", "minimum", "maximum", "length_min", "length_max", "values", "scale", "description",
}  # fmt: skip
_EVENT_TYPE_KEYS = {
    "title",
    "route",
    "time",
    "time_wire",
    "subject",
    "partition",
    "fields",
    "unknown_fields",
    "past_max",
}
_ROLLUP_KEYS = {"title", "event_type", "dimensions", "measures"}
_MEASURE_KEYS = {"kind", "field"}
_ROUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}")
#: Path segments under /api/metrics/ that are not event types.
_TAKEN_ROUTES = {
    "batch", "aggregated", "dashboard", "real-time", "query", "export", "health", "stats", "performance", "receipts",
    "quarantine", "live", "stream",
}  # fmt: skip
_SPAN = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_SPAN_S = {"m": 60, "h": 3600, "d": 86_400}
#: The most characters of one text field; PostgreSQL index rows and COPY lines stay small.
TEXT_LENGTH_MAX = 65_536
INTEGER_LIMIT = 2**63
#: Keys of a batch request that are not event types.
_TAKEN_KEYS = ("timestamp",)
#: Columns PostgreSQL keeps in every table for itself.
_SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
#: Columns of rollup tables, and of every answer.
_ROLLUP_COLUMNS = ("organization_id", "bucket", "day", "window_start")
#: Bytes of a rollup's text dimensions; a PostgreSQL index row holds 2704.
KEY_BYTES_MAX = 2400


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
        for name, table in at.below("event_type").table(document.get("event_type", {})).items():
            here = at.below("event_type", name)
            event_types[name] = _event_type(here, name, here.table(table, _EVENT_TYPE_KEYS), event_types)
        for name, table in at.below("rollup").table(document.get("rollup", {})).items():
            here = at.below("rollup", name)
            _refuse_again(here, name, rollups)
            rollups[name] = _rollup(here, name, here.table(table, _ROLLUP_KEYS), event_types)
    return Catalog(event_types, rollups)


def _refuse_again(at: At, name: str, known: Mapping[str, EventType | Rollup]) -> None:
    if name in known:
        raise at.wrong(f"is declared in {known[name].file} already; choose another name")


def _event_type(at: At, name: str, table: dict[str, Any], known: dict[str, EventType]) -> EventType:
    at.name(name)
    _refuse_again(at, name, known)
    table_taken = (name.endswith("_keys") and name.removesuffix("_keys") in known) or f"{name}_keys" in known
    if name in _TAKEN_KEYS or table_taken:
        raise at.wrong(f"the name {name!r} is taken; choose another")
    route = at.get(table, "route", str, name)
    if route in _TAKEN_ROUTES or any(route == other.route for other in known.values()):
        raise at.below("route").wrong(f"{route!r} is taken; choose another")
    if not _ROUTE.fullmatch(route):
        raise at.below("route").wrong(f"{route!r} is no path segment of letters, digits and . _ ~ -, 64 at most")
    partition = at.get(table, "partition", str, "day")
    if partition not in ("day", "month"):
        raise at.below("partition").wrong(f"must be 'day' or 'month', not {partition!r}")
    time_field = at.below("time").name(at.get(table, "time", str))
    fields = tuple(
        _field(at.below("fields", key), key, value)
        for key, value in at.below("fields").table(at.get(table, "fields", dict)).items()
    )
    time_wire = at.wire(table, "time_wire", time_field)
    _no_name_twice(at, time_field, time_wire, fields)
    subject = at.get(table, "subject", str)
    if all(field.name != subject for field in fields):
        raise at.below("subject").wrong(f"{subject!r} is none of its fields")
    return EventType(
        name=name, title=at.get(table, "title", str, name), route=route, time_field=time_field,
        time_wire=time_wire, subject_field=subject, partition=partition,
        fields=fields, file=at.file, keep_unknown=_keep_unknown(at.below("unknown_fields"), table, fields),
        past_max_s=_past_max_s(at.below("past_max"), table),
    )  # fmt: skip


def _keep_unknown(at: At, table: dict[str, Any], fields: tuple[Field, ...]) -> str | None:
    """The name of the field that takes unknown fields; None if they are refused."""
    text = at.get(table, "unknown_fields", str, "refuse")
    if text == "refuse":
        return None
    word, _, name = text.partition(":")
    if word != "keep" or all(field.name != name or field.type is not FieldType.JSON for field in fields):
        raise at.wrong(f"must be 'refuse', or 'keep:' and the name of a json field of it, not {text!r}")
    return name


def _past_max_s(at: At, table: dict[str, Any]) -> int | None:
    """How long ago an event may have happened, in seconds."""
    if "past_max" not in table:
        return None
    text = at.get(table, "past_max", str)
    found = _SPAN.fullmatch(text)
    if not found:
        raise at.wrong(f"must be a number of minutes, hours or days such as '30m', '12h' or '90d', not {text!r}")
    return int(found[1]) * _SPAN_S[found[2]]


def _no_name_twice(at: At, time_field: str, time_wire: str, fields: tuple[Field, ...]) -> None:
    fixed, keys = {*FIXED_COLUMNS, *_SYSTEM_COLUMNS}, {"id", "source"}
    if time_field in fixed:
        raise at.below("time").wrong(f"{time_field!r} is a column every event table has; choose another name")
    if time_wire in keys:
        raise at.below("time_wire").wrong(f"the key {time_wire!r} is taken in sent events; choose another")
    fixed.add(time_field)
    keys.add(time_wire)
    for field in fields:
        if field.name in fixed:
            raise at.below("fields", field.name).wrong("this name is a column every event table has")
        if field.key in keys:
            raise at.below("fields", field.name).wrong(f"the key {field.key!r} is taken in sent events")
        keys.add(field.key)


def _field(at: At, name: str, value: Any) -> Field:
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
        wire=at.wire(table, "wire", name) if "wire" in table else None,
        minimum=_bound(at, table, "minimum", kind), maximum=_bound(at, table, "maximum", kind),
        length_min=at.get(table, "length_min", int, 0), length_max=at.get(table, "length_max", int, 1000),
        values=at.strings(table, "values"), scale=at.get(table, "scale", int, 6),
        description=at.get(table, "description", str, "") if "description" in table else "",
    )  # fmt: skip
    _check_bounds(at, field)
    return field


def _only_for(at: At, table: dict[str, Any], kind: FieldType) -> None:
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


def _bound(at: At, table: dict[str, Any], key: str, kind: FieldType) -> float | int | None:
    if key not in table:
        return None
    value: float | int = table[key]
    wanted = (int,) if kind is FieldType.INTEGER else (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool) or not math.isfinite(value):
        raise at.below(key).wrong(f"must be a number that fits the type, not {value!r}")
    if kind is FieldType.INTEGER and not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise at.below(key).wrong(f"{value} does not fit 64 bits")
    return value


def _check_bounds(at: At, field: Field) -> None:
    if field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:
        raise at.below("minimum").wrong(f"{field.minimum} is above the maximum {field.maximum}")
    if not 0 <= field.length_min <= field.length_max <= TEXT_LENGTH_MAX:
        raise at.below("length_max").wrong(f"must lie between length_min and {TEXT_LENGTH_MAX}")
    if not 0 <= field.scale <= 18:
        raise at.below("scale").wrong(f"must lie between 0 and 18, not {field.scale}")


def _rollup(at: At, name: str, table: dict[str, Any], event_types: dict[str, EventType]) -> Rollup:
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
    _no_column_twice(at, dimensions, measures)
    return Rollup(name, at.get(table, "title", str, name), type_name, dimensions, measures, at.file)


def _no_column_twice(at: At, dimensions: tuple[str, ...], measures: tuple[Measure, ...]) -> None:
    taken = {*_ROLLUP_COLUMNS, *_SYSTEM_COLUMNS}
    for dimension in dimensions:
        if dimension in taken:
            raise at.below("dimensions").wrong(
                f"{dimension!r} is a column every rollup has; give the field another name"
            )
    taken.update(dimensions)
    for measure in measures:
        # The names that `states` derives, too; their types do not matter here.
        names = {measure.name, *(state.column for state in states(measure, FieldType.NUMBER))}
        if names & taken:
            raise at.below("measures", measure.name).wrong("this name is taken by a column of the rollup")
        taken |= names


def _fit_an_index(at: At, fields: list[Field]) -> None:
    """A rollup's key is one index row: texts too long for it would stop the rollup, so they are refused here."""
    worst = sum(4 * (max(map(len, field.values)) if field.values else field.length_max)
                for field in fields if field.type is FieldType.TEXT)  # fmt: skip
    if worst > KEY_BYTES_MAX:
        raise at.wrong(f"its texts can take {worst} bytes, more than {KEY_BYTES_MAX}; lower the length_max of some")


def _measure(at: At, name: str, value: Any, event_type: EventType) -> Measure:
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
