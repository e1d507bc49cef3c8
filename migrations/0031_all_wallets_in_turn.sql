-- All wallets are checked in turn, a part each hour, so that an edit that left the wallet's row alone is found without anybody asking.

CREATE TABLE credits.verify_rounds (
    -- There is one row.
    id           smallint    NOT NULL CONSTRAINT verify_rounds_pkey PRIMARY KEY CONSTRAINT verify_rounds_one CHECK (id = 1),
    began_at     timestamptz NOT NULL,
    -- The wallet that it has come to; none before the first.
    after_wallet bigint,
    -- When the last round began that came to its end and found nothing.
    proven_at    timestamptz NOT NULL
);
INSERT INTO credits.verify_rounds (id, began_at, proven_at) VALUES (1, now(), now());
CALL mana.protect('credits.verify_rounds', 'false');
GRANT SELECT, UPDATE (began_at, after_wallet, proven_at) ON credits.verify_rounds TO mana_service;
