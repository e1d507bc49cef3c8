//! Why PostgreSQL lets nobody in or refuses what it was asked, in one sentence with the way out.

use sqlx::PgConnection;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use std::borrow::Cow;
use std::io::ErrorKind;

/// What the database said, without what only its own developers can use: where in its source it was said.
pub fn said(error: &sqlx::Error) -> String {
    if let sqlx::Error::Database(refusal) = error {
        return refused(&**refusal);
    }
    error.to_string()
}

/// The message, and the code by which a manual has it.
fn refused(refusal: &dyn DatabaseError) -> String {
    match refusal.code() {
        Some(code) => format!("{} (SQLSTATE {code})", refusal.message()),
        None => refusal.message().to_owned(),
    }
}

/// Whether a sign-in was refused: no such role, none that may sign in, or another password.
pub fn is_of_sign_in(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code.starts_with("28"))
}

/// What the owner of the database knows of a role that is to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleState {
    /// It is not there.
    Missing,
    /// It is there and can't sign in.
    Closed,
    /// It can, with the right password.
    Open,
}

impl RoleState {
    /// As it is now.
    ///
    /// # Errors
    /// When the database can't be asked.
    pub async fn find(owner: &mut PgConnection, role: &str) -> Result<Self, sqlx::Error> {
        let may_sign_in: Option<bool> =
            sqlx::query_scalar("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1")
                .bind(role)
                .fetch_optional(owner)
                .await?;
        Ok(match may_sign_in {
            None => Self::Missing,
            Some(false) => Self::Closed,
            Some(true) => Self::Open,
        })
    }
}

/// PostgreSQL is out of reach, or lets nobody in.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreached(String);

impl Unreached {
    /// As it shows at the address of `DATABASE_OWNER_URL`.
    pub fn owner(error: &sqlx::Error, options: &PgConnectOptions) -> Self {
        Self::new(error, "DATABASE_OWNER_URL", options)
    }

    /// As it shows at the address that a variable has.
    pub fn new(error: &sqlx::Error, variable: &str, options: &PgConnectOptions) -> Self {
        let place = place(options);
        Self(if let sqlx::Error::Database(refusal) = error {
            let code = refusal.code();
            turned_away(&**refusal, code.as_deref().unwrap_or_default(), variable, options)
        } else if let sqlx::Error::Io(error) = error {
            let kind = error.kind();
            let fault = if kind == ErrorKind::ConnectionRefused {
                format!("nothing listens at {place}: connection refused")
            } else if kind == ErrorKind::NotFound {
                format!("{place} is not there")
            } else if kind == ErrorKind::TimedOut {
                format!("{place} does not answer")
            } else {
                format!("{place} can't be reached: {error}")
            };
            format!("{fault}. Check {variable}, and whether PostgreSQL runs there")
        } else if let sqlx::Error::Tls(error) = error {
            format!(
                "the way to {place} can't be secured: {error}. Check sslmode and sslrootcert in {variable}"
            )
        } else {
            format!("{place} can't be reached: {error}. Check {variable}, and whether PostgreSQL runs there")
        })
    }

    /// Of the role that `DATABASE_URL` names, if what its owner knows of it explains why it was not let in.
    pub fn of_role(error: &sqlx::Error, options: &PgConnectOptions, state: RoleState) -> Self {
        let user = options.get_username();
        let set_password = set_password(user);
        let is_password = error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("28P01");
        match state {
            RoleState::Missing => Self(format!(
                "the role {user} of DATABASE_URL is not there yet: `mana-core-auth migrate` makes it, with the password that DATABASE_URL has"
            )),
            RoleState::Closed => Self(format!(
                "the role {user} of DATABASE_URL is there, but can't sign in: ALTER ROLE {} LOGIN, and {set_password}, in psql as DATABASE_OWNER_URL",
                quoted(user)
            )),
            RoleState::Open if is_password => Self(format!(
                "the role {user} is there with another password than DATABASE_URL has: {set_password} in psql, as DATABASE_OWNER_URL, sets it, or mend \
                 DATABASE_URL"
            )),
            RoleState::Open => Self::new(error, "DATABASE_URL", options),
        }
    }
}

/// What is to be done about a refusal, which PostgreSQL gave whoever wanted to connect.
fn turned_away(
    refusal: &dyn DatabaseError,
    code: &str,
    variable: &str,
    options: &PgConnectOptions,
) -> String {
    let (place, user, database) = (place(options), options.get_username(), database(options));
    let message = refusal.message();
    match code {
        "28P01" if variable == "DATABASE_URL" => format!(
            "PostgreSQL at {place} does not take the password that DATABASE_URL has for {user}: the role is there with another one, or is not there yet. \
             {} in psql, as the owner, sets it; `mana-core-auth migrate`, with DATABASE_OWNER_URL, makes a role that is missing",
            set_password(user)
        ),
        "28P01" => format!(
            "PostgreSQL at {place} does not take the password that {variable} has for {user}: mend it there, or let a superuser set it by {} in psql",
            set_password(user)
        ),
        "3D000" => format!(
            "there is no database {database} in PostgreSQL at {place}: make it (`createdb {database}`), or name another in {variable}"
        ),
        "42501" => format!(
            "PostgreSQL at {place} says: {message}. Its owner says GRANT CONNECT ON DATABASE {} TO {}, or {variable} names another role",
            quoted(database),
            quoted(user)
        ),
        "53300" => format!(
            "PostgreSQL at {place} says: {message}. Let servers take fewer connections (DATABASE_MAX_CONNECTIONS), or raise max_connections there (the \
             address is that of {variable})"
        ),
        "57P03" => format!(
            "PostgreSQL at {place} says: {message}. Try again in a moment (the address is that of {variable})"
        ),
        code if code.starts_with("28") => format!(
            "PostgreSQL at {place} does not let {user} in: {message}. Check the user in {variable}, and pg_hba.conf there"
        ),
        _ => format!("PostgreSQL at {place} says: {}. Check {variable}", refused(refusal)),
    }
}

/// Where an address leads.
fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => format!("the socket in {}", folder.display()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// PostgreSQL takes the user's name if none is given.
fn database(options: &PgConnectOptions) -> &str {
    options.get_database().unwrap_or_else(|| options.get_username())
}

fn set_password(user: &str) -> String {
    format!("`\\password {}`", quoted(user))
}

/// A name as SQL takes it.
pub(crate) fn quoted(name: &str) -> Cow<'_, str> {
    let is_plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain { Cow::Borrowed(name) } else { Cow::Owned(format!("\"{}\"", name.replace('"', "\"\""))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_name_that_is_not_plain_is_quoted() {
        assert_eq!(quoted("mana_service"), "mana_service");
        assert_eq!(quoted("Mana"), "\"Mana\"");
        assert_eq!(quoted("1\"x"), "\"1\"\"x\"");
    }

    #[test]
    fn what_does_not_answer_is_named_with_its_port_and_the_setting() {
        let options = PgConnectOptions::new_without_pgpass().host("db").port(5433).username("ada");
        let refused = |kind: ErrorKind| {
            Unreached::new(&sqlx::Error::Io(io::Error::from(kind)), "DATABASE_URL", &options).to_string()
        };
        let sentence = refused(ErrorKind::ConnectionRefused);
        assert!(sentence.contains("db:5433: connection refused. Check DATABASE_URL"), "{sentence}");
        assert!(refused(ErrorKind::TimedOut).contains("db:5433 does not answer"));
        let socket = options.clone().socket("/run/here");
        let error = sqlx::Error::Io(ErrorKind::NotFound.into());
        let sentence = Unreached::owner(&error, &socket).to_string();
        assert!(sentence.contains("/run/here") && sentence.contains("DATABASE_OWNER_URL"), "{sentence}");
    }
}
