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
