-- Keys by which apps act for their users, from their backends.

CREATE TABLE auth.service_keys (
    id               text        NOT NULL CONSTRAINT service_keys_pkey PRIMARY KEY,
    key_hash         bytea       NOT NULL CONSTRAINT service_keys_key_hash_key UNIQUE
                                 CONSTRAINT service_keys_key_hash_length CHECK (length(key_hash) = 32),
    name             text        NOT NULL CONSTRAINT service_keys_name_length CHECK (length(name) BETWEEN 1 AND 100),
    -- The only app it acts as; without one, each request names the app.
    app_id           text        CONSTRAINT service_keys_app_id_length CHECK (length(app_id) BETWEEN 1 AND 128),
    scopes           text[]      NOT NULL CONSTRAINT service_keys_scopes_known CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY[
                                     'credits:read', 'credits:spend', 'credits:refund', 'credits:grant', 'sessions:mint', 'usage:read']),
    limit_per_minute integer     CONSTRAINT service_keys_limit_per_minute_positive CHECK (limit_per_minute > 0),
    created_at       timestamptz NOT NULL,
    -- An administrator, or nobody for one that was made at the command line.
    created_by       text        CONSTRAINT service_keys_created_by_fkey REFERENCES auth.users ON DELETE SET NULL,
    last_used_at     timestamptz,
    revoked_at       timestamptz
);
CALL mana.protect('auth.service_keys', 'false');
-- What a key may do never changes, and none is deleted: it stays clear who could do what, and when.
GRANT SELECT, INSERT, UPDATE (last_used_at, revoked_at) ON auth.service_keys TO mana_service;

-- None lives again either.
CREATE FUNCTION auth.refuse_key_revival() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the service key % is revoked for good', OLD.id;
END $$;
CREATE TRIGGER service_keys_stay_revoked BEFORE UPDATE OF revoked_at ON auth.service_keys FOR EACH ROW
    WHEN (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
    EXECUTE FUNCTION auth.refuse_key_revival();
