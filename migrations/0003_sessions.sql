-- Sessions that end everywhere at once, chains by exchange, and retention.

-- What the replicas read to forget sessions they hold in memory (auth/session/liveness). The transaction's id lets a reader go on
-- where it stopped without missing a row whose transaction was still open at its last look.
CREATE TABLE auth.revocations (
    id             bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT revocations_pkey PRIMARY KEY,
    transaction_id xid8        NOT NULL DEFAULT pg_current_xact_id(),
    session_id     text        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX revocations_transaction_id_idx ON auth.revocations (transaction_id);
CALL mana.protect('auth.revocations', 'false');
GRANT SELECT, INSERT, DELETE ON auth.revocations TO mana_service;

-- Triggers, so that whatever ends a session is seen: code of today and tomorrow, and a person at a prompt.
CREATE FUNCTION auth.announce_session_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO auth.revocations (session_id) VALUES (OLD.id);
    RETURN NULL;
END $$;
CREATE TRIGGER sessions_announce_end AFTER UPDATE OF revoked_at, expires_at ON auth.sessions FOR EACH ROW
    WHEN ((OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) OR NEW.expires_at < OLD.expires_at)
    EXECUTE FUNCTION auth.announce_session_end();
CREATE TRIGGER sessions_announce_deletion AFTER DELETE ON auth.sessions FOR EACH ROW
    WHEN (OLD.revoked_at IS NULL AND OLD.expires_at > now())
    EXECUTE FUNCTION auth.announce_session_end();

-- Who is disabled is signed out for good: what a thief has is not good again when the account is.
CREATE FUNCTION auth.end_sessions_of_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE auth.sessions SET revoked_at = now(), revoked_reason = 'user_disabled' WHERE user_id = OLD.id AND revoked_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER users_end_sessions AFTER UPDATE OF disabled_at ON auth.users FOR EACH ROW
    WHEN (OLD.disabled_at IS NULL AND NEW.disabled_at IS NOT NULL)
    EXECUTE FUNCTION auth.end_sessions_of_user();

-- When the session's cookie was last sent to its browser: it slides once a day.
ALTER TABLE auth.sessions ADD COLUMN cookie_renewed_at timestamptz;
ALTER TABLE auth.sessions SET (fillfactor = 80);

-- Each exchange of the cookie opens a chain of its own, so that no tab can use up another's token.
ALTER TABLE auth.refresh_chains DROP CONSTRAINT refresh_chains_session_app_key;
CREATE INDEX refresh_chains_session_id_idx ON auth.refresh_chains (session_id, app_id);

-- Retention. The service may delete what is old, and of the log only what is older than a month, whatever it is told.
GRANT DELETE ON auth.sessions, auth.refresh_chains, auth.security_events TO mana_service;
CREATE POLICY only_old_events ON auth.security_events AS RESTRICTIVE FOR DELETE TO mana_service
    USING (created_at < now() - interval '30 days');

-- The version of the root secret that a chain's tokens are made under moves on when the chain is rotated; the tokens before
-- secret_since were made under the older one.
ALTER TABLE auth.refresh_chains ADD COLUMN secret_since bigint NOT NULL DEFAULT 1, ADD COLUMN older_secret_version text;
