-- A ledger that is brought along keeps the ids of its wallets, and the next wallet gets the one after them. The service,
-- which may insert a wallet under any id, may move the sequence past those that it inserted.
GRANT UPDATE ON SEQUENCE credits.balances_wallet_id_seq TO mana_service;
