//! `DELETE /api/v1/auth/account`: the end of an account, by its owner.
//!
//! What is known of the person is erased at once; the row stays with its id and nothing else, because the books and the log name it. The
//! address is free to be registered again.

use super::model::{AccountError, Role, User};
use super::{me, remove_ways_in, store};
use crate::mail::{self, Desk, Written};
use crate::retention::KEEP_EVENTS_OF_DELETED;
use crate::security_event::{self, EventKind, Origin};
use crate::session::check_password::check_password;
use crate::session::end::{Ended, end_chosen_by};
use crate::session::fresh::is_fresh;
use crate::session::hold::refuse_minted;
use crate::session::liveness::store::{Found, find};
use crate::session::model::{RevokeReason, SessionError};
use crate::session::store::Choice;
use crate::token::root_secret::RootSecrets;
use crate::verification::{self, AccountDeleted, Acknowledged};
use crate::{Auth, AuthState, OnUserDeleted, admin, bonus, new_device, password, session};
use axum::Json;
use axum::extract::State;
use mana_kernel::{Clock, Paragraph, Rng, UserId};
use mana_platform::http::{ApiError, Caller, ClientInfo, Language, OptionalBody, ProblemBody, codes};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Proof that the owner means it.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeleteAccountRequest {
    /// The account's password. May be left out right after a sign-in.
    #[schema(value_type = Option<String>, format = "password", max_length = 4096)]
    password: Option<SecretString>,
    /// Why, in the person's own words: for older clients. It is not kept, as nothing of the person is.
    #[serde(rename = "reason")]
    _reason: Option<Paragraph<0, 2000>>,
}

/// Deletes the account
///
/// Needs the password, or a sign-in that is fresh. All sessions end, name, address, picture and devices are erased, the wallet is closed;
/// what it had been used for stays in the books without a name.
#[utoipa::path(
    delete, path = "/api/v1/auth/account", tag = "auth",
    request_body = Option<DeleteAccountRequest>,
    responses(
        (status = 200, description = "Deleted", body = Acknowledged),
        (status = 401, description = "The password is wrong, or no accepted credential", body = ProblemBody),
        (status = 403, description = "No password, and the sign-in is too old; a session that an app opened; or sent by a browser for a page of a foreign site", body = ProblemBody),
        (status = 409, description = "The last administrator's", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn delete_account(
    State(auth): State<AuthState>,
    caller: Caller,
    client: ClientInfo,
    language: Language,
    OptionalBody(request): OptionalBody<DeleteAccountRequest>,
) -> Result<Json<Acknowledged>, ApiError> {
    let origin = Origin::of_request(&client);
    refuse_minted(&mut *auth.database.acquire().await?, &caller).await?;
    match request.unwrap_or_default().password {
        Some(password) => {
            let user = me::read(&auth, &caller).await?;
            check_password(&auth, user.email, &password, &origin).await.map_err(|error| {
                if matches!(error, SessionError::InvalidCredentials) {
                    AccountError::WrongPassword
                } else {
                    AccountError::Session(error)
                }
            })?;
        }
        None if is_fresh(&auth, &caller).await? => {}
        None => return Err(SessionError::NotFresh.into()),
    }
    if delete(&auth, &caller, language, &origin).await? {
        Ok(Json(Acknowledged::with("The account is deleted")))
    } else {
        Err(ApiError::new(&codes::UNAUTHENTICATED))
    }
}

/// Deletes the caller's account; false if the session has ended meanwhile.
async fn delete(
    auth: &Auth,
    caller: &Caller,
    language: Language,
    origin: &Origin,
) -> Result<bool, AccountError> {
    let id = &caller.user_id;
    let mut transaction = auth.database.begin().await?;
    let is_admin = |user: &User| user.role == Role::Admin;
    let was_admin = store::find_user(&mut transaction, id).await?.is_some_and(|user| is_admin(&user));
    if was_admin {
        admin::hold_off_others(&mut transaction).await?;
    }
    let eraser = Eraser::of(auth);
    eraser.close_wallet(&mut transaction, id).await?;
    let Some(user) = store::lock_user_exclusively(&mut transaction, id).await? else { return Ok(false) };
    let session = find(&mut transaction, &caller.session_id, id, auth.clock.now()).await?;
    if !matches!(session, Found::Live { .. }) {
        return Ok(false);
    }
    if is_admin(&user) && (!was_admin || !store::exists_admin_besides(&mut transaction, id).await?) {
        return Err(AccountError::LastAdmin);
    }
    let Erased { ended, mail } = eraser.erase(&mut transaction, &user, language, origin).await?;
    ended.commit(transaction, auth).await?;
    drop(mail);
    Ok(true)
}

/// An account that is gone, if the transaction commits.
pub(crate) struct Erased {
    /// Commit by it.
    pub(crate) ended: Ended,
    /// To be held until after the commit: it wakes whoever sends the mail.
    pub(crate) mail: Written,
}

/// What it takes to erase an account, in a server or at the command line.
#[derive(Debug)]
pub struct Eraser<'a> {
    desk: Desk<'a>,
    on_user_deleted: &'a dyn OnUserDeleted,
}

impl<'a> Eraser<'a> {
    /// In a process that serves no requests.
    pub fn elsewhere(
        tools: (&'a dyn Clock, &'a dyn Rng),
        root_secrets: &'a RootSecrets,
        service_name: &'a str,
        on_user_deleted: &'a dyn OnUserDeleted,
    ) -> Self {
        Self { desk: Desk::elsewhere(tools, root_secrets, service_name), on_user_deleted }
    }

    /// In a server.
    pub(crate) fn of(auth: &'a Auth) -> Self {
        Self { desk: Desk::of(auth), on_user_deleted: &*auth.on_user_deleted }
    }

    /// Closes the wallet of an account that is to be erased, before the account itself is locked: in this order a spend locks the two.
    pub(crate) async fn close_wallet(
        &self,
        connection: &mut PgConnection,
        id: &UserId,
    ) -> Result<(), AccountError> {
        self.on_user_deleted.on_user_deleted(connection, id).await.map_err(AccountError::Port)
    }

    /// Erases what is known of a person, whose wallet is closed and whose account is locked.
    pub(crate) async fn erase(
        &self,
        connection: &mut PgConnection,
        user: &User,
        language: Language,
        origin: &Origin,
    ) -> Result<Erased, AccountError> {
        let (tools, User { id, email, .. }) = ((self.desk.clock, self.desk.rng), user);
        let reason = RevokeReason::AccountDeleted;
        let ended = end_chosen_by(connection, tools, id, Choice::All, reason, origin).await?;
        let kind = EventKind::AccountDeleted;
        security_event::record_by(connection, tools, kind, Some(id), None, origin).await?;
        password::store::delete_password(connection, id).await?;
        remove_ways_in(connection, id).await?;
        bonus::store::delete_pending(connection, id).await?;
        verification::store::delete_tokens(connection, id).await?;
        new_device::store::delete_tokens_of(connection, id).await?;
        mail::store::delete_mails_of(connection, id).await?;
        session::store::update_devices_erased(connection, id).await?;
        let now = self.desk.clock.now();
        store::update_erased(connection, id, now).await?;
        let due_at = now.saturating_add(KEEP_EVENTS_OF_DELETED);
        security_event::store::insert_erasure(connection, id, due_at).await?;
        let letter = AccountDeleted { language };
        let mail = mail::enqueue_at(connection, &self.desk, None, email, &letter).await?;
        Ok(Erased { ended, mail })
    }
}
