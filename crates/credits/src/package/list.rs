//! `GET /api/v1/credits/packages`: what is for sale, for anybody.

use super::model::PackageResponse;
use super::store;
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::ApiError;

/// Packages for sale
#[utoipa::path(
    get, path = "/api/v1/credits/packages", tag = "credits",
    responses((status = 200, description = "The active packages", body = Vec<PackageResponse>)),
)]
pub(crate) async fn packages(
    State(credits): State<CreditsState>,
) -> Result<Json<Vec<PackageResponse>>, ApiError> {
    let mut transaction = credits.database.begin().await?;
    Ok(Json(store::list_packages(&mut transaction, false).await?))
}
