-- no-transaction
-- Constraints of 0027, which so far bind only what was written since. Apart from it, so that the tables are read while nobody waits; a run
-- that was cut off is repeated.
ALTER TABLE credits.balances VALIDATE CONSTRAINT balances_top_up_below_range;
ALTER TABLE credits.auto_top_ups VALIDATE CONSTRAINT auto_top_ups_reason_known;
