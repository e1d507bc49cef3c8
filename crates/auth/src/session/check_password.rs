//! Whether a password is that of an address: the same work, wait and answer for every reason why it is not.

use super::model::SessionError;
use crate::account::model::{Email, User};
use crate::account::store::PasswordAccount;
use crate::password::{self, Verdict};
use crate::security_event::{self, EventKind, Origin};
use crate::{Auth, account};
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
    let (account, verdict) = match look_up(auth, email, password, bucket).await {
        Ok(verdict) => verdict,
        Err(error) => {
            auth.limits.give_back_attempt(attempt).await;
            return Err(error);
        }
    };
    let is_right = verdict != Verdict::Wrong;
    if is_right {
        auth.limits.attempt_succeeded(attempt).await;
    }
    let (user, refusal) = match account {
        Some(PasswordAccount { user, password_hash, is_disabled: false }) if is_right => {
            if let (Verdict::RightButOutdated, Some(outdated)) = (verdict, password_hash) {
                password::upgrade(auth, &user.id, password, &outdated, bucket).await;
            }
            return Ok(user);
        }
        Some(account) if is_right => (Some(account.user.id), SessionError::AccountDisabled),
        refused => (refused.map(|account| account.user.id), SessionError::InvalidCredentials),
    };
    let mut transaction = auth.database.begin().await?;
    let kind = EventKind::SignInFailed;
    security_event::record(&mut transaction, auth, kind, user.as_ref(), None, origin).await?;
    transaction.commit().await?;
    Err(refusal)
}

/// The account of the address, if there is one, and what is to be said of the password.
async fn look_up(
    auth: &Auth,
    email: Option<Email>,
    password: &SecretString,
    bucket: AddressBucket,
) -> Result<(Option<PasswordAccount>, Verdict), SessionError> {
    let mut transaction = auth.database.begin().await?;
    let (account, others) = account::store::find_for_sign_in(&mut transaction, email.as_ref()).await?;
    // Whoever waits for a hash keeps no connection.
    drop(transaction);
    let hash = account.as_ref().and_then(|account| account.password_hash.clone());
    let verdict = auth.hasher.examine(password, hash, others, bucket).await?;
    Ok((account, verdict))
}
