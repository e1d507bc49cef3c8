-- A link by which an owner says "this wasn't me" ends with the address that it was mailed to, a while after its mail. That it was mailed is
-- still known: a session that no link was mailed of is taken for a stranger's sooner.
ALTER TABLE auth.disown_tokens ADD COLUMN void_from timestamptz;
GRANT UPDATE (void_from) ON auth.disown_tokens TO mana_service;
