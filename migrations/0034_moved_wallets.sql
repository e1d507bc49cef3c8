-- How far the history of a wallet comes from other books, which `ledger export` wrote and `ledger import` read, and what its user owed there: the
-- purchases behind these lines stayed, and the proof looks for none of them here.
CREATE TABLE credits.moved_wallets (
    wallet_id bigint NOT NULL CONSTRAINT moved_wallets_pkey PRIMARY KEY,
    sequence  bigint NOT NULL CONSTRAINT moved_wallets_sequence_range CHECK (sequence >= 0),
    debt      bigint NOT NULL CONSTRAINT moved_wallets_debt_range CHECK (debt >= 0)
);
CALL mana.protect('credits.moved_wallets', 'false');
GRANT SELECT, INSERT ON credits.moved_wallets TO mana_service;
