-- A server of the release before, which knows nothing of sessions that an app's backend opened, would put their end off when it refreshes them.
CREATE FUNCTION auth.keep_minted_end() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    NEW.expires_at := least(OLD.expires_at, NEW.expires_at);
    RETURN NEW;
END
$$;
CREATE TRIGGER sessions_minted_end BEFORE UPDATE OF expires_at ON auth.sessions
    FOR EACH ROW WHEN (OLD.minted_by IS NOT NULL) EXECUTE FUNCTION auth.keep_minted_end();
