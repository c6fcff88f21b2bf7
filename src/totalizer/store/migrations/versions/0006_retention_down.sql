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
DROP FUNCTION totalizer.raw_floor;
DROP FUNCTION totalizer.floors_of;
DROP TABLE totalizer.retention_floors;
DROP SEQUENCE totalizer.floor_changes;
DROP TABLE totalizer.retention;
