-- The ledger for group commit: a wallet's whole live state in its one row, one row for each transaction with its legs in
-- it, holds, and usage statistics. What was in the tables before is carried over.
-- (The owner is no superuser everywhere: while it moves rows, it must see them, and new tables are protected when they are
-- filled.)

ALTER TABLE credits.balances NO FORCE ROW LEVEL SECURITY;
ALTER TABLE credits.grants NO FORCE ROW LEVEL SECURITY;
ALTER TABLE credits.transactions NO FORCE ROW LEVEL SECURITY;
ALTER TABLE credits.entries NO FORCE ROW LEVEL SECURITY;
ALTER TABLE credits.idempotency_keys NO FORCE ROW LEVEL SECURITY;

-- `free` and `paid` are what live grants have left, `held` is what open holds have taken from them; together they are the
-- balance. `grants` and `holds` are the live ones: what a command needs is locked, read and written in one row.
ALTER TABLE credits.balances
    ADD COLUMN version   bigint NOT NULL DEFAULT 0 CONSTRAINT balances_version_range CHECK (version >= 0),
    ADD COLUMN held      bigint NOT NULL DEFAULT 0 CONSTRAINT balances_held_range CHECK (held BETWEEN 0 AND 9007199254740991),
    ADD COLUMN grants    json   NOT NULL DEFAULT '[]',
    ADD COLUMN holds     json   NOT NULL DEFAULT '[]',
    ADD COLUMN closed_at timestamptz,
    DROP CONSTRAINT balances_sum_range,
    ADD CONSTRAINT balances_sum_range CHECK (free + paid + held <= 9007199254740991);
UPDATE credits.balances SET version = sequence, grants = coalesce((
    SELECT json_agg(json_strip_nulls(json_build_object('sequence', grant_sequence, 'source', source, 'remaining', remaining,
        'priority', priority, 'costMicros', CASE WHEN paid THEN 1000000 ELSE 0 END,
        'expiresAt', to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))) ORDER BY grant_sequence)
    FROM credits.grants WHERE grants.wallet_id = balances.wallet_id AND (remaining > 0 OR source = 'allowance')), '[]');
GRANT UPDATE (version, held, grants, holds, closed_at) ON credits.balances TO mana_service;

-- What a grant is. Written once: what is left of it is in the wallet's row, and what it gave is in the transactions.
ALTER TABLE credits.entries DROP CONSTRAINT entries_grant_fkey, DROP CONSTRAINT entries_transaction_fkey;
ALTER TABLE credits.grants
    DROP CONSTRAINT grants_source_known, DROP CONSTRAINT grants_remaining_range, DROP CONSTRAINT grants_granted_range,
    DROP CONSTRAINT grants_wallet_id_fkey,
    ADD COLUMN cost_micros bigint NOT NULL DEFAULT 0,
    ADD COLUMN effective_from timestamptz;
UPDATE credits.grants SET cost_micros = 1000000 WHERE paid;
ALTER TABLE credits.grants DROP COLUMN paid, DROP COLUMN granted, DROP COLUMN remaining,
    ALTER COLUMN cost_micros DROP DEFAULT,
    ADD CONSTRAINT grants_source_known CHECK (source IN ('allowance', 'promotion', 'adjustment', 'purchase')),
    ADD CONSTRAINT grants_cost_micros_range CHECK (cost_micros BETWEEN 0 AND 9007199254740991),
    ADD CONSTRAINT grants_effective_before_expiry CHECK (effective_from < expires_at);
REVOKE UPDATE ON credits.grants FROM mana_service;
CREATE TRIGGER grants_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credits.grants
    FOR EACH STATEMENT EXECUTE FUNCTION credits.refuse_change();

-- A transaction moves its amount between the wallet and one system account, `counter`. The wallet's side is in slices,
-- one for each grant that it changes; they sum to the amount, and the system account gets what they give. System accounts
-- have no row: a running total that every spend updates would be the bottleneck.
ALTER TABLE credits.transactions
    ADD COLUMN counter        text,
    ADD COLUMN slice_grants   bigint[],
    ADD COLUMN slice_amounts  bigint[],
    ADD COLUMN reference      bigint,
    ADD COLUMN hold_id        uuid,
    ADD COLUMN service_key_id text,
    DROP CONSTRAINT transactions_wallet_id_fkey;
ALTER TABLE credits.transactions DISABLE TRIGGER transactions_append_only;
UPDATE credits.transactions SET
    counter = (SELECT account FROM credits.entries legs
        WHERE (legs.wallet_id, legs.sequence) = (transactions.wallet_id, transactions.sequence) AND account <> 'wallet'),
    slice_grants = ARRAY(SELECT grant_sequence FROM credits.entries legs
        WHERE (legs.wallet_id, legs.sequence) = (transactions.wallet_id, transactions.sequence) AND account = 'wallet' ORDER BY leg),
    slice_amounts = ARRAY(SELECT legs.amount FROM credits.entries legs
        WHERE (legs.wallet_id, legs.sequence) = (transactions.wallet_id, transactions.sequence) AND account = 'wallet' ORDER BY leg);
ALTER TABLE credits.transactions ENABLE TRIGGER transactions_append_only;
ALTER TABLE credits.transactions
    ALTER COLUMN counter SET NOT NULL, ALTER COLUMN slice_grants SET NOT NULL, ALTER COLUMN slice_amounts SET NOT NULL,
    ADD CONSTRAINT transactions_id_key UNIQUE (id),
    ADD CONSTRAINT transactions_counter_known CHECK (counter IN ('bonus', 'revenue', 'clearing', 'expired', 'adjustment')),
    ADD CONSTRAINT transactions_slices_paired CHECK (cardinality(slice_grants) = cardinality(slice_amounts)),
    ADD CONSTRAINT transactions_refund_names_spend CHECK ((type = 'refund') = (reference IS NOT NULL)),
    ADD CONSTRAINT transactions_reference_before CHECK (reference < sequence);
-- Refunds of a spend, and nothing else, are found by it.
CREATE INDEX transactions_reference_idx ON credits.transactions (wallet_id, reference) WHERE reference IS NOT NULL;

DROP TABLE credits.entries;
DROP FUNCTION credits.check_entries;
CREATE VIEW credits.entries WITH (security_invoker = true) AS
    SELECT wallet_id, sequence, 'wallet' AS account, slice.grant_sequence, slice.amount
    FROM credits.transactions, unnest(slice_grants, slice_amounts) AS slice (grant_sequence, amount)
    UNION ALL
    SELECT wallet_id, sequence, counter, NULL, -amount FROM credits.transactions;
COMMENT ON VIEW credits.entries IS 'The legs of all transactions: those of a transaction sum to zero.';
GRANT SELECT ON credits.entries TO mana_service, mana_user;

-- A line continues the one before it, without a gap and with its balance; its slices are its amount.
CREATE OR REPLACE FUNCTION credits.check_sequence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM inserted LEFT JOIN credits.transactions before
            ON before.wallet_id = inserted.wallet_id AND before.sequence = inserted.sequence - 1
        WHERE inserted.balance_after IS DISTINCT FROM
            CASE WHEN inserted.sequence = 1 THEN 0 ELSE before.balance_after END + inserted.amount
    ) THEN
        RAISE EXCEPTION 'a transaction must continue the one before it' USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_continue';
    END IF;
    IF EXISTS (SELECT FROM inserted WHERE amount IS DISTINCT FROM (SELECT sum(slice) FROM unnest(slice_amounts) slice)) THEN
        RAISE EXCEPTION 'the legs of a transaction must sum to zero' USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_sum_to_zero';
    END IF;
    RETURN NULL;
END $$;

-- Mana that is set aside until its holder knows what a piece of work costs. Each ends once.
CREATE TABLE credits.holds (
    wallet_id        bigint      NOT NULL,
    id               uuid        NOT NULL CONSTRAINT holds_id_key UNIQUE,
    app_id           text        NOT NULL,
    description      text        NOT NULL,
    metadata         json,
    amount           bigint      NOT NULL CONSTRAINT holds_amount_range CHECK (amount BETWEEN 1 AND 9007199254740991),
    captured         bigint      NOT NULL DEFAULT 0 CONSTRAINT holds_captured_range CHECK (captured BETWEEN 0 AND amount),
    slice_grants     bigint[]    NOT NULL,
    slice_amounts    bigint[]    NOT NULL,
    status           text        NOT NULL CONSTRAINT holds_status_known CHECK (status IN ('open', 'captured', 'released', 'expired')),
    service_key_id   text,
    capture_sequence bigint,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    ended_at         timestamptz,
    CONSTRAINT holds_pkey PRIMARY KEY (wallet_id, id),
    CONSTRAINT holds_ended_once CHECK ((status = 'open') = (ended_at IS NULL)),
    CONSTRAINT holds_captured_by_transaction CHECK ((status = 'captured') = (captured > 0) AND (status = 'captured') = (capture_sequence IS NOT NULL))
) WITH (fillfactor = 80);
CALL mana.protect('credits.holds',
    $$wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = current_setting('mana.user_id', true))$$);
GRANT SELECT, INSERT, UPDATE (captured, status, capture_sequence, expires_at, ended_at) ON credits.holds TO mana_service;
GRANT SELECT ON credits.holds TO mana_user;

-- An ended hold stays as it ended, whoever writes.
CREATE FUNCTION credits.refuse_second_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'hold % has ended already', OLD.id USING ERRCODE = 'restrict_violation', CONSTRAINT = 'holds_end_once';
END $$;
CREATE TRIGGER holds_end_once BEFORE UPDATE ON credits.holds
    FOR EACH ROW WHEN (OLD.status <> 'open') EXECUTE FUNCTION credits.refuse_second_end();

-- Spends and refunds of a user in an app on a day of the policy's zone, counted in the commit of each.
CREATE TABLE credits.usage_stats (
    wallet_id bigint NOT NULL,
    day       date   NOT NULL,
    app_id    text   NOT NULL,
    spends    bigint NOT NULL,
    spent     bigint NOT NULL,
    refunded  bigint NOT NULL,
    CONSTRAINT usage_stats_pkey PRIMARY KEY (wallet_id, day, app_id)
) WITH (fillfactor = 70);
-- For the statistics of all users.
CREATE INDEX usage_stats_day_idx ON credits.usage_stats (day, app_id);
GRANT SELECT, INSERT, UPDATE (spends, spent, refunded) ON credits.usage_stats TO mana_service;
GRANT SELECT ON credits.usage_stats TO mana_user;
INSERT INTO credits.usage_stats (wallet_id, day, app_id, spends, spent, refunded)
    SELECT wallet_id, (created_at AT TIME ZONE 'UTC')::date, app_id, count(*), -sum(amount), 0
    FROM credits.transactions WHERE type = 'usage' GROUP BY 1, 2, 3;
CALL mana.protect('credits.usage_stats',
    $$wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = current_setting('mana.user_id', true))$$);

-- Keys are found by what their scope and text digest to: 16 bytes of SHA-256, in the wallet's corner of the index.
CREATE TABLE credits.remembered_answers (
    wallet_id      bigint      NOT NULL,
    key_digest     uuid        NOT NULL,
    request_digest bytea       NOT NULL CONSTRAINT remembered_answers_digest_length CHECK (length(request_digest) = 32),
    status         smallint    NOT NULL,
    body           text        NOT NULL,
    created_at     timestamptz NOT NULL,
    CONSTRAINT remembered_answers_pkey PRIMARY KEY (wallet_id, key_digest)
);
GRANT SELECT, INSERT, DELETE ON credits.remembered_answers TO mana_service;
INSERT INTO credits.remembered_answers
    SELECT wallet_id, encode(substring(sha256(convert_to('user' || chr(10) || key, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid,
        request_digest, status, body, keys.created_at
    FROM credits.idempotency_keys keys JOIN credits.balances USING (user_id);
CALL mana.protect('credits.remembered_answers', 'false');
DROP TABLE credits.idempotency_keys;

ALTER TABLE credits.balances FORCE ROW LEVEL SECURITY;
ALTER TABLE credits.grants FORCE ROW LEVEL SECURITY;
ALTER TABLE credits.transactions FORCE ROW LEVEL SECURITY;
