"""The tables that follow from a catalog: events, their keys, and rollups, each under row-level security."""

from __future__ import annotations

from totalizer.catalog import EventType, Field, Measure, Rollup
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
    ]


def add_field(event_type: EventType, field: Field) -> list[str]:
    """DDL of a new field. Rows stored before have no value, so the column allows null."""
    return [f"ALTER TABLE events.{quoted(event_type.name)} ADD COLUMN {_column(field)}"]


def _column(field: Field) -> str:
    return f"{quoted(field.name)} {field.type.column_type}"


def create_rollup(rollup: Rollup, event_type: EventType) -> list[str]:
    """DDL of a new rollup: its table of 15-minute buckets and its table of local days."""
    statements = []
    for table, bucket in ((rollup.base_table, "bucket timestamptz"), (rollup.day_table, "day date")):
        name = f"analytics.{quoted(table)}"
        columns = [
            "organization_id uuid NOT NULL",
            f"{bucket} NOT NULL",
            *(f"{quoted(name)} {_field(event_type, name).type.column_type}" for name in rollup.dimensions),
            *(_state_column(state) for state in rollup_states(rollup, event_type)),
        ]
        key = ["organization_id", bucket.split()[0], *rollup.dimensions]
        columns.append(f"UNIQUE NULLS NOT DISTINCT ({quoted_list(key)})")
        body = ",\n    ".join(columns)
        statements += [
            f"CREATE TABLE {name} (\n    {body}\n) WITH (autovacuum_vacuum_scale_factor = 0.05)",
            *_secured(name),
            f"CREATE POLICY refresh ON {name} FOR ALL TO {Role.REFRESHER.value} USING (true) WITH CHECK (true)",
            f"GRANT SELECT ON {name} TO {Role.APP.value}",
            f"GRANT SELECT, INSERT, DELETE ON {name} TO {Role.REFRESHER.value}",
        ]
    return statements


def add_measure(rollup: Rollup, measure: Measure, event_type: EventType) -> list[str]:
    """DDL of a new measure; the caller marks every bucket dirty, so that it fills."""
    columns = [_state_column(state) for state in measure_states(measure, event_type)]
    return [
        f"ALTER TABLE analytics.{quoted(table)} ADD COLUMN {column}"
        for table in (rollup.base_table, rollup.day_table)
        for column in columns
    ]


def mark_everything(event_type: EventType) -> str:
    """Mark every bucket that has events, so that rollups are computed for events already stored."""
    time = quoted(event_type.time_field)
    return (
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket)\n"
        f"SELECT DISTINCT organization_id, '{event_type.name}',"
        f" date_bin('15 minutes', {time}, 'epoch'::timestamptz)\nFROM events.{quoted(event_type.name)}"
    )


def rollup_states(rollup: Rollup, event_type: EventType) -> list[State]:
    """The state columns of every measure of a rollup, in order."""
    return [state for measure in rollup.measures for state in measure_states(measure, event_type)]


def measure_states(measure: Measure, event_type: EventType) -> list[State]:
    """The state columns of one measure."""
    return states(measure, _field(event_type, measure.field).type if measure.field else None)


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
