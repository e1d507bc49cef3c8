//! `GET /api/v1/credits/packages`: what is for sale, for anybody.

use super::store;
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::ApiError;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A package of mana.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PackageResponse {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: Option<String>,
    /// Mana in it.
    pub(super) credits: i64,
    /// Price in EUR cents.
    pub(super) price_euro_cents: i64,
    pub(super) stripe_price_id: Option<String>,
    pub(super) active: bool,
    /// Place in the list, lowest first.
    pub(super) sort_order: i32,
    #[schema(value_type = Option<Object>)]
    pub(super) metadata: Option<Value>,
}

/// Packages for sale
#[utoipa::path(
    get, path = "/api/v1/credits/packages", tag = "credits",
    responses((status = 200, description = "The active packages", body = Vec<PackageResponse>)),
)]
pub(crate) async fn packages(
    State(credits): State<CreditsState>,
) -> Result<Json<Vec<PackageResponse>>, ApiError> {
    let mut transaction = credits.database.begin().await?;
    Ok(Json(store::list_active_packages(&mut transaction).await?))
}
