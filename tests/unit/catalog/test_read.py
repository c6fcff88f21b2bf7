"""Catalog files: what is shipped loads, and what is wrong is refused with file, key and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from totalizer.catalog import Catalog, FieldType, load_catalog
from totalizer.catalog.read import parse_catalog
from totalizer.catalog.read_rollups import KEY_BYTES_MAX
from totalizer.errors import CatalogError

EVENT_TYPE = '[event_type.sales]\ntime = "sold_at"\nsubject = "shop"\n'
SHOP = 'shop = { type = "text", required = true, length_max = 100 }\n'
AMOUNT = 'amount = { type = "decimal", scale = 2 }\n'
SALES = f"{EVENT_TYPE}[event_type.sales.fields]\n{SHOP}{AMOUNT}"
ROLLUP = '[rollup.revenue]\nevent_type = "sales"\ndimensions = ["shop"]\n'


def fields(*lines: str) -> str:
    """A catalog of one event type with further fields."""
    return f"{SALES}{chr(10).join(lines)}\n"


def rollup(measures: str, head: str = ROLLUP) -> str:
    return f"{SALES}{head}[rollup.revenue.measures]\n{measures}\n"


def parsed(text: str) -> Catalog:
    return parse_catalog([("mine.toml", text)])


def refused(text: str, key: str, words: str) -> None:
    """Check that a catalog is refused with an error that names this key, with these words in its reason."""
    with pytest.raises(CatalogError) as caught:
        parsed(text)
    assert (caught.value.file, caught.value.key) == ("mine.toml", key)
    assert words in caught.value.reason
    assert str(caught.value) == f"mine.toml: {key}: {caught.value.reason}"


# TOML, key that is named, words of the reason.
WRONG = [
    ("x = ", "-", "is not TOML"),
    ("x = 1", "x", "unknown key; known here: event_type, rollup"),
    ("event_type = 1", "event_type", "must be a table, not 1"),
    ("[event_type]\nsales = 1", "event_type.sales", "must be a table, not 1"),
    ("[event_type.Sales]", "event_type.Sales", "lower-case letters"),
    ('[event_type."a b"]', "event_type.a b", "lower-case letters"),
    (f"[event_type.{'x' * 49}]", f"event_type.{'x' * 49}", "at most 48"),
    ("[event_type.1x]", "event_type.1x", "starts with a letter"),
    (f"{SALES}[event_type.timestamp]", "event_type.timestamp", "'timestamp' is taken"),
    (f"{SALES}[event_type.sales_keys]", "event_type.sales_keys", "'sales_keys' is taken"),
    ("[event_type.sales]", "event_type.sales.time", "is missing"),
    ('[event_type.sales]\ntime = 1', "event_type.sales.time", "must be a text, not 1"),
    ('[event_type.sales]\ntime = "Sold At"', "event_type.sales.time", "'Sold At': a name is lower-case"),
    ('[event_type.sales]\ncolour = "red"', "event_type.sales.colour", "unknown key; known here: fields, partition"),
    (SALES.replace("sold_at", "received_at"), "event_type.sales.time", "is a column every event table has"),
    (SALES.replace("sold_at", "xmin"), "event_type.sales.time", "is a column every event table has"),
    (SALES.replace("sold_at", "shop"), "event_type.sales.fields.shop", "is a column every event table has"),
    (SALES.replace('subject = "shop"', 'subject = "who"'), "event_type.sales.subject", "'who' is none of its fields"),
    (f"{EVENT_TYPE}", "event_type.sales.fields", "is missing"),
    (f"{EVENT_TYPE}fields = 1", "event_type.sales.fields", "must be a table, not 1"),
    (f'{EVENT_TYPE}time_wire = "id"\n[event_type.sales.fields]\n{SHOP}', "event_type.sales.time_wire", "'id' is taken"),
    (
        f'{EVENT_TYPE}time_wire = "shop"\n[event_type.sales.fields]\n{SHOP}',
        "event_type.sales.fields.shop", "the key 'shop' is taken",
    ),
    (f'{EVENT_TYPE}partition = "week"', "event_type.sales.partition", "must be 'day' or 'month', not 'week'"),
    (f'{EVENT_TYPE}title = "a\\u0000b"\n[event_type.sales.fields]\n{SHOP}', "event_type.sales.title", "NUL"),
    *((f'{EVENT_TYPE}route = "{route}"', "event_type.sales.route", "is no path segment")
      for route in ("a/b", "", "a b", "ä", "-x", "x" * 65, "a%62", "..")),
    *((f'{EVENT_TYPE}route = "{route}"', "event_type.sales.route", "is taken")
      for route in ("batch", "aggregated", "health", "quarantine")),
    (f'{SALES}[event_type.other]\nroute = "sales"', "event_type.other.route", "'sales' is taken"),
    (fields("x = 1"), "event_type.sales.fields.x", "must be a table, not 1"),
    (fields("x = {}"), "event_type.sales.fields.x.type", "is missing"),
    (fields('X = { type = "text" }'), "event_type.sales.fields.X", "lower-case letters"),
    *((fields(f'{name} = {{ type = "text" }}'), f"event_type.sales.fields.{name}", "is a column every event table has")
      for name in ("id", "organization_id", "stored_at", "sold_at", "ctid", "tableoid")),
    (fields('x = { type = "text", wire = "id" }'), "event_type.sales.fields.x", "the key 'id' is taken"),
    (fields('x = { type = "text", wire = "shop" }'), "event_type.sales.fields.x", "the key 'shop' is taken"),
    (fields('x = { type = "text", wire = "sold_at" }'), "event_type.sales.fields.x", "the key 'sold_at' is taken"),
    (f"{SALES}[rollup.Revenue]", "rollup.Revenue", "lower-case letters"),
    (f"{SALES}[rollup.revenue]", "rollup.revenue.event_type", "is missing"),
    ('[rollup.revenue]\nevent_type = "buys"', "rollup.revenue.event_type", "no event type 'buys'; known: "),
    (f'{SALES}{ROLLUP}grain = "1h"', "rollup.revenue.grain", "unknown key; known here: dimensions, event_type"),
    (f"{SALES}{ROLLUP}", "rollup.revenue.measures", "is missing"),
    (f"{SALES}{ROLLUP}[rollup.revenue.measures]", "rollup.revenue.measures", "names no measure"),
    (rollup("n = 1"), "rollup.revenue.measures.n", "must be a table, not 1"),
    (rollup("n = {}"), "rollup.revenue.measures.n.kind", "is missing"),
    (rollup('N = { kind = "count" }'), "rollup.revenue.measures.N", "lower-case letters"),
    *((rollup(f'{name} = {{ kind = "count" }}'), f"rollup.revenue.measures.{name}", "is taken by a column")
      for name in ("shop", "bucket", "day", "organization_id", "window_start", "ctid")),
    (
        rollup('n = { kind = "avg", field = "amount" }\nn__count = { kind = "count" }'),
        "rollup.revenue.measures.n__count", "is taken by a column of the rollup",
    ),
    (
        rollup('n__sum = { kind = "count" }\nn = { kind = "avg", field = "amount" }'),
        "rollup.revenue.measures.n", "is taken by a column of the rollup",
    ),
    *((f'{fields(f"""{name} = {{ type = "integer" }}""")}[rollup.r]\nevent_type = "sales"\ndimensions = ["{name}"]\n'
       'measures = { n = { kind = "count" } }', "rollup.r.dimensions", f"'{name}' is a column every rollup has")
      for name in ("day", "week", "month", "bucket", "window_start")),
    (
        f'{fields("""note = { type = "text", length_max = 501 }""")}[rollup.r]\nevent_type = "sales"\n'
        'dimensions = ["shop", "note"]\nmeasures = { n = { kind = "count" } }',
        "rollup.r.dimensions", f"can take 2404 bytes, more than {KEY_BYTES_MAX}",
    ),
]  # fmt: skip


# Declaration of a field, key below it that is named, words of the reason.
WRONG_FIELDS = [
    ('type = "money"', "type", "'money' is no type; use one of text, integer"),
    ('type = "text", size = 1', "size", "unknown key; known here: description"),
    ('type = "text", required = 1', "required", "must be true or false, not 1"),
    *((f'type = "text", wire = {wire}', "wire", "must be 1 to 255 characters, without") for wire in
      ('""', '"a\\"b"', "'a\\b'", '"a\\tb"', f'"{"x" * 256}"')),
    ('type = "text", minimum = 1', "minimum", "means nothing for a field of type 'text'"),
    ('type = "uuid", maximum = 1', "maximum", "means nothing"),
    ('type = "integer", length_max = 1', "length_max", "means nothing"),
    ('type = "integer", length_min = 1', "length_min", "means nothing"),
    ('type = "boolean", values = ["a"]', "values", "means nothing"),
    ('type = "number", scale = 1', "scale", "means nothing"),
    ('type = "integer", minimum = 0.5', "minimum", "not 0.5"),
    ('type = "integer", minimum = true', "minimum", "not True"),
    ('type = "integer", maximum = "9"', "maximum", "not '9'"),
    ('type = "number", maximum = inf', "maximum", "not inf"),
    ('type = "decimal", minimum = nan', "minimum", "not nan"),
    (f'type = "integer", maximum = {2**63}', "maximum", "does not fit 64 bits"),
    (f'type = "integer", minimum = {-(2**63) - 1}', "minimum", "64 bits"),
    ('type = "integer", minimum = 2, maximum = 1', "minimum", "2 is above the maximum 1"),
    ('type = "text", length_min = 9, length_max = 8', "length_max", "between length_min and"),
    ('type = "text", length_max = 65537', "length_max", "65536"),
    ('type = "text", length_min = -1', "length_max", "between"),
    ('type = "text", length_max = true', "length_max", "must be a whole number, not True"),
    ('type = "text", values = "a"', "values", "must be a list of strings, not 'a'"),
    ('type = "text", values = [1]', "values", "must be a list of strings"),
    ('type = "text", values = ["a", "a"]', "values", "names one thing twice"),
    ('type = "text", values = ["\\u0000"]', "values", "must be a list of strings"),
    ('type = "decimal", scale = 19', "scale", "between 0 and 18, not 19"),
]  # fmt: skip

# Dimensions, words of the reason.
WRONG_DIMENSIONS = [
    ('["who"]', "'who' is no field of sales"),
    ('["amount"]', "that can be grouped by"),
    ('"shop"', "must be a list"),
    ('["shop", "shop"]', "twice"),
]  # fmt: skip

# Measure, key below it that is named, words of the reason.
WRONG_MEASURES = [
    ('{ kind = "median" }', "kind", "'median' is no kind of measure; use one of count, sum"),
    ('{ kind = "count", field = "amount" }', "field", "a count takes no field"),
    ('{ kind = "sum" }', "field", "is missing"),
    ('{ kind = "sum", field = "shop" }', "field", "'shop' is no numeric field of sales"),
    ('{ kind = "sum", field = "who" }', "field", "'who' is no numeric field"),
    ('{ kind = "latest" }', "field", "is missing"),
    ('{ kind = "latest", field = "who" }', "field", "'who' is no field of sales whose values can be told apart"),
    ('{ kind = "count", quantiles = [0.5] }', "quantiles", "a count takes no quantiles"),
    ('{ kind = "quantiles", field = "amount" }', "quantiles", "must be a list of 1 to 20 numbers such as"),
    ('{ kind = "quantiles", field = "amount", quantiles = [] }', "quantiles", "must be a list of 1 to 20"),
    ('{ kind = "quantiles", field = "amount", quantiles = [0.5, 0.5] }', "quantiles", "names one twice"),
    *((f'{{ kind = "quantiles", field = "amount", quantiles = [{wrong}] }}', "quantiles", "a number from 0 to 1")
      for wrong in ("1.01", "-0.1", "nan", "true", '"p50"')),
    ('{ kind = "quantiles", field = "shop", quantiles = [0.5] }', "field", "'shop' is no numeric field of sales"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "key", "words"), WRONG)
def test_a_wrong_file_is_refused_with_its_name_the_key_and_the_reason(text: str, key: str, words: str) -> None:
    refused(text, key, words)


@pytest.mark.parametrize(("declaration", "key", "words"), WRONG_FIELDS)
def test_a_wrong_field_is_refused(declaration: str, key: str, words: str) -> None:
    refused(fields(f"x = {{ {declaration} }}"), f"event_type.sales.fields.x.{key}", words)


@pytest.mark.parametrize(("dimensions", "words"), WRONG_DIMENSIONS)
def test_wrong_dimensions_are_refused(dimensions: str, words: str) -> None:
    head = ROLLUP.replace('["shop"]', dimensions)
    refused(rollup('n = { kind = "count" }', head), "rollup.revenue.dimensions", words)


@pytest.mark.parametrize(("measure", "key", "words"), WRONG_MEASURES)
def test_a_wrong_measure_is_refused(measure: str, key: str, words: str) -> None:
    refused(rollup(f"n = {measure}"), f"rollup.revenue.measures.n.{key}", words)


def test_the_shipped_catalog_loads_and_every_event_type_has_a_rollup() -> None:
    catalog = load_catalog()
    assert set(catalog.event_types) == {
        "agent_interactions", "command_executions", "commits", "http_requests", "productivity_metrics",
        "time_entries", "user_sessions", "events", "tracks", "usage_records", "executions", "user_activity",
        "credit_consumption",
    }  # fmt: skip
    for event_type in catalog.event_types.values():
        assert catalog.rollups_of(event_type.name), event_type.name
        assert event_type.field(event_type.subject_field) is not None


def test_what_a_file_leaves_out_has_a_default() -> None:
    catalog = parsed(rollup('n = { kind = "count" }'))
    sales = catalog.event_types["sales"]
    assert (sales.title, sales.route, sales.time_wire, sales.partition) == ("sales", "sales", "sold_at", "day")
    assert sales.columns == (
        "organization_id", "sold_at", "id", "source", "external_id", "received_at", "shop", "amount",
    )  # fmt: skip
    amount = sales.field("amount")
    assert amount is not None
    assert (amount.type, amount.required, amount.key) == (FieldType.DECIMAL, False, "amount")
    revenue = catalog.rollups["revenue"]
    assert (revenue.title, revenue.base_table, revenue.day_table) == ("revenue", "revenue_15m", "revenue_1d")
    assert revenue.measure("n") is not None
    assert revenue.measure("m") is None


def test_extremes_that_are_allowed() -> None:
    catalog = parsed(
        fields(
            f'low = {{ type = "integer", minimum = {-(2**63)}, maximum = {2**63 - 1} }}',
            'same = { type = "number", minimum = 0.5, maximum = 0.5 }',
            'long = { type = "text", length_min = 65536, length_max = 65536 }',
            'fine = { type = "decimal", scale = 18 }',
            'from = { type = "text", wire = "a \'quoted\' {key}" }',
            f'{"x" * 48} = {{ type = "text", values = ["it\'s", "100%", "a\\\\b"] }}',
        )
        + '[rollup.r]\nevent_type = "sales"\nmeasures = { n = { kind = "count" } }\n'
    )
    assert len(catalog.event_types["sales"].fields) == 8
    assert catalog.rollups["r"].dimensions == ()


@pytest.mark.parametrize("length", [500, 501])
def test_the_texts_of_a_rollup_must_fit_an_index_row(length: int) -> None:
    text = (
        fields(f'note = {{ type = "text", length_max = {length} }}')
        + '[rollup.r]\nevent_type = "sales"\ndimensions = ["shop", "note"]\nmeasures = { n = { kind = "count" } }'
    )
    if length == 500:
        assert parsed(text).rollups["r"].dimensions == ("shop", "note")
    else:
        with pytest.raises(CatalogError, match="lower the length_max"):
            parsed(text)


def test_values_count_by_the_longest_of_them() -> None:
    declared = fields('state = { type = "text", values = ["on", "off"] }')
    count = 'dimensions = ["shop", "state"]\nmeasures = { n = { kind = "count" } }'
    catalog = parsed(f'{declared}[rollup.r]\nevent_type = "sales"\n{count}')
    assert catalog.rollups["r"].dimensions == ("shop", "state")


def test_a_later_file_may_use_what_an_earlier_one_declares_but_not_declare_it_again() -> None:
    counts = '[rollup.r]\nevent_type = "sales"\nmeasures = { n = { kind = "count" } }'
    catalog = parse_catalog([("one.toml", SALES), ("two.toml", counts)])
    assert (catalog.event_types["sales"].file, catalog.rollups["r"].file) == ("one.toml", "two.toml")
    with pytest.raises(CatalogError, match=r"two.toml: event_type.sales: is declared in one.toml already"):
        parse_catalog([("one.toml", SALES), ("two.toml", SALES)])
    with pytest.raises(CatalogError, match=r"three.toml: rollup.r: is declared in two.toml already"):
        parse_catalog([("one.toml", SALES), ("two.toml", counts), ("three.toml", counts)])


def test_files_and_folders_are_added_to_the_shipped_catalog(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text('[rollup.r]\nevent_type = "sales"\nmeasures = { n = { kind = "count" } }')
    (tmp_path / "a.toml").write_text(SALES)
    (tmp_path / "c.txt").write_text("no catalog")
    catalog = load_catalog([tmp_path])
    assert catalog.event_types["sales"].file == str(tmp_path / "a.toml")
    assert "commits" in catalog.event_types
    assert load_catalog([tmp_path / "a.toml"]).event_types.keys() == catalog.event_types.keys()


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CatalogError, match="cannot be read") as caught:
        load_catalog([path])
    assert caught.value.file == str(path)
