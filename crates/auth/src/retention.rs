//! What is deleted once nobody needs it, in bounded batches. Several replicas may do it at once: each leaves out the rows
//! that another is at.

use crate::session::liveness::KEEP_REVOCATIONS;
use crate::token::refresh;
use crate::{
    Auth, admin, bonus, mail, oauth, passkey, security_event, session, two_factor, verification, webhook,
};
use mana_kernel::id::first_uuid_at;
use mana_platform::DbError;
use time::Duration;

/// Sessions that have ended are kept for this long: their events name them.
const KEEP_ENDED_SESSIONS: Duration = Duration::days(30);
/// Rows of one statement at most, so that no lock is held for long.
const BATCH: i64 = 1_000;

/// Deletes what is past its time.
///
/// # Errors
/// When the database fails; what was deleted until then stays deleted.
pub async fn prune(auth: &Auth) -> Result<(), DbError> {
    let now = auth.clock.now();
    let ended = now.saturating_sub(KEEP_ENDED_SESSIONS);
    let retention = Duration::try_from(auth.policy.security_event_retention).unwrap_or(Duration::MAX);
    let old = now.checked_sub(retention);
    let mut connection = auth.database.acquire().await?;
    while is_full(
        session::liveness::store::delete_old_revocations(&mut connection, KEEP_REVOCATIONS, BATCH).await?,
    ) {}
    while is_full(refresh::store::delete_chains_ended_before(&mut connection, ended, BATCH).await?) {}
    while is_full(session::store::delete_ended_before(&mut connection, ended, BATCH).await?) {}
    if let Some(old) = old {
        while is_full(security_event::store::delete_before(&mut connection, old, BATCH).await?) {}
    }
    let window = now.saturating_sub(mail::BUDGET_WINDOW);
    while is_full(mail::store::delete_old_budgets(&mut connection, window, BATCH).await?) {}
    while is_full(oauth::store::delete_finished_before(&mut connection, now, BATCH).await?) {}
    while is_full(passkey::store::delete_expired(&mut connection, now, BATCH).await?) {}
    while is_full(verification::store::delete_expired(&mut connection, now, BATCH).await?) {}
    while is_full(two_factor::store::delete_expired(&mut connection, now, BATCH).await?) {}
    let day = now.saturating_sub(bonus::WINDOW);
    while is_full(bonus::store::delete_old_networks(&mut connection, day, BATCH).await?) {}
    let kept = first_uuid_at(now.saturating_sub(webhook::model::KEEP));
    while is_full(webhook::store::delete_events_before(&mut connection, kept, BATCH).await?) {}
    webhook::store::delete_expired_secrets(&mut connection, now).await?;
    admin::store::delete_expired(&mut connection, now).await?;
    connection.finish().await
}

/// Whether there may be more.
fn is_full(deleted: u64) -> bool {
    i64::try_from(deleted).is_ok_and(|deleted| deleted >= BATCH)
}
