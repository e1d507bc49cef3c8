//! `GET /api/v1/auth/linked-accounts`: the services that the caller may sign in with.

use super::store::{self, LinkedAccount};
use crate::AuthState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Caller};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A service that is linked to the account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkedAccountResponse {
    /// To unlink it by.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// As among the offered ones.
    #[schema(max_length = 32)]
    provider: String,
    /// The address that it last told; not always the account's.
    #[schema(max_length = 254)]
    email: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it was last signed in with.
    #[serde(with = "time::serde::rfc3339")]
    last_used_at: OffsetDateTime,
}

impl LinkedAccountResponse {
    /// A link as it is shown.
    pub(crate) fn of(account: LinkedAccount) -> Self {
        let LinkedAccount { id, provider, email, created_at, last_used_at } = account;
        Self { id, provider, email, created_at, last_used_at }
    }
}

/// The services that are linked to the account
#[utoipa::path(
    get, path = "/api/v1/auth/linked-accounts", tag = "sign-in with others",
    responses((status = 200, description = "The oldest first", body = Vec<LinkedAccountResponse>)),
    security(("bearer" = [])),
)]
pub(crate) async fn linked(
    State(auth): State<AuthState>,
    caller: Caller,
) -> Result<Json<Vec<LinkedAccountResponse>>, ApiError> {
    let mut transaction = auth.database.begin_as(&caller.user_id).await?;
    let accounts = store::list_accounts(&mut transaction, &caller.user_id).await?;
    Ok(Json(accounts.into_iter().map(LinkedAccountResponse::of).collect()))
}
