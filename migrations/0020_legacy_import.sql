-- Wallets that were brought along from the service that this one replaces, and what they had when they were: so that an import that
-- was cut off goes on where it was, and what was brought can be compared with where it came from, also once it has moved on.
CREATE TABLE credits.imported_wallets (
    wallet_id   bigint      NOT NULL CONSTRAINT imported_wallets_pkey PRIMARY KEY,
    sequence    bigint      NOT NULL CONSTRAINT imported_wallets_sequence_range CHECK (sequence >= 0),
    free        bigint      NOT NULL CONSTRAINT imported_wallets_free_range CHECK (free >= 0),
    paid        bigint      NOT NULL CONSTRAINT imported_wallets_paid_range CHECK (paid >= 0),
    imported_at timestamptz NOT NULL
);
CALL mana.protect('credits.imported_wallets', 'false');
GRANT SELECT, INSERT ON credits.imported_wallets TO mana_service;
