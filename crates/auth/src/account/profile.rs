//! `GET` and `POST /api/v1/auth/profile`: the account as its owner edits it.

use super::model::{ImageUrl, User};
use super::store;
use crate::AuthState;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use mana_kernel::Line;
use mana_platform::http::{ApiError, Caller, Valid, codes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The signed-in user's profile
#[utoipa::path(
    get, path = "/api/v1/auth/profile", tag = "auth",
    responses((status = 200, description = "The user", body = User)),
    security(("bearer" = [])),
)]
pub(crate) async fn profile(State(auth): State<AuthState>, caller: Caller) -> Result<Json<User>, ApiError> {
    super::me::read(&auth, &caller).await.map(Json)
}

/// What is to change; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProfileRequest {
    /// An empty one leaves the account without a name.
    name: Option<Line<0, 255>>,
    /// An empty one leaves the account without a picture.
    image: Option<ImageUrl>,
}

/// The account as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileResponse {
    /// Always true.
    success: bool,
    user: User,
}

/// Changes name or picture
#[utoipa::path(
    post, path = "/api/v1/auth/profile", tag = "auth",
    request_body = ProfileRequest,
    responses((status = 201, description = "Changed", body = ProfileResponse)),
    security(("bearer" = [])),
)]
pub(crate) async fn change_profile(
    State(auth): State<AuthState>,
    caller: Caller,
    Valid(request): Valid<ProfileRequest>,
) -> Result<(StatusCode, Json<ProfileResponse>), ApiError> {
    let (name, image) = (request.name.map(String::from), request.image.map(String::from));
    let mut transaction = auth.database.begin().await?;
    let now = auth.clock.now();
    let user =
        store::update_profile(&mut transaction, &caller.user_id, name.as_deref(), image.as_deref(), now)
            .await?
            .ok_or_else(|| ApiError::new(&codes::UNAUTHENTICATED))?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(ProfileResponse { success: true, user })))
}
