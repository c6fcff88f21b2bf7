-- Rollups of every grain: marks with an aim and a turn, corrections that mark themselves, states of sketches.

ALTER TABLE totalizer.dirty_marks
    ADD COLUMN rollup text,
    ADD COLUMN scope text NOT NULL DEFAULT 'events' CHECK (scope IN ('events', 'days')),
    ADD COLUMN priority smallint NOT NULL DEFAULT 0;
COMMENT ON COLUMN totalizer.dirty_marks.rollup IS 'The one rollup that is behind; null: all of the event type';
COMMENT ON COLUMN totalizer.dirty_marks.scope IS 'events: compute the bucket from the events; days: only the local day, week and month that hold it';
COMMENT ON COLUMN totalizer.dirty_marks.priority IS '0: live; 1: backfill, taken when no live mark of the shard waits';
-- The order in which a refresh takes marks: it reads as many entries as it takes, however many wait.
CREATE INDEX dirty_marks_by_turn ON totalizer.dirty_marks (event_type, shard, priority, bucket DESC);

ALTER TABLE totalizer.rollups ADD COLUMN version integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN totalizer.rollups.version IS 'Raised by each new definition';

-- What a change of stored events leaves behind, whoever made it, is marked in the same transaction.
CREATE FUNCTION totalizer.mark_corrected() RETURNS trigger
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
COMMENT ON FUNCTION totalizer.mark_corrected IS 'Trigger; arguments: event type, its time field';
REVOKE ALL ON FUNCTION totalizer.mark_corrected FROM PUBLIC;

-- A statement fires the triggers of the table it names, be that the event table or one partition; TRUNCATE also those
-- of the partitions. Loading only inserts, and marks by itself.
CREATE FUNCTION totalizer.watch_corrections(type_name text, time_name text, relation regclass, is_partition boolean)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
REVOKE ALL ON FUNCTION totalizer.watch_corrections FROM PUBLIC;

SELECT totalizer.watch_corrections(t.name, t.time_field, c.oid, false)
FROM totalizer.event_types t JOIN pg_class c ON c.relnamespace = 'events'::regnamespace AND c.relname = t.name;
SELECT totalizer.watch_corrections(t.name, t.time_field, i.inhrelid, true)
FROM totalizer.event_types t JOIN pg_class c ON c.relnamespace = 'events'::regnamespace AND c.relname = t.name
JOIN pg_inherits i ON i.inhparent = c.oid;

CREATE OR REPLACE FUNCTION totalizer.ensure_partition(type_name text, day date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
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

CREATE TABLE totalizer.zone_fingerprints (
    time_zone text NOT NULL,
    month date NOT NULL,
    fingerprint text NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (time_zone, month)
);
COMMENT ON TABLE totalizer.zone_fingerprints IS 'When the days of each month began in each zone in use, as PostgreSQL last saw it';
GRANT SELECT, INSERT, UPDATE ON totalizer.zone_fingerprints TO totalizer_refresher;

-- States of sketches. They are text in one canonical form, so that equal sets of values give equal states, whatever the
-- order and the steps of merging; string_agg(state, ' ') puts states together, merge_… makes them one.

-- Quantiles: DDSketch (Masson, Rim, Lee: DDSketch, VLDB 2019). A value lies in the bucket i with g^(i-1) < |x| <= g^i,
-- g = (1 + a) / (1 - a), a = 0.01: 0.99 g^i is at most 1 % off. 40000 + i is the index of a positive value, 0 that of
-- zero, -(40000 + i) that of a negative one: indices sort as the values do, every double has one, and what is
-- no finite number shares that of the greatest.
CREATE FUNCTION totalizer.quantile_index(x double precision) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN CASE
    WHEN x > 0 THEN 40000 + least(ceil(ln(x) / 0.020000666706669435), 35488)::integer
    WHEN x < 0 THEN -40000 - least(ceil(ln(-x) / 0.020000666706669435), 35488)::integer
    ELSE 0
END;

CREATE FUNCTION totalizer.count_quantiles(indices integer[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
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

CREATE FUNCTION totalizer.merge_quantiles(states text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
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

-- The values at some quantiles, named p50, p99.9 …: of n values in order, the one at place floor(q (n - 1)), from 0.
CREATE FUNCTION totalizer.quantile_values(state text, quantiles double precision[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN (
    WITH counted AS (
        SELECT split_part(pair, ':', 1)::integer AS index, split_part(pair, ':', 2)::bigint AS n
        FROM string_to_table(state, ' ') AS pair
    ), placed AS (
        SELECT index, sum(n) OVER (ORDER BY index) AS up_to, sum(n) OVER () AS total FROM counted
    )
    SELECT jsonb_object_agg('p' || (q::numeric * 100)::double precision, (
        SELECT CASE
            WHEN index = 0 THEN 0
            ELSE sign(index) * exp((abs(index) - 40000) * 0.020000666706669435 + ln(0.99::double precision))
        END
        FROM placed WHERE up_to > floor(q::numeric * (total - 1)) ORDER BY index LIMIT 1
    ))
    FROM unnest(quantiles) AS q
);

-- Unique values: up to 128 of them their MD5 hashes, sorted, and so exact. Beyond, a HyperLogLog of 4096 registers
-- (Flajolet, Fusy, Gandouet, Meunier: HyperLogLog, AofA 2007; sparse, with longer hashes, as in Heule, Nunkesser, Hall:
-- HyperLogLog in Practice, EDBT 2013): `register:rank`, sorted, of the registers that are not empty. The first 12 bits
-- of a hash choose the register, the place of the first 1 among the next 52 is its rank. A union of more than 128
-- values takes the second form whether or not its parts have it, so the form does not depend on the steps.
CREATE FUNCTION totalizer.merge_unique(states text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
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

CREATE FUNCTION totalizer.unique_is_estimate(state text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(strpos(state, ':') > 0, false);

-- How many values: exact, or from the registers by the improved raw estimator of Ertl (New cardinality estimation
-- algorithms for HyperLogLog sketches, 2017, algorithm 6), which is unbiased from none to all without tables or
-- thresholds. Its standard error is 1.04 / sqrt(4096) = 1.6 %.
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
