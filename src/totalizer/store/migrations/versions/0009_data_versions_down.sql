DROP TRIGGER note_marked ON totalizer.dirty_marks;
DROP FUNCTION totalizer.note_marked;
DROP FUNCTION totalizer.data_changed;
DROP TABLE totalizer.data_versions;
