"""The tables that follow from a catalog: events, their keys, and rollups, each under row-level security."""

from __future__ import annotations

from collections.abc import Iterable

from totalizer.catalog import EventType, Field, Measure, Rollup
from totalizer.catalog.levels import Level
from totalizer.catalog.measures import State, states
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.store.roles import Role

#: The sub-select makes the setting an InitPlan: it is read once a query instead of once a row.
OWN_ROWS = "organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid)"


def create_event_type(event_type: EventType) -> list[str]:
    """DDL of a new event type: the partitioned table, the table of its sender-chosen ids, policies and grants."""
    table, keys = f"events.{quoted(event_type.name)}", f"events.{quoted(event_type.name + '_keys')}"
    time = quoted(event_type.time_field)
    columns = [
        "organization_id uuid NOT NULL",
        f"{time} timestamptz NOT NULL",
        "id uuid NOT NULL",
        "source text",
        "external_id text",
        "received_at timestamptz NOT NULL",
        *(_column(field) + (" NOT NULL" if field.required else "") for field in event_type.fields),
        "stored_at timestamptz NOT NULL DEFAULT now()",
        # Organisation and time first: the same index finds duplicates and answers reads by tenant and time.
        f"PRIMARY KEY (organization_id, {time}, id)",
    ]
    body = ",\n    ".join(columns)
    return [
        f"CREATE TABLE {table} (\n    {body}\n) PARTITION BY RANGE ({time})",
        # Rows lie in the order they were stored in: a few kilobytes tell where those are that an export lacks.
        f"CREATE INDEX ON {table} USING brin (stored_at) WITH (autosummarize)",
        f"CREATE TABLE {keys} (\n    organization_id uuid NOT NULL,\n    id uuid NOT NULL,\n"
        f"    event_time timestamptz NOT NULL,\n    PRIMARY KEY (organization_id, id)\n)",
        f"COMMENT ON TABLE {keys} IS 'Ids that senders chose, so that a resend is found whatever its time'",
        # Ids come about in the order of their events' times: enough to find those that are old enough to be forgotten.
        f"CREATE INDEX ON {keys} USING brin (event_time) WITH (autosummarize)",
        *_secured(table),
        f"CREATE POLICY load_events ON {table} FOR ALL TO {Role.WRITER.value} USING (true) WITH CHECK (true)",
        f"CREATE POLICY read_events ON {table} FOR SELECT TO {Role.REFRESHER.value} USING (true)",
        # Whatever goes wrong with retention, nothing that is above the floor can be removed by it.
        f"CREATE POLICY retain ON {table} FOR DELETE TO {Role.REFRESHER.value} "
        f"USING ({time} < totalizer.raw_floor('{event_type.name}', organization_id))",
        f"GRANT SELECT ON {table} TO {Role.APP.value}, {Role.REFRESHER.value}",
        f"GRANT DELETE ON {table} TO {Role.REFRESHER.value}",
        f"GRANT SELECT, DELETE ON {keys} TO {Role.REFRESHER.value}",
        f"GRANT SELECT, INSERT ON {table}, {keys} TO {Role.WRITER.value}",
        "SELECT totalizer.watch_corrections("
        f"'{event_type.name}', '{event_type.time_field}', 'events.{event_type.name}', false)",
    ]


def add_field(event_type: EventType, field: Field) -> list[str]:
    """DDL of a new field. Rows stored before have no value, so the column allows null."""
    return [f"ALTER TABLE events.{quoted(event_type.name)} ADD COLUMN {_column(field)}"]


def _column(field: Field) -> str:
    return f"{quoted(field.name)} {field.type.column_type}"


def create_rollup(rollup: Rollup, event_type: EventType) -> list[str]:
    """DDL of a new rollup: a table for each of its grains."""
    return [statement for level in rollup.kept for statement in create_level(rollup, level, event_type)]


def create_level(rollup: Rollup, level: Level, event_type: EventType) -> list[str]:
    """DDL of one grain of a rollup."""
    name = f"analytics.{quoted(rollup.table(level))}"
    columns = [
        "organization_id uuid NOT NULL",
        f"{level.key} {level.key_type} NOT NULL",
        *(f"{quoted(name)} {_field(event_type, name).type.column_type}" for name in rollup.dimensions),
        *(_state_column(state) for state in rollup_states(rollup, event_type)),
        f"UNIQUE NULLS NOT DISTINCT ({quoted_list(['organization_id', level.key, *rollup.dimensions])})",
    ]
    body = ",\n    ".join(columns)
    return [
        f"CREATE TABLE {name} (\n    {body}\n) WITH (autovacuum_vacuum_scale_factor = 0.05)",
        *_secured(name),
        f"CREATE POLICY refresh ON {name} FOR ALL TO {Role.REFRESHER.value} USING (true) WITH CHECK (true)",
        f"GRANT SELECT ON {name} TO {Role.APP.value}",
        f"GRANT SELECT, INSERT, DELETE ON {name} TO {Role.REFRESHER.value}",
    ]


def drop_level(rollup: Rollup, level: Level) -> list[str]:
    """DDL that removes one grain of a rollup. It is derived, so nothing is lost that cannot be computed again."""
    return [f"DROP TABLE analytics.{quoted(rollup.table(level))}"]


def add_measure(rollup: Rollup, measure: Measure, event_type: EventType, levels: Iterable[Level]) -> list[str]:
    """DDL of a new measure in the grains given; the caller marks every bucket, so that it fills."""
    columns = [_state_column(state) for state in measure_states(measure, event_type)]
    return [
        f"ALTER TABLE analytics.{quoted(rollup.table(level))} ADD COLUMN {column}"
        for level in levels
        for column in columns
    ]


def mark_rollup(rollup: Rollup, event_type: EventType, within_s: int | None = None) -> str:
    """Mark every bucket that has events for one rollup, behind all live marks.

    Args:
        rollup: the rollup that is new, or has something new.
        event_type: what it counts.
        within_s: only buckets of the last so many seconds; None for all.
    """
    time = quoted(event_type.time_field)
    recent = f"\nWHERE {time} >= now() - interval '{within_s} seconds'" if within_s is not None else ""
    return (
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, rollup, priority)\n"
        f"SELECT DISTINCT organization_id, '{event_type.name}',"
        f" date_bin('15 minutes', {time}, 'epoch'::timestamptz), '{rollup.name}', 1\n"
        f"FROM events.{quoted(event_type.name)}{recent}"
    )


def rollup_states(rollup: Rollup, event_type: EventType) -> list[State]:
    """The state columns of every measure of a rollup, in order."""
    return [state for measure in rollup.measures for state in measure_states(measure, event_type)]


def measure_states(measure: Measure, event_type: EventType) -> list[State]:
    """The state columns of one measure."""
    field_type = _field(event_type, measure.field).type if measure.field else None
    return states(measure, field_type, event_type.time_field)


def _field(event_type: EventType, name: str) -> Field:
    field = event_type.field(name)
    assert field is not None, f"{event_type.name} has no field {name}; the catalog was not checked"
    return field


def _state_column(state: State) -> str:
    return f"{quoted(state.column)} {state.type}"


def _secured(table: str) -> list[str]:
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY own_rows ON {table} FOR SELECT TO {Role.APP.value} USING ({OWN_ROWS})",
    ]
