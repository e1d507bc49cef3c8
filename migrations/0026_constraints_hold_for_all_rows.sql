-- no-transaction
-- Constraints that were added while the service ran, and so far bind only what was written since. Apart from the migrations that added
-- them, so that the tables are read while nobody waits; a run that was cut off is repeated. What a constraint refuses is shown with its name.
ALTER TABLE auth.users VALIDATE CONSTRAINT users_image_length;
ALTER TABLE auth.users VALIDATE CONSTRAINT users_deleted_are_disabled;
ALTER TABLE auth.security_events VALIDATE CONSTRAINT security_events_actor_known;
ALTER TABLE auth.security_events VALIDATE CONSTRAINT security_events_administrator_is_named;
ALTER TABLE auth.security_events VALIDATE CONSTRAINT security_events_reason_length;
ALTER TABLE auth.security_events VALIDATE CONSTRAINT security_events_actor_id_fkey;
ALTER TABLE credits.balances VALIDATE CONSTRAINT balances_debt_range;
ALTER TABLE credits.balances VALIDATE CONSTRAINT balances_low_below_range;
ALTER TABLE credits.transactions VALIDATE CONSTRAINT transactions_counter_known;
ALTER TABLE credits.purchases VALIDATE CONSTRAINT purchases_origin_known;
ALTER TABLE credits.purchases VALIDATE CONSTRAINT purchases_added_tax_range;
ALTER TABLE credits.purchases VALIDATE CONSTRAINT purchases_tax_range;
ALTER TABLE credits.purchases VALIDATE CONSTRAINT purchases_credited_when_captured;
