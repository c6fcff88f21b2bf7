-- The fixed schema at present, for reading; migrations/ makes it and a test compares the two.
-- After a new migration: UPDATE_SCHEMA=1 script/test tests/migration
CREATE SCHEMA totalizer;

CREATE FUNCTION totalizer.audit_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION totalizer.authenticate_key(hash bytea) RETURNS TABLE(key_id uuid, organization_id uuid, scopes text[], expires_at timestamp with time zone, last_used_at timestamp with time zone, limits bigint[])
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
    SELECT k.id, k.organization_id, k.scopes, k.expires_at, k.last_used_at, ARRAY[l.requests, l.batches, l.reads, l.bytes]
    FROM totalizer.api_keys k LEFT JOIN totalizer.organization_limits l ON l.organization_id = k.organization_id
    WHERE k.key_hash = hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
$$;

CREATE FUNCTION totalizer.count_quantiles(indices integer[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
BEGIN
    IF cardinality(indices) = 1 THEN
        RETURN indices[1] || ':1';
    END IF;
    RETURN (
        SELECT string_agg(index || ':' || n, ' ' ORDER BY index)
        FROM (SELECT index, count(*) AS n FROM unnest(indices) AS index WHERE index IS NOT NULL GROUP BY index) AS counted
    );
END
$$;

CREATE FUNCTION totalizer.count_rejected(organizations uuid[], hours timestamp with time zone[], types text[], codes text[], counts bigint[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
    INSERT INTO totalizer.rejected_events AS r (organization_id, hour, event_type, code, events)
    SELECT o, h, t, c, n FROM unnest(organizations, hours, types, codes, counts) AS new (o, h, t, c, n)
    WHERE n > 0 ORDER BY 1, 2, 3, 4
    ON CONFLICT (organization_id, hour, event_type, code) DO UPDATE SET events = r.events + excluded.events
$$;

CREATE FUNCTION totalizer.data_changed(organizations uuid[], types text[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
    INSERT INTO totalizer.data_versions AS v (organization_id, event_type, slot, stamp)
    SELECT o, t, pg_backend_pid() % 8, gen_random_uuid()
    FROM (SELECT DISTINCT o, t FROM unnest(organizations, types) AS changed (o, t) ORDER BY 1, 2) AS ordered
    ON CONFLICT (organization_id, event_type, slot) DO UPDATE SET stamp = excluded.stamp
$$;

CREATE FUNCTION totalizer.default_organization() RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$ SELECT id FROM totalizer.organizations WHERE name = 'default' $$;

CREATE FUNCTION totalizer.drop_partition(type_name text, partition_name text, organizations uuid[], counts bigint[]) RETURNS void
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

CREATE FUNCTION totalizer.ensure_partition(type_name text, day date) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
DECLARE
    length text;
    time_name text;
    first_day date;
    next_day date;
    partition_name text;
BEGIN
    SELECT partition, time_field INTO STRICT length, time_name FROM totalizer.event_types WHERE name = type_name;
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
    PERFORM totalizer.watch_corrections(type_name, time_name, format('partitions.%I', partition_name)::regclass, true);
    EXECUTE format(
        'ALTER TABLE events.%I ATTACH PARTITION partitions.%I FOR VALUES FROM (%L) TO (%L)',
        type_name, partition_name, first_day::timestamptz, next_day::timestamptz
    );
    RETURN partition_name;
END
$$;

CREATE FUNCTION totalizer.find_organization(wanted uuid) RETURNS TABLE(organization_id uuid, limits bigint[])
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
    SELECT o.id, ARRAY[l.requests, l.batches, l.reads, l.bytes]
    FROM totalizer.organizations o LEFT JOIN totalizer.organization_limits l ON l.organization_id = o.id
    WHERE o.id = wanted
$$;

CREATE SEQUENCE totalizer.floor_changes
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE totalizer.retention_floors (
    event_type text NOT NULL,
    organization_id uuid,
    raw_floor timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    key_floor timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    base_floor timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    hour_floor timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    day_floor date DEFAULT '-infinity'::date NOT NULL,
    change bigint DEFAULT nextval('totalizer.floor_changes'::regclass) NOT NULL,
    raised_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT retention_floors_check CHECK ((key_floor <= raw_floor)),
    CONSTRAINT retention_floors_check1 CHECK ((base_floor <= (raw_floor - '48:00:00'::interval))),
    CONSTRAINT retention_floors_check2 CHECK ((hour_floor <= base_floor)),
    CONSTRAINT retention_floors_check3 CHECK ((day_floor <= ((base_floor AT TIME ZONE 'UTC'::text) - '32 days'::interval)))
);

COMMENT ON TABLE totalizer.retention_floors IS 'What lies below is removed, or about to be; a floor only rises. Without an organisation: of all that have no row of their own';

COMMENT ON COLUMN totalizer.retention_floors.raw_floor IS 'No bucket below it is ever recomputed from events';

COMMENT ON COLUMN totalizer.retention_floors.key_floor IS 'Ids of events below it are forgotten, so that a duplicate would not be known';

CREATE FUNCTION totalizer.floors_of(type_name text, organization uuid) RETURNS SETOF totalizer.retention_floors
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT * FROM totalizer.retention_floors
    WHERE event_type = type_name AND (organization_id = organization OR organization_id IS NULL)
    ORDER BY organization_id NULLS LAST LIMIT 1
$$;

CREATE FUNCTION totalizer.health_facts() RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $_$
WITH marks AS (
    SELECT count(*) AS waiting, min(marked_at) AS oldest
    FROM (SELECT marked_at FROM totalizer.dirty_marks WHERE priority = 0 LIMIT 10000) AS bounded
), fresh AS (
    -- Sums of whole numbers of four bytes take half the time of others; a row is one transaction's.
    SELECT coalesce(sum(accepted::int) FILTER (WHERE loaded_at > now() - interval '1 minute'), 0) AS minute,
           coalesce(sum(accepted::int) FILTER (WHERE loaded_at > now() - interval '1 hour'), 0) AS hour,
           coalesce(sum(dead_lettered::int) FILTER (WHERE loaded_at > now() - interval '1 hour'), 0) AS refused,
           coalesce(sum(abs(accepted - loaded - duplicate - conflict - dead_lettered - dropped)::int), 0) AS unclear
    FROM totalizer.load_ledger WHERE loaded_at > now() - interval '2 days'
), letters AS (
    SELECT count(*) AS waiting, count(*) FILTER (WHERE created_at > now() - interval '1 hour') AS hour
    FROM (SELECT created_at FROM totalizer.dead_letters ORDER BY id DESC LIMIT 10000) AS bounded
), ended AS (
    SELECT j.name, r.* FROM totalizer.jobs j, LATERAL (
        SELECT id, state, started_at, finished_at, result, error FROM totalizer.job_runs
        WHERE job = j.name AND state NOT IN ('requested', 'running') ORDER BY id DESC LIMIT 1
    ) AS r
)
SELECT jsonb_build_object(
    'now_s', extract(epoch FROM clock_timestamp()),
    'marks', (SELECT waiting FROM marks),
    'oldest_mark_s', (SELECT extract(epoch FROM now() - oldest) FROM marks),
    'accepted_minute', (SELECT minute FROM fresh),
    'accepted_hour', (SELECT hour FROM fresh),
    'dead_lettered_hour', (SELECT greatest(refused, 0) FROM fresh),
    'without_fate', (SELECT unclear FROM fresh) + (
        SELECT coalesce(sum(abs(accepted - loaded - duplicate - conflict - dead_lettered - dropped)), 0)
        FROM totalizer.load_ledger_hourly WHERE received_hour > now() - interval '2 days'
    ),
    'letters', (SELECT waiting FROM letters),
    'letters_hour', (SELECT hour FROM letters),
    'gaps_day', (SELECT count(*) FROM totalizer.journal_gaps WHERE found_at > now() - interval '1 day'),
    'partition_days', (
        SELECT coalesce(min(CASE WHEN to_regclass(format('partitions.%I', e.name || '_p' || to_char(
            (now() AT TIME ZONE 'UTC')::date + k, CASE e.partition WHEN 'day' THEN 'YYYYMMDD' ELSE 'YYYYMM' END
        ))) IS NULL THEN k END), 8)
        FROM totalizer.event_types e, generate_series(0, 7) AS k
    ),
    'connections', (
        -- Of other roles' sessions only this much is to be seen.
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    ),
    'connections_max', current_setting('max_connections')::int,
    'offsets', (
        SELECT coalesce(jsonb_object_agg(journal_id, jsonb_build_array(segment, position)), '{}')
        FROM totalizer.journal_offsets
    ),
    'jobs', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'name', j.name,
            'late_s', extract(epoch FROM now() - j.next_run_at),
            'over_s', (
                SELECT extract(epoch FROM now() - min(started_at) - j.hard_limit) FROM totalizer.job_runs r
                WHERE r.job = j.name AND r.state = 'running'
            ),
            'failures', (
                SELECT count(*) FILTER (WHERE ended.state <> 'done' AND ended.id > coalesce(ended.done, 0)) FROM (
                    SELECT id, state, max(id) FILTER (WHERE state = 'done') OVER () AS done FROM (
                        SELECT id, state FROM totalizer.job_runs r
                        WHERE r.job = j.name AND r.state NOT IN ('requested', 'running') ORDER BY id DESC LIMIT 20
                    ) AS newest
                ) AS ended
            ),
            'state', e.state,
            'ended_s', extract(epoch FROM now() - e.finished_at),
            'took_s', extract(epoch FROM e.finished_at - e.started_at),
            'alerts', CASE WHEN jsonb_typeof(e.result->'alerts') = 'array' THEN e.result->'alerts' ELSE '[]' END
        )), '[]')
        FROM totalizer.jobs j LEFT JOIN ended e ON e.name = j.name WHERE j.enabled
    ),
    'mismatches', (
        SELECT count(*) FROM ended WHERE name = 'verify' AND error LIKE '%not balance%'
    ) + (
        -- It repairs what it finds, so its next run finds nothing: somebody shall see it even so.
        SELECT coalesce(sum((result->>'mismatched')::bigint), 0)::bigint FROM totalizer.job_runs
        WHERE job = 'reconcile' AND started_at > now() - interval '1 hour' AND result->>'mismatched' ~ '^[0-9]{1,18}$'
    ),
    'compared_s', (
        SELECT extract(epoch FROM now() - max(finished_at)) FROM ended WHERE name IN ('verify', 'reconcile')
    ),
    'usage_seen', EXISTS (
        SELECT FROM (
            SELECT result FROM totalizer.job_runs WHERE job = 'usage_aggregation' ORDER BY id DESC LIMIT 200
        ) AS late WHERE result->>'records_aggregated' ~ '^[1-9]'
    )
)
$_$;

CREATE FUNCTION totalizer.hold_floors() RETURNS bigint
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('totalizer floors'));
    RETURN (SELECT coalesce(max(change), 0) FROM totalizer.retention_floors);
END
$$;

CREATE FUNCTION totalizer.mark_corrected() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;

COMMENT ON FUNCTION totalizer.mark_corrected() IS 'Trigger; arguments: event type, its time field';

CREATE FUNCTION totalizer.merge_quantiles(states text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
BEGIN
    IF strpos(states, ' ') = 0 THEN
        RETURN states;
    END IF;
    RETURN (
        SELECT string_agg(index || ':' || n, ' ' ORDER BY index)
        FROM (
            SELECT split_part(pair, ':', 1)::integer AS index, sum(split_part(pair, ':', 2)::bigint) AS n
            FROM string_to_table(states, ' ') AS pair GROUP BY 1
        ) AS counted
    );
END
$$;

CREATE FUNCTION totalizer.merge_unique(states text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    merged text;
    values_counted bigint;
BEGIN
    IF strpos(states, ' ') = 0 THEN
        RETURN states;
    END IF;
    IF strpos(states, ':') = 0 THEN
        SELECT string_agg(hash, ' ' ORDER BY hash COLLATE "C"), count(*) INTO merged, values_counted
        FROM (SELECT DISTINCT hash FROM string_to_table(states, ' ') AS hash) AS hashes;
        IF values_counted <= 128 THEN
            RETURN merged;
        END IF;
    END IF;
    RETURN (
        SELECT string_agg(register || ':' || rank, ' ' ORDER BY register)
        FROM (
            SELECT register, max(rank) AS rank
            FROM string_to_table(states, ' ') AS item,
                 LATERAL (SELECT CASE WHEN strpos(item, ':') > 0 THEN split_part(item, ':', 1)::integer
                                      ELSE ('x' || substr(item, 1, 3))::bit(12)::integer END AS register,
                                 CASE WHEN strpos(item, ':') > 0 THEN split_part(item, ':', 2)::integer
                                      ELSE coalesce(nullif(position(B'1' IN ('x' || substr(item, 4, 13))::bit(52)), 0), 53)
                                 END AS rank) AS entry
            GROUP BY register
        ) AS registers
    );
END
$$;

CREATE FUNCTION totalizer.note_change(organization uuid, done text, what text, was jsonb, becomes jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF nullif(current_setting('app.actor', true), '') IS NOT NULL THEN
        PERFORM totalizer.write_audit(organization, done, what, was, becomes);
    END IF;
END
$$;

CREATE FUNCTION totalizer.note_floor_raised() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
BEGIN
    UPDATE totalizer.data_versions SET stamp = gen_random_uuid()
    WHERE event_type = NEW.event_type AND (NEW.organization_id IS NULL OR organization_id = NEW.organization_id);
    RETURN NULL;
END
$$;

CREATE FUNCTION totalizer.note_key_used(used uuid) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
    UPDATE totalizer.api_keys SET last_used_at = now()
    WHERE id = (
        SELECT id FROM totalizer.api_keys
        WHERE id = used AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
        FOR UPDATE SKIP LOCKED
    )
$$;

CREATE FUNCTION totalizer.note_late_applied() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
BEGIN
    PERFORM totalizer.data_changed(array_agg(organization_id), array_agg(event_type))
    FROM (SELECT DISTINCT organization_id, event_type FROM applied WHERE state = 'applied') AS changed
    HAVING count(*) > 0;
    RETURN NULL;
END
$$;

CREATE FUNCTION totalizer.note_marked() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
BEGIN
    INSERT INTO totalizer.data_versions AS v (organization_id, event_type, slot, stamp)
    SELECT organization_id, event_type, pg_backend_pid() % 8, gen_random_uuid()
    FROM (SELECT DISTINCT organization_id, event_type FROM marked ORDER BY 1, 2) AS ordered
    ON CONFLICT (organization_id, event_type, slot) DO UPDATE SET stamp = excluded.stamp;
    RETURN NULL;
END
$$;

CREATE FUNCTION totalizer.publish(materialized_name text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;

CREATE FUNCTION totalizer.quantile_index(x double precision) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN (x > (0)::double precision) THEN (40000 + (LEAST(ceil((ln(x) / (0.020000666706669435)::double precision)), (35488)::double precision))::integer) WHEN (x < (0)::double precision) THEN ('-40000'::integer - (LEAST(ceil((ln((- x)) / (0.020000666706669435)::double precision)), (35488)::double precision))::integer) ELSE 0 END;

CREATE FUNCTION totalizer.quantile_values(state text, quantiles double precision[]) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
DECLARE
    indices integer[];
    counts bigint[];
    total numeric;
    quantile double precision;
    place numeric;
    up_to bigint;
    value double precision;
    found jsonb := '{}';
BEGIN
    SELECT array_agg(split_part(pair, ':', 1)::integer), array_agg(split_part(pair, ':', 2)::bigint),
           sum(split_part(pair, ':', 2)::bigint)
    INTO indices, counts, total
    FROM string_to_table(state, ' ') AS pair;
    FOREACH quantile IN ARRAY quantiles LOOP
        place := floor(quantile::numeric * (total - 1));
        up_to := 0;
        FOR at IN 1 .. cardinality(counts) LOOP
            up_to := up_to + counts[at];
            IF up_to > place THEN
                value := CASE
                    WHEN indices[at] = 0 THEN 0
                    ELSE sign(indices[at]) * exp((abs(indices[at]) - 40000) * 0.020000666706669435 + ln(0.99::double precision))
                END;
                EXIT;
            END IF;
        END LOOP;
        found := found || jsonb_build_object('p' || (quantile::numeric * 100)::double precision, value);
    END LOOP;
    RETURN found;
END
$$;

CREATE FUNCTION totalizer.raise_floors(type_name text, organization uuid, raw timestamp with time zone, keys timestamp with time zone, base timestamp with time zone, hours timestamp with time zone, days date) RETURNS totalizer.retention_floors
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET lock_timeout TO '500ms'
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

CREATE FUNCTION totalizer.raw_floor(type_name text, organization uuid) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT coalesce((SELECT raw_floor FROM totalizer.floors_of(type_name, organization)), '-infinity')
$$;

CREATE FUNCTION totalizer.refuse_audit_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION 'totalizer.audit is append-only: its entries are neither changed nor removed';
END
$$;

CREATE FUNCTION totalizer.request_job(wanted text) RETURNS bigint
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

CREATE FUNCTION totalizer.unique_count(state text) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
DECLARE
    m CONSTANT double precision := 4096;
    ranks integer[];
    x double precision;
    y double precision;
    z double precision;
    before double precision;
BEGIN
    IF state IS NULL THEN
        RETURN 0;
    ELSIF strpos(state, ':') = 0 THEN
        RETURN (length(state) + 1) / 33;
    END IF;
    -- ranks[k + 1] is how many registers have rank k; those that are not written have rank 0.
    SELECT array_agg(coalesce(n, 0) ORDER BY k) INTO ranks
    FROM generate_series(0, 53) AS k LEFT JOIN (
        SELECT split_part(pair, ':', 2)::integer AS rank, count(*)::integer AS n
        FROM string_to_table(state, ' ') AS pair GROUP BY 1
    ) AS counted ON rank = k;
    ranks[1] := m::integer - (SELECT sum(n) FROM unnest(ranks) AS n);
    -- tau(1 - ranks[54] / m)
    x := 1 - ranks[54] / m;
    IF x = 0 OR x = 1 THEN
        z := 0;
    ELSE
        y := 1;
        z := 1 - x;
        LOOP
            x := sqrt(x);
            before := z;
            y := y / 2;
            z := z - (1 - x) ^ 2 * y;
            EXIT WHEN z = before;
        END LOOP;
        z := z / 3;
    END IF;
    z := m * z;
    FOR k IN REVERSE 52 .. 1 LOOP
        z := (z + ranks[k + 1]) / 2;
    END LOOP;
    -- + m sigma(ranks[1] / m); more than 128 values never leave all registers empty.
    x := ranks[1] / m;
    y := 1;
    before := -1;
    DECLARE
        s double precision := x;
    BEGIN
        WHILE s <> before LOOP
            x := x * x;
            before := s;
            s := s + x * y;
            y := y + y;
        END LOOP;
        z := z + m * s;
    END;
    RETURN round(m * m / (2 * ln(2.0::double precision) * z));
END
$$;

CREATE FUNCTION totalizer.unique_is_estimate(state text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN COALESCE((strpos(state, ':'::text) > 0), false);

CREATE FUNCTION totalizer.watch_corrections(type_name text, time_name text, relation regclass, is_partition boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    EXECUTE format(
        'CREATE TRIGGER mark_updated AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
        'FOR EACH STATEMENT EXECUTE FUNCTION totalizer.mark_corrected(%L, %L)', relation, type_name, time_name);
    EXECUTE format(
        'CREATE TRIGGER mark_deleted AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows '
        'FOR EACH STATEMENT EXECUTE FUNCTION totalizer.mark_corrected(%L, %L)', relation, type_name, time_name);
    IF is_partition THEN
        EXECUTE format(
            'CREATE TRIGGER mark_truncated BEFORE TRUNCATE ON %s '
            'FOR EACH STATEMENT EXECUTE FUNCTION totalizer.mark_corrected(%L, %L)', relation, type_name, time_name);
    END IF;
END
$$;

CREATE FUNCTION totalizer.write_audit(organization uuid, done text, what text, was jsonb, becomes jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE TABLE totalizer.alert_history (
    id uuid NOT NULL,
    at timestamp with time zone NOT NULL,
    host text NOT NULL,
    key text NOT NULL,
    rule text NOT NULL,
    kind text NOT NULL,
    severity text NOT NULL,
    message text NOT NULL,
    silenced boolean NOT NULL,
    recorded_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT alert_history_kind_check CHECK ((kind = ANY (ARRAY['fired'::text, 'escalated'::text, 'repeated'::text, 'resolved'::text, 'test'::text])))
);

COMMENT ON TABLE totalizer.alert_history IS 'What became of alerts. What happened while the database was away is added when it is back';

CREATE TABLE totalizer.alert_silences (
    id bigint NOT NULL,
    rule text NOT NULL,
    until timestamp with time zone NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    made_by text NOT NULL,
    made_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT alert_silences_rule_check CHECK ((rule <> ''::text))
);

COMMENT ON TABLE totalizer.alert_silences IS 'Rules whose alerts are told to nobody for a time; * is all of them';

ALTER TABLE totalizer.alert_silences ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME totalizer.alert_silences_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE totalizer.alerts (
    host text NOT NULL,
    key text NOT NULL,
    rule text NOT NULL,
    severity text NOT NULL,
    message text NOT NULL,
    remedy text NOT NULL,
    since timestamp with time zone NOT NULL
);

COMMENT ON TABLE totalizer.alerts IS 'The alerts that stand, as each monitor last saw them';

CREATE TABLE totalizer.api_keys (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    organization_id uuid NOT NULL,
    name text NOT NULL,
    key_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    replaced_by uuid
);

COMMENT ON COLUMN totalizer.api_keys.key_hash IS 'SHA-256 of the key; the key itself is shown once and never stored';

COMMENT ON COLUMN totalizer.api_keys.last_used_at IS 'When it was used last; written at most once a minute';

COMMENT ON COLUMN totalizer.api_keys.replaced_by IS 'The key that took its place when it was rotated';

CREATE TABLE totalizer.audit (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    organization_id uuid,
    actor jsonb NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    before jsonb,
    after jsonb,
    CONSTRAINT audit_actor_check CHECK ((actor ? 'kind'::text))
);

COMMENT ON TABLE totalizer.audit IS 'Append-only: every change that a person or a key made';

COMMENT ON COLUMN totalizer.audit.organization_id IS 'Whose data or keys it is about, else whose key made it; null: of the installation';

COMMENT ON COLUMN totalizer.audit.actor IS 'kind: api_key, token, command_line or database; with id, name and role as far as there are';

ALTER TABLE totalizer.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME totalizer.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE totalizer.data_versions (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    slot smallint NOT NULL,
    stamp uuid NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='1000');

COMMENT ON TABLE totalizer.data_versions IS 'Changed in every transaction that changes events, or what is told of them; the version of an organisation''s events of a type are the stamps of all its slots';

COMMENT ON COLUMN totalizer.data_versions.slot IS 'By database session, so that loaders seldom wait for one another';

COMMENT ON COLUMN totalizer.data_versions.stamp IS 'Never the same twice, not even in a database that was restored to an earlier state and went on from there';

CREATE TABLE totalizer.dead_letters (
    id bigint NOT NULL,
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    columns text[] NOT NULL,
    keyed boolean NOT NULL,
    line bytea NOT NULL,
    sqlstate text NOT NULL,
    reason text NOT NULL,
    journal_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    retries integer DEFAULT 0 NOT NULL,
    retried_at timestamp with time zone,
    received_hour timestamp with time zone
);

COMMENT ON TABLE totalizer.dead_letters IS 'Acknowledged events that PostgreSQL refused, with their bytes and the reason';

COMMENT ON COLUMN totalizer.dead_letters.retries IS 'How often it was tried again and refused again';

COMMENT ON COLUMN totalizer.dead_letters.received_hour IS 'The hour of receipt, under which the ledger counts it; null: the hour of created_at';

ALTER TABLE totalizer.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME totalizer.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE totalizer.dirty_marks (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    bucket timestamp with time zone NOT NULL,
    shard smallint GENERATED ALWAYS AS ((uuid_hash(organization_id) & 15)) STORED NOT NULL,
    marked_at timestamp with time zone DEFAULT now() NOT NULL,
    rollup text,
    scope text DEFAULT 'events'::text NOT NULL,
    priority smallint DEFAULT 0 NOT NULL,
    CONSTRAINT dirty_marks_scope_check CHECK ((scope = ANY (ARRAY['events'::text, 'days'::text])))
)
WITH (autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE totalizer.dirty_marks IS 'Append-only: buckets whose rollups are behind their events. One bucket may be marked many times';

COMMENT ON COLUMN totalizer.dirty_marks.rollup IS 'The one rollup that is behind; null: all of the event type';

COMMENT ON COLUMN totalizer.dirty_marks.scope IS 'events: compute the bucket from the events; days: only the local day, week and month that hold it';

COMMENT ON COLUMN totalizer.dirty_marks.priority IS '0: live; 1: backfill, taken when no live mark of the shard waits';

CREATE TABLE totalizer.event_fates (
    organization_id uuid NOT NULL,
    journal_id uuid NOT NULL,
    sequence bigint NOT NULL,
    event_type text NOT NULL,
    fate text NOT NULL,
    places integer[] NOT NULL,
    ids text[] NOT NULL,
    code text,
    reason text,
    dead_letter_id bigint,
    recorded_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT event_fates_fate_check CHECK ((fate = ANY (ARRAY['duplicate'::text, 'conflict'::text, 'quarantined'::text, 'dropped'::text])))
);

COMMENT ON TABLE totalizer.event_fates IS 'Acknowledged events that were not stored, by the journal record they came in; all others of a loaded record were';

COMMENT ON COLUMN totalizer.event_fates.places IS 'Where the events stood in the request, in their type''s list';

CREATE TABLE totalizer.event_types (
    name text NOT NULL,
    time_field text NOT NULL,
    partition text NOT NULL,
    definition jsonb NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT event_types_partition_check CHECK ((partition = ANY (ARRAY['day'::text, 'month'::text])))
);

CREATE TABLE totalizer.job_runs (
    id bigint NOT NULL,
    job text NOT NULL,
    host text,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    result jsonb,
    error text,
    state text DEFAULT 'done'::text NOT NULL,
    scheduled_for timestamp with time zone,
    requested_at timestamp with time zone,
    rows bigint,
    runner text,
    attempt integer DEFAULT 1 NOT NULL,
    runs bigint DEFAULT 1 NOT NULL,
    arguments jsonb,
    ticket text,
    CONSTRAINT job_runs_state_check CHECK ((state = ANY (ARRAY['requested'::text, 'running'::text, 'done'::text, 'failed'::text, 'timed_out'::text, 'lost'::text])))
);

COMMENT ON TABLE totalizer.job_runs IS 'Every run of a job. Its number grows from run to run of a job';

COMMENT ON COLUMN totalizer.job_runs.state IS 'lost: the process or its connection ended without a word';

COMMENT ON COLUMN totalizer.job_runs.scheduled_for IS 'The moment of the schedule that it is for; null: asked for by hand, or a job that runs all the time';

COMMENT ON COLUMN totalizer.job_runs.attempt IS 'Which try for that moment, from 1';

COMMENT ON COLUMN totalizer.job_runs.runs IS 'How many runs the row stands for: those of a job that runs all the time are summed by the hour';

COMMENT ON COLUMN totalizer.job_runs.ticket IS 'The message that asked for it: delivered again, it is not done again';

ALTER TABLE totalizer.job_runs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME totalizer.job_runs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE totalizer.jobs (
    name text NOT NULL,
    description text NOT NULL,
    schedule text,
    queue text NOT NULL,
    soft_limit interval NOT NULL,
    hard_limit interval NOT NULL,
    enabled boolean NOT NULL,
    requestable boolean NOT NULL,
    next_run_at timestamp with time zone,
    known_since timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE totalizer.jobs IS 'The table of jobs as whoever runs them last had it; the program has the truth';

COMMENT ON COLUMN totalizer.jobs.schedule IS 'In words; null: by hand only';

COMMENT ON COLUMN totalizer.jobs.known_since IS 'Runs that were due before are not caught up';

CREATE TABLE totalizer.journal_gaps (
    journal_id uuid NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    reason text NOT NULL,
    dead_letter_id bigint,
    found_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE totalizer.journal_gaps IS 'Records that did not reach the loader as batches: damaged on the disk, or not readable by it and kept as a dead letter';

CREATE TABLE totalizer.journal_offsets (
    journal_id uuid NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    segment bigint DEFAULT 0 NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    batches bigint DEFAULT 0 NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    sequence bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE totalizer.journal_offsets IS 'How far each journal is loaded; advanced in the transaction that stores the events';

COMMENT ON COLUMN totalizer.journal_offsets.epoch IS 'Raised by each loader that takes the journal over; an older loader is fenced off';

COMMENT ON COLUMN totalizer.journal_offsets.sequence IS 'Number of the last record loaded; 0 in a journal that was loaded by a version that did not note it';

CREATE TABLE totalizer.late_applied (
    id bigint NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
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

ALTER TABLE totalizer.late_applied ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME totalizer.late_applied_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE totalizer.late_events (
    id bigint NOT NULL,
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    event_time timestamp with time zone NOT NULL,
    event_id uuid NOT NULL,
    columns text[] NOT NULL,
    line bytea NOT NULL,
    state text NOT NULL,
    received_hour timestamp with time zone NOT NULL,
    shard smallint GENERATED ALWAYS AS ((uuid_hash(organization_id) & 15)) STORED NOT NULL,
    stored_at timestamp with time zone DEFAULT now() NOT NULL,
    applied_at timestamp with time zone,
    CONSTRAINT late_events_state_check CHECK ((state = ANY (ARRAY['late'::text, 'held'::text, 'applied'::text])))
);

COMMENT ON TABLE totalizer.late_events IS 'Events that came below the raw floor of their organisation';

COMMENT ON COLUMN totalizer.late_events.state IS 'late: to be added to the rollups; held: its id may have been forgotten, so somebody must say whether it counts; applied: added';

ALTER TABLE totalizer.late_events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME totalizer.late_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE totalizer.load_ledger (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    loaded bigint NOT NULL,
    duplicate bigint NOT NULL,
    conflict bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    loaded_at timestamp with time zone DEFAULT now() NOT NULL,
    dropped bigint DEFAULT 0 NOT NULL,
    accepted bigint,
    received_hour timestamp with time zone
);

COMMENT ON TABLE totalizer.load_ledger IS 'Append-only: the fate of every acknowledged event, summed by transaction, organisation and type. A dead letter that is loaded or dropped later takes one from dead_lettered and adds one elsewhere';

COMMENT ON COLUMN totalizer.load_ledger.accepted IS 'How many events the records held; null: written by a version that did not count them, so the sum of their fates';

COMMENT ON COLUMN totalizer.load_ledger.received_hour IS 'The hour in which the events were received; null: that of loaded_at';

CREATE TABLE totalizer.load_ledger_hourly (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    received_hour timestamp with time zone NOT NULL,
    accepted bigint NOT NULL,
    loaded bigint NOT NULL,
    duplicate bigint NOT NULL,
    conflict bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    dropped bigint NOT NULL
);

COMMENT ON TABLE totalizer.load_ledger_hourly IS 'What load_ledger had, summed by the hour of receipt and removed there in the same transaction';

CREATE VIEW totalizer.ledger WITH (security_invoker='true') AS
 SELECT load_ledger.organization_id,
    load_ledger.event_type,
    COALESCE(load_ledger.received_hour, date_trunc('hour'::text, load_ledger.loaded_at, 'UTC'::text)) AS received_hour,
    COALESCE(load_ledger.accepted, ((((load_ledger.loaded + load_ledger.duplicate) + load_ledger.conflict) + load_ledger.dead_lettered) + load_ledger.dropped)) AS accepted,
    load_ledger.loaded,
    load_ledger.duplicate,
    load_ledger.conflict,
    load_ledger.dead_lettered,
    load_ledger.dropped
   FROM totalizer.load_ledger
UNION ALL
 SELECT load_ledger_hourly.organization_id,
    load_ledger_hourly.event_type,
    load_ledger_hourly.received_hour,
    load_ledger_hourly.accepted,
    load_ledger_hourly.loaded,
    load_ledger_hourly.duplicate,
    load_ledger_hourly.conflict,
    load_ledger_hourly.dead_lettered,
    load_ledger_hourly.dropped
   FROM totalizer.load_ledger_hourly;

COMMENT ON VIEW totalizer.ledger IS 'The whole ledger, summed up or not yet; several rows an hour';

CREATE TABLE totalizer.merchant_usage (
    organization_id uuid NOT NULL,
    merchant_id text NOT NULL,
    date date NOT NULL,
    metric_type text NOT NULL,
    metric_value bigint NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT merchant_usage_metric_value_check CHECK ((metric_value >= 0))
);

ALTER TABLE ONLY totalizer.merchant_usage FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE totalizer.merchant_usage IS 'What a merchant used of a metric on a UTC day; never lowered';

CREATE TABLE totalizer.organization_limits (
    organization_id uuid NOT NULL,
    requests bigint,
    batches bigint,
    reads bigint,
    bytes bigint,
    CONSTRAINT organization_limits_batches_check CHECK ((batches >= 0)),
    CONSTRAINT organization_limits_bytes_check CHECK ((bytes >= 0)),
    CONSTRAINT organization_limits_reads_check CHECK ((reads >= 0)),
    CONSTRAINT organization_limits_requests_check CHECK ((requests >= 0))
);

COMMENT ON TABLE totalizer.organization_limits IS 'How much an organisation may send and ask in a window; null: as the settings say, 0: no limit';

CREATE TABLE totalizer.organizations (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    time_zone text DEFAULT 'UTC'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT organizations_name_check CHECK ((name <> ''::text))
);

CREATE VIEW totalizer.partitions WITH (security_invoker='true') AS
 SELECT (parent.relname)::text AS event_type,
    (part.relname)::text AS name,
    ((regexp_match(bounds.bounds, 'FROM \(''([^'']*)''\)'::text))[1])::timestamp with time zone AS starts,
    ((regexp_match(bounds.bounds, 'TO \(''([^'']*)''\)'::text))[1])::timestamp with time zone AS ends
   FROM ((pg_inherits
     JOIN pg_class part ON ((part.oid = pg_inherits.inhrelid)))
     JOIN pg_class parent ON ((parent.oid = pg_inherits.inhparent))),
    LATERAL pg_get_expr(part.relpartbound, part.oid) bounds(bounds)
  WHERE ((parent.relnamespace = ('events'::regnamespace)::oid) AND (part.relnamespace = ('partitions'::regnamespace)::oid) AND (part.relkind = 'r'::"char"));

CREATE TABLE totalizer.reconciled (
    day date NOT NULL,
    rollup text NOT NULL,
    checked bigint NOT NULL,
    mismatched bigint NOT NULL,
    looked_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE totalizer.reconciled IS 'By UTC day: how many rows of a rollup the reconciler has computed anew, and how many of them were wrong';

CREATE TABLE totalizer.rejected_events (
    organization_id uuid NOT NULL,
    hour timestamp with time zone NOT NULL,
    event_type text NOT NULL,
    code text NOT NULL,
    events bigint NOT NULL
);

COMMENT ON TABLE totalizer.rejected_events IS 'Events that were refused, never acknowledged; the last seconds before a kill are not counted';

CREATE TABLE totalizer.removed_events (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    events bigint NOT NULL,
    removed_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE totalizer.removed_events IS 'Append-only: how many stored events retention has removed, by transaction, organisation and type';

CREATE TABLE totalizer.repairs (
    id bigint NOT NULL,
    repaired_at timestamp with time zone DEFAULT now() NOT NULL,
    repaired_by text NOT NULL,
    found_by text NOT NULL,
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    rollup text NOT NULL,
    grain text NOT NULL,
    rows bigint NOT NULL,
    changes jsonb NOT NULL,
    CONSTRAINT repairs_found_by_check CHECK ((found_by = ANY (ARRAY['verify'::text, 'reconcile'::text]))),
    CONSTRAINT repairs_rows_check CHECK ((rows > 0))
);

COMMENT ON TABLE totalizer.repairs IS 'Append-only: who had rows of a rollup computed anew that were not what they are made from';

COMMENT ON COLUMN totalizer.repairs.rows IS 'How many rows were wrong';

COMMENT ON COLUMN totalizer.repairs.changes IS 'The first 1000 of them: when, dimensions, what was expected and what was found';

ALTER TABLE totalizer.repairs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME totalizer.repairs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE totalizer.retention (
    event_type text NOT NULL,
    organization_id uuid,
    raw_days integer,
    base_days integer,
    hour_days integer,
    day_days integer,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT retention_check CHECK ((base_days >= (raw_days + 2))),
    CONSTRAINT retention_check1 CHECK ((hour_days >= base_days)),
    CONSTRAINT retention_check2 CHECK ((day_days >= (base_days + 32))),
    CONSTRAINT retention_check3 CHECK (((raw_days IS NOT NULL) OR (base_days IS NULL))),
    CONSTRAINT retention_check4 CHECK (((base_days IS NOT NULL) OR ((hour_days IS NULL) AND (day_days IS NULL)))),
    CONSTRAINT retention_raw_days_check CHECK ((raw_days > 0))
);

COMMENT ON TABLE totalizer.retention IS 'What somebody has set: days that events, quarter hours, hours and days are kept; null: for ever. Without an organisation: for all that have no row of their own';

CREATE TABLE totalizer.rollups (
    name text NOT NULL,
    event_type text NOT NULL,
    definition jsonb NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    version integer DEFAULT 1 NOT NULL
);

COMMENT ON COLUMN totalizer.rollups.version IS 'Raised by each new definition';

CREATE TABLE totalizer.schema_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE totalizer.usage_aggregations (
    date date NOT NULL,
    epoch bigint DEFAULT 1 NOT NULL,
    host text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    keys_scanned bigint DEFAULT 0 NOT NULL,
    records_aggregated bigint DEFAULT 0 NOT NULL,
    records_settled bigint DEFAULT 0 NOT NULL,
    errors bigint DEFAULT 0 NOT NULL,
    failures_in_a_row integer DEFAULT 0 NOT NULL,
    duration_ms bigint,
    error text
);

COMMENT ON TABLE totalizer.usage_aggregations IS 'The last run for each day';

COMMENT ON COLUMN totalizer.usage_aggregations.epoch IS 'Raised by each run; what an older run would still write is refused';

CREATE TABLE totalizer.usage_failures (
    key text NOT NULL,
    date date NOT NULL,
    reason text NOT NULL,
    attempts integer DEFAULT 1 NOT NULL,
    first_failed_at timestamp with time zone DEFAULT now() NOT NULL,
    last_failed_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE totalizer.usage_failures IS 'Counters that could not be aggregated, until a run succeeds with them or finds them gone';

CREATE TABLE totalizer.zone_fingerprints (
    time_zone text NOT NULL,
    month date NOT NULL,
    fingerprint text NOT NULL,
    noted_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE totalizer.zone_fingerprints IS 'When the days of each month began in each zone in use, as PostgreSQL last saw it';

ALTER TABLE ONLY totalizer.alert_history
    ADD CONSTRAINT alert_history_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.alert_silences
    ADD CONSTRAINT alert_silences_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (host, key);

ALTER TABLE ONLY totalizer.api_keys
    ADD CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash);

ALTER TABLE ONLY totalizer.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.data_versions
    ADD CONSTRAINT data_versions_pkey PRIMARY KEY (organization_id, event_type, slot);

ALTER TABLE ONLY totalizer.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.event_types
    ADD CONSTRAINT event_types_pkey PRIMARY KEY (name);

ALTER TABLE ONLY totalizer.job_runs
    ADD CONSTRAINT job_runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (name);

ALTER TABLE ONLY totalizer.journal_offsets
    ADD CONSTRAINT journal_offsets_pkey PRIMARY KEY (journal_id);

ALTER TABLE ONLY totalizer.late_applied
    ADD CONSTRAINT late_applied_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.late_events
    ADD CONSTRAINT late_events_organization_id_event_type_event_id_key UNIQUE (organization_id, event_type, event_id);

ALTER TABLE ONLY totalizer.late_events
    ADD CONSTRAINT late_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.load_ledger_hourly
    ADD CONSTRAINT load_ledger_hourly_pkey PRIMARY KEY (organization_id, event_type, received_hour);

ALTER TABLE ONLY totalizer.merchant_usage
    ADD CONSTRAINT merchant_usage_pkey PRIMARY KEY (organization_id, date, merchant_id, metric_type);

ALTER TABLE ONLY totalizer.organization_limits
    ADD CONSTRAINT organization_limits_pkey PRIMARY KEY (organization_id);

ALTER TABLE ONLY totalizer.organizations
    ADD CONSTRAINT organizations_name_key UNIQUE (name);

ALTER TABLE ONLY totalizer.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.reconciled
    ADD CONSTRAINT reconciled_pkey PRIMARY KEY (day, rollup);

ALTER TABLE ONLY totalizer.rejected_events
    ADD CONSTRAINT rejected_events_pkey PRIMARY KEY (organization_id, hour, event_type, code);

ALTER TABLE ONLY totalizer.repairs
    ADD CONSTRAINT repairs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.retention
    ADD CONSTRAINT retention_event_type_organization_id_key UNIQUE NULLS NOT DISTINCT (event_type, organization_id);

ALTER TABLE ONLY totalizer.retention_floors
    ADD CONSTRAINT retention_floors_event_type_organization_id_key UNIQUE NULLS NOT DISTINCT (event_type, organization_id);

ALTER TABLE ONLY totalizer.rollups
    ADD CONSTRAINT rollups_pkey PRIMARY KEY (name);

ALTER TABLE ONLY totalizer.schema_version
    ADD CONSTRAINT schema_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY totalizer.usage_aggregations
    ADD CONSTRAINT usage_aggregations_pkey PRIMARY KEY (date);

ALTER TABLE ONLY totalizer.usage_failures
    ADD CONSTRAINT usage_failures_pkey PRIMARY KEY (key);

ALTER TABLE ONLY totalizer.zone_fingerprints
    ADD CONSTRAINT zone_fingerprints_pkey PRIMARY KEY (time_zone, month);

CREATE INDEX alert_history_by_time ON totalizer.alert_history USING btree (at DESC);

CREATE INDEX alert_silences_by_end ON totalizer.alert_silences USING btree (until);

CREATE INDEX api_keys_by_organization ON totalizer.api_keys USING btree (organization_id, created_at);

CREATE INDEX audit_by_organization ON totalizer.audit USING btree (organization_id, id);

CREATE INDEX dead_letters_by_organization ON totalizer.dead_letters USING btree (organization_id, id);

CREATE INDEX dirty_marks_by_bucket ON totalizer.dirty_marks USING btree (organization_id, event_type, bucket);

CREATE INDEX dirty_marks_by_turn ON totalizer.dirty_marks USING btree (event_type, shard, priority, bucket DESC);

CREATE INDEX event_fates_by_age ON totalizer.event_fates USING btree (recorded_at);

CREATE INDEX event_fates_by_letter ON totalizer.event_fates USING btree (dead_letter_id) WHERE (dead_letter_id IS NOT NULL);

CREATE INDEX event_fates_by_record ON totalizer.event_fates USING btree (journal_id, sequence);

CREATE INDEX job_runs_by_age ON totalizer.job_runs USING btree (finished_at);

CREATE INDEX job_runs_by_job ON totalizer.job_runs USING btree (job, id DESC);

CREATE INDEX job_runs_by_moment ON totalizer.job_runs USING btree (job, scheduled_for DESC, id DESC) WHERE (scheduled_for IS NOT NULL);

CREATE INDEX job_runs_by_ticket ON totalizer.job_runs USING btree (ticket) WHERE (ticket IS NOT NULL);

CREATE UNIQUE INDEX job_runs_once ON totalizer.job_runs USING btree (job, scheduled_for) WHERE (state = ANY (ARRAY['running'::text, 'done'::text]));

CREATE INDEX job_runs_open ON totalizer.job_runs USING btree (job, id) WHERE (state = ANY (ARRAY['requested'::text, 'running'::text]));

CREATE INDEX journal_gaps_by_record ON totalizer.journal_gaps USING btree (journal_id, last);

CREATE INDEX late_applied_by_organization ON totalizer.late_applied USING btree (organization_id, event_type, applied_at);

CREATE INDEX late_events_applied ON totalizer.late_events USING btree (applied_at) WHERE (state = 'applied'::text);

CREATE INDEX late_events_waiting ON totalizer.late_events USING btree (event_type, shard, id) WHERE (state = 'late'::text);

CREATE INDEX load_ledger_by_age ON totalizer.load_ledger USING btree (loaded_at);

CREATE INDEX load_ledger_by_organization ON totalizer.load_ledger USING btree (organization_id, event_type, loaded_at);

CREATE INDEX load_ledger_hourly_by_hour ON totalizer.load_ledger_hourly USING btree (received_hour);

CREATE INDEX removed_events_by_organization ON totalizer.removed_events USING btree (organization_id, event_type);

CREATE INDEX repairs_by_time ON totalizer.repairs USING btree (repaired_at);

CREATE INDEX retention_floors_by_change ON totalizer.retention_floors USING btree (change);

CREATE INDEX usage_failures_by_date ON totalizer.usage_failures USING btree (date);

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON totalizer.audit FOR EACH STATEMENT EXECUTE FUNCTION totalizer.refuse_audit_change();

CREATE TRIGGER audit_changed AFTER UPDATE ON totalizer.api_keys FOR EACH ROW WHEN ((((((old.organization_id IS DISTINCT FROM new.organization_id) OR (old.name IS DISTINCT FROM new.name)) OR (old.key_hash IS DISTINCT FROM new.key_hash)) OR (old.scopes IS DISTINCT FROM new.scopes)) OR ((old.expires_at IS DISTINCT FROM new.expires_at) AND (NOT (old.replaced_by IS DISTINCT FROM new.replaced_by))) OR ((old.revoked_at IS NOT NULL) AND (new.revoked_at IS DISTINCT FROM old.revoked_at)))) EXECUTE FUNCTION totalizer.audit_row('key.change', 'id');

CREATE TRIGGER audit_changed AFTER INSERT OR DELETE OR UPDATE ON totalizer.event_types FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('catalog.event_type', 'name');

CREATE TRIGGER audit_changed AFTER INSERT OR DELETE OR UPDATE ON totalizer.organization_limits FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('limits.change', 'organization_id');

CREATE TRIGGER audit_changed AFTER UPDATE ON totalizer.organizations FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('organization.change', 'name');

CREATE TRIGGER audit_changed AFTER INSERT OR DELETE OR UPDATE ON totalizer.retention FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('retention.change', 'event_type');

CREATE TRIGGER audit_changed AFTER INSERT OR DELETE OR UPDATE ON totalizer.rollups FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('catalog.rollup', 'name');

CREATE TRIGGER audit_created AFTER INSERT ON totalizer.api_keys FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('key.create', 'id');

CREATE TRIGGER audit_created AFTER INSERT ON totalizer.organizations FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('organization.create', 'name');

CREATE TRIGGER audit_deleted AFTER DELETE ON totalizer.api_keys FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('key.delete', 'id');

CREATE TRIGGER audit_deleted AFTER DELETE ON totalizer.organizations FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('organization.delete', 'name');

CREATE TRIGGER audit_ended AFTER UPDATE ON totalizer.alert_silences FOR EACH ROW WHEN ((new.until < old.until)) EXECUTE FUNCTION totalizer.audit_row('alert.unsilence', 'rule');

CREATE TRIGGER audit_revoked AFTER UPDATE ON totalizer.api_keys FOR EACH ROW WHEN (((old.revoked_at IS NULL) AND (new.revoked_at IS NOT NULL))) EXECUTE FUNCTION totalizer.audit_row('key.revoke', 'id');

CREATE TRIGGER audit_rotated AFTER UPDATE ON totalizer.api_keys FOR EACH ROW WHEN ((old.replaced_by IS DISTINCT FROM new.replaced_by)) EXECUTE FUNCTION totalizer.audit_row('key.rotate', 'id');

CREATE TRIGGER audit_silenced AFTER INSERT ON totalizer.alert_silences FOR EACH ROW EXECUTE FUNCTION totalizer.audit_row('alert.silence', 'rule');

CREATE TRIGGER note_floor_raised AFTER INSERT OR UPDATE ON totalizer.retention_floors FOR EACH ROW EXECUTE FUNCTION totalizer.note_floor_raised();

CREATE TRIGGER note_late_applied AFTER UPDATE ON totalizer.late_events REFERENCING NEW TABLE AS applied FOR EACH STATEMENT EXECUTE FUNCTION totalizer.note_late_applied();

CREATE TRIGGER note_marked AFTER INSERT ON totalizer.dirty_marks REFERENCING NEW TABLE AS marked FOR EACH STATEMENT EXECUTE FUNCTION totalizer.note_marked();

ALTER TABLE ONLY totalizer.api_keys
    ADD CONSTRAINT api_keys_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES totalizer.organizations(id);

ALTER TABLE ONLY totalizer.api_keys
    ADD CONSTRAINT api_keys_replaced_by_fkey FOREIGN KEY (replaced_by) REFERENCES totalizer.api_keys(id);

ALTER TABLE ONLY totalizer.organization_limits
    ADD CONSTRAINT organization_limits_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES totalizer.organizations(id);

ALTER TABLE ONLY totalizer.retention
    ADD CONSTRAINT retention_event_type_fkey FOREIGN KEY (event_type) REFERENCES totalizer.event_types(name);

ALTER TABLE ONLY totalizer.retention_floors
    ADD CONSTRAINT retention_floors_event_type_fkey FOREIGN KEY (event_type) REFERENCES totalizer.event_types(name);

ALTER TABLE ONLY totalizer.retention_floors
    ADD CONSTRAINT retention_floors_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES totalizer.organizations(id);

ALTER TABLE ONLY totalizer.retention
    ADD CONSTRAINT retention_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES totalizer.organizations(id);

ALTER TABLE ONLY totalizer.rollups
    ADD CONSTRAINT rollups_event_type_fkey FOREIGN KEY (event_type) REFERENCES totalizer.event_types(name);

CREATE POLICY add_ledger ON totalizer.load_ledger FOR INSERT TO totalizer_writer WITH CHECK (true);

CREATE POLICY add_marks ON totalizer.dirty_marks FOR INSERT TO totalizer_writer WITH CHECK (true);

CREATE POLICY aggregate_usage ON totalizer.merchant_usage TO totalizer_refresher USING (true) WITH CHECK (true);

CREATE POLICY all_organizations ON totalizer.organizations FOR SELECT TO totalizer_refresher USING (true);

ALTER TABLE totalizer.api_keys ENABLE ROW LEVEL SECURITY;

CREATE POLICY apply_late ON totalizer.late_events TO totalizer_refresher USING (true) WITH CHECK (true);

ALTER TABLE totalizer.audit ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.data_versions ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.dead_letters ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.dirty_marks ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.event_fates ENABLE ROW LEVEL SECURITY;

CREATE POLICY keep_late ON totalizer.late_events TO totalizer_writer USING (true) WITH CHECK (true);

ALTER TABLE totalizer.late_applied ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.late_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.load_ledger ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.load_ledger_hourly ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.merchant_usage ENABLE ROW LEVEL SECURITY;

CREATE POLICY note_applied ON totalizer.late_applied TO totalizer_refresher USING (true) WITH CHECK (true);

CREATE POLICY note_fates ON totalizer.event_fates TO totalizer_writer USING (true) WITH CHECK (true);

CREATE POLICY note_removed ON totalizer.removed_events TO totalizer_refresher USING (true) WITH CHECK (true);

CREATE POLICY note_repairs ON totalizer.repairs TO totalizer_refresher USING (true) WITH CHECK (true);

ALTER TABLE totalizer.organization_limits ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.organizations ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_applied ON totalizer.late_applied FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_audit ON totalizer.audit FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_dead_letters ON totalizer.dead_letters FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_fates ON totalizer.event_fates FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_floors ON totalizer.retention_floors FOR SELECT TO totalizer_app USING (((organization_id IS NULL) OR (organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif"))));

CREATE POLICY own_hours ON totalizer.load_ledger_hourly FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_keys ON totalizer.api_keys TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif"))) WITH CHECK ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_late ON totalizer.late_events FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_ledger ON totalizer.load_ledger FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_limits ON totalizer.organization_limits FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_marks ON totalizer.dirty_marks FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_organization ON totalizer.organizations FOR SELECT TO totalizer_app USING ((id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_rejected ON totalizer.rejected_events FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_removed ON totalizer.removed_events FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_repairs ON totalizer.repairs FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_retention ON totalizer.retention FOR SELECT TO totalizer_app USING (((organization_id IS NULL) OR (organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif"))));

CREATE POLICY own_usage ON totalizer.merchant_usage FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_versions ON totalizer.data_versions FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

ALTER TABLE totalizer.rejected_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.removed_events ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.repairs ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.retention ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.retention_floors ENABLE ROW LEVEL SECURITY;

CREATE POLICY see_audit ON totalizer.audit FOR SELECT TO totalizer_refresher USING (true);

CREATE POLICY see_dead_letters ON totalizer.dead_letters FOR SELECT TO totalizer_refresher USING (true);

CREATE POLICY see_floors ON totalizer.retention_floors FOR SELECT TO totalizer_writer, totalizer_refresher USING (true);

CREATE POLICY see_ledger ON totalizer.load_ledger FOR SELECT TO totalizer_refresher USING (true);

CREATE POLICY see_rejected ON totalizer.rejected_events FOR SELECT TO totalizer_refresher USING (true);

CREATE POLICY see_retention ON totalizer.retention FOR SELECT TO totalizer_refresher USING (true);

CREATE POLICY sum_up ON totalizer.load_ledger_hourly TO totalizer_refresher USING (true) WITH CHECK (true);

CREATE POLICY take_ledger ON totalizer.load_ledger FOR DELETE TO totalizer_refresher USING (true);

CREATE POLICY take_marks ON totalizer.dirty_marks TO totalizer_refresher USING (true) WITH CHECK (true);

CREATE POLICY tidy_fates ON totalizer.event_fates TO totalizer_refresher USING (true);

CREATE POLICY work_off_dead_letters ON totalizer.dead_letters TO totalizer_writer USING (true) WITH CHECK (true);

GRANT USAGE ON SCHEMA totalizer TO totalizer_writer;
GRANT USAGE ON SCHEMA totalizer TO totalizer_refresher;
GRANT USAGE ON SCHEMA totalizer TO totalizer_app;

REVOKE ALL ON FUNCTION totalizer.audit_row() FROM PUBLIC;

REVOKE ALL ON FUNCTION totalizer.authenticate_key(hash bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.authenticate_key(hash bytea) TO totalizer_app;

REVOKE ALL ON FUNCTION totalizer.count_rejected(organizations uuid[], hours timestamp with time zone[], types text[], codes text[], counts bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.count_rejected(organizations uuid[], hours timestamp with time zone[], types text[], codes text[], counts bigint[]) TO totalizer_app;

REVOKE ALL ON FUNCTION totalizer.data_changed(organizations uuid[], types text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.data_changed(organizations uuid[], types text[]) TO totalizer_writer;
GRANT ALL ON FUNCTION totalizer.data_changed(organizations uuid[], types text[]) TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.default_organization() FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.default_organization() TO totalizer_app;
GRANT ALL ON FUNCTION totalizer.default_organization() TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.drop_partition(type_name text, partition_name text, organizations uuid[], counts bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.drop_partition(type_name text, partition_name text, organizations uuid[], counts bigint[]) TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.ensure_partition(type_name text, day date) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.ensure_partition(type_name text, day date) TO totalizer_writer;
GRANT ALL ON FUNCTION totalizer.ensure_partition(type_name text, day date) TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.find_organization(wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.find_organization(wanted uuid) TO totalizer_app;

GRANT SELECT ON TABLE totalizer.retention_floors TO totalizer_app;
GRANT SELECT ON TABLE totalizer.retention_floors TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.retention_floors TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.floors_of(type_name text, organization uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.floors_of(type_name text, organization uuid) TO totalizer_app;
GRANT ALL ON FUNCTION totalizer.floors_of(type_name text, organization uuid) TO totalizer_writer;
GRANT ALL ON FUNCTION totalizer.floors_of(type_name text, organization uuid) TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.health_facts() FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.health_facts() TO totalizer_app;
GRANT ALL ON FUNCTION totalizer.health_facts() TO totalizer_refresher;
GRANT ALL ON FUNCTION totalizer.health_facts() TO totalizer_writer;

REVOKE ALL ON FUNCTION totalizer.hold_floors() FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.hold_floors() TO totalizer_writer;
GRANT ALL ON FUNCTION totalizer.hold_floors() TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.mark_corrected() FROM PUBLIC;

REVOKE ALL ON FUNCTION totalizer.note_change(organization uuid, done text, what text, was jsonb, becomes jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.note_change(organization uuid, done text, what text, was jsonb, becomes jsonb) TO totalizer_writer;
GRANT ALL ON FUNCTION totalizer.note_change(organization uuid, done text, what text, was jsonb, becomes jsonb) TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.note_floor_raised() FROM PUBLIC;

REVOKE ALL ON FUNCTION totalizer.note_key_used(used uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.note_key_used(used uuid) TO totalizer_app;

REVOKE ALL ON FUNCTION totalizer.note_late_applied() FROM PUBLIC;

REVOKE ALL ON FUNCTION totalizer.note_marked() FROM PUBLIC;

REVOKE ALL ON FUNCTION totalizer.publish(materialized_name text) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.publish(materialized_name text) TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.raise_floors(type_name text, organization uuid, raw timestamp with time zone, keys timestamp with time zone, base timestamp with time zone, hours timestamp with time zone, days date) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.raise_floors(type_name text, organization uuid, raw timestamp with time zone, keys timestamp with time zone, base timestamp with time zone, hours timestamp with time zone, days date) TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.raw_floor(type_name text, organization uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.raw_floor(type_name text, organization uuid) TO totalizer_app;
GRANT ALL ON FUNCTION totalizer.raw_floor(type_name text, organization uuid) TO totalizer_writer;
GRANT ALL ON FUNCTION totalizer.raw_floor(type_name text, organization uuid) TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.refuse_audit_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION totalizer.request_job(wanted text) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.request_job(wanted text) TO totalizer_app;

REVOKE ALL ON FUNCTION totalizer.watch_corrections(type_name text, time_name text, relation regclass, is_partition boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION totalizer.write_audit(organization uuid, done text, what text, was jsonb, becomes jsonb) FROM PUBLIC;

GRANT SELECT ON TABLE totalizer.alert_history TO totalizer_app;
GRANT SELECT,INSERT,DELETE ON TABLE totalizer.alert_history TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.alert_silences TO totalizer_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE totalizer.alert_silences TO totalizer_refresher;

GRANT INSERT(rule) ON TABLE totalizer.alert_silences TO totalizer_app;

GRANT INSERT(until),UPDATE(until) ON TABLE totalizer.alert_silences TO totalizer_app;

GRANT INSERT(reason) ON TABLE totalizer.alert_silences TO totalizer_app;

GRANT INSERT(made_by) ON TABLE totalizer.alert_silences TO totalizer_app;

GRANT SELECT ON TABLE totalizer.alerts TO totalizer_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE totalizer.alerts TO totalizer_refresher;

GRANT SELECT(id) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(organization_id),INSERT(organization_id) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(name),INSERT(name) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT INSERT(key_hash) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(scopes),INSERT(scopes) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(created_at) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(expires_at),INSERT(expires_at),UPDATE(expires_at) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(revoked_at),UPDATE(revoked_at) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(last_used_at) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(replaced_by),UPDATE(replaced_by) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT ON TABLE totalizer.audit TO totalizer_app;
GRANT SELECT ON TABLE totalizer.audit TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.data_versions TO totalizer_app;

GRANT SELECT,INSERT,DELETE ON TABLE totalizer.dead_letters TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.dead_letters TO totalizer_app;
GRANT SELECT ON TABLE totalizer.dead_letters TO totalizer_refresher;

GRANT UPDATE(sqlstate) ON TABLE totalizer.dead_letters TO totalizer_writer;

GRANT UPDATE(reason) ON TABLE totalizer.dead_letters TO totalizer_writer;

GRANT UPDATE(retries) ON TABLE totalizer.dead_letters TO totalizer_writer;

GRANT UPDATE(retried_at) ON TABLE totalizer.dead_letters TO totalizer_writer;

GRANT SELECT ON TABLE totalizer.dirty_marks TO totalizer_app;
GRANT INSERT ON TABLE totalizer.dirty_marks TO totalizer_writer;
GRANT SELECT,INSERT,DELETE ON TABLE totalizer.dirty_marks TO totalizer_refresher;

GRANT SELECT,INSERT,DELETE ON TABLE totalizer.event_fates TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.event_fates TO totalizer_app;
GRANT SELECT,DELETE ON TABLE totalizer.event_fates TO totalizer_refresher;

GRANT UPDATE(fate) ON TABLE totalizer.event_fates TO totalizer_writer;

GRANT UPDATE(code) ON TABLE totalizer.event_fates TO totalizer_writer;

GRANT UPDATE(reason) ON TABLE totalizer.event_fates TO totalizer_writer;

GRANT UPDATE(dead_letter_id) ON TABLE totalizer.event_fates TO totalizer_writer;

GRANT SELECT ON TABLE totalizer.event_types TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.event_types TO totalizer_refresher;
GRANT SELECT ON TABLE totalizer.event_types TO totalizer_app;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE totalizer.job_runs TO totalizer_refresher;

GRANT SELECT(id) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(job) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(started_at) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(finished_at) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(state) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(scheduled_for) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(requested_at) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(rows) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(runner) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(attempt) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT(runs) ON TABLE totalizer.job_runs TO totalizer_app;

GRANT SELECT ON TABLE totalizer.jobs TO totalizer_app;
GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.jobs TO totalizer_refresher;

GRANT SELECT,INSERT,DELETE ON TABLE totalizer.journal_gaps TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.journal_gaps TO totalizer_app;
GRANT SELECT,DELETE ON TABLE totalizer.journal_gaps TO totalizer_refresher;

GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.journal_offsets TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.journal_offsets TO totalizer_app;
GRANT SELECT ON TABLE totalizer.journal_offsets TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.late_applied TO totalizer_app;
GRANT SELECT,INSERT ON TABLE totalizer.late_applied TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.late_events TO totalizer_app;
GRANT SELECT,INSERT,DELETE ON TABLE totalizer.late_events TO totalizer_writer;
GRANT SELECT,DELETE ON TABLE totalizer.late_events TO totalizer_refresher;

GRANT UPDATE(state) ON TABLE totalizer.late_events TO totalizer_writer;
GRANT UPDATE(state) ON TABLE totalizer.late_events TO totalizer_refresher;

GRANT UPDATE(applied_at) ON TABLE totalizer.late_events TO totalizer_refresher;

GRANT INSERT ON TABLE totalizer.load_ledger TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.load_ledger TO totalizer_app;
GRANT SELECT,DELETE ON TABLE totalizer.load_ledger TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.load_ledger_hourly TO totalizer_app;
GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.load_ledger_hourly TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.ledger TO totalizer_app;
GRANT SELECT ON TABLE totalizer.ledger TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.merchant_usage TO totalizer_app;
GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.merchant_usage TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.organization_limits TO totalizer_app;

GRANT SELECT ON TABLE totalizer.organizations TO totalizer_app;
GRANT SELECT ON TABLE totalizer.organizations TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.partitions TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.partitions TO totalizer_refresher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE totalizer.reconciled TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.rejected_events TO totalizer_app;
GRANT SELECT ON TABLE totalizer.rejected_events TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.removed_events TO totalizer_app;
GRANT SELECT,INSERT,DELETE ON TABLE totalizer.removed_events TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.repairs TO totalizer_app;
GRANT SELECT,INSERT ON TABLE totalizer.repairs TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.retention TO totalizer_app;
GRANT SELECT ON TABLE totalizer.retention TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.rollups TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.rollups TO totalizer_refresher;
GRANT SELECT ON TABLE totalizer.rollups TO totalizer_app;

GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.usage_aggregations TO totalizer_refresher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE totalizer.usage_failures TO totalizer_refresher;

GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.zone_fingerprints TO totalizer_refresher;
