//! Keys and users while an app's charges are carried out: what was found stays so until the commit.

use super::given::ID;
use super::store;
use mana_platform::DbError;
use sqlx::PgConnection;

/// What was found of keys and users.
#[derive(Debug, Default)]
pub struct Held {
    /// Ids of the keys that are accepted. The environment's is, for as long as the process runs.
    pub keys: Vec<String>,
    /// Those of them that act as one app and as no other.
    pub bound_keys: Vec<String>,
    /// Users that are disabled.
    pub disabled: Vec<String>,
}

/// Those of the keys that are accepted, and those of the users that are disabled. Until the transaction ends, whoever disables one of the
/// users waits, and no revocation of one of the keys is answered.
///
/// # Errors
/// When the database fails; no key counts as accepted then.
pub async fn hold(connection: &mut PgConnection, keys: &[&str], users: &[String]) -> Result<Held, DbError> {
    let (given, made): (Vec<&str>, Vec<&str>) = keys.iter().partition(|key| **key == ID);
    let made: Vec<String> = made.into_iter().map(str::to_owned).collect();
    let mut held = if made.is_empty() && users.is_empty() {
        Held::default()
    } else {
        store::hold(connection, &made, users).await?
    };
    held.keys.extend(given.into_iter().map(str::to_owned));
    Ok(held)
}
