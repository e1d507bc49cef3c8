-- Mails that wait to be sent, and what the owner of an account may undo from one.

-- A mail is written here in the transaction of what it tells of, and deleted once it is sent or given up. What it says is
-- sealed under a root secret: it may hold a link that opens an account.
CREATE TABLE auth.outgoing_mails (
    id              uuid        NOT NULL CONSTRAINT outgoing_mails_pkey PRIMARY KEY,
    user_id         text        CONSTRAINT outgoing_mails_user_id_fkey REFERENCES auth.users,
    template        text        NOT NULL,
    sealed          bytea       NOT NULL,
    secret_version  text        NOT NULL,
    attempts        integer     NOT NULL DEFAULT 0 CONSTRAINT outgoing_mails_attempts_range CHECK (attempts >= 0),
    next_attempt_at timestamptz NOT NULL,
    created_at      timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX outgoing_mails_next_attempt_at_idx ON auth.outgoing_mails (next_attempt_at);
CALL mana.protect('auth.outgoing_mails', 'false');
GRANT SELECT, INSERT, UPDATE (attempts, next_attempt_at), DELETE ON auth.outgoing_mails TO mana_service;

-- How many mails of a kind an address was sent within the hour that began then: nobody floods a stranger's mailbox from here.
CREATE TABLE auth.mail_budgets (
    address_hash bytea       NOT NULL CONSTRAINT mail_budgets_address_hash_length CHECK (length(address_hash) = 32),
    template     text        NOT NULL,
    used         integer     NOT NULL CONSTRAINT mail_budgets_used_positive CHECK (used > 0),
    began_at     timestamptz NOT NULL,
    CONSTRAINT mail_budgets_pkey PRIMARY KEY (address_hash, template)
) WITH (fillfactor = 80);
CREATE INDEX mail_budgets_began_at_idx ON auth.mail_budgets (began_at);
CALL mana.protect('auth.mail_budgets', 'false');
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.mail_budgets TO mana_service;

-- Behind each link "this wasn't me": the session that it ends, once.
CREATE TABLE auth.disown_tokens (
    token_hash bytea       NOT NULL CONSTRAINT disown_tokens_pkey PRIMARY KEY,
    user_id    text        NOT NULL CONSTRAINT disown_tokens_user_id_fkey REFERENCES auth.users,
    session_id text        NOT NULL CONSTRAINT disown_tokens_session_id_key UNIQUE
                           CONSTRAINT disown_tokens_session_id_fkey REFERENCES auth.sessions ON DELETE CASCADE,
    created_at timestamptz NOT NULL
);
CALL mana.protect('auth.disown_tokens', 'false');
GRANT SELECT, INSERT, DELETE ON auth.disown_tokens TO mana_service;

-- More about what happened, where its type alone does not say it: why a session was ended.
ALTER TABLE auth.security_events ADD COLUMN detail text;
