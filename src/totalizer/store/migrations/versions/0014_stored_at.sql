-- An index of when events were stored, in every partition, of a few kilobytes: rows lie in the order they were stored in.
-- Event types that are declared later get theirs with their table, and partitions from their table.

DO $$
DECLARE
    type_name text;
BEGIN
    FOR type_name IN SELECT name FROM totalizer.event_types LOOP
        EXECUTE format('CREATE INDEX ON events.%I USING brin (stored_at) WITH (autosummarize)', type_name);
    END LOOP;
END
$$;
