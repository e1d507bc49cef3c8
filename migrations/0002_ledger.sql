-- The ledger of mana. Amounts are integers, one mana is one EUR cent.

CREATE SCHEMA credits;
GRANT USAGE ON SCHEMA credits TO mana_service, mana_user;

-- A wallet: what its transactions add up to, kept beside them so that a read needs no sum. The sequence is its
-- version; the head is the hash of its last transaction.
CREATE TABLE credits.balances (
    wallet_id        bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT balances_pkey PRIMARY KEY,
    user_id          text        NOT NULL CONSTRAINT balances_user_id_key UNIQUE,
    sequence         bigint      NOT NULL CONSTRAINT balances_sequence_range CHECK (sequence >= 0),
    free             bigint      NOT NULL CONSTRAINT balances_free_range CHECK (free BETWEEN 0 AND 9007199254740991),
    paid             bigint      NOT NULL CONSTRAINT balances_paid_range CHECK (paid BETWEEN 0 AND 9007199254740991),
    total_earned     bigint      NOT NULL CONSTRAINT balances_total_earned_range CHECK (total_earned BETWEEN 0 AND 9007199254740991),
    total_spent      bigint      NOT NULL CONSTRAINT balances_total_spent_range CHECK (total_spent BETWEEN 0 AND 9007199254740991),
    head             bytea       NOT NULL CONSTRAINT balances_head_length CHECK (length(head) = 32),
    daily_granted_on date        NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    CONSTRAINT balances_sum_range CHECK (free + paid <= 9007199254740991)
) WITH (fillfactor = 70);
CALL mana.protect('credits.balances', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, UPDATE (sequence, free, paid, total_earned, total_spent, head, daily_granted_on, updated_at)
    ON credits.balances TO mana_service;
GRANT SELECT ON credits.balances TO mana_user;

-- Mana given, and what is left of it. Named by the sequence of the transaction that first gave it.
CREATE TABLE credits.grants (
    wallet_id      bigint      NOT NULL CONSTRAINT grants_wallet_id_fkey REFERENCES credits.balances,
    grant_sequence bigint      NOT NULL,
    source         text        NOT NULL CONSTRAINT grants_source_known CHECK (source IN ('allowance', 'purchase')),
    priority       smallint    NOT NULL,
    paid           boolean     NOT NULL,
    granted        bigint      NOT NULL CONSTRAINT grants_granted_range CHECK (granted BETWEEN 1 AND 9007199254740991),
    remaining      bigint      NOT NULL,
    expires_at     timestamptz,
    created_at     timestamptz NOT NULL,
    CONSTRAINT grants_pkey PRIMARY KEY (wallet_id, grant_sequence),
    CONSTRAINT grants_remaining_range CHECK (remaining BETWEEN 0 AND granted)
) WITH (fillfactor = 70);
CALL mana.protect('credits.grants',
    $$wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = current_setting('mana.user_id', true))$$);
GRANT SELECT, INSERT, UPDATE (granted, remaining) ON credits.grants TO mana_service;
GRANT SELECT ON credits.grants TO mana_user;

CREATE TABLE credits.transactions (
    wallet_id       bigint      NOT NULL CONSTRAINT transactions_wallet_id_fkey REFERENCES credits.balances,
    sequence        bigint      NOT NULL CONSTRAINT transactions_sequence_positive CHECK (sequence > 0),
    id              uuid        NOT NULL,
    type            text        NOT NULL CONSTRAINT transactions_type_known
                                CHECK (type IN ('purchase', 'usage', 'refund', 'bonus', 'expiry', 'adjustment')),
    amount          bigint      NOT NULL CONSTRAINT transactions_amount_nonzero CHECK (amount <> 0),
    balance_after   bigint      NOT NULL CONSTRAINT transactions_balance_after_range
                                CHECK (balance_after BETWEEN 0 AND 9007199254740991),
    app_id          text        NOT NULL,
    description     text        NOT NULL,
    metadata        json,
    idempotency_key text,
    created_at      timestamptz NOT NULL,
    hash            bytea       NOT NULL CONSTRAINT transactions_hash_length CHECK (length(hash) = 32),
    CONSTRAINT transactions_pkey PRIMARY KEY (wallet_id, sequence)
);
CALL mana.protect('credits.transactions',
    $$wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = current_setting('mana.user_id', true))$$);
GRANT SELECT, INSERT ON credits.transactions TO mana_service;
GRANT SELECT ON credits.transactions TO mana_user;

-- The legs of a transaction. A wallet's leg names the grant it changes, so a spend's legs are the slices it took.
-- System accounts have no row of their own and no running total: a row that every spend updates would be the bottleneck.
CREATE TABLE credits.entries (
    wallet_id      bigint   NOT NULL,
    sequence       bigint   NOT NULL,
    leg            smallint NOT NULL,
    account        text     NOT NULL CONSTRAINT entries_account_known
                            CHECK (account IN ('wallet', 'bonus', 'revenue', 'clearing')),
    grant_sequence bigint,
    amount         bigint   NOT NULL CONSTRAINT entries_amount_nonzero CHECK (amount <> 0),
    CONSTRAINT entries_pkey PRIMARY KEY (wallet_id, sequence, leg),
    CONSTRAINT entries_transaction_fkey FOREIGN KEY (wallet_id, sequence) REFERENCES credits.transactions,
    CONSTRAINT entries_grant_fkey FOREIGN KEY (wallet_id, grant_sequence) REFERENCES credits.grants,
    CONSTRAINT entries_wallet_names_grant CHECK ((account = 'wallet') = (grant_sequence IS NOT NULL))
);
CALL mana.protect('credits.entries',
    $$wallet_id = (SELECT wallet_id FROM credits.balances WHERE user_id = current_setting('mana.user_id', true))$$);
GRANT SELECT, INSERT ON credits.entries TO mana_service;
GRANT SELECT ON credits.entries TO mana_user;

-- Append only, also for the owner.
CREATE FUNCTION credits.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'credits.% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER transactions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credits.transactions
    FOR EACH STATEMENT EXECUTE FUNCTION credits.refuse_change();
CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credits.entries
    FOR EACH STATEMENT EXECUTE FUNCTION credits.refuse_change();

-- A line continues the one before it: no gap, and its balance is that one's and its own amount.
CREATE FUNCTION credits.check_sequence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM inserted LEFT JOIN credits.transactions before
            ON before.wallet_id = inserted.wallet_id AND before.sequence = inserted.sequence - 1
        WHERE inserted.balance_after IS DISTINCT FROM
            CASE WHEN inserted.sequence = 1 THEN 0 ELSE before.balance_after END + inserted.amount
    ) THEN
        RAISE EXCEPTION 'a transaction must continue the one before it' USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_continue';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER transactions_continue AFTER INSERT ON credits.transactions REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION credits.check_sequence();

-- All legs of a transaction arrive in one statement; they sum to zero, and the wallet's to the transaction's amount.
CREATE FUNCTION credits.check_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT wallet_id, sequence FROM inserted) touched
            JOIN credits.entries USING (wallet_id, sequence)
            JOIN credits.transactions USING (wallet_id, sequence)
        GROUP BY wallet_id, sequence
        HAVING sum(entries.amount) <> 0
            OR sum(entries.amount) FILTER (WHERE account = 'wallet') IS DISTINCT FROM min(transactions.amount)
    ) THEN
        RAISE EXCEPTION 'the entries of a transaction must sum to zero' USING ERRCODE = 'check_violation', CONSTRAINT = 'entries_sum_to_zero';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER entries_sum_to_zero AFTER INSERT ON credits.entries REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION credits.check_entries();

-- What was answered to a request with a key, refusals included, written in the transaction of the work itself.
CREATE TABLE credits.idempotency_keys (
    user_id        text        NOT NULL,
    key            text        NOT NULL CONSTRAINT idempotency_keys_key_length CHECK (length(key) BETWEEN 1 AND 255),
    request_digest bytea       NOT NULL CONSTRAINT idempotency_keys_digest_length CHECK (length(request_digest) = 32),
    status         smallint    NOT NULL,
    body           text        NOT NULL,
    created_at     timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key)
);
CALL mana.protect('credits.idempotency_keys', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT ON credits.idempotency_keys TO mana_service;
GRANT SELECT ON credits.idempotency_keys TO mana_user;

CREATE TABLE credits.packages (
    id               text        NOT NULL CONSTRAINT packages_pkey PRIMARY KEY,
    name             text        NOT NULL,
    description      text,
    credits          bigint      NOT NULL CONSTRAINT packages_credits_range CHECK (credits BETWEEN 1 AND 9007199254740991),
    price_euro_cents bigint      NOT NULL CONSTRAINT packages_price_range CHECK (price_euro_cents BETWEEN 1 AND 9007199254740991),
    stripe_price_id  text,
    active           boolean     NOT NULL,
    sort_order       integer     NOT NULL,
    metadata         json,
    created_at       timestamptz NOT NULL
);
-- Anybody may see what is for sale.
CALL mana.protect('credits.packages', 'active');
GRANT SELECT, INSERT, UPDATE ON credits.packages TO mana_service;
GRANT SELECT ON credits.packages TO mana_user;

CREATE TABLE credits.purchases (
    user_id          text        NOT NULL,
    id               text        NOT NULL CONSTRAINT purchases_id_key UNIQUE,
    package_id       text        NOT NULL CONSTRAINT purchases_package_id_fkey REFERENCES credits.packages,
    credits          bigint      NOT NULL,
    price_euro_cents bigint      NOT NULL,
    status           text        NOT NULL CONSTRAINT purchases_status_known
                                 CHECK (status IN ('pending', 'completed', 'failed', 'refunded')),
    created_at       timestamptz NOT NULL,
    completed_at     timestamptz,
    CONSTRAINT purchases_pkey PRIMARY KEY (user_id, id)
);
CALL mana.protect('credits.purchases', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, UPDATE ON credits.purchases TO mana_service;
GRANT SELECT ON credits.purchases TO mana_user;
