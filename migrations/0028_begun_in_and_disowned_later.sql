-- What is begun by somebody is finished by the same, and what was added in a session can be undone after it as well.

-- The session, or the waiting sign-in, that began to set an authenticator app up: its code counts there alone.
ALTER TABLE auth.two_factor_auth ADD COLUMN begun_in text;

-- From where a new address was asked for: the button behind its link is enough for who comes from there.
ALTER TABLE auth.verification_tokens ADD COLUMN asked_from inet;

-- Each mail that warns of a session has a link of its own.
-- Accepted: a row for each sign-in from a new device of the last weeks; it is read in a moment.
CREATE INDEX disown_tokens_session_id_idx ON auth.disown_tokens (session_id);
ALTER TABLE auth.disown_tokens DROP CONSTRAINT disown_tokens_session_id_key;
