DO $$
DECLARE
    index_name regclass;
BEGIN
    FOR index_name IN
        SELECT i.indexrelid::regclass
        FROM pg_index i
        JOIN pg_class t ON t.oid = i.indrelid AND t.relkind = 'p' AND t.relnamespace = 'events'::regnamespace
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am m ON m.oid = c.relam AND m.amname = 'brin'
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0] AND a.attname = 'stored_at'
    LOOP
        EXECUTE format('DROP INDEX %s', index_name);
    END LOOP;
END
$$;
