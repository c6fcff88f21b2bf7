"""The plan from one catalog to the next, without a database."""

from __future__ import annotations

import msgspec
import pytest

from totalizer.catalog import Catalog, load_catalog
from totalizer.catalog.read import parse_catalog
from totalizer.store.plan import Applied, Plan, compare
from totalizer.store.roles import Role

EMPTY = Applied({}, {})
OLD = """
[event_type.sales]
time = "sold_at"
subject = "shop"
[event_type.sales.fields]
shop = { type = "text", required = true, length_max = 100 }
amount = { type = "decimal", scale = 2 }
[rollup.revenue]
event_type = "sales"
dimensions = ["shop"]
[rollup.revenue.measures]
sales = { kind = "count" }
total = { kind = "sum", field = "amount" }
"""


def catalog_of(text: str = OLD) -> Catalog:
    return parse_catalog([("mine.toml", text)])


def stored(catalog: Catalog) -> Applied:
    """What a database gives back after it was given a catalog: through JSON and without file names."""
    without_files = Catalog(
        {name: msgspec.structs.replace(item, file="") for name, item in catalog.event_types.items()},
        {name: msgspec.structs.replace(item, file="") for name, item in catalog.rollups.items()},
    )
    kept = msgspec.json.decode(msgspec.json.encode(without_files), type=Catalog)
    return Applied(kept.event_types, kept.rollups)


def changed(old: str, new: str) -> Plan:
    """The plan when one piece of OLD is written otherwise."""
    assert old in OLD
    return compare(stored(catalog_of()), catalog_of(OLD.replace(old, new)))


def ddl(plan: Plan) -> list[str]:
    """The statements but for those that note the new declaration."""
    statements = [statement for step in plan.steps for _, statement in step.statements]
    notes = ("INSERT INTO totalizer.event_types", "INSERT INTO totalizer.rollups")
    return [statement for statement in statements if not statement.startswith(notes)]


def test_from_nothing_everything_is_made() -> None:
    plan = compare(EMPTY, catalog_of())
    assert [step.title for step in plan.steps] == ["event type sales", "rollup revenue"]
    assert (plan.refusals, plan.notes) == ([], [])
    sql = plan.sql()
    grains = [f'analytics."revenue_{grain}"' for grain in ("15m", "1h", "1d", "1w", "1mo")]
    for table in ('events."sales"', 'events."sales_keys"', *grains):
        assert f"CREATE TABLE {table} (" in sql
    for table in ('events."sales"', *grains):
        assert f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY" in sql
        assert f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY" in sql
    assert "dirty_marks" not in sql, "there is nothing to compute anew"
    assert {role for step in plan.steps for role, _ in step.statements} == {Role.OWNER}


@pytest.mark.parametrize("catalog", [load_catalog(), catalog_of()])
def test_an_unchanged_catalog_is_an_empty_plan(catalog: Catalog) -> None:
    assert compare(stored(catalog), catalog) == Plan([], [], [])
    assert compare(stored(catalog), catalog).sql() == ""


def test_the_same_catalog_gives_the_same_sql() -> None:
    assert compare(EMPTY, load_catalog()).sql() == compare(EMPTY, load_catalog()).sql()


def test_no_table_is_open_to_the_app_but_through_row_security() -> None:
    """Every table the app may read has the policy that shows own rows only."""
    statements = ddl(compare(EMPTY, load_catalog()))
    grants = [statement for statement in statements if statement.startswith("GRANT") and "totalizer_app" in statement]
    readable = {grant.split(" ON ")[1].split(" TO ")[0] for grant in grants}
    policed = {s.split(" ON ")[1].split(" FOR ")[0] for s in statements if s.startswith("CREATE POLICY own_rows")}
    assert readable == policed != set()


def test_a_new_field_is_a_column_that_may_be_null() -> None:
    plan = changed("amount = {", 'currency = { type = "text", required = true }\namount = {')
    assert ddl(plan) == ['ALTER TABLE events."sales" ADD COLUMN "currency" text']
    assert plan.refusals == []


def test_a_field_that_is_not_required_any_more_may_be_null() -> None:
    plan = changed("required = true, ", "")
    assert ddl(plan) == ['ALTER TABLE events."sales" ALTER COLUMN "shop" DROP NOT NULL']


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("length_max = 100", "length_max = 200"),
        ('type = "decimal", scale = 2', 'type = "decimal", scale = 3, minimum = 0'),
        ('subject = "shop"', 'subject = "amount"'),
        ('subject = "shop"', 'subject = "shop"\ntitle = "It\'s 100% sold"'),
        ('subject = "shop"', 'subject = "shop"\ntime_wire = "timestamp"'),
        ('dimensions = ["shop"]', 'dimensions = ["shop"]\ntitle = "Revenue"'),
        ("amount = {", "amount = { required = true, "),
    ],
)
def test_what_changes_no_table_is_only_noted(old: str, new: str) -> None:
    plan = changed(old, new)
    assert ddl(plan) == []
    assert plan.refusals == []
    assert len(plan.steps) == 1
    assert plan.steps[0].title.endswith("new declaration")


def test_a_quote_in_a_declaration_stays_within_its_literal() -> None:
    plan = changed('subject = "shop"', 'subject = "shop"\ntitle = "a\'); DROP TABLE x; --"')
    [[(_, statement)]] = [step.statements for step in plan.steps]
    assert "a''); DROP TABLE x; --" in statement


def test_a_new_measure_is_a_column_and_stored_events_are_counted_again() -> None:
    plan = changed("[rollup.revenue.measures]", '[rollup.revenue.measures]\nmean = { kind = "avg", field = "amount" }')
    assert ddl(plan)[:-1] == [
        f'ALTER TABLE analytics."revenue_{grain}" ADD COLUMN {column}'
        for grain in ("15m", "1h", "1d", "1w", "1mo")
        for column in ('"mean__sum" numeric', '"mean__count" bigint')
    ]
    [(role, remark)] = plan.steps[-1].statements
    assert role is Role.REFRESHER
    assert remark.startswith("INSERT INTO totalizer.dirty_marks")
    assert 'FROM events."sales"' in remark


NEW_ROLLUP = '[rollup.all_sales]\nevent_type = "sales"\nmeasures = { n = { kind = "count" } }\n'


def test_a_new_rollup_over_stored_events_is_filled_from_them() -> None:
    plan = compare(stored(catalog_of()), catalog_of(OLD + NEW_ROLLUP))
    assert [step.title for step in plan.steps] == [
        "rollup all_sales", "compute rollup all_sales for the sales stored so far",
    ]  # fmt: skip


def test_a_rollup_declared_before_there_were_other_grains_gets_them_and_is_filled() -> None:
    catalog = catalog_of()
    applied = stored(catalog)
    old = msgspec.structs.replace(applied.rollups["revenue"], levels=("15m", "1d"))
    plan = compare(Applied(applied.event_types, {"revenue": old}), catalog)
    made = [statement.split(" (")[0] for statement in ddl(plan) if statement.startswith("CREATE TABLE")]
    assert made == [f'CREATE TABLE analytics."revenue_{grain}"' for grain in ("1h", "1w", "1mo")]
    assert ddl(plan)[-1].startswith("INSERT INTO totalizer.dirty_marks")
    assert "'revenue', 1\n" in ddl(plan)[-1], "for that rollup alone, behind what is live"


def test_minutes_are_filled_as_far_back_as_they_are_kept_and_dropped_with_their_declaration() -> None:
    plain, kept = catalog_of(), catalog_of(OLD.replace('["shop"]', '["shop"]\nminutes = "48h"'))
    [made, *_, mark] = ddl(compare(stored(plain), kept))
    assert made.startswith('CREATE TABLE analytics."revenue_1m" (')
    assert mark.endswith("WHERE \"sold_at\" >= now() - interval '172800 seconds'")
    assert ddl(compare(stored(kept), plain)) == ['DROP TABLE analytics."revenue_1m"']


def test_a_rollup_over_a_new_event_type_needs_no_filling() -> None:
    other = OLD.replace("sales", "visits").replace("revenue", "traffic")
    plan = compare(stored(catalog_of()), catalog_of(OLD + other))
    assert [step.title for step in plan.steps] == ["event type visits", "rollup traffic"]


# Old text, new text, what the refusal says, the way out it shows.
REFUSED = [
    ('amount = { type = "decimal", scale = 2 }\n', "", "field amount is gone", "keep it, with required = false"),
    ('{ type = "decimal", scale = 2 }', '{ type = "number" }', "field amount is stored as decimal and cannot become",
     "declare a new field under another name"),
    ('time = "sold_at"', 'time = "paid_at"', "time_field is 'sold_at' in the database and cannot become 'paid_at'",
     "declare a new event type"),
    ('time = "sold_at"', 'time = "sold_at"\npartition = "month"', "partition is 'day'", "declare a new event type"),
    ('dimensions = ["shop"]', "dimensions = []", "its dimensions are shop and cannot become none",
     "declare a new rollup under another name"),
    ('sales = { kind = "count" }\n', "", "measure sales is gone", "keep it, or declare a new rollup"),
    ('total = { kind = "sum"', 'total = { kind = "max"', "measure total cannot change its meaning",
     "add a measure under another name"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "what", "way_out"), REFUSED)
def test_what_would_destroy_data_is_refused_with_the_way_out(old: str, new: str, what: str, way_out: str) -> None:
    text = OLD.replace(old, new)
    if "amount" not in text.split("[rollup")[0]:
        text = text.replace('total = { kind = "sum", field = "amount" }\n', "")
    plan = compare(stored(catalog_of()), catalog_of(text))
    [refusal] = [refusal for refusal in plan.refusals if what in refusal]
    assert way_out in refusal
    assert not any("DROP COLUMN" in statement for statement in ddl(plan))


def test_a_rollup_cannot_count_something_else() -> None:
    other = OLD.replace("sales", "visits").replace("rollup.revenue", "rollup.traffic")
    both = catalog_of(OLD + other)
    moved = catalog_of((OLD + other).replace('event_type = "sales"', 'event_type = "visits"'))
    [refusal] = compare(stored(both), moved).refusals
    assert "it counts sales and cannot count visits; declare a new rollup" in refusal


def test_all_refusals_are_told_at_once() -> None:
    text = OLD.replace('time = "sold_at"', 'time = "paid_at"').replace('sales = { kind = "count" }\n', "")
    assert len(compare(stored(catalog_of()), catalog_of(text)).refusals) == 2


def test_what_is_no_longer_declared_is_left_in_place_and_said_so() -> None:
    plan = compare(stored(catalog_of()), Catalog({}, {}))
    assert (plan.steps, plan.refusals) == ([], [])
    assert plan.notes == [
        "event type sales is no longer declared; its table events.sales is left in place",
        "rollup revenue is no longer declared; its tables are left in place and kept up to date",
    ]
