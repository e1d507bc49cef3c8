#!/bin/bash
# Roles of the first start: each may do what it is for. Tables come later, from `migrate`, as mana_owner.
set -euo pipefail
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname="$POSTGRES_DB" <<'SQL'
\getenv owner_password DATABASE_OWNER_PASSWORD
\getenv service_password DATABASE_PASSWORD
\getenv backup_password DATABASE_BACKUP_PASSWORD
\getenv pooler_password PGBOUNCER_PASSWORD
-- No failing statement with a password in it reaches the log.
SET log_min_error_statement = panic;
SET log_min_duration_statement = -1;
SET log_statement = 'none';
SET password_encryption = 'scram-sha-256';

BEGIN;
-- Owns the schema and makes roles, is no superuser, and is bound by row-level security like all others.
CREATE ROLE mana_owner LOGIN CREATEROLE NOSUPERUSER NOBYPASSRLS PASSWORD :'owner_password';
-- Serves: owns nothing.
CREATE ROLE mana_service LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB PASSWORD :'service_password';
-- What the service becomes inside a transaction that acts for a user.
CREATE ROLE mana_user NOLOGIN NOSUPERUSER NOBYPASSRLS;
GRANT mana_user TO mana_service;
-- Reads everything for backups, writes nothing.
CREATE ROLE mana_backup LOGIN NOSUPERUSER BYPASSRLS REPLICATION PASSWORD :'backup_password';
ALTER ROLE mana_backup SET default_transaction_read_only = on;
GRANT pg_read_all_data TO mana_backup;
-- PgBouncer asks as this role how mana_service signs in, and can ask nothing else.
CREATE ROLE pgbouncer LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD :'pooler_password';

SELECT format('ALTER DATABASE %I OWNER TO mana_owner', current_database()) \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO mana_service, mana_backup, pgbouncer', current_database()) \gexec
REVOKE ALL ON SCHEMA public FROM PUBLIC;

CREATE SCHEMA pooler;
CREATE FUNCTION pooler.find_login(wanted text, OUT name text, OUT verifier text) RETURNS SETOF record
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = wanted AND rolname = 'mana_service' $$;
REVOKE ALL ON FUNCTION pooler.find_login FROM PUBLIC;
GRANT USAGE ON SCHEMA pooler TO pgbouncer;
GRANT EXECUTE ON FUNCTION pooler.find_login TO pgbouncer;
COMMIT;
SQL
