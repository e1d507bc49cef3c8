-- What apps are told of: where to, what happened, and what became of the telling. And owners who want to hear of a low balance.

-- Where an app hears of things.
CREATE TABLE auth.webhook_endpoints (
    id              uuid        NOT NULL CONSTRAINT webhook_endpoints_pkey PRIMARY KEY,
    app_id          text        NOT NULL CONSTRAINT webhook_endpoints_app_id_length CHECK (length(app_id) BETWEEN 1 AND 128),
    url             text        NOT NULL CONSTRAINT webhook_endpoints_url_length CHECK (length(url) BETWEEN 1 AND 2048),
    events          text[]      NOT NULL CONSTRAINT webhook_endpoints_events_known CHECK (cardinality(events) > 0 AND events <@ ARRAY[
                                    'credits.spent', 'credits.low', 'purchase.completed', 'user.deleted', 'session.revoked']),
    -- The smallest spend that it wants to hear of.
    spent_from      bigint      NOT NULL CONSTRAINT webhook_endpoints_spent_from_range CHECK (spent_from BETWEEN 1 AND 9007199254740991),
    created_at      timestamptz NOT NULL,
    -- An administrator, or nobody for one that was added at the command line.
    created_by      text        CONSTRAINT webhook_endpoints_created_by_fkey REFERENCES auth.users ON DELETE SET NULL,
    -- Nobody else delivers to it before, and nobody at all after failures.
    busy_until      timestamptz NOT NULL,
    -- Attempts in a row of which none went through, and since when.
    failures        integer     NOT NULL DEFAULT 0 CONSTRAINT webhook_endpoints_failures_range CHECK (failures >= 0),
    failing_since   timestamptz,
    last_error      text,
    last_success_at timestamptz,
    disabled_at     timestamptz
) WITH (fillfactor = 50);
CREATE INDEX webhook_endpoints_app_id_idx ON auth.webhook_endpoints (app_id);
CALL mana.protect('auth.webhook_endpoints', 'false');
GRANT SELECT, INSERT, UPDATE (busy_until, failures, failing_since, last_error, last_success_at, disabled_at), DELETE
    ON auth.webhook_endpoints TO mana_service;

-- What deliveries to it are signed with: the newest, and the one before until its time is over. Sealed under a root secret.
CREATE TABLE auth.webhook_secrets (
    id             uuid        NOT NULL CONSTRAINT webhook_secrets_pkey PRIMARY KEY,
    endpoint_id    uuid        NOT NULL CONSTRAINT webhook_secrets_endpoint_id_fkey REFERENCES auth.webhook_endpoints ON DELETE CASCADE,
    sealed         bytea       NOT NULL,
    secret_version text        NOT NULL,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz
);
CREATE INDEX webhook_secrets_endpoint_id_idx ON auth.webhook_secrets (endpoint_id);
CALL mana.protect('auth.webhook_secrets', 'false');
GRANT SELECT, INSERT, UPDATE (sealed, secret_version, expires_at), DELETE ON auth.webhook_secrets TO mana_service;

-- What happened, in the words that are sent. Written in the transaction in which it happened, if anybody wants to hear of it.
CREATE TABLE auth.webhook_events (
    id         uuid        NOT NULL CONSTRAINT webhook_events_pkey PRIMARY KEY,
    type       text        NOT NULL,
    -- The app in which it happened; absent if it concerns them all.
    app_id     text,
    user_id    text        NOT NULL,
    -- How much was spent.
    amount     bigint,
    body       text        NOT NULL,
    created_at timestamptz NOT NULL
);
CALL mana.protect('auth.webhook_events', 'false');
GRANT SELECT, INSERT, DELETE ON auth.webhook_events TO mana_service;

-- One telling of one event. No foreign keys: each would lock the row of its endpoint, which every spend that is told of would share.
CREATE TABLE auth.webhook_deliveries (
    endpoint_id     uuid        NOT NULL,
    event_id        uuid        NOT NULL,
    state           text        NOT NULL CONSTRAINT webhook_deliveries_state_known CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts        integer     NOT NULL DEFAULT 0 CONSTRAINT webhook_deliveries_attempts_range CHECK (attempts >= 0),
    next_attempt_at timestamptz NOT NULL,
    last_status     smallint,
    last_error      text,
    attempted_at    timestamptz,
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (endpoint_id, event_id)
) WITH (fillfactor = 80);
CREATE INDEX webhook_deliveries_waiting_idx ON auth.webhook_deliveries (endpoint_id, next_attempt_at) WHERE state = 'waiting';
CREATE INDEX webhook_deliveries_dead_idx ON auth.webhook_deliveries (endpoint_id, event_id) WHERE state = 'dead';
CREATE INDEX webhook_deliveries_event_id_idx ON auth.webhook_deliveries (event_id);
CALL mana.protect('auth.webhook_deliveries', 'false');
GRANT SELECT, INSERT, UPDATE (state, attempts, next_attempt_at, last_status, last_error, attempted_at), DELETE
    ON auth.webhook_deliveries TO mana_service;

-- The balance below which its owner wants to hear of it, whether by mail, and in which language. In the wallet's row, because a
-- spend reads that anyway.
ALTER TABLE credits.balances
    ADD COLUMN low_below    bigint,
    ADD COLUMN low_mail     boolean NOT NULL DEFAULT false,
    ADD COLUMN low_language text,
    ADD CONSTRAINT balances_low_below_range CHECK (low_below BETWEEN 1 AND 9007199254740991) NOT VALID;
GRANT UPDATE (low_below, low_mail, low_language) ON credits.balances TO mana_service;

-- Owners who are to be mailed that their balance is low. Written in the transaction of the spend, gone once the mail is written.
CREATE TABLE credits.low_balance_notices (
    id         bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT low_balance_notices_pkey PRIMARY KEY,
    user_id    text        NOT NULL,
    below      bigint      NOT NULL,
    available  bigint      NOT NULL,
    language   text        NOT NULL,
    created_at timestamptz NOT NULL
);
CALL mana.protect('credits.low_balance_notices', 'false');
-- UPDATE of a column is what lets the service lock a row.
GRANT SELECT, INSERT, UPDATE (created_at), DELETE ON credits.low_balance_notices TO mana_service;
