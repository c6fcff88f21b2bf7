DROP TABLE totalizer.alert_silences;
DROP TABLE totalizer.alert_history;
DROP TABLE totalizer.alerts;
DROP FUNCTION totalizer.health_facts;
DROP INDEX totalizer.load_ledger_hourly_by_hour;
