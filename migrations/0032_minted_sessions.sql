-- The app whose backend opened a session for a user, who has proven nothing by it; null if the user signed in.
ALTER TABLE auth.sessions ADD COLUMN minted_by text;
GRANT SELECT (minted_by) ON auth.sessions TO mana_user;
