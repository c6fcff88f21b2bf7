-- The version before knows neither the aim of a mark nor its turn: what is marked for one rollup is marked for all.
DO $$
DECLARE
    watched record;
BEGIN
    FOR watched IN
        SELECT tgrelid::regclass AS relation, tgname FROM pg_trigger
        WHERE tgname IN ('mark_updated', 'mark_deleted', 'mark_truncated')
          AND tgfoid = 'totalizer.mark_corrected'::regproc
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', watched.tgname, watched.relation);
    END LOOP;
END
$$;
CREATE OR REPLACE FUNCTION totalizer.ensure_partition(type_name text, day date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    length text;
    first_day date;
    next_day date;
    partition_name text;
BEGIN
    SELECT partition INTO STRICT length FROM totalizer.event_types WHERE name = type_name;
    first_day := date_trunc(length, day::timestamp)::date;
    next_day := (first_day + ('1 ' || length)::interval)::date;
    partition_name := type_name || '_p' || to_char(first_day, CASE length WHEN 'day' THEN 'YYYYMMDD' ELSE 'YYYYMM' END);
    IF to_regclass(format('partitions.%I', partition_name)) IS NOT NULL THEN
        RETURN partition_name;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('partition ' || type_name));
    IF to_regclass(format('partitions.%I', partition_name)) IS NOT NULL THEN
        RETURN partition_name;
    END IF;
    EXECUTE format('CREATE TABLE partitions.%I (LIKE events.%I INCLUDING ALL)', partition_name, type_name);
    EXECUTE format('GRANT INSERT ON partitions.%I TO totalizer_writer', partition_name);
    EXECUTE format(
        'ALTER TABLE events.%I ATTACH PARTITION partitions.%I FOR VALUES FROM (%L) TO (%L)',
        type_name, partition_name, first_day::timestamptz, next_day::timestamptz
    );
    RETURN partition_name;
END
$$;
DROP FUNCTION totalizer.watch_corrections;
DROP FUNCTION totalizer.mark_corrected;
DROP TABLE totalizer.zone_fingerprints;
DROP FUNCTION totalizer.unique_count;
DROP FUNCTION totalizer.unique_is_estimate;
DROP FUNCTION totalizer.merge_unique;
DROP FUNCTION totalizer.quantile_values;
DROP FUNCTION totalizer.merge_quantiles;
DROP FUNCTION totalizer.count_quantiles;
DROP FUNCTION totalizer.quantile_index;
ALTER TABLE totalizer.rollups DROP COLUMN version;
DROP INDEX totalizer.dirty_marks_by_turn;
ALTER TABLE totalizer.dirty_marks DROP COLUMN rollup, DROP COLUMN scope, DROP COLUMN priority;
