ALTER TABLE totalizer.dead_letters DROP COLUMN retries, DROP COLUMN retried_at;
CREATE POLICY add_dead_letters ON totalizer.dead_letters FOR INSERT TO totalizer_writer WITH CHECK (true);
DROP POLICY work_off_dead_letters ON totalizer.dead_letters;
REVOKE SELECT, DELETE, UPDATE ON totalizer.dead_letters FROM totalizer_writer;

-- What was dropped was dead-lettered, in the words of the version before.
INSERT INTO totalizer.load_ledger (organization_id, event_type, loaded, duplicate, conflict, dead_lettered)
SELECT organization_id, event_type, 0, 0, 0, sum(dropped) FROM totalizer.load_ledger
GROUP BY 1, 2 HAVING sum(dropped) <> 0;
ALTER TABLE totalizer.load_ledger DROP COLUMN dropped;
COMMENT ON TABLE totalizer.load_ledger IS 'Append-only: the fate of every acknowledged event, one row for each transaction, organisation and type';
