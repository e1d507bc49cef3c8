//! `GET /api/v1/credits/holds/{id}`: what became of a hold.

use super::{HoldResponse, find_seen};
use crate::CreditsState;
use axum::Json;
use axum::extract::{Path, State};
use mana_platform::http::{ApiError, Principal, ProblemBody, Scope};

/// A hold
#[utoipa::path(
    get, path = "/api/v1/credits/holds/{id}", tag = "credits",
    params(("id" = String, Path, description = "The hold", max_length = 64)),
    responses(
        (status = 200, description = "The hold", body = HoldResponse),
        (status = 404, description = "No such hold, or somebody else's", body = ProblemBody),
    ),
    security(("bearer" = []), ("serviceKey" = [])),
)]
pub(crate) async fn find_hold(
    State(credits): State<CreditsState>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<HoldResponse>, ApiError> {
    if let Principal::Service(service) = &principal {
        service.require(Scope::CreditsRead)?;
    }
    let row = find_seen(&credits, &principal, &id).await?;
    Ok(Json(HoldResponse::of_row(&row, credits.clock.now())))
}
