-- What a batch of the ledger costs: a spend locked the rows of its session and its user, so that neither could end before its
-- commit, and each lock was a write. Now whoever ends one waits, at its own commit, for the batches that have looked.

-- One lock for all sessions, because whoever ends several takes it once, so that two of them can't wait for each other.
CREATE FUNCTION mana.hold_sessions() RETURNS boolean LANGUAGE sql VOLATILE
    AS $$ SELECT pg_advisory_xact_lock_shared(5575817, 1) IS NOT NULL $$;
COMMENT ON FUNCTION mana.hold_sessions() IS 'From now on no session and no user ends before this transaction does. What is read from then on says who lives.';
GRANT EXECUTE ON FUNCTION mana.hold_sessions() TO mana_service;

CREATE FUNCTION mana.await_holders_of_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(5575817, 1);
    RETURN NULL;
END $$;

-- Deferred, so that it is the last that a transaction waits for and is held for no longer than the commit itself: whoever holds
-- sessions waits for nobody who could be waiting here.
CREATE CONSTRAINT TRIGGER sessions_end_after_batches AFTER UPDATE OF revoked_at ON auth.sessions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) EXECUTE FUNCTION mana.await_holders_of_sessions();
CREATE CONSTRAINT TRIGGER sessions_go_after_batches AFTER DELETE ON auth.sessions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND OLD.expires_at > now()) EXECUTE FUNCTION mana.await_holders_of_sessions();
CREATE CONSTRAINT TRIGGER users_end_after_batches AFTER UPDATE OF disabled_at ON auth.users DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.disabled_at IS NULL AND NEW.disabled_at IS NOT NULL) EXECUTE FUNCTION mana.await_holders_of_sessions();

-- The same check as before, in one pass, and without a sum where there is one slice.
CREATE OR REPLACE FUNCTION credits.check_sequence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM inserted LEFT JOIN credits.transactions before
            ON before.wallet_id = inserted.wallet_id AND before.sequence = inserted.sequence - 1
        WHERE inserted.balance_after IS DISTINCT FROM
                CASE WHEN inserted.sequence = 1 THEN 0 ELSE before.balance_after END + inserted.amount
            OR inserted.amount IS DISTINCT FROM CASE cardinality(inserted.slice_amounts) WHEN 1 THEN inserted.slice_amounts[1]
                ELSE (SELECT sum(slice) FROM unnest(inserted.slice_amounts) slice) END
    ) THEN
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM inserted WHERE amount IS DISTINCT FROM (SELECT sum(slice) FROM unnest(slice_amounts) slice)) THEN
        RAISE EXCEPTION 'the legs of a transaction must sum to zero' USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_sum_to_zero';
    END IF;
    RAISE EXCEPTION 'a transaction must continue the one before it' USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_continue';
END $$;
