//! `POST /api/v1/auth/change-password`: a new password, by whoever knows the old one.

use super::{NewPassword, choose, store};
use crate::account::model::{AccountError, User};
use crate::account::{self, me};
use crate::mail;
use crate::security_event::{self, EventKind, Origin};
use crate::session::check_password::check_password;
use crate::session::end::end_chosen;
use crate::session::hold::hold;
use crate::session::model::{RevokeReason, SessionError};
use crate::session::store::Choice;
use crate::verification::{self, Acknowledged, PasswordChanged};
use crate::{Auth, AuthState, two_factor};
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Caller, ClientInfo, Language, ProblemBody, Valid};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

/// The old one and the new one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ChangePasswordRequest {
    #[schema(value_type = String, format = "password", max_length = 4096)]
    current_password: SecretString,
    new_password: NewPassword,
}

/// Changes the password
///
/// All other sessions end, and what was mailed to set a new one is void.
#[utoipa::path(
    post, path = "/api/v1/auth/change-password", tag = "auth",
    request_body = ChangePasswordRequest,
    responses(
        (status = 200, description = "Changed", body = Acknowledged),
        (status = 400, description = "The new password can't be used", body = ProblemBody),
        (status = 401, description = "The current password is wrong, or no accepted credential", body = ProblemBody),
        (status = 429, description = "Too many attempts: see Retry-After", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn change_password(
    State(auth): State<AuthState>,
    caller: Caller,
    client: ClientInfo,
    language: Language,
    Valid(request): Valid<ChangePasswordRequest>,
) -> Result<Json<Acknowledged>, ApiError> {
    let origin = Origin::of_request(&client);
    let user = me::read(&auth, &caller).await?;
    let checked = check_password(&auth, user.email.clone(), &request.current_password, &origin).await;
    let checked = checked.map_err(|error| {
        if matches!(error, SessionError::InvalidCredentials) {
            AccountError::WrongCurrentPassword
        } else {
            AccountError::Session(error)
        }
    })?;
    let hash = choose(&auth, request.new_password, &user.email, "/newPassword", client.bucket())
        .await
        .map_err(AccountError::from)?;
    change(&auth, &caller, &checked, &hash, language, &origin).await?;
    Ok(Json(Acknowledged::with("The password is changed. All other devices are signed out")))
}

/// Sets the password, unless the session has ended meanwhile, or somebody else has set another one: that one stays.
async fn change(
    auth: &Auth,
    caller: &Caller,
    checked: &User,
    hash: &str,
    language: Language,
    origin: &Origin,
) -> Result<(), ApiError> {
    let (id, session) = (&caller.user_id, &caller.session_id);
    let now = auth.clock.now();
    let mut transaction = auth.database.begin().await?;
    let User { email, ways_in_epoch, .. } = hold(&mut transaction, auth, caller).await?;
    if ways_in_epoch != checked.ways_in_epoch {
        return Err(AccountError::WrongCurrentPassword.into());
    }
    let (choice, reason) = (Choice::AllBut(session), RevokeReason::PasswordChanged);
    let ended = end_chosen(&mut transaction, auth, id, choice, reason, origin).await?;
    store::replace_password(&mut transaction, id, hash, now).await?;
    account::store::update_ways_in(&mut transaction, id).await?;
    verification::store::delete_tokens(&mut transaction, id).await?;
    two_factor::store::delete_half_proofs(&mut transaction, id).await?;
    let kind = EventKind::PasswordChanged;
    security_event::record(&mut transaction, auth, kind, Some(id), Some(session), origin).await?;
    let mail = mail::enqueue(&mut transaction, auth, Some(id), &email, &PasswordChanged { language }).await?;
    ended.commit(transaction, auth).await?;
    drop(mail);
    Ok(())
}
