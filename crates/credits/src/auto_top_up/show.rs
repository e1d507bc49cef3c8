//! `GET /api/v1/credits/auto-top-up`: the caller's auto top-up.

use super::model::Status;
use super::store;
use crate::{CreditsState, purchase};
use axum::Json;
use axum::extract::State;
use mana_kernel::UserId;
use mana_platform::DbError;
use mana_platform::http::{ApiError, Caller};
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// As its row has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AutoTopUpRow {
    pub(super) status: String,
    pub(super) pause_reason: Option<String>,
    pub(super) threshold_mana: i64,
    pub(super) package_id: String,
    pub(super) currency: String,
    pub(super) credits: i64,
    pub(super) price_cents: i64,
    pub(super) monthly_cap_cents: i64,
    pub(super) setup_url: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) consented_at: OffsetDateTime,
    pub(super) order_id: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) capped_until: Option<OffsetDateTime>,
}

/// An auto top-up. Of one that is off, all but `status` is null.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AutoTopUpResponse {
    /// off, setup (a card is yet to be saved at `setupUrl`), active or paused.
    #[schema(max_length = 16)]
    status: String,
    /// Why it is paused: declined, `authentication_required`, `package_changed`, `package_gone`, `payment_method_gone`,
    /// `provider_refuses`, debt, disputed, refunded, `wallet_closed`, uncredited, `user_disabled` or tax.
    #[schema(max_length = 32)]
    pause_reason: Option<String>,
    /// Mana is bought when less than this can be spent.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    threshold_mana: Option<i64>,
    #[schema(min_length = 1, max_length = 64)]
    package_id: Option<String>,
    /// Mana that one top-up gives.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    credits: Option<i64>,
    #[schema(min_length = 3, max_length = 3)]
    currency: Option<String>,
    /// What one top-up costs, in the smallest unit of `currency`.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    price_cents: Option<i64>,
    /// What a month may cost at most.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    monthly_cap_cents: Option<i64>,
    /// What this month has cost so far, top-ups that are under way included.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    used_this_month_cents: Option<i64>,
    /// The month's cap is reached until then.
    #[serde(with = "time::serde::rfc3339::option")]
    capped_until: Option<OffsetDateTime>,
    /// Where the browser saves a card.
    #[schema(max_length = 4096)]
    setup_url: Option<String>,
    /// When its owner agreed to be charged.
    #[serde(with = "time::serde::rfc3339::option")]
    consented_at: Option<OffsetDateTime>,
    /// The purchase that is under way.
    #[schema(min_length = 1, max_length = 64)]
    purchase_id: Option<String>,
}

/// The auto top-up
#[utoipa::path(
    get, path = "/api/v1/credits/auto-top-up", tag = "credits",
    responses((status = 200, description = "The auto top-up, also if it is off", body = AutoTopUpResponse)),
    security(("bearer" = [])),
)]
pub(crate) async fn auto_top_up(
    State(credits): State<CreditsState>,
    caller: Caller,
) -> Result<Json<AutoTopUpResponse>, ApiError> {
    let mut transaction = credits.database.begin_as(&caller.user_id).await?;
    let (zone, now) = (&credits.policy.daily_zone, credits.clock.now());
    Ok(Json(read(&mut transaction, &caller.user_id, zone, now).await?))
}

/// What is kept of it, for its owner's own export: also of one that is off.
pub(crate) async fn list(connection: &mut PgConnection, user: &UserId) -> Result<Vec<AutoTopUpRow>, DbError> {
    Ok(store::find_for_owner(connection, user).await?.into_iter().collect())
}

/// What its owner is shown.
pub(super) async fn read(
    connection: &mut PgConnection,
    user: &UserId,
    zone: &str,
    now: OffsetDateTime,
) -> Result<AutoTopUpResponse, DbError> {
    let found = store::find_for_owner(connection, user).await?;
    let Some(row) = found.filter(|row| row.status != Status::Off.as_str()) else {
        return Ok(AutoTopUpResponse {
            status: Status::Off.as_str().to_owned(),
            ..AutoTopUpResponse::default()
        });
    };
    let month = purchase::store::find_month(connection, user, &row.currency, zone, now).await?;
    Ok(AutoTopUpResponse {
        status: row.status,
        pause_reason: row.pause_reason,
        threshold_mana: Some(row.threshold_mana),
        package_id: Some(row.package_id),
        credits: Some(row.credits),
        currency: Some(row.currency),
        price_cents: Some(row.price_cents),
        monthly_cap_cents: Some(row.monthly_cap_cents),
        used_this_month_cents: Some(month.used_cents),
        capped_until: row.capped_until.filter(|until| *until > now),
        setup_url: row.setup_url,
        consented_at: Some(row.consented_at),
        purchase_id: row.order_id,
    })
}
