DROP TRIGGER audit_created ON totalizer.organizations;
DROP TRIGGER audit_changed ON totalizer.organizations;
DROP TRIGGER audit_deleted ON totalizer.organizations;
DROP TRIGGER audit_created ON totalizer.api_keys;
DROP TRIGGER audit_revoked ON totalizer.api_keys;
DROP TRIGGER audit_rotated ON totalizer.api_keys;
DROP TRIGGER audit_changed ON totalizer.api_keys;
DROP TRIGGER audit_deleted ON totalizer.api_keys;
DROP TRIGGER audit_changed ON totalizer.organization_limits;
DROP TRIGGER audit_changed ON totalizer.retention;
DROP TRIGGER audit_changed ON totalizer.event_types;
DROP TRIGGER audit_changed ON totalizer.rollups;
DROP TRIGGER audit_silenced ON totalizer.alert_silences;
DROP TRIGGER audit_ended ON totalizer.alert_silences;
DROP FUNCTION totalizer.audit_row;

CREATE OR REPLACE FUNCTION totalizer.request_job(wanted text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    found_id bigint;
BEGIN
    PERFORM FROM totalizer.jobs WHERE name = wanted AND requestable FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT id INTO found_id FROM totalizer.job_runs WHERE job = wanted AND state = 'requested' ORDER BY id LIMIT 1;
    IF found_id IS NULL THEN
        INSERT INTO totalizer.job_runs (job, state, requested_at) VALUES (wanted, 'requested', now())
        RETURNING id INTO found_id;
    END IF;
    RETURN found_id;
END
$$;

CREATE OR REPLACE FUNCTION totalizer.drop_partition(type_name text, partition_name text, organizations uuid[], counts bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET lock_timeout TO '50ms'
    AS $$
DECLARE
    part totalizer.partitions;
BEGIN
    SELECT * INTO STRICT part FROM totalizer.partitions WHERE event_type = type_name AND name = partition_name;
    IF NOT EXISTS (SELECT FROM totalizer.retention_floors WHERE event_type = type_name AND organization_id IS NULL)
       OR EXISTS (SELECT FROM totalizer.retention_floors WHERE event_type = type_name AND raw_floor < part.ends) THEN
        RAISE EXCEPTION 'partition % is not below every floor', partition_name;
    END IF;
    IF EXISTS (
        SELECT FROM totalizer.dirty_marks
        WHERE event_type = type_name AND bucket >= part.starts AND bucket < part.ends
    ) THEN
        RAISE EXCEPTION 'buckets of partition % are marked', partition_name;
    END IF;
    EXECUTE format('ALTER TABLE events.%I DETACH PARTITION partitions.%I', type_name, partition_name);
    EXECUTE format('DROP TABLE partitions.%I', partition_name);
    INSERT INTO totalizer.removed_events (organization_id, event_type, events)
    SELECT o, type_name, n FROM unnest(organizations, counts) AS gone (o, n) WHERE n > 0;
END
$$;

DROP FUNCTION totalizer.note_change, totalizer.write_audit;
DROP TABLE totalizer.audit;
DROP FUNCTION totalizer.refuse_audit_change;
