-- Passkeys, and the challenges that authenticators sign.

-- What a passkey's authenticator told at registration; the private half never leaves it. The public key is stored as COSE has it.
CREATE TABLE auth.passkeys (
    id                 uuid        NOT NULL CONSTRAINT passkeys_pkey PRIMARY KEY,
    user_id            text        NOT NULL CONSTRAINT passkeys_user_id_fkey REFERENCES auth.users,
    credential_id      bytea       NOT NULL CONSTRAINT passkeys_credential_id_key UNIQUE
                                   CONSTRAINT passkeys_credential_id_length CHECK (length(credential_id) BETWEEN 16 AND 1023),
    public_key         bytea       NOT NULL CONSTRAINT passkeys_public_key_length CHECK (length(public_key) BETWEEN 1 AND 2048),
    sign_count         bigint      NOT NULL CONSTRAINT passkeys_sign_count_range CHECK (sign_count BETWEEN 0 AND 4294967295),
    is_backup_eligible boolean     NOT NULL,
    is_backed_up       boolean     NOT NULL,
    transports         text[]      NOT NULL,
    name               text        NOT NULL CONSTRAINT passkeys_name_length CHECK (length(name) BETWEEN 1 AND 64),
    created_at         timestamptz NOT NULL,
    -- The session that it was added in: if that turns out to be a stranger's, so does the passkey.
    added_in           text        NOT NULL,
    last_used_at       timestamptz,
    CONSTRAINT passkeys_backed_up_if_eligible CHECK (is_backup_eligible OR NOT is_backed_up)
);
CREATE INDEX passkeys_user_id_idx ON auth.passkeys (user_id, created_at);
CALL mana.protect('auth.passkeys', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, UPDATE (sign_count, is_backed_up, name, last_used_at), DELETE ON auth.passkeys TO mana_service;
GRANT SELECT (id, user_id, is_backed_up, transports, name, created_at, last_used_at) ON auth.passkeys TO mana_user;

-- Challenges that are out. One is good for one thing, once: bound_to is the session or the waiting sign-in that asked for it; whoever
-- wants to sign in is nobody yet, and has neither that nor a user.
CREATE TABLE auth.passkey_challenges (
    challenge_hash bytea       NOT NULL CONSTRAINT passkey_challenges_pkey PRIMARY KEY
                               CONSTRAINT passkey_challenges_challenge_hash_length CHECK (length(challenge_hash) = 32),
    purpose        text        NOT NULL CONSTRAINT passkey_challenges_purpose_known
                               CHECK (purpose IN ('registration', 'sign_in', 'second_factor', 'reauthentication')),
    user_id        text        CONSTRAINT passkey_challenges_user_id_fkey REFERENCES auth.users,
    bound_to       bytea,
    expires_at     timestamptz NOT NULL,
    CONSTRAINT passkey_challenges_bound CHECK ((purpose = 'sign_in') = (user_id IS NULL) AND (user_id IS NULL) = (bound_to IS NULL))
);
CREATE INDEX passkey_challenges_expires_at_idx ON auth.passkey_challenges (expires_at);
CALL mana.protect('auth.passkey_challenges', 'false');
GRANT SELECT, INSERT, DELETE ON auth.passkey_challenges TO mana_service;
