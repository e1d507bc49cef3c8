//! The same acts for whoever may use the command line, straight through the database: for when nobody can sign in any more.

use super::act::Act;
use super::change::Change;
use super::find_users::AccountState;
use super::model::{AdminError, AdminUser, AdminUserDetails, Reason};
use super::{delete, end_sessions, read_user};
use crate::Wallets;
use crate::account::delete::{Erased, Eraser};
use crate::account::model::{Email, Role};
use crate::account::store::{AccountFilter, find_account, find_by_email, list_accounts};
use crate::security_event::newest;
use crate::security_event::store::AdminSecurityEvent;
use crate::session::list::DeviceResponse;
use mana_kernel::{Clock, Rng, SessionId, UserId};
use mana_platform::{Database, DbError};

/// Who acts through the database.
#[derive(Debug)]
pub struct Operator<'a> {
    /// As the service.
    pub database: &'a Database,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Randomness.
    pub rng: &'a dyn Rng,
}

impl Operator<'_> {
    /// The id of a user who is named by id or address.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn resolve(&self, name: &str) -> Result<UserId, AdminError> {
        if !name.contains('@') {
            return name.parse().map_err(|_| AdminError::UserNotFound);
        }
        let email = Email::try_from(name.to_owned()).map_err(|_| AdminError::UserNotFound)?;
        let mut transaction = self.database.begin().await?;
        let found = find_by_email(&mut transaction, &email).await?;
        found.map(|account| account.user.id).ok_or(AdminError::UserNotFound)
    }

    /// The first so many accounts whose address begins so, of a role and in a state or of all, in the order of addresses.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(
        &self,
        email_prefix: &str,
        (role, state): (Option<Role>, Option<AccountState>),
        limit: i64,
    ) -> Result<Vec<AdminUser>, DbError> {
        let prefix = email_prefix.to_lowercase();
        let filter = AccountFilter {
            email_prefix: &prefix,
            role,
            is_disabled: state.map(AccountState::is_disabled),
            is_deleted: state.map(AccountState::is_deleted),
            limit,
            ..AccountFilter::default()
        };
        let accounts = list_accounts(&mut *self.database.begin().await?, &filter).await?;
        Ok(accounts.into_iter().map(AdminUser::of).collect())
    }

    /// A user's sessions that live, the last active first.
    ///
    /// # Errors
    /// When there is no such user, or the database fails.
    pub async fn sessions(&self, user: &UserId) -> Result<Vec<DeviceResponse>, AdminError> {
        let mut transaction = self.database.begin().await?;
        end_sessions::list(&mut transaction, user, self.clock.now()).await
    }

    /// The last so many security events, newest first: a user's or everybody's, of one type or of all. Of everybody's, those of a type are
    /// looked for among the last ten thousand.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events(
        &self,
        user: Option<&UserId>,
        kind: Option<&str>,
        limit: i64,
    ) -> Result<Vec<AdminSecurityEvent>, DbError> {
        newest(&mut *self.database.begin().await?, user, kind, limit).await
    }

    /// One account, with how it is protected, used and funded.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn show(&self, wallets: &dyn Wallets, user: &UserId) -> Result<AdminUserDetails, AdminError> {
        let mut transaction = self.database.begin().await?;
        read_user::read(&mut transaction, self.clock, wallets, user).await
    }

    /// Changes an account, and says what it is then.
    ///
    /// # Errors
    /// When it can't be done, or can't be written down.
    pub async fn change(
        &self,
        user: &UserId,
        change: Change,
        reason: Option<Reason>,
    ) -> Result<AdminUser, AdminError> {
        let act = self.act(reason);
        let mut transaction = act.begin(self.database).await?;
        let (account, ended) = change.make(&mut transaction, &act, user).await?;
        ended.commit_elsewhere(transaction).await?;
        Ok(AdminUser::of(account))
    }

    /// Ends one of a user's sessions, or all, and says how many there were.
    ///
    /// # Errors
    /// When there is no such user or session, or the database fails.
    pub async fn end_sessions(
        &self,
        user: &UserId,
        session: Option<&SessionId>,
        reason: Option<Reason>,
    ) -> Result<usize, AdminError> {
        let act = self.act(reason);
        let mut transaction = act.begin(self.database).await?;
        let ended = match session {
            Some(session) => end_sessions::end_session(&mut transaction, &act, user, session).await?,
            None => end_sessions::end_sessions(&mut transaction, &act, user).await?,
        };
        Ok(ended.commit_elsewhere(transaction).await?)
    }

    /// Deletes an account, and says what is left of it.
    ///
    /// # Errors
    /// When there is no such user, it is the last administrator's, or it can't be written down.
    pub async fn delete(
        &self,
        eraser: &Eraser<'_>,
        user: &UserId,
        reason: Option<Reason>,
    ) -> Result<AdminUser, AdminError> {
        let act = self.act(reason);
        let mut transaction = act.begin(self.database).await?;
        if let Some(Erased { ended, mail: _ }) = delete::delete(&mut transaction, eraser, &act, user).await? {
            ended.commit_elsewhere(transaction).await?;
        }
        let left = find_account(&mut *self.database.begin().await?, user).await?;
        left.map(AdminUser::of).ok_or(AdminError::UserNotFound)
    }

    fn act(&self, reason: Option<Reason>) -> Act<'_> {
        Act::of_operator((self.clock, self.rng), reason.map(String::from))
    }
}
