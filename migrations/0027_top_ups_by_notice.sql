-- Wallets that fell tell of it themselves, what is left behind at Stripe is written down until it is gone, and deliveries are kept without
-- what they say of people.

-- Below which mana is to be bought, if its owner has an auto top-up. In the wallet's row, because a spend reads that anyway.
ALTER TABLE credits.balances
    ADD COLUMN top_up_below bigint,
    ADD CONSTRAINT balances_top_up_below_range CHECK (top_up_below BETWEEN 1 AND 9007199254740991) NOT VALID;
GRANT UPDATE (top_up_below) ON credits.balances TO mana_service;

ALTER TABLE credits.auto_top_ups
    -- When the balance is to be looked at: it fell, or the month's cap begins anew.
    ADD COLUMN watch_at           timestamptz,
    -- An order that is not to be charged any more, because its owner has changed what was agreed to.
    ADD COLUMN withdrawn_order_id text,
    -- Sessions at Stripe that were let go while they were open, and cards that are of no more use.
    ADD COLUMN tills_to_close     text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN cards_to_forget    text[]  NOT NULL DEFAULT '{}',
    -- How many sessions were made in the day that began then.
    ADD COLUMN tills_made         integer NOT NULL DEFAULT 0,
    ADD COLUMN tills_counted_from timestamptz,
    DROP CONSTRAINT auto_top_ups_reason_known,
    -- Not validated: it allows more than the one before it.
    ADD CONSTRAINT auto_top_ups_reason_known CHECK (pause_reason IN ('declined', 'authentication_required', 'package_changed', 'package_gone',
        'payment_method_gone', 'provider_refuses', 'debt', 'disputed', 'refunded', 'wallet_closed', 'uncredited', 'user_disabled', 'tax')) NOT VALID;
GRANT UPDATE (watch_at, withdrawn_order_id, tills_to_close, cards_to_forget, tills_made, tills_counted_from) ON credits.auto_top_ups TO mana_service;
-- Accepted: a row for each owner who ever turned it on, and an index of none of them yet; whoever spends does not write here.
CREATE INDEX auto_top_ups_fallen_idx ON credits.auto_top_ups (watch_at)
    WHERE watch_at IS NOT NULL AND status = 'active' AND order_id IS NULL;

-- What a delivery said goes as soon as it has been worked on.
GRANT UPDATE (payload) ON credits.stripe_events TO mana_service;
