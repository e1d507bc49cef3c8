//! What every act of administration begins and ends with: its actor, who must still be one, and the event that tells of it.

use super::model::AdminError;
use super::store;
use crate::account::store::Account;
use crate::security_event::{self, Actor, EventKind, Origin};
use crate::session::end::{Ended, end_chosen_by};
use crate::session::model::RevokeReason;
use crate::session::store::{Choice, hold_live};
use crate::{Auth, account};
use mana_kernel::{Clock, RequestId, Rng, SessionId, UserId};
use mana_platform::db::Transaction;
use mana_platform::http::{Caller, ClientInfo, current_request_id};
use mana_platform::{Database, DbError};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Somebody acts on an account that is not theirs.
#[derive(Debug)]
pub struct Act<'a> {
    clock: &'a dyn Clock,
    rng: &'a dyn Rng,
    /// None for whoever may use the command line.
    caller: Option<&'a Caller>,
    origin: Origin,
}

impl<'a> Act<'a> {
    /// Of an administrator; of whoever may use the command line without a caller.
    pub fn new(
        (clock, rng): (&'a dyn Clock, &'a dyn Rng),
        caller: Option<&'a Caller>,
        client: &ClientInfo,
        request: Option<RequestId>,
        reason: Option<String>,
    ) -> Self {
        let actor = caller.map_or(Actor::Operator, |caller| Actor::Administrator(caller.user_id.clone()));
        Self { clock, rng, caller, origin: Origin::of_actor(actor, client, request, reason) }
    }

    /// Of the administrator whose request this task serves.
    pub(crate) fn of_request(
        auth: &'a Auth,
        caller: &'a Caller,
        client: &ClientInfo,
        reason: Option<String>,
    ) -> Self {
        Self::new((&*auth.clock, &*auth.rng), Some(caller), client, current_request_id(), reason)
    }

    /// Of whoever may use the command line.
    pub(crate) fn of_operator(tools: (&'a dyn Clock, &'a dyn Rng), reason: Option<String>) -> Self {
        Self::new(tools, None, &ClientInfo::default(), None, reason)
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// A transaction in which the actor may act. Acts take turns: two administrators who demote each other must not both find that the
    /// other is left.
    pub(crate) async fn begin(&self, database: &Database) -> Result<Transaction, AdminError> {
        let mut transaction = database.begin().await?;
        store::lock_claims(&mut transaction).await?;
        self.hold_office(&mut transaction).await?;
        Ok(transaction)
    }

    /// Goes on only if the actor's session lives and the actor administrates, both until the transaction ends.
    ///
    /// # Errors
    /// When the one or the other is not so any more, or the database fails.
    pub async fn hold_office(&self, connection: &mut PgConnection) -> Result<(), AdminError> {
        let Some(caller) = self.caller else { return Ok(()) };
        let (session, user) = (caller.session_id.as_str().to_owned(), caller.user_id.as_str().to_owned());
        if hold_live(connection, &[session], &[user], self.now()).await?.is_empty() {
            return Err(AdminError::ActorGone);
        }
        if account::store::hold_admin(connection, &caller.user_id).await? {
            Ok(())
        } else {
            Err(AdminError::NoLongerAdmin)
        }
    }

    /// By whom, from where and why.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Writes down what was done to a user's account.
    pub(super) async fn record(
        &self,
        connection: &mut PgConnection,
        kind: EventKind,
        user: &UserId,
    ) -> Result<(), DbError> {
        let by = (self.clock, self.rng);
        security_event::record_by(connection, by, kind, Some(user), None, &self.origin).await
    }

    /// Writes down what was done to the installation: on the account of the administrator who did it, on nobody's if it was done at the
    /// command line.
    pub(crate) async fn record_of_installation(
        &self,
        connection: &mut PgConnection,
        kind: EventKind,
    ) -> Result<(), DbError> {
        let (user, session) = self.caller.map(|caller| (&caller.user_id, &caller.session_id)).unzip();
        security_event::record_by(connection, (self.clock, self.rng), kind, user, session, &self.origin).await
    }

    /// Ends the chosen of a user's live sessions, and writes it down for each.
    pub(super) async fn end_chosen(
        &self,
        connection: &mut PgConnection,
        user: &UserId,
        choice: Choice<'_>,
        reason: RevokeReason,
    ) -> Result<Ended, DbError> {
        end_chosen_by(connection, (self.clock, self.rng), user, choice, reason, &self.origin).await
    }
}

/// The account that is acted on, which nobody else changes or signs in to until the transaction ends.
pub(super) async fn lock(connection: &mut PgConnection, user: &UserId) -> Result<Account, AdminError> {
    account::store::lock_account(connection, user).await?.ok_or(AdminError::UserNotFound)
}

/// The id of a path. What is no id is nobody's.
pub(super) fn user_of(path: &str) -> Result<UserId, AdminError> {
    path.parse().map_err(|_| AdminError::UserNotFound)
}

/// The id of a session, likewise.
pub(super) fn session_of(path: &str) -> Result<SessionId, AdminError> {
    path.parse().map_err(|_| AdminError::SessionNotFound)
}
