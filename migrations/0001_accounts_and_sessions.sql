-- Accounts, sessions and keys. The roles mana_service and mana_user exist before the first migration (platform/src/migrate.rs).

-- Every table of the product goes through this: row-level security on and forced, the service sees all rows, a user
-- those that the condition shows. The condition reads mana.user_id, which a transaction sets for itself.
CREATE PROCEDURE mana.protect(relation regclass, user_sees text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', relation);
    EXECUTE format('CREATE POLICY service ON %s TO mana_service USING (true) WITH CHECK (true)', relation);
    EXECUTE format('CREATE POLICY own_rows ON %s FOR SELECT TO mana_user USING (%s)', relation, user_sees);
END $$;

REVOKE EXECUTE ON PROCEDURE mana.protect FROM PUBLIC;

CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA mana, auth TO mana_service, mana_user;

CREATE TABLE auth.users (
    id             text        NOT NULL CONSTRAINT users_pkey PRIMARY KEY
                               CONSTRAINT users_id_shape CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    email          text        NOT NULL CONSTRAINT users_email_key UNIQUE
                               CONSTRAINT users_email_length CHECK (length(email) BETWEEN 3 AND 254),
    name           text        CONSTRAINT users_name_length CHECK (length(name) <= 255),
    role           text        NOT NULL DEFAULT 'user'
                               CONSTRAINT users_role_known CHECK (role IN ('user', 'admin', 'service')),
    email_verified boolean     NOT NULL DEFAULT false,
    image          text,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    disabled_at    timestamptz
);
CALL mana.protect('auth.users', $$id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, UPDATE (role, updated_at) ON auth.users TO mana_service;
GRANT SELECT ON auth.users TO mana_user;

-- PHC strings. The user role has no grant at all: no request that acts for a user has business with a hash.
CREATE TABLE auth.passwords (
    user_id    text        NOT NULL CONSTRAINT passwords_pkey PRIMARY KEY
                           CONSTRAINT passwords_user_id_fkey REFERENCES auth.users,
    hash       text        NOT NULL,
    updated_at timestamptz NOT NULL
);
CALL mana.protect('auth.passwords', 'false');
GRANT SELECT, INSERT, UPDATE ON auth.passwords TO mana_service;

-- A sign-in on a device.
CREATE TABLE auth.sessions (
    id             text        NOT NULL CONSTRAINT sessions_pkey PRIMARY KEY,
    user_id        text        NOT NULL CONSTRAINT sessions_user_id_fkey REFERENCES auth.users,
    cookie_hash    bytea       NOT NULL CONSTRAINT sessions_cookie_hash_key UNIQUE,
    device_id      text,
    device_name    text,
    user_agent     text,
    ip_address     inet,
    remember_me    boolean     NOT NULL,
    created_at     timestamptz NOT NULL,
    last_active_at timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    revoked_at     timestamptz,
    revoked_reason text,
    CONSTRAINT sessions_revoked_with_reason CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
);
CREATE INDEX sessions_user_id_idx ON auth.sessions (user_id, created_at DESC);
CALL mana.protect('auth.sessions', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, UPDATE ON auth.sessions TO mana_service;
-- All but the cookie's hash.
GRANT SELECT (id, user_id, device_id, device_name, user_agent, ip_address, remember_me, created_at, last_active_at,
    expires_at, revoked_at, revoked_reason) ON auth.sessions TO mana_user;

-- One app's refresh tokens under a session. Storage is constant: a token is derived from the row's seed, its
-- generation and a root secret that is not in the database, so the row alone can't be turned into a token.
CREATE TABLE auth.refresh_chains (
    id             text        NOT NULL CONSTRAINT refresh_chains_pkey PRIMARY KEY,
    user_id        text        NOT NULL CONSTRAINT refresh_chains_user_id_fkey REFERENCES auth.users,
    session_id     text        NOT NULL CONSTRAINT refresh_chains_session_id_fkey REFERENCES auth.sessions,
    app_id         text        NOT NULL,
    secret_version text        NOT NULL,
    seed           bytea       NOT NULL CONSTRAINT refresh_chains_seed_length CHECK (length(seed) = 32),
    generation     bigint      NOT NULL CONSTRAINT refresh_chains_generation_positive CHECK (generation > 0),
    rotated_at     timestamptz NOT NULL,
    confirmed_at   timestamptz,
    expires_at     timestamptz NOT NULL,
    CONSTRAINT refresh_chains_session_app_key UNIQUE (session_id, app_id)
) WITH (fillfactor = 80);
CALL mana.protect('auth.refresh_chains', 'false');
GRANT SELECT, INSERT, UPDATE ON auth.refresh_chains TO mana_service;

-- Keys that sign access tokens; the private half is sealed under a root secret.
CREATE TABLE auth.jwks (
    kid                text        NOT NULL CONSTRAINT jwks_pkey PRIMARY KEY,
    algorithm          text        NOT NULL CONSTRAINT jwks_algorithm_known CHECK (algorithm IN ('RS256')),
    public_jwk         jsonb       NOT NULL,
    private_key_sealed bytea       NOT NULL,
    secret_version     text        NOT NULL,
    created_at         timestamptz NOT NULL,
    retired_at         timestamptz
);
CALL mana.protect('auth.jwks', 'false');
GRANT SELECT, INSERT, UPDATE ON auth.jwks TO mana_service;

-- One-time links that make the first administrator.
CREATE TABLE auth.admin_claims (
    token_hash bytea       NOT NULL CONSTRAINT admin_claims_pkey PRIMARY KEY,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CALL mana.protect('auth.admin_claims', 'false');
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.admin_claims TO mana_service;

-- What happened to an account; without a user, what was tried at an address that has none. Written, never changed.
CREATE TABLE auth.security_events (
    id         uuid        NOT NULL CONSTRAINT security_events_pkey PRIMARY KEY,
    user_id    text        CONSTRAINT security_events_user_id_fkey REFERENCES auth.users,
    type       text        NOT NULL,
    session_id text,
    ip_address inet,
    user_agent text,
    request_id text,
    created_at timestamptz NOT NULL
);
CREATE INDEX security_events_user_id_idx ON auth.security_events (user_id, created_at DESC);
CALL mana.protect('auth.security_events', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT ON auth.security_events TO mana_service;
GRANT SELECT ON auth.security_events TO mana_user;
