-- Proofs that go through a mailbox, and the end of an account.

-- What makes a link or a code in a mail good, once, and which address it was mailed to. A user has one of each purpose at most:
-- a newer one takes the place of the older. Of a code, which is short, the hash is keyed and wrong guesses are counted.
CREATE TABLE auth.verification_tokens (
    user_id    text        NOT NULL CONSTRAINT verification_tokens_user_id_fkey REFERENCES auth.users,
    purpose    text        NOT NULL CONSTRAINT verification_tokens_purpose_known CHECK (purpose IN (
                               'verify_email', 'change_email', 'reset_password', 'magic_link', 'sign_in_code')),
    token_hash bytea       NOT NULL CONSTRAINT verification_tokens_token_hash_key UNIQUE
                           CONSTRAINT verification_tokens_token_hash_length CHECK (length(token_hash) = 32),
    email      text        NOT NULL CONSTRAINT verification_tokens_email_length CHECK (length(email) BETWEEN 3 AND 254),
    attempts   integer     NOT NULL DEFAULT 0 CONSTRAINT verification_tokens_attempts_range CHECK (attempts >= 0),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT verification_tokens_pkey PRIMARY KEY (user_id, purpose)
) WITH (fillfactor = 80);
CREATE INDEX verification_tokens_expires_at_idx ON auth.verification_tokens (expires_at);
CALL mana.protect('auth.verification_tokens', 'false');
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.verification_tokens TO mana_service;

-- What somebody asked to be mailed, before anybody has looked whether the address has an account: a request takes one row,
-- whoever asks for whom. Sealed, because the address may be a stranger's.
CREATE TABLE auth.mail_requests (
    id             uuid        NOT NULL CONSTRAINT mail_requests_pkey PRIMARY KEY,
    sealed         bytea       NOT NULL,
    secret_version text        NOT NULL,
    created_at     timestamptz NOT NULL
);
CALL mana.protect('auth.mail_requests', 'false');
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.mail_requests TO mana_service;

-- When the owner deleted the account. What is left of it is the id, which the books go on naming.
ALTER TABLE auth.users ADD COLUMN deleted_at timestamptz,
    ADD CONSTRAINT users_image_length CHECK (length(image) <= 2048) NOT VALID,
    ADD CONSTRAINT users_deleted_are_disabled CHECK (deleted_at IS NULL OR disabled_at IS NOT NULL) NOT VALID;
GRANT UPDATE (email, name, image, email_verified, disabled_at, deleted_at) ON auth.users TO mana_service;
GRANT DELETE ON auth.passwords TO mana_service;

-- Nobody who has deleted an account is let in again.
CREATE FUNCTION auth.refuse_return() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the account % was deleted for good', OLD.id
        USING ERRCODE = 'restrict_violation', CONSTRAINT = 'users_stay_deleted';
END $$;
CREATE TRIGGER users_stay_deleted BEFORE UPDATE OF disabled_at, deleted_at ON auth.users FOR EACH ROW
    WHEN (OLD.deleted_at IS NOT NULL AND (NEW.deleted_at IS NULL OR NEW.disabled_at IS NULL))
    EXECUTE FUNCTION auth.refuse_return();
