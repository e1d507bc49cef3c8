//! What anybody may ask to be mailed to an address, written down as it comes and answered by a pass.
//!
//! The request does the same work for every address: one row, sealed. Only the pass, which nobody waits for, looks whether there is
//! an account, so neither the answer nor its time says so; an SMTP server that is down is not asked at all.

use super::store::Asking;
use super::{change_email, email_code, magic_link, reset_password, store, verify_email};
use crate::account::model::{Email, User};
use crate::mail::{MailError, Written};
use crate::token::root_secret::Purpose;
use crate::{Auth, account};
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use mana_platform::http::Language;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::Duration;

/// What nobody came to answer by then is forgotten: the person has asked again, or given up.
const FORGOTTEN_AFTER: Duration = Duration::hours(1);

/// What is to be mailed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Wanted {
    /// A link that confirms the address.
    VerifyEmail,
    /// A link that sets a new password.
    ResetPassword,
    /// A link that signs in.
    MagicLink,
    /// A code that signs in.
    SignInCode,
    /// A link that gives an account this address, asked for within a session.
    ChangeEmail {
        /// Whose.
        user: UserId,
        /// Which must live when the link is mailed.
        session: SessionId,
        /// From which address; none of a client without one.
        #[serde(default)]
        from: Option<String>,
    },
}

/// Who wants what.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) wanted: Wanted,
    /// In its canonical form.
    pub(super) email: String,
    /// The person's, as in `Accept-Language`.
    language: String,
    /// The app to come back to, if a browser may be sent there.
    pub(super) app: Option<String>,
}

impl Asked {
    /// As a request has it. An app that no browser may be sent to is left out.
    pub(super) fn new(
        auth: &Auth,
        wanted: Wanted,
        email: &Email,
        language: Language,
        app: Option<&str>,
    ) -> Self {
        let app = app.and_then(|app| auth.redirect_targets.find(app)).map(String::from);
        Self { wanted, email: email.as_str().to_owned(), language: language.tag().to_owned(), app }
    }

    pub(super) fn language(&self) -> Language {
        Language::preferred(&self.language)
    }
}

/// Writes down what somebody asked for. Hold the outcome until after the commit.
pub(super) async fn write_down(
    connection: &mut PgConnection,
    auth: &Auth,
    asked: &Asked,
) -> Result<Written, MailError> {
    let id = mana_kernel::id::new_uuid(&*auth.clock, &*auth.rng);
    let plain = serde_json::to_vec(asked)?;
    let sealed = auth.root_secrets.seal(&plain, Purpose::Mails, &format!("request {id}"), &*auth.rng)?;
    let version = auth.root_secrets.current_id();
    store::insert_request(connection, id, &sealed, version, auth.clock.now()).await?;
    Ok(Written::something(&auth.mails))
}

/// The whole of a request that anybody may make: the same for every address.
pub(super) async fn ask(auth: &Auth, asked: Asked) -> Result<(), MailError> {
    let mut transaction = auth.database.begin().await?;
    let written = write_down(&mut transaction, auth, &asked).await?;
    transaction.commit().await?;
    drop(written);
    Ok(())
}

/// Answers everything that was asked for, one after the other, each in a transaction of its own.
///
/// # Errors
/// When the database fails or a letter can't be rendered; what was not answered by then is for the next pass.
pub async fn answer_asked(auth: &Auth) -> Result<(), MailError> {
    loop {
        let mut transaction = auth.database.begin().await?;
        let Some(row) = store::delete_oldest_request(&mut transaction).await? else { return Ok(()) };
        let mut written = Written::nothing();
        if auth.clock.now() < row.created_at.saturating_add(FORGOTTEN_AFTER) {
            match open(auth, &row) {
                Ok(asked) => written = answer(&mut transaction, auth, &asked).await?,
                Err(cause) => {
                    tracing::error!(request = %row.id, cause, "what somebody asked to be mailed can't be read and is dropped");
                }
            }
        } else {
            tracing::warn!(request = %row.id, "what somebody asked to be mailed is too old and is dropped");
        }
        transaction.commit().await?;
        drop(written);
    }
}

fn open(auth: &Auth, row: &store::RequestRow) -> Result<Asked, String> {
    let name = format!("request {}", row.id);
    let plain = auth.root_secrets.open(&row.sealed, Purpose::Mails, &name, &row.secret_version);
    let plain = plain.map_err(|error| error.to_string())?;
    serde_json::from_slice(&plain).map_err(|_| "its content is not what this version writes".to_owned())
}

async fn answer(connection: &mut PgConnection, auth: &Auth, asked: &Asked) -> Result<Written, MailError> {
    if let Wanted::ChangeEmail { user, session, from } = &asked.wanted {
        let asking = Asking { session, from: from.as_deref() };
        return change_email::answer(connection, auth, asked, user, asking).await;
    }
    let Some(user) = lock_owner(connection, &asked.email).await? else { return Ok(Written::nothing()) };
    match &asked.wanted {
        Wanted::VerifyEmail if user.email_verified => Ok(Written::nothing()),
        Wanted::VerifyEmail => verify_email::answer(connection, auth, asked, &user).await,
        Wanted::ResetPassword => reset_password::answer(connection, auth, asked, &user).await,
        Wanted::MagicLink => magic_link::answer(connection, auth, asked, &user).await,
        Wanted::SignInCode => email_code::answer(connection, auth, asked, &user).await,
        Wanted::ChangeEmail { .. } => Ok(Written::nothing()),
    }
}

/// The account that has the address and may act.
async fn lock_owner(connection: &mut PgConnection, email: &str) -> Result<Option<User>, DbError> {
    let Ok(email) = Email::try_from(email.to_owned()) else { return Ok(None) };
    let Some(account) = account::store::find_by_email(connection, &email).await? else { return Ok(None) };
    let user = account::store::lock_user(connection, &account.user.id).await?;
    Ok(user.filter(|user| user.email == email.as_str()))
}
