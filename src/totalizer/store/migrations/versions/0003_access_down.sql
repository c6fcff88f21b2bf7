DROP FUNCTION totalizer.note_key_used, totalizer.find_organization, totalizer.authenticate_key;
CREATE FUNCTION totalizer.authenticate_key(hash bytea)
RETURNS TABLE (key_id uuid, organization_id uuid, scopes text[], expires_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
    SELECT id, organization_id, scopes, expires_at FROM totalizer.api_keys
    WHERE key_hash = hash AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
$$;
REVOKE ALL ON FUNCTION totalizer.authenticate_key FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.authenticate_key TO totalizer_app;
DROP TABLE totalizer.organization_limits;
REVOKE SELECT (id, organization_id, name, scopes, created_at, expires_at, revoked_at, last_used_at, replaced_by),
    INSERT (organization_id, name, key_hash, scopes, expires_at),
    UPDATE (expires_at, revoked_at, replaced_by)
    ON totalizer.api_keys FROM totalizer_app;
DROP POLICY own_keys ON totalizer.api_keys;
ALTER TABLE totalizer.api_keys DISABLE ROW LEVEL SECURITY;
DROP INDEX totalizer.api_keys_by_organization;
ALTER TABLE totalizer.api_keys DROP COLUMN last_used_at, DROP COLUMN replaced_by;
