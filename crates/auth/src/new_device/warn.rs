//! Tells the owner of a change to what opens the account: a mail, whose link ends the session that made it and takes away what was added in it.
//! It is how an owner hears of a thief whose device looked like one of theirs.

use super::announce::SignIn;
use super::model::DisownToken;
use super::store;
use crate::Auth;
use crate::account::model::User;
use crate::mail::{self, MailError, Written};
use crate::security_event::Origin;
use crate::verification::{ProtectionChange, ProtectionChanged};
use mana_kernel::SessionId;
use mana_platform::http::Language;
use sqlx::PgConnection;

/// Writes the mail down, with the link if a session made the change. Hold the outcome until after the commit.
///
/// # Errors
/// When the database fails or the mail can't be rendered; the change fails with it.
pub(crate) async fn warn(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    change: ProtectionChange<'_>,
    session: Option<&SessionId>,
    (language, origin): (Language, &Origin),
) -> Result<Written, MailError> {
    let (token, now) = (DisownToken::generate(&*auth.rng), auth.clock.now());
    let letter = ProtectionChanged {
        language,
        change,
        by: SignIn::of_client(origin.client(), now, language).in_words(),
        link: session.map(|_| token.link(auth)),
    };
    let written = mail::enqueue(connection, auth, Some(&user.id), &user.email, &letter).await?;
    if let Some(session) = session.filter(|_| written.is_a_mail()) {
        store::insert_token(connection, token.hash(), &user.id, session, now).await?;
    }
    Ok(written)
}
