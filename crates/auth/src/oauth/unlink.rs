//! `DELETE /api/v1/auth/linked-accounts/{id}`: a service that is signed in with no more.

use super::arrive;
use super::model::{OAuthError, ProviderKind};
use super::store;
use crate::new_device::warn;
use crate::security_event::{self, EventKind, Origin};
use crate::session::hold::hold;
use crate::verification::ProtectionChange;
use crate::{Auth, AuthState, password, two_factor};
use axum::extract::{Path, State};
use http::StatusCode;
use mana_platform::http::{ApiError, Caller, ClientInfo, FreshCaller, Language, ProblemBody};
use uuid::Uuid;

/// Unlinks a service from the account
///
/// Not if nothing else is left to sign in with. Needs a sign-in or proof of a moment ago. Sessions stay.
#[utoipa::path(
    delete, path = "/api/v1/auth/linked-accounts/{id}", tag = "sign-in with others",
    params(("id" = String, Path, description = "As in the list of linked accounts", max_length = 36)),
    responses(
        (status = 204, description = "Unlinked"),
        (status = 403, description = "The last sign-in or proof is too old", body = ProblemBody),
        (status = 404, description = "No linked account of the caller's", body = ProblemBody),
        (status = 409, description = "The last way to sign in", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn unlink(
    State(auth): State<AuthState>,
    FreshCaller(caller): FreshCaller,
    client: ClientInfo,
    language: Language,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id: Uuid = id.parse().map_err(|_| OAuthError::NotLinked)?;
    remove(&auth, &caller, id, (language, &Origin::of_request(&client))).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    auth: &Auth,
    caller: &Caller,
    id: Uuid,
    (language, origin): (Language, &Origin),
) -> Result<(), ApiError> {
    let mut transaction = auth.database.begin().await?;
    let user = &caller.user_id;
    // A passkey that is removed at the same time must not count on this link, nor this on that.
    let owner = hold(&mut transaction, auth, caller).await?;
    let linked = store::lock_accounts(&mut transaction, user).await?;
    let provider = linked.iter().find(|account| account.id == id).ok_or(OAuthError::NotLinked)?;
    let has_another = linked.len() > 1
        || password::store::exists_password(&mut transaction, user).await?
        || two_factor::store::find_factors(&mut transaction, user).await?.has_passkey;
    if !has_another {
        return Err(OAuthError::LastWayIn.into());
    }
    store::delete_account(&mut transaction, id).await?;
    let kind = EventKind::ProviderUnlinked(ProviderKind::named(&provider.provider));
    let session = Some(&caller.session_id);
    security_event::record(&mut transaction, auth, kind, Some(user), session, origin).await?;
    let change = ProtectionChange::ServiceUnlinked(auth.providers.title_of(&provider.provider));
    let mail = warn(&mut transaction, auth, &owner, change, session, (language, origin)).await?;
    arrive::commit(transaction).await?;
    drop(mail);
    Ok(())
}
