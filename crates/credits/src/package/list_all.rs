//! `GET /api/v1/admin/packages`: all packages, those that are not for sale too.

use super::model::PackageResponse;
use super::store;
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{Admin, ApiError, ProblemBody};

/// All packages
#[utoipa::path(
    get, path = "/api/v1/admin/packages", tag = "admin",
    responses(
        (status = 200, description = "The packages", body = Vec<PackageResponse>),
        (status = 403, description = "Not an administrator", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn all_packages(
    State(credits): State<CreditsState>,
    _: Admin,
) -> Result<Json<Vec<PackageResponse>>, ApiError> {
    let mut transaction = credits.database.begin().await?;
    Ok(Json(store::list_packages(&mut transaction, true).await?))
}
