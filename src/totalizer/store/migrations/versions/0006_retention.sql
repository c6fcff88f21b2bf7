-- What is kept how long, the floors below which nothing is recomputed any more, and the events that come below them.

CREATE TABLE totalizer.retention (
    event_type text NOT NULL REFERENCES totalizer.event_types,
    organization_id uuid REFERENCES totalizer.organizations,
    raw_days integer CHECK (raw_days > 0),
    base_days integer CHECK (base_days >= raw_days + 2),
    hour_days integer CHECK (hour_days >= base_days),
    day_days integer CHECK (day_days >= base_days + 32),
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (event_type, organization_id),
    -- What is made of something that is kept for ever is kept for ever, too.
    CHECK (raw_days IS NOT NULL OR base_days IS NULL),
    CHECK (base_days IS NOT NULL OR (hour_days IS NULL AND day_days IS NULL))
);
COMMENT ON TABLE totalizer.retention IS 'What somebody has set: days that events, quarter hours, hours and days are kept; null: for ever. Without an organisation: for all that have no row of their own';
ALTER TABLE totalizer.retention ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_retention ON totalizer.retention FOR SELECT TO totalizer_app
    USING (organization_id IS NULL
           OR organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY see_retention ON totalizer.retention FOR SELECT TO totalizer_refresher USING (true);
GRANT SELECT ON totalizer.retention TO totalizer_app, totalizer_refresher;

CREATE SEQUENCE totalizer.floor_changes AS bigint;
CREATE TABLE totalizer.retention_floors (
    event_type text NOT NULL REFERENCES totalizer.event_types,
    organization_id uuid REFERENCES totalizer.organizations,
    raw_floor timestamptz NOT NULL DEFAULT '-infinity',
    key_floor timestamptz NOT NULL DEFAULT '-infinity' CHECK (key_floor <= raw_floor),
    base_floor timestamptz NOT NULL DEFAULT '-infinity' CHECK (base_floor <= raw_floor - interval '48 hours'),
    hour_floor timestamptz NOT NULL DEFAULT '-infinity' CHECK (hour_floor <= base_floor),
    day_floor date NOT NULL DEFAULT '-infinity' CHECK (day_floor <= (base_floor AT TIME ZONE 'UTC') - interval '32 days'),
    change bigint NOT NULL DEFAULT nextval('totalizer.floor_changes'),
    raised_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (event_type, organization_id)
);
COMMENT ON TABLE totalizer.retention_floors IS 'What lies below is removed, or about to be; a floor only rises. Without an organisation: of all that have no row of their own';
COMMENT ON COLUMN totalizer.retention_floors.raw_floor IS 'No bucket below it is ever recomputed from events';
COMMENT ON COLUMN totalizer.retention_floors.key_floor IS 'Ids of events below it are forgotten, so that a duplicate would not be known';
CREATE INDEX retention_floors_by_change ON totalizer.retention_floors (change);
ALTER TABLE totalizer.retention_floors ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_floors ON totalizer.retention_floors FOR SELECT TO totalizer_app
    USING (organization_id IS NULL
           OR organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY see_floors ON totalizer.retention_floors FOR SELECT TO totalizer_writer, totalizer_refresher USING (true);
GRANT SELECT ON totalizer.retention_floors TO totalizer_app, totalizer_writer, totalizer_refresher;

-- The floors of one organisation: its own, else those of all.
CREATE FUNCTION totalizer.floors_of(type_name text, organization uuid) RETURNS SETOF totalizer.retention_floors
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT * FROM totalizer.retention_floors
    WHERE event_type = type_name AND (organization_id = organization OR organization_id IS NULL)
    ORDER BY organization_id NULLS LAST LIMIT 1
$$;
CREATE FUNCTION totalizer.raw_floor(type_name text, organization uuid) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT coalesce((SELECT raw_floor FROM totalizer.floors_of(type_name, organization)), '-infinity')
$$;
REVOKE ALL ON FUNCTION totalizer.floors_of, totalizer.raw_floor FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.floors_of, totalizer.raw_floor
    TO totalizer_app, totalizer_writer, totalizer_refresher;

-- Keep every floor where it is until this transaction ends; returns the number of the last change. The lock comes before
-- the look: a change that is under way is waited for, and seen.
CREATE FUNCTION totalizer.hold_floors() RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('totalizer floors'));
    RETURN (SELECT coalesce(max(change), 0) FROM totalizer.retention_floors);
END
$$;
REVOKE ALL ON FUNCTION totalizer.hold_floors FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.hold_floors TO totalizer_writer, totalizer_refresher;

-- Raise an event type's floors to what is wanted, or as far as marks allow: a bucket that is still to be recomputed needs
-- its sources. One statement of its caller, so that nobody waits for a process that was stopped half way.
CREATE FUNCTION totalizer.raise_floors(
    type_name text, organization uuid, raw timestamptz, keys timestamptz, base timestamptz, hours timestamptz, days date
) RETURNS totalizer.retention_floors
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '500ms'
AS $$
DECLARE
    old totalizer.retention_floors;
    new totalizer.retention_floors;
    oldest timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('totalizer floors'));
    SELECT * INTO old FROM totalizer.floors_of(type_name, organization);
    old.event_type := type_name;
    old.raw_floor := coalesce(old.raw_floor, '-infinity');
    old.key_floor := coalesce(old.key_floor, '-infinity');
    old.base_floor := coalesce(old.base_floor, '-infinity');
    old.hour_floor := coalesce(old.hour_floor, '-infinity');
    old.day_floor := coalesce(old.day_floor, '-infinity');
    new := old;
    SELECT date_trunc('day', min(bucket)) INTO oldest FROM totalizer.dirty_marks
    WHERE event_type = type_name AND (organization IS NULL OR organization_id = organization);
    oldest := coalesce(oldest, 'infinity');
    new.raw_floor := greatest(old.raw_floor, least(raw, oldest));
    new.key_floor := greatest(old.key_floor, least(keys, new.raw_floor));
    -- The local day of a bucket may begin a day earlier, and its month 31 days.
    new.base_floor := greatest(old.base_floor, least(base, oldest - interval '1 day', new.raw_floor - interval '2 days'));
    new.hour_floor := greatest(old.hour_floor, least(hours, new.base_floor));
    new.day_floor := greatest(
        old.day_floor,
        least(days::timestamp, oldest::timestamp - interval '33 days', new.base_floor::timestamp - interval '32 days')::date
    );
    IF new IS DISTINCT FROM old OR old.organization_id IS DISTINCT FROM organization THEN
        INSERT INTO totalizer.retention_floors AS f
            (event_type, organization_id, raw_floor, key_floor, base_floor, hour_floor, day_floor)
        VALUES (type_name, organization, new.raw_floor, new.key_floor, new.base_floor, new.hour_floor, new.day_floor)
        ON CONFLICT (event_type, organization_id) DO UPDATE SET
            raw_floor = excluded.raw_floor, key_floor = excluded.key_floor, base_floor = excluded.base_floor,
            hour_floor = excluded.hour_floor, day_floor = excluded.day_floor, change = excluded.change, raised_at = now()
        RETURNING * INTO new;
    END IF;
    RETURN new;
END
$$;
REVOKE ALL ON FUNCTION totalizer.raise_floors FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.raise_floors TO totalizer_refresher;

-- What retention took away: so that the ledger can still be compared with what is stored.
CREATE TABLE totalizer.removed_events (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    events bigint NOT NULL,
    removed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE totalizer.removed_events IS 'Append-only: how many stored events retention has removed, by transaction, organisation and type';
CREATE INDEX removed_events_by_organization ON totalizer.removed_events (organization_id, event_type);
ALTER TABLE totalizer.removed_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_removed ON totalizer.removed_events FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY note_removed ON totalizer.removed_events FOR ALL TO totalizer_refresher USING (true) WITH CHECK (true);
GRANT SELECT ON totalizer.removed_events TO totalizer_app;
GRANT SELECT, INSERT, DELETE ON totalizer.removed_events TO totalizer_refresher;

-- Every partition with its bounds: from starts up to, not including, ends.
CREATE VIEW totalizer.partitions WITH (security_invoker = true) AS
SELECT parent.relname::text AS event_type, part.relname::text AS name,
       (regexp_match(bounds, 'FROM \(''([^'']*)''\)'))[1]::timestamptz AS starts,
       (regexp_match(bounds, 'TO \(''([^'']*)''\)'))[1]::timestamptz AS ends
FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent,
     pg_get_expr(part.relpartbound, part.oid) AS bounds
WHERE parent.relnamespace = 'events'::regnamespace AND part.relnamespace = 'partitions'::regnamespace
  AND part.relkind = 'r';
GRANT SELECT ON totalizer.partitions TO totalizer_writer, totalizer_refresher;

-- Take a partition off its table and drop it, if it lies below everybody's floor. Readers that come meanwhile wait for the
-- lock's time-out at most: whoever holds the table longer is not waited for, the caller tries again.
-- The caller has counted the rows; nothing is added below a floor, so that the count still holds.
CREATE FUNCTION totalizer.drop_partition(type_name text, partition_name text, organizations uuid[], counts bigint[])
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '50ms'
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
REVOKE ALL ON FUNCTION totalizer.drop_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.drop_partition TO totalizer_refresher;

-- Events whose bucket is not recomputed from events any more. They are added to the rollups as they are.
CREATE TABLE totalizer.late_events (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    event_time timestamptz NOT NULL,
    event_id uuid NOT NULL,
    columns text[] NOT NULL,
    line bytea NOT NULL,
    state text NOT NULL CHECK (state IN ('late', 'held', 'applied')),
    received_hour timestamptz NOT NULL,
    shard smallint NOT NULL GENERATED ALWAYS AS (uuid_hash(organization_id) & 15) STORED,
    stored_at timestamptz NOT NULL DEFAULT now(),
    applied_at timestamptz,
    UNIQUE (organization_id, event_type, event_id)
);
COMMENT ON TABLE totalizer.late_events IS 'Events that came below the raw floor of their organisation';
COMMENT ON COLUMN totalizer.late_events.state IS 'late: to be added to the rollups; held: its id may have been forgotten, so somebody must say whether it counts; applied: added';
CREATE INDEX late_events_waiting ON totalizer.late_events (event_type, shard, id) WHERE state = 'late';
CREATE INDEX late_events_applied ON totalizer.late_events (applied_at) WHERE state = 'applied';
ALTER TABLE totalizer.late_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_late ON totalizer.late_events FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY keep_late ON totalizer.late_events FOR ALL TO totalizer_writer USING (true) WITH CHECK (true);
CREATE POLICY apply_late ON totalizer.late_events FOR ALL TO totalizer_refresher USING (true) WITH CHECK (true);
GRANT SELECT ON totalizer.late_events TO totalizer_app;
GRANT SELECT, INSERT, DELETE, UPDATE (state) ON totalizer.late_events TO totalizer_writer;
GRANT SELECT, DELETE, UPDATE (state, applied_at) ON totalizer.late_events TO totalizer_refresher;

CREATE TABLE totalizer.late_applied (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text NOT NULL,
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    rollup text NOT NULL,
    events bigint NOT NULL,
    rows jsonb NOT NULL,
    added jsonb NOT NULL
);
COMMENT ON TABLE totalizer.late_applied IS 'Who added late events to a rollup, when, to how many rows of each of its tables, and how much';
COMMENT ON COLUMN totalizer.late_applied.added IS 'What was added, by quarter hour: the rows that were merged into those of the tables';
CREATE INDEX late_applied_by_organization ON totalizer.late_applied (organization_id, event_type, applied_at);
ALTER TABLE totalizer.late_applied ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_applied ON totalizer.late_applied FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY note_applied ON totalizer.late_applied FOR ALL TO totalizer_refresher USING (true) WITH CHECK (true);
GRANT SELECT ON totalizer.late_applied TO totalizer_app;
GRANT SELECT, INSERT ON totalizer.late_applied TO totalizer_refresher;

-- Corrections below the raw floor mark nothing: those buckets are not computed from events any more.
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
        'SELECT organization_id, %4$L, bucket FROM ('
        'SELECT DISTINCT organization_id, date_bin(''15 minutes'', %1$I, ''epoch''::timestamptz) AS bucket FROM ('
        || changed || ') AS changed) AS buckets WHERE bucket >= totalizer.raw_floor(%4$L, organization_id)',
        TG_ARGV[1], TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
    );
    RETURN NULL;
END
$$;

-- Event types there are already: rows below the floor may be removed, and no others; ids are found by their age.
DO $$
DECLARE
    kind record;
BEGIN
    FOR kind IN SELECT name, time_field FROM totalizer.event_types LOOP
        EXECUTE format(
            'CREATE POLICY retain ON events.%I FOR DELETE TO totalizer_refresher USING (%I < totalizer.raw_floor(%L, organization_id))',
            kind.name, kind.time_field, kind.name
        );
        EXECUTE format('GRANT DELETE ON events.%I TO totalizer_refresher', kind.name);
        EXECUTE format('GRANT SELECT, DELETE ON events.%I TO totalizer_refresher', kind.name || '_keys');
        EXECUTE format('CREATE INDEX ON events.%I USING brin (event_time) WITH (autosummarize)', kind.name || '_keys');
    END LOOP;
END
$$;

-- Materialised views know no row security: nobody but the refresher, whose they are, reads them; see totalizer.publish.
CREATE SCHEMA materialized;
COMMENT ON SCHEMA materialized IS 'Materialised views; readers have no access here, they read the views of the same names in analytics';
GRANT USAGE, CREATE ON SCHEMA materialized TO totalizer_refresher;

-- Give readers a view of a materialised view that shows them their own organisation's rows.
CREATE FUNCTION totalizer.publish(materialized_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM pg_matviews WHERE schemaname = 'materialized' AND matviewname = materialized_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no materialised view %', materialized_name;
    END IF;
    EXECUTE format(
        'CREATE OR REPLACE VIEW analytics.%1$I WITH (security_barrier = true) AS SELECT * FROM materialized.%1$I '
        'WHERE organization_id = (SELECT nullif(current_setting(''app.current_org_id'', true), '''')::uuid)',
        materialized_name
    );
    EXECUTE format('GRANT SELECT ON analytics.%I TO totalizer_app', materialized_name);
END
$$;
REVOKE ALL ON FUNCTION totalizer.publish FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.publish TO totalizer_refresher;
