DROP FUNCTION totalizer.count_rejected;
DROP TABLE totalizer.rejected_events;
DROP VIEW totalizer.ledger;
DROP POLICY take_ledger ON totalizer.load_ledger;
REVOKE DELETE ON totalizer.load_ledger FROM totalizer_refresher;
DROP INDEX totalizer.load_ledger_by_age;
-- What was summed up goes back to where the version before looks for it.
INSERT INTO totalizer.load_ledger (organization_id, event_type, loaded, duplicate, conflict, dead_lettered, dropped, loaded_at)
SELECT organization_id, event_type, loaded, duplicate, conflict, dead_lettered, dropped, received_hour
FROM totalizer.load_ledger_hourly;
DROP TABLE totalizer.load_ledger_hourly;
ALTER TABLE totalizer.load_ledger DROP COLUMN accepted, DROP COLUMN received_hour;
DROP INDEX totalizer.dead_letters_by_organization;
ALTER TABLE totalizer.dead_letters DROP COLUMN received_hour;
DROP TABLE totalizer.event_fates;
DROP TABLE totalizer.journal_gaps;
ALTER TABLE totalizer.journal_offsets DROP COLUMN sequence;
