-- Keys that are used, replaced and administered over HTTP; limits of an organisation.
ALTER TABLE totalizer.api_keys
    ADD COLUMN last_used_at timestamptz,
    ADD COLUMN replaced_by uuid REFERENCES totalizer.api_keys;
COMMENT ON COLUMN totalizer.api_keys.last_used_at IS 'When it was used last; written at most once a minute';
COMMENT ON COLUMN totalizer.api_keys.replaced_by IS 'The key that took its place when it was rotated';
CREATE INDEX api_keys_by_organization ON totalizer.api_keys (organization_id, created_at);

-- The app role administers the keys of the transaction's organisation. It may write a hash and never read one.
ALTER TABLE totalizer.api_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_keys ON totalizer.api_keys FOR ALL TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid))
    WITH CHECK (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
GRANT SELECT (id, organization_id, name, scopes, created_at, expires_at, revoked_at, last_used_at, replaced_by),
    INSERT (organization_id, name, key_hash, scopes, expires_at),
    UPDATE (expires_at, revoked_at, replaced_by)
    ON totalizer.api_keys TO totalizer_app;

CREATE TABLE totalizer.organization_limits (
    organization_id uuid PRIMARY KEY REFERENCES totalizer.organizations,
    requests bigint CHECK (requests >= 0),
    batches bigint CHECK (batches >= 0),
    reads bigint CHECK (reads >= 0),
    bytes bigint CHECK (bytes >= 0)
);
COMMENT ON TABLE totalizer.organization_limits IS 'How much an organisation may send and ask in a window; null: as the settings say, 0: no limit';
ALTER TABLE totalizer.organization_limits ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_limits ON totalizer.organization_limits FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
GRANT SELECT ON totalizer.organization_limits TO totalizer_app;

-- Before anybody is known there is no organisation to set, so these two questions are functions: what a key may do,
-- found by its hash; and whether an organisation that a token names is there. Both tell its limits:
-- requests, batches, reads, bytes.
DROP FUNCTION totalizer.authenticate_key;
CREATE FUNCTION totalizer.authenticate_key(hash bytea)
RETURNS TABLE (
    key_id uuid, organization_id uuid, scopes text[], expires_at timestamptz, last_used_at timestamptz, limits bigint[]
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
    SELECT k.id, k.organization_id, k.scopes, k.expires_at, k.last_used_at, ARRAY[l.requests, l.batches, l.reads, l.bytes]
    FROM totalizer.api_keys k LEFT JOIN totalizer.organization_limits l ON l.organization_id = k.organization_id
    WHERE k.key_hash = hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
$$;
CREATE FUNCTION totalizer.find_organization(wanted uuid)
RETURNS TABLE (organization_id uuid, limits bigint[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
    SELECT o.id, ARRAY[l.requests, l.batches, l.reads, l.bytes]
    FROM totalizer.organizations o LEFT JOIN totalizer.organization_limits l ON l.organization_id = o.id
    WHERE o.id = wanted
$$;
-- Note that a key is in use. A row that another process is noting now is left to it.
CREATE FUNCTION totalizer.note_key_used(used uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
    UPDATE totalizer.api_keys SET last_used_at = now()
    WHERE id = (
        SELECT id FROM totalizer.api_keys
        WHERE id = used AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
        FOR UPDATE SKIP LOCKED
    )
$$;
REVOKE ALL ON FUNCTION totalizer.authenticate_key, totalizer.find_organization, totalizer.note_key_used FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.authenticate_key, totalizer.find_organization, totalizer.note_key_used TO totalizer_app;
