//! `DELETE /api/v1/auth/account`: the end of an account, by its owner.
//!
//! What is known of the person is erased at once; the row stays with its id and nothing else, because the books and the log name it. The
//! address is free to be registered again.

use super::model::{AccountError, User};
use super::{me, remove_ways_in, store};
use crate::mail;
use crate::security_event::{self, EventKind, Origin};
use crate::session::check_password::check_password;
use crate::session::end::end_chosen;
use crate::session::fresh::is_fresh;
use crate::session::liveness::store::{Found, find};
use crate::session::model::{RevokeReason, SessionError};
use crate::session::store::Choice;
use crate::verification::{self, AccountDeleted, Acknowledged};
use crate::{Auth, AuthState, new_device, password, session};
use axum::Json;
use axum::extract::State;
use mana_kernel::Paragraph;
use mana_platform::http::{ApiError, Caller, ClientInfo, Language, OptionalBody, ProblemBody, codes};
use secrecy::SecretString;
use serde::Deserialize;
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
        (status = 403, description = "No password, and the sign-in is too old; or sent by a browser for a page of a foreign site", body = ProblemBody),
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
    let now = auth.clock.now();
    let id = &caller.user_id;
    let mut transaction = auth.database.begin().await?;
    // The wallet before the user, as a spend locks them.
    auth.on_user_deleted.on_user_deleted(&mut transaction, id).await.map_err(AccountError::Port)?;
    let Some(User { email, .. }) = store::lock_user_exclusively(&mut transaction, id).await? else {
        return Ok(false);
    };
    if !matches!(find(&mut transaction, &caller.session_id, id, now).await?, Found::Live { .. }) {
        return Ok(false);
    }
    let reason = RevokeReason::AccountDeleted;
    let ended = end_chosen(&mut transaction, auth, id, Choice::All, reason, origin).await?;
    let kind = EventKind::AccountDeleted;
    security_event::record(&mut transaction, auth, kind, Some(id), None, origin).await?;
    password::store::delete_password(&mut transaction, id).await?;
    remove_ways_in(&mut transaction, id).await?;
    verification::store::delete_tokens(&mut transaction, id).await?;
    new_device::store::delete_tokens_of(&mut transaction, id).await?;
    mail::store::delete_mails_of(&mut transaction, id).await?;
    session::store::update_devices_erased(&mut transaction, id).await?;
    store::update_erased(&mut transaction, id, now).await?;
    let mail = mail::enqueue(&mut transaction, auth, None, &email, &AccountDeleted { language }).await?;
    ended.commit(transaction, auth).await?;
    drop(mail);
    Ok(true)
}
