-- Accounts that were deleted, and from when on the log must say nothing of the person any more: the month that the database keeps the
-- log for, whatever it is told, is over by then. A row goes once that is done.
CREATE TABLE auth.erasures (
    user_id text        NOT NULL CONSTRAINT erasures_pkey PRIMARY KEY
                        CONSTRAINT erasures_user_id_fkey REFERENCES auth.users,
    due_at  timestamptz NOT NULL
);
CREATE INDEX erasures_due_at_idx ON auth.erasures (due_at);
CALL mana.protect('auth.erasures', 'false');
GRANT SELECT, INSERT, UPDATE (due_at), DELETE ON auth.erasures TO mana_service;

INSERT INTO auth.erasures (user_id, due_at)
    SELECT id, deleted_at + interval '30 days' FROM auth.users WHERE deleted_at IS NOT NULL;
