//! `PUT /api/v1/admin/packages/{id}`: makes a package, or a new version of it.

use super::model::{PackageContent, PackageError, PackageId, PackageResponse};
use super::store;
use crate::{AdminLog, Administrator, CreditsState, SalesDeed};
use axum::Json;
use axum::extract::{Path, State};
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, ProblemBody, Valid, codes};
use sqlx::PgConnection;
use time::OffsetDateTime;

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
    client: ClientInfo,
    Path(id): Path<String>,
    Valid(content): Valid<PackageContent>,
) -> Result<Json<PackageResponse>, ApiError> {
    let id = PackageId::try_from(id)
        .map_err(|why| ApiError::new(&codes::BAD_REQUEST).with_detail(format!("The package's id {why}")))?;
    let by = Administrator { caller: Some(admin), client, reason: None };
    let log = &*credits.admin_log;
    let mut transaction = credits.database.begin().await?;
    log.hold_office(&mut transaction, &by).await.map_err(PackageError::Port)?;
    let package = put(&mut transaction, (log, &by), &id, &content, credits.clock.now()).await?;
    transaction.commit().await?;
    Ok(Json(package))
}

/// Makes the package, or a new version of it, and writes down who did: who has held the office since before.
pub(super) async fn put(
    connection: &mut PgConnection,
    (log, by): (&dyn AdminLog, &Administrator),
    id: &PackageId,
    content: &PackageContent,
    now: OffsetDateTime,
) -> Result<PackageResponse, PackageError> {
    let author = by.caller.as_ref().map(|caller| caller.user_id.as_str());
    let package = store::put_package(connection, id, content, author, now).await?;
    let deed = SalesDeed::PackageChanged { package: id.as_str() };
    log.record_sale(connection, by, deed).await.map_err(PackageError::Port)?;
    Ok(package)
}
