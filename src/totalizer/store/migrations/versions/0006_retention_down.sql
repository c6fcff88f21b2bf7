DROP VIEW IF EXISTS analytics.execution_metrics_hourly, analytics.execution_metrics_daily, analytics.user_activity_hourly,
    analytics.credit_consumption_hourly;
DROP FUNCTION totalizer.publish;
DROP SCHEMA materialized CASCADE;
DO $$
DECLARE
    kind record;
BEGIN
    FOR kind IN SELECT name FROM totalizer.event_types LOOP
        EXECUTE format('DROP POLICY retain ON events.%I', kind.name);
        EXECUTE format('REVOKE DELETE ON events.%I FROM totalizer_refresher', kind.name);
        EXECUTE format('REVOKE SELECT, DELETE ON events.%I FROM totalizer_refresher', kind.name || '_keys');
        EXECUTE format('DROP INDEX IF EXISTS events.%I', kind.name || '_keys_event_time_idx');
    END LOOP;
END
$$;
DROP TABLE totalizer.late_applied;
DROP TABLE totalizer.late_events;
DROP FUNCTION totalizer.drop_partition;
DROP VIEW totalizer.partitions;
DROP TABLE totalizer.removed_events;
DROP FUNCTION totalizer.raise_floors;
DROP FUNCTION totalizer.hold_floors;
CREATE OR REPLACE FUNCTION totalizer.mark_corrected() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed text := CASE TG_OP
        WHEN 'UPDATE' THEN 'SELECT organization_id, %1$I FROM old_rows UNION ALL SELECT organization_id, %1$I FROM new_rows'
        WHEN 'DELETE' THEN 'SELECT organization_id, %1$I FROM old_rows'
        ELSE 'SELECT organization_id, %1$I FROM %2$I.%3$I'
    END;
BEGIN
    EXECUTE format(
        'INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) '
        'SELECT DISTINCT organization_id, %4$L, date_bin(''15 minutes'', %1$I, ''epoch''::timestamptz) FROM ('
        || changed || ') AS changed',
        TG_ARGV[1], TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
    );
    RETURN NULL;
END
$$;
DROP FUNCTION totalizer.raw_floor;
DROP FUNCTION totalizer.floors_of;
DROP TABLE totalizer.retention_floors;
DROP SEQUENCE totalizer.floor_changes;
DROP TABLE totalizer.retention;
