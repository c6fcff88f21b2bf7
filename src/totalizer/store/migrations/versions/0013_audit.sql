-- Who changed what: written by the database itself, in the transaction of the change, and never changed again.

CREATE TABLE totalizer.audit (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    organization_id uuid,
    actor jsonb NOT NULL CHECK (actor ? 'kind'),
    action text NOT NULL,
    target text NOT NULL,
    before jsonb,
    after jsonb
);
COMMENT ON TABLE totalizer.audit IS 'Append-only: every change that a person or a key made';
COMMENT ON COLUMN totalizer.audit.organization_id IS 'Whose data or keys it is about, else whose key made it; null: of the installation';
COMMENT ON COLUMN totalizer.audit.actor IS 'kind: api_key, token, command_line or database; with id, name and role as far as there are';
CREATE INDEX audit_by_organization ON totalizer.audit (organization_id, id);
ALTER TABLE totalizer.audit ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_audit ON totalizer.audit FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY see_audit ON totalizer.audit FOR SELECT TO totalizer_refresher USING (true);
-- Nobody may insert: write_audit does. So neither the time nor the number of an entry can be chosen.
GRANT SELECT ON totalizer.audit TO totalizer_app, totalizer_refresher;

-- Holds the owner and superusers, too, whom no grant holds.
CREATE FUNCTION totalizer.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'totalizer.audit is append-only: its entries are neither changed nor removed';
END
$$;
REVOKE ALL ON FUNCTION totalizer.refuse_audit_change FROM PUBLIC;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON totalizer.audit
    FOR EACH STATEMENT EXECUTE FUNCTION totalizer.refuse_audit_change();

-- The actor is what the session or transaction was told in app.actor, as JSON; else the database role that logged in.
CREATE FUNCTION totalizer.write_audit(organization uuid, done text, what text, was jsonb, becomes jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    who jsonb := coalesce(
        nullif(current_setting('app.actor', true), '')::jsonb,
        jsonb_build_object('kind', 'database', 'id', session_user)
    );
BEGIN
    IF who ->> 'kind' = 'api_key' THEN
        who := who || jsonb_strip_nulls(jsonb_build_object(
            'name', (SELECT name FROM totalizer.api_keys WHERE id::text = who ->> 'id')
        ));
    END IF;
    INSERT INTO totalizer.audit (organization_id, actor, action, target, before, after)
    VALUES (
        coalesce(organization, nullif(current_setting('app.current_org_id', true), '')::uuid),
        who, done, what, was, becomes
    );
END
$$;
REVOKE ALL ON FUNCTION totalizer.write_audit FROM PUBLIC;

-- For what jobs do as well as people: without an actor it is the service's own work, and is no entry.
CREATE FUNCTION totalizer.note_change(organization uuid, done text, what text, was jsonb, becomes jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF nullif(current_setting('app.actor', true), '') IS NOT NULL THEN
        PERFORM totalizer.write_audit(organization, done, what, was, becomes);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION totalizer.note_change FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.note_change TO totalizer_writer, totalizer_refresher;

-- For tables that only people change; its arguments are the action, and the column that names what was changed.
CREATE FUNCTION totalizer.audit_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    hidden CONSTANT text[] := ARRAY['key_hash', 'last_used_at', 'applied_at', 'changed_at'];
    was jsonb := to_jsonb(OLD) - hidden;
    becomes jsonb := to_jsonb(NEW) - hidden;
    present jsonb := coalesce(becomes, was);
    owner text := CASE TG_TABLE_NAME WHEN 'organizations' THEN 'id' ELSE 'organization_id' END;
BEGIN
    IF was IS DISTINCT FROM becomes THEN
        PERFORM totalizer.write_audit((present ->> owner)::uuid, TG_ARGV[0], present ->> TG_ARGV[1], was, becomes);
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION totalizer.audit_row FROM PUBLIC;

CREATE TRIGGER audit_created AFTER INSERT ON totalizer.organizations
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('organization.create', 'name');
CREATE TRIGGER audit_changed AFTER UPDATE ON totalizer.organizations
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('organization.change', 'name');
CREATE TRIGGER audit_deleted AFTER DELETE ON totalizer.organizations
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('organization.delete', 'name');
CREATE TRIGGER audit_created AFTER INSERT ON totalizer.api_keys
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('key.create', 'id');
CREATE TRIGGER audit_revoked AFTER UPDATE ON totalizer.api_keys
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL)
    EXECUTE FUNCTION totalizer.audit_row('key.revoke', 'id');
CREATE TRIGGER audit_rotated AFTER UPDATE ON totalizer.api_keys
    FOR EACH ROW WHEN (OLD.replaced_by IS DISTINCT FROM NEW.replaced_by)
    EXECUTE FUNCTION totalizer.audit_row('key.rotate', 'id');
-- By hand: the service changes nothing else of a key but when it was used.
CREATE TRIGGER audit_changed AFTER UPDATE ON totalizer.api_keys
    FOR EACH ROW WHEN (
        (OLD.organization_id, OLD.name, OLD.key_hash, OLD.scopes)
            IS DISTINCT FROM (NEW.organization_id, NEW.name, NEW.key_hash, NEW.scopes)
        OR OLD.expires_at IS DISTINCT FROM NEW.expires_at AND OLD.replaced_by IS NOT DISTINCT FROM NEW.replaced_by
        OR OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at
    ) EXECUTE FUNCTION totalizer.audit_row('key.change', 'id');
CREATE TRIGGER audit_deleted AFTER DELETE ON totalizer.api_keys
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('key.delete', 'id');
CREATE TRIGGER audit_changed AFTER INSERT OR UPDATE OR DELETE ON totalizer.organization_limits
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('limits.change', 'organization_id');
CREATE TRIGGER audit_changed AFTER INSERT OR UPDATE OR DELETE ON totalizer.retention
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('retention.change', 'event_type');
CREATE TRIGGER audit_changed AFTER INSERT OR UPDATE OR DELETE ON totalizer.event_types
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('catalog.event_type', 'name');
CREATE TRIGGER audit_changed AFTER INSERT OR UPDATE OR DELETE ON totalizer.rollups
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('catalog.rollup', 'name');
CREATE TRIGGER audit_silenced AFTER INSERT ON totalizer.alert_silences
    FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('alert.silence', 'rule');
CREATE TRIGGER audit_ended AFTER UPDATE ON totalizer.alert_silences
    FOR EACH ROW WHEN (NEW.until < OLD.until) EXECUTE FUNCTION totalizer.audit_row('alert.unsilence', 'rule');

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
        PERFORM totalizer.write_audit(NULL, 'job.run', wanted, NULL, jsonb_build_object('run', found_id));
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
    PERFORM totalizer.note_change(
        NULL, 'partition.drop', partition_name,
        jsonb_build_object(
            'event_type', type_name, 'starts', part.starts, 'ends', part.ends,
            'events', (SELECT coalesce(sum(n), 0) FROM unnest(counts) AS n)
        ), NULL
    );
    INSERT INTO totalizer.removed_events (organization_id, event_type, events)
    SELECT o, type_name, n FROM unnest(organizations, counts) AS gone (o, n) WHERE n > 0;
END
$$;
