DROP TRIGGER note_floor_raised ON totalizer.retention_floors;
DROP FUNCTION totalizer.note_floor_raised;
DROP TRIGGER note_late_applied ON totalizer.late_events;
DROP FUNCTION totalizer.note_late_applied;
DROP TRIGGER note_marked ON totalizer.dirty_marks;
DROP FUNCTION totalizer.note_marked;
DROP FUNCTION totalizer.data_changed;
DROP TABLE totalizer.data_versions;
