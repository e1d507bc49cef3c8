//! How a session ends before its time: in a transaction, with the event that tells of it, and at once on this replica.

use super::liveness;
use super::model::RevokeReason;
use super::store::{self, Choice};
use crate::Auth;
use crate::security_event::{self, EventKind, Origin};
use mana_kernel::{Clock, Rng, SessionId, UserId};
use mana_platform::DbError;
use mana_platform::db::Transaction;
use sqlx::PgConnection;

/// Sessions that end with the commit, which [`Self::commit`] is: after any other, this replica would go on taking them for
/// alive until its next look.
#[must_use = "commit by it, or sessions go on for a moment"]
#[derive(Debug, Default)]
pub(crate) struct Ended {
    count: usize,
}

impl Ended {
    /// Commits, and if sessions ended with it, this replica refuses them when this returns. Says how many there were.
    pub(crate) async fn commit(self, transaction: Transaction, auth: &Auth) -> Result<usize, DbError> {
        transaction.commit().await?;
        if self.count > 0 {
            liveness::ended(auth).await;
        }
        Ok(self.count)
    }

    /// Commits in a process that answers no requests: there is nothing here to refuse them. Servers do within a second.
    pub(crate) async fn commit_elsewhere(self, transaction: Transaction) -> Result<usize, DbError> {
        transaction.commit().await?;
        Ok(self.count)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// For when something else has committed: this replica refuses the sessions when this returns.
    pub(crate) async fn after_commit(self, auth: &Auth) {
        if self.count > 0 {
            liveness::ended(auth).await;
        }
    }

    /// So many, ended by the caller.
    pub(crate) fn of(count: usize) -> Self {
        Self { count }
    }

    /// And these.
    pub(crate) fn and(self, Self { count }: Self) -> Self {
        Self { count: self.count.saturating_add(count) }
    }

    /// All of these.
    pub(crate) fn all(ended: Vec<Self>) -> Self {
        ended.into_iter().fold(Self::default(), Self::and)
    }
}

/// Ends a session, live or expired, unless it was ended before.
pub(crate) async fn end_one(
    connection: &mut PgConnection,
    auth: &Auth,
    session: &SessionId,
    user: &UserId,
    reason: RevokeReason,
    origin: &Origin,
) -> Result<Ended, DbError> {
    if !store::update_revoked(connection, session, reason, auth.clock.now()).await? {
        return Ok(Ended::default());
    }
    let kind = EventKind::of_end(reason);
    security_event::record(connection, auth, kind, Some(user), Some(session), origin).await?;
    Ok(Ended::of(1))
}

/// Ends sessions that were not their owner's, and marks those as such that have ended otherwise.
pub(crate) async fn end_disowned(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    sessions: &[String],
    origin: &Origin,
) -> Result<Ended, DbError> {
    let ended = store::update_disowned(connection, sessions, auth.clock.now()).await?;
    let kind = EventKind::of_end(RevokeReason::Disowned);
    security_event::record_each_by(connection, (&*auth.clock, &*auth.rng), kind, user, &ended, origin)
        .await?;
    Ok(Ended::of(ended.len()))
}

/// Ends those of a user's live sessions that are chosen, however many.
pub(crate) async fn end_chosen(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    choice: Choice<'_>,
    reason: RevokeReason,
    origin: &Origin,
) -> Result<Ended, DbError> {
    end_chosen_by(connection, (&*auth.clock, &*auth.rng), user, choice, reason, origin).await
}

/// The same by another clock and other randomness than a server's.
pub(crate) async fn end_chosen_by(
    connection: &mut PgConnection,
    (clock, rng): (&dyn Clock, &dyn Rng),
    user: &UserId,
    choice: Choice<'_>,
    reason: RevokeReason,
    origin: &Origin,
) -> Result<Ended, DbError> {
    let ended = store::update_revoked_of(connection, user, choice, reason, clock.now()).await?;
    let kind = EventKind::of_end(reason);
    security_event::record_each_by(connection, (clock, rng), kind, user, &ended, origin).await?;
    Ok(Ended::of(ended.len()))
}
