//! `PUT /api/v1/admin/packages/{id}`: makes a package, or a new version of it.

use super::model::{PackageContent, PackageId, PackageResponse};
use super::store;
use crate::CreditsState;
use axum::Json;
use axum::extract::{Path, State};
use mana_platform::DbError;
use mana_platform::http::{ApiError, FreshAdmin, ProblemBody, Valid, codes};

/// A package
///
/// Whatever differs from what it is makes a new version; orders keep the one that they were made at. What is not for sale
/// any more is `active: false`. Needs a proof that is fresh.
#[utoipa::path(
    put, path = "/api/v1/admin/packages/{id}", tag = "admin",
    params(("id" = String, Path, description = "What it is called: letters, digits, '-' and '_'", min_length = 1, max_length = 64)),
    request_body = PackageContent,
    responses(
        (status = 200, description = "The package", body = PackageResponse),
        (status = 403, description = "Not an administrator, or none who has just proven it", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn put_package(
    State(credits): State<CreditsState>,
    FreshAdmin(admin): FreshAdmin,
    Path(id): Path<String>,
    Valid(content): Valid<PackageContent>,
) -> Result<Json<PackageResponse>, ApiError> {
    let id = PackageId::try_from(id)
        .map_err(|why| ApiError::new(&codes::BAD_REQUEST).with_detail(format!("The package's id {why}")))?;
    let mut transaction = credits.database.begin().await?;
    let by = Some(admin.user_id.as_str());
    let package = store::put_package(&mut transaction, &id, &content, by, credits.clock.now()).await?;
    transaction.commit().await.map_err(DbError::from)?;
    Ok(Json(package))
}
