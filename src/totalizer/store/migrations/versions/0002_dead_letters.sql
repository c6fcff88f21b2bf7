-- Dead letters can be tried again and dropped, by the writer, who stores events.
ALTER TABLE totalizer.dead_letters
    ADD COLUMN retries integer NOT NULL DEFAULT 0,
    ADD COLUMN retried_at timestamptz;
COMMENT ON COLUMN totalizer.dead_letters.retries IS 'How often it was tried again and refused again';
CREATE POLICY work_off_dead_letters ON totalizer.dead_letters FOR ALL TO totalizer_writer USING (true) WITH CHECK (true);
DROP POLICY add_dead_letters ON totalizer.dead_letters;
GRANT SELECT, DELETE, UPDATE (sqlstate, reason, retries, retried_at) ON totalizer.dead_letters TO totalizer_writer;

ALTER TABLE totalizer.load_ledger ADD COLUMN dropped bigint NOT NULL DEFAULT 0;
COMMENT ON TABLE totalizer.load_ledger IS
    'Append-only: the fate of every acknowledged event, summed by transaction, organisation and type. A dead letter that is loaded or dropped later takes one from dead_lettered and adds one elsewhere';
