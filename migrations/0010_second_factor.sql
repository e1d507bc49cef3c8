-- How a session was proven, and the second factor.

-- When the person behind a session last proved who they are, and by what. Sessions from before have neither: their sign-in was it.
ALTER TABLE auth.sessions ADD COLUMN authenticated_at timestamptz, ADD COLUMN authenticated_by text[];
GRANT SELECT (authenticated_at, authenticated_by) ON auth.sessions TO mana_user;

-- A shared secret for time-based codes (RFC 6238), sealed under a root secret. Until confirmed_at it opens nothing: the person
-- has yet to show that their app has it. Every code up to last_step is used up. Wrong guesses count for the account as a whole.
CREATE TABLE auth.two_factor_auth (
    user_id           text        NOT NULL CONSTRAINT two_factor_auth_pkey PRIMARY KEY
                                  CONSTRAINT two_factor_auth_user_id_fkey REFERENCES auth.users,
    secret_sealed     bytea       NOT NULL,
    secret_version    text        NOT NULL,
    created_at        timestamptz NOT NULL,
    confirmed_at      timestamptz,
    last_step         bigint      NOT NULL DEFAULT 0 CONSTRAINT two_factor_auth_last_step_range CHECK (last_step >= 0),
    attempts          integer     NOT NULL DEFAULT 0 CONSTRAINT two_factor_auth_attempts_range CHECK (attempts >= 0),
    attempts_began_at timestamptz NOT NULL
) WITH (fillfactor = 80);
CALL mana.protect('auth.two_factor_auth', 'false');
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.two_factor_auth TO mana_service;

-- Codes on paper, each good once.
CREATE TABLE auth.recovery_codes (
    user_id    text        NOT NULL CONSTRAINT recovery_codes_user_id_fkey REFERENCES auth.users,
    code_hash  bytea       NOT NULL CONSTRAINT recovery_codes_code_hash_length CHECK (length(code_hash) = 32),
    created_at timestamptz NOT NULL,
    CONSTRAINT recovery_codes_pkey PRIMARY KEY (user_id, code_hash)
);
CALL mana.protect('auth.recovery_codes', 'false');
GRANT SELECT, INSERT, DELETE ON auth.recovery_codes TO mana_service;

-- Sign-ins that wait for their second factor. Opens nothing by itself.
CREATE TABLE auth.pending_sign_ins (
    token_hash  bytea       NOT NULL CONSTRAINT pending_sign_ins_pkey PRIMARY KEY,
    user_id     text        NOT NULL CONSTRAINT pending_sign_ins_user_id_fkey REFERENCES auth.users,
    proven_by   text[]      NOT NULL,
    device_id   text,
    device_name text,
    remember_me boolean     NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX pending_sign_ins_user_id_idx ON auth.pending_sign_ins (user_id);
CREATE INDEX pending_sign_ins_expires_at_idx ON auth.pending_sign_ins (expires_at);
CALL mana.protect('auth.pending_sign_ins', 'false');
GRANT SELECT, INSERT, DELETE ON auth.pending_sign_ins TO mana_service;

-- Browsers whose owner asked not to be asked for the second factor for a while.
CREATE TABLE auth.trusted_devices (
    id         text        NOT NULL CONSTRAINT trusted_devices_pkey PRIMARY KEY,
    user_id    text        NOT NULL CONSTRAINT trusted_devices_user_id_fkey REFERENCES auth.users,
    token_hash bytea       NOT NULL CONSTRAINT trusted_devices_token_hash_key UNIQUE,
    user_agent text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX trusted_devices_user_id_idx ON auth.trusted_devices (user_id);
CREATE INDEX trusted_devices_expires_at_idx ON auth.trusted_devices (expires_at);
CALL mana.protect('auth.trusted_devices', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, DELETE ON auth.trusted_devices TO mana_service;
GRANT SELECT (id, user_id, user_agent, created_at, expires_at) ON auth.trusted_devices TO mana_user;
