//! Whether a password is that of an address: the same work, wait and answer for every reason why it is not.

use super::model::SessionError;
use crate::account::model::{Email, User};
use crate::account::store::PasswordAccount;
use crate::security_event::{self, EventKind, Origin};
use crate::{Auth, account};
use mana_platform::DbError;
use mana_platform::http::AddressBucket;
use mana_platform::rate_limit::{AccountKey, whole_seconds};
use secrecy::SecretString;

/// The account of the address, if the password is its own. An unknown address costs the same hash and the same write as a
/// wrong password, reads the same, and is slowed down the same.
pub(crate) async fn check_password(
    auth: &Auth,
    email: String,
    password: &SecretString,
    origin: &Origin,
) -> Result<User, SessionError> {
    let typed = AccountKey::of(&email);
    let email = Email::try_from(email).ok();
    let key = email.as_ref().map_or(typed, |email| AccountKey::of(email.as_str()));
    let bucket = origin.client().bucket();
    let attempt = match auth.limits.reserve_attempt(key, bucket).await {
        Ok(attempt) => attempt,
        Err(wait) => {
            auth.limits.note_refused_attempt(key, origin.client());
            return Err(SessionError::TooManyAttempts { retry_after_seconds: whole_seconds(wait) });
        }
    };
    let (account, is_right) = match look_up(auth, email, password, bucket).await {
        Ok(verdict) => verdict,
        Err(error) => {
            auth.limits.give_back_attempt(attempt).await;
            return Err(error);
        }
    };
    if is_right {
        auth.limits.attempt_succeeded(attempt).await;
    }
    let (user, refusal) = match account {
        Some(account) if is_right && !account.is_disabled => return Ok(account.user),
        Some(account) if is_right => (Some(account.user.id), SessionError::AccountDisabled),
        refused => (refused.map(|account| account.user.id), SessionError::InvalidCredentials),
    };
    let mut transaction = auth.database.begin().await?;
    let kind = EventKind::SignInFailed;
    security_event::record(&mut transaction, auth, kind, user.as_ref(), None, origin).await?;
    transaction.commit().await.map_err(DbError::from)?;
    Err(refusal)
}

/// The account of the address, if there is one, and whether the password is its own.
async fn look_up(
    auth: &Auth,
    email: Option<Email>,
    password: &SecretString,
    bucket: AddressBucket,
) -> Result<(Option<PasswordAccount>, bool), SessionError> {
    let account = match email {
        Some(email) => {
            let mut transaction = auth.database.begin().await?;
            account::store::find_by_email(&mut transaction, &email).await?
        }
        None => None,
    };
    let hash = account.as_ref().and_then(|account| account.password_hash.clone());
    let is_right = auth.hasher.verify(password, hash, bucket).await?;
    Ok((account, is_right))
}
