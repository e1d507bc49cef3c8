-- Signing keys that follow each other: a key is next (published, signs nothing yet), then current (signs), then
-- previous (verifies what it signed), then deleted. One key has been made so far; it is the current one.

ALTER TABLE auth.jwks
    DROP CONSTRAINT jwks_algorithm_known,
    ADD CONSTRAINT jwks_algorithm_known CHECK (algorithm IN ('RS256', 'ES256', 'EdDSA')),
    -- Nothing needs the private half of a previous key; that of a key from the environment is never here.
    ALTER COLUMN private_key_sealed DROP NOT NULL,
    ALTER COLUMN secret_version DROP NOT NULL,
    ADD CONSTRAINT jwks_sealed_under_a_version CHECK ((private_key_sealed IS NULL) = (secret_version IS NULL)),
    -- The default is for the rows that are there: an owner without BYPASSRLS could not update them.
    ADD COLUMN activated_at timestamptz DEFAULT now(),
    ADD COLUMN served_until timestamptz,
    -- The longest life, in seconds, of a token that the key may have signed.
    ADD COLUMN longest_token_seconds bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT jwks_served_after_retirement CHECK ((retired_at IS NULL) = (served_until IS NULL)),
    ADD CONSTRAINT jwks_activated_before_retirement CHECK (retired_at IS NULL OR activated_at IS NOT NULL),
    ADD CONSTRAINT jwks_next_has_a_private_half CHECK (activated_at IS NOT NULL OR private_key_sealed IS NOT NULL);
ALTER TABLE auth.jwks ALTER COLUMN activated_at DROP DEFAULT;

CREATE UNIQUE INDEX jwks_one_current ON auth.jwks ((true)) WHERE activated_at IS NOT NULL AND retired_at IS NULL;
CREATE UNIQUE INDEX jwks_one_next ON auth.jwks ((true)) WHERE activated_at IS NULL;
GRANT DELETE ON auth.jwks TO mana_service;
