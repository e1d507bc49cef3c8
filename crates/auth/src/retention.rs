//! What is deleted once nobody needs it, in bounded batches. Several replicas may do it at once: each leaves out the rows
//! that another is at.

use crate::session::liveness::KEEP_REVOCATIONS;
use crate::session::store::Window;
use crate::token::refresh;
use crate::{
    Auth, admin, bonus, mail, oauth, passkey, security_event, session, two_factor, verification, webhook,
};
use mana_kernel::id::first_uuid_at;
use mana_platform::DbError;
use mana_platform::prune::{self, Deletion, give_way};
use sqlx::PgConnection;
use std::time::Instant;
use time::{Duration, OffsetDateTime};

/// Sessions that have ended are kept for this long: their events name them.
const KEEP_ENDED_SESSIONS: Duration = Duration::days(30);
/// The log keeps everything for this long, whatever becomes of the account.
pub(crate) const KEEP_EVENTS_OF_DELETED: Duration = Duration::days(30);
/// Sessions that are looked at together, one after another in the order of their ids. No index finds those that have ended: it
/// would have to be written at each refresh (decisions/0040).
const WINDOW: i64 = 10_000;
/// Rows of one statement at most, so that no lock is held for long.
const BATCH: i64 = 1_000;

/// Deletes what is past its time.
///
/// # Errors
/// When the database fails; what was deleted until then stays deleted.
pub async fn prune(auth: &Auth) -> Result<(), DbError> {
    let now = auth.clock.now();
    let retention = Duration::try_from(auth.policy.security_event_retention).unwrap_or(Duration::MAX);
    let old = now.checked_sub(retention);
    prune_sessions(auth, now.saturating_sub(KEEP_ENDED_SESSIONS)).await?;
    if let Some(old) = old {
        until_empty(auth, |connection| {
            Box::pin(security_event::store::delete_before(connection, old, BATCH))
        })
        .await?;
    }
    erase_deleted(auth, now).await?;
    until_empty(auth, |connection| {
        Box::pin(session::liveness::store::delete_old_revocations(connection, KEEP_REVOCATIONS, BATCH))
    })
    .await?;
    let window = now.saturating_sub(mail::BUDGET_WINDOW);
    until_empty(auth, |connection| Box::pin(mail::store::delete_old_budgets(connection, window, BATCH)))
        .await?;
    until_empty(auth, |connection| Box::pin(oauth::store::delete_finished_before(connection, now, BATCH)))
        .await?;
    until_empty(auth, |connection| Box::pin(passkey::store::delete_expired(connection, now, BATCH))).await?;
    until_empty(auth, |connection| Box::pin(verification::store::delete_expired(connection, now, BATCH)))
        .await?;
    until_empty(auth, |connection| Box::pin(two_factor::store::delete_expired(connection, now, BATCH)))
        .await?;
    let day = now.saturating_sub(bonus::WINDOW);
    until_empty(auth, |connection| Box::pin(bonus::store::delete_old_networks(connection, day, BATCH)))
        .await?;
    let kept = first_uuid_at(now.saturating_sub(webhook::model::KEEP));
    until_empty(auth, |connection| Box::pin(webhook::store::delete_events_before(connection, kept, BATCH)))
        .await?;
    let mut connection = auth.database.acquire().await?;
    webhook::store::delete_expired_secrets(&mut connection, now).await?;
    admin::store::delete_expired(&mut connection, now).await?;
    connection.finish().await
}

/// Takes what the log says of a person out of it, once the account has been gone for as long as the database keeps every event.
/// Each round is committed by itself.
async fn erase_deleted(auth: &Auth, now: OffsetDateTime) -> Result<(), DbError> {
    loop {
        let begun = Instant::now();
        let mut connection = auth.database.acquire().await?;
        let again = now.saturating_add(Duration::DAY);
        let due = security_event::store::claim_erasures(&mut connection, now, again, BATCH).await?;
        connection.finish().await?;
        for user in &due {
            erase_events_of(auth, user).await?;
        }
        if i64::try_from(due.len()).is_ok_and(|claimed| claimed < BATCH) {
            return Ok(());
        }
        give_way(begun).await;
    }
}

/// Deletes the events of one user, then what asked for it.
async fn erase_events_of(auth: &Auth, user: &str) -> Result<(), DbError> {
    loop {
        let begun = Instant::now();
        let mut connection = auth.database.acquire().await?;
        let is_over = !is_full(security_event::store::delete_events_of(&mut connection, user, BATCH).await?);
        if is_over {
            security_event::store::delete_erasure(&mut connection, user).await?;
        }
        connection.finish().await?;
        if is_over {
            return Ok(());
        }
        give_way(begun).await;
    }
}

/// Goes through all sessions and deletes those that ended before `before`, with their chains.
async fn prune_sessions(auth: &Auth, before: OffsetDateTime) -> Result<(), DbError> {
    let mut after = String::new();
    loop {
        let begun = Instant::now();
        let mut connection = auth.database.acquire().await?;
        let Some(window) = session::store::find_window(&mut connection, after, before, WINDOW).await? else {
            return Ok(());
        };
        drop(connection);
        give_way(begun).await;
        if window.has_ended {
            prune_window(auth, &window, before).await?;
        }
        after = window.last;
    }
}

/// Chains go before their sessions. Each round is committed by itself.
async fn prune_window(auth: &Auth, window: &Window, before: OffsetDateTime) -> Result<(), DbError> {
    loop {
        let begun = Instant::now();
        let mut connection = auth.database.acquire().await?;
        let is_over =
            !is_full(
                refresh::store::delete_chains_ended_before(&mut connection, window, before, BATCH).await?,
            ) && !is_full(session::store::delete_ended_before(&mut connection, window, before, BATCH).await?);
        connection.finish().await?;
        give_way(begun).await;
        if is_over {
            return Ok(());
        }
    }
}

/// Deletes batch after batch, each committed by itself.
async fn until_empty(
    auth: &Auth,
    delete: impl for<'a> Fn(&'a mut PgConnection) -> Deletion<'a> + Send,
) -> Result<(), DbError> {
    prune::until_empty(&auth.database, BATCH, delete).await
}

/// Whether there may be more.
fn is_full(deleted: u64) -> bool {
    prune::is_full(deleted, BATCH)
}
