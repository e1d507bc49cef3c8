//! Packages from a file, for the command line and for a first start.

use super::model::{NamedPackage, PackageError, PackageResponse};
use super::put::put;
use super::store;
use crate::{AdminLog, Administrator};
use mana_kernel::Clock;
use mana_platform::{Database, DbError};

/// Makes all packages of a file, or new versions of them; all or none. Others stay as they are.
///
/// # Errors
/// When one of them contradicts itself, or the database fails.
pub async fn import(
    database: &Database,
    clock: &dyn Clock,
    log: &dyn AdminLog,
    packages: &[NamedPackage],
) -> Result<Vec<PackageResponse>, PackageError> {
    let by = Administrator::operator();
    let mut transaction = database.begin().await?;
    let mut imported = Vec::with_capacity(packages.len());
    for NamedPackage { id, content } in packages {
        imported.push(put(&mut transaction, (log, &by), id, content, clock.now()).await?);
    }
    transaction.commit().await?;
    Ok(imported)
}

/// The same, if there is no package yet.
///
/// # Errors
/// As [`import`].
pub async fn seed(
    database: &Database,
    clock: &dyn Clock,
    log: &dyn AdminLog,
    packages: &[NamedPackage],
) -> Result<(), PackageError> {
    if list_all(database).await?.is_empty() {
        import(database, clock, log, packages).await?;
    }
    Ok(())
}

/// All packages.
///
/// # Errors
/// When the database fails.
pub async fn list_all(database: &Database) -> Result<Vec<PackageResponse>, DbError> {
    store::list_packages(&mut *database.acquire().await?, true).await
}
