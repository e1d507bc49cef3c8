-- Whom somebody is known as at other services that say who people are.

-- Identity is (issuer, subject), never an address: that may change hands. What the service gave for asking it more is sealed under
-- a root secret.
CREATE TABLE auth.accounts (
    id             uuid        NOT NULL CONSTRAINT accounts_pkey PRIMARY KEY,
    user_id        text        NOT NULL CONSTRAINT accounts_user_id_fkey REFERENCES auth.users,
    provider       text        NOT NULL,
    issuer         text        NOT NULL,
    subject        text        NOT NULL CONSTRAINT accounts_subject_length CHECK (length(subject) BETWEEN 1 AND 255),
    email          text,
    tokens_sealed  bytea,
    secret_version text,
    created_at     timestamptz NOT NULL,
    last_used_at   timestamptz NOT NULL,
    CONSTRAINT accounts_issuer_subject_key UNIQUE (issuer, subject),
    CONSTRAINT accounts_sealed_with_version CHECK ((tokens_sealed IS NULL) = (secret_version IS NULL))
);
CREATE INDEX accounts_user_id_idx ON auth.accounts (user_id, created_at);
CALL mana.protect('auth.accounts', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, UPDATE (email, tokens_sealed, secret_version, last_used_at), DELETE ON auth.accounts TO mana_service;
GRANT SELECT (id, user_id, provider, issuer, email, created_at, last_used_at) ON auth.accounts TO mana_user;

-- Round trips to another service that came back: each does once.
CREATE TABLE auth.finished_flows (
    state_hash bytea       NOT NULL CONSTRAINT finished_flows_pkey PRIMARY KEY
                           CONSTRAINT finished_flows_state_hash_length CHECK (length(state_hash) = 32),
    expires_at timestamptz NOT NULL
);
CREATE INDEX finished_flows_expires_at_idx ON auth.finished_flows (expires_at);
CALL mana.protect('auth.finished_flows', 'false');
GRANT SELECT, INSERT, DELETE ON auth.finished_flows TO mana_service;
