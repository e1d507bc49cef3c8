-- Who administers what: the actor of a security event, and finding accounts.

-- Who did it, where that was not the account's owner: an administrator, or somebody at the command line. Its reason is for
-- administrators. (Of the rows from before nothing is claimed, so none has to be read here: the log may be long.)
ALTER TABLE auth.security_events
    ADD COLUMN actor    text,
    ADD COLUMN actor_id text,
    ADD COLUMN reason   text,
    ADD CONSTRAINT security_events_actor_known CHECK (actor IN ('administrator', 'operator')) NOT VALID,
    ADD CONSTRAINT security_events_administrator_is_named
        CHECK ((actor IS NOT DISTINCT FROM 'administrator') = (actor_id IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT security_events_reason_length CHECK (length(reason) <= 500) NOT VALID,
    ADD CONSTRAINT security_events_actor_id_fkey FOREIGN KEY (actor_id) REFERENCES auth.users NOT VALID;

-- A user sees that an administrator did it, not which one and why.
REVOKE SELECT ON auth.security_events FROM mana_user;
GRANT SELECT (id, user_id, type, detail, session_id, ip_address, user_agent, request_id, created_at, actor)
    ON auth.security_events TO mana_user;

GRANT UPDATE (disabled_at) ON auth.users TO mana_service;

-- Accounts by the beginning of their address, whatever the database's collation; those of which there are few, by themselves.
-- (Built in a second for a million accounts. Until then registrations wait; sign-ins don't.)
CREATE INDEX users_email_prefix_idx ON auth.users (email COLLATE "C");
CREATE INDEX users_privileged_idx ON auth.users (email COLLATE "C") WHERE role <> 'user';
CREATE INDEX users_disabled_idx ON auth.users (email COLLATE "C") WHERE disabled_at IS NOT NULL;
