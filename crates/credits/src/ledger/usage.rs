//! `GET /api/v1/credits/usage`: what was spent, by day or by app.

use super::store::{self, Grouping, UsageRow};
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use mana_kernel::UserId;
use mana_platform::http::{Admin, ApiError, Caller, Parameters, ProblemBody, codes};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, Duration};
use utoipa::{IntoParams, ToSchema};

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
/// Days of an answer at most.
const MAX_DAYS: i64 = 366;

/// Which days, and how they are put together.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct UsageParameters {
    /// First day, as 2026-01-31; 29 days before the last if absent.
    #[param(format = Date)]
    from: Option<String>,
    /// Last day; today in the zone of daily credits if absent.
    #[param(format = Date)]
    to: Option<String>,
    /// `day` if absent, or `app`.
    #[param(pattern = "^(day|app)$", max_length = 3)]
    group_by: Option<String>,
}

/// What was spent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageResponse {
    /// First day.
    #[schema(format = Date)]
    from: String,
    /// Last day.
    #[schema(format = Date)]
    to: String,
    /// A line for each day, the oldest first, or for each app, the largest first and a thousand at most. Those without a spend have none.
    #[schema(max_items = 1000)]
    items: Vec<UsageItem>,
}

/// Spends of a day or an app.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageItem {
    /// The day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Date)]
    day: Option<String>,
    /// The app.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    app_id: Option<String>,
    /// Number of spends.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    spends: i64,
    /// Mana spent.
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64)]
    spent: i64,
    /// Mana given back.
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64)]
    refunded: i64,
}

/// What I have spent
#[utoipa::path(
    get, path = "/api/v1/credits/usage", tag = "credits",
    params(UsageParameters),
    responses((status = 200, description = "Spends by day or by app", body = UsageResponse)),
    security(("bearer" = [])),
)]
pub(crate) async fn usage(
    State(credits): State<CreditsState>,
    caller: Caller,
    Parameters(parameters): Parameters<UsageParameters>,
) -> Result<Json<UsageResponse>, ApiError> {
    answer(&credits, Some(&caller.user_id), &parameters).await
}

/// What all users have spent
#[utoipa::path(
    get, path = "/api/v1/admin/credits/usage", tag = "admin",
    params(UsageParameters),
    responses(
        (status = 200, description = "Spends by day or by app", body = UsageResponse),
        (status = 403, description = "Not an administrator", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn usage_of_all(
    State(credits): State<CreditsState>,
    _: Admin,
    Parameters(parameters): Parameters<UsageParameters>,
) -> Result<Json<UsageResponse>, ApiError> {
    answer(&credits, None, &parameters).await
}

async fn answer(
    credits: &CreditsState,
    user: Option<&UserId>,
    parameters: &UsageParameters,
) -> Result<Json<UsageResponse>, ApiError> {
    let grouping = match parameters.group_by.as_deref() {
        None | Some("day") => Grouping::Day,
        Some("app") => Grouping::App,
        Some(_) => return Err(refuse("groupBy must be day or app")),
    };
    let mut transaction = match user {
        Some(user) => credits.database.begin_as(user).await?,
        None => credits.database.begin().await?,
    };
    let (from, to) =
        days(&mut transaction, credits, parameters.from.as_deref(), parameters.to.as_deref()).await?;
    let rows = store::sum_usage(&mut transaction, user, from, to, grouping).await?;
    Ok(Json(UsageResponse { from: text(from), to: text(to), items: rows.into_iter().map(item).collect() }))
}

/// The first and the last day that are asked for.
pub(super) async fn days(
    connection: &mut PgConnection,
    credits: &CreditsState,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<(Date, Date), ApiError> {
    let (from, to) = (day_of(from)?, day_of(to)?);
    let to = match to {
        Some(day) => day,
        None => store::find_today(connection, &credits.policy.daily_zone).await?,
    };
    let from = from.unwrap_or_else(|| to.saturating_sub(Duration::days(29)));
    if !(0..MAX_DAYS).contains(&i64::from(to.to_julian_day().saturating_sub(from.to_julian_day()))) {
        return Err(refuse("from must not be after to, and they span 366 days at most"));
    }
    Ok((from, to))
}

/// A day that a client names, of years that the database has as well.
fn day_of(text: Option<&str>) -> Result<Option<Date>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let day = Date::parse(text, DAY).ok().filter(|day| (2000..=9999).contains(&day.year()));
    day.map(Some).ok_or_else(|| refuse("from and to must be days as 2026-01-31, of the years 2000 to 9999"))
}

pub(super) fn refuse(detail: &str) -> ApiError {
    ApiError::new(&codes::INVALID_QUERY).with_detail(detail)
}

fn item(row: UsageRow) -> UsageItem {
    let UsageRow { day, app_id, spends, spent, refunded } = row;
    UsageItem { day: day.map(text), app_id, spends, spent, refunded }
}

pub(super) fn text(day: Date) -> String {
    day.format(DAY).unwrap_or_default()
}
