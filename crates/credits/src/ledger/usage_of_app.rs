//! `GET /api/v1/internal/credits/usage`: what an app's users have spent in it, for the app.

use super::store::{self, AppGrouping, AppUsageRow};
use super::usage::{days, refuse, text};
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use mana_kernel::UserId;
use mana_platform::http::{
    ApiError, Parameters, ProblemBody, Scope, ServiceCaller, next_link, not_a_cursor, read_cursor, within,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

const PATH: &str = "/api/v1/internal/credits/usage";

/// Which days, whose, and how they are put together.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct AppUsageParameters {
    /// First day, as 2026-01-31; 29 days before the last if absent.
    #[param(format = Date)]
    from: Option<String>,
    /// Last day; today in the zone of daily credits if absent.
    #[param(format = Date)]
    to: Option<String>,
    /// `day` if absent, or `user`.
    #[param(pattern = "^(day|user)$", max_length = 4)]
    group_by: Option<String>,
    /// Of one user; of all if absent.
    #[param(min_length = 1, max_length = 64)]
    user_id: Option<String>,
    /// Lines a page.
    #[param(minimum = 1, maximum = 1000, default = 366)]
    limit: Option<i64>,
    /// Where the last page ended: as in its `Link` header.
    #[param(max_length = 128)]
    cursor: Option<String>,
}

/// What was spent in an app.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppUsageResponse {
    /// The app.
    #[schema(min_length = 1, max_length = 128)]
    app_id: String,
    /// First day.
    #[schema(format = Date)]
    from: String,
    /// Last day.
    #[schema(format = Date)]
    to: String,
    /// A line for each day, the oldest first, or for each user, in the order of ids. Those without a spend have none.
    #[schema(max_items = 1000)]
    items: Vec<AppUsageItem>,
}

/// Spends of a day or a user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppUsageItem {
    /// The day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Date)]
    day: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64)]
    user_id: Option<String>,
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

/// What an app's users have spent
///
/// For service keys with the scope `usage:read`: of the app that the key acts as, and of no other. Counted in the commit of each spend. While
/// there may be more, the answer has a `Link` header with `rel="next"`.
#[utoipa::path(
    get, path = "/api/v1/internal/credits/usage", tag = "credits",
    params(AppUsageParameters),
    responses(
        (status = 200, description = "Spends by day or by user", body = AppUsageResponse),
        (status = 403, description = "The key lacks the scope", body = ProblemBody),
    ),
    security(("serviceKey" = [])),
)]
pub(crate) async fn usage_of_app(
    State(credits): State<CreditsState>,
    service: ServiceCaller,
    Parameters(parameters): Parameters<AppUsageParameters>,
) -> Result<Response, ApiError> {
    service.require(Scope::UsageRead)?;
    let app = service.app()?;
    let AppUsageParameters { from, to, group_by, user_id, limit, cursor } = parameters;
    let grouping = match group_by.as_deref() {
        None | Some("day") => AppGrouping::Day,
        Some("user") => AppGrouping::User,
        Some(_) => return Err(refuse("groupBy must be day or user")),
    };
    let user = user_id.map(UserId::try_from).transpose();
    let user = user.map_err(|_| refuse("userId must be 1 to 64 letters, digits, '-' or '_'"))?;
    let limit = within(limit.unwrap_or(366), 1, 1000, "limit")?;
    let after = cursor.as_deref().map(read_place).transpose()?;

    let mut transaction = credits.database.begin().await?;
    let (from, to) = days(&mut transaction, &credits, from.as_deref(), to.as_deref()).await?;
    let whose = (app, user.as_ref());
    let page = (after.as_deref(), limit);
    let rows = store::sum_usage_of_app(&mut transaction, whose, (from, to), grouping, page).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|length| length == limit);
    let (from, to, limit) = (text(from), text(to), limit.to_string());
    let asked = [
        ("from", Some(from.as_str())),
        ("to", Some(to.as_str())),
        ("groupBy", group_by.as_deref()),
        ("userId", user.as_ref().map(UserId::as_str)),
        ("limit", Some(limit.as_str())),
    ];
    let last = rows.last().filter(|_| is_full).map(|row| row.place.clone());
    let next = last.map(|place| next_link(PATH, &asked, place.as_bytes()));
    let items = rows.into_iter().map(item).collect();
    let response = AppUsageResponse { app_id: app.to_owned(), from, to, items };
    Ok((next, Json(response)).into_response())
}

/// The line that a page ended with: a day or a user's id.
fn read_place(cursor: &str) -> Result<String, ApiError> {
    let place = String::from_utf8(read_cursor(cursor)?).map_err(|_| not_a_cursor())?;
    let is_one =
        place.len() <= 64 && place.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_one { Ok(place) } else { Err(not_a_cursor()) }
}

fn item(row: AppUsageRow) -> AppUsageItem {
    let AppUsageRow { place: _, day, user_id, spends, spent, refunded } = row;
    AppUsageItem { day: day.map(text), user_id, spends, spent, refunded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::http::write_cursor;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_that_a_page_ended_with_reads_back(place in "[0-9]{4}-[01][0-9]-[0-3][0-9]|[A-Za-z0-9_-]{1,64}") {
            prop_assert_eq!(read_place(&write_cursor(place.as_bytes())).unwrap(), place);
        }

        #[test]
        fn what_is_read_as_such_a_line_was_written_as_one(
            cursor in prop_oneof![
                "[A-Za-z0-9_=+/-]{0,90}|\\PC{0,20}",
                prop::collection::vec(any::<u8>(), 0..70).prop_map(|place| write_cursor(&place)),
                "[A-Za-z0-9_-]{0,80}|[A-Za-z0-9' %\u{0}]{1,8}".prop_map(|place| write_cursor(place.as_bytes())),
            ],
        ) {
            if let Ok(place) = read_place(&cursor) {
                prop_assert!(place.len() <= 64 && !place.contains(['\0', '\'', '%', ' ']), "{place:?}");
                prop_assert_eq!(write_cursor(place.as_bytes()), cursor);
            }
        }
    }
}
