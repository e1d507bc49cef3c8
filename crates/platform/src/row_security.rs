//! Proof that one user's rows can't be seen as another: of the server's own role, and of the live database.

use crate::refusal::said;
use sqlx::PgConnection;

/// What is wrong with the roles or policies of the database.
#[derive(Debug, thiserror::Error)]
pub enum RowSecurityError {
    /// The server's role is above the policies.
    #[error(
        "the role {role} of DATABASE_URL {why}, so row-level security would not hold it. Put that address into \
         DATABASE_OWNER_URL and give DATABASE_URL the user mana_service with a password of your choice: the role is \
         made at the next start"
    )]
    RoleBypasses {
        /// The role's name.
        role: String,
        /// In words, what lets it bypass.
        why: &'static str,
    },
    /// The role is not a member of `mana_service`.
    #[error(
        "the role {0} of DATABASE_URL has no rights to serve. Run `mana-core-auth migrate` with DATABASE_OWNER_URL \
         set and the same DATABASE_URL: it grants them"
    )]
    RoleLacksRights(String),
    /// A table is not protected.
    #[error(
        "row-level security is not forced on {0}: run `ALTER TABLE {0} FORCE ROW LEVEL SECURITY, ENABLE ROW LEVEL SECURITY` as the owner"
    )]
    TableOpen(String),
    /// A user saw a row of another.
    #[error(
        "as one user, the row of another was visible in {0}: stop the service and restore the policies of the migrations"
    )]
    RowsLeak(&'static str),
    /// A user could write.
    #[error(
        "as a user, a write to {0} was not refused: stop the service and restore the grants of the migrations"
    )]
    WritesPass(&'static str),
    /// A user did not see the own row; the proof would prove nothing.
    #[error("as a user, the own row in {0} was not visible: the policies are not those of the migrations")]
    OwnRowHidden(&'static str),
    /// The database could not be asked.
    #[error("the database can't be asked: {}", said(.0))]
    Database(#[from] sqlx::Error),
}

/// Refuses a server role that could bypass row-level security, now or by its own act.
///
/// # Errors
/// When the role is a superuser, has BYPASSRLS, owns a table of the product, or lacks the service's rights.
pub async fn check_role(connection: &mut PgConnection) -> Result<(), RowSecurityError> {
    // Asked of the role that signed in, with all roles it could switch to: what it is at this moment proves nothing.
    let row: (String, bool, bool, bool, bool) = sqlx::query_as(
        "SELECT session_user::text, coalesce(bool_or(rolsuper), false), coalesce(bool_or(rolbypassrls), false), coalesce(bool_or(rolcreaterole), false)
                OR EXISTS (SELECT FROM pg_namespace WHERE nspname IN ('auth', 'credits', 'mana') AND pg_has_role(session_user, nspowner, 'MEMBER'))
                OR EXISTS (SELECT FROM pg_tables WHERE schemaname IN ('auth', 'credits', 'mana') AND pg_has_role(session_user, tableowner, 'MEMBER')),
                EXISTS (SELECT FROM pg_roles service WHERE service.rolname = 'mana_service' AND pg_has_role(session_user, service.oid, 'USAGE'))
         FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER')",
    )
    .fetch_one(connection)
    .await?;
    let (role, is_superuser, bypasses, owns, serves) = row;
    let why = match (is_superuser, bypasses, owns) {
        (true, _, _) => "is a superuser or can become one",
        (_, true, _) => "has BYPASSRLS or can get it",
        (_, _, true) => "owns the tables, can become their owner or make roles",
        (false, false, false) if serves => return Ok(()),
        (false, false, false) => return Err(RowSecurityError::RoleLacksRights(role)),
    };
    Err(RowSecurityError::RoleBypasses { role, why })
}

/// Proves on the live database that the policies hold: makes two users in a transaction that is never committed,
/// and tries to cross from one to the other as `mana_user`.
///
/// # Errors
/// The first hole that is found.
pub async fn prove(connection: &mut PgConnection) -> Result<(), RowSecurityError> {
    use sqlx::Connection as _;
    let open: Option<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE nspname IN ('auth', 'credits') AND relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity)
         ORDER BY 1 LIMIT 1",
    )
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(table) = open {
        return Err(RowSecurityError::TableOpen(table));
    }
    let mut transaction = connection.begin().await?;
    let proof = cross_users(&mut transaction).await;
    transaction.rollback().await?;
    proof
}

async fn cross_users(connection: &mut PgConnection) -> Result<(), RowSecurityError> {
    const USERS: [&str; 2] = ["doctor-probe-one", "doctor-probe-two"];
    for user in USERS {
        sqlx::query("INSERT INTO auth.users (id, email, created_at, updated_at) VALUES ($1, $1 || '@doctor.invalid', now(), now())")
            .bind(user).execute(&mut *connection).await?;
        sqlx::query(
            "INSERT INTO credits.balances (user_id, sequence, free, paid, total_earned, total_spent, head, daily_granted_on, created_at, updated_at)
             VALUES ($1, 0, 0, 0, 0, 0, decode(repeat('00', 32), 'hex'), current_date, now(), now())",
        )
        .bind(user).execute(&mut *connection).await?;
    }
    for (acting, own, foreign) in [(USERS[0], 1, 0), (USERS[1], 0, 1), ("", 0, 0)] {
        sqlx::query("SELECT set_config('role', 'mana_user', true), set_config('mana.user_id', $1, true)")
            .bind(acting)
            .execute(&mut *connection)
            .await?;
        for (table, count) in [
            (
                "auth.users",
                "SELECT count(*) FILTER (WHERE id = $1), count(*) FILTER (WHERE id <> $1) FROM auth.users",
            ),
            (
                "credits.balances",
                "SELECT count(*) FILTER (WHERE user_id = $1), count(*) FILTER (WHERE user_id <> $1) FROM credits.balances",
            ),
        ] {
            let seen: (i64, i64) = sqlx::query_as(count).bind(USERS[0]).fetch_one(&mut *connection).await?;
            if seen.0 > own || seen.1 > foreign {
                return Err(RowSecurityError::RowsLeak(table));
            }
            if seen != (own, foreign) {
                return Err(RowSecurityError::OwnRowHidden(table));
            }
        }
    }
    refused_write(connection, "auth.users", "UPDATE auth.users SET role = 'admin'").await?;
    refused_write(connection, "credits.balances", "UPDATE credits.balances SET paid = 1").await
}

async fn refused_write(
    connection: &mut PgConnection,
    table: &'static str,
    write: &'static str,
) -> Result<(), RowSecurityError> {
    use sqlx::Connection as _;
    let mut attempt = connection.begin().await?;
    let outcome = sqlx::query(write).execute(&mut *attempt).await;
    attempt.rollback().await?;
    match outcome {
        Ok(_) => Err(RowSecurityError::WritesPass(table)),
        // 42501: insufficient privilege.
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == "42501") => Ok(()),
        Err(other) => Err(other.into()),
    }
}
