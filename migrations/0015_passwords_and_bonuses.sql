-- Passwords that were imported with their accounts, and what keeps the sign-up bonus from being farmed.

-- How those passwords are hashed that are not hashed by this program yet, as bcrypt:12: so that a wrong password, and an
-- address without an account, can be made to cost what they cost.
CREATE TABLE auth.imported_passwords (
    user_id text NOT NULL CONSTRAINT imported_passwords_pkey PRIMARY KEY
                 CONSTRAINT imported_passwords_user_id_fkey REFERENCES auth.users,
    scheme  text NOT NULL CONSTRAINT imported_passwords_scheme_length CHECK (length(scheme) BETWEEN 1 AND 64)
);
CREATE INDEX imported_passwords_scheme_idx ON auth.imported_passwords (scheme);
CALL mana.protect('auth.imported_passwords', 'false');
GRANT SELECT, INSERT, DELETE ON auth.imported_passwords TO mana_service;

-- Whatever replaces a hash, none is imported any more.
CREATE FUNCTION auth.forget_imported_password() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM auth.imported_passwords WHERE user_id = NEW.user_id;
    RETURN NULL;
END $$;
CREATE TRIGGER passwords_replaced AFTER UPDATE OF hash ON auth.passwords FOR EACH ROW
    EXECUTE FUNCTION auth.forget_imported_password();

-- Users whose sign-up bonus waits until their address is proven.
CREATE TABLE auth.pending_bonuses (
    user_id    text        NOT NULL CONSTRAINT pending_bonuses_pkey PRIMARY KEY
                           CONSTRAINT pending_bonuses_user_id_fkey REFERENCES auth.users,
    created_at timestamptz NOT NULL
);
CALL mana.protect('auth.pending_bonuses', 'false');
GRANT SELECT, INSERT, DELETE ON auth.pending_bonuses TO mana_service;

-- Mailboxes that have had their bonus: a keyed hash, which tells no address. Knows no user and outlives all of them, so that
-- who deletes an account and registers again gets no other bonus. Nothing is ever deleted here.
CREATE TABLE auth.bonus_mailboxes (
    mailbox_hash bytea       NOT NULL CONSTRAINT bonus_mailboxes_pkey PRIMARY KEY
                             CONSTRAINT bonus_mailboxes_mailbox_hash_length CHECK (length(mailbox_hash) = 32),
    given_at     timestamptz NOT NULL
);
CALL mana.protect('auth.bonus_mailboxes', 'false');
GRANT SELECT, INSERT ON auth.bonus_mailboxes TO mana_service;

-- How many bonuses went to a network of client addresses within the day that began then; the network as a keyed hash.
CREATE TABLE auth.bonus_networks (
    network_hash bytea       NOT NULL CONSTRAINT bonus_networks_pkey PRIMARY KEY
                             CONSTRAINT bonus_networks_network_hash_length CHECK (length(network_hash) = 32),
    used         integer     NOT NULL CONSTRAINT bonus_networks_used_positive CHECK (used > 0),
    began_at     timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX bonus_networks_began_at_idx ON auth.bonus_networks (began_at);
CALL mana.protect('auth.bonus_networks', 'false');
GRANT SELECT, INSERT, UPDATE, DELETE ON auth.bonus_networks TO mana_service;

-- An address is proven once its owner has followed a link; imported accounts may be disabled from the beginning.
GRANT UPDATE (email_verified) ON auth.users TO mana_service;
