-- What a receipt says, tax beside the price, and orders that are paid without a person at the till.

ALTER TABLE credits.purchases
    -- Who asked for it: a person, or the auto top-up that a person has turned on.
    ADD COLUMN origin          text    NOT NULL DEFAULT 'person',
    -- Whether Stripe was asked to put tax on it, or find it within.
    ADD COLUMN taxed           boolean NOT NULL DEFAULT false,
    -- Tax beside the price: with it, it is what is to be paid. Tax within the price is not in here.
    ADD COLUMN added_tax_cents bigint  NOT NULL DEFAULT 0,
    -- All tax, beside the price or within it, and how its calculation went, as Stripe says.
    ADD COLUMN tax_cents       bigint,
    ADD COLUMN tax_status      text,
    -- Who paid, as told to Stripe at the till. Goes when the account does.
    ADD COLUMN payer_name      text,
    ADD COLUMN payer_address   text,
    ADD COLUMN payer_country   text,
    ADD COLUMN payer_tax_id    text,
    ADD CONSTRAINT purchases_origin_known CHECK (origin IN ('person', 'auto_top_up')) NOT VALID,
    ADD CONSTRAINT purchases_added_tax_range CHECK (added_tax_cents BETWEEN 0 AND 9007199254740991) NOT VALID,
    ADD CONSTRAINT purchases_tax_range CHECK (tax_cents BETWEEN added_tax_cents AND 9007199254740991) NOT VALID,
    DROP CONSTRAINT purchases_credited_when_captured,
    ADD CONSTRAINT purchases_credited_when_captured CHECK (granted_mana = 0 OR captured_cents = price_cents + added_tax_cents) NOT VALID;
GRANT UPDATE (added_tax_cents, tax_cents, tax_status, payer_name, payer_address, payer_country, payer_tax_id) ON credits.purchases TO mana_service;

-- A customer whom Stripe has forgotten is followed by another.
GRANT UPDATE (customer_id, created_at) ON credits.stripe_customers TO mana_service;

-- Who wants mana bought before it runs out, and how.
CREATE TABLE credits.auto_top_ups (
    user_id           text        NOT NULL CONSTRAINT auto_top_ups_pkey PRIMARY KEY,
    -- setup: a card is yet to be saved at the till. off: as if it had never been on; the row goes on for as long as there is something to take back.
    status            text        NOT NULL CONSTRAINT auto_top_ups_status_known CHECK (status IN ('setup', 'active', 'paused', 'off')),
    pause_reason      text        CONSTRAINT auto_top_ups_reason_known CHECK (pause_reason IN ('declined', 'authentication_required', 'package_changed',
                                      'package_gone', 'payment_method_gone', 'debt', 'disputed', 'refunded', 'wallet_closed', 'uncredited', 'user_disabled', 'tax')),
    threshold_mana    bigint      NOT NULL CONSTRAINT auto_top_ups_threshold_range CHECK (threshold_mana BETWEEN 1 AND 9007199254740991),
    package_id        text        NOT NULL CONSTRAINT auto_top_ups_package_id_fkey REFERENCES credits.packages,
    currency          text        NOT NULL CONSTRAINT auto_top_ups_currency_shape CHECK (currency ~ '^[a-z]{3}$'),
    -- What the package gave and cost when its buyer agreed: another price needs another consent.
    credits           bigint      NOT NULL,
    price_cents       bigint      NOT NULL CONSTRAINT auto_top_ups_price_range CHECK (price_cents BETWEEN 1 AND 9007199254740991),
    monthly_cap_cents bigint      NOT NULL,
    -- Of the mail that says that it is paused.
    language          text        NOT NULL CONSTRAINT auto_top_ups_language_known CHECK (language IN ('en', 'de')),
    livemode          boolean     NOT NULL,
    customer_id       text        NOT NULL,
    payment_method_id text,
    setup_session_id  text        CONSTRAINT auto_top_ups_setup_session_id_key UNIQUE,
    setup_url         text,
    -- When its owner agreed to be charged without being there.
    consented_at      timestamptz NOT NULL,
    -- The wallet as it was when this was turned on: what has not changed since has not fallen.
    seen_version      bigint      NOT NULL DEFAULT 0,
    -- The one order that is open. Whoever puts one here, where there is none, has won.
    order_id          text        CONSTRAINT auto_top_ups_order_id_key UNIQUE CONSTRAINT auto_top_ups_order_id_fkey REFERENCES credits.purchases (id),
    failures          integer     NOT NULL DEFAULT 0,
    -- When there is something to do for it besides looking at the balance.
    next_look_at      timestamptz,
    -- The month's cap is reached: until then nothing is bought.
    capped_until      timestamptz,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    CONSTRAINT auto_top_ups_paused_for_a_reason CHECK ((status = 'paused') = (pause_reason IS NOT NULL)),
    CONSTRAINT auto_top_ups_active_can_pay CHECK (status <> 'active' OR payment_method_id IS NOT NULL),
    CONSTRAINT auto_top_ups_package_fills CHECK (credits >= threshold_mana),
    CONSTRAINT auto_top_ups_cap_allows_one CHECK (monthly_cap_cents >= price_cents)
);
CALL mana.protect('credits.auto_top_ups', $$user_id = current_setting('mana.user_id', true)$$);
GRANT SELECT, INSERT, UPDATE (status, pause_reason, threshold_mana, package_id, currency, credits, price_cents, monthly_cap_cents, language, livemode,
    customer_id, payment_method_id, setup_session_id, setup_url, consented_at, seen_version, order_id, failures, next_look_at, capped_until, updated_at)
    ON credits.auto_top_ups TO mana_service;
GRANT SELECT (user_id, status, pause_reason, threshold_mana, package_id, currency, credits, price_cents, monthly_cap_cents, setup_url, consented_at, order_id,
    capped_until, created_at, updated_at) ON credits.auto_top_ups TO mana_user;
CREATE INDEX auto_top_ups_watched_idx ON credits.auto_top_ups (user_id) WHERE status = 'active' AND order_id IS NULL;
CREATE INDEX auto_top_ups_due_idx ON credits.auto_top_ups (next_look_at) WHERE next_look_at IS NOT NULL;
