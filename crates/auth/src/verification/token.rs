//! How a token is made, looked at and used up, whatever it is for.

use super::model::{LinkToken, Purpose};
use super::store::{self, Asking, NewToken};
use crate::account::model::{AccountError, User};
use crate::account::verify::before_lock;
use crate::mail::{self, Letter, MailError, Written};
use crate::{Auth, account};
use mana_platform::DbError;
use sqlx::PgConnection;

/// Mails a new link to `email`, asked for within a session where one is named, which voids the older ones of its kind; not if the address had its share of mails for this hour, and
/// then the last one that was mailed stays good. Whoever calls has locked the user.
pub(super) async fn mail_link<T: LinkToken, L: Letter>(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    (email, asking): (&str, Option<Asking<'_>>),
    letter: impl FnOnce(&str) -> L,
) -> Result<Written, MailError> {
    let token = T::new(&*auth.rng);
    let written = mail::enqueue(connection, auth, Some(&user.id), email, &letter(token.text())).await?;
    if let Some(hash) = T::hash_of(token.text()).filter(|_| written.is_a_mail()) {
        let now = auth.clock.now();
        let token = NewToken { user: &user.id, purpose: T::PURPOSE, hash, email, asking, now };
        store::replace_token(connection, &token).await?;
    }
    Ok(written)
}

/// Whose account a link is good for, and the address that it was mailed to, without using it up.
pub(super) async fn look_at<T: LinkToken>(
    connection: &mut PgConnection,
    auth: &Auth,
    text: &str,
) -> Result<Option<(User, String)>, DbError> {
    let Some(hash) = T::hash_of(text) else { return Ok(None) };
    let found = store::find_token(connection, T::PURPOSE, hash, auth.clock.now()).await?;
    let Some((user, email)) = found else { return Ok(None) };
    let user = account::store::find_user(connection, &user).await?;
    Ok(user.map(|user| (user, email)).filter(|(user, email)| is_mailed_to::<T>(user, email)))
}

/// What a link was good for that is used up.
pub(super) struct UsedLink {
    /// Whose account.
    pub(super) user: User,
    /// Where it was mailed to.
    pub(super) email: String,
    /// The session that asked for it, if it was somebody who is signed in.
    pub(super) asked_in: Option<String>,
}

/// Uses a link up, and says what it was good for. The account is locked until the transaction
/// ends: its lock comes before that of any of its tokens, everywhere, and behind that of a wallet that a bonus waits for.
pub(super) async fn take<T: LinkToken>(
    connection: &mut PgConnection,
    auth: &Auth,
    text: &str,
) -> Result<Option<UsedLink>, AccountError> {
    let Some(hash) = T::hash_of(text) else { return Ok(None) };
    let now = auth.clock.now();
    let Some((user, email)) = store::find_token(connection, T::PURPOSE, hash, now).await? else {
        return Ok(None);
    };
    before_lock(connection, auth, &user).await?;
    let user = match T::PURPOSE {
        Purpose::ChangeEmail => account::store::lock_user_exclusively(connection, &user).await?,
        Purpose::VerifyEmail | Purpose::ResetPassword | Purpose::MagicLink | Purpose::SignInCode => {
            account::store::lock_user(connection, &user).await?
        }
    };
    let Some(user) = user else { return Ok(None) };
    if !is_mailed_to::<T>(&user, &email) {
        return Ok(None);
    }
    let used_up = store::delete_token(connection, &user.id, T::PURPOSE, &hash, now).await?;
    Ok(used_up.map(|used_up| UsedLink { user, email, asked_in: used_up.asked_in }))
}

/// What was mailed to an address that is no longer the account's is dead, but for what makes it the account's.
fn is_mailed_to<T: LinkToken>(user: &User, email: &str) -> bool {
    T::PURPOSE == Purpose::ChangeEmail || user.email == email
}
