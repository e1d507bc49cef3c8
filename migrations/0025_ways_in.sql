-- What opens an account is looked at before it is used: the two must be of one state of the account. And what was added within a
-- session goes with it if that turns out to be a stranger's.

-- One more whenever the password is another, or none any more. Whoever proved the one before is not let in by it.
ALTER TABLE auth.users ADD COLUMN ways_in_epoch bigint NOT NULL DEFAULT 0;
GRANT UPDATE (ways_in_epoch) ON auth.users TO mana_service;

-- The session that asked for a new address, linked an account, confirmed a second factor or made its codes on paper. Rows from before
-- name none.
ALTER TABLE auth.verification_tokens ADD COLUMN asked_in text;
ALTER TABLE auth.accounts ADD COLUMN linked_in text;
ALTER TABLE auth.two_factor_auth ADD COLUMN confirmed_in text;
ALTER TABLE auth.recovery_codes ADD COLUMN made_in text;
