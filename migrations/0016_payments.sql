-- Buying mana: packages with versions, orders and what Stripe says of them, debts.

-- What a wallet owes because a payment was taken back and the mana was spent.
ALTER TABLE credits.balances
    ADD COLUMN debt bigint NOT NULL DEFAULT 0,
    -- Not validated: nobody owes anything yet, and a look at every wallet would keep spends waiting.
    ADD CONSTRAINT balances_debt_range CHECK (debt BETWEEN 0 AND 9007199254740991) NOT VALID;
GRANT UPDATE (debt) ON credits.balances TO mana_service;
-- The other side of what is paid back of a debt. Not validated: it allows more than the one before it, and a look at every
-- line would keep spends waiting.
ALTER TABLE credits.transactions
    DROP CONSTRAINT transactions_counter_known,
    ADD CONSTRAINT transactions_counter_known CHECK (counter IN ('bonus', 'revenue', 'clearing', 'expired', 'adjustment', 'debt')) NOT VALID;

ALTER TABLE credits.packages
    ADD COLUMN version       integer     NOT NULL DEFAULT 1 CONSTRAINT packages_version_positive CHECK (version > 0),
    -- How much of `credits` is a present.
    ADD COLUMN bonus_credits bigint      NOT NULL DEFAULT 0,
    -- Cents by currency other than EUR, as {"usd": 550}.
    ADD COLUMN prices        json        NOT NULL DEFAULT '{}',
    ADD COLUMN updated_at    timestamptz,
    ADD CONSTRAINT packages_bonus_range CHECK (bonus_credits BETWEEN 0 AND credits);
REVOKE UPDATE ON credits.packages FROM mana_service;
GRANT UPDATE (name, description, credits, bonus_credits, price_euro_cents, prices, stripe_price_id, active, sort_order, metadata, version, updated_at)
    ON credits.packages TO mana_service;

-- What a package was when it was sold. Written once.
CREATE TABLE credits.package_versions (
    package_id       text        NOT NULL,
    version          integer     NOT NULL CONSTRAINT package_versions_version_positive CHECK (version > 0),
    name             text        NOT NULL,
    credits          bigint      NOT NULL CONSTRAINT package_versions_credits_range CHECK (credits BETWEEN 1 AND 9007199254740991),
    bonus_credits    bigint      NOT NULL,
    price_euro_cents bigint      NOT NULL CONSTRAINT package_versions_price_range CHECK (price_euro_cents BETWEEN 1 AND 9007199254740991),
    prices           json        NOT NULL,
    stripe_price_id  text,
    created_at       timestamptz NOT NULL,
    -- An administrator, or nobody for the command line.
    created_by       text,
    CONSTRAINT package_versions_pkey PRIMARY KEY (package_id, version)
);
INSERT INTO credits.package_versions (package_id, version, name, credits, bonus_credits, price_euro_cents, prices, stripe_price_id, created_at)
    SELECT id, 1, name, credits, 0, price_euro_cents, '{}', stripe_price_id, created_at FROM credits.packages;
CALL mana.protect('credits.package_versions', 'false');
GRANT SELECT, INSERT ON credits.package_versions TO mana_service;
CREATE TRIGGER package_versions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credits.package_versions
    FOR EACH STATEMENT EXECUTE FUNCTION credits.refuse_change();

-- An order. Until now nothing wrote any. `status` is what older readers know; `state` is what it follows from.
ALTER TABLE credits.purchases DROP COLUMN status;
ALTER TABLE credits.purchases
    ADD COLUMN state text NOT NULL DEFAULT 'created'
        CONSTRAINT purchases_state_known CHECK (state IN ('created', 'unpaid', 'failed', 'expired', 'paid', 'partially_refunded', 'refunded')),
    ADD COLUMN status text NOT NULL GENERATED ALWAYS AS (CASE state
        WHEN 'created' THEN 'pending' WHEN 'unpaid' THEN 'pending' WHEN 'failed' THEN 'failed' WHEN 'expired' THEN 'failed'
        WHEN 'refunded' THEN 'refunded' ELSE 'completed' END) STORED,
    ADD COLUMN package_version  integer     NOT NULL DEFAULT 1,
    ADD COLUMN currency         text        NOT NULL DEFAULT 'eur' CONSTRAINT purchases_currency_shape CHECK (currency ~ '^[a-z]{3}$'),
    -- What is to be paid, in cents of that currency.
    ADD COLUMN price_cents      bigint      NOT NULL DEFAULT 1 CONSTRAINT purchases_price_range CHECK (price_cents BETWEEN 1 AND 9007199254740991),
    ADD COLUMN livemode         boolean     NOT NULL DEFAULT false,
    ADD COLUMN idempotency_key  text,
    ADD COLUMN request_digest   bytea,
    ADD COLUMN attempt          integer     NOT NULL DEFAULT 1,
    ADD COLUMN customer_id      text,
    ADD COLUMN session_id       text        CONSTRAINT purchases_session_id_key UNIQUE,
    ADD COLUMN payment_id       text        CONSTRAINT purchases_payment_id_key UNIQUE,
    ADD COLUMN checkout_url     text,
    ADD COLUMN client_secret    text,
    ADD COLUMN expires_at       timestamptz,
    -- What Stripe said so far, merged: see purchase/model.rs.
    ADD COLUMN lifecycle        text        NOT NULL DEFAULT 'created'
        CONSTRAINT purchases_lifecycle_known CHECK (lifecycle IN ('created', 'open', 'failed', 'expired', 'complete')),
    ADD COLUMN captured_cents   bigint      NOT NULL DEFAULT 0 CONSTRAINT purchases_captured_range CHECK (captured_cents BETWEEN 0 AND 9007199254740991),
    ADD COLUMN refunded_cents   bigint      NOT NULL DEFAULT 0 CONSTRAINT purchases_refunded_range CHECK (refunded_cents BETWEEN 0 AND captured_cents),
    ADD COLUMN lost_cents       bigint      NOT NULL DEFAULT 0 CONSTRAINT purchases_lost_range CHECK (lost_cents BETWEEN 0 AND captured_cents),
    ADD COLUMN disputed         boolean     NOT NULL DEFAULT false,
    ADD COLUMN fraud_warned     boolean     NOT NULL DEFAULT false,
    -- Why it was paid and not credited: a word; an operator's business.
    ADD COLUMN problem          text,
    -- What the ledger did: the grant that it gave, what it took back of it, and what it could not take and is owed.
    ADD COLUMN granted_mana     bigint      NOT NULL DEFAULT 0 CONSTRAINT purchases_granted_whole CHECK (granted_mana IN (0, credits)),
    ADD COLUMN grant_sequence   bigint,
    ADD COLUMN taken_mana       bigint      NOT NULL DEFAULT 0,
    ADD COLUMN owed_mana        bigint      NOT NULL DEFAULT 0,
    ADD COLUMN updated_at       timestamptz,
    -- When Stripe was last asked, whether or not anything was new.
    ADD COLUMN looked_at        timestamptz,
    ADD CONSTRAINT purchases_package_version_fkey FOREIGN KEY (package_id, package_version) REFERENCES credits.package_versions,
    ADD CONSTRAINT purchases_grant_named CHECK ((granted_mana > 0) = (grant_sequence IS NOT NULL)),
    ADD CONSTRAINT purchases_taken_range CHECK (taken_mana BETWEEN 0 AND granted_mana AND owed_mana BETWEEN 0 AND granted_mana - taken_mana),
    ADD CONSTRAINT purchases_credited_when_captured CHECK (granted_mana = 0 OR captured_cents = price_cents),
    ADD CONSTRAINT purchases_idempotency_key_key UNIQUE (user_id, idempotency_key);
ALTER TABLE credits.purchases ALTER COLUMN price_cents DROP DEFAULT, ALTER COLUMN package_version DROP DEFAULT, ALTER COLUMN currency DROP DEFAULT;
CREATE INDEX purchases_created_at_idx ON credits.purchases (created_at);
REVOKE UPDATE ON credits.purchases FROM mana_service;
GRANT UPDATE (state, attempt, customer_id, session_id, payment_id, checkout_url, client_secret, expires_at, lifecycle, captured_cents, refunded_cents, lost_cents,
    disputed, fraud_warned, problem, granted_mana, grant_sequence, taken_mana, owed_mana, completed_at, updated_at, looked_at) ON credits.purchases TO mana_service;

-- A payment is credited once, whoever writes, and what was sold stays what it was.
CREATE FUNCTION credits.refuse_second_credit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'purchase % was credited already', OLD.id USING ERRCODE = 'restrict_violation', CONSTRAINT = 'purchases_credited_once';
END $$;
CREATE TRIGGER purchases_credited_once BEFORE UPDATE OF granted_mana, grant_sequence ON credits.purchases
    FOR EACH ROW WHEN (OLD.granted_mana > 0 AND (NEW.granted_mana, NEW.grant_sequence) IS DISTINCT FROM (OLD.granted_mana, OLD.grant_sequence))
    EXECUTE FUNCTION credits.refuse_second_credit();

-- Money that goes back, wanted here or in Stripe's dashboard.
CREATE TABLE credits.refunds (
    user_id          text        NOT NULL,
    -- Ours, or Stripe's for one that was not wanted here.
    id               text        NOT NULL CONSTRAINT refunds_pkey PRIMARY KEY,
    purchase_id      text        NOT NULL CONSTRAINT refunds_purchase_id_fkey REFERENCES credits.purchases (id),
    stripe_refund_id text        CONSTRAINT refunds_stripe_refund_id_key UNIQUE,
    amount_cents     bigint      NOT NULL CONSTRAINT refunds_amount_range CHECK (amount_cents BETWEEN 1 AND 9007199254740991),
    status           text        NOT NULL CONSTRAINT refunds_status_known CHECK (status IN ('wanted', 'pending', 'succeeded', 'failed')),
    reason           text,
    -- An administrator; nobody for one that was not wanted here.
    requested_by     text,
    -- Stripe is asked again from then on.
    next_attempt_at  timestamptz,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL
);
CALL mana.protect('credits.refunds', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, UPDATE (stripe_refund_id, status, next_attempt_at, updated_at) ON credits.refunds TO mana_service;
GRANT SELECT (user_id, id, purchase_id, amount_cents, status, created_at, updated_at) ON credits.refunds TO mana_user;
CREATE INDEX refunds_purchase_id_idx ON credits.refunds (purchase_id);
CREATE INDEX refunds_wanted_idx ON credits.refunds (next_attempt_at) WHERE status = 'wanted';

CREATE TABLE credits.disputes (
    user_id      text        NOT NULL,
    id           text        NOT NULL CONSTRAINT disputes_pkey PRIMARY KEY,
    purchase_id  text        NOT NULL CONSTRAINT disputes_purchase_id_fkey REFERENCES credits.purchases (id),
    amount_cents bigint      NOT NULL CONSTRAINT disputes_amount_range CHECK (amount_cents BETWEEN 0 AND 9007199254740991),
    status       text        NOT NULL CONSTRAINT disputes_status_known CHECK (status IN ('inquiry', 'open', 'lost', 'won')),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL
);
CALL mana.protect('credits.disputes', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, UPDATE (amount_cents, status, updated_at) ON credits.disputes TO mana_service;
GRANT SELECT ON credits.disputes TO mana_user;
CREATE INDEX disputes_purchase_id_idx ON credits.disputes (purchase_id);

-- Who somebody is at Stripe.
CREATE TABLE credits.stripe_customers (
    user_id     text        NOT NULL,
    livemode    boolean     NOT NULL,
    customer_id text        NOT NULL,
    created_at  timestamptz NOT NULL,
    CONSTRAINT stripe_customers_pkey PRIMARY KEY (user_id, livemode)
);
CALL mana.protect('credits.stripe_customers', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT ON credits.stripe_customers TO mana_service;
GRANT SELECT ON credits.stripe_customers TO mana_user;

-- Deliveries, as they came. The payload goes when it has been worked on for a while.
CREATE TABLE credits.stripe_events (
    id              text        NOT NULL CONSTRAINT stripe_events_pkey PRIMARY KEY,
    type            text        NOT NULL,
    payload         text        NOT NULL,
    received_at     timestamptz NOT NULL,
    outcome         text        CONSTRAINT stripe_events_outcome_known CHECK (outcome IN ('done', 'ignored', 'given_up')),
    processed_at    timestamptz,
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    last_error      text,
    CONSTRAINT stripe_events_processed_with_outcome CHECK ((outcome IS NULL) = (processed_at IS NULL))
);
CALL mana.protect('credits.stripe_events', 'false');
GRANT SELECT, INSERT, UPDATE (outcome, processed_at, attempts, next_attempt_at, last_error), DELETE ON credits.stripe_events TO mana_service;
CREATE INDEX stripe_events_waiting_idx ON credits.stripe_events (next_attempt_at) WHERE outcome IS NULL;
CREATE INDEX stripe_events_processed_idx ON credits.stripe_events (processed_at) WHERE outcome IS NOT NULL;

-- What a comparison with Stripe came to, currency by currency and day by day.
CREATE TABLE credits.payment_statements (
    day             date        NOT NULL,
    currency        text        NOT NULL,
    livemode        boolean     NOT NULL,
    orders          bigint      NOT NULL,
    captured_cents  bigint      NOT NULL,
    refunded_cents  bigint      NOT NULL,
    lost_cents      bigint      NOT NULL,
    granted_mana    bigint      NOT NULL,
    taken_mana      bigint      NOT NULL,
    owed_mana       bigint      NOT NULL,
    -- What should be granted, less what should be taken or owed.
    expected_mana   bigint      NOT NULL,
    created_at      timestamptz NOT NULL,
    CONSTRAINT payment_statements_pkey PRIMARY KEY (day, currency, livemode)
);
CALL mana.protect('credits.payment_statements', 'false');
GRANT SELECT, INSERT ON credits.payment_statements TO mana_service;
